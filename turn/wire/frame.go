package wire

import (
	"encoding/binary"
	"errors"
	"io"
)

// Sizes of frames on a stream (RFC 8656 section 3.5 and 12.5).
const (
	ChannelHeader = 4
	maxFrame      = headerSize + 0xFFFC // the largest STUN message
	minBuffer     = 2048                // holds any frame of a media stream
	maxBuffer     = 8 * minBuffer       // holds any TLS record
	calmReads     = 64                  // that fit minBuffer, before a larger one is given up
)

// Errors of a Framer. Both end the stream: behind bytes that are not a frame
// nobody knows where the next one begins.
var (
	ErrFrame    = errors.New("bytes on the stream are neither STUN nor ChannelData")
	ErrTooLarge = errors.New("frame on the stream is larger than allowed here")
)

// IsChannelData reports whether p begins like ChannelData: the two bits that
// are 00 in STUN are 01 (RFC 8656 section 12.4).
func IsChannelData(p []byte) bool {
	return len(p) >= ChannelHeader && p[0]&0xC0 == 0x40
}

// ChannelData splits the ChannelData message that p consists of. The payload
// borrows from p; bytes behind the announced length are padding (RFC 8656
// section 12.5). ok is false when p is shorter than it says.
func ChannelData(p []byte) (channel uint16, payload []byte, ok bool) {
	if !IsChannelData(p) {
		return 0, nil, false
	}
	size := int(binary.BigEndian.Uint16(p[2:4]))
	if size > len(p)-ChannelHeader {
		return 0, nil, false
	}
	return binary.BigEndian.Uint16(p), p[ChannelHeader : ChannelHeader+size], true
}

// FrameSize returns how many bytes of a stream the frame takes, padding
// included, whose first four bytes or more are head. ok is false when head
// begins no frame.
//
// The arithmetic is in int on purpose: in 16 bits a length of 0xFFFC wraps to
// 0, which made other servers loop for ever on twelve bytes.
func FrameSize(head []byte) (size int, ok bool) {
	n := int(binary.BigEndian.Uint16(head[2:4]))
	switch {
	case head[0]&0xC0 == 0: // STUN
		return headerSize + n, n%4 == 0
	case head[0]&0xC0 == 0x40: // ChannelData, padded to four bytes on a stream
		return (ChannelHeader + n + 3) &^ 3, true
	}
	return 0, false
}

// Framer cuts a stream into frames. It is not safe for concurrent use.
type Framer struct {
	// Limit is the largest frame accepted, in bytes; 0 means the largest
	// there is. It may be changed between calls of Next.
	Limit int

	r          io.Reader
	buf        []byte
	start, end int
	full       bool // the last read filled the buffer
	calm       int  // reads since one that minBuffer would not have held
}

// NewFramer reads frames from r.
func NewFramer(r io.Reader) *Framer { return &Framer{r: r} }

// Partial reports whether the beginning of an unfinished frame has arrived.
func (f *Framer) Partial() bool { return f.end > f.start }

// Next returns the next whole frame. It borrows the framer's buffer and is
// valid until the next call. Errors of the reader are returned as they are;
// io.ErrUnexpectedEOF means the stream ended inside a frame. After a timeout
// of the reader Next may be called again: what had arrived is kept.
func (f *Framer) Next() ([]byte, error) {
	need := ChannelHeader
	for {
		have := f.end - f.start
		if have >= need && need > ChannelHeader {
			frame := f.buf[f.start : f.start+need : f.start+need]
			f.start += need
			return frame, nil
		}
		if have >= ChannelHeader && need == ChannelHeader {
			size, err := f.check()
			if err != nil {
				return nil, err
			}
			if size > ChannelHeader {
				need = size
				continue
			}
			frame := f.buf[f.start : f.start+size : f.start+size] // empty ChannelData
			f.start += size
			return frame, nil
		}
		if err := f.fill(need); err != nil {
			return nil, err
		}
	}
}

// Buffered returns the frame that Next will return, if it has arrived whole,
// and nil otherwise, or when Next will return an error. What Next returned before
// stays valid until a Next that follows nil.
func (f *Framer) Buffered() []byte {
	if f.end-f.start < ChannelHeader {
		return nil
	}
	size, err := f.check()
	if err != nil || f.end-f.start < size {
		return nil
	}
	return f.buf[f.start : f.start+size : f.start+size]
}

// check validates as much of the header as has arrived and returns the size
// of the frame.
func (f *Framer) check() (int, error) {
	head := f.buf[f.start:f.end]
	size, ok := FrameSize(head)
	if !ok {
		return 0, ErrFrame
	}
	limit := f.Limit
	if limit == 0 {
		limit = maxFrame
	}
	if size > max(limit, ChannelHeader) {
		return 0, ErrTooLarge
	}
	return size, nil
}

// fill reads once, with room for a frame of need bytes. The buffer is larger
// while the reads fill it: who sends much is read in few of them.
func (f *Framer) fill(need int) error {
	size := len(f.buf)
	if f.start == f.end {
		f.start, f.end = 0, 0
		if size > maxBuffer || size > minBuffer && f.calm >= calmReads {
			size = 0 // one large frame, or a burst, does not keep its memory
		}
	}
	if f.full && size > 0 {
		size = max(size, min(2*size, maxBuffer))
	}
	if size = max(size, need, minBuffer); size != len(f.buf) {
		buf := make([]byte, size)
		f.end = copy(buf, f.buf[f.start:f.end])
		f.buf, f.start, f.calm = buf, 0, 0
	} else if f.start+need > size {
		f.end = copy(f.buf, f.buf[f.start:f.end])
		f.start = 0
	}
	n, err := f.r.Read(f.buf[f.end:])
	f.end += n
	f.full = f.end == len(f.buf)
	if f.calm++; f.end > minBuffer {
		f.calm = 0
	}
	switch {
	case n > 0:
		return nil
	case err == io.EOF && f.Partial():
		return io.ErrUnexpectedEOF
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}
