package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// accessLines waits for n lines with a message and returns them.
func accessLines(t *testing.T, name, msg string, n int) (found []map[string]any) {
	t.Helper()
	eventually(t, func() string {
		b, err := os.ReadFile(name)
		if err != nil {
			return err.Error()
		}
		found = nil
		for line := range strings.Lines(string(b)) {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				return fmt.Sprintf("%v: %q", err, line)
			}
			if fields["msg"] == msg {
				found = append(found, fields)
			}
		}
		if len(found) != n {
			return fmt.Sprintf("%d lines %q, want %d: %s", len(found), msg, n, b)
		}
		return ""
	})
	return found
}

// has compares the fields of a line that want names.
func has(t *testing.T, line, want map[string]any) {
	t.Helper()
	for key, w := range want {
		if got := line[key]; got != w {
			t.Errorf("%s: got %v (%T), want %v in %v", key, got, got, w, line)
		}
	}
}

func TestAccessLog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "access.log")
	tg := attacked(t, "", fmt.Sprintf("access = %q\n", name))

	ws := tg.upgrade(t, "/ws/?sdkAppId=1400000001&userId=alice&userSig=S3CRET")
	open := accessLines(t, name, "session opened", 1)[0]
	has(t, open, map[string]any{
		"route": "/ws/", "client": "127.0.0.1", "upstream": "signal.test:443", "method": "GET", "path": "/ws/",
		"sdkAppId": 1400000001.0, "host": "localhost", "proto": "HTTP/1.1",
	})
	has(t, open["query"].(map[string]any), map[string]any{"sdkAppId": "1400000001", "userId": "alice", "userSig": nil})
	hasPhases(t, open)
	ws.send(maskedFrame(0x81, "hello") + maskedFrame(0x88, "\x0f\xa1"))
	closed := accessLines(t, name, "session closed", 1)[0]
	has(t, closed, map[string]any{
		"session": open["session"], "route": "/ws/", "client": "127.0.0.1", "upstream": "signal.test:443",
		"clientClose": 4001.0, "upstreamClose": 4001.0, "toUpstream": 19.0, "toClient": 11.0,
	})
	if _, ok := closed["duration"].(float64); !ok {
		t.Errorf("duration: got %v, want seconds", closed["duration"])
	}

	a := tg.dial(t)
	a.send("POST /logger//v5/report?sdkappid=1400000001&cmdtype=jssdk_log&userSig=S3CRET HTTP/1.1\r\nHost: localhost\r\n" +
		"User-Agent: browser\xc2\x9b\r\nOrigin: https://app.example.com\r\nContent-Length: 5\r\n\r\nhello")
	if status, _, _ := a.response(); status != 200 {
		t.Fatalf("report: got %d, want 200", status)
	}
	a.send("GET /schedule/api/v1/config HTTP/1.1\r\nHost: localhost\r\n\r\n")
	a.response()
	a.send("TRACE /logger/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
	a.response()
	tg.first(t, "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
	tg.answerWith(t, tg.wellBehaved)
	lines := accessLines(t, name, "request", 4)
	has(t, lines[0], map[string]any{
		"route": "/logger/", "client": "127.0.0.1", "method": "POST", "path": "/logger//v5/report", "status": 200.0, "upstream": "log.test:443", "bytesIn": 5.0, "bytesOut": 6.0,
		"origin": "https://app.example.com", "agent": `browser\u009b`,
	})
	hasPhases(t, lines[0])
	hasPhases(t, lines[1])
	has(t, lines[1], map[string]any{"route": "/schedule/", "status": 200.0, "upstream": "schedule.test:443"})
	has(t, lines[2], map[string]any{"route": "/logger/", "status": 405.0, "result": "bad_method", "upstream": nil})
	has(t, lines[3], map[string]any{"route": "other", "status": 404.0, "result": "not_found"})

	// The log of the process is spared the sessions.
	if log := tg.logs.String(); strings.Contains(log, "session opened") {
		t.Errorf("the session stands in both logs: %s", tg.logs.line("session opened"))
	}
	b, _ := os.ReadFile(name)
	if strings.Contains(string(b), "S3CRET") {
		t.Errorf("a credential is in the access log: %s", b)
	}
}

// A reload changes where lines go, opens the file anew, and refuses what cannot be opened.
func TestAccessLogAtReload(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.log"), filepath.Join(dir, "second.log")
	tg := attacked(t, "", fmt.Sprintf("access = %q\n", first))
	ask := func() {
		t.Helper()
		if status := tg.first(t, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); status != http.StatusOK {
			t.Fatalf("got %d, want 200", status)
		}
	}
	ask()
	accessLines(t, first, "request", 1)
	if err := os.Rename(first, first+".1"); err != nil {
		t.Fatal(err)
	}
	edit := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(tg.file())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(tg.file(), []byte(strings.Replace(string(b), from, to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ws := tg.upgrade(t, "/ws/")
	accessLines(t, first+".1", "session opened", 1)
	// logrotate's signal counts with a broken file too.
	edit("[log]", "[log]\nbroken = true")
	if _, err := tg.reload(); err == nil {
		t.Fatal("a broken file was loaded")
	}
	eventually(t, func() string {
		if _, err := os.Stat(first); err != nil {
			return err.Error()
		}
		return ""
	})
	ask()
	accessLines(t, first, "request", 1)
	edit("broken = true\n", "")
	edit(first, filepath.Join(dir, "missing", "x.log"))
	if _, err := tg.reload(); err == nil || !strings.Contains(err.Error(), "log.access") {
		t.Errorf("an access log that cannot be opened: got %v, want an error that names the key", err)
	}
	edit(filepath.Join(dir, "missing", "x.log"), second)
	if _, err := tg.reload(); err != nil {
		t.Fatal(err)
	}
	ask()
	accessLines(t, second, "request", 1)
	ws.NetConn().Close() // opened under the first file, closed under the second
	accessLines(t, second, "session closed", 1)
}

// Requests for another site's name are sent back; addresses, our own names and
// those who look whether we live are served.
func TestNamesOfOtherSites(t *testing.T) { onEveryListener(t, namesOfOtherSites) }

func namesOfOtherSites(t *testing.T, attacked func(t testing.TB, https, extra string) *target) {
	tg := attacked(t, `names = ["*.alias.test", "second.test"]`, "")
	b, err := os.ReadFile(tg.file())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tg.file(), append([]byte("domain = \"our.test\"\n"), b...), 0o600); err != nil {
		t.Fatal(err)
	}
	const ok, misdirected = http.StatusOK, http.StatusMisdirectedRequest
	rows := []struct {
		host, sni string
		want      int
	}{
		{"our.test", "our.test", ok}, {"OUR.TEST:443", "our.test", ok}, {"our.test.", "", ok}, {"our.test:8443", "", ok},
		{"second.test", "", ok}, {"a.alias.test", "our.test", ok}, {"a.b.alias.test", "", ok},
		{"localhost", "localhost", ok}, {"127.0.0.1", "", ok}, {"127.0.0.1:443", "our.test", ok}, {"[::1]:443", "", ok}, {"[::1]", "", ok},
		{"alias.test", "", misdirected}, {"evil.test", "", misdirected}, {"evil.test", "our.test", misdirected},
		{"our.test", "evil.test", misdirected}, {"our.test.evil.test", "", misdirected}, {"notour.test", "", misdirected},
		{"our.test:evil", "", misdirected}, {"1.2.3.4.evil.test", "", misdirected},
	}
	ask := func(path, host, sni string, protocols ...string) (int, string) {
		cfg := *tg
		cfg.tls = tg.tls.Clone()
		cfg.tls.ServerName, cfg.tls.InsecureSkipVerify = sni, true
		if len(protocols) > 0 {
			c := cfg.dialH2(t)
			defer c.NetConn().Close()
			c.open(true, fields(":method", "GET", ":scheme", "https", ":authority", host, ":path", path)...)
			return 0, c.outcome()
		}
		return cfg.first(t, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nX-Marker: names\r\nConnection: close\r\n\r\n"), ""
	}
	for _, r := range rows {
		if got, _ := ask("/logger/", r.host, r.sni); got != ok {
			t.Errorf("without a domain, Host %q, SNI %q: got %d, want 200", r.host, r.sni, got)
		}
	}
	if _, err := tg.reload(); err != nil {
		t.Fatal(err)
	}
	tg.tls = tg.trust(t) // another certificate was made, for the name
	before := len(tg.received("names"))
	for _, r := range rows {
		if got, _ := ask("/logger/", r.host, r.sni); got != r.want {
			t.Errorf("Host %q, SNI %q: got %d, want %d", r.host, r.sni, got, r.want)
		}
		if got, _ := ask("/healthz", r.host, r.sni); got != ok {
			t.Errorf("health, Host %q, SNI %q: got %d, want 200", r.host, r.sni, got)
		}
		// A browser reuses a connection for another name of the same address.
		if _, got := ask("/logger/", r.host, r.sni, "h2"); got != fmt.Sprint(r.want) && !(got == "reset" && strings.HasSuffix(r.host, ":evil")) {
			t.Errorf("over HTTP/2, Host %q, SNI %q: got %s, want %d", r.host, r.sni, got, r.want)
		}
	}
	served := len(slices.DeleteFunc(slices.Clone(rows), func(r struct {
		host, sni string
		want      int
	}) bool {
		return r.want != ok
	}))
	if got := len(tg.received("names")) - before; got != served {
		t.Errorf("%d requests reached the upstream, want %d", got, served)
	}
	tg.control(t)
	tg.blameless(t)
}

// Sessions whose messages are looked into stand in the access log like all others.
func TestAccessLogOfInspectedSessions(t *testing.T) {
	f, hook := startFar(t), censor(t)
	name := filepath.Join(t.TempDir(), "access.log")
	g := startGate(t, inspectedRoute(t, f, hook)+fmt.Sprintf("[log]\naccess = %q\n", name))
	c := g.wss(t, "/chat/room?userSig=S3CRET&userId=alice")
	if err := echoes(c, websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	open := accessLines(t, name, "session opened", 1)[0]
	has(t, open, map[string]any{"route": "/chat/", "upstream": "signaling.rtc.qq.com:443", "method": "GET", "path": "/chat/room"})
	has(t, open["query"].(map[string]any), map[string]any{"userId": "alice", "userSig": nil})
	hasPhases(t, open)
	if err := c.WriteMessage(websocket.TextMessage, []byte("forbidden")); err != nil {
		t.Fatal(err)
	}
	closed := accessLines(t, name, "session closed", 1)[0]
	has(t, closed, map[string]any{"session": open["session"], "connection": open["connection"], "reason": "denied"})

	if status, _, _ := g.get(t, "/chat/room"); status != http.StatusUpgradeRequired {
		t.Fatalf("a request for no WebSocket: %d, want 426", status)
	}
	has(t, accessLines(t, name, "request", 1)[0], map[string]any{"route": "/chat/", "status": 426.0, "result": "no_upgrade"})
	if strings.Contains(g.logs.String(), "session opened") {
		t.Error("the session stands in both logs")
	}
}

// hasPhases holds a line to how long its request took with a new connection to an upstream.
func hasPhases(t *testing.T, line map[string]any) {
	t.Helper()
	for _, phase := range []string{"dial", "tls", "answer"} {
		if d, ok := line[phase].(float64); !ok || d <= 0 || d > 10 {
			t.Errorf("%s: got %v, want seconds", phase, line[phase])
		}
	}
}
