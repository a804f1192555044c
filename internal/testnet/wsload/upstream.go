package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
)

// An upstream answers every WebSocket handshake and echoes its messages, and
// answers every other request with a short 200. It writes what it must by hand:
// it shares its core with the clients, and its work must not be what is measured.
type upstream struct {
	ln net.Listener
}

func newUpstream(addr string, cert tls.Certificate) (*upstream, error) {
	ln, err := tls.Listen("tcp", addr, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, DynamicRecordSizingDisabled: true})
	if err != nil {
		return nil, err
	}
	u := &upstream{ln}
	go u.serve() // ends with the listener
	return u, nil
}

func (u *upstream) addr() string { return u.ln.Addr().String() }

func (u *upstream) serve() {
	for {
		c, err := u.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			go func() { defer c.Close(); _ = talk(c) }()
		}
	}
}

// talk serves the requests of a connection until one upgrades it.
func talk(c net.Conn) error {
	r := bufio.NewReaderSize(c, 2<<10)
	for {
		head, err := readHead(r)
		if err != nil {
			return err
		}
		if key := head["sec-websocket-key"]; key != "" {
			sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			if _, err := io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+
				base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n"); err != nil {
				return err
			}
			return echo(c, r)
		}
		if n := head["content-length"]; n != "" {
			size, err := strconv.Atoi(n)
			if err != nil {
				return err
			}
			if _, err := r.Discard(size); err != nil {
				return err
			}
		} else if head["transfer-encoding"] != "" {
			return errors.New("chunked body")
		}
		bye := head["connection"] == "close" || head["_"] == "HTTP/1.0"
		answer := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\nAccess-Control-Allow-Origin: *\r\n"
		if bye {
			answer += "Connection: close\r\n"
		}
		if _, err := io.WriteString(c, answer+"\r\n{\"errorcode\":0}"); err != nil || bye {
			return err
		}
	}
}

// readHead reads the head of a request or an answer; "_" is the protocol of a request.
func readHead(r *bufio.Reader) (map[string]string, error) {
	head := make(map[string]string)
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return head, nil
		}
		if first {
			head["_"] = string(line[bytes.LastIndexByte(line, ' ')+1:])
			head["status"] = string(line)
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		head[string(bytes.ToLower(name))] = string(bytes.TrimSpace(value))
	}
}

// echo sends each message back. The mask of our clients is zero.
func echo(c net.Conn, r *bufio.Reader) error {
	buf := make([]byte, 0, 512)
	for {
		h, n, err := readFrameHeader(r)
		if err != nil {
			return err
		}
		buf = appendFrameHeader(buf[:0], h, n, false)
		if len(buf)+n <= 4<<10 {
			at := len(buf)
			buf = append(buf, make([]byte, n)...)
			if _, err := io.ReadFull(r, buf[at:]); err != nil {
				return err
			}
			if _, err := c.Write(buf); err != nil {
				return err
			}
			continue
		}
		if _, err := c.Write(buf); err != nil {
			return err
		}
		if _, err := io.CopyN(struct{ io.Writer }{c}, r, int64(n)); err != nil {
			return err
		}
	}
}

// readFrameHeader returns the first byte of a frame and the length of its payload.
func readFrameHeader(r *bufio.Reader) (first byte, n int, err error) {
	b, err := r.Peek(2)
	if err != nil {
		return 0, 0, err
	}
	first = b[0]
	masked := b[1]&0x80 != 0
	size, length := 2, int(b[1]&0x7f)
	switch length {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if b, err = r.Peek(size); err != nil {
		return 0, 0, err
	}
	switch size {
	case 4:
		length = int(binary.BigEndian.Uint16(b[2:]))
	case 10:
		length = int(binary.BigEndian.Uint64(b[2:]))
	}
	if masked {
		size += 4
	}
	_, err = r.Discard(size)
	return first, length, err
}

func appendFrameHeader(b []byte, first byte, n int, masked bool) []byte {
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	b = append(b, first)
	switch {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if masked {
		b = append(b, 0, 0, 0, 0)
	}
	return b
}
