package relay

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A socket sends and receives in batches: recvmmsg with UDP_GRO, sendmmsg with
// UDP_SEGMENT (udp(7)). What the kernel does not know is done without.
//
// Its descriptor is not in the Go runtime's poller, which would be told of each
// datagram beside the loop that reads it, and of each that has been sent.
type socket struct {
	fd    int
	local netip.AddrPort
	v6    bool

	// users counts calls that use fd, and is negative once it is closed. The
	// last of them gives fd back.
	users atomic.Int32

	overruns overruns
	// largest is the size of the largest datagram that the kernel cuts off
	// larger sends; it falls with each refusal, and to 0 for good when the kernel
	// cannot or the interface does not.
	largest atomic.Int32
}

// maxSegments is what a kernel cuts at most (UDP_MAX_SEGMENTS before Linux 6.9),
// maxSegmented what one such send may hold.
const (
	maxSegments  = 64
	maxSegmented = 65000
	// certain is a size that fits every path (RFC 8200 section 5): a kernel
	// that refuses to cut that does not cut at all.
	certain = 1280 - 48
)

// newSocket takes over a socket: conn is closed. On an error it is not.
func newSocket(conn *net.UDPConn, v6 bool) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, failed := -1, error(nil)
	if err := raw.Control(func(old uintptr) { fd, failed = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, fmt.Errorf("duplicate a socket: %w", failed)
	}
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	s := &socket{fd: fd, local: netip.AddrPortFrom(local.Addr().Unmap(), local.Port()), v6: v6}
	conn.Close()
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	if _, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT); err == nil {
		s.largest.Store(maxSegmented)
	}
	return s, nil
}

// enter keeps fd open until exit. It reports false when it is closed.
func (s *socket) enter() bool {
	if s.users.Add(1) > 0 {
		return true
	}
	s.exit()
	return false
}

func (s *socket) exit() {
	if s.users.Add(-1) == closing {
		s.giveBack()
	}
}

// close closes the socket as soon as nobody uses it. It is called once.
func (s *socket) close() {
	if s.users.Add(closing) == closing {
		s.giveBack()
	}
}

// Values of users: closing has nobody left, and beyond closed nobody closes,
// who comes too late.
const (
	closing = math.MinInt32
	closed  = closing + 1<<30
)

func (s *socket) giveBack() {
	if s.users.CompareAndSwap(closing, closed) { // else somebody has come meanwhile, and will
		unix.Close(s.fd)
	}
}

// with calls f with the descriptor, or returns net.ErrClosed.
func (s *socket) with(f func(fd int) error) error {
	if !s.enter() {
		return net.ErrClosed
	}
	defer s.exit()
	return f(s.fd)
}

// file returns a duplicate.
func (s *socket) file() (f *os.File, err error) {
	err = s.with(func(fd int) error {
		fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			f = os.NewFile(uintptr(fd), "udp")
		}
		return err
	})
	return f, err
}

// askDestination asks the kernel to tell the destination of each datagram, so
// that answers leave from the address the client had sent to.
func (s *socket) askDestination() error {
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if s.v6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	return s.with(func(fd int) error { return unix.SetsockoptInt(fd, level, option, 1) })
}

// An address is where datagrams go, as the kernel wants it.
type address struct {
	name   unix.RawSockaddrInet6
	length uint32
	source [sourceSize]byte // control message with the address of ours
	with   int              // bytes of it, 0: the kernel chooses
}

// sourceSize holds an IPV6_PKTINFO control message.
const sourceSize = 40

// addressOf prepares sends to an address, from the address of ours, or from
// one that the kernel chooses when that is not valid.
func (s *socket) addressOf(to netip.AddrPort, from netip.Addr) (a address) {
	port := (*[2]byte)(unsafe.Pointer(&a.name.Port)) // at the same place in both
	binary.BigEndian.PutUint16(port[:], to.Port())
	if s.v6 {
		a.name.Family, a.length = unix.AF_INET6, unix.SizeofSockaddrInet6
		a.name.Addr = to.Addr().As16()
		a.name.Scope_id = scopeOf(to.Addr())
	} else {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.name))
		v4.Family, a.length = unix.AF_INET, unix.SizeofSockaddrInet4
		v4.Addr = to.Addr().Unmap().As4()
	}
	if from.IsValid() {
		a.with = putSource(a.source[:], from)
	}
	return a
}

func scopeOf(a netip.Addr) uint32 {
	if a.Zone() != "" {
		if i, err := net.InterfaceByName(a.Zone()); err == nil {
			return uint32(i.Index)
		}
	}
	return 0
}

// putSource writes the control message that makes datagrams leave from the
// address, and returns its size.
func putSource(dst []byte, from netip.Addr) int {
	size, level, typ := unix.SizeofInet4Pktinfo, unix.IPPROTO_IP, unix.IP_PKTINFO
	if from.Is6() {
		size, level, typ = unix.SizeofInet6Pktinfo, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&dst[0]))
	h.Level, h.Type = int32(level), int32(typ)
	h.SetLen(unix.CmsgLen(size))
	data := dst[cmsgHeader:]
	if from.Is6() {
		a := from.As16()
		copy(data, a[:])
		if from.IsLinkLocalUnicast() {
			binary.NativeEndian.PutUint32(data[16:], scopeOf(from))
		}
	} else {
		a := from.As4()
		copy(data[4:], a[:]) // ipi_spec_dst
	}
	return unix.CmsgSpace(size)
}

// CanSetDontFragment says whether datagrams can be kept from being fragmented
// (RFC 8656 section 14).
const CanSetDontFragment = true

// setDontFragment sets the DF bit of what the socket sends. IP_PMTUDISC_PROBE
// sets it whatever the kernel believes of the path; without it fragments are
// allowed, as the client did not ask for anything else.
func (s *socket) setDontFragment(on bool) error {
	level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT
	if s.v6 {
		level, option, value = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT
	}
	if on {
		value = unix.IP_PMTUDISC_PROBE // the same number for IPv6
	}
	return s.with(func(fd int) error { return unix.SetsockoptInt(fd, level, option, value) })
}

// shared lets several sockets listen on one address; the kernel spreads the
// clients over them and keeps each with one.
func shared(fd uintptr) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

const canShare = true
