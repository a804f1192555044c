package relay

import (
	"encoding/binary"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	length uint32
}

const (
	readAtOnce = 16
	// readAtLeast is how many reads there is room for, or the batch is flushed.
	readAtLeast = 4
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
	used    int // of the headers; what was read with them is still to be sent

	outbox *outbox
	zones  map[uint32]string
}

func newBatch() *batch {
	b := &batch{received: make([]received, 0, readAtOnce)}
	b.buffer = make([]byte, readAtOnce*readSize)
	b.zones = make(map[uint32]string)
	b.outbox = new(outbox)
	for i := range b.headers {
		b.vectors[i].Base = &b.buffer[i*readSize]
		b.vectors[i].SetLen(1 << 16)
		h := &b.headers[i]
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Control = &b.control[i][0]
		b.fresh(i)
	}
	return b
}

// fresh prepares a header for a read.
func (b *batch) fresh(i int) {
	h := &b.headers[i]
	h.Namelen = unix.SizeofSockaddrInet6
	h.SetControllen(oobIn)
	h.Flags = 0
}

// reuse makes the room of what was read free.
func (b *batch) reuse() {
	for i := range b.used {
		b.fresh(i)
	}
	b.used = 0
}

// read gives what a socket has received to handle, which must not keep it. It
// reports whether there may be more.
//
// It and outbox.flush do not tell the scheduler of their calls, which never
// wait: it would take the processor away from one of more than 20 µs, as a long
// run is, and the switch would cost more.
func (b *batch) read(s *socket, handle func(*batch)) (more bool) {
	if readAtOnce-b.used < readAtLeast {
		b.flush()
	}
	if !s.enter() {
		return false
	}
	first, room := b.used, readAtOnce-b.used
	var n int
	for {
		r, _, err := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&b.headers[first])), uintptr(room), unix.MSG_DONTWAIT, 0, 0)
		if err == unix.EINTR {
			continue
		}
		if n = int(r); err != 0 {
			n, more = 0, err != unix.EAGAIN // what a peer caused is taken with it
		}
		break
	}
	s.exit()
	if n == 0 {
		return more
	}
	b.used += n
	b.received = b.received[:0]
	for i := first; i < first+n; i++ {
		s.parse(b, i)
	}
	handle(b)
	if len(b.waiting) == 0 {
		b.flush()
	}
	return n == room
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
