package edge

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Accepted sockets inherit what finds dead peers, and are plain TCP.
func TestAcceptedSocketsFindDeadPeers(t *testing.T) {
	w := start(t, nil, nil)
	w.dial(t).Write(binding)
	call := w.nextTURN(t)
	rc, err := call.conn.(*conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		level, opt int
		want       int
	}{
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30_000},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
		{"SO_PROTOCOL", unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP},
	} {
		rc.Control(func(fd uintptr) {
			got, err := unix.GetsockoptInt(int(fd), c.level, c.opt)
			if err != nil || got != c.want {
				t.Errorf("%s = %d (%v), want %d", c.name, got, err, c.want)
			}
		})
	}
}

func TestWriteBuffersReachesTheSocket(t *testing.T) {
	w := start(t, nil, nil)
	client := w.dial(t)
	client.Write(binding)
	call := w.nextTURN(t)
	b := net.Buffers{[]byte("one "), []byte("two")}
	if n, err := call.conn.(*conn).WriteBuffers(&b); n != 7 || err != nil {
		t.Fatalf("WriteBuffers = %d, %v; want 7", n, err)
	}
	call.conn.(*conn).CloseWrite()
	if got := wantClosed(t, client); got != "one two" {
		t.Errorf("client read %q, want %q", got, "one two")
	}
}
