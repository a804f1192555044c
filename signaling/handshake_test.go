package signaling

import (
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

func TestHandshakeReachesTheUpstreamByteForByte(t *testing.T) {
	answer := "HTTP/1.1 101 Web Socket Protocol Handshake\r\nupgrade: WebSocket\r\nX_odd: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: x/1\r\n" +
		"Sec-WebSocket-Protocol: 2.0\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Accept: " + testnet.AcceptKey(testKey) +
		"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
	b, heads := newBackend(t, answer)
	rt := b.route("/ws/")
	rt.Headers.KeepCredentials = true
	h := serve(t, Options{Routes: []Route{rt}})
	const query = "?sdkAppId=1400000001&userId=%E4%BD%A0&userSig=eJw*_-.~%2A&&keepAlive=0"
	for _, tt := range []struct{ target, want string }{
		{"/ws/" + query, "/" + query},
		{"/ws" + query, "/" + query},
		{"/ws//v2/ws?", "/v2/ws?"},
		{"/ws/v2//ws/", "/v2//ws/"},
	} {
		w := h.dial(t)
		w.send(request(tt.target, "Origin: https://app.example.com\r\nSec-WebSocket-Protocol: 2.0, other\r\n"+
			"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nX-Forwarded-For: 6.6.6.6\r\nX_Y: 1\r\n"))
		if got := w.head(); got != answer {
			t.Errorf("%s: client got %q, want the upstream's answer byte for byte", tt.target, got)
		}
		want := "GET " + tt.want + " HTTP/1.1\r\nHost: " + b.Addr + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Origin: https://app.example.com\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + testKey + "\r\n" +
			"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Protocol: 2.0, other\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n"
		if got := <-heads; got != want {
			t.Errorf("%s: upstream got\n%q, want\n%q", tt.target, got, want)
		}
		(<-b.conns).Close()
	}
	if logs := h.logs.String(); strings.Contains(logs, "eJw") || !strings.Contains(logs, "sdkAppId=1400000001") {
		t.Errorf("log shows the query or not the application:\n%s", logs)
	}
}

func TestHandshakeKeepsCredentialsHome(t *testing.T) {
	fields := "Server: x/1\r\nset-cookie: a=1\r\nStrict-Transport-Security: max-age=1\r\n"
	answer := strings.Replace(switching(testKey), "Connection", fields+"Connection", 1)
	b, heads := newBackend(t, answer)
	rt := b.route("/ws/")
	rt.Headers.HideServer = true
	h := serve(t, Options{Routes: []Route{rt}})
	w := h.dial(t)
	w.send(request("/ws/", "Cookie: sso=1\r\nAuthorization: Bearer x\r\n"))
	if got := w.head(); got != switching(testKey) {
		t.Errorf("client got %q, want %q", got, switching(testKey))
	}
	if head := <-heads; strings.Contains(head, "sso") || strings.Contains(head, "Bearer") {
		t.Errorf("upstream got %q", head)
	}
}

func TestHandshakeRefusals(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	listed := b.route("/listed")
	listed.Origins = []string{"https://*.example.com"}
	listed.SDKAppIDs = []uint64{1400000001}
	h := serve(t, Options{Routes: []Route{b.route("/ws"), listed}})
	raw := func(line, fields string) string { return line + "\r\nHost: h\r\n" + fields + "\r\n" }
	for _, tt := range []struct {
		name    string
		request string
		status  string
	}{
		{"a plain GET needs an upgrade", raw("GET /ws HTTP/1.1", ""), "426"},
		{"POST is no handshake", raw("POST /ws HTTP/1.1", upgradeFields), "405"},
		{"HEAD is no handshake", raw("HEAD /ws HTTP/1.1", upgradeFields), "405"},
		{"h2c is no websocket", raw("GET /ws HTTP/1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"), "400"},
		{"another protocol", raw("GET /ws HTTP/1.1", strings.Replace(upgradeFields, "websocket", "foo", 1)), "400"},
		{"two protocols", raw("GET /ws HTTP/1.1", strings.Replace(upgradeFields, "websocket", "websocket, h2c", 1)), "400"},
		{"two Upgrade fields", raw("GET /ws HTTP/1.1", upgradeFields+"Upgrade: websocket\r\n"), "400"},
		{"Upgrade without Connection", raw("GET /ws HTTP/1.1", strings.Replace(upgradeFields, "Connection: Upgrade\r\n", "", 1)), "400"},
		{"another version", raw("GET /ws HTTP/1.1", strings.Replace(upgradeFields, ": 13", ": 8", 1)), "426"},
		{"no version", raw("GET /ws HTTP/1.1", strings.Replace(upgradeFields, "Sec-WebSocket-Version: 13\r\n", "", 1)), "426"},
		{"no key", raw("GET /ws HTTP/1.1", strings.Replace(upgradeFields, "Sec-WebSocket-Key: "+testKey+"\r\n", "", 1)), "400"},
		{"an empty key", raw("GET /ws HTTP/1.1", strings.Replace(upgradeFields, testKey, "", 1)), "400"},
		{"a short key", raw("GET /ws HTTP/1.1", strings.Replace(upgradeFields, testKey, "AAAA", 1)), "400"},
		{"two keys", raw("GET /ws HTTP/1.1", upgradeFields+"Sec-WebSocket-Key: "+testKey+"\r\n"), "400"},
		{"a body", raw("GET /ws HTTP/1.1", upgradeFields+"Content-Length: 5\r\n") + "hello", "400"},
		{"a chunked body", raw("GET /ws HTTP/1.1", upgradeFields+"Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", "400"},
		{"HTTP/1.0", raw("GET /ws HTTP/1.0", upgradeFields), "400"},
		{"a dot segment", raw("GET /ws/%2e%2e/x HTTP/1.1", upgradeFields), "400"},
		{"an encoded slash", raw("GET /ws/%2fx HTTP/1.1", upgradeFields), "400"},
		{"a neighbour path", raw("GET /wsx HTTP/1.1", upgradeFields), "404"},
		{"no path of ours", raw("GET / HTTP/1.1", upgradeFields), "404"},
		{"a foreign Origin", raw("GET /listed?sdkAppId=1400000001 HTTP/1.1", upgradeFields+"Origin: https://evil.test\r\n"), "403"},
		{"no Origin where one is asked for", raw("GET /listed?sdkAppId=1400000001 HTTP/1.1", upgradeFields), "403"},
		{"a foreign application", raw("GET /listed?sdkAppId=1400000002 HTTP/1.1", upgradeFields+"Origin: https://a.example.com\r\n"), "403"},
		{"two applications", raw("GET /listed?sdkAppId=1400000001&sdkAppId=1400000002 HTTP/1.1", upgradeFields+"Origin: https://a.example.com\r\n"), "403"},
		{"no application", raw("GET /listed HTTP/1.1", upgradeFields+"Origin: https://a.example.com\r\n"), "403"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := h.dial(t)
			w.send(tt.request)
			head := w.head()
			if got := strings.Fields(head)[1]; got != tt.status {
				t.Errorf("status %s, want %s", got, tt.status)
			}
			if tt.status == "426" && (!strings.Contains(head, "Upgrade: websocket\r\n") || !strings.Contains(head, "Sec-Websocket-Version: 13\r\n")) {
				t.Errorf("426 does not say what is wanted: %q", head)
			}
			w.wantEnd()
		})
	}
	if n := b.Conns.Load(); n != 0 {
		t.Errorf("%d connections reached the upstream, want 0", n)
	}
	w := h.dial(t)
	w.send(request("/listed?sdkAppId=1400000001", "Origin: https://a.example.com\r\n"))
	if head := w.head(); !strings.HasPrefix(head, "HTTP/1.1 101") {
		t.Errorf("a listed client got %q", head)
	}
}

func TestHandshakeKeyNamedInConnection(t *testing.T) {
	b, heads := newBackend(t, switching(testKey))
	h := serve(t, Options{Routes: []Route{b.route("/ws")}})
	w := h.dial(t)
	w.send(strings.Replace(request("/ws", ""), "Connection: Upgrade", "Connection: Upgrade, Sec-WebSocket-Key", 1))
	if head := w.head(); !strings.HasPrefix(head, "HTTP/1.1 101") {
		t.Errorf("got %q, want 101", head)
	}
	if head := <-heads; !strings.Contains(head, "Sec-WebSocket-Key: "+testKey) {
		t.Errorf("upstream got %q", head)
	}
}

func TestUpstreamAnswers(t *testing.T) {
	accept := "Sec-WebSocket-Accept: " + testnet.AcceptKey(testKey) + "\r\n"
	up := "Upgrade: websocket\r\n"
	conn := "Connection: Upgrade\r\n"
	for _, tt := range []struct {
		name, answer, want string
	}{
		{"a wrong accept value", "HTTP/1.1 101 x\r\n" + up + conn + "Sec-WebSocket-Accept: AAAA\r\n\r\n", "502"},
		{"two accept values", "HTTP/1.1 101 x\r\n" + up + conn + accept + accept + "\r\n", "502"},
		{"a bare 101", "HTTP/1.1 101 x\r\n\r\n", "502"},
		{"no Connection", "HTTP/1.1 101 x\r\n" + up + accept + "\r\n", "502"},
		{"another protocol", "HTTP/1.1 101 x\r\nUpgrade: foo\r\n" + conn + accept + "\r\n", "502"},
		{"a subprotocol nobody offered", "HTTP/1.1 101 x\r\n" + up + conn + accept + "Sec-WebSocket-Protocol: z\r\n\r\n", "502"},
		{"an extension nobody offered", "HTTP/1.1 101 x\r\n" + up + conn + accept + "Sec-WebSocket-Extensions: z\r\n\r\n", "502"},
		{"101 in HTTP/1.0", "HTTP/1.0 101 x\r\n" + up + conn + accept + "\r\n", "502"},
		{"a line feed alone", "HTTP/1.1 101 x\n" + up + conn + accept + "\r\n", "502"},
		{"a folded line", "HTTP/1.1 101 x\r\n" + up + " y\r\n" + conn + accept + "\r\n", "502"},
		{"a blank before the colon", "HTTP/1.1 101 x\r\n" + up + conn + "A : b\r\n" + accept + "\r\n", "502"},
		{"no HTTP at all", "SSH-2.0-OpenSSH_9.2\r\n", "502"},
		{"a head that is too long", "HTTP/1.1 101 x\r\nA: " + strings.Repeat("b", 32<<10) + "\r\n" + up + conn + accept + "\r\n", "502"},
		{"endless informational answers", strings.Repeat("HTTP/1.1 103 x\r\n\r\n", 20), "502"},
		{"a close without a byte", "", "502"},
		{"an informational answer first", "HTTP/1.1 103 x\r\nLink: a\r\n\r\nHTTP/1.1 101 x\r\n" + up + conn + accept + "\r\n", "101"},
		{"a refusal", "HTTP/1.1 403 No\r\nContent-Length: 2\r\nX-Why: sig\r\nKeep-Alive: 1\r\n\r\nno", "403"},
		{"a refusal that ends with the connection", "HTTP/1.1 503 No\r\nRetry-After: 7\r\n\r\nno", "503"},
		{"a redirect is not followed", "HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "302"},
		{"a refusal with a body that is too long", "HTTP/1.1 403 No\r\n\r\n" + strings.Repeat("x", 64<<10+1), "502"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testnet.RawUpstream(t, nil, func(c net.Conn) {
				w := newWire(t, c)
				w.head()
				_, _ = io.WriteString(c, tt.answer)
			})
			h := serve(t, Options{Routes: []Route{{Route: entry.Route{Path: "/ws", Upstreams: []string{"http://" + b.Addr}}}}})
			w := h.dial(t)
			w.send(request("/ws", ""))
			head := w.head()
			if got := strings.Fields(head)[1]; got != tt.want {
				t.Errorf("client got %q, want %s", head, tt.want)
			}
			if tt.want == "403" && (!strings.Contains(head, "X-Why: sig") || strings.Contains(head, "Keep-Alive")) {
				t.Errorf("relayed head %q", head)
			}
			if tt.want != "101" && h.Count() != 0 {
				t.Error("a tunnel is open")
			}
		})
	}
}

func TestHandshakeTimesOut(t *testing.T) {
	b := testnet.RawUpstream(t, nil, func(c net.Conn) {
		w := newWire(t, c)
		w.head()
		for range 100 { // a byte now and then does not extend the time
			if _, err := io.WriteString(c, "HTTP/1.1 "[:1]); err != nil {
				return
			}
			if _, err := w.r.ReadByte(); err != nil {
				return
			}
		}
	})
	rt := Route{Route: entry.Route{Path: "/ws", Upstreams: []string{"http://" + b.Addr}, HandshakeTimeout: 100 * time.Millisecond}}
	h := serve(t, Options{Routes: []Route{rt}})
	w := h.dial(t)
	w.send(request("/ws", ""))
	if head := w.head(); !strings.HasPrefix(head, "HTTP/1.1 504 ") {
		t.Errorf("got %q, want 504", head)
	}
}

func TestHandshakeFailsOver(t *testing.T) {
	t.Parallel()
	closed := testnet.ClosedAddress(t)
	silent := testnet.RawUpstream(t, nil, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	hangup := testnet.RawUpstream(t, nil, func(c net.Conn) { newWire(t, c).head() })
	good, _ := newBackend(t, switching(testKey))
	h := serve(t, Options{Routes: []Route{{Route: entry.Route{Path: "/ws", HandshakeTimeout: 3 * time.Second, Upstreams: []string{"http://" + closed, "http://" + silent.Addr, "http://" + hangup.Addr, "http://" + good.Addr}}}}})
	h.upgrade(t, "/ws")
	h.upgrade(t, "/ws")
	if a, b, c := silent.Conns.Load(), hangup.Conns.Load(), good.Conns.Load(); a != 1 || b != 2 || c != 2 {
		t.Errorf("connections to silent, hangup, good: %d, %d, %d, want 1, 2, 2: silence takes an upstream out, hanging up on one client does not", a, b, c)
	}
	logs := h.logs.String()
	for _, cause := range []string{"cause=refused", "cause=timeout", "cause=reset"} {
		if logs := regexp.MustCompile("(?m)^.*level=DEBUG.*$").ReplaceAllString(logs, ""); strings.Count(logs, cause) != 1 {
			t.Errorf("log names %s %d times, want once:\n%s", cause, strings.Count(logs, cause), logs)
		}
	}
}

func TestClientThatLeavesEndsTheHandshake(t *testing.T) {
	left := make(chan struct{})
	arrived := make(chan struct{})
	b := testnet.RawUpstream(t, nil, func(c net.Conn) {
		newWire(t, c).head()
		close(arrived)
		_, _ = io.Copy(io.Discard, c)
		close(left)
	})
	rt := Route{Route: entry.Route{Path: "/ws", Upstreams: []string{"http://" + b.Addr}, HandshakeTimeout: time.Hour}}
	h := serve(t, Options{Routes: []Route{rt}})
	w := h.dial(t)
	w.send(request("/ws", ""))
	<-arrived
	w.Close()
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("the upstream connection stays after the client has left")
	}
}

func TestUpstreamTLS(t *testing.T) {
	ca := testnet.NewCA(t, "Root")
	other := testnet.NewCA(t, "Other Root")
	cert := ca.Issue(t, "signal.example.com")
	var served http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "signal.example.com" {
			t.Errorf("upstream sees Host %q", r.Host)
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, switching(r.Header.Get("Sec-WebSocket-Key")))
		t.Cleanup(func() { c.Close() })
	}
	b := testnet.NewUpstream(t, cert, served)
	dial := func() *proxy.Dialer {
		return mustDialer(t, proxy.DialOptions{CAFile: ca.File(t), Resolve: map[string]string{"signal.example.com": b.Addr}})
	}
	rt := Route{Route: entry.Route{Path: "/ws", Upstreams: []string{"wss://signal.example.com/"}, Dialer: dial()}}
	h := serve(t, Options{Routes: []Route{rt}})
	h.upgrade(t, "/ws")
	if n := b.ServerNames(); len(n) != 1 || n[0] != "signal.example.com" {
		t.Errorf("SNI %q", n)
	}
	b.SetCertificate(other.Issue(t, "signal.example.com"))
	rt.Dialer = dial()
	if err := h.Reconfigure(Options{Routes: []Route{rt}}); err != nil {
		t.Fatal(err)
	}
	w := h.dial(t)
	w.send(request("/ws?userSig=secret", ""))
	if head := w.head(); !strings.HasPrefix(head, "HTTP/1.1 502 ") {
		t.Errorf("got %q, want 502", head)
	}
	if n := b.Requests.Load(); n != 1 {
		t.Errorf("%d requests reached the upstream, want 1", n)
	}
	if logs := h.logs.String(); !strings.Contains(logs, "Other Root") || strings.Contains(logs, "secret") {
		t.Errorf("the log must name the issuer and no query:\n%s", logs)
	}
	if h.Count() != 1 {
		t.Errorf("%d sessions open after Reconfigure, want the old one", h.Count())
	}
}

func TestAdmit(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	gone := make(chan netip.Addr, 1)
	room := 1
	h := serve(t, Options{Routes: []Route{b.route("/ws")}, Admit: func(a netip.Addr) (func(), bool) {
		room--
		return func() { gone <- a }, room >= 0
	}})
	first := h.upgrade(t, "/ws")
	w := h.dial(t)
	w.send(request("/ws", ""))
	if head := w.head(); !strings.HasPrefix(head, "HTTP/1.1 429 ") || !strings.Contains(head, "Retry-After: ") {
		t.Errorf("over the limit: %q, want 429 with Retry-After", head)
	}
	first.Close()
	(<-b.conns).Close()
	if a := <-gone; a != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("gave back %v", a)
	}
}
