package turnclient

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// readFrame returns the next message: a datagram, or a frame of the stream
// (RFC 8656 section 12.5 and RFC 8489 section 6.2.2).
func (c *Client) readFrame() ([]byte, error) {
	if !c.stream {
		if c.buf == nil {
			c.buf = make([]byte, 1<<16)
		}
		n, err := c.conn.Read(c.buf)
		return bytes.Clone(c.buf[:n]), err
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(c.conn, head); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[2:]))
	switch {
	case head[0]>>6 == 0:
		n += headerSize - 4
	case isChannel(head[0]):
		n = (n + 3) &^ 3
	default:
		return nil, fmt.Errorf("a frame begins with %x", head)
	}
	frame := append(head, make([]byte, n)...)
	_, err := io.ReadFull(c.conn, frame[4:])
	return frame, err
}

func isChannel(first byte) bool { return first>>6 == 1 }

func parseChannelData(frame []byte) (channel uint16, payload []byte, ok bool) {
	if len(frame) < 4 || !isChannel(frame[0]) {
		return 0, nil, false
	}
	n := int(binary.BigEndian.Uint16(frame[2:]))
	if n > len(frame)-4 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint16(frame), frame[4 : 4+n], true
}
