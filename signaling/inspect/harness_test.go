package inspect

import (
	"context"
	"errors"
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

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/signaling/entry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute // a hanging test ends with a reason

// harness is an inspection server behind a plain HTTP listener.
type harness struct {
	*Server
	addr string
	logs *testnet.LogBuffer
}

func serve(t testing.TB, routes ...Route) *harness {
	t.Helper()
	logs := &testnet.LogBuffer{}
	s, err := New(Options{Routes: routes, Log: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(s)
	t.Cleanup(func() {
		s.Close()
		front.Close()
	})
	return &harness{s, front.Listener.Addr().String(), logs}
}

// peer is a WebSocket of a test, the client's or the upstream's.
type peer struct {
	*websocket.Conn
	t testing.TB
}

func newPeer(t testing.TB, c *websocket.Conn) *peer {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	return &peer{c, t}
}

// open performs a handshake that must succeed.
func (h *harness) open(t testing.TB, target string, header http.Header) *peer {
	t.Helper()
	c, resp, err := h.try(t, target, header)
	if err != nil {
		body := ""
		if resp != nil {
			b, _ := io.ReadAll(resp.Body)
			body = resp.Status + " " + string(b)
		}
		t.Fatalf("handshake for %s: %v %s", target, err, body)
	}
	return newPeer(t, c)
}

func (h *harness) try(t testing.TB, target string, header http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	d := websocket.Dialer{HandshakeTimeout: patience}
	if p := header["Sec-Websocket-Protocol"]; p != nil {
		d.Subprotocols, header = p, without(header, "Sec-Websocket-Protocol")
	}
	if header["X-Test-Deflate"] != nil {
		d.EnableCompression, header = true, without(header, "X-Test-Deflate")
	}
	c, resp, err := d.Dial("ws://"+h.addr+target, header)
	if c != nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, resp, err
}

func without(h http.Header, name string) http.Header {
	h = h.Clone()
	delete(h, name)
	return h
}

// refused performs a handshake that must be refused, and returns status and text.
func (h *harness) refused(t testing.TB, target string, header http.Header) (int, string) {
	t.Helper()
	_, resp, err := h.try(t, target, header)
	if !errors.Is(err, websocket.ErrBadHandshake) {
		t.Fatalf("handshake for %s: got %v, want a refusal", target, err)
	}
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.TrimSpace(string(body))
}

func (p *peer) say(text string) {
	p.t.Helper()
	if err := p.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		p.t.Errorf("write: %v", err)
	}
}

// hears reads exactly this text.
func (p *peer) hears(want string) {
	p.t.Helper()
	kind, got, err := p.ReadMessage()
	if err != nil || kind != websocket.TextMessage || string(got) != want {
		p.t.Errorf("read %d %.80q, %v; want text %.80q", kind, got, err, want)
	}
}

// ends reads to a Close frame and compares it.
func (p *peer) ends(code int, reason string) {
	p.t.Helper()
	for {
		_, data, err := p.ReadMessage()
		if err == nil {
			p.t.Errorf("read %.80q, want no more messages", data)
			continue
		}
		var closed *websocket.CloseError
		if !errors.As(err, &closed) || closed.Code != code || closed.Text != reason {
			p.t.Errorf("ended with %v, want close %d %q", err, code, reason)
		}
		return
	}
}

// upstream is a WebSocket server of which a test handles one connection at a time.
type upstream struct {
	*testnet.Upstream
	peers    chan *peer
	requests chan *http.Request
}

func (u *upstream) url() string { return "http://" + u.Addr }

func newUpstream(t testing.TB, upgrader websocket.Upgrader) *upstream {
	t.Helper()
	u := &upstream{peers: make(chan *peer, 1024), requests: make(chan *http.Request, 1024)}
	upgrader.CheckOrigin = func(*http.Request) bool { return true }
	u.Upstream = testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(w, r, http.Header{"Set-Cookie": {"a=b"}, "X-From-Upstream": {"yes"}})
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
		u.requests <- r
		u.peers <- newPeer(t, c)
	}))
	return u
}

func (u *upstream) next(t testing.TB) *peer {
	t.Helper()
	return receive(t, u.peers, "the upstream has no connection")
}

func receive[T any](t testing.TB, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal(what)
		panic("unreachable")
	}
}

// vacant waits until no session is open.
func (h *harness) vacant(t testing.TB) {
	t.Helper()
	receive(t, h.Empty(), "sessions do not end")
}

// hookCall is a request to the fake hook; answer lets it go.
type hookCall struct {
	*http.Request
	body   string
	answer chan<- func(http.ResponseWriter)
}

func (c *hookCall) status(code int) { c.answer <- func(w http.ResponseWriter) { w.WriteHeader(code) } }

// newHook answers each request as the function says.
func newHook(t testing.TB, decide func(r *http.Request, body string, w http.ResponseWriter)) string {
	t.Helper()
	u := testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		decide(r, string(body), w)
	}))
	return "http://" + u.Addr
}

// heldHook hands each request to the test.
func heldHook(t testing.TB) (string, <-chan *hookCall) {
	calls := make(chan *hookCall, 4096)
	return newHook(t, func(r *http.Request, body string, w http.ResponseWriter) {
		answer := make(chan func(http.ResponseWriter), 1)
		calls <- &hookCall{r, body, answer}
		select {
		case f := <-answer:
			f(w)
		case <-r.Context().Done():
		case <-t.Context().Done():
		}
	}), calls
}

func plainRoute(u *upstream) Route {
	return Route{Route: entry.Route{Path: "/", Upstreams: []string{u.url()}}}
}

var loopback = netip.MustParsePrefix("127.0.0.0/8")

// headersRoute trusts loopback and lets it go there.
func headersRoute() Route {
	return Route{Route: entry.Route{Path: "/"}, Settings: Settings{MaxMessage: 64 << 20, MaxUpstreamMessage: 64 << 20}, ByHeaders: &ByHeaders{Trusted: []netip.Prefix{loopback}, Targets: []string{"127.0.0.0/8"}}}
}

func wants(u *upstream, more ...string) http.Header {
	h := http.Header{"X-Wsproxy-Upstream": {"ws://" + u.Addr}}
	for i := 0; i < len(more); i += 2 {
		h.Set("X-Wsproxy-"+more[i], more[i+1])
	}
	return h
}

// wire is a raw TCP connection to the server.
func (h *harness) wire(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// together waits for goroutines of a test.
func together(fs ...func()) {
	var wg sync.WaitGroup
	for _, f := range fs {
		wg.Go(f)
	}
	wg.Wait()
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
