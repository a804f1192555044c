package relay

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// cork lies below TLS and lets records that were written one by one leave with one call. There are
// clients that take a record for a message (coturn's turnutils_uclient), so frames must not share
// one; a system call for each would cost half as much again.
//
// crypto/tls writes by itself too: answers to key updates, and the alert that ends the connection.
// Those wait with the others and never for the client.
type cork struct {
	net.Conn

	mu      sync.Mutex // guards the fields below
	held    []byte
	holding bool // between hold and the end of release
}

// errHeld ends the connection of a client that has crypto/tls write on and on while it takes nothing.
var errHeld = errors.New("too much is waiting to be written")

// maxHeld leaves room for the frames of one release, a header and a tag with each, and for what
// crypto/tls adds.
const maxHeld = 8 * maxWrite

// corkBelow puts a cork under a TLS connection that lets itself be put on something else; nil: it
// is none. Nobody reads or writes conn meanwhile.
func corkBelow(conn net.Conn) *cork {
	over, ok := conn.(interface{ NetConn() net.Conn })
	if !ok {
		return nil
	}
	base, ok := over.NetConn().(interface {
		Rebase(replace func(below net.Conn) (net.Conn, error)) error
	})
	if !ok {
		return nil
	}
	c := new(cork)
	if base.Rebase(func(below net.Conn) (net.Conn, error) { c.Conn = below; return c, nil }) != nil {
		return nil
	}
	return c
}

// hold keeps back what is written from now on, in a buffer that is the caller's again after
// release.
func (c *cork) hold(buf []byte) {
	c.mu.Lock()
	c.held, c.holding = buf[:0], true
	c.mu.Unlock()
}

// release writes what was held back, and what comes meanwhile. It returns a buffer for the next
// hold.
func (c *cork) release() (buf []byte, err error) {
	for {
		c.mu.Lock()
		out := c.held
		c.held = nil
		if len(out) == 0 {
			c.holding = false
			c.mu.Unlock()
			return buf, nil
		}
		c.mu.Unlock()
		if _, err := c.Conn.Write(out); err != nil {
			return nil, err // still holding: nothing may follow a part of a record
		}
		buf = out
	}
}

// Write implements net.Conn.
func (c *cork) Write(p []byte) (int, error) {
	c.mu.Lock()
	if !c.holding {
		c.mu.Unlock()
		return c.Conn.Write(p) // crypto/tls writes one record at a time
	}
	defer c.mu.Unlock()
	if len(c.held)+len(p) > maxHeld {
		return 0, errHeld
	}
	c.held = append(c.held, p...)
	return len(p), nil
}

// SyscallConn gives access to the socket, for its options.
func (c *cork) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// CloseWrite ends our direction of the connection.
func (c *cork) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
