package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// control limits how long sent data may stay without an acknowledgement.
func control(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// Without the option a dead peer is found by the kernel's retries, later.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
}
