package relay

import (
	"crypto/tls"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// wrapped is a connection that hides its socket behind NetConn.
type wrapped struct {
	net.Conn
	over net.Conn
}

func (w wrapped) NetConn() net.Conn { return w.over }

func TestUnsentBytesAreBoundedBelowEveryWrapper(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for name, conn := range map[string]net.Conn{
		"plain":   server,
		"TLS":     tls.Server(server, &tls.Config{}),
		"wrapped": wrapped{nil, tls.Server(server, &tls.Config{})},
	} {
		boundUnsent(conn, 4096)
		s := NewStream(conn, StreamLimits{})
		if got := unsentBound(server); got != maxUnsent {
			t.Errorf("%s: TCP_NOTSENT_LOWAT is %d, want %d", name, got, maxUnsent)
		}
		s.Close()
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	NewStream(a, StreamLimits{}).Close() // has no socket, and needs none
}

// unsentBound returns what boundUnsent set, 0 when there is no socket.
func unsentBound(conn net.Conn) (bytes int) {
	if raw := socketOf(conn); raw != nil {
		_ = raw.Control(func(fd uintptr) {
			bytes, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
		})
	}
	return bytes
}
