package edge

import (
	"net"
	"sync"
)

// httpListener is the net.Listener through which net/http gets its connections.
type httpListener struct {
	addr    net.Addr
	conns   chan net.Conn // without buffer: nothing can be forgotten in it
	closing sync.Once
	closed  chan struct{}
}

func newHTTPListener(addr net.Addr) *httpListener {
	return &httpListener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// deliver waits until the HTTP side takes nc, and reports false, without
// closing nc, when it never will.
func (l *httpListener) deliver(nc net.Conn) bool {
	select {
	case <-l.closed: // checked alone first: select picks at random
		return false
	default:
	}
	select {
	case l.conns <- nc:
		return true
	case <-l.closed:
		return false
	}
}

func (l *httpListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *httpListener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return nil
}

func (l *httpListener) Addr() net.Addr { return l.addr }
