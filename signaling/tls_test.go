package signaling

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/signaling/entry"
)

// A deadline wakes a TLS read in the middle of a record; the stream must go on from there.
func TestDrainOverTLS(t *testing.T) {
	ca := testnet.NewCA(t, "Root")
	cert := ca.Issue(t, "signal.example.com")
	type end struct {
		net.Conn
		done chan struct{}
	}
	ups := make(chan end, 1)
	b := testnet.RawUpstream(t, &cert, func(c net.Conn) {
		newWire(t, c).head()
		_, _ = io.WriteString(c, switching(testKey))
		done := make(chan struct{})
		ups <- end{c, done}
		<-done
	})
	s, err := New(Options{Log: slog.New(slog.DiscardHandler), Routes: []Route{{Route: entry.Route{Path: "/ws", Upstreams: []string{"https://signal.example.com"}, Dialer: mustDialer(t, proxy.DialOptions{CAFile: ca.File(t), Resolve: map[string]string{"signal.example.com": b.Addr}})}}}})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(s)
	front.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	front.StartTLS()
	t.Cleanup(func() { front.Close(); s.Close() })
	c, err := tls.Dial("tcp", front.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w := newWire(t, c)
	w.send(request("/ws", ""))
	w.head()
	up := <-ups
	defer close(up.done)

	frame := serverFrame(0x82, strings.Repeat("0123456789", 5000)) // several TLS records
	_, _ = io.WriteString(up, frame[:20001])
	w.want(frame[:20001])
	s.All()[0].Restart() // as Drain does
	_, _ = io.WriteString(up, frame[20001:]+"\x81\x01x")
	w.want(frame[20001:] + string(serverClose(1012)))
	w.send(maskedFrame(0x88, closePayload(1012, "")))
	if rest := w.wantEnd(); rest != "" {
		t.Errorf("client got %q behind the Close frame", rest)
	}
	c.Close()
	if err := s.Drain(t.Context(), 0); err != nil {
		t.Errorf("Drain: %v", err)
	}
}
