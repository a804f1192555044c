package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/internal/testnet/browser"
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

// wsVersion is the version of the npm package ws that the test drives.
const wsVersion = "8.18.3"

// TestWsPackageTalksThroughWsProxy has the most used WebSocket library of Node on both
// sides, with deflate offered and accepted by both, a hook in each direction.
func TestWsPackageTalksThroughWsProxy(t *testing.T) {
	dir := browser.Packages(t, "ws-"+wsVersion, "ws@"+wsVersion)
	hook := testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "forbidden") {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	addr, _ := startWsProxy(t, &wsProxy{trust: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "-e", wsScript)
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"), "PROXY=ws://"+addr, "HOOK=http://"+hook.Addr)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "all well") {
		t.Errorf("node: %v\n%s", err, out)
	}
}

const wsScript = `
const { WebSocket, WebSocketServer } = require('ws');
const { once } = require('events');
const assert = require('assert');
(async () => {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: { threshold: 0 }, handleProtocols: (p) => p.has('chat') ? 'chat' : false });
  await once(server, 'listening');
  server.on('connection', (ws) => ws.on('message', (m, binary) => ws.send(m, { binary })));
  const open = async (extra) => {
    const ws = new WebSocket(process.env.PROXY + '/room?x=1', ['chat'], { perMessageDeflate: { threshold: 0 }, headers: Object.assign({
      'x-wsproxy-upstream': 'ws://127.0.0.1:' + server.address().port, 'x-wsproxy-inboundhook': process.env.HOOK,
      'x-wsproxy-outboundhook': process.env.HOOK, 'x-wsproxy-maxframesize': '4000000' }, extra) });
    const far = once(server, 'connection');
    await once(ws, 'open');
    return [ws, (await far)[0]];
  };
  for (const compress of ['true', 'false']) {
    const [ws, far] = await open({ 'x-wsproxy-compress': compress });
    assert.equal(ws.protocol, 'chat');
    assert.equal(ws.extensions, compress === 'true' ? 'permessage-deflate' : '');
    assert.equal(far.extensions, '');
    for (const text of ['hello', '', 'x'.repeat(3000000)]) {
      ws.send(text);
      assert.equal((await once(ws, 'message'))[0].toString(), text);
    }
    ws.ping();
    await once(ws, 'pong');
    far.ping('');
    await once(far, 'pong');
    far.close(4002, 'moved');
    const [code, reason] = await once(ws, 'close');
    assert.equal(code + ' ' + reason, '4002 moved');
  }
  const [ws, far] = await open({});
  ws.send('forbidden');
  const [[code]] = await Promise.all([once(ws, 'close'), once(far, 'close')]);
  assert.equal(code, 1008);
  server.close();
  console.log('all well');
})().catch((e) => { console.error(e); process.exit(1); });
`

// TestABrowserOnAnInspectedRoute: subprotocol, deflate, close codes, as a page sees them.
func TestABrowserOnAnInspectedRoute(t *testing.T) {
	testnet.Need(t, "chromium")
	f, hook := startFar(t), censor(t)
	g := startGate(t, strings.Replace(inspectedRoute(t, f, hook), "[signaling.hook.inbound]", "compress = true\n[signaling.hook.inbound]", 1))
	b := browser.Start(t, browser.Options{
		Trust: []*x509.Certificate{gateCertificate(t, g)},
		Hosts: map[string]string{proxyHost: "127.0.0.1"},
	})
	page := b.Open(t, "page.html")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got struct {
		Protocol, Extensions, Echo, Reason string
		Code                               int
	}
	err := page.Eval(ctx, fmt.Sprintf(`new Promise((done, fail) => {
		const ws = new WebSocket('wss://%s:%d/chat/room?x=1', ['a', 'b']), got = {};
		ws.onopen = () => { got.protocol = ws.protocol; got.extensions = ws.extensions; ws.send('h\u00e9llo'.repeat(20000)); };
		ws.onmessage = (m) => { got.echo = m.data.slice(0, 5) + ' ' + m.data.length; ws.send('a forbidden word'); };
		ws.onclose = (e) => { got.code = e.code; got.reason = e.reason; done(got); };
	})`, proxyHost, g.https.Port()), &got)
	if err != nil {
		t.Fatal(err)
	}
	if got.Protocol != "b" || !strings.HasPrefix(got.Extensions, "permessage-deflate") || got.Echo != "h\u00e9llo 100000" || got.Code != 1008 || got.Reason != "message denied" {
		t.Errorf("got %+v, want the subprotocol b, deflate, the echo, and 1008 message denied", got)
	}
}
