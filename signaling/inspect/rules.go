package inspect

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// rules are those for the frames of a peer that gorilla does not know: that only the begin of a
// message is marked as deflated, and what a Close frame may hold. gorilla never gets a Close:
// it takes one of a single byte for an empty one, refuses the code 1014, and calls a reason that is
// not UTF-8 a protocol error.
type rules struct {
	masked  bool // the peer is a client
	deflate bool // was agreed

	header [10]byte // of the frame that has begun, without the mask
	have   int      // bytes of it
	left   uint64   // to come of the frame, with the mask
}

const opcodeClose = 8

// scan takes the next bytes and returns how many of them are for gorilla. Behind them begins a
// Close, or, with an error, a frame that breaks a rule.
func (r *rules) scan(p []byte) (n int, err error) {
	for n < len(p) {
		if r.left > 0 {
			k := min(uint64(len(p)-n), r.left)
			r.left -= k
			n += int(k)
			continue
		}
		if r.have == 0 {
			switch opcode := p[n] & 0x0f; {
			case opcode == opcodeClose:
				return n, nil
			case r.deflate && p[n]&0x40 != 0 && opcode != websocket.TextMessage && opcode != websocket.BinaryMessage:
				return n, errProtocol // RFC 7692 section 6
			}
		}
		r.header[r.have] = p[n]
		r.have++
		n++
		r.step()
	}
	return n, nil
}

// step looks whether the header is complete.
func (r *rules) step() {
	if r.have < 2 {
		return
	}
	switch short := r.header[1] & 0x7f; {
	case short == 126 && r.have == 4:
		r.left = uint64(binary.BigEndian.Uint16(r.header[2:]))
	case short == 127 && r.have == 10:
		r.left = binary.BigEndian.Uint64(r.header[2:]) // gorilla refuses what is too long
	case short < 126:
		r.left = uint64(short)
	default:
		return
	}
	if r.header[1]&0x80 != 0 {
		r.left += 4
	}
	r.have = 0
}

// parseClose reads a Close frame (RFC 6455 sections 5.5.1 and 7.4). It returns nil while more bytes
// are needed: a *websocket.CloseError is what the frame says, any other error what is wrong with it.
func (r *rules) parseClose(p []byte) error {
	if len(p) > 0 && p[0] != 0x80|opcodeClose {
		return errProtocol // in fragments, or with reserved bits
	}
	if len(p) < 2 {
		return nil
	}
	masked, length := p[1]&0x80 != 0, int(p[1]&0x7f)
	if masked != r.masked || length > 125 || length == 1 {
		return errProtocol
	}
	var mask [4]byte
	body := p[2:]
	if masked {
		if len(body) < len(mask) {
			return nil
		}
		body = body[copy(mask[:], body):]
	}
	if len(body) < length {
		return nil
	}
	if length == 0 {
		return &websocket.CloseError{Code: codeNoStatus}
	}
	plain := make([]byte, length)
	for i := range plain {
		plain[i] = body[i] ^ mask[i%4]
	}
	code, reason := int(binary.BigEndian.Uint16(plain)), plain[2:]
	switch {
	case !validCode(code):
		return errProtocol
	case !utf8.Valid(reason):
		return errUTF8
	}
	return &websocket.CloseError{Code: code, Text: string(reason)}
}

// validCode reports whether a code may stand in a Close frame: RFC 6455 section 7.4.2 and the
// registry, which has 1012 to 1014 too.
func validCode(code int) bool {
	switch code {
	case 1004, 1005, 1006, 1015:
		return false
	}
	return code >= 1000 && code <= 1014 || code >= 3000 && code <= 4999
}
