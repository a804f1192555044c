package signaling

import "encoding/binary"

// frames follows the frame headers of one direction of a WebSocket (RFC 6455
// section 5.2) through any cut of the byte stream. It keeps 14 bytes, looks at no
// payload but the code of a Close frame, and allocates nothing.
//
// Without strict it only knows where frames end. With strict it also holds the rules
// for what a client may send.
type frames struct {
	strict     bool
	extensions bool  // an extension was negotiated: RSV bits may be set
	deflate    bool  // it is permessage-deflate alone: of them RSV1 at the begin of a message
	maxMessage int64 // strict only; negative: no limit

	header [14]byte
	have   int    // bytes of header gathered
	need   int    // bytes it will have; 0 before the first two are there
	length uint64 // payload bytes of the frame, once its header says so
	left   uint64 // payload bytes to come
	lost   bool   // a length that cannot be: nothing is known any more

	fragmented bool   // a message goes on after this frame
	message    uint64 // its bytes so far

	inClose   bool   // the current frame is a Close
	codeBytes int    // bytes of its code seen
	partial   uint16 // the code so far
	code      uint16 // of the Close frame that passed; 1005 for one without (section 7.1.5)
}

// Close codes (RFC 6455 section 7.4.1 and the registry it set up).
const (
	closeNormal         = 1000
	closeProtocolError  = 1002
	closePolicy         = 1008
	closeTooBig         = 1009
	closeServiceRestart = 1012
)

// boundary reports whether the bytes scanned so far end with a whole frame.
func (f *frames) boundary() bool { return f.have == 0 && f.left == 0 && !f.lost }

// scan takes the next bytes. It returns how many of them may be forwarded: all, or
// those before the frame that breaks a rule, with the close code for it, or, when
// stop is set, those up to the first end of a frame.
func (f *frames) scan(p []byte, stop bool) (n int, violation uint16) {
	if f.lost {
		return len(p), 0
	}
	begin := 0 // where the current header begins in p
	for i := 0; i < len(p); {
		if f.left > 0 {
			k := len(p) - i
			if uint64(k) > f.left {
				k = int(f.left)
			}
			if f.inClose && f.codeBytes < 2 {
				f.readCode(p[i : i+k])
			}
			f.left -= uint64(k)
			i += k
		} else {
			if f.have == 0 {
				begin = i
			}
			f.header[f.have] = p[i]
			f.have++
			i++
			if v := f.step(); v != 0 {
				return begin, v
			}
			if f.lost {
				return len(p), 0
			}
		}
		if stop && f.boundary() {
			return i, 0
		}
	}
	return len(p), 0
}

// step looks at the header after one more byte of it.
func (f *frames) step() (violation uint16) {
	if f.have < 2 {
		return 0
	}
	if f.have == 2 {
		f.need = 2
		switch f.header[1] & 0x7f {
		case 126:
			f.need += 2
		case 127:
			f.need += 8
		}
		if f.header[1]&0x80 != 0 {
			f.need += 4
		}
		if f.strict {
			if v := f.checkFixed(); v != 0 {
				return v
			}
		}
	}
	maskBytes := 0
	if f.header[1]&0x80 != 0 {
		maskBytes = 4
	}
	if f.have == f.need-maskBytes { // the length is complete
		f.length = f.readLength()
		if f.length>>63 != 0 {
			f.lost = true
			if f.strict {
				return closeProtocolError
			}
			return 0
		}
		if f.strict && f.header[0]&0x0f < 8 {
			if v := f.countMessage(); v != 0 {
				return v
			}
		}
	}
	if f.have < f.need {
		return 0
	}
	f.inClose, f.codeBytes, f.partial = f.header[0]&0x0f == 8, 0, 0
	if f.inClose && f.length < 2 {
		f.code = 1005
	}
	f.left = f.length
	f.have = 0
	return 0
}

func (f *frames) readLength() uint64 {
	switch n := f.header[1] & 0x7f; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.header[2:]))
	case 127:
		return binary.BigEndian.Uint64(f.header[2:])
	default:
		return uint64(n)
	}
}

// countMessage adds a data frame to its message.
func (f *frames) countMessage() (violation uint16) {
	if f.header[0]&0x0f != 0 {
		f.message = 0
	}
	f.message += f.length // below 2^63 each, and refused before the sum could overflow
	f.fragmented = f.header[0]&0x80 == 0
	if f.maxMessage >= 0 && f.message > uint64(f.maxMessage) || f.message>>62 != 0 {
		return closeTooBig
	}
	return 0
}

// checkFixed applies the rules that the first two bytes decide.
func (f *frames) checkFixed() (violation uint16) {
	fin, rsv, opcode := f.header[0]&0x80 != 0, f.header[0]&0x70, f.header[0]&0x0f
	masked, length := f.header[1]&0x80 != 0, f.header[1]&0x7f
	switch {
	case !masked, // section 5.1
		rsv != 0 && !f.mayReserve(rsv, opcode), // section 5.2
		opcode > 2 && opcode < 8,               // reserved
		opcode > 10,                            // reserved
		opcode >= 8 && (!fin || length > 125),  // section 5.5
		opcode == 0 && !f.fragmented,           // section 5.4: nothing to continue
		opcode < 8 && opcode != 0 && f.fragmented:
		return closeProtocolError
	}
	return 0
}

// mayReserve reports whether reserved bits mean something on a frame.
func (f *frames) mayReserve(rsv, opcode byte) bool {
	if f.deflate {
		return rsv == 0x40 && (opcode == 1 || opcode == 2) // RFC 7692 section 6
	}
	return f.extensions
}

// readCode takes payload of a Close frame: its first two bytes are the code.
func (f *frames) readCode(p []byte) {
	for _, b := range p {
		if f.codeBytes == 2 {
			return
		}
		if f.header[1]&0x80 != 0 {
			b ^= f.header[f.need-4+f.codeBytes]
		}
		f.partial = f.partial<<8 | uint16(b)
		if f.codeBytes++; f.codeBytes == 2 {
			f.code = f.partial
		}
	}
}

// closeFrame writes an unmasked Close frame, as a server sends it, into b.
func closeFrame(b *[64]byte, code uint16, reason string) []byte {
	if len(reason) > len(b)-4 {
		reason = reason[:len(b)-4]
	}
	b[0], b[1] = 0x88, byte(2+len(reason))
	binary.BigEndian.PutUint16(b[2:], code)
	return b[:4+copy(b[4:], reason)]
}
