package allocator

import (
	"net"
	"sync"
	"time"
)

// memConn is the packet connection between this package and pion. One request
// is under way at a time.
type memConn struct {
	requests chan request
	idle     chan struct{} // pion waits for the next request
	closed   chan struct{}
	once     sync.Once

	answer []byte // written by pion's read loop before it becomes idle
}

type request struct {
	p    []byte
	from net.Addr
}

func newMemConn() *memConn {
	return &memConn{
		requests: make(chan request),
		idle:     make(chan struct{}, 1),
		closed:   make(chan struct{}),
	}
}

// roundTrip returns pion's answer, or nil when it gave none. It must not be
// called by two goroutines at once.
func (c *memConn) roundTrip(p []byte, from net.Addr) ([]byte, error) {
	select {
	case c.requests <- request{p, from}:
	case <-c.closed:
		return nil, net.ErrClosed
	}
	select {
	case <-c.idle:
		answer := c.answer
		c.answer = nil
		return answer, nil
	case <-c.closed:
		return nil, net.ErrClosed
	}
}

func (c *memConn) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case c.idle <- struct{}{}:
	default: // closed while a request was under way
	}
	select {
	case r := <-c.requests:
		return copy(p, r.p), r.from, nil
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

func (c *memConn) WriteTo(p []byte, _ net.Addr) (int, error) {
	c.answer = append([]byte(nil), p...)
	return len(p), nil
}

func (c *memConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

var memAddr = &net.UDPAddr{IP: net.IP{0xfd, 15: 0xff}, Port: 1}

func (c *memConn) LocalAddr() net.Addr              { return memAddr }
func (c *memConn) SetDeadline(time.Time) error      { return nil }
func (c *memConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }
