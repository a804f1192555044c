package signaling

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/poller"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/signaling/entry"
)

// secure is a server with TLS towards clients and upstream, over sockets that its loops can take
// as they take those of the edge.
type secure struct {
	*Server
	addr     string
	upstream string // address
	options  Options
	calls    chan *secureCall
}

// secureCall is an upstream's side of a session.
type secureCall struct {
	net.Conn
	done chan struct{} // closed by the test when it needs the connection no more
}

type rebasable struct{ net.Listener }

func (l rebasable) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &poller.Rebasable{Conn: c}, nil
}

func newSecure(t testing.TB) *secure {
	t.Helper()
	ca := testnet.NewCA(t, "Root")
	cert := ca.Issue(t, "signal.example.com")
	h := &secure{calls: make(chan *secureCall, 4096)}
	up := testnet.RawUpstream(t, &cert, func(c net.Conn) {
		w := newWire(quiet{t}, c)
		w.head()
		_, _ = io.WriteString(c, switching(testKey))
		_ = c.SetDeadline(time.Time{})
		call := &secureCall{c, make(chan struct{})}
		h.calls <- call
		select {
		case <-call.done:
		case <-t.Context().Done():
		}
	})
	h.upstream = up.Addr
	h.options = Options{Log: slog.New(slog.DiscardHandler), Routes: []Route{{Route: entry.Route{
		Path: "/ws", Upstreams: []string{"https://signal.example.com"},
		Dialer: mustDialer(t, proxy.DialOptions{CAFile: ca.File(t), Resolve: map[string]string{"signal.example.com": up.Addr}}),
	}}}}
	var err error
	if h.Server, err = New(h.options); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = ln.Addr().String()
	front := &http.Server{Handler: h.Server, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	ended := make(chan struct{})
	go func() {
		_ = front.Serve(tls.NewListener(rebasable{ln}, &tls.Config{Certificates: []tls.Certificate{cert}, DynamicRecordSizingDisabled: true}))
		close(ended)
	}()
	t.Cleanup(func() { front.Close(); <-ended; h.Close() })
	return h
}

// open returns both ends of a new session.
func (h *secure) open(t testing.TB) (client *tls.Conn, up *secureCall) {
	t.Helper()
	client, err := tls.Dial("tcp", h.addr, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	_, _ = io.WriteString(client, request("/ws", ""))
	head := make([]byte, len(switching(testKey)))
	if _, err := io.ReadFull(client, head); err != nil || !strings.HasPrefix(string(head), "HTTP/1.1 101 ") {
		t.Fatalf("handshake: %q, %v", head, err)
	}
	up = <-h.calls
	return client, up
}

// onLoops fails a test whose sessions do not run where they should.
func (h *secure) onLoops(t testing.TB) {
	t.Helper()
	for _, ses := range h.All() {
		if ses.loop == nil && !noLoops && runtime.GOOS == "linux" {
			t.Fatal("a session over TLS on both sides is not on a loop")
		}
	}
}

// crypto/tls makes an object of 24 bytes for each read of a record's head, also for one that finds
// nothing. Nothing of ours may come on top of that.
func TestForwardingOverTLSAllocatesWhatTLSDoes(t *testing.T) {
	h := newSecure(t)
	client, up := h.open(t)
	h.onLoops(t)
	for _, size := range []int{1, 200, 1000} {
		// The test's own ends are part of the count: they must not allocate either.
		there, back := []byte(maskedFrame(0x82, strings.Repeat("x", size))), []byte(serverFrame(0x82, strings.Repeat("y", size)))
		gotThere, gotBack := make([]byte, len(there)), make([]byte, len(back))
		exchange := func() {
			_, _ = client.Write(there)
			_, _ = io.ReadFull(up, gotThere)
			_, _ = up.Write(back)
			_, _ = io.ReadFull(client, gotBack)
		}
		exchange()
		const rounds = 1000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			exchange()
		}
		runtime.ReadMemStats(&after)
		// Two messages, each read by the server twice and by the test; a record may come in two pieces.
		// With the race detector sync.Pool throws away at random.
		if n := (after.TotalAlloc - before.TotalAlloc) / rounds; n > 10*24 && !testnet.Race {
			t.Errorf("%d bytes allocated per message of %d bytes there and back, want at most 240 (all of crypto/tls)", n, size)
		}
		if !bytes.Equal(gotThere, there) || !bytes.Equal(gotBack, back) {
			t.Errorf("messages of %d bytes do not arrive as they were sent", size)
		}
	}
}

// A client that does not read costs its session what one record takes, loses nothing, and no
// other session notices.
func TestReaderThatStopsOverTLS(t *testing.T) {
	h := newSecure(t)
	slow, slowUp := h.open(t)
	quick, quickUp := h.open(t)
	h.onLoops(t)
	blob := make([]byte, 16<<20)
	_, _ = rand.Read(blob)
	frame := append(frameHeader(0x82, false, uint64(len(blob))), blob...)
	sent := make(chan error, 1)
	go func() { _, err := slowUp.Write(frame); sent <- err }()
	message := serverFrame(0x81, "not held up")
	for range 100 {
		_, _ = io.WriteString(quickUp, message)
		got := make([]byte, len(message))
		if _, err := io.ReadFull(quick, got); err != nil || string(got) != message {
			t.Fatalf("the other session read %q, %v", got, err)
		}
	}
	got := make([]byte, len(frame))
	if _, err := io.ReadFull(slow, got); err != nil || !bytes.Equal(got, frame) {
		t.Errorf("the message of 16 MiB does not arrive as it was sent: %v", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestSessionsOverTLSEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(h *secure, client *tls.Conn, up *secureCall)
		code uint16 // of the Close frame the client reads; 0: none
	}{
		{"when kicked", func(h *secure, _ *tls.Conn, _ *secureCall) { h.Kick(h.Sessions()[0].ID) }, 1008},
		{"when the client breaks a rule", func(_ *secure, client *tls.Conn, _ *secureCall) {
			_, _ = io.WriteString(client, serverFrame(0x81, "no mask"))
		}, 1002},
		{"when the upstream ends", func(_ *secure, _ *tls.Conn, up *secureCall) { close(up.done) }, 0},
		{"when the client ends", func(_ *secure, client *tls.Conn, _ *secureCall) { client.Close() }, 0},
		{"when the server closes", func(h *secure, _ *tls.Conn, _ *secureCall) { h.Close() }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newSecure(t)
			client, up := h.open(t)
			_, _ = io.WriteString(client, maskedFrame(0x81, "x"))
			_, _ = io.ReadFull(up, make([]byte, len(maskedFrame(0x81, "x"))))
			h.onLoops(t)
			tt.end(h, client, up)
			if tt.code != 0 {
				want := serverClose(tt.code)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("client read %q, %v, want %q", got, err, want)
				}
			}
			select {
			case <-h.Empty():
			case <-time.After(20 * time.Second):
				t.Fatal("the session does not end")
			}
		})
	}
}
