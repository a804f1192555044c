package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/turngate/turngate/internal/testnet"
)

// censor is a hook that refuses messages with a word in them.
func censor(t *testing.T) *testnet.Upstream {
	return testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "forbidden") || r.Header.Get("Authorization") != "Bearer of the test" {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
}

// inspectedRoute is a route to f whose messages the hook decides about.
func inspectedRoute(t *testing.T, f *far, hook *testnet.Upstream) string {
	return fmt.Sprintf(`
[[signaling]]
path = "/chat/"
upstream = ["https://signaling.rtc.qq.com/"]
resolve = { "signaling.rtc.qq.com" = %q }
ca = %q
[signaling.hook.inbound]
url = "http://%s/decide?from=turngate"
headers = { Authorization = "Bearer of the test" }
[signaling.hook.outbound]
url = "http://%s/"
headers = { Authorization = "Bearer of the test" }
binary = "forward"
`, f.Addr, f.ca.File(t), hook.Addr, hook.Addr)
}

func TestInspectedSessionsAreListedKickedReloadedAndDrained(t *testing.T) {
	f, hook := startFar(t), censor(t)
	g := startGate(t, inspectedRoute(t, f, hook))
	open := func() *websocket.Conn {
		t.Helper()
		c := g.wss(t, "/chat/room?x=1")
		if err := echoes(c, websocket.TextMessage, []byte("open")); err != nil {
			t.Fatal(err)
		}
		return c
	}
	denied := open()
	if err := denied.WriteMessage(websocket.TextMessage, []byte("a forbidden word")); err != nil {
		t.Fatal(err)
	}
	if _, ce := closeOf(denied); ce.Code != 1008 || ce.Text != "message denied" {
		t.Errorf("a forbidden message: %v, want 1008 message denied", ce)
	}
	g.logs.await(t, "session closed", `"reason":"denied"`)

	kicked, left := open(), open()
	code, out, errs := g.command(t, "sessions", "--json")
	var sessions []Session
	if err := json.Unmarshal([]byte(out), &sessions); code != 0 || err != nil {
		t.Fatalf("sessions: %d %s %v", code, errs, err)
	}
	if len(sessions) != 2 || sessions[0].Kind != "wss" || sessions[0].Route != "/chat/" || sessions[0].Connection == "" || sessions[0].BytesUp == 0 || sessions[0].BytesDown == 0 {
		t.Fatalf("sessions: %+v, want two of the route, with their bytes", sessions)
	}
	if got := g.status().WebSockets; got != 2 {
		t.Errorf("status: %d WebSockets, want 2", got)
	}
	if code, out, errs := g.command(t, "kick", sessions[0].ID); code != 0 || !strings.Contains(out, "ended 1") {
		t.Errorf("kick: %d %s %s", code, out, errs)
	}
	if _, ce := closeOf(kicked); ce.Code != 1008 || ce.Text != "closed by the administrator" {
		t.Errorf("kicked: %v, want 1008", ce)
	}

	// A reload that takes the route away leaves its sessions, hooks and all.
	g.writeConfig(t, "", "", f.config(t))
	if _, err := g.reload(); err != nil {
		t.Fatal(err)
	}
	if err := echoes(left, websocket.TextMessage, []byte("after the reload")); err != nil {
		t.Errorf("after the reload: %v", err)
	}
	if _, res, err := g.tryWSS(t, "/chat/"); err == nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("a route that is gone: %v, want 404", err)
	}
	families, err := g.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, mf := range families {
		if strings.HasPrefix(mf.GetName(), "turngate_inspect_") {
			found++
		}
	}
	if found < 10 {
		t.Errorf("%d families of metrics, want those of the inspection", found)
	}
	g.stopServe()
	if _, ce := closeOf(left); ce.Code != 1012 {
		t.Errorf("drained: %v, want 1012", ce)
	}
}
