package logger

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/internal/testnet"
)

type logBuffer struct{ testnet.LogBuffer }

type harness struct {
	*Server
	addr string
	logs *logBuffer
}

func serve(t testing.TB, routes ...Route) *harness {
	t.Helper()
	logs := &logBuffer{}
	s, err := New(Options{Routes: routes, Log: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(s)
	t.Cleanup(func() { front.Close(); s.Close() })
	return &harness{s, front.Listener.Addr().String(), logs}
}

// raw sends bytes and reads one answer.
func (h *harness) raw(t testing.TB, method, head string, body io.Reader) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, head); err != nil {
		t.Fatal(err)
	}
	if body != nil {
		go func() { _, _ = io.Copy(c, body) }()
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer to %q: %v", head, err)
	}
	return resp
}

func text(t testing.TB, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// seen is what an upstream got.
type seen struct {
	method, uri, host, body string
	header                  http.Header
}

func recorder(t testing.TB, answer http.HandlerFunc) (*testnet.Upstream, chan seen) {
	got := make(chan seen, 16)
	return testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- seen{r.Method, r.RequestURI, r.Host, string(b), r.Header}
		if answer != nil {
			answer(w, r)
			return
		}
		w.Header().Set("Access-Control-Allow-Origin", "https://app.example.com")
		_, _ = io.WriteString(w, "ok")
	})), got
}

func to(u *testnet.Upstream) Route {
	return Route{Path: "/logger/", Upstreams: []string{"http://" + u.Addr}}
}

func TestKeepCORSLeavesWhatAnUpstreamSaysOfItsErrors(t *testing.T) {
	u, _ := recorder(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	for keep, want := range map[bool]string{true: "*", false: ""} {
		route := to(u)
		route.KeepCORS = keep
		resp := serve(t, route).raw(t, "GET", "GET /logger/ HTTP/1.1\r\nHost: h\r\n\r\n", nil)
		if got := resp.Header.Get("Access-Control-Allow-Origin"); got != want || resp.StatusCode != 503 {
			t.Errorf("KeepCORS %v: %d with %q, want 503 with %q", keep, resp.StatusCode, got, want)
		}
	}
}

func TestReportReachesTheUpstream(t *testing.T) {
	u, got := recorder(t, nil)
	h := serve(t, to(u))
	const query = "?random=1&sdkappid=1400000001&cmdtype=jssdk_log&x=*%2A+"
	for _, tt := range []struct{ target, want string }{
		{"/logger//v5/AVQualityReportSvc/C2S" + query, "/v5/AVQualityReportSvc/C2S" + query},
		{"/logger/v5/AVQualityReportSvc/C2S" + query, "/v5/AVQualityReportSvc/C2S" + query},
		{"/logger", "/"},
		{"/logger/", "/"},
		{"/logger?", "/?"},
		{"/logger/a%20b//c;d=1?", "/a%20b//c;d=1?"},
	} {
		body := `{"log":"x"}`
		resp := h.raw(t, "POST", "POST "+tt.target+" HTTP/1.1\r\nHost: proxy.example.com\r\nOrigin: https://app.example.com\r\nContent-Type: text/plain;charset=UTF-8\r\n"+
			"Cookie: sso=1\r\nAuthorization: x\r\nX-Forwarded-For: 6.6.6.6\r\nContent_Length: 5\r\nContent-Length: "+fmt.Sprint(len(body))+"\r\n\r\n"+body, nil)
		if resp.StatusCode != 200 || text(t, resp) != "ok" || len(resp.Header["Access-Control-Allow-Origin"]) != 1 {
			t.Errorf("%s: answer %d %v", tt.target, resp.StatusCode, resp.Header)
		}
		s := <-got
		if s.uri != tt.want || s.host != u.Addr || s.body != body || s.method != "POST" {
			t.Errorf("%s: upstream got %+v, want target %s", tt.target, s, tt.want)
		}
		for name, want := range map[string]string{"Cookie": "", "Authorization": "", "Content_Length": "", "X-Forwarded-For": "127.0.0.1", "Origin": "https://app.example.com", "Content-Type": "text/plain;charset=UTF-8", "Accept-Encoding": ""} {
			if v := strings.Join(s.header[name], "|"); v != want {
				t.Errorf("%s: upstream got %s: %q, want %q", tt.target, name, v, want)
			}
		}
	}
	if n := u.Conns.Load(); n != 1 {
		t.Errorf("%d connections for six reports, want 1 kept", n)
	}
	if logs := h.logs.String(); strings.Contains(logs, "random=1") || strings.Contains(logs, "level=INFO") {
		t.Errorf("log shows queries or a line for each request:\n%s", logs)
	}
}

func TestRefusals(t *testing.T) {
	u, _ := recorder(t, nil)
	listed := to(u)
	listed.Path, listed.SDKAppIDs, listed.Origins = "/listed", []uint64{1400000001}, []string{"https://app.example.com"}
	h := serve(t, to(u), listed)
	for _, tt := range []struct {
		name, head string
		status     int
	}{
		{"TRACE", "TRACE /logger/ HTTP/1.1\r\nHost: h\r\n\r\n", 405},
		{"an unknown method", "XYZZY /logger/ HTTP/1.1\r\nHost: h\r\n\r\n", 405},
		{"PUT", "PUT /logger/ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 405},
		{"CONNECT", "CONNECT inside.example.com:443 HTTP/1.1\r\nHost: inside.example.com:443\r\n\r\n", 400},
		{"a WebSocket", "GET /logger/ HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400},
		{"h2c", "GET /logger/ HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n", 400},
		{"a dot segment", "GET /logger/%2e%2e/x HTTP/1.1\r\nHost: h\r\n\r\n", 400},
		{"a neighbour path", "GET /loggerx HTTP/1.1\r\nHost: h\r\n\r\n", 404},
		{"an announced body that is too big", "POST /logger/ HTTP/1.1\r\nHost: h\r\nContent-Length: 52428800\r\n\r\n", 413},
		{"a foreign application", "POST /listed?sdkappid=5 HTTP/1.1\r\nHost: h\r\nOrigin: https://app.example.com\r\nContent-Length: 0\r\n\r\n", 403},
		{"two applications", "POST /listed?sdkappid=1400000001&sdkAppId=5 HTTP/1.1\r\nHost: h\r\nOrigin: https://app.example.com\r\nContent-Length: 0\r\n\r\n", 403},
		{"a foreign Origin", "POST /listed?sdkappid=1400000001 HTTP/1.1\r\nHost: h\r\nOrigin: https://evil.test\r\nContent-Length: 0\r\n\r\n", 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			method, _, _ := strings.Cut(tt.head, " ")
			resp := h.raw(t, method, tt.head, nil)
			if resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
			}
			if v := resp.Header["Access-Control-Allow-Origin"]; v != nil {
				t.Errorf("an error of ours is readable: %q", v)
			}
		})
	}
	if n := u.Requests.Load(); n != 0 {
		t.Errorf("%d requests reached the upstream, want 0", n)
	}
	ok := h.raw(t, "POST", "POST /listed?sdkappid=1400000001 HTTP/1.1\r\nHost: h\r\nOrigin: https://app.example.com\r\nContent-Length: 0\r\n\r\n", nil)
	if ok.StatusCode != 200 {
		t.Errorf("a listed client got %d", ok.StatusCode)
	}
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		status int
		acao   string
	}{
		{"an upstream's 503 loses its CORS header", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.WriteHeader(503)
		}, 503, ""},
		{"an upstream's 403 keeps it", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.WriteHeader(403)
		}, 403, "*"},
		{"two values become one", func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Access-Control-Allow-Origin"] = []string{"https://a.example", "*"}
		}, 200, "https://a.example"},
		{"a redirect is passed, not followed", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, 302, ""},
		{"a 101 is no answer here", func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			c.Close()
		}, 502, ""},
		{"a reset is 502", func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := http.NewResponseController(w).Hijack()
			_ = c.(interface{ SetLinger(int) error }).SetLinger(0)
			c.Close()
		}, 502, ""},
		{"bytes that are no HTTP are 502", func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH\r\n")
			c.Close()
		}, 502, ""},
		{"a split header is 502", func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: a\r\n b\x00c\r\nContent-Length: 0\r\n\r\n")
			c.Close()
		}, 502, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, _ := recorder(t, tt.answer)
			h := serve(t, to(u))
			resp := h.raw(t, "POST", "POST /logger/ HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", nil)
			if resp.StatusCode != tt.status || strings.Join(resp.Header["Access-Control-Allow-Origin"], "|") != tt.acao {
				t.Errorf("answer %d with Access-Control-Allow-Origin %q, want %d with %q", resp.StatusCode, resp.Header["Access-Control-Allow-Origin"], tt.status, tt.acao)
			}
		})
	}
}

func TestPreflightAndHeadPass(t *testing.T) {
	u, got := recorder(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
		w.Header().Set("Content-Length", "0")
		if r.Method == "HEAD" {
			w.Header().Set("Content-Length", "77")
		}
	})
	h := serve(t, to(u))
	resp := h.raw(t, "OPTIONS", "OPTIONS /logger/x HTTP/1.1\r\nHost: h\r\nOrigin: https://a\r\nAccess-Control-Request-Headers: content-type\r\n\r\n", nil)
	if resp.StatusCode != 200 || resp.Header.Get("Access-Control-Allow-Headers") != "content-type" || (<-got).method != "OPTIONS" {
		t.Errorf("OPTIONS: %d %v", resp.StatusCode, resp.Header)
	}
	resp = h.raw(t, "HEAD", "HEAD /logger/x HTTP/1.1\r\nHost: h\r\n\r\n", nil)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Length") != "77" || (<-got).method != "HEAD" {
		t.Errorf("HEAD: %d %v", resp.StatusCode, resp.Header)
	}
}

func TestBodies(t *testing.T) {
	u, got := recorder(t, nil)
	rt := to(u)
	rt.MaxBody = 1 << 20
	h := serve(t, rt)
	big := strings.Repeat("0123456789abcdef", 1<<16)
	chunked := func(s string) io.Reader {
		var b bytes.Buffer
		for i := 0; i < len(s); i += 1000 {
			part := s[i:min(i+1000, len(s))]
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(part), part)
		}
		b.WriteString("0\r\n\r\n")
		return &b
	}
	for _, size := range []int{1, smallBody, smallBody + 1, 1 << 20} {
		resp := h.raw(t, "POST", fmt.Sprintf("POST /logger/ HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size), strings.NewReader(big[:size]))
		if s := <-got; resp.StatusCode != 200 || s.body != big[:size] {
			t.Errorf("a body of %d: answer %d, upstream got %d bytes", size, resp.StatusCode, len(s.body))
		}
		resp = h.raw(t, "POST", "POST /logger/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(big[:size]))
		if s := <-got; resp.StatusCode != 200 || s.body != big[:size] {
			t.Errorf("a chunked body of %d: answer %d, upstream got %d bytes", size, resp.StatusCode, len(s.body))
		}
	}
	resp := h.raw(t, "POST", "POST /logger/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(big+"x"))
	if resp.StatusCode != 413 {
		t.Errorf("a chunked body over the limit: answer %d, want 413", resp.StatusCode)
	}
}

func TestBodyThatStallsIsCut(t *testing.T) {
	u, _ := recorder(t, nil)
	rt := to(u)
	rt.ReadTimeout = 50 * time.Millisecond
	h := serve(t, rt)
	for _, head := range []string{"Content-Length: 100", "Transfer-Encoding: chunked", "Content-Length: 1000000"} {
		resp := h.raw(t, "POST", "POST /logger/ HTTP/1.1\r\nHost: h\r\n"+head+"\r\n\r\n", strings.NewReader("5\r\nhello\r\n"))
		if resp.StatusCode != 408 {
			t.Errorf("%s: answer %d, want 408", head, resp.StatusCode)
		}
	}
}

// A body at one byte a second keeps every pause short and is cut by the rate.
func TestUploadHoldsTheRate(t *testing.T) {
	began := time.Now().Add(-firstAllowance - time.Second)
	var deadline time.Time
	u := &upload{body: strings.NewReader("x"), setRead: func(d time.Time) error { deadline = d; return nil }, max: 100, pause: time.Hour, began: began}
	b := make([]byte, 1)
	_, _ = u.Read(b)
	if want := began.Add(firstAllowance); !deadline.Equal(want) {
		t.Errorf("deadline %v, want %v", deadline, want)
	}
	u = &upload{body: strings.NewReader("x"), setRead: func(d time.Time) error { deadline = d; return nil }, max: 1 << 30, pause: time.Hour, began: began, received: 10 * minRate}
	_, _ = u.Read(b)
	if want := began.Add(firstAllowance + 10*time.Second); !deadline.Equal(want) {
		t.Errorf("deadline %v after ten seconds' worth, want %v", deadline, want)
	}
}

func TestSilentUpstreamIs504(t *testing.T) {
	release := make(chan struct{})
	u, _ := recorder(t, func(w http.ResponseWriter, r *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	rt := to(u)
	rt.Wait, rt.ReadTimeout = 4*time.Second, 3*time.Second // the wait outlasts the body's deadline
	h := serve(t, rt)
	for name, body := range map[string]string{"a small body": "hi", "a streamed body": strings.Repeat("x", smallBody+1)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp := h.raw(t, "POST", fmt.Sprintf("POST /logger/ HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", len(body)), strings.NewReader(body))
			if resp.StatusCode != 504 || resp.Header["Access-Control-Allow-Origin"] != nil {
				t.Errorf("answer %d %v, want 504 without CORS", resp.StatusCode, resp.Header)
			}
		})
	}
}

func TestFailover(t *testing.T) {
	closed := "http://" + testnet.ClosedAddress(t)
	hangup := testnet.RawUpstream(t, nil, func(c net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(c)) })
	u, got := recorder(t, nil)
	post := func(h *harness, n int) int {
		return h.raw(t, "POST", fmt.Sprintf("POST /logger/ HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", n), strings.NewReader(strings.Repeat("x", n))).StatusCode
	}
	t.Run("a streamed body goes on when none of it was sent", func(t *testing.T) {
		h := serve(t, Route{Path: "/logger", Upstreams: []string{closed, "http://" + u.Addr}})
		if code := post(h, smallBody+1); code != 200 || len((<-got).body) != smallBody+1 {
			t.Errorf("answer %d", code)
		}
		if logs := h.logs.String(); !strings.Contains(logs, "cause=refused") {
			t.Errorf("no cause in\n%s", logs)
		}
	})
	t.Run("a report that may be repeated is sent again", func(t *testing.T) {
		h := serve(t, Route{Path: "/logger", Upstreams: []string{"http://" + hangup.Addr, "http://" + u.Addr}, Repeatable: true})
		if code := post(h, 10); code != 200 || len((<-got).body) != 10 {
			t.Errorf("answer %d", code)
		}
	})
	t.Run("another POST is not", func(t *testing.T) {
		h := serve(t, Route{Path: "/logger", Upstreams: []string{"http://" + hangup.Addr, "http://" + u.Addr}})
		if code := post(h, 10); code != 502 {
			t.Errorf("answer %d, want 502", code)
		}
	})
}

func TestKeptConnectionThatDiedIsReplaced(t *testing.T) {
	u, got := recorder(t, nil)
	rt := to(u)
	rt.Repeatable = true
	h := serve(t, rt)
	for range 20 {
		resp := h.raw(t, "POST", "POST /logger/ HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", nil)
		if resp.StatusCode != 200 {
			t.Fatalf("answer %d", resp.StatusCode)
		}
		<-got
		u.CloseConnections() // the upstream drops what it kept
	}
}

func TestUpstreamByApplication(t *testing.T) {
	ca := testnet.NewCA(t, "Root")
	var last atomic.Value
	u := testnet.NewUpstream(t, ca.Issue(t, "yun.tim.qq.com", "apisgp.my-imcloud.com"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last.Store(r.Host + " " + r.Proto + " " + r.RequestURI)
	}))
	d, err := proxy.NewDialer(proxy.DialOptions{CAFile: ca.File(t), Resolve: map[string]string{"yun.tim.qq.com": u.Addr, "apisgp.my-imcloud.com": u.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	h := serve(t, Route{Path: "/logger", Dialer: d})
	for _, tt := range []struct{ query, host string }{
		{"?sdkappid=1400000000", "yun.tim.qq.com"},
		{"?sdkappid=1399999999", "apisgp.my-imcloud.com"},
		{"", "yun.tim.qq.com"},
		{"?sdkappid=x", "yun.tim.qq.com"},
	} {
		resp := h.raw(t, "POST", "POST /logger//v5/x"+tt.query+" HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", nil)
		if want := tt.host + " HTTP/2.0 /v5/x" + tt.query; resp.StatusCode != 200 || last.Load() != want {
			t.Errorf("%s: answer %d, upstream saw %q, want %q", tt.query, resp.StatusCode, last.Load(), want)
		}
	}
}

func TestUpstreamTLSIsVerified(t *testing.T) {
	ca, other := testnet.NewCA(t, "Root"), testnet.NewCA(t, "Corp Inspection CA")
	u := testnet.NewUpstream(t, other.Issue(t, "yun.tim.qq.com"), http.NotFoundHandler())
	d, err := proxy.NewDialer(proxy.DialOptions{CAFile: ca.File(t), Resolve: map[string]string{"yun.tim.qq.com": u.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	h := serve(t, Route{Path: "/logger", Dialer: d})
	resp := h.raw(t, "POST", "POST /logger/ HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", nil)
	if resp.StatusCode != 502 || u.Requests.Load() != 0 {
		t.Errorf("answer %d, %d requests upstream, want 502 and none", resp.StatusCode, u.Requests.Load())
	}
	if logs := h.logs.String(); !strings.Contains(logs, "Corp Inspection CA") {
		t.Errorf("the log does not name the issuer:\n%s", logs)
	}
}

func TestReconfigureAndCollectors(t *testing.T) {
	u, _ := recorder(t, nil)
	h := serve(t, to(u))
	if err := h.Reconfigure(Options{Routes: []Route{{Path: "/a"}, {Path: "/a"}, {Path: "/b", Origins: []string{"x"}}, {Path: "/c", MaxBody: -1}}}); err == nil || strings.Count(err.Error(), "logger route") != 3 {
		t.Errorf("a bad configuration gives %v, want three findings", err)
	}
	reg := prometheus.NewPedanticRegistry()
	for _, c := range h.Collectors() {
		reg.MustRegister(c)
	}
	if resp := h.raw(t, "GET", "GET /logger/ HTTP/1.1\r\nHost: h\r\n\r\n", nil); resp.StatusCode != 200 {
		t.Errorf("after a bad Reconfigure: %d", resp.StatusCode)
	}
	fs, err := reg.Gather()
	if err != nil || len(fs) == 0 {
		t.Errorf("gathered %d families, %v", len(fs), err)
	}
}

func BenchmarkReport(b *testing.B) {
	u := testnet.PlainUpstream(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ok")
	}))
	h := serve(b, to(u))
	body := strings.Repeat("x", 2000)
	b.ReportAllocs()
	defer func() { b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "posts/s") }()
	for b.Loop() {
		resp, err := http.Post("http://"+h.addr+"/logger//v5/x", "text/plain", strings.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}
