package relay

import (
	"net"

	"golang.org/x/sys/unix"
)

// boundUnsent sets TCP_NOTSENT_LOWAT. A connection without a socket, or a
// kernel that refuses, keeps its buffer: the queue is bounded all the same.
func boundUnsent(conn net.Conn, bytes int) {
	if raw := socketOf(conn); raw != nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
		})
	}
}
