package logger

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/turngate/turngate/internal/testnet"
)

// collector is a log collector that can be away.
type collector struct {
	t    testing.TB
	addr string

	srv *http.Server
	ln  net.Listener

	mu     sync.Mutex // guards the fields below
	status int        // 0: normal service
	refuse string     // a body with it is answered with the end of the connection
	seen   []seen
	came   chan struct{}
}

func newCollector(t testing.TB) *collector {
	c := &collector{t: t, came: make(chan struct{}, 1)}
	c.addr = fmt.Sprintf("127.0.0.1:%d", testnet.FreePort(t)) // no connection takes it while it is away
	c.start()
	t.Cleanup(func() { c.srv.Close() })
	return c
}

func (c *collector) serve(ln net.Listener) {
	c.srv, c.ln = &http.Server{Handler: c}, ln
	go c.srv.Serve(ln)
}

// stop makes the collector refuse connections, start makes it listen again. What it has seen it
// answers first: a report whose answer is lost would be sent a second time.
func (c *collector) stop() {
	c.t.Helper()
	c.ln.Close() // Serve may not have begun, and Shutdown not know of it
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.srv.Shutdown(ctx); err != nil {
		c.t.Error(err)
	}
}

func (c *collector) start() {
	c.t.Helper()
	ln, err := net.Listen("tcp", c.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.serve(ln)
}

func (c *collector) answer(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	c.mu.Lock()
	status := c.status
	if c.refuse != "" && strings.Contains(string(body), c.refuse) {
		c.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	if status < 500 {
		c.seen = append(c.seen, seen{r.Method, r.RequestURI, r.Host, string(body), r.Header})
	}
	c.mu.Unlock()
	if status == -1 { // silence
		<-r.Context().Done()
		return
	}
	if status != 0 {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.WriteHeader(status)
		return
	}
	_, _ = io.WriteString(w, "collected")
	select {
	case c.came <- struct{}{}:
	default:
	}
}

// bodies waits until n requests were served, and returns their bodies.
func (c *collector) bodies(n int) (list []string) {
	c.t.Helper()
	timeout := time.After(time.Minute)
	for {
		c.mu.Lock()
		list = nil
		for _, s := range c.seen {
			list = append(list, s.body)
		}
		c.mu.Unlock()
		if len(list) >= n {
			return list
		}
		select {
		case <-c.came:
		case <-timeout:
			c.t.Fatalf("%d requests came, want %d: %q", len(list), n, list)
		}
	}
}

// spooling is a logger with spools in a directory.
type spooling struct {
	*harness
	dir string
	opt Options
	end func()
}

func startSpooling(t testing.TB, dir string, routes ...Route) *spooling {
	t.Helper()
	logs := &logBuffer{}
	opt := Options{Routes: routes, SpoolDir: dir, Log: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	s, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ctx) }()
	front := httptest.NewServer(s)
	var once sync.Once
	end := func() {
		once.Do(func() {
			front.Close()
			cancel()
			<-done
			s.Close()
		})
	}
	t.Cleanup(end)
	return &spooling{&harness{s, front.Listener.Addr().String(), logs}, dir, opt, end}
}

func spoolRoute(c *collector) Route {
	return Route{Path: "/logger/", Upstreams: []string{"http://" + c.addr}, Spool: 1 << 20, Wait: time.Minute}
}

const (
	page        = "https://app.example.com"
	reportQuery = "?sdkappid=1400000001&userSig=eJx*a-b_&x=%2a+"
)

func (h *spooling) post(t testing.TB, path, body string) *http.Response {
	t.Helper()
	return h.raw(t, "POST", "POST "+path+" HTTP/1.1\r\nHost: proxy.example.com\r\nOrigin: "+page+"\r\nContent-Type: text/plain;charset=UTF-8\r\n"+
		"Cookie: sso=hunter2\r\nAuthorization: Bearer hunter2\r\nUser-Agent: browser\r\nX-Custom: hunter2\r\nContent-Length: "+fmt.Sprint(len(body))+"\r\n\r\n"+body, nil)
}

// kept posts a report that must be answered as kept.
func (h *spooling) kept(t testing.TB, body string) {
	t.Helper()
	resp := h.post(t, "/logger//v5/x"+reportQuery, body)
	if resp.StatusCode != 200 || resp.Header.Get("Access-Control-Allow-Origin") != page || text(t, resp) != "ok" {
		t.Fatalf("%s: %d %v, want 200, ok, readable for its page", body, resp.StatusCode, resp.Header)
	}
}

// values returns the samples of a metric as "label=value ... number".
func (h *spooling) values(t testing.TB, name string) (list []string) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	for _, c := range h.Collectors() {
		reg.MustRegister(c)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			list = append(list, sample(m))
		}
	}
	return list
}

func sample(m *dto.Metric) string {
	var b strings.Builder
	for _, l := range m.Label {
		fmt.Fprintf(&b, "%s=%s ", l.GetName(), l.GetValue())
	}
	return b.String() + fmt.Sprint(m.GetCounter().GetValue()+m.GetGauge().GetValue())
}

// wantValues waits for samples: what the sender counts comes a moment behind what the
// collector sees.
func (h *spooling) wantValues(t testing.TB, name string, want ...string) {
	t.Helper()
	var got []string
	if !eventually(func() bool { got = h.values(t, name); return slices.Equal(got, want) }) {
		t.Errorf("%s: got %q, want %q", name, got, want)
	}
}

func (h *spooling) wantLog(t testing.TB, text string, times int) {
	t.Helper()
	if !eventually(func() bool { return strings.Count(h.logs.String(), text) == times }) {
		t.Errorf("%q does not stand %d times in the log:\n%s", text, times, h.logs)
	}
}

// eventually asks until the answer is true, for a minute.
func eventually(ok func() bool) bool {
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

func TestReportsOutliveAnOutage(t *testing.T) {
	for _, outage := range []struct {
		name        string
		begin, over func(*collector)
	}{
		{"refused connections", func(c *collector) { c.stop() }, func(c *collector) { c.start() }},
		{"502", func(c *collector) { c.answer(502) }, func(c *collector) { c.answer(0) }},
		{"503", func(c *collector) { c.answer(503) }, func(c *collector) { c.answer(0) }},
		{"504", func(c *collector) { c.answer(504) }, func(c *collector) { c.answer(0) }},
	} {
		t.Run(outage.name, func(t *testing.T) {
			c := newCollector(t)
			h := startSpooling(t, t.TempDir(), spoolRoute(c))
			outage.begin(c)
			var want []string
			for i := range 5 {
				want = append(want, fmt.Sprintf("report %d\nwith\x00bytes", i))
				h.kept(t, want[i])
			}
			h.wantValues(t, "turngate_logger_spooled_total", "route=/logger/ 5")
			h.wantValues(t, "turngate_logger_spool_reports", "route=/logger/ 5")
			outage.over(c)
			if got := c.bodies(5); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			for _, s := range c.seen {
				if s.method != "POST" || s.uri != "/v5/x"+reportQuery || s.host != c.addr {
					t.Errorf("sent as %s %s to %s", s.method, s.uri, s.host)
				}
				for name, want := range map[string]string{
					"Origin": page, "Content-Type": "text/plain;charset=UTF-8", "User-Agent": "browser", "X-Forwarded-For": "127.0.0.1", "Cookie": "", "X-Custom": "",
				} {
					if got := s.header.Get(name); got != want {
						t.Errorf("%s: got %q, want %q", name, got, want)
					}
				}
			}
			if resp := h.post(t, "/logger/v5/x", "live"); text(t, resp) != "collected" {
				t.Error("after the outage a report is not passed through")
			}
			h.wantValues(t, "turngate_logger_spool_replayed_total", "result=2xx route=/logger/ 5")
			h.wantValues(t, "turngate_logger_spool_reports", "route=/logger/ 0")
			h.wantValues(t, "turngate_logger_spool_bytes", "route=/logger/ 0")
			h.wantValues(t, "turngate_logger_spool_dropped_total")
			for _, want := range []string{"reports are spooled", "spool sent"} {
				h.wantLog(t, want, 1)
			}
			if strings.Contains(h.logs.String(), "userSig") {
				t.Error("the log shows a query")
			}
		})
	}
}

func TestASilentUpstreamIsAskedByTheSpoolAlone(t *testing.T) {
	c := newCollector(t)
	c.answer(-1)
	route := spoolRoute(c)
	route.Wait = 300 * time.Millisecond
	h := startSpooling(t, t.TempDir(), route)
	h.kept(t, "a") // after Wait
	for range 20 {
		h.kept(t, "b")
	}
	if asked := c.bodies(0); slices.Contains(asked, "b") {
		t.Errorf("asked for %q: reports waited for the upstream that was known to be away", asked)
	}
}

// A firewall before the collector resets what it does not like. That costs the others nothing but
// a moment, and is kept for a better day.
func TestAReportThatIsRefusedHoldsUpNoOther(t *testing.T) {
	c := newCollector(t)
	c.refuse = "UNION SELECT"
	dir := t.TempDir()
	h := startSpooling(t, dir, spoolRoute(c))
	h.kept(t, "an innocent UNION SELECT") // its connection ended without an answer
	var want []string
	for i := range 5 { // those that come while it is tried wait behind it
		body := fmt.Sprintf("report %d", i)
		want = append(want, body)
		h.kept(t, body)
	}
	got := c.bodies(len(want))
	if !slices.Equal(got, want) {
		t.Errorf("the collector got %q, want %q", got, want)
	}
	h.wantValues(t, "turngate_logger_spool_reports", "route=/logger/ 1")
	h.wantValues(t, "turngate_logger_spool_dropped_total")
	h.end()
	c.mu.Lock()
	c.refuse, c.seen = "", nil
	c.mu.Unlock()
	h = startSpooling(t, dir, spoolRoute(c))
	if got, want := c.bodies(1), []string{"an innocent UNION SELECT"}; !slices.Equal(got, want) {
		t.Errorf("when it is not refused any more the collector got %q, want %q", got, want)
	}
	h.wantValues(t, "turngate_logger_spool_reports", "route=/logger/ 0")
}

func TestWhatIsNotKept(t *testing.T) {
	c := newCollector(t)
	h := startSpooling(t, t.TempDir(), spoolRoute(c))
	big := strings.Repeat("x", smallBody+1)
	for _, tc := range []struct {
		name, method, extra, body string
		upstream, want            int
		cors                      bool
	}{
		{"a GET", "GET", "", "", 503, 503, false},
		{"a HEAD", "HEAD", "", "", 503, 503, false},
		{"a body over 64 KiB", "POST", fmt.Sprintf("Content-Length: %d\r\n", len(big)), big, 503, 503, false},
		{"a body of unknown length", "POST", "Transfer-Encoding: chunked\r\n", "1\r\nx\r\n0\r\n\r\n", 503, 503, false},
		{"a preflight for another method", "OPTIONS", "Access-Control-Request-Method: PUT\r\n", "", 503, 503, false},
		{"an answer that is final: 500", "POST", "Content-Length: 1\r\n", "x", 500, 500, false},
		{"an answer that is final: 403", "POST", "Content-Length: 1\r\n", "x", 403, 403, true},
		{"an answer that is final: 429", "POST", "Content-Length: 1\r\n", "x", 429, 429, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c.answer(tc.upstream)
			resp := h.raw(t, tc.method, tc.method+" /logger/ HTTP/1.1\r\nHost: h\r\nOrigin: "+page+"\r\n"+tc.extra+"\r\n", strings.NewReader(tc.body))
			if resp.StatusCode != tc.want || (resp.Header.Get("Access-Control-Allow-Origin") != "") != tc.cors {
				t.Errorf("got %d with CORS %q, want %d", resp.StatusCode, resp.Header.Get("Access-Control-Allow-Origin"), tc.want)
			}
		})
	}
	h.wantValues(t, "turngate_logger_spooled_total")
}

func TestAPreflightIsAnsweredWhileTheUpstreamIsAway(t *testing.T) {
	c := newCollector(t)
	c.stop()
	route := spoolRoute(c)
	route.Origins = []string{page}
	route.SpoolStatus = 204
	h := startSpooling(t, t.TempDir(), route)
	ask := func(origin string) *http.Response {
		return h.raw(t, "OPTIONS", "OPTIONS /logger/trace HTTP/1.1\r\nHost: h\r\nOrigin: "+origin+"\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type, x-a, b c\r\n\r\n", nil)
	}
	for range 2 { // the second one with the upstream known to be away
		resp := ask(page)
		got := []string{resp.Header.Get("Access-Control-Allow-Origin"), resp.Header.Get("Access-Control-Allow-Methods"), resp.Header.Get("Access-Control-Allow-Headers")}
		if resp.StatusCode != 204 || !slices.Equal(got, []string{page, "POST", "content-type, x-a"}) {
			t.Errorf("got %d %q", resp.StatusCode, got)
		}
		if resp := h.post(t, "/logger/trace", "x"); resp.StatusCode != 204 || text(t, resp) != "" {
			t.Errorf("the report behind it: %d, want the configured 204", resp.StatusCode)
		}
	}
	if resp := ask("https://evil.example.com"); resp.StatusCode != 403 || resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another origin: %d %v, want 403", resp.StatusCode, resp.Header)
	}
}

func TestAFullSpoolTellsTheClient(t *testing.T) {
	c := newCollector(t)
	c.stop()
	route := spoolRoute(c)
	route.Spool = 100 << 10
	dir := t.TempDir()
	h := startSpooling(t, dir, route)
	body := strings.Repeat("x", 30<<10)
	n := 0
	for ; n < 10; n++ {
		resp := h.post(t, "/logger/", body)
		if resp.StatusCode == 502 {
			if resp.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("the page can read the 502, and the SDK would take it for a delivery")
			}
			break
		}
	}
	if n != 3 {
		t.Errorf("%d reports of 30 KiB were kept in 100 KiB, want 3", n)
	}
	h.wantValues(t, "turngate_logger_spool_dropped_total", "reason=full route=/logger/ 1")
	var disk int64
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if info, _ := d.Info(); !d.IsDir() {
			disk += info.Size()
		}
		return err
	})
	if disk > 101<<10 {
		t.Errorf("%d bytes on the disk, want at most 100 KiB and the position", disk)
	}
	c.start()
	if got := c.bodies(3); len(got) != 3 {
		t.Errorf("%d reports came, want 3", len(got))
	}
	if resp := h.post(t, "/logger/", "live"); text(t, resp) != "collected" {
		t.Error("after the outage a report is not passed through")
	}
}

func TestReportsOutliveARestart(t *testing.T) {
	c := newCollector(t)
	c.stop()
	dir := t.TempDir()
	h := startSpooling(t, dir, spoolRoute(c))
	for i := range 4 {
		h.kept(t, fmt.Sprint(i))
	}
	h.end()
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		if strings.Contains(string(b), "hunter2") {
			t.Errorf("%s holds what only the client should have", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.start()
	h = startSpooling(t, dir, spoolRoute(c))
	c.bodies(4)
	h.wantValues(t, "turngate_logger_spool_reports", "route=/logger/ 0") // the answer has come as well
	h.end()
	h = startSpooling(t, dir, spoolRoute(c)) // and nothing is sent twice
	h.post(t, "/logger/", "last")
	if got := c.bodies(5); !slices.Equal(got, []string{"0", "1", "2", "3", "last"}) {
		t.Errorf("got %q", got)
	}
}

func TestReportsThatAreTooOldAreDropped(t *testing.T) {
	c := newCollector(t)
	c.stop()
	dir := t.TempDir()
	h := startSpooling(t, dir, spoolRoute(c))
	h.kept(t, "old")
	h.end()
	c.start()
	route := spoolRoute(c)
	route.SpoolAge = time.Nanosecond
	h = startSpooling(t, dir, route)
	h.wantValues(t, "turngate_logger_spool_dropped_total", "reason=age route=/logger/ 1")
	if got := c.bodies(0); len(got) > 0 {
		t.Errorf("got %q, want nothing", got)
	}
}

// A route that is changed goes on with what it has, also with its spool switched off; what
// belongs to a route that is gone stays on the disk and is named.
func TestAReloadKeepsWhatWaits(t *testing.T) {
	a, b := newCollector(t), newCollector(t)
	a.stop()
	dir := t.TempDir()
	h := startSpooling(t, dir, spoolRoute(a))
	h.kept(t, "1")
	h.kept(t, "2")
	elsewhere := spoolRoute(b)
	elsewhere.Path, elsewhere.Spool = "/logger", 0
	h.opt.Routes = []Route{elsewhere}
	if err := h.Reconfigure(h.opt); err != nil {
		t.Fatal(err)
	}
	if got := b.bodies(2); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("after the reload: got %q", got)
	}
	b.stop()
	if resp := h.post(t, "/logger/", "x"); resp.StatusCode != 502 {
		t.Errorf("with the spool off: %d, want 502", resp.StatusCode)
	}
	h.opt.Routes = []Route{spoolRoute(a)}
	if err := h.Reconfigure(h.opt); err != nil {
		t.Fatal(err)
	}
	h.kept(t, "3")
	other := spoolRoute(b)
	other.Path = "/other"
	h.opt.Routes = []Route{other}
	if err := h.Reconfigure(h.opt); err != nil {
		t.Fatal(err)
	}
	h.wantLog(t, "without a route", 1)
	h.end()
	h = startSpooling(t, dir, other)
	h.wantLog(t, "without a route", 1)
	a.start()
	h.opt.Routes = []Route{spoolRoute(a), other}
	if err := h.Reconfigure(h.opt); err != nil {
		t.Fatal(err)
	}
	if got := a.bodies(1); !slices.Equal(got, []string{"3"}) {
		t.Errorf("with the route back: got %q", got)
	}
}

// A group of upstreams that is away holds up neither the other group of its route nor another
// route.
func TestSpoolsAreIndependent(t *testing.T) {
	mainland, international, other := newCollector(t), newCollector(t), newCollector(t)
	mainland.stop()
	other.stop()
	trtc := Route{Path: "/logger/", Mainland: []string{"http://" + mainland.addr}, International: []string{"http://" + international.addr}, Spool: 1 << 20, Repeatable: true}
	second := spoolRoute(other)
	second.Path = "/a/b"
	h := startSpooling(t, t.TempDir(), trtc, second)
	post := func(path, body, want string) {
		t.Helper()
		if resp := h.post(t, path, body); text(t, resp) != want {
			t.Errorf("%s: answered by somebody else than %q", path, want)
		}
	}
	post("/logger/?sdkappid=1400000001", "m", "ok")
	post("/logger/?sdkappid=1300000001", "i1", "collected")
	international.stop()
	post("/logger/?sdkappid=1300000001", "i2", "ok")
	post("/a/b", "o", "ok")
	international.start()
	if got := international.bodies(2); !slices.Equal(got, []string{"i1", "i2"}) {
		t.Errorf("international: got %q", got)
	}
	h.wantValues(t, "turngate_logger_spool_reports", "route=/a/b 1", "route=/logger/ 1")
	mainland.start()
	mainland.bodies(1)
	other.start()
	other.bodies(1)
}

func TestABrokenSpoolFailsAsNone(t *testing.T) {
	c := newCollector(t)
	c.stop()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := startSpooling(t, filepath.Join(file, "below"), spoolRoute(c)) // no directory can be there
	for range 3 {
		if resp := h.post(t, "/logger/", "x"); resp.StatusCode != 502 || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("got %d %v, want 502 that no page can read", resp.StatusCode, resp.Header)
		}
	}
	c.start()
	if resp := h.post(t, "/logger/", "live"); text(t, resp) != "collected" {
		t.Error("a spool that cannot be opened keeps reports from an upstream that is there")
	}
	h.wantLog(t, "cannot be opened", 1)
}

func TestSpoolOptionsAreChecked(t *testing.T) {
	for name, opt := range map[string]Options{
		"no directory":     {Routes: []Route{{Path: "/a", Spool: 1}}},
		"a negative size":  {SpoolDir: "x", Routes: []Route{{Path: "/a", Spool: -1}}},
		"a status of 3xx":  {SpoolDir: "x", Routes: []Route{{Path: "/a", SpoolStatus: 302}}},
		"a status of 503":  {SpoolDir: "x", Routes: []Route{{Path: "/a", SpoolStatus: 503}}},
		"a negative age":   {SpoolDir: "x", Routes: []Route{{Path: "/a", SpoolAge: -1}}},
		"a status of zero": {SpoolDir: "x", Routes: []Route{{Path: "/a", SpoolStatus: -1}}},
	} {
		if _, err := New(opt); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// What is on the disk is read as it was written, and nothing else is taken for it.
func FuzzDecodeReport(f *testing.F) {
	f.Add([]byte("{}\nbody"))
	f.Add(newReport(http.Header{"Origin": {page}}, "/v5/x", "?a=b", []byte("x\ny")).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeReport(b)
		if err != nil {
			return
		}
		again, err := decodeReport(r.encode())
		if err != nil || string(again.body) != string(r.body) || !again.At.Equal(r.At) {
			t.Errorf("%q became %+v and then %+v, %v", b, r, again, err)
		}
	})
}
