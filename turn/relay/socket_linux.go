package relay

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A socket sends and receives in batches: recvmmsg with UDP_GRO, sendmmsg with
// UDP_SEGMENT (udp(7)). What the kernel does not know is done without.
type socket struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	v6   bool

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

// newSocket takes over a socket.
func newSocket(conn *net.UDPConn, v6 bool) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, raw: raw, v6: v6}
	err = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		if _, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT); err == nil {
			s.largest.Store(maxSegmented)
		}
	})
	return s, err
}

// askDestination asks the kernel to tell the destination of each datagram, so
// that answers leave from the address the client had sent to.
func (s *socket) askDestination() error {
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if s.v6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	var failed error
	if err := s.raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, 1) }); err != nil {
		return err
	}
	return failed
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	length uint32
}

const (
	readAtOnce = 16
	// readSize holds the largest datagram, or what UDP_GRO puts together. The
	// odd rest keeps the buffers from meeting in the same lines of the cache.
	readSize = 1<<16 + 2112
	// oobIn holds IPV6_PKTINFO and UDP_GRO.
	oobIn = 96
)

// inbox is the kernel's side of a batch.
type inbox struct {
	headers [readAtOnce]mmsghdr
	vectors [readAtOnce]unix.Iovec
	names   [readAtOnce]unix.RawSockaddrInet6
	control [readAtOnce][oobIn]byte
	buffer  []byte

	reads  int        // of the last call
	failed unix.Errno // why there are none
	zones  map[uint32]string
}

func newBatch() *batch {
	b := &batch{received: make([]received, 0, readAtOnce)}
	b.buffer = make([]byte, readAtOnce*readSize)
	b.zones = make(map[uint32]string)
	for i := range b.headers {
		b.vectors[i].Base = &b.buffer[i*readSize]
		b.vectors[i].SetLen(1 << 16)
		h := &b.headers[i]
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Control = &b.control[i][0]
	}
	return b
}

// receive reads until the socket is closed and gives every batch to handle,
// which must not keep it. It returns nil after Close.
//
// handle runs outside of the connection's Read: Close waits for that to
// return, and handle may be what closes.
func (s *socket) receive(handle func(*batch)) error {
	b := newBatch()
	wait := func(fd uintptr) bool { return b.read(fd) }
	for {
		if err := s.raw.Read(wait); errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return err
		}
		b.pass(s, handle)
	}
}

// pass gives what was read to handle.
func (b *batch) pass(s *socket, handle func(*batch)) {
	if b.failed != 0 { // what a peer caused is taken with it, and what stays must not spin
		time.Sleep(time.Millisecond)
		return
	}
	b.received = b.received[:0]
	for i := range b.reads {
		s.parse(b, i)
	}
	handle(b)
	b.clear()
}

// read reads what is there and reports false when that is nothing.
//
// It and flush do not tell the scheduler of their calls, which never wait: it
// would take the processor away from one of more than 20 µs, as a long run is,
// and the switch would cost more.
func (b *batch) read(fd uintptr) (ready bool) {
	for i := range b.headers {
		h := &b.headers[i]
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(oobIn)
		h.Flags = 0
	}
	for {
		n, _, err := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.headers[0])), readAtOnce, unix.MSG_DONTWAIT, 0, 0)
		if err != unix.EINTR {
			b.reads, b.failed = int(n), err
			return err != unix.EAGAIN
		}
	}
}

// parse adds the i-th read to the received ones.
func (s *socket) parse(b *batch, i int) {
	h := &b.headers[i]
	if h.Flags&unix.MSG_TRUNC != 0 {
		return
	}
	d := received{payload: b.buffer[i*readSize:][:h.length]}
	name := &b.names[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	switch name.Family {
	case unix.AF_INET:
		d.from = netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr), port)
	case unix.AF_INET6:
		a := netip.AddrFrom16(name.Addr).Unmap()
		if name.Scope_id != 0 {
			a = a.WithZone(b.zone(name.Scope_id))
		}
		d.from = netip.AddrPortFrom(a, port)
	default:
		return
	}
	s.ancillary(b.control[i][:min(uint64(h.Controllen), oobIn)], &d)
	b.received = append(b.received, d)
}

// zone returns the name of an interface.
func (b *batch) zone(index uint32) string {
	name, ok := b.zones[index]
	if !ok {
		if i, err := net.InterfaceByIndex(int(index)); err == nil {
			name = i.Name
		}
		b.zones[index] = name
	}
	return name
}

var cmsgHeader = unix.CmsgLen(0)

// ancillary reads the control messages of a read: where it was sent to, and
// the size of the datagrams that were put together.
func (s *socket) ancillary(oob []byte, d *received) {
	for len(oob) >= cmsgHeader {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		size := int(h.Len)
		if size < cmsgHeader || size > len(oob) {
			return
		}
		data := oob[cmsgHeader:size]
		switch {
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			d.segment = int(binary.NativeEndian.Uint32(data))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= 12:
			d.to = netip.AddrFrom4([4]byte(data[8:12])) // ipi_addr
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= 20:
			d.to = netip.AddrFrom16([16]byte(data[:16]))
		}
		oob = oob[min(unix.CmsgSpace(size-cmsgHeader), len(oob)):]
	}
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

const (
	sendAtOnce = 64  // messages
	sendFrames = 256 // of them, which is 4 runs that the kernel cuts
)

// outbox is one call of sendmmsg. It is used again and again, so that sending
// allocates nothing.
type outbox struct {
	to      address
	headers [sendAtOnce]mmsghdr
	vectors [2 * sendFrames]unix.Iovec
	heads   [sendFrames][headerSize]byte
	control [sendAtOnce][sourceSize + 24]byte
	frames  [sendAtOnce]int // of each message
	size    [sendAtOnce]int // of its datagrams, if the kernel is to cut it, or 0

	n, next int        // messages, and how many of them are sent
	refused unix.Errno // of the next one
	write   func(fd uintptr) bool
}

var outboxes = sync.Pool{New: func() any {
	o := new(outbox)
	o.write = o.flush
	return o
}}

// send sends frames to one address and returns how many the kernel did not
// take. It waits while the send buffer is full. Runs of one size go as one
// large datagram, which the kernel or the interface cuts.
func (s *socket) send(to *address, frames []Frame) (failed int) {
	o := outboxes.Get().(*outbox)
	defer outboxes.Put(o)
	o.to = *to
	for len(frames) > 0 {
		o.fill(frames, int(s.largest.Load()))
		if err := s.raw.Write(o.write); err != nil { // closed
			return failed + len(frames)
		}
		for _, n := range o.frames[:o.next] {
			frames = frames[n:]
		}
		if o.refused != 0 && !s.uncut(o.size[o.next], o.refused) {
			n := o.frames[o.next]
			frames, failed = frames[n:], failed+n
		}
	}
	return failed
}

// uncut notes that the kernel does not cut to datagrams of the size, if that
// is what it said. Then the frames can be sent otherwise.
func (s *socket) uncut(size int, err unix.Errno) bool {
	if size == 0 {
		return false
	}
	switch err {
	case unix.EINVAL, unix.EMSGSIZE, unix.EIO, unix.ENOPROTOOPT, unix.EOPNOTSUPP:
	default:
		return false
	}
	largest := int32(size - 1) // more than the path takes whole
	if size <= certain {
		largest = 0
	}
	s.largest.Store(min(largest, s.largest.Load()))
	return true
}

// fill makes messages of as many of the frames as there is room for.
func (o *outbox) fill(frames []Frame, largest int) {
	o.n, o.next, o.refused = 0, 0, 0
	vectors, heads := 0, 0
	for len(frames) > 0 && o.n < sendAtOnce && heads < sendFrames {
		run, size, total := 0, frames[0].size(), 0
		first := vectors
		for run < len(frames) && heads < sendFrames {
			f := &frames[run]
			n := f.size()
			if run > 0 && (n > size || n == 0 || total+n > maxSegmented || run == maxSegments) {
				break // an empty datagram is one only by itself
			}
			vectors += o.vector(vectors, heads, f)
			heads++
			run++
			total += n
			if n < size || size > largest || size == 0 {
				break // the last of a run may be shorter
			}
		}
		h := &o.headers[o.n].Msghdr
		h.Name = (*byte)(unsafe.Pointer(&o.to.name))
		h.Namelen = o.to.length
		h.Iov = &o.vectors[first]
		h.SetIovlen(vectors - first)
		used := copy(o.control[o.n][:], o.to.source[:o.to.with])
		o.size[o.n] = 0
		if run > 1 {
			used += putSegment(o.control[o.n][used:], size)
			o.size[o.n] = size
		}
		h.Control = nil
		if used > 0 {
			h.Control = &o.control[o.n][0]
		}
		h.SetControllen(used)
		o.frames[o.n] = run
		o.n++
		frames = frames[run:]
	}
}

// vector points to a frame and returns how many vectors that took.
func (o *outbox) vector(at, head int, f *Frame) (n int) {
	if f.Channel != 0 {
		h := &o.heads[head]
		binary.BigEndian.PutUint16(h[:], f.Channel)
		binary.BigEndian.PutUint16(h[2:], uint16(len(f.Payload)))
		o.vectors[at].Base = &h[0]
		o.vectors[at].SetLen(headerSize)
		n = 1
	}
	if len(f.Payload) > 0 {
		o.vectors[at+n].Base = &f.Payload[0]
		o.vectors[at+n].SetLen(len(f.Payload))
		n++
	}
	return n
}

// putSegment writes the control message that has a send cut into datagrams of
// the size, and returns its own.
func putSegment(dst []byte, size int) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&dst[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(dst[cmsgHeader:], uint16(size))
	return unix.CmsgSpace(2)
}

// flush hands the messages to the kernel. It reports false when the send
// buffer is full.
func (o *outbox) flush(fd uintptr) bool {
	for o.next < o.n {
		n, _, err := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&o.headers[o.next])), uintptr(o.n-o.next), unix.MSG_DONTWAIT, 0, 0)
		switch err {
		case 0:
			o.next += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			o.refused = err
			return true
		}
	}
	return true
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
	var failed error
	if err := s.raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) }); err != nil {
		return err
	}
	return failed
}

// shared lets several sockets listen on one address; the kernel spreads the
// clients over them and keeps each with one.
func shared(fd uintptr) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

const canShare = true
