package relay

import (
	"net"
	"syscall"
)

// maxUnsent is how much of what was written may wait in the kernel unsent.
// Linux otherwise takes megabytes before a write waits, and what lies there is
// too old to help anybody once the client reads again: the queue of the Stream
// can drop it, the kernel cannot.
const maxUnsent = 16 << 10

// socketOf returns the socket below a connection, also below TLS, or nil.
func socketOf(conn net.Conn) syscall.RawConn {
	for range 4 { // wrappers of ours, then TLS, then the edge's
		if s, ok := conn.(syscall.Conn); ok {
			if raw, err := s.SyscallConn(); err == nil {
				return raw
			}
		}
		over, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = over.NetConn()
	}
	return nil
}
