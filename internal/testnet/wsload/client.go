package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// A client is one WebSocket, or one kept connection for reports. Reading and
// writing may happen at once, each by one goroutine.
type client struct {
	conn net.Conn
	r    *bufio.Reader
	out  []byte
}

// patience is how long anything may take before the run is called broken.
const patience = 30 * time.Second

// dialTLS opens a connection to a proxy, or to the upstream itself.
func (b *bench) dialTLS(addr string) (*client, error) {
	raw, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, b.clientTLS)
	_ = c.SetDeadline(time.Now().Add(patience))
	if err := c.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	return &client{conn: c, r: bufio.NewReaderSize(c, 512)}, nil
}

const upgrade = "GET /ws/?sdkAppId=1400000001&userId=load&userSig=none HTTP/1.1\r\nHost: localhost\r\n" +
	"Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: https://localhost\r\nUser-Agent: wsload\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// connect opens a WebSocket.
func (b *bench) connect(addr string) (*client, error) {
	c, err := b.dialTLS(addr)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c.conn, upgrade); err != nil {
		c.conn.Close()
		return nil, err
	}
	head, err := readHead(c.r)
	if err == nil && !strings.HasPrefix(head["status"], "HTTP/1.1 101 ") {
		err = fmt.Errorf("answered %q", head["status"])
	}
	if err != nil {
		c.conn.Close()
		return nil, err
	}
	_ = c.conn.SetDeadline(time.Time{})
	return c, nil
}

// send writes one message, masked with zeros.
func (c *client) send(payload []byte) error {
	c.out = appendFrameHeader(c.out[:0], 0x82, len(payload), true)
	if len(payload) > 64<<10 {
		if _, err := c.conn.Write(c.out); err != nil {
			return err
		}
		_, err := c.conn.Write(payload)
		return err
	}
	c.out = append(c.out, payload...)
	_, err := c.conn.Write(c.out)
	return err
}

// receive reads one message into p and returns its length.
func (c *client) receive(p []byte) (int, error) {
	first, n, err := readFrameHeader(c.r)
	if err != nil {
		return 0, err
	}
	if first != 0x82 || n > len(p) {
		return 0, fmt.Errorf("frame %#x of %d bytes", first, n)
	}
	_, err = io.ReadFull(c.r, p[:n])
	return n, err
}

// exchange sends a message and waits for its echo.
func (c *client) exchange(payload []byte) error {
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	defer c.conn.SetDeadline(time.Time{})
	sent := make(chan error, 1)
	go func() { sent <- c.send(payload) }()
	got := make([]byte, len(payload))
	n, err := c.receive(got)
	if err != nil {
		return err
	}
	if string(got[:n]) != string(payload) {
		return errors.New("the echo differs")
	}
	return <-sent
}

// connectAll opens n WebSockets, a few at once.
func (b *bench) connectAll(addr string, n int, each func(*client) error) ([]*client, error) {
	const atOnce = 8
	var mu sync.Mutex
	var all []*client
	var failed error
	var wg sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for range n {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			c, err := b.connect(addr)
			if err == nil && each != nil {
				err = each(c)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
			}
			if c != nil {
				all = append(all, c)
			}
		})
	}
	wg.Wait()
	if failed != nil {
		closeAll(all)
		return nil, fmt.Errorf("%s: %w", addr, failed)
	}
	return all, nil
}

func closeAll(cs []*client) {
	for _, c := range cs {
		if c == nil {
			continue
		}
		if t, ok := c.conn.(*tls.Conn); ok {
			t.NetConn().Close()
		}
	}
}
