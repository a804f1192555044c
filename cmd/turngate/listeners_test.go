package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/testnet"
	tc "github.com/turngate/turngate/internal/testnet/turnclient"
)

// A route with listeners of its own answers there and nowhere else, nobody else does, and a
// reload moves it without touching anybody.
func TestRoutesOnListenersOfTheirOwn(t *testing.T) {
	common, first, second := startSwitcher(t, "common"), startSwitcher(t, "first"), startSwitcher(t, "second")
	reports := testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "report "+r.URL.Path)
	}))
	a, b := fmt.Sprintf("127.0.0.1:%d", testnet.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", testnet.FreePort(t))
	route := func(listen, path, upstream string) string {
		return fmt.Sprintf("\n[[signaling]]\npath = %q\nlisten = [%s]\nupstream = [\"http://%s\"]\n", path, listen, upstream)
	}
	logs := func(listen string) string {
		return fmt.Sprintf("\n[[logger]]\npath = \"/logs\"\nlisten = [%q]\nupstream = [\"http://%s\"]\n", listen, reports.Addr)
	}
	both := fmt.Sprintf("%q, %q", a, b)
	onA := route("", "/ws", common.Addr) + route(fmt.Sprintf("%q", a), "/ws", first.Addr) + route(fmt.Sprintf("%q", a), "/only", first.Addr) + logs(a)
	g := startGate(t, onA)
	h1, h2 := alpn(g.trust(t), "http/1.1"), alpn(g.trust(t), "h2")

	status := func(to, target string) string {
		t.Helper()
		_, rest, _ := strings.Cut(ask(t, "127.0.0.1", to, h1, "GET "+target+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), " ")
		return rest[:3]
	}
	// carried is the upstream that a WebSocket reaches, "" for none.
	carried := func(to, target string) string {
		t.Helper()
		c, err := tls.Dial("tcp", to, h1)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, handshakeFor(target))
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(res.Header["X_name"], "")
	}
	for _, tt := range []struct{ what, to, target, want string }{
		{"a path of the common listeners", g.https.String(), "/ws", "common"},
		{"the same path on a listener of its own", a, "/ws/x?y", "first"},
		{"another path there", a, "/only", "first"},
		{"a path of the other listener", g.https.String(), "/only", ""},
	} {
		if got := carried(tt.to, tt.target); got != tt.want {
			t.Errorf("%s: carried to %q, want %q", tt.what, got, tt.want)
		}
	}
	for _, tt := range []struct{ what, to, target, want string }{
		{"a report on its listener", a, "/logs/x", "200"},
		{"a report on the common one", g.https.String(), "/logs/x", "404"},
		{"nothing on its listener", a, "/nowhere", "404"},
		{"health on its listener", a, "/healthz", "200"},
		{"health on the common one", g.https.String(), "/healthz", "200"},
		{"the check page on its listener", a, "/check", "404"},
	} {
		if got := status(tt.to, tt.target); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: h2, ForceAttemptHTTP2: true}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	if res, err := client.Get("https://" + a + "/logs/h2"); err != nil || res.ProtoMajor != 2 || res.StatusCode != 200 {
		t.Errorf("a report over h2: %v, %v", res, err)
	}

	// TURN is for the listeners of [https] and [turn].
	for transport, opts := range map[string][]tc.Option{"tcp": nil, "tls": {tc.TLS(g.trust(t))}} {
		if c, err := tc.Dial(deadline(t), transport, a, tc.Auth{User: g.user, Password: g.password}, opts...); err == nil {
			if _, err := c.Allocate(deadline(t)); err == nil {
				t.Errorf("TURN over %s is served on the listener of a route", transport)
			}
			c.Close()
		}
	}
	if st := g.status(); !strings.Contains(strings.Join(st.Listeners, "\n"), "https tcp "+a) {
		t.Errorf("status lists %v, want %s too", st.Listeners, a)
	}

	// A reload adds a listener, and then takes the first one away.
	live, err := tls.Dial("tcp", a, h1)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	_, _ = io.WriteString(live, handshakeFor("/ws"))
	if res, err := http.ReadResponse(bufio.NewReader(live), nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("handshake: %v, %v", res, err)
	}
	g.reloadWith(t, onA+route(both, "/two", second.Addr))
	for _, to := range []string{a, b} {
		if got := carried(to, "/two"); got != "second" {
			t.Errorf("a route on two listeners at %s: carried to %q, want second", to, got)
		}
	}
	if got := carried(b, "/ws"); got != "" {
		t.Errorf("a path of the first listener on the second: carried to %q, want nothing", got)
	}
	g.reloadWith(t, route("", "/ws", common.Addr)+route(fmt.Sprintf("%q", b), "/ws", second.Addr))
	if c, err := net.Dial("tcp", a); err == nil {
		c.Close()
		t.Errorf("%s is open after a reload without it", a)
	}
	if got := carried(b, "/ws"); got != "second" {
		t.Errorf("the new listener: carried to %q, want second", got)
	}
	if got := carried(g.https.String(), "/ws"); got != "common" {
		t.Errorf("the common listener: carried to %q, want common", got)
	}
	if n := g.signaling.Count(); n == 0 {
		t.Error("the WebSocket of the listener that was taken away is gone")
	}
	if _, err := io.WriteString(live, maskedFrame(0x88, "\x03\xe8")); err != nil {
		t.Error(err)
	}
}

// The check asks a route where it answers.
func TestCheckAsksRoutesOnTheirListeners(t *testing.T) {
	own := fmt.Sprintf("listen = [\"127.0.0.1:%d\"]\n", testnet.FreePort(t))
	g := startGate(t, strings.ReplaceAll(routesTo(checkedCloud(t).Addr), "upstream", own+"upstream"))
	r, _ := g.check(t, "--ca", g.certFile())
	wantFinding(t, r, doctor.WssOK, doctor.OK, "/ws/")
	wantFinding(t, r, doctor.LogOK, doctor.OK, "/logger/")
	for _, code := range []doctor.Code{doctor.WssThrough, doctor.LogThrough} {
		for _, f := range found(r, code) {
			if f.Status == doctor.Fail {
				t.Errorf("the check fails through turngate: %s", f.What)
			}
		}
	}
	wantFinding(t, r, doctor.FirewallOK, doctor.OK, "4 sockets")
}
