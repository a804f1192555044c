package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batch      = 64
	bufferSize = 32 << 20 // of the kernel, each way
)

// socket is a UDP socket. One that is bound to the unspecified address stands
// for many clients or peers: each datagram names its own source address.
type socket struct {
	fd    int
	six   bool
	local netip.AddrPort
	flow  int // whose it is; -1 when it stands for many
	gro   bool
}

func openSocket(o socketOptions, flow int) (s *socket, err error) {
	err = inNamespace(o.namespace, func() error {
		s, err = openHere(o, flow)
		return err
	})
	return s, err
}

func openHere(o socketOptions, flow int) (*socket, error) {
	s := &socket{six: o.bind.Addr().Is6(), flow: flow, gro: o.gro}
	family := unix.AF_INET
	if s.six {
		family = unix.AF_INET6
	}
	var err error
	if s.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return nil, err
	}
	// As much as we may have: what is lost must be lost by the server.
	for _, opt := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, opt[0], bufferSize) != nil {
			_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, opt[1], bufferSize)
		}
	}
	for _, opt := range []struct {
		level, name, value int
		wanted             bool
	}{
		{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1, true},
		{unix.IPPROTO_IP, unix.IP_PKTINFO, 1, flow < 0},
		{unix.IPPROTO_UDP, unix.UDP_GRO, 1, o.gro},
	} {
		if opt.wanted && err == nil {
			err = unix.SetsockoptInt(s.fd, opt.level, opt.name, opt.value)
		}
	}
	var to sockaddr
	to.set(o.bind)
	if err == nil {
		_, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(s.fd), uintptr(unsafe.Pointer(&to.raw)), uintptr(to.n))
		if errno != 0 {
			err = errno
		}
	}
	if err != nil {
		unix.Close(s.fd)
		return nil, fmt.Errorf("UDP socket on %v: %w", o.bind, err)
	}
	sa, err := unix.Getsockname(s.fd)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		s.local = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		s.local = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return s, err
}

func (s *socket) close() { unix.Close(s.fd) }

// dropped returns how much the kernel had no room for in this socket.
func (s *socket) dropped() uint64 {
	var info [9]uint32 // SK_MEMINFO_DROPS is the last one
	n := uint32(unsafe.Sizeof(info))
	const soMemInfo = 55
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_SOCKET, soMemInfo,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0
	}
	return uint64(info[8])
}

// sockaddr is an address as the kernel takes it.
type sockaddr struct {
	raw [unix.SizeofSockaddrInet6]byte
	n   uint32
}

func (s *sockaddr) set(a netip.AddrPort) {
	s.raw = [unix.SizeofSockaddrInet6]byte{}
	binary.BigEndian.PutUint16(s.raw[2:], a.Port())
	if a.Addr().Is4() {
		binary.NativeEndian.PutUint16(s.raw[:], unix.AF_INET)
		copy(s.raw[4:], a.Addr().AsSlice())
		s.n = unix.SizeofSockaddrInet4
		return
	}
	binary.NativeEndian.PutUint16(s.raw[:], unix.AF_INET6)
	copy(s.raw[8:], a.Addr().AsSlice())
	s.n = unix.SizeofSockaddrInet6
}

func (s *sockaddr) get() netip.AddrPort {
	port := binary.BigEndian.Uint16(s.raw[2:])
	if binary.NativeEndian.Uint16(s.raw[:]) == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s.raw[4:])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(s.raw[8:])), port)
}

type mmsghdr struct {
	unix.Msghdr
	n uint32
	_ [4]byte
}

const (
	controlHead  = unix.SizeofCmsghdr
	controlSpace = 128
)

// controlMessage writes one control message and returns how much room it takes.
func controlMessage(b []byte, level, kind int32, value []byte) int {
	binary.NativeEndian.PutUint64(b, uint64(controlHead+len(value)))
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(kind))
	copy(b[controlHead:], value)
	return controlHead + (len(value)+7)&^7
}

// pktinfo is a struct in_pktinfo that asks for a source address.
func pktinfo(src netip.Addr) []byte {
	b := make([]byte, 12)
	if src.Is4() {
		copy(b[4:], src.AsSlice())
	}
	return b
}

// sender collects datagrams of one size and sends them in batches. Runs to one
// destination become one message for the kernel (UDP_SEGMENT) with gso.
type sender struct {
	size   int
	gso    bool
	sock   *socket
	n      int
	route  [batch]*route
	data   []byte
	heads  [batch]mmsghdr
	iov    [batch]unix.Iovec
	ctl    [batch][controlSpace]byte
	unsent uint64 // refused by our own kernel
}

// route is where the datagrams of one flow come from and go to.
type route struct {
	sock *socket
	to   sockaddr
	info []byte // pktinfo with the source; nil where the socket has one
}

func newRoute(s *socket, src netip.Addr, to netip.AddrPort) *route {
	r := &route{sock: s}
	r.to.set(to)
	if s.flow < 0 {
		r.info = pktinfo(src)
	}
	return r
}

func newSender(size int, gso bool) *sender {
	s := &sender{size: size, gso: gso, data: make([]byte, batch*size)}
	for i := range s.data {
		s.data[i] = byte(i * 31 >> 3)
	}
	return s
}

// next returns the buffer of the next datagram, for the caller to fill.
func (s *sender) next(r *route) []byte {
	if s.n == batch || s.n > 0 && s.sock != r.sock {
		s.flush()
	}
	s.sock = r.sock
	s.route[s.n] = r
	b := s.data[s.n*s.size : (s.n+1)*s.size]
	s.n++
	return b
}

func (s *sender) flush() {
	messages := 0
	var packets [batch]int
	for i := 0; i < s.n; {
		r, run := s.route[i], 1
		for s.gso && i+run < s.n && s.route[i+run] == r && (run+1)*s.size < 65000 {
			run++
		}
		h, c := &s.heads[messages].Msghdr, s.ctl[messages][:]
		s.iov[messages].Base = &s.data[i*s.size]
		s.iov[messages].SetLen(run * s.size)
		h.Iov, h.Iovlen = &s.iov[messages], 1
		h.Name, h.Namelen = &r.to.raw[0], r.to.n
		used := 0
		if r.info != nil {
			used += controlMessage(c, unix.IPPROTO_IP, unix.IP_PKTINFO, r.info)
		}
		if run > 1 {
			used += controlMessage(c[used:], unix.IPPROTO_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, uint16(s.size)))
		}
		h.Control = nil
		if used > 0 {
			h.Control = &c[0]
		}
		h.SetControllen(used)
		packets[messages] = run
		messages++
		i += run
	}
	for at := 0; at < messages; {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.sock.fd), uintptr(unsafe.Pointer(&s.heads[at])), uintptr(messages-at), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			at += int(n)
		case unix.EINTR, unix.ECONNREFUSED: // the latter is of an earlier one
		default:
			s.unsent += uint64(packets[at])
			at++
		}
	}
	s.n = 0
}

// writeTo sends one datagram of any size.
func (r *route) writeTo(b []byte) error {
	h := unix.Msghdr{Name: &r.to.raw[0], Namelen: r.to.n, Iovlen: 1}
	var iov unix.Iovec
	iov.Base = &b[0]
	iov.SetLen(len(b))
	h.Iov = &iov
	var c [controlSpace]byte
	if r.info != nil {
		h.SetControllen(controlMessage(c[:], unix.IPPROTO_IP, unix.IP_PKTINFO, r.info))
		h.Control = &c[0]
	}
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(r.sock.fd), uintptr(unsafe.Pointer(&h)), 0)
	if errno != 0 && errno != unix.ECONNREFUSED {
		return errno
	}
	return nil
}

// receiver reads from a set of sockets.
type receiver struct {
	sockets []*socket
	epoll   int // -1 with one socket
	ready   [256]unix.EpollEvent
	slot    int
	data    []byte
	heads   [batch]mmsghdr
	iov     [batch]unix.Iovec
	names   [batch]sockaddr
	ctl     [batch][controlSpace]byte
}

func newReceiver(sockets []*socket) (*receiver, error) {
	r := &receiver{sockets: sockets, epoll: -1, slot: 2048}
	for i, s := range sockets {
		if s.gro {
			r.slot = 1 << 16
		}
		if len(sockets) == 1 {
			break
		}
		if i == 0 {
			var err error
			if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
				return nil, err
			}
		}
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return nil, err
		}
	}
	r.data = make([]byte, batch*r.slot)
	return r, nil
}

func (r *receiver) close() {
	if r.epoll >= 0 {
		unix.Close(r.epoll)
	}
}

// drain hands over what has arrived, without waiting, and returns how much that
// was. It ends early under a flood, so that the caller can also send.
func (r *receiver) drain(handle func(*socket, *datagram)) (got int) {
	const rounds = 16
	if r.epoll < 0 {
		for range rounds {
			n := r.read(r.sockets[0], handle)
			if got += n; n < batch {
				break
			}
		}
		return got
	}
	n, err := unix.EpollWait(r.epoll, r.ready[:], 0)
	if err != nil {
		return 0
	}
	for _, e := range r.ready[:n] {
		got += r.read(r.sockets[e.Fd], handle)
	}
	return got
}

func (r *receiver) read(s *socket, handle func(*socket, *datagram)) int {
	for i := range r.heads {
		h := &r.heads[i].Msghdr
		r.iov[i].Base = &r.data[i*r.slot]
		r.iov[i].SetLen(r.slot)
		h.Iov, h.Iovlen = &r.iov[i], 1
		h.Name, h.Namelen = &r.names[i].raw[0], unix.SizeofSockaddrInet6
		h.Control = &r.ctl[i][0]
		h.SetControllen(controlSpace)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&r.heads[0])), batch, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	now := int64(0)
	for i := range int(n) {
		d := datagram{from: r.names[i].get()}
		segment := r.parse(i, &d)
		if d.at == 0 {
			if now == 0 {
				now = time.Now().UnixNano()
			}
			d.at = now
		}
		whole := r.data[i*r.slot:][:r.heads[i].n]
		if segment == 0 {
			segment = len(whole)
		}
		for len(whole) > 0 {
			d.data = whole[:min(segment, len(whole))]
			whole = whole[len(d.data):]
			handle(s, &d)
		}
	}
	return int(n)
}

// parse reads the control messages of a datagram; it returns the size of its
// segments, 0 when it is one.
func (r *receiver) parse(i int, d *datagram) (segment int) {
	c := r.ctl[i][:r.heads[i].Controllen]
	for len(c) >= controlHead {
		n := int(binary.NativeEndian.Uint64(c))
		if n < controlHead || n > len(c) {
			break
		}
		level, kind, value := binary.NativeEndian.Uint32(c[8:]), binary.NativeEndian.Uint32(c[12:]), c[controlHead:n]
		switch {
		case level == unix.SOL_SOCKET && kind == unix.SO_TIMESTAMPNS && len(value) >= 16:
			d.at = int64(binary.NativeEndian.Uint64(value))*1e9 + int64(binary.NativeEndian.Uint64(value[8:]))
		case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(value) >= 12:
			d.to = netip.AddrFrom4([4]byte(value[8:]))
		case level == unix.IPPROTO_UDP && kind == unix.UDP_GRO && len(value) >= 4:
			segment = int(binary.NativeEndian.Uint32(value))
		}
		c = c[min((n+7)&^7, len(c)):]
	}
	return segment
}

// sleepUntil waits for a time in Unix nanoseconds, more exactly than the
// runtime's timers do. A short sleep is kept from the scheduler, which would
// give our place to others and take more time for that than the packets need.
func sleepUntil(t int64) {
	const short = int64(2 * time.Millisecond)
	if t-time.Now().UnixNano() > short {
		time.Sleep(time.Duration(t - time.Now().UnixNano() - short/2))
	}
	ts := unix.NsecToTimespec(t)
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_REALTIME, unix.TIMER_ABSTIME, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
		if errno != unix.EINTR {
			return
		}
	}
}

// exactTimers lets this thread wake when it asked to, not up to 50 µs later.
func exactTimers() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) }

// inNamespace runs f in a network namespace; what f opens stays there.
func inNamespace(name string, f func() error) error {
	if name == "" {
		return f()
	}
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and with it the
		// foreign namespace.
		runtime.LockOSThread()
		done <- func() error {
			ns, err := os.Open("/run/netns/" + name)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("namespace %s: %w", name, err)
			}
			return f()
		}()
	}()
	return <-done
}

// cpuClock returns the CPU time that a process has used, with all its threads
// and those that have ended, in nanoseconds (clock_getcpuclockid(3)). That is
// exact; /proc/PID/stat, which counts ticks, is only asked where it fails.
func cpuClock(pid int) (int64, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|2), &ts)
	if err == nil {
		return ts.Nano(), nil
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESRCH) {
		return statClock(pid)
	}
	return 0, err
}
