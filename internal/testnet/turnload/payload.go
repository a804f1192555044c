package main

import "encoding/binary"

// A payload says where and when it was due:
//
//	0 magic  4 step  8 flow  12 sequence number  20 due, Unix nanoseconds  28 filling
const (
	magic      = 0x7475726e
	minPayload = 28
	maxPayload = 1400
)

type stamp struct {
	step, flow uint32
	seq        uint64
	due        int64
}

func (s stamp) put(b []byte) {
	binary.BigEndian.PutUint32(b, magic)
	binary.BigEndian.PutUint32(b[4:], s.step)
	binary.BigEndian.PutUint32(b[8:], s.flow)
	binary.BigEndian.PutUint64(b[12:], s.seq)
	binary.BigEndian.PutUint64(b[20:], uint64(s.due))
}

func parseStamp(b []byte) (s stamp, ok bool) {
	if len(b) < minPayload || binary.BigEndian.Uint32(b) != magic {
		return s, false
	}
	return stamp{
		step: binary.BigEndian.Uint32(b[4:]),
		flow: binary.BigEndian.Uint32(b[8:]),
		seq:  binary.BigEndian.Uint64(b[12:]),
		due:  int64(binary.BigEndian.Uint64(b[20:])),
	}, true
}
