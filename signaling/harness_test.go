package signaling

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/signaling/entry"
)

const testKey = "dGhlIHNhbXBsZSBub25jZQ=="

// logBuffer collects log lines of all levels.
type logBuffer struct{ testnet.LogBuffer }

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// harness is a signaling server behind a plain HTTP listener.
type harness struct {
	*Server
	addr string
	logs *logBuffer
}

func serve(t testing.TB, opt Options) *harness {
	t.Helper()
	logs := &logBuffer{}
	opt.Log = logs.logger()
	s, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(s)
	t.Cleanup(func() {
		front.Close()
		s.Close()
	})
	return &harness{s, front.Listener.Addr().String(), logs}
}

// wire is a raw connection to the server under test or from it.
type wire struct {
	net.Conn
	r *bufio.Reader
	t testing.TB
}

func newWire(t testing.TB, c net.Conn) *wire {
	_ = c.SetDeadline(time.Now().Add(time.Minute)) // a hanging test ends with a reason
	return &wire{c, bufio.NewReader(c), t}
}

func (h *harness) dial(t testing.TB) *wire {
	t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newWire(t, c)
}

func (w *wire) send(s string) {
	w.t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		w.t.Fatalf("write: %v", err)
	}
}

// head reads up to and with an empty line.
func (w *wire) head() string {
	w.t.Helper()
	var b strings.Builder
	for {
		line, err := w.r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			w.t.Errorf("head ends with %v after %q", err, b.String())
			return b.String()
		}
		if line == "\r\n" {
			return b.String()
		}
	}
}

// want reads exactly these bytes.
func (w *wire) want(s string) {
	w.t.Helper()
	got := make([]byte, len(s))
	n, err := io.ReadFull(w.r, got)
	if err != nil || string(got) != s {
		w.t.Errorf("read %q, %v, want %q", got[:n], err, s)
	}
}

// wantEnd reads to the end of the stream and reports what came before.
func (w *wire) wantEnd() string {
	w.t.Helper()
	rest, err := io.ReadAll(w.r)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		w.t.Errorf("the stream does not end; read %q", rest)
	}
	return string(rest)
}

const upgradeFields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + testKey + "\r\n"

func request(target, extra string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: proxy.example.com\r\n" + upgradeFields + extra + "\r\n"
}

// upgrade performs a handshake that must succeed.
func (h *harness) upgrade(t testing.TB, target string) *wire {
	t.Helper()
	w := h.dial(t)
	w.send(request(target, ""))
	if head := w.head(); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("handshake for %s: %s", target, head)
	}
	return w
}

func switching(key string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + testnet.AcceptKey(key) + "\r\n\r\n"
}

// backend is a fake upstream of which a test handles one connection at a time.
type backend struct {
	*testnet.Upstream
	conns chan *wire
}

// newBackend accepts connections, reads the request head and, if answer is not "", sends
// it; then it hands the connection to the test with the head in heads.
func newBackend(t testing.TB, answer string) (*backend, chan string) {
	b := &backend{conns: make(chan *wire, 64)}
	heads := make(chan string, 64)
	b.Upstream = testnet.RawUpstream(t, nil, func(c net.Conn) {
		w := newWire(t, c)
		w.t = quiet{t} // a connection that is dropped early is not the test's failure here
		heads <- w.head()
		_, _ = io.WriteString(c, answer)
		w.t = t
		done := make(chan struct{})
		b.conns <- &wire{&doneConn{Conn: c, done: done}, w.r, t}
		select {
		case <-done:
		case <-t.Context().Done():
		}
	})
	return b, heads
}

// doneConn tells its owner when the test has closed it.
type doneConn struct {
	net.Conn
	once sync.Once
	done chan struct{}
}

func (c *doneConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

func (c *doneConn) CloseWrite() error { return c.Conn.(interface{ CloseWrite() error }).CloseWrite() }

type quiet struct{ testing.TB }

func (quiet) Errorf(string, ...any) {}
func (quiet) Helper()               {}

func (b *backend) route(path string) Route {
	return Route{Route: entry.Route{Path: path, Upstreams: []string{"http://" + b.Addr}}}
}

// maskedFrame builds a client frame with a mask of zeros... except where it matters.
func maskedFrame(first byte, payload string) string {
	return string(frameHeader(first, true, uint64(len(payload)))) + mask(payload)
}

var maskKey = [4]byte{0x12, 0x34, 0x56, 0x78}

func mask(payload string) string {
	b := []byte(payload)
	for i := range b {
		b[i] ^= maskKey[i%4]
	}
	return string(b)
}

func frameHeader(first byte, masked bool, length uint64) []byte {
	var m byte
	if masked {
		m = 0x80
	}
	b := []byte{first}
	switch {
	case length < 126:
		b = append(b, m|byte(length))
	case length < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, m|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, m|127), length)
	}
	if masked {
		b = append(b, maskKey[:]...)
	}
	return b
}

func serverFrame(first byte, payload string) string {
	return string(frameHeader(first, false, uint64(len(payload)))) + payload
}

func closePayload(code uint16, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, code)) + reason
}

// get sends a plain request and returns the response.
func (h *harness) get(t testing.TB, method, target, body string, header http.Header) *http.Response {
	t.Helper()
	w := h.dial(t)
	fmt.Fprintf(w, "%s %s HTTP/1.1\r\nHost: proxy.example.com\r\nConnection: close\r\nContent-Length: %d\r\n", method, target, len(body))
	_ = header.Write(w)
	w.send("\r\n" + body)
	resp, err := http.ReadResponse(w.r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return resp
}

func mustDialer(t testing.TB, opt proxy.DialOptions) *proxy.Dialer {
	t.Helper()
	d, err := proxy.NewDialer(opt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// vacant waits until no session is open.
func (h *harness) vacant(t testing.TB) {
	t.Helper()
	select {
	case <-h.Empty():
	case <-time.After(time.Minute):
		t.Fatal("sessions do not end")
	}
}

func noDNS(context.Context, string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "a test asks no DNS"}
}
