package relay

import (
	"encoding/binary"
	"net/netip"
)

// A Frame is one message on its way: the payload of a ChannelData message, or,
// with Channel 0, a whole datagram. The header is written where the frame is
// sent, so that a payload is never moved to make room for it.
type Frame struct {
	Channel uint16
	Payload []byte
}

// size returns the length on the wire, without padding.
func (f *Frame) size() int {
	if f.Channel != 0 {
		return headerSize + len(f.Payload)
	}
	return len(f.Payload)
}

// append appends the frame as it is on the wire, without padding.
func (f *Frame) append(dst []byte) []byte {
	if f.Channel != 0 {
		dst = binary.BigEndian.AppendUint16(dst, f.Channel)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(f.Payload)))
	}
	return append(dst, f.Payload...)
}

// headerSize is that of ChannelData (RFC 8656 section 12.4).
const headerSize = 4

// received is what one read of a socket returned: one datagram, or several of
// one sender and one size that the kernel has put together (UDP_GRO).
type received struct {
	payload []byte
	segment int // size of each datagram but the last; 0 for one alone
	from    netip.AddrPort
	to      netip.Addr // address of ours, if the socket asked for it
}

// cut returns the first datagram of what is left of a read, and the rest.
func (d *received) cut(left []byte) (datagram, rest []byte) {
	if d.segment == 0 || len(left) <= d.segment {
		return left, nil
	}
	return left[:d.segment], left[d.segment:]
}

// A batch is what one turn of a loop reads, and what it sends of it. The
// payloads are its own, and good until the turn ends.
type batch struct {
	received []received // of the socket that is read just now
	run      []Frame    // of the client that is forwarded just now
	delivery            // of all relays of the turn
	waiting  []waiting
	inbox
}

// waiting are frames of the delivery that leave together with those of other
// relays: many calls of little media otherwise cost a system call for each
// packet.
type waiting struct {
	to        *datagrams
	from, end int // of the frames
}

// toClient sends the frames from the given one on to the client: over UDP
// when the turn ends.
func (b *batch) toClient(e Egress, from int) {
	if d, ok := e.(*datagrams); ok {
		b.waiting = append(b.waiting, waiting{d, from, len(b.frames)})
		return
	}
	e.Send(b.frames[from:])
	b.frames = b.frames[:from]
}

// flush sends what waits, and makes room.
func (b *batch) flush() {
	if len(b.waiting) > 0 {
		b.sendAll()
		b.waiting = b.waiting[:0]
	}
	b.delivery.clear()
	b.reuse()
}

// datagrams is the Egress of a UDP client.
type datagrams struct {
	l  *Listener
	s  *socket
	to address
}

func (d *datagrams) Send(frames []Frame) { d.l.lost(d.s.send(&d.to, frames)) }
