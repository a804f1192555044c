package relay

import (
	"encoding/binary"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// oobSize holds one IP_PKTINFO or IPV6_PKTINFO control message.
const oobSize = 64

// askDestination asks the kernel to tell the destination of each datagram, so
// that answers leave from the address the client had sent to.
func askDestination(conn *net.UDPConn, v6 bool) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if v6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, 1) }); err != nil {
		return err
	}
	return failed
}

var cmsgHeader = unix.CmsgLen(0)

// destination reads the address of ours that a datagram was sent to.
func destination(oob []byte) (netip.Addr, bool) {
	for len(oob) >= cmsgHeader {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		size := int(h.Len)
		if size < cmsgHeader || size > len(oob) {
			return netip.Addr{}, false
		}
		data := oob[cmsgHeader:size]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= 12:
			return netip.AddrFrom4([4]byte(data[8:12])), true // ipi_addr
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= 20:
			return netip.AddrFrom16([16]byte(data[:16])), true
		}
		oob = oob[min(unix.CmsgSpace(size-cmsgHeader), len(oob)):]
	}
	return netip.Addr{}, false
}

// appendSource appends the control message that makes a datagram leave from
// the address. dst must have oobSize bytes of room and be aligned.
func appendSource(dst []byte, from netip.Addr) []byte {
	size, level, typ := 12, unix.IPPROTO_IP, unix.IP_PKTINFO
	if from.Is6() {
		size, level, typ = 20, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
	}
	dst = dst[:unix.CmsgSpace(size)]
	clear(dst)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&dst[0]))
	h.Level, h.Type = int32(level), int32(typ)
	h.SetLen(unix.CmsgLen(size))
	data := dst[cmsgHeader:]
	if from.Is6() {
		a := from.As16()
		copy(data, a[:])
		if from.IsLinkLocalUnicast() && from.Zone() != "" {
			if i, err := net.InterfaceByName(from.Zone()); err == nil {
				binary.NativeEndian.PutUint32(data[16:], uint32(i.Index))
			}
		}
		return dst
	}
	a := from.As4()
	copy(data[4:], a[:]) // ipi_spec_dst
	return dst
}

func truncated(flags, _, _ int) bool { return flags&unix.MSG_TRUNC != 0 }

// CanSetDontFragment says whether datagrams can be kept from being fragmented
// (RFC 8656 section 14).
const CanSetDontFragment = true

// setDontFragment sets the DF bit of what the socket sends. IP_PMTUDISC_PROBE
// sets it whatever the kernel believes of the path; without it fragments are
// allowed, as the client did not ask for anything else.
func setDontFragment(conn *net.UDPConn, v6, on bool) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT
	if v6 {
		level, option, value = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT
	}
	if on {
		value = unix.IP_PMTUDISC_PROBE // the same number for IPv6
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) }); err != nil {
		return err
	}
	return failed
}
