package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// stream is a client's connection over TCP or TLS. The step writes, a goroutine
// of its own reads.
type stream struct {
	conn net.Conn
	out  []byte // frames of this tick
}

func (l *load) dial(ctx context.Context, i int) (*stream, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	if l.o.clientNet.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(nth(l.o.clientNet, i), 0))
	}
	var conn net.Conn
	err := inNamespace(l.o.clientNS, func() (err error) {
		conn, err = d.DialContext(ctx, "tcp", l.o.server.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	if l.o.transport == "tls" {
		t := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		if err := t.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, err
		}
		conn = t
	}
	s := &stream{conn: conn}
	l.background.Go(func() {
		err := fmt.Errorf("connection of allocation %d: %w", i, l.readStream(i, conn))
		select {
		case <-l.stop:
		default:
			l.streamBroken.CompareAndSwap(nil, &err)
		}
	})
	return s, nil
}

// readStream sorts frames until the connection ends. What one Read returned has
// arrived at one time.
func (l *load) readStream(i int, conn io.Reader) error {
	f := l.flows[i]
	buf := make([]byte, 1<<16)
	have := 0
	for {
		n, err := conn.Read(buf[have:])
		if err != nil {
			return err
		}
		now := time.Now().UnixNano()
		have += n
		rest := buf[:have]
		l.down.mu.Lock()
		for {
			var frame []byte
			if frame, rest, err = cutFrame(rest); frame == nil {
				break
			}
			channel, payload, ok := channelData(frame)
			if !ok {
				f.answer(frame)
				continue
			}
			l.down.count(payload, l.o.size, now, func(j int) bool { return j == i && channel == f.channel })
		}
		l.down.mu.Unlock()
		if err != nil {
			return err
		}
		have = copy(buf, rest)
	}
}

// cutFrame cuts the first whole frame off (RFC 8489 section 6.2.2, RFC 8656
// section 12.5); it is nil when there is none yet.
func cutFrame(b []byte) (frame, rest []byte, err error) {
	if len(b) < 4 {
		return nil, b, nil
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	switch b[0] >> 6 {
	case 0:
		n += 20
	case 1:
		n = 4 + (n+3)&^3
	default:
		return nil, b, fmt.Errorf("a frame begins with %x", b[:4])
	}
	if n > 1<<16-1 {
		return nil, b, fmt.Errorf("a frame of %d bytes", n)
	}
	if len(b) < n {
		return nil, b, nil
	}
	return b[:n], b[n:], nil
}
