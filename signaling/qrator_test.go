package signaling

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/signaling/entry"
)

// What Qrator's reverse WebSocket proxy does, row by row, with real sockets.

// silentUpstream accepts, reads, and never says a word.
func silentUpstream(t testing.TB) *testnet.Upstream {
	return testnet.RawUpstream(t, nil, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
}

// upstreamSaying answers each request with the same bytes and closes.
func upstreamSaying(t testing.TB, answer string) *testnet.Upstream {
	return testnet.RawUpstream(t, nil, func(c net.Conn) {
		newWire(t, c).head()
		_, _ = io.WriteString(c, answer)
	})
}

func qrator(addrs ...string) Route {
	rt := Route{Route: entry.Route{Path: "/", Qrator: true, Balance: "client_ip", HandshakeTimeout: 20 * time.Second}}
	for _, a := range addrs {
		rt.Targets = append(rt.Targets, proxy.Target{URL: "http://" + a})
	}
	rt.Headers.KeepCredentials, rt.Headers.HideServer = true, true
	return rt
}

// status asks for a WebSocket and returns the status and the whole answer, to the end
// of the connection.
func (h *harness) status(t testing.TB, req string) (status, answer string) {
	t.Helper()
	w := h.dial(t)
	w.send(req)
	answer = w.wantEnd()
	if f := strings.Fields(answer); len(f) > 1 {
		status = f[1]
	}
	return status, answer
}

func TestQratorRefusesWhatIsNoWebSocket(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	h := serve(t, Options{Routes: []Route{qrator(b.Addr)}})
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"} {
		if status, answer := h.status(t, method+" /x?y HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"); status != "400" || !strings.Contains(answer, "Connection: close\r\n") {
			t.Errorf("%s: %q, want 400 and the end of the connection", method, answer)
		}
	}
	for name, fields := range map[string]string{
		"another protocol": strings.Replace(upgradeFields, "websocket", "h2c", 1),
		"another version":  strings.Replace(upgradeFields, ": 13", ": 8", 1),
		"no key":           strings.Replace(upgradeFields, "Sec-WebSocket-Key: "+testKey+"\r\n", "", 1),
	} {
		if status, answer := h.status(t, "GET / HTTP/1.1\r\nHost: h\r\n"+fields+"\r\n"); status != "400" {
			t.Errorf("%s: %q, want 400", name, answer)
		}
	}
	if status, _ := h.status(t, "POST / HTTP/1.1\r\nHost: h\r\n"+upgradeFields+"\r\n"); status != "400" {
		t.Errorf("POST with an upgrade: %s, want 400", status)
	}
	if n := b.Conns.Load(); n != 0 {
		t.Errorf("%d connections reached the upstream, want none", n)
	}
}

func TestQratorAnswers400WhenNoUpstreamDoes(t *testing.T) {
	silent := []*testnet.Upstream{silentUpstream(t), silentUpstream(t), silentUpstream(t)}
	for _, tt := range []struct {
		name  string
		addrs []string
	}{
		{"all silent", []string{silent[0].Addr, silent[1].Addr, silent[2].Addr}},
		{"all refused", []string{testnet.ClosedAddress(t), testnet.ClosedAddress(t)}},
		{"all hang up without a byte", []string{upstreamSaying(t, "").Addr, upstreamSaying(t, "").Addr}},
		{"all end amid the head", []string{upstreamSaying(t, "HTTP/1.1 101 Swit").Addr}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rt := qrator(tt.addrs...)
			rt.HandshakeTimeout = 200 * time.Millisecond
			h := serve(t, Options{Routes: []Route{rt}})
			status, answer := h.status(t, request("/", ""))
			if status != "400" || !strings.Contains(answer, "Connection: close\r\n") {
				t.Errorf("got %q, want 400 and the end of the connection", answer)
			}
		})
	}
	for i, u := range silent {
		if n := u.Conns.Load(); n > 1 {
			t.Errorf("silent upstream %d was asked %d times, want once", i, n)
		}
	}
}

// The time of an upstream is one from dial to a whole head: a byte now and then does not
// make it longer.
func TestQratorSlowDripIsSilence(t *testing.T) {
	t.Parallel()
	drip := testnet.RawUpstream(t, nil, func(c net.Conn) {
		newWire(t, c).head()
		for _, b := range []byte(switching(testKey)) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond) // the whole head would take ten seconds and more
		}
	})
	good, _ := newBackend(t, switching(testKey))
	rt := qrator()
	rt.HandshakeTimeout = 3 * time.Second
	rt.Balance = "order"
	rt.Upstreams = []string{"http://" + drip.Addr, "http://" + good.Addr}
	h := serve(t, Options{Routes: []Route{rt}})
	h.upgrade(t, "/")
	if n := good.Conns.Load(); n != 1 {
		t.Errorf("the next upstream was asked %d times, want once", n)
	}
	if up := h.Upstreams(); up[0].Up || up[0].Cause != proxy.CauseTimeout {
		t.Errorf("the slow one: %+v, want it out for its timeout", up[0])
	}
}

// An answer that is an error, a redirect, or anything else but 101 ends the attempt.
func TestQratorRelaysOtherAnswersAndCloses(t *testing.T) {
	for _, tt := range []struct {
		name, answer, status string
	}{
		{"403", "HTTP/1.1 403 No\r\nContent-Length: 2\r\nX-Why: x\r\n\r\nno", "403"},
		{"503 without a length", "HTTP/1.1 503 Busy\r\n\r\nbusy", "503"},
		{"200", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200"},
		{"a redirect is not followed", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "302"},
		{"a body that is too long", "HTTP/1.1 500 x\r\n\r\n" + strings.Repeat("x", (64<<10)+1), "500"},
		{"no HTTP", "SSH-2.0-OpenSSH_9.2\r\n", "502"},
		{"a wrong accept value", strings.Replace(switching(testKey), testnet.AcceptKey(testKey), "AAAA", 1), "502"},
		{"a subprotocol that was not offered", strings.Replace(switching(testKey), "\r\n\r\n", "\r\nSec-WebSocket-Protocol: x\r\n\r\n", 1), "502"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := upstreamSaying(t, tt.answer)
			next, _ := newBackend(t, switching(testKey))
			rt := qrator()
			rt.Balance = "order"
			rt.Upstreams = []string{"http://" + bad.Addr, "http://" + next.Addr}
			h := serve(t, Options{Routes: []Route{rt}})
			status, answer := h.status(t, request("/", ""))
			if status != tt.status || !strings.Contains(answer, "Connection: close\r\n") {
				t.Errorf("got %q, want %s and the end of the connection", answer, tt.status)
			}
			if n := next.Conns.Load(); n != 0 {
				t.Error("the next upstream was asked")
			}
			if up := h.Upstreams(); !up[0].Up {
				t.Error("an answer took the upstream out")
			}
		})
	}
}

// The status passes though the upstream keeps the rest of its answer to itself.
func TestQratorDoesNotWaitForABody(t *testing.T) {
	b := testnet.RawUpstream(t, nil, func(c net.Conn) {
		w := newWire(t, c)
		w.head()
		_, _ = io.WriteString(c, "HTTP/1.1 403 No\r\nContent-Length: 1000\r\n\r\nthe begin")
		_, _ = io.Copy(io.Discard, w.r)
	})
	rt := qrator(b.Addr)
	rt.HandshakeTimeout = time.Hour
	h := serve(t, Options{Routes: []Route{rt}})
	if status, answer := h.status(t, request("/", "")); status != "403" {
		t.Errorf("got %q, want 403", answer)
	}
}

func TestQratorDropsWithoutAnAnswer(t *testing.T) {
	bad := upstreamSaying(t, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
	good, _ := newBackend(t, switching(testKey))
	failing, limited, foreign := qrator(bad.Addr), qrator(good.Addr), qrator(good.Addr)
	failing.Path, limited.Path, foreign.Path = "/failing", "/limited", "/foreign"
	all := entry.Silence{Clients: true, Limit: true, Errors: true}
	failing.Silent, limited.Silent, foreign.Silent = all, all, all
	limited.MaxPerAddress = 1
	foreign.Clients = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	h := serve(t, Options{Routes: []Route{failing, limited, foreign}})
	h.upgrade(t, "/limited")
	for _, path := range []string{"/failing", "/limited", "/foreign"} {
		if _, answer := h.status(t, request(path, "")); answer != "" {
			t.Errorf("%s: %q, want the end of the connection and no byte", path, answer)
		}
	}
	if n := good.Conns.Load(); n != 1 {
		t.Errorf("%d connections reached the upstream, want that of the one client", n)
	}
}

func TestQratorPasses101ByteForByte(t *testing.T) {
	answer := "HTTP/1.1 101 As You Like\r\nServer: x/1\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\nX_odd: 1\r\nupgrade: WebSocket\r\n" +
		"Strict-Transport-Security: max-age=1\r\nConnection:   keep-alive, Upgrade\r\nSec-WebSocket-Accept: " + testnet.AcceptKey(testKey) + "\r\nDate: never\r\n\r\n"
	b, heads := newBackend(t, "")
	h := serve(t, Options{Routes: []Route{qrator(b.Addr)}})
	w := h.dial(t)
	w.send(request("/", ""))
	<-heads
	far := <-b.conns
	// Nothing comes before the upstream has answered.
	_ = w.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := w.r.ReadByte(); err == nil {
		t.Error("the client is answered before the upstream has")
	}
	_ = w.SetReadDeadline(time.Now().Add(20 * time.Second))
	far.send(answer + "behind it")
	if got := w.head(); got != answer {
		t.Errorf("client got %q, want %q", got, answer)
	}
	w.want("behind it")
	opaque := "\xff\x00 no frame at all"
	w.send(opaque)
	w.wantEnd() // frames are checked unless Lenient
	h.vacant(t)
}

func TestQratorCarriesOpaqueBytesAndClosesTheOtherSide(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	rt := qrator(b.Addr)
	rt.Lenient = true
	h := serve(t, Options{Routes: []Route{rt}})
	w := h.upgrade(t, "/")
	far := <-b.conns
	w.send("\xff\x00 no frame at all")
	far.want("\xff\x00 no frame at all")
	far.send("last words")
	far.Close()
	w.want("last words")
	if rest := w.wantEnd(); rest != "" {
		t.Errorf("%q behind the last words", rest)
	}
	h.vacant(t)

	w = h.upgrade(t, "/")
	far = <-b.conns
	w.send("my last words")
	w.Close()
	far.want("my last words")
	far.wantEnd()
	h.vacant(t)
}

func TestQratorRequestHeaders(t *testing.T) {
	b, heads := newBackend(t, switching(testKey))
	rt := qrator(b.Addr)
	rt.Headers.XFF = proxy.XFFAppend
	for _, f := range [][2]string{{"X-Qrator-IP-Source", "{client}"}, {"X-Qrator-RequestID", "{id}"}, {"X-Q-DomId", "4711"}} {
		field, err := proxy.ParseField(f[0], f[1])
		if err != nil {
			t.Fatal(err)
		}
		rt.Headers.Add = append(rt.Headers.Add, field)
	}
	h := serve(t, Options{Routes: []Route{rt}})
	w := h.dial(t)
	w.send(request("/", "X-Forwarded-For: 6.6.6.6\r\nX-Qrator-IP-Source: 6.6.6.6\r\nX-Qrator-RequestID: 6\r\nX-Q-DomId: 6\r\nX-Q-Other: 6\r\n"+
		"X-Real-IP: 6.6.6.6\r\nX-Request-ID: 6\r\nX-Forwarded-Host: six\r\nForwarded: for=6.6.6.6\r\nX_Under: 6\r\nX-Kept: 7\r\n"))
	w.head()
	head := <-heads
	want := regexp.MustCompile("(?s)\r\nX-Forwarded-For: 6\\.6\\.6\\.6, 127\\.0\\.0\\.1\r\nX-Kept: 7\r\nX-Q-DomId: 4711\r\nX-Qrator-IP-Source: 127\\.0\\.0\\.1\r\nX-Qrator-RequestID: [0-9a-f]{32}\r\n\r\n$")
	if !want.MatchString(head) {
		t.Errorf("upstream got %q, want it to match %s", head, want)
	}
	if strings.Count(head, "6.6.6.6") != 1 {
		t.Errorf("upstream got what the client claims: %q", head)
	}
}

func TestRouteIdentifiesTheClient(t *testing.T) {
	b, heads := newBackend(t, switching(testKey))
	rt := b.route("/ws")
	rt.Headers.Identify = true
	h := serve(t, Options{Routes: []Route{rt}})
	w := h.dial(t)
	w.send(request("/ws", "X-Real-IP: 6.6.6.6\r\nX-Request-ID: 6\r\nX-Forwarded-Proto: gopher\r\n"))
	w.head()
	head := <-heads
	for _, want := range []string{"X-Real-IP: 127.0.0.1\r\n", "X-Forwarded-Proto: http\r\n", "X-Forwarded-Host: proxy.example.com\r\n", "X-Forwarded-For: 127.0.0.1\r\n"} {
		if strings.Count(head, want) != 1 {
			t.Errorf("upstream got %q, want %q in it once", head, want)
		}
	}
	if !regexp.MustCompile("X-Request-ID: [0-9a-f]{32}\r\n").MatchString(head) {
		t.Errorf("upstream got %q, want an id of 32 digits", head)
	}
}

// Connections of one address, open and being opened, are limited together, and a reload
// does not forget them.
func TestLimitOfConnectionsPerAddress(t *testing.T) {
	b, heads := newBackend(t, "")
	rt := qrator(b.Addr)
	rt.MaxPerAddress = 2
	rt.HandshakeTimeout = time.Hour
	rt.Headers.Trust = proxy.Trust{netip.MustParsePrefix("127.0.0.0/8")}
	h := serve(t, Options{Routes: []Route{rt}})
	from := func(addr string) string { return request("/", "X-Forwarded-For: "+addr+"\r\n") }
	refused := func(addr string) {
		t.Helper()
		status, answer := h.status(t, from(addr))
		if status != "429" || !strings.Contains(answer, "Retry-After: ") || !strings.Contains(answer, "Connection: close\r\n") {
			t.Errorf("over the limit: %q, want 429, Retry-After and the end of the connection", answer)
		}
	}
	first := h.dial(t)
	first.send(from("203.0.113.7"))
	<-heads
	firstFar := <-b.conns
	firstFar.send(switching(testKey))
	first.head()
	second := h.dial(t) // stays in its handshake
	second.send(from("203.0.113.7"))
	<-heads
	secondFar := <-b.conns
	refused("203.0.113.7")
	if n := b.Conns.Load(); n != 2 {
		t.Errorf("%d connections reached the upstream, want 2", n)
	}
	other := h.dial(t)
	other.send(from("203.0.113.8"))
	<-heads
	<-b.conns
	rt.Targets[0].Weight = 50 // anything
	if err := h.Reconfigure(Options{Routes: []Route{rt}}); err != nil {
		t.Fatal(err)
	}
	refused("203.0.113.7")
	secondFar.send(switching(testKey))
	second.head()
	firstFar.Close()
	first.wantEnd()
	for h.Count() > 1 {
		time.Sleep(time.Millisecond) // the session ends
	}
	third := h.dial(t)
	third.send(from("203.0.113.7"))
	<-heads
	<-b.conns
	refused("203.0.113.7")
}

// Whom nobody vouches for is the address he comes from, to the limit and to the choice of
// an upstream, whatever he writes.
func TestForgedAddressesCountAsOne(t *testing.T) {
	var addrs []string
	for range 4 {
		b, _ := newBackend(t, switching(testKey))
		addrs = append(addrs, b.Addr)
	}
	rt := qrator(addrs...)
	rt.MaxPerAddress = 8
	rt.Headers.XFF = proxy.XFFAppend
	h := serve(t, Options{Routes: []Route{rt}})
	for i := range 12 {
		w := h.dial(t)
		forged := fmt.Sprintf("203.0.113.%d", i)
		w.send(request("/", "X-Forwarded-For: "+forged+"\r\nX-Real-IP: "+forged+"\r\nForwarded: for="+forged+"\r\nX-Qrator-IP-Source: "+forged+"\r\n"))
		want := "101"
		if i >= rt.MaxPerAddress {
			want = "429"
		}
		if got := strings.Fields(w.head())[1]; got != want {
			t.Errorf("connection %d: %s, want %s", i, got, want)
		}
	}
	used := map[string]bool{}
	for _, s := range h.Sessions() {
		used[s.Upstream] = true
	}
	if len(used) != 1 {
		t.Errorf("one address has %d upstreams, want 1", len(used))
	}
}

func TestAllowListOfClients(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	rt := qrator(b.Addr)
	rt.Clients = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	rt.Headers.Trust = proxy.Trust{netip.MustParsePrefix("127.0.0.1/32")}
	h := serve(t, Options{Routes: []Route{rt}})
	for _, tt := range []struct{ addr, status string }{
		{"203.0.113.9", "101"}, {"2001:db8::9", "101"}, {"::ffff:203.0.113.9", "101"},
		{"198.51.100.1", "403"}, {"203.0.113.9, 198.51.100.1", "403"}, {"", "403"},
	} {
		w := h.dial(t)
		w.send(request("/", "X-Forwarded-For: "+tt.addr+"\r\n"))
		if got := strings.Fields(w.head())[1]; got != tt.status {
			t.Errorf("a client at %q got %s, want %s", tt.addr, got, tt.status)
		}
		w.Close()
	}
	if status, _ := h.status(t, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); status != "403" {
		t.Errorf("a foreign client that asks for no WebSocket got %s, want 403", status)
	}
}

// One name for the certificate and another address to connect to; the Host goes with the
// name only if that is said.
func TestUpstreamWithNamesOfItsOwn(t *testing.T) {
	ca := testnet.NewCA(t, "Root")
	hosts := make(chan string, 8)
	b := testnet.NewUpstream(t, ca.Issue(t, "inner.example.com"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts <- r.Host
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, switching(r.Header.Get("Sec-WebSocket-Key")))
		c.Close()
	}))
	for i, tt := range []struct {
		target proxy.Target
		host   string // "": the handshake fails
	}{
		{proxy.Target{ServerName: "Inner.example.com"}, b.Addr},
		{proxy.Target{ServerName: "inner.example.com", Host: "inner.example.com"}, "inner.example.com"},
		{proxy.Target{Host: "inner.example.com"}, ""}, // the certificate is not for the address
		{proxy.Target{ServerName: "other.example.com"}, ""},
	} {
		tt.target.URL = "https://" + b.Addr
		rt := Route{Route: entry.Route{Path: "/", Targets: []proxy.Target{tt.target}, Dialer: mustDialer(t, proxy.DialOptions{CAFile: ca.File(t)})}}
		h := serve(t, Options{Routes: []Route{rt}})
		w := h.dial(t)
		w.send(request("/", ""))
		head := w.head()
		if tt.host == "" {
			if !strings.HasPrefix(head, "HTTP/1.1 502 ") || len(hosts) > 0 {
				t.Errorf("case %d: %q, want 502 and no request", i, head)
			}
			continue
		}
		if got := <-hosts; !strings.HasPrefix(head, "HTTP/1.1 101 ") || got != tt.host {
			t.Errorf("case %d: %q, Host %q, want 101 and %q", i, head, got, tt.host)
		}
	}
	for _, name := range b.ServerNames() {
		if name != "inner.example.com" && name != "other.example.com" && name != "" {
			t.Errorf("SNI %q", name)
		}
	}
}

func ExampleServer_Upstreams() {
	s, err := New(Options{Routes: []Route{{Route: entry.Route{Path: "/", Targets: []proxy.Target{{URL: "wss://a.example"}, {URL: "wss://b.example", Backup: true}}}}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	for _, u := range s.Upstreams() {
		fmt.Println(u.Route, u.Upstream, u.Up, u.Backup)
	}
	// Output:
	// / https://a.example:443 true false
	// / https://b.example:443 true true
}
