//go:build !linux

package poller

import "net"

type stream struct{ *net.TCPConn }

// Quick returns c.
func Quick(c net.Conn) net.Conn { return c }
