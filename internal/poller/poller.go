// Package poller carries TCP connections that are silent most of the time
// without a goroutine, a buffer or a place in the Go runtime's poller for each:
// a Loop waits for all of its connections at once and calls their Handlers, one
// after the other, on its own goroutine.
//
// A connection comes to a Loop when its handshakes are over. TLS stays where it
// is: crypto/tls accepts a temporary error of the connection below at any byte
// of a record, goes on where it was, and what it holds decrypted is read first.
//
// Loops exist on Linux only. Elsewhere, and for what is no TCP connection at
// the bottom, Attach returns errors.ErrUnsupported before anything has changed.
package poller

import (
	"errors"
	"net"
	"time"
)

// ErrAgain says that there is nothing to read for now. It is temporary in the
// sense of crypto/tls.
var ErrAgain error = again{}

type again struct{}

func (again) Error() string   { return "nothing to read for now" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// errBacklog ends a connection whose owner writes on although nothing is taken.
var errBacklog = errors.New("too much is waiting to be written")

// maxBacklog is far above what an owner leaves that stops at Pending: one record, and what
// crypto/tls sends by itself.
const maxBacklog = 256 << 10

// BufferSize is the length of the buffer a Handler gets: the payload of one TLS record.
const BufferSize = 16 << 10

// A Handler is called when one of its connections may be read or written again,
// and once soon after Watch. It must not block. buf is the Loop's: it may be used until
// Ready returns. A Handler that has more to do than is fair to the others
// returns true and is called again after them.
type Handler interface {
	Ready(buf []byte) (more bool)
}

// A Base is a connection under a layer that cannot be taken off, such as TLS. Rebase calls
// replace with the connection below it and goes on with what that returns. It is
// called when nobody reads or writes. On an error nothing has changed.
type Base interface {
	Rebase(replace func(below net.Conn) (net.Conn, error)) error
}

// Rebasable is a Base over any connection.
type Rebasable struct{ net.Conn }

// Rebase implements [Base].
func (r *Rebasable) Rebase(replace func(net.Conn) (net.Conn, error)) error {
	c, err := replace(r.Conn)
	if err == nil {
		r.Conn = c
	}
	return err
}

// NetConn returns the connection below.
func (r *Rebasable) NetConn() net.Conn { return r.Conn }

// CloseWrite ends our direction of the connection.
func (r *Rebasable) CloseWrite() error {
	if half, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// bottom returns the TCP connection under c, and the Base that stands on it unless c is
// the connection itself.
func bottom(c net.Conn) (*net.TCPConn, Base, error) {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok {
		base, ok := over.NetConn().(Base)
		if !ok {
			return nil, nil, errors.ErrUnsupported
		}
		var tcp *net.TCPConn
		looked := errors.New("looked")
		err := base.Rebase(func(below net.Conn) (net.Conn, error) {
			tcp = tcpOf(below)
			return nil, looked
		})
		if tcp == nil || err != looked {
			return nil, nil, errors.ErrUnsupported
		}
		return tcp, base, nil
	}
	if tcp := tcpOf(c); tcp != nil {
		return tcp, nil, nil
	}
	return nil, nil, errors.ErrUnsupported
}

// tcpOf returns the connection below Quick; nil: there is none over TCP.
func tcpOf(c net.Conn) *net.TCPConn {
	switch c := c.(type) {
	case *net.TCPConn:
		return c
	case *stream:
		return c.TCPConn
	}
	return nil
}

// Attachable reports whether Attach can move c.
func Attachable(c net.Conn) bool {
	_, _, err := bottom(c)
	return err == nil
}

// Deadlines mean nothing to a Conn: its Handler has timers of its own.

// SetDeadline does nothing.
func (c *Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }
