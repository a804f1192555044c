package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/turngate/turngate/internal/testnet"
	tc "github.com/turngate/turngate/internal/testnet/turnclient"
)

// far is what stands behind turngate: every service of the cloud on one port.
// A WebSocket is echoed, or handed to the test when its query asks for that.
type far struct {
	*testnet.Upstream
	ca    *testnet.CA
	conns chan *websocket.Conn // with ?hand=over

	mu   sync.Mutex // guards the field below
	seen []*http.Request
}

var farNames = []string{"signaling.rtc.qq.com", "yun.tim.qq.com", "main.rtc.qq.com", "backup.rtc.qq.com", "schedule.cloud-rtc.com", "evil.example.com"}

func startFar(t *testing.T) *far {
	f := &far{ca: testnet.NewCA(t, "the cloud's authority"), conns: make(chan *websocket.Conn)}
	f.Upstream = testnet.NewUpstream(t, f.ca.Issue(t, farNames...), http.HandlerFunc(f.serve))
	return f
}

// config is the table that leads a gate here.
func (f *far) config(t *testing.T) string {
	var resolve []string
	for _, name := range farNames {
		resolve = append(resolve, fmt.Sprintf("%q = %q", name, f.Addr))
	}
	return fmt.Sprintf("\n[upstream]\nca = %q\nresolve = { %s }\n", f.ca.File(t), strings.Join(resolve, ", "))
}

func (f *far) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.seen = append(f.seen, r)
	f.mu.Unlock()
	switch {
	case r.Header.Get("Upgrade") != "":
		up := websocket.Upgrader{
			Subprotocols:      []string{"b"},
			EnableCompression: true,
			CheckOrigin:       func(*http.Request) bool { return true },
		}
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		if r.URL.Query().Has("hand") {
			f.conns <- conn
			return
		}
		defer conn.Close()
		for {
			kind, message, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, message) != nil {
				return
			}
		}
	case r.URL.Path == "/api/v1/config":
		w.Header().Set("Access-Control-Allow-Origin", "*")
		_, _ = io.WriteString(w, `{"code":0,"msg":"ok","data":{"domains":["main.rtc.qq.com","backup.rtc.qq.com"],"iceServers":[],`+
			`"config":{"loggerDomain":"https://yun.tim.qq.com","keepAliveClient":1}}}`)
	default:
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Access-Control-Allow-Origin", "*")
		fmt.Fprintf(w, "%s %s%s %s", r.Method, r.Host, r.RequestURI, body)
	}
}

// last returns the last request that arrived.
func (f *far) last() *http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[len(f.seen)-1]
}

// wss opens a WebSocket through the gate.
func (g *gate) wss(t testing.TB, target string, change ...func(*websocket.Dialer, http.Header)) *websocket.Conn {
	t.Helper()
	conn, res, err := g.tryWSS(t, target, change...)
	if err != nil {
		if res != nil {
			t.Fatalf("%s: %v, status %d", target, err, res.StatusCode)
		}
		t.Fatalf("%s: %v", target, err)
	}
	return conn
}

func (g *gate) tryWSS(t testing.TB, target string, change ...func(*websocket.Dialer, http.Header)) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	d := &websocket.Dialer{TLSClientConfig: g.trust(t), HandshakeTimeout: time.Minute}
	h := http.Header{}
	for _, f := range change {
		f(d, h)
	}
	conn, res, err := d.Dial("wss://"+g.https.String()+target, h)
	if err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		t.Cleanup(func() { conn.Close() })
	}
	return conn, res, err
}

// pair opens a WebSocket through the gate and returns both ends.
func (g *gate) pair(t testing.TB, f *far) (near, there *websocket.Conn) {
	t.Helper()
	opened := make(chan *websocket.Conn, 1)
	go func() { opened <- <-f.conns }()
	near = g.wss(t, "/ws/?hand=over")
	there = <-opened
	_ = there.SetReadDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() { there.Close() })
	return near, there
}

// echoes sends a message and reports what is wrong with what comes back.
func echoes(c *websocket.Conn, kind int, message []byte) error {
	if err := c.WriteMessage(kind, message); err != nil {
		return err
	}
	back, got, err := c.ReadMessage()
	switch {
	case err != nil:
		return err
	case back != kind || !bytes.Equal(got, message):
		return fmt.Errorf("sent %d bytes of kind %d, got %d of kind %d", len(message), kind, len(got), back)
	}
	return nil
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// closeOf reads to the end of a WebSocket and returns how it ended.
func closeOf(c *websocket.Conn) (messages int, _ *websocket.CloseError) {
	for {
		_, _, err := c.ReadMessage()
		var ce *websocket.CloseError
		switch {
		case errors.As(err, &ce):
			return messages, ce
		case err != nil:
			return messages, &websocket.CloseError{Code: websocket.CloseAbnormalClosure, Text: err.Error()}
		}
		messages++
	}
}

// await returns the first log line that contains every word, once it is there.
func (l *logBuffer) await(t testing.TB, words ...string) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if line := l.line(words...); line != "" {
			return line
		}
	}
	t.Fatalf("no log line with %q:\n%s", words, l)
	return ""
}

// count returns how many log lines contain every word.
func (l *logBuffer) count(words ...string) (n int) {
	for line := range strings.Lines(l.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			n++
		}
	}
	return n
}

func TestWSSCarriesMessagesOfEverySize(t *testing.T) {
	f := startFar(t)
	g := startGate(t, f.config(t))
	c := g.wss(t, "/ws/?sdkAppId=1400000001")
	for _, size := range []int{0, 1, 125, 126, 127, 65535, 65536, 1 << 20} {
		for _, kind := range []int{websocket.TextMessage, websocket.BinaryMessage} {
			message := random(size)
			if kind == websocket.TextMessage {
				message = bytes.Repeat([]byte("x"), size)
			}
			if err := echoes(c, kind, message); err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
		}
	}
	// The limit is for clients. What the cloud sends is its own business.
	near, there := g.pair(t, f)
	sent := make(chan error, 1)
	go func() { sent <- there.WriteMessage(websocket.BinaryMessage, random(4<<20)) }()
	if _, got, err := near.ReadMessage(); err != nil || len(got) != 4<<20 {
		t.Errorf("from the cloud: got %d bytes, %v, want 4 MiB", len(got), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	go func() { _ = near.WriteMessage(websocket.BinaryMessage, random(1<<20+1)) }()
	if _, ce := closeOf(near); ce.Code != websocket.CloseMessageTooBig {
		t.Errorf("a byte over the limit: closed with %v, want 1009", ce)
	}
	if n, _ := closeOf(there); n != 0 {
		t.Error("a message over the limit reached the cloud")
	}
}

// Sessions with TLS on both sides run on loops: a layer between the edge and TLS that cannot be put
// on another socket would silently give each of them goroutines and buffers again.
func TestWSSSessionsHaveNoGoroutines(t *testing.T) {
	if runtime.GOOS != "linux" {
		testnet.Lacks(t, "linux", "loops exist there only")
	}
	f := startFar(t)
	g := startGate(t, f.config(t))
	for range 5 {
		if err := echoes(g.wss(t, "/ws/"), websocket.BinaryMessage, random(2000)); err != nil {
			t.Fatal(err)
		}
	}
	var stacks bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 1); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(stacks.String(), "signaling.(*pump).run+") {
		t.Error("open sessions have goroutines of their own")
	}
	if !strings.Contains(stacks.String(), "poller.(*Loop).Run+") {
		t.Error("there is no loop for sessions")
	}
}

func TestWSSPingsGoEndToEnd(t *testing.T) {
	f := startFar(t)
	g := startGate(t, f.config(t))
	for _, way := range []string{"client", "cloud"} {
		from, to := g.pair(t, f)
		if way == "cloud" {
			from, to = to, from
		}
		pinged, pong := make(chan string, 1), make(chan string, 1)
		answer := to.PingHandler()
		to.SetPingHandler(func(s string) error { pinged <- s; return answer(s) })
		from.SetPongHandler(func(s string) error { pong <- s; return nil })
		var reading sync.WaitGroup
		reading.Go(func() { closeOf(from) })
		reading.Go(func() { closeOf(to) })
		if err := from.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		for what, ch := range map[string]chan string{"ping": pinged, "pong": pong} {
			if got := <-ch; got != "are you there" {
				t.Errorf("a ping of the %s: the %s says %q", way, what, got)
			}
		}
		from.Close()
		reading.Wait()
	}
}

func TestWSSPassesCloseCodesBothWays(t *testing.T) {
	f := startFar(t)
	g := startGate(t, f.config(t))
	for _, code := range []struct {
		code   int
		reason string
	}{{1000, ""}, {1000, "bye"}, {1001, "going"}, {4011, "reconnect"}, {4013, strings.Repeat("r", 123)}, {1005, ""}} {
		for _, way := range []string{"client", "cloud"} {
			near, there := g.pair(t, f)
			from, to := near, there
			if way == "cloud" {
				from, to = there, near
			}
			// What was sent before the close arrives before it.
			for range 50 {
				if err := from.WriteMessage(websocket.BinaryMessage, random(2000)); err != nil {
					t.Fatal(err)
				}
			}
			frame := websocket.FormatCloseMessage(code.code, code.reason)
			if code.code == 1005 {
				frame = nil
			}
			if err := from.WriteControl(websocket.CloseMessage, frame, time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			messages, got := closeOf(to)
			if messages != 50 || got.Code != code.code || got.Text != code.reason {
				t.Errorf("from the %s: got %d messages and %v, want 50 and %d %q", way, messages, got, code.code, code.reason)
			}
			if way == "cloud" {
				there.Close() // the server ends the connection
			}
			// The other side has answered with the same code.
			if _, back := closeOf(from); way == "client" && back.Code != code.code {
				t.Errorf("answer to the %s: got %v, want %d", way, back, code.code)
			}
			there.Close()
			near.Close()
		}
	}
}

func TestWSSEndsWithItsOtherSide(t *testing.T) {
	f := startFar(t)
	g := startGate(t, f.config(t))
	for _, way := range []string{"client", "upstream"} {
		near, there := g.pair(t, f)
		from, to := near, there
		if way == "upstream" {
			from, to = there, near
		}
		raw := from.NetConn().(*tls.Conn).NetConn()
		if tcp, ok := raw.(interface{ SetLinger(int) error }); !ok || tcp.SetLinger(0) != nil {
			t.Fatalf("%T cannot be reset", raw)
		}
		raw.Close()
		if _, ce := closeOf(to); ce.Code != websocket.CloseAbnormalClosure {
			t.Errorf("the %s is lost: the other side got %v, want an end without a close", way, ce)
		}
		g.logs.await(t, "session closed", way+" lost")
	}
}

// A client may send at once what the handshake has not yet answered, and the
// cloud behind its answer.
func TestWSSLosesNoEarlyBytes(t *testing.T) {
	ca := testnet.NewCA(t, "the cloud's authority")
	c := startCloud(t, ca.Issue(t, "signaling.rtc.qq.com"))
	g := startGate(t, fmt.Sprintf("\n[upstream]\nca = %q\nresolve = { \"signaling.rtc.qq.com\" = %q }\n", ca.File(t), c.Addr))
	got := append(converse(t, g.https.String(), upgrade("/ws/")), c.take()...)
	for _, want := range []string{`client frame 81 "first"`, `cloud frame 81 masked "hello"`} {
		if !slices.Contains(got, want) {
			t.Errorf("no line %s in %q", want, got)
		}
	}
}

func TestWSSNegotiatesEndToEnd(t *testing.T) {
	f := startFar(t)
	g := startGate(t, f.config(t))
	c := g.wss(t, "/ws/", func(d *websocket.Dialer, h http.Header) {
		d.EnableCompression = true
		d.Subprotocols = []string{"a", "b"}
	})
	if c.Subprotocol() != "b" {
		t.Errorf("subprotocol: got %q, want the cloud's choice b", c.Subprotocol())
	}
	if got := f.last().Header.Get("Sec-Websocket-Extensions"); !strings.Contains(got, "permessage-deflate") {
		t.Errorf("extensions offered to the cloud: %q", got)
	}
	if err := echoes(c, websocket.TextMessage, []byte("open")); err != nil {
		t.Fatal(err)
	}
	before := g.signaling.Sessions()[0].ToUpstream
	if err := echoes(c, websocket.TextMessage, bytes.Repeat([]byte("deflate "), 100_000)); err != nil {
		t.Fatal(err)
	}
	if n := g.signaling.Sessions()[0].ToUpstream - before; n > 100_000 {
		t.Errorf("800 kB of repetition took %d bytes: not compressed", n)
	}
	plain := g.wss(t, "/ws/")
	if err := echoes(plain, websocket.TextMessage, []byte("plain")); err != nil {
		t.Error(err)
	}
	if got := f.last().Header.Get("Sec-Websocket-Extensions"); got != "" {
		t.Errorf("extensions that no client offered: %q", got)
	}
}

// TestReloadsEndNothing opens calls of every kind and reloads twenty times,
// with routes that come and go.
func TestReloadsEndNothing(t *testing.T) {
	f := startFar(t)
	g := startGate(t, f.config(t)+allowLoopback)
	ctx := deadline(t)
	peer := tc.NewEcho(t, "127.0.0.1")
	var sockets []*websocket.Conn
	for range 100 {
		sockets = append(sockets, g.wss(t, "/ws/?sdkAppId=1400000001"))
	}
	var calls []*tc.Client
	for _, door := range []struct{ network, addr string }{
		{"udp", g.turnUDP.String()}, {"tcp", g.turnTCP.String()}, {"tcp", g.https.String()}, {"tls", g.https.String()},
	} {
		for range 3 {
			c, err := tc.Dial(ctx, door.network, door.addr, tc.Auth{User: g.user, Password: g.password}, tc.TLS(g.trust(t)))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Allocate(ctx); err != nil {
				t.Fatal(err)
			}
			if err := c.ChannelBind(ctx, 0x4000, peer.Addr()); err != nil {
				t.Fatal(err)
			}
			calls = append(calls, c)
		}
	}
	alive := func(when string) {
		t.Helper()
		for i, c := range sockets {
			if err := echoes(c, websocket.TextMessage, []byte(when)); err != nil {
				t.Fatalf("%s: WebSocket %d: %v", when, i, err)
			}
		}
		for i, c := range calls {
			if err := c.SendChannel(ctx, 0x4000, []byte(when)); err != nil {
				t.Fatalf("%s: relay %d: %v", when, i, err)
			}
			if got, err := c.Receive(ctx); err != nil || string(got.Payload) != when {
				t.Fatalf("%s: relay %d: %q %v", when, i, got.Payload, err)
			}
		}
	}
	const moved = "\n[[signaling]]\npreset = \"trtc\"\npath = \"/moved/\"\n"
	var onMoved *websocket.Conn
	for i := range 20 {
		extra, serves, gone := "", "/ws/", "/moved/"
		if i%2 == 0 {
			extra, serves, gone = moved, "/moved/", "/ws/"
		}
		g.writeConfig(t, "", "", f.config(t)+allowLoopback+extra)
		if _, err := g.reload(); err != nil {
			t.Fatal(err)
		}
		if status, _, _ := g.get(t, serves); status != http.StatusUpgradeRequired {
			t.Errorf("reload %d: %s: got %d, want 426", i, serves, status)
		}
		if status, _, _ := g.get(t, gone); status != http.StatusNotFound {
			t.Errorf("reload %d: %s: got %d, want 404", i, gone, status)
		}
		c := g.wss(t, serves)
		if err := echoes(c, websocket.TextMessage, []byte("new")); err != nil {
			t.Errorf("reload %d: a new WebSocket: %v", i, err)
		}
		if i == 0 {
			onMoved = c
			sockets = append(sockets, c)
		}
		if i%5 == 0 {
			alive(fmt.Sprint("after reload ", i))
		}
	}
	alive("at the end")
	if err := echoes(onMoved, websocket.TextMessage, []byte("still here")); err != nil {
		t.Errorf("a WebSocket of a route that is gone: %v", err)
	}
	if n := g.logs.count("session closed"); n != 0 {
		t.Errorf("%d sessions closed over the reloads, want 0", n)
	}
	if n := g.logs.count(`"msg":"reloaded"`); n != 20 {
		t.Errorf("%d log lines of reloads, want 20", n)
	}
}

func TestStopClosesEachWebSocketOnce(t *testing.T) {
	f := startFar(t)
	g := startGate(t, f.config(t)+allowLoopback)
	// Time enough for a machine that stops for a moment.
	text, err := os.ReadFile(g.file())
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("websockets = \"1s\"\nturn = \"20s\""), []byte("websockets = \"4s\"\nturn = \"1m\""), 1)
	if err := os.WriteFile(g.file(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := g.reload(); err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t)
	// A relay keeps the drain going until this test is done.
	relay, err := tc.Dial(ctx, "udp", g.turnUDP.String(), tc.Auth{User: g.user, Password: g.password})
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	if _, err := relay.Allocate(ctx); err != nil {
		t.Fatal(err)
	}
	const n = 20
	type end struct {
		at    time.Time
		close *websocket.CloseError
	}
	var nears, theres []*websocket.Conn
	for range n {
		near, there := g.pair(t, f)
		nears, theres = append(nears, near), append(theres, there)
	}
	ends := make(chan end, n)
	var talking sync.WaitGroup
	for i := range n {
		talking.Go(func() { // a Close frame that does not stand between frames breaks the stream
			message := random(5000)
			for theres[i].WriteMessage(websocket.BinaryMessage, message) == nil {
			}
		})
		talking.Go(func() { closeOf(theres[i]) })
		talking.Go(func() {
			_, ce := closeOf(nears[i])
			ends <- end{time.Now(), ce}
			nears[i].Close()
		})
	}
	g.stopServe()
	var all []end
	for range n {
		e := <-ends
		all = append(all, e)
		if e.close.Code != websocket.CloseServiceRestart {
			t.Errorf("closed with %v, want 1012", e.close)
		}
	}
	talking.Wait()
	if spread := all[n-1].at.Sub(all[0].at); spread < 300*time.Millisecond {
		t.Errorf("closed within %v, want them spread over the four seconds of drain.websockets", spread)
	}
	_, res, err := g.tryWSS(t, "/ws/")
	if err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("a handshake during the drain: got %v %v, want 503 with Retry-After", res, err)
	}
	if _, err := relay.Refresh(ctx, 0); err != nil {
		t.Errorf("the relay did not live through the drain: %v", err)
	}
	select {
	case err := <-g.served:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
		g.served <- err
	case <-ctx.Done():
		t.Fatal("serve did not return")
	}
	if got := g.logs.count("session closed", `"reason":"drain"`); got != n {
		t.Errorf("%d sessions closed by the drain in the log, want %d:\n%s", got, n, g.logs)
	}
}

func TestKickOverTheAdminSocket(t *testing.T) {
	f := startFar(t)
	g := startGate(t, f.config(t)+allowLoopback)
	ctx := deadline(t)
	socket := g.plan.Load().cfg.Admin.Socket
	call := func(want int, args ...string) string {
		t.Helper()
		code, out, errs := turngate(append(args, "--socket", socket)...)
		if code != want {
			t.Fatalf("%v: exit code %d, want %d: %s%s", args, code, want, out, errs)
		}
		return out + errs
	}
	open := func() *websocket.Conn { // a session is listed once it carries bytes
		c := g.wss(t, "/ws/")
		if err := echoes(c, websocket.TextMessage, []byte("open")); err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := open()
	second := open()
	var sessions []Session
	if err := json.Unmarshal([]byte(call(0, "sessions", "--json")), &sessions); err != nil {
		t.Fatal(err)
	}
	if len(sessions) != 2 || sessions[0].Kind != "wss" || sessions[0].To != "signaling.rtc.qq.com:443" {
		t.Fatalf("sessions: %+v, want two to the signaling host", sessions)
	}
	if out := call(0, "kick", sessions[0].ID); !strings.Contains(out, "ended 1") {
		t.Errorf("kick: %q", out)
	}
	if _, ce := closeOf(first); ce.Code != websocket.ClosePolicyViolation {
		t.Errorf("kicked: %v, want 1008", ce)
	}
	if err := echoes(second, websocket.TextMessage, []byte("still here")); err != nil {
		t.Errorf("the other one: %v", err)
	}
	g.logs.await(t, "session closed", `"reason":"kicked"`)
	if out := call(1, "kick", sessions[0].ID); !strings.Contains(out, "no session has the id") {
		t.Errorf("kick of one that is gone: %q", out)
	}
	call(2, "kick")
	call(1, "kick", "--client", "nobody")
	if out := call(0, "kick", "--client", "192.0.2.1"); !strings.Contains(out, "ended 0") {
		t.Errorf("kick of a client that is not here: %q", out)
	}

	relay, err := tc.Dial(ctx, "udp", g.turnUDP.String(), tc.Auth{User: g.user, Password: g.password})
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	if _, err := relay.Allocate(ctx); err != nil {
		t.Fatal(err)
	}
	if out := call(0, "kick", "--client", "127.0.0.1"); !strings.Contains(out, "ended 2") {
		t.Errorf("kick of a client: %q, want the WebSocket and the relay ended", out)
	}
	if _, ce := closeOf(second); ce.Code != websocket.ClosePolicyViolation {
		t.Errorf("kicked: %v, want 1008", ce)
	}
	if _, err := relay.Refresh(ctx, 600); tc.Code(err) != 437 {
		t.Errorf("refresh of a kicked relay: %v, want 437", err)
	}
}

func TestLogHasOneLineAtEachEndAndNoSecret(t *testing.T) {
	f := startFar(t)
	g := startGate(t, f.config(t)+allowLoopback)
	ctx := deadline(t)
	const userSig = "eJwVzF-the*signature_"
	c := g.wss(t, "/ws/?sdkAppId=1400000001&userId=alice&userSig="+userSig, func(_ *websocket.Dialer, h http.Header) {
		h.Set("Cookie", "sso=the-cookie")
		h.Set("Authorization", "Bearer the-token")
	})
	if err := echoes(c, websocket.TextMessage, []byte("the-message")); err != nil {
		t.Fatal(err)
	}
	_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4013, "bye"), time.Now().Add(time.Minute))
	closeOf(c)
	// And what goes wrong, at every level that is on by default.
	for _, target := range []string{"/none?userSig=" + userSig, "/ws/%2e%2e/?userSig=" + userSig, "/ws/?userSig=" + userSig} {
		g.get(t, target)
	}
	for _, auth := range []tc.Auth{{User: g.user, Password: g.password}, {User: g.user, Password: "the-wrong-password"}, {User: "1:the-user", Password: "x"}} {
		relay, err := tc.Dial(ctx, "udp", g.turnUDP.String(), auth)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := relay.Allocate(ctx); err == nil {
			_, _ = relay.Refresh(ctx, 0)
		}
		relay.Close()
	}

	var line struct {
		Session    uint64
		Route      string
		Client     string
		Upstream   string
		Reason     string
		Duration   time.Duration
		ToUpstream int
		ToClient   int
		Code       int `json:"clientClose"`
	}
	if err := json.Unmarshal([]byte(g.logs.await(t, "session closed")), &line); err != nil {
		t.Fatal(err)
	}
	// A masked frame and a masked close up, both without a mask down.
	const message, closing = len("the-message"), 2 + len("bye")
	if line.Route != "/ws/" || line.Client != "127.0.0.1" || line.Upstream != "signaling.rtc.qq.com:443" || line.Duration <= 0 ||
		line.ToUpstream != 6+message+6+closing || line.ToClient < 2+message || line.Code != 4013 || line.Reason == "" {
		t.Errorf("the line at the end: %+v", line)
	}
	g.logs.await(t, "allocation closed")
	for _, words := range [][]string{{`"session opened"`}, {`"session closed"`}, {`"allocation open`}, {`"allocation closed"`}} {
		if n := g.logs.count(words...); n != 1 {
			t.Errorf("%d lines with %q, want 1", n, words)
		}
	}
	for _, secret := range []string{userSig, "userSig", "the-cookie", "the-token", "the-message", g.password, "the-wrong-password"} {
		if l := g.logs.line(secret); l != "" {
			t.Errorf("the log holds %q: %s", secret, l)
		}
	}
}

// scheduled asks the scheduler as the SDK does and returns the data of the answer.
func (g *gate) scheduled(t *testing.T, path string) (data struct {
	Domains    []string
	ICEServers []struct{ URLs, Username, Credential string }
	Policy     string `json:"iceTransportPolicy"`
	Config     map[string]any
}) {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for name, value := range map[string]string{"userId": "alice", "sdkAppId": "1400000001", "userSig": "the-signature"} {
		if err := form.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	form.Close()
	status, answer, h := g.post(t, path, form.FormDataContentType(), body.String())
	if status != http.StatusOK || h.Get("Access-Control-Allow-Origin") != "*" {
		t.Fatalf("%s: status %d, header %v", path, status, h)
	}
	var top struct {
		Code int
		Data json.RawMessage
	}
	if err := errors.Join(json.Unmarshal([]byte(answer), &top), json.Unmarshal(top.Data, &data)); err != nil {
		t.Fatalf("%v in %s", err, answer)
	}
	return data
}

func (g *gate) post(t *testing.T, path, contentType, body string) (int, string, http.Header) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: g.trust(t), DisableKeepAlives: true}}
	res, err := client.Post("https://"+g.https.String()+path, contentType, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(answer), res.Header
}

func TestSchedulerModes(t *testing.T) {
	f := startFar(t)
	g := startGate(t, f.config(t)+allowLoopback)
	host := g.https.String()
	for _, mode := range []struct {
		name, path string
		domains    []string
		logs       string
		signal     []string // where the SDK then opens its WebSocket
	}{
		{"scheduleProxy", "/schedule/api/v1/config", []string{host + "/schedule/main.rtc.qq.com", host + "/schedule/backup.rtc.qq.com"}, "https://" + host + "/logger",
			[]string{"/schedule/main.rtc.qq.com/v2/ws?sdkAppId=1400000001&race=1", "/schedule/backup.rtc.qq.com/v2/ws?sdkAppId=1400000001&race=1"}},
		{"unifiedProxy", "/u/api/v1/config", []string{"main.rtc.qq.com", "backup.rtc.qq.com"}, "https://" + host + "/u",
			[]string{"/u/v2/ws?sdkAppId=1400000001&signalDomain=main.rtc.qq.com", "/u?sdkAppId=1400000001&signalDomain=backup.rtc.qq.com"}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			data := g.scheduled(t, mode.path)
			if r := f.last(); r.Host != "schedule.cloud-rtc.com" || r.RequestURI != "/api/v1/config" {
				t.Errorf("the scheduler was asked as %s%s", r.Host, r.RequestURI)
			}
			if !slices.Equal(data.Domains, mode.domains) {
				t.Errorf("domains: got %q, want %q", data.Domains, mode.domains)
			}
			if data.Config["loggerDomain"] != mode.logs || data.Config["keepAliveClient"] != 1.0 {
				t.Errorf("config: got %v, want loggerDomain %s and the rest as it was", data.Config, mode.logs)
			}
			if data.Policy != "relay" {
				t.Errorf("iceTransportPolicy: got %q, want relay", data.Policy)
			}
			g.allocateWith(t, data.ICEServers)
			for i, target := range mode.signal {
				c := g.wss(t, target)
				if err := echoes(c, websocket.TextMessage, []byte("hello")); err != nil {
					t.Errorf("%s: %v", target, err)
				}
				want := []string{"main.rtc.qq.com", "backup.rtc.qq.com"}[i]
				if r := f.last(); r.Host != want {
					t.Errorf("%s went to %s, want %s", target, r.Host, want)
				}
				c.Close()
			}
		})
	}
	for _, target := range []string{
		"/u/v2/ws?signalDomain=evil.example.com", "/u/v2/ws?signalDomain=127.0.0.1", "/u/v2/ws?signalDomain=main.rtc.qq.com.evil.example.com",
		"/u/v2/ws?signalDomain=main.rtc.qq.com:22", "/u/v2/ws?signalDomain=main.rtc.qq.com&signalDomain=evil.example.com",
		"/u/v2/ws?signalDomain=rtc.qq.com", "/u/v2/ws?signaldomain=evil.example.com", "/schedule/evil.example.com/v2/ws",
	} {
		conns := f.Conns.Load()
		_, res, err := g.tryWSS(t, target)
		if err == nil || res == nil || res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: got %v %v, want 403", target, res, err)
		}
		if f.Conns.Load() != conns {
			t.Errorf("%s: the host was dialled", target)
		}
	}
	for _, slashes := range []string{"/u/v5/", "/u//v5/"} {
		status, answer, h := g.post(t, slashes+"AVQualityReportSvc/C2S?sdkappid=1400000001&cmdtype=jssdk_log", "text/plain", "a report")
		want := "POST yun.tim.qq.com/v5/AVQualityReportSvc/C2S?sdkappid=1400000001&cmdtype=jssdk_log a report"
		if status != http.StatusOK || answer != want || h.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("a report below %s: got %d %q", slashes, status, answer)
		}
	}
}

// allocateWith makes a relay with every server of a scheduler's answer.
func (g *gate) allocateWith(t *testing.T, servers []struct{ URLs, Username, Credential string }) {
	t.Helper()
	ctx := deadline(t)
	var networks []string
	for _, s := range servers {
		scheme, rest, _ := strings.Cut(s.URLs, ":")
		addr, query, _ := strings.Cut(rest, "?")
		network := strings.TrimPrefix(query, "transport=")
		if scheme == "turns" {
			network = "tls"
		}
		networks = append(networks, network)
		c, err := tc.Dial(ctx, network, addr, tc.Auth{User: s.Username, Password: s.Credential}, tc.TLS(g.trust(t)))
		if err != nil {
			t.Errorf("%s: %v", s.URLs, err)
			continue
		}
		if _, err := c.Allocate(ctx); err != nil {
			t.Errorf("%s: %v", s.URLs, err)
		}
		if !strings.HasSuffix(s.Username, ":alice") {
			t.Errorf("user name %q does not name the user", s.Username)
		}
		_, _ = c.Refresh(ctx, 0)
		c.Close()
	}
	if want := []string{"udp", "tcp", "tls"}; !slices.Equal(networks, want) {
		t.Errorf("ways to TURN: got %v, want %v", networks, want)
	}
}
