package edge

import (
	"context"
	"net"
	"syscall"
	"time"
)

// A peer that vanished without a word is found after Idle + Count*Interval =
// 35 s of silence, one that stops acknowledging data after userTimeout.
// Without these a dead client holds its descriptors and its upstream for hours.
var keepAlive = net.KeepAliveConfig{
	Enable:   true,
	Idle:     15 * time.Second,
	Interval: 5 * time.Second,
	Count:    4,
}

const userTimeout = 30 * time.Second

// listenTCP binds with SO_REUSEADDR (the Go default). TCP_USER_TIMEOUT is set on
// the listening socket, from which accepted ones inherit it.
func listenTCP(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{
		KeepAliveConfig: keepAlive,
		Control: func(_, _ string, rc syscall.RawConn) error {
			var err error
			if cerr := rc.Control(func(fd uintptr) { err = setUserTimeout(fd, userTimeout) }); cerr != nil {
				return cerr
			}
			return err
		},
	}
	// Go listens with Multipath TCP by default. Its sockets refuse some of the
	// options that the TURN side sets, and older kernels refuse
	// TCP_USER_TIMEOUT on them.
	lc.SetMultipathTCP(false)
	return lc.Listen(ctx, "tcp", addr)
}
