package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/internal/testnet/browser"
	"github.com/turngate/turngate/internal/testnet/watchrtc"
)

// startWatchRTC starts turngate before a fake watchRTC service for pages of an origin:
// one [[signaling]] route for each environment, and no [[logger]] beside them.
func startWatchRTC(t testing.TB, origin string) (*target, *watchrtc.Backend) {
	t.Helper()
	b := watchrtc.Start(t, origin)
	g := startGate(t, fmt.Sprintf(`
[upstream]
ca = %q
resolve = { %q = %[6]q, %[3]q = %[6]q, %[4]q = %[6]q, %[5]q = %[6]q }

[[signaling]]
preset = "watchrtc"
[[signaling]]
preset = "watchrtc-staging"
[[signaling]]
preset = "watchrtc-legacy"
[[signaling]]
preset = "watchrtc-staging-legacy"
`, b.CA.File(t), watchrtc.Production, watchrtc.Staging, watchrtc.ProductionLegacy, watchrtc.StagingLegacy, b.Addr))
	return &target{gate: g, addr: g.https, tls: g.trust(t)}, b
}

func TestWatchRTCSDKThroughTurngate(t *testing.T) {
	testnet.Need(t, "chromium")
	tg, backend := startWatchRTC(t, "https://"+browser.PageHost)
	host := fmt.Sprintf("%s:%d", proxyHost, tg.https.Port())
	b := browser.Start(t, browser.Options{
		Trust: []*x509.Certificate{gateCertificate(t, tg.gate)},
		Hosts: map[string]string{proxyHost: "127.0.0.1"},
	})
	for _, tc := range []struct {
		name, version, path, key, upstream string
	}{
		{"the documented form", browser.WatchRTCVersion, "/watchrtc", watchrtc.APIKey, watchrtc.Production},
		{"with a final slash", browser.WatchRTCVersion, "/watchrtc/", "production:" + watchrtc.APIKey, watchrtc.Production},
		{"staging", browser.WatchRTCVersion, "/watchrtc-staging", "staging:" + watchrtc.APIKey, watchrtc.Staging},
		{"an old SDK", browser.WatchRTCLegacyVersion, "/watchrtc-legacy", watchrtc.APIKey, watchrtc.ProductionLegacy},
		{"an old SDK on staging", browser.WatchRTCLegacyVersion, "/watchrtc-staging-legacy/", "staging:" + watchrtc.APIKey, watchrtc.StagingLegacy},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("not within two minutes"))
			defer cancel()
			w := &watched{t: t, ctx: ctx, backend: backend, page: b.OpenWatchRTC(t, tc.version)}
			before := backend.State()
			w.sockets, w.records, w.requests = len(before.Sockets), len(before.Records), len(before.Requests)
			w.call("turngate.setCookie", "company-sso=yes; domain=example.com; path=/; secure")
			w.call("watch.init", map[string]any{"rtcApiKey": tc.key, "rtcRoomId": "room", "rtcPeerId": "peer", "proxyUrl": "wss://" + host + tc.path, "collectionInterval": 500})
			modern := tc.version == browser.WatchRTCVersion
			if modern {
				w.beforeTheSocket()
			}
			w.statistics(tc.upstream, modern)
			if modern {
				w.comesBack()
			}
			if hosts := w.page.Hosts(); !slices.Equal(hosts, []string{host}) {
				t.Errorf("the page asked %q, want turngate alone", hosts)
			}
			for _, r := range w.seen().Records {
				if strings.HasPrefix(r.Name, "broken") {
					t.Errorf("a message did not arrive whole: %s", r.Name)
				}
			}
			if n := backend.Drop(); n != 1 { // the page goes on trying until its window closes
				t.Errorf("%d sockets at the end, want 1", n)
			}
		})
	}
}

// watched is a page with the SDK in it.
type watched struct {
	t       *testing.T
	ctx     context.Context
	backend *watchrtc.Backend
	page    *browser.Page

	sockets, records, requests int // seen before
}

func (w *watched) call(fn string, args ...any) {
	w.t.Helper()
	if err := w.page.Call(w.ctx, nil, fn, args...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watched) since(s watchrtc.State) watchrtc.State {
	s.Sockets, s.Records, s.Requests = s.Sockets[w.sockets:], s.Records[w.records:], s.Requests[w.requests:]
	return s
}

func (w *watched) seen() watchrtc.State { return w.since(w.backend.State()) }

func (w *watched) wait(what string, ok func(watchrtc.State) bool) watchrtc.State {
	w.t.Helper()
	s, err := w.backend.Wait(w.ctx, what, func(s watchrtc.State) bool { return ok(w.since(s)) })
	if err != nil {
		w.t.Fatal(err)
	}
	return w.since(s)
}

// beforeTheSocket makes the SDK use HTTPS: a rating while there is no socket, and a
// camera that fails. Each request has its preflight.
func (w *watched) beforeTheSocket() {
	w.t.Helper()
	w.call("watch.rate", 5, "über-good")
	var name string
	if err := w.page.Call(w.ctx, &name, "watch.noCamera"); err != nil || name == "it worked" {
		w.t.Fatalf("a camera that does not exist: %q, %v", name, err)
	}
	for target, want := range map[string]string{"/trace": "über-good", "/error": name} {
		s := w.wait("POST "+target, func(s watchrtc.State) bool { return len(s.To("POST", target)) > 0 })
		if n := len(s.To("OPTIONS", target)); n != 1 {
			w.t.Errorf("%s: %d preflights, want 1", target, n)
		}
		r := s.To("POST", target)[0]
		if !bytes.Contains(r.Body, []byte(want)) || !bytes.Contains(r.Body, []byte(`"rtcRoomId":"room"`)) || r.Status != 200 {
			w.t.Errorf("%s: got %d for %s, want 200 and %q in it", target, r.Status, r.Body, want)
		}
		if got := r.Header.Get("Origin"); got != "https://"+browser.PageHost {
			w.t.Errorf("%s: Origin %q", target, got)
		}
	}
}

// statistics makes a call and waits for its statistics on the socket.
func (w *watched) statistics(upstream string, modern bool) {
	w.t.Helper()
	w.call("watch.call")
	s := w.wait("statistics", func(s watchrtc.State) bool { return len(s.Of("getstats")) > 2 && len(s.Of("watchrtc")) > 0 })
	if len(s.Sockets) != 1 {
		w.t.Fatalf("%d sockets, want 1", len(s.Sockets))
	}
	r := s.Sockets[0]
	query, ok := strings.CutPrefix(r.Target, "/?")
	if !ok || r.Status != http.StatusSwitchingProtocols || r.Host != upstream || r.SNI != upstream {
		w.t.Errorf("the handshake came as %s for %s with SNI %s: %d, want /?... for %s", r.Target, r.Host, r.SNI, r.Status, upstream)
	}
	values, _ := url.ParseQuery(query)
	if values.Get("apiKey") != watchrtc.APIKey || modern && values.Get("newConnection") != "true" {
		w.t.Errorf("query %q", query)
	}
	for name, want := range map[string]string{
		"Origin": "https://" + browser.PageHost, "Sec-Websocket-Protocol": "2.0", "Cookie": "company-sso=yes", "X-Forwarded-For": "127.0.0.1",
	} {
		if got := r.Header.Get(name); got != want {
			w.t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if !strings.HasPrefix(r.Header.Get("Sec-Websocket-Extensions"), "permessage-deflate") {
		w.t.Errorf("the browser's offer of compression came as %q", r.Header.Get("Sec-Websocket-Extensions"))
	}
	if modern && !s.Of("getstats")[0].Compressed {
		w.t.Error("statistics are not LZ-strings: is this the SDK that was meant?")
	}
}

// comesBack kills the backend's end of the socket.
func (w *watched) comesBack() {
	w.t.Helper()
	var session string
	if err := w.page.Eval(w.ctx, "watchRTCSessionId", &session); err != nil {
		w.t.Fatal(err)
	}
	if n := w.backend.Drop(); n != 1 {
		w.t.Fatalf("%d sockets to drop, want 1", n)
	}
	s := w.wait("the socket again", func(s watchrtc.State) bool { return len(s.Sockets) == 2 && len(s.Of("reconnect")) > 0 })
	values, _ := url.ParseQuery(strings.TrimPrefix(s.Sockets[1].Target, "/?"))
	if values.Get("newConnection") != "false" || values.Get("sessionId") != session {
		w.t.Errorf("query of the second handshake %q, want newConnection=false and sessionId=%s", s.Sockets[1].Target, session)
	}
	n := len(s.Of("getstats"))
	w.wait("statistics again", func(s watchrtc.State) bool { return len(s.Of("getstats")) > n+1 })
	w.call("watch.rate", 1, "over the socket")
	w.wait("the rating on the socket", func(s watchrtc.State) bool { return len(s.Of("userRating")) > 0 })
}

// What the vendor's page asks of a proxy, without a browser: whoever was on the way stays
// in X-Forwarded-For, the CORS answers are the service's, and big reports pass.
func TestWatchRTCRequestsPassAsTheyAre(t *testing.T) {
	tg, backend := startWatchRTC(t, "")
	const xff = "180.166.146.241, 43.176.32.192"
	a := tg.dial(t)
	a.send("GET /watchrtc?apiKey=" + watchrtc.APIKey + "&x=a%2Fb*(~) HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields +
		"Sec-WebSocket-Protocol: 2.0\r\nOrigin: https://app.example.com\r\nCookie: a=b; c=\"d\"\r\nX-Forwarded-For: " + xff + "\r\n\r\n")
	status, header, _ := a.response()
	if status != 101 || header.Get("Sec-WebSocket-Protocol") != "2.0" {
		t.Fatalf("handshake: got %d with protocol %q, want 101 and 2.0", status, header.Get("Sec-WebSocket-Protocol"))
	}
	big := strings.Repeat("x", 1<<20)
	for _, path := range []string{"/watchrtc/trace", "/watchrtc//trace", "/watchrtc/error"} {
		c := tg.dial(t)
		go c.send(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example.com\r\nContent-Type: application/json\r\nX-Forwarded-For: %s\r\nContent-Length: %d\r\n\r\n%q", path, xff, len(big)+2, big))
		status, header, _ := c.response()
		if status != 200 {
			t.Errorf("%s: got %d, want 200", path, status)
		}
		want := http.Header{"Access-Control-Allow-Origin": {"https://app.example.com"}, "Access-Control-Expose-Headers": {"X-Watchrtc-Test"}}
		got := http.Header{}
		for name, values := range header {
			if strings.HasPrefix(name, "Access-Control-") {
				got[name] = values
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: CORS (-want +got):\n%s", path, diff)
		}
	}
	c := tg.dial(t)
	c.send("GET /watchrtc/get-qualityrtc-config?apiKey=k%2Fk HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if status, _, _ := c.response(); status != 200 {
		t.Errorf("the configuration of qualityRTC: got %d, want 200", status)
	}
	s := backend.State()
	if got := s.Sockets[0].Target; got != "/?apiKey="+watchrtc.APIKey+"&x=a%2Fb*(~)" {
		t.Errorf("target %q is not the client's", got)
	}
	if got := s.Sockets[0].Header["Cookie"]; !slices.Equal(got, []string{`a=b; c="d"`}) {
		t.Errorf("Cookie %q", got)
	}
	for _, r := range append(s.Sockets, s.Requests[:3]...) {
		if got := r.Header["X-Forwarded-For"]; !slices.Equal(got, []string{xff + ", 127.0.0.1"}) {
			t.Errorf("%s %s: X-Forwarded-For %q, want %q", r.Method, r.Target, got, xff+", 127.0.0.1")
		}
	}
	if n := len(s.To("POST", "/trace")); n != 2 {
		t.Errorf("%d requests for /trace, want both, with one slash", n)
	}
}

// A route of both WebSockets and reports lets the same clients in and says the same to its
// upstream, whichever of them it is asked for.
func TestReportsKeepToTheirWebSocketRoute(t *testing.T) {
	const route = "\n[[signaling]]\npreset = \"watchrtc\"\npath = %q\nupstream = [\"https://log.test/\"]\nkeep_cookies = false\nxff = \"replace\"\n%s\n"
	tg := attacked(t, "", fmt.Sprintf(route, "/foreign", "clients = [\"192.0.2.0/24\"]")+
		fmt.Sprintf(route, "/silent", "clients = [\"192.0.2.0/24\"]\nsilent = [\"clients\"]")+
		fmt.Sprintf(route, "/named", "clients = [\"127.0.0.0/8\"]\nidentify = true\nadd_headers = { X-Site = \"of the test\" }"))
	requests := func(path string) map[string]string {
		return map[string]string{
			"a WebSocket": upgradeRequest(path),
			"a GET":       "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
			"a report":    "POST " + path + "/trace HTTP/1.1\r\nHost: localhost\r\nX-Site: forged\r\nContent-Length: 2\r\n\r\n{}",
			"a preflight": "OPTIONS " + path + "/trace HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n",
		}
	}
	for path, want := range map[string]int{"/foreign": 403, "/silent": 0} {
		for what, request := range requests(path) {
			if got := tg.first(t, request); got != want {
				t.Errorf("%s on %s from an address that is not listed: %d, want %d", what, path, got, want)
			}
		}
	}
	if all := tg.received("HTTP/1.1"); len(all) > 0 {
		t.Errorf("the upstream received %q", all[0].head)
	}
	for what, request := range requests("/named") {
		if got := tg.first(t, request); got != 200 && got != 101 {
			t.Errorf("%s: %d", what, got)
		}
	}
	all := tg.received("HTTP/1.1")
	if len(all) != 4 {
		t.Errorf("%d requests reached the upstream, want 4", len(all))
	}
	for _, e := range all {
		for name, want := range map[string]string{"X-Site": "of the test", "X-Real-Ip": "127.0.0.1", "X-Forwarded-Proto": "https"} {
			if got := e.Header[name]; !slices.Equal(got, []string{want}) {
				t.Errorf("%s %s: %s: %q, want %q", e.Method, e.RequestURI, name, got, want)
			}
		}
	}
}
