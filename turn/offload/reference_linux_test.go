//go:build amd64 || arm64

package offload

import (
	"bytes"
	"encoding/binary"
	"net/netip"
)

// reference is the program once more, in Go and by another way: it takes a
// frame apart, and puts a new one together from nothing with all checksums
// computed anew.
type reference struct {
	bound []Binding
	hops  map[netip.Addr]hop
	mac   [6]byte // of the interface that frames come in at
	in    int     // its index
}

type hop struct {
	index    int
	mtu      int
	from, to [6]byte
}

// relay returns the frame that leaves and the interface it leaves by, or false
// when the frame goes up the stack.
func (r *reference) relay(frame []byte) (out []byte, index int, ok bool) {
	d, ok := takeApart(frame)
	if !ok || [6]byte(frame[:6]) != r.mac || d.ttl <= 1 {
		return nil, 0, false
	}
	for _, b := range r.bound {
		payload := d.payload
		var from, to netip.AddrPort
		switch {
		case d.from == b.Client && d.to == b.Server && isChannel(payload, b.Channel):
			size := int(binary.BigEndian.Uint16(payload[2:]))
			if rest := len(payload) - 4; rest != size && rest != (size+3)/4*4 {
				return nil, 0, false
			}
			payload = payload[4 : 4+size]
			from, to = b.Relay, b.Peer
		case d.from == b.Peer && d.to == b.Relay:
			header := binary.BigEndian.AppendUint16(nil, b.Channel)
			header = binary.BigEndian.AppendUint16(header, uint16(len(payload)))
			payload = append(header, payload...)
			from, to = b.Server, b.Client
		default:
			continue
		}
		if len(d.payload) > 2048 {
			return nil, 0, false
		}
		h, known := r.hops[to.Addr()]
		next := datagram{from: from, to: to, ttl: d.ttl - 1, tos: d.tos, payload: payload,
			id: d.id, df: d.df, noSum: d.noSum && from.Addr().Is4()}
		if d.from.Addr().Is6() {
			next.df = true
		}
		out := next.put(h)
		if !known || len(out)-14 > h.mtu {
			return nil, 0, false
		}
		return out, h.index, true
	}
	return nil, 0, false
}

func isChannel(p []byte, channel uint16) bool {
	return len(p) >= 4 && binary.BigEndian.Uint16(p) == channel
}

// datagram is what a UDP datagram says, and what of its IP header matters.
type datagram struct {
	from, to netip.AddrPort
	ttl, tos byte
	id       uint16
	df       bool
	noSum    bool // over IPv4, without a checksum
	payload  []byte
}

// takeApart reads a frame with a well-formed UDP datagram.
func takeApart(frame []byte) (d datagram, ok bool) {
	if len(frame) < 14 {
		return d, false
	}
	packet := frame[14:]
	var src, dst netip.Addr
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == 0x0800 && len(packet) >= 20:
		total := int(binary.BigEndian.Uint16(packet[2:]))
		flags := binary.BigEndian.Uint16(packet[6:])
		if packet[0] != 0x45 || packet[9] != 17 || flags&^0x4000 != 0 || total > len(packet) || total < 20 || onesComplement(packet[:20]) != 0xffff {
			return d, false
		}
		src, dst = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
		d.tos, d.ttl, d.df, d.id = packet[1], packet[8], flags != 0, binary.BigEndian.Uint16(packet[4:])
		packet = packet[20:total]
	case kind == 0x86dd && len(packet) >= 40:
		total := 40 + int(binary.BigEndian.Uint16(packet[4:]))
		if packet[0]>>4 != 6 || packet[6] != 17 || total > len(packet) {
			return d, false
		}
		src, dst = netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
		d.tos, d.ttl = packet[0]<<4|packet[1]>>4, packet[7]
		packet = packet[40:total]
	default:
		return d, false
	}
	if len(packet) < 8 || int(binary.BigEndian.Uint16(packet[4:])) != len(packet) {
		return d, false
	}
	d.from = netip.AddrPortFrom(src, binary.BigEndian.Uint16(packet))
	d.to = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(packet[2:]))
	d.payload = packet[8:]
	switch {
	case binary.BigEndian.Uint16(packet[6:]) == 0:
		d.noSum = true
		return d, src.Is4()
	case onesComplement(pseudo(src, dst, len(packet)), packet) != 0xffff:
		return d, false
	}
	return d, true
}

// put makes a frame of a datagram.
func (d datagram) put(h hop) []byte {
	frame := append(append(bytes.Clone(h.to[:]), h.from[:]...), 0x08, 0x00)
	length := 8 + len(d.payload)
	src, dst := d.from.Addr(), d.to.Addr()
	if src.Is4() {
		ip := make([]byte, 20)
		ip[0], ip[1], ip[8], ip[9] = 0x45, d.tos, d.ttl, 17
		binary.BigEndian.PutUint16(ip[2:], uint16(20+length))
		binary.BigEndian.PutUint16(ip[4:], d.id)
		if d.df {
			ip[6] = 0x40
		}
		copy(ip[12:], src.AsSlice())
		copy(ip[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(ip[10:], ^onesComplement(ip))
		frame = append(frame, ip...)
	} else {
		ip := make([]byte, 40)
		ip[0], ip[1], ip[6], ip[7] = 0x60|d.tos>>4, d.tos<<4, 17, d.ttl
		binary.BigEndian.PutUint16(ip[4:], uint16(length))
		copy(ip[8:], src.AsSlice())
		copy(ip[24:], dst.AsSlice())
		frame[12], frame[13] = 0x86, 0xdd
		frame = append(frame, ip...)
	}
	udp := make([]byte, 8, length)
	binary.BigEndian.PutUint16(udp, d.from.Port())
	binary.BigEndian.PutUint16(udp[2:], d.to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(length))
	udp = append(udp, d.payload...)
	if !d.noSum {
		sum := ^onesComplement(pseudo(src, dst, length), udp)
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(udp[6:], sum)
	}
	return append(frame, udp...)
}

// pseudo is the pseudo header of UDP (RFC 768, RFC 8200 section 8.1).
func pseudo(src, dst netip.Addr, length int) []byte {
	p := append(src.AsSlice(), dst.AsSlice()...)
	return append(p, 0, 17, byte(length>>8), byte(length))
}

// onesComplement is the sum of RFC 1071; all parts but the last are even.
func onesComplement(parts ...[]byte) uint16 {
	sum := 0
	for _, p := range parts {
		for i, b := range p {
			sum += int(b) << (8 * (1 - i%2))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
