//go:build !linux

package poller

import (
	"errors"
	"net"
)

// A Loop does not exist here.
type Loop struct{}

// A Conn does not exist here.
type Conn struct{ net.Conn }

// Pending reports false.
func (c *Conn) Pending() bool { return false }

// New returns errors.ErrUnsupported.
func New() (*Loop, error) { return nil, errors.ErrUnsupported }

// Attach returns errors.ErrUnsupported.
func (l *Loop) Attach(Handler, ...net.Conn) ([]net.Conn, []*Conn, error) {
	return nil, nil, errors.ErrUnsupported
}

// Watch returns errors.ErrUnsupported.
func (l *Loop) Watch(...*Conn) error { return errors.ErrUnsupported }

// Wake reports false.
func (l *Loop) Wake(Handler) bool { return false }

// Run returns.
func (l *Loop) Run() {}

// Close does nothing.
func (l *Loop) Close() {}
