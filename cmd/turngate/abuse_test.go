package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/internal/testnet"
)

// The attacks of the abuse_*_test.go files go through raw TLS sockets against a
// whole turngate. Behind it stands a recorder: an upstream that keeps what it
// received, byte for byte, and answers well or as a test wants. After every
// attack honest clients must be served as before.

// target is a turngate under attack with the recorder behind all its routes.
type target struct {
	*gate
	*recorder
	addr netip.AddrPort // where the attacks go
	tls  *tls.Config    // nil: they come without TLS
}

// attacked starts a target. https are further keys of [https], extra is further TOML.
func attacked(t testing.TB, https, extra string) *target {
	t.Helper()
	rec := newRecorder(t)
	g := startGateWith(t, https, "", rec.config(t, rec.Addr)+extra)
	return &target{gate: g, recorder: rec, addr: g.https, tls: g.trust(t)}
}

// attackedApart is attacked with its routes on a listener of their own, which the
// attacks go to.
func attackedApart(t testing.TB, https, extra string) *target {
	t.Helper()
	rec := newRecorder(t)
	own := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), testnet.FreePort(t))
	routes := strings.ReplaceAll(rec.config(t, rec.Addr), "]]\n", fmt.Sprintf("]]\nlisten = [%q]\n", own))
	g := startGateWith(t, https, "", routes+extra)
	return &target{gate: g, recorder: rec, addr: own, tls: g.trust(t)}
}

// onEveryListener tries the same on a listener of all routes and on one of their own.
func onEveryListener(t *testing.T, attack func(t *testing.T, attacked func(t testing.TB, https, extra string) *target)) {
	t.Run("of all routes", func(t *testing.T) { attack(t, attacked) })
	t.Run("of routes alone", func(t *testing.T) { attack(t, attackedApart) })
}

// config is the TOML that leads every route of a gate to addr.
func (rec *recorder) config(t testing.TB, addr string) string {
	t.Helper()
	return fmt.Sprintf(`
[upstream]
ca = %q
dial_timeout = "4s"
tls_timeout = "4s"
handshake_timeout = "4s"
resolve = { "signal.test" = %[2]q, "log.test" = %[2]q, "schedule.test" = %[2]q, "s1.rtc.test" = %[2]q }

[[signaling]]
preset = "trtc"
upstream = ["https://signal.test/"]

[[signaling]]
path = "/inspect/"
mode = "inspect"
upstream = ["https://signal.test/"]
handshake_timeout = "4s"
max_message = "1MiB"
identify = false
keep_cookies = false

[[signaling]]
preset = "watchrtc"
upstream = ["https://log.test/"]
handshake_timeout = "4s"
max_message = "1MiB"
xff = "replace"
keep_cookies = false

[[logger]]
preset = "trtc"
upstream = ["https://log.test/"]
timeout = "2s"

[trtc]
schedule_upstream = ["https://schedule.test/"]
signal_domains = ["*.rtc.test"]

[log]
level = "debug"
`, rec.ca.File(t), addr)
}

// The paths under which strangers reach an upstream; the route of watchRTC takes
// reports and WebSockets.
var (
	plainPaths = []string{"/logger/", "/schedule/api/v1/", "/u/v5/", "/watchrtc/"}
	wsPaths    = []string{"/ws/", "/inspect/", "/schedule/s1.rtc.test/", "/u/v2/ws?signalDomain=s1.rtc.test&", "/watchrtc/"}
)

// forwarded is one request as it reached the recorder.
type forwarded struct {
	*http.Request
	head string
	body string
}

// recorder is the upstream.
type recorder struct {
	*testnet.Upstream
	ca *testnet.CA

	// answer, if set, answers a request instead of the recorder and reports
	// whether the connection goes on.
	answer atomic.Pointer[func(c net.Conn, e *forwarded) (goOn bool)]

	mu     sync.Mutex // guards the fields below
	seen   []*forwarded
	faults []string // what no upstream should ever receive
}

func newRecorder(t testing.TB) *recorder {
	t.Helper()
	rec := &recorder{ca: testnet.NewCA(t, "authority of the test")}
	cert := rec.certificate(t)
	rec.Upstream = testnet.RawUpstream(t, &cert, rec.serve)
	return rec
}

func (rec *recorder) certificate(t testing.TB) tls.Certificate {
	return rec.ca.Issue(t, "signal.test", "log.test", "schedule.test", "s1.rtc.test", "moved.test")
}

func (rec *recorder) serve(c net.Conn) {
	var raw bytes.Buffer
	record := io.Writer(&raw)
	br := bufio.NewReader(io.TeeReader(c, writerFunc(func(p []byte) (int, error) { return record.Write(p) })))
	for {
		before := raw.Len() - br.Buffered()
		r, err := http.ReadRequest(br)
		if err != nil {
			if !errors.Is(err, io.EOF) && !isNetError(err) {
				rec.fault("the upstream received no HTTP: %v: %.200q", err, raw.Bytes()[before:])
			}
			return
		}
		head, _, ok := strings.Cut(string(raw.Bytes()[before:raw.Len()-br.Buffered()]), "\r\n\r\n")
		if !ok {
			rec.fault("head without end: %q", head)
		}
		e := &forwarded{Request: r, head: head + "\r\n\r\n"}
		upgrade := r.Header.Get("Upgrade") != ""
		if !upgrade {
			body, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
			if err != nil {
				e.body = "cut: "
			}
			e.body += string(body)
		} else {
			record = io.Discard // frames are not for keeping
		}
		rec.mu.Lock()
		if len(rec.seen) == 500 { // a flood is not kept
			rec.seen = slices.Delete(rec.seen, 0, 250)
		}
		rec.seen = append(rec.seen, e)
		rec.mu.Unlock()
		rec.examine(e)
		answer := rec.wellBehaved
		if f := rec.answer.Load(); f != nil && !strings.Contains(r.RequestURI, "control") {
			answer = *f
		}
		if !answer(wsConn{c, br}, e) || strings.HasPrefix(e.body, "cut: ") {
			return
		}
		raw.Reset()
		raw.Write(peekAll(br))
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// wsConn reads what the recorder has buffered, then the connection.
type wsConn struct {
	net.Conn
	br *bufio.Reader
}

func (c wsConn) Read(p []byte) (int, error) { return c.br.Read(p) }

func peekAll(br *bufio.Reader) []byte {
	b, _ := br.Peek(br.Buffered())
	return b
}

func isNetError(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF)
}

// wellBehaved echoes WebSocket messages and stores reports.
func (rec *recorder) wellBehaved(c net.Conn, e *forwarded) bool {
	if e.Header.Get("Upgrade") == "" {
		body := "stored"
		if strings.HasPrefix(e.RequestURI, "/api/") {
			body = `{"code":0,"data":{"domains":["s1.rtc.test"]}}`
		}
		if e.Method == http.MethodHead {
			body = ""
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: secret-engine/1.0\r\nX-Powered-By: secret\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return true
	}
	io.WriteString(c, goodSwitch(e))
	for {
		op, payload, err := readShortFrame(c)
		if err != nil {
			return false
		}
		if _, err := c.Write(append([]byte{op, byte(len(payload))}, payload...)); err != nil || op == 0x88 {
			return false
		}
	}
}

func goodSwitch(e *forwarded) string {
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + testnet.AcceptKey(e.Header.Get("Sec-WebSocket-Key")) + "\r\n\r\n"
}

// readShortFrame reads one frame of at most 125 bytes of payload.
func readShortFrame(r io.Reader) (first byte, payload []byte, err error) {
	var h [2]byte
	if _, err = io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	var mask [4]byte
	if h[1]&0x80 != 0 {
		if _, err = io.ReadFull(r, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, h[1]&0x7f)
	_, err = io.ReadFull(r, payload)
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return h[0], payload, err
}

// maskedFrame is a client's frame with a mask of zero.
func maskedFrame(first byte, payload string) string {
	return maskedHead(first, uint64(len(payload))) + payload
}

// maskedHead is the head of a masked frame of any announced length.
func maskedHead(first byte, length uint64) string {
	b := []byte{first, 0x80 | byte(length)}
	if length >= 1<<16 {
		b = binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, length)
	} else if length >= 126 {
		b = binary.BigEndian.AppendUint16([]byte{first, 0x80 | 126}, uint16(length))
	}
	return string(append(b, 0, 0, 0, 0))
}

// examine holds what must be true of every request that leaves turngate,
// whatever the client sent.
func (rec *recorder) examine(e *forwarded) {
	fault := func(what string) { rec.fault("%s in %q", what, e.head) }
	if !slices.Contains([]string{"GET", "HEAD", "POST", "OPTIONS"}, e.Method) {
		fault("method " + e.Method)
	}
	if _, _, err := proxy.SplitTarget(e.RequestURI); err != nil {
		fault(err.Error())
	}
	if strings.Contains(e.head, "smuggled") {
		fault("smuggled request")
	}
	if !slices.Contains([]string{"signal.test", "log.test", "schedule.test", "s1.rtc.test"}, e.Host) && !strings.HasPrefix(e.Host, "moved.test:") {
		fault("Host " + e.Host)
	}
	lines := strings.Split(strings.TrimSuffix(e.head, "\r\n\r\n"), "\r\n")
	if strings.Count(e.head, "\n") != len(lines)+1 || strings.Count(e.head, "\r") != len(lines)+1 {
		fault("lone CR or LF")
	}
	count := make(map[string]int)
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !proxy.ValidName(name) || !proxy.ValidValue(value) || strings.Contains(name, "_") {
			fault("field " + line)
		}
		if strings.HasPrefix(strings.ToLower(name), "x-wsproxy-") {
			fault("field " + name)
		}
		count[strings.ToLower(name)]++
	}
	if count["content-length"]+count["transfer-encoding"] > 1 || count["host"] != 1 {
		fault("more than one length or Host")
	}
	if te := e.TransferEncoding; len(te) > 0 && (len(te) > 1 || te[0] != "chunked") {
		fault("Transfer-Encoding")
	}
	for _, name := range []string{
		"cookie", "authorization", "proxy-authorization", "proxy-connection", "proxy-authenticate", "keep-alive", "te",
		"trailer", "http2-settings", "forwarded", "x-real-ip", "true-client-ip", "cf-connecting-ip", "client-ip", "via",
		"x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-server",
		"x-accel-redirect", "x-original-url", "x-rewrite-url", "x-http-method-override", "proxy", "expect", "x-hop", "x-smuggled",
	} {
		if count[name] > 0 {
			fault("field " + name)
		}
	}
	if xff := e.Header.Values("X-Forwarded-For"); len(xff) != 1 || xff[0] != "127.0.0.1" {
		fault("X-Forwarded-For")
	}
	if up := e.Header.Get("Upgrade"); up != "" && (up != "websocket" || e.Method != "GET") {
		fault("Upgrade")
	}
}

func (rec *recorder) fault(format string, args ...any) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.faults = append(rec.faults, fmt.Sprintf(format, args...))
}

// received returns the requests whose head contains the marker.
func (rec *recorder) received(marker string) []*forwarded {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	var found []*forwarded
	for _, e := range rec.seen {
		if strings.Contains(e.head, marker) {
			found = append(found, e)
		}
	}
	return found
}

// blameless fails the test for everything that should not have reached the upstream.
func (rec *recorder) blameless(t testing.TB) {
	t.Helper()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for _, f := range rec.faults {
		t.Errorf("upstream: %s", f)
	}
	rec.faults = nil
}

// blamelessButFor is blameless for a target whose configuration lets a field pass.
func (rec *recorder) blamelessButFor(t testing.TB, field string) {
	t.Helper()
	rec.mu.Lock()
	rec.faults = slices.DeleteFunc(rec.faults, func(f string) bool { return strings.HasPrefix(f, field+" ") })
	rec.mu.Unlock()
	rec.blameless(t)
}

// answerWith makes the recorder answer everything but control clients with raw
// bytes and then close, until the test ends.
func (rec *recorder) answerWith(t testing.TB, answer func(c net.Conn, e *forwarded) bool) {
	rec.answer.Store(&answer)
	t.Cleanup(func() { rec.answer.Store(nil) })
}

// attacker is a connection to the gate on which everything can be sent.
type attacker struct {
	net.Conn
	r *bufio.Reader
}

// NetConn is the connection below TLS: closing it says nothing to the gate.
func (a *attacker) NetConn() net.Conn {
	if over, ok := a.Conn.(*tls.Conn); ok {
		return over.NetConn()
	}
	return a.Conn
}

// dial opens a TLS connection; without protocols it offers http/1.1.
func (tg *target) dial(t testing.TB, protocols ...string) *attacker {
	t.Helper()
	c, err := tg.tryDial(protocols...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.NetConn().Close() })
	return c
}

func (tg *target) tryDial(protocols ...string) (*attacker, error) {
	if protocols == nil {
		protocols = []string{"http/1.1"}
	}
	nc, err := net.DialTimeout("tcp", tg.addr.String(), time.Minute)
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(time.Now().Add(3 * time.Minute)) // a hanging test ends with a reason
	if tg.tls == nil {
		return &attacker{nc, bufio.NewReader(nc)}, nil
	}
	cfg := tg.tls.Clone()
	cfg.NextProtos = protocols
	c := tls.Client(nc, cfg)
	if err := c.Handshake(); err != nil {
		nc.Close()
		return nil, err
	}
	return &attacker{c, bufio.NewReader(c)}, nil
}

// send writes as much as the gate takes.
func (a *attacker) send(s string) { io.WriteString(a, s) }

// response reads the next answer with its body; 0 when the connection ended
// without one, -1 when neither came within the deadline.
func (a *attacker) response() (status int, h http.Header, body string) {
	res, err := http.ReadResponse(a.r, nil)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return -1, nil, ""
	}
	if err != nil {
		return 0, nil, ""
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusSwitchingProtocols {
		return res.StatusCode, res.Header, ""
	}
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, res.Header, string(b)
}

// responses reads answers until the connection ends; the last one is -1 when it
// did not within the deadline.
func (a *attacker) responses(d time.Duration) (all []int) {
	a.SetReadDeadline(time.Now().Add(d))
	for {
		status, _, _ := a.response()
		if status == 0 {
			return all
		}
		all = append(all, status)
		if status == -1 || status == http.StatusSwitchingProtocols {
			return all
		}
	}
}

// ended reports whether the connection ends within d, and what came before.
func (a *attacker) ended(d time.Duration) (bool, []byte) {
	a.SetReadDeadline(time.Now().Add(d))
	rest, err := io.ReadAll(a.r)
	return !errors.Is(err, os.ErrDeadlineExceeded), rest
}

// Fields of a good handshake and a whole one.
const upgradeFields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

func upgradeRequest(target string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n"
}

// upgrade opens a WebSocket that must open.
func (tg *target) upgrade(t testing.TB, path string) *attacker {
	t.Helper()
	a := tg.dial(t)
	a.send(upgradeRequest(path))
	if status, _, _ := a.response(); status != http.StatusSwitchingProtocols {
		t.Fatalf("handshake on %s: got %d, want 101", path, status)
	}
	return a
}

// echoes reports whether a WebSocket still carries a message there and back.
func (a *attacker) echoes(message string) bool {
	a.send(maskedFrame(0x81, message))
	op, payload, err := readShortFrame(a.r)
	return err == nil && op == 0x81 && string(payload) == message
}

// control is an honest client: a report and a WebSocket on connections of their own.
func (tg *target) control(t testing.TB) {
	t.Helper()
	began := time.Now()
	a := tg.dial(t)
	defer a.NetConn().Close()
	a.SetDeadline(began.Add(time.Minute))
	a.send("GET /logger/control HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if status, _, body := a.response(); status != 200 || body != "stored" {
		t.Errorf("control client: report: got %d %q after %v, want 200", status, body, time.Since(began))
	}
	a.send(upgradeRequest("/ws/control"))
	if status, _, _ := a.response(); status != 101 || !a.echoes("control") {
		t.Errorf("control client: WebSocket: got %d after %v, want 101 and an echo", status, time.Since(began))
	}
}

// costs runs an attack and checks that it leaves no more than some KiB of heap, where
// that is not 0, and no goroutines behind. The attack may call held while it holds all it has,
// to check the heap at that point; its own sockets are part of the sum.
func (tg *target) costs(t testing.TB, heldKiB, leftKiB int, attack func(held func())) {
	t.Helper()
	tg.control(t)
	before, goroutines := heapKiB(), runtime.NumGoroutine()
	attack(func() {
		t.Helper()
		if got := heapKiB() - before; heldKiB > 0 && got > heldKiB {
			t.Errorf("the attack holds %d KiB of heap, want at most %d", got, heldKiB)
		}
	})
	tg.control(t)
	tg.CloseConnections() // the kept ones count twice, here and there
	eventually(t, func() string {
		if n := runtime.NumGoroutine(); n > goroutines+8 {
			return fmt.Sprintf("%d goroutines, before the attack %d", n, goroutines)
		}
		return ""
	})
	if leftKiB == 0 {
		return
	}
	eventually(t, func() string { // what ended a moment ago is freed by a later collection
		if got := heapKiB() - before; got > leftKiB {
			return fmt.Sprintf("the attack leaves %d KiB of heap, want at most %d", got, leftKiB)
		}
		return ""
	})
}

func heapKiB() int {
	runtime.GC()
	runtime.GC() // the first one only empties the pools into their victims
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse >> 10)
}

// eventually waits until check returns "", and fails with its last word.
func eventually(t testing.TB, check func() string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	ctx := deadline(t)
	for {
		why := check()
		if why == "" {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Error(why)
			return
		}
	}
}

func TestHonestClientsAreServed(t *testing.T) {
	tg := attacked(t, "", "")
	t.Run("a report reaches the log upstream with its own Host", func(t *testing.T) {
		a := tg.dial(t)
		a.send("GET /logger/ping?a=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
		status, h, body := a.response()
		if status != 200 || body != "stored" {
			t.Errorf("got %d %q, want 200", status, body)
		}
		if got := tg.received("GET /ping?a=1 HTTP/1.1"); len(got) != 1 || got[0].Host != "log.test" {
			t.Errorf("upstream: got %v, want one request for /ping?a=1 of log.test", got)
		}
		for _, name := range []string{"Server", "X-Powered-By"} {
			if v := h.Get(name); v != "" {
				t.Errorf("%s of the upstream: got %q, want none", name, v)
			}
		}
		if h.Get("Strict-Transport-Security") == "" {
			t.Error("no Strict-Transport-Security")
		}
	})
	for _, path := range wsPaths {
		t.Run("a WebSocket echoes on "+path, func(t *testing.T) {
			if !tg.upgrade(t, path).echoes("there and back") {
				t.Error("no echo")
			}
		})
	}
	t.Run("a report reaches the log upstream in the one-parameter mode", func(t *testing.T) {
		a := tg.dial(t)
		a.send("POST /u/v5/AVQualityReportSvc/x?sdkappid=1400000001 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
		if status, _, body := a.response(); status != 200 || body != "stored" {
			t.Errorf("got %d %q, want 200", status, body)
		}
	})
	t.Run("the scheduler is asked", func(t *testing.T) {
		a := tg.dial(t)
		a.send("POST /schedule/api/v1/config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
		if status, _, body := a.response(); status != 200 || !strings.Contains(body, "/schedule/s1.rtc.test") {
			t.Errorf("got %d %q, want 200 and our own domain", status, body)
		}
	})
	tg.blameless(t)
}
