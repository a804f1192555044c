package signaling

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/signaling/entry"
)

// cloudAnswer has the shape the SDKs read; the numbers would not survive a float64.
const cloudAnswer = `{"code":0, "msg":"ok","data":{"domains":["main.rtc.qq.com","backup.rtc.qq.com/x"],"iceServers":[{"urls":"turn:cloud"}],"iceTransportPolicy":"all","trtcAutoConf":{"2k4k":2,"big":12345678901234567890},"config":{"loggerDomain":"https://yun.tim.qq.com","retryCount":1e2,"a":"<&>"}},"seq":9007199254740993}`

func formBody(fields ...string) (body, contentType string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i+1 < len(fields); i += 2 {
		_ = w.WriteField(fields[i], fields[i+1])
	}
	w.Close()
	return b.String(), w.FormDataContentType()
}

// cloud is a fake of the vendor's hosts, all at one address.
type cloud struct {
	*testnet.Upstream
	dialer *proxy.Dialer
	got    chan string // "host method uri" of each request
	bodies chan string
}

func newCloud(t *testing.T, answer http.HandlerFunc, hosts ...string) *cloud {
	ca := testnet.NewCA(t, "Root")
	c := &cloud{got: make(chan string, 64), bodies: make(chan string, 64)}
	hosts = append(hosts, "schedule.cloud-rtc.com", "schedule.cloud-rtc.net", "schedule.rtc.qcloud.com", "schedule.rtc-web.com", "main.rtc.qq.com", "backup.rtc.qq.com", "default.rtc.qq.com", "other.example.com")
	c.Upstream = testnet.NewUpstream(t, ca.Issue(t, hosts...), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		c.got <- r.Host + " " + r.Method + " " + r.RequestURI
		c.bodies <- string(b)
		if key := r.Header.Get("Sec-WebSocket-Key"); key != "" {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, switching(key))
			t.Cleanup(func() { conn.Close() })
			return
		}
		answer(w, r)
	}))
	resolve := map[string]string{}
	for _, h := range hosts {
		resolve[h] = c.Addr
	}
	c.dialer = mustDialer(t, proxy.DialOptions{CAFile: ca.File(t), Resolve: resolve, Lookup: noDNS})
	return c
}

func (c *cloud) schedule() *Schedule {
	return &Schedule{
		Path: "/schedule/", Unified: "/u/", LoggerPath: "/logger/", Policy: "relay",
		SignalDomains: []string{"*.rtc.qq.com"},
		Route:         Route{Route: entry.Route{Dialer: c.dialer, Upstreams: []string{"https://default.rtc.qq.com"}}},
		Credentials: func(user string) ([]ICEServer, error) {
			return []ICEServer{{URLs: []string{"turn:proxy.example.com:3478", "turns:proxy.example.com:443?transport=tcp"}, Username: "1700000000:" + user, Credential: "c/+="}}, nil
		},
	}
}

func cors(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}
}

func (h *harness) post(t *testing.T, target string, fields ...string) (*http.Response, string) {
	t.Helper()
	body, ct := formBody(fields...)
	resp := h.get(t, "POST", target, body, http.Header{"Content-Type": {ct}, "Origin": {"https://app.example.com"}, "Cookie": {"sso=1"}})
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

const ourICE = `"iceServers":[{"urls":"turn:proxy.example.com:3478","username":"1700000000:al_ice","credential":"c/+="},{"urls":"turns:proxy.example.com:443?transport=tcp","username":"1700000000:al_ice","credential":"c/+="}],"iceTransportPolicy":"relay","trtcAutoConf":{"2k4k":2,"big":12345678901234567890}`

func TestScheduleKeepsEverythingInside(t *testing.T) {
	c := newCloud(t, cors(cloudAnswer))
	h := serve(t, Options{Schedule: c.schedule()})
	for _, tt := range []struct{ target, want string }{
		{"/schedule/api/v1/config", `{"code":0,"msg":"ok","data":{"domains":["proxy.example.com/schedule/main.rtc.qq.com","proxy.example.com/schedule/backup.rtc.qq.com/x"],` + ourICE + `,"config":{"loggerDomain":"https://proxy.example.com/logger","retryCount":1e2,"a":"<&>"}},"seq":9007199254740993}`},
		{"/u/api/v1/config", `{"code":0,"msg":"ok","data":{"domains":["main.rtc.qq.com","backup.rtc.qq.com/x"],` + ourICE + `,"config":{"loggerDomain":"https://proxy.example.com/u","retryCount":1e2,"a":"<&>"}},"seq":9007199254740993}`},
	} {
		for _, slash := range []string{"", "/"} {
			target := strings.Replace(tt.target, "/api", slash+"/api", 1)
			resp, body := h.post(t, target, "userId", "al:ice", "sdkAppId", "1400000001", "userSig", "secret")
			if resp.StatusCode != 200 || resp.Header.Get("Access-Control-Allow-Origin") != "*" || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %d %v", target, resp.StatusCode, resp.Header)
			}
			if diff := cmp.Diff(tt.want, body); diff != "" {
				t.Errorf("%s: answer (-want +got):\n%s", target, diff)
			}
			if got := <-c.got; got != "schedule.cloud-rtc.com POST /api/v1/config" {
				t.Errorf("%s: upstream got %q", target, got)
			}
			if b := <-c.bodies; !strings.Contains(b, "secret") || !strings.Contains(b, `name="sdkAppId"`) {
				t.Errorf("%s: upstream got body %q", target, b)
			}
		}
	}
	if logs := h.logs.String(); strings.Contains(logs, "secret") || strings.Contains(logs, "c/+=") {
		t.Errorf("the log shows a credential:\n%s", logs)
	}
}

func TestSchedulePicksAndFailsOver(t *testing.T) {
	c := newCloud(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "schedule.cloud-rtc.com" {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.WriteHeader(503)
			return
		}
		cors(cloudAnswer)(w, r)
	})
	h := serve(t, Options{Schedule: c.schedule()})
	if resp, _ := h.post(t, "/schedule/api/v1/config", "sdkAppId", "1400000001"); resp.StatusCode != 200 {
		t.Errorf("with a backup: %d", resp.StatusCode)
	}
	if a, b := <-c.got, <-c.got; !strings.HasPrefix(a, "schedule.cloud-rtc.com ") || !strings.HasPrefix(b, "schedule.cloud-rtc.net ") {
		t.Errorf("asked %q, then %q", a, b)
	}
	if resp, _ := h.post(t, "/schedule/api/v1/config", "sdkAppId", "37"); resp.StatusCode != 200 {
		t.Errorf("international: %d", resp.StatusCode)
	}
	if a := <-c.got; !strings.HasPrefix(a, "schedule.rtc-web.com ") {
		t.Errorf("an international application asked %q", a)
	}
	only := c.schedule()
	only.Upstreams = []string{"https://schedule.cloud-rtc.com"}
	if err := h.Reconfigure(Options{Schedule: only}); err != nil {
		t.Fatal(err)
	}
	resp, _ := h.post(t, "/schedule/api/v1/config", "sdkAppId", "37")
	if resp.StatusCode != 503 || resp.Header["Access-Control-Allow-Origin"] != nil {
		t.Errorf("all failing: %d %v, want the 503 without CORS", resp.StatusCode, resp.Header)
	}
}

func TestScheduleAnswersThatAreNotRewritten(t *testing.T) {
	gz := func(s string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = io.WriteString(z, s)
		z.Close()
		return b.String()
	}
	for _, tt := range []struct {
		name, target, encoding, answer string
		want                           string // "" for the same
	}{
		{name: "an error code", answer: `{"code":89333,"msg":"no","data":{"domains":["a"]}}`},
		{name: "no JSON", answer: `<html>`},
		{name: "two values", answer: cloudAnswer + `{}`},
		{name: "data that is no object", answer: `{"code":0,"data":[1]}`},
		{name: "gzip that was not asked for is read", encoding: "gzip", answer: gz(`{"code":0,"data":{}}`), want: `{"code":0,"data":{"config":{"loggerDomain":"https://proxy.example.com/u"},"iceServers":[{"urls":"turn:proxy.example.com:3478","username":"1700000000:","credential":"c/+="},{"urls":"turns:proxy.example.com:443?transport=tcp","username":"1700000000:","credential":"c/+="}],"iceTransportPolicy":"relay"}}`},
		{name: "an encoding we do not know", encoding: "br", answer: `{"code":0,"data":{}}`},
		{name: "another endpoint receives no members", target: "/u/api/v1/audioAiAuth?sdkAppId=1400000001&userSig=x", answer: `{"code":0,"data":{"errCode":0,"sign":"s"}}`},
		{name: "the cloud configuration keeps logs inside", target: "/u/api/v1/cloudconfig", answer: `{"code":0,"data":{"config":{"loggerDomain":"x"}}}`, want: `{"code":0,"data":{"config":{"loggerDomain":"https://proxy.example.com/u"}}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCloud(t, func(w http.ResponseWriter, r *http.Request) {
				if tt.encoding != "" {
					w.Header().Set("Content-Encoding", tt.encoding)
				}
				if ae := r.Header.Get("Accept-Encoding"); ae != "identity" {
					t.Errorf("Accept-Encoding %q", ae)
				}
				_, _ = io.WriteString(w, tt.answer)
			})
			h := serve(t, Options{Schedule: c.schedule()})
			target := tt.target
			if target == "" {
				target = "/u/api/v1/config"
			}
			want := tt.want
			if want == "" {
				want = tt.answer
			}
			if resp, body := h.post(t, target, "sdkAppId", "1400000001"); body != want {
				t.Errorf("answer %d %q, want %q", resp.StatusCode, body, want)
			}
		})
	}
}

func TestScheduleRefusals(t *testing.T) {
	c := newCloud(t, cors(cloudAnswer))
	sc := c.schedule()
	sc.Route.SDKAppIDs = []uint64{1400000001}
	sc.Route.Origins = []string{"https://app.example.com"}
	h := serve(t, Options{Schedule: sc})
	check := func(name string, resp *http.Response, want int) {
		t.Helper()
		if resp.StatusCode != want || resp.Header["Access-Control-Allow-Origin"] != nil {
			t.Errorf("%s: %d %v, want %d without CORS", name, resp.StatusCode, resp.Header, want)
		}
	}
	resp, _ := h.post(t, "/schedule/api/v1/config", "sdkAppId", "1400000002")
	check("a foreign application", resp, 403)
	resp, _ = h.post(t, "/schedule/api/v1/config", "sdkAppId", "1400000001", "SDKAPPID", "1400000002")
	check("two applications", resp, 403)
	resp, _ = h.post(t, "/schedule/api/v1/config?sdkAppId=1400000002", "sdkAppId", "1400000001")
	check("another application in the query", resp, 403)
	resp, _ = h.post(t, "/schedule/api/v1/config", "userId", "x")
	check("no application", resp, 403)
	check("a body that is too big", h.get(t, "POST", "/schedule/api/v1/config", strings.Repeat("x", maxScheduleRequest+1), nil), 403) // the Origin is looked at first
	origin := http.Header{"Origin": {"https://app.example.com"}}
	check("a body that is too big", h.get(t, "POST", "/schedule/api/v1/config", strings.Repeat("x", maxScheduleRequest+1), origin), 413)
	check("a foreign Origin", h.get(t, "POST", "/schedule/api/v1/config", "", http.Header{"Origin": {"https://evil.test"}}), 403)
	check("a method", h.get(t, "DELETE", "/schedule/api/v1/config", "", origin), 405)
	check("an unknown path", h.get(t, "GET", "/schedule/other", "", origin), 404)
	check("logs outside the one-parameter mode", h.get(t, "POST", "/schedule/v5/x", "", origin), 404)
	broken := origin.Clone()
	broken.Set("Content-Type", "multipart/form-data; boundary=x")
	check("a broken form", h.get(t, "POST", "/schedule/api/v1/config", "--x\r\nnonsense", broken), 400)
	asJSON := origin.Clone()
	asJSON.Set("Content-Type", "application/json; charset=utf-8")
	for _, body := range []string{`{"sdkAppId":1400000002}`, `{"a":{},"sdkappid":"1400000002"}`, `{"sdkAppId":1400000001,"sdkAppId":1400000002}`, `{"sdkAppId":"14000\u003000001"}`} {
		check("another application in "+body, h.get(t, "POST", "/schedule/api/v1/config?sdkAppId=1400000001", body, asJSON), 403)
	}
	for name, kinds := range map[string][]string{
		"a form with two boundaries":  {"multipart/form-data; boundary=x; boundary=y"},
		"a form of no good type":      {"multipart/form-data; boundary=x;;; ="},
		"two types":                   {"text/plain", "multipart/form-data; boundary=x"},
		"an empty type beside a form": {"", "multipart/form-data; boundary=x"},
	} {
		vague := origin.Clone()
		vague["Content-Type"] = kinds
		foreign := "--x\r\nContent-Disposition: form-data; name=\"sdkAppId\"\r\n\r\n1400000002\r\n--x--\r\n"
		check(name, h.get(t, "POST", "/schedule/api/v1/config?sdkAppId=1400000001", foreign, vague), 400)
	}
	if n := c.Requests.Load(); n != 0 {
		t.Errorf("%d requests reached the cloud, want 0", n)
	}
	if resp, _ := h.post(t, "/schedule/api/v1/config", "sdkAppId", "1400000001"); resp.StatusCode != 200 {
		t.Errorf("a listed application: %d", resp.StatusCode)
	}
}

func TestScheduleUnreachableAndCredentialError(t *testing.T) {
	c := newCloud(t, cors(cloudAnswer))
	sc := c.schedule()
	sc.Upstreams = []string{"http://" + testnet.ClosedAddress(t)}
	h := serve(t, Options{Schedule: sc})
	resp, _ := h.post(t, "/u/api/v1/config", "sdkAppId", "1400000001")
	if resp.StatusCode != 502 || resp.Header["Access-Control-Allow-Origin"] != nil {
		t.Errorf("%d %v, want 502 without CORS", resp.StatusCode, resp.Header)
	}
	sc = c.schedule()
	sc.Credentials = func(string) ([]ICEServer, error) { return []ICEServer{{}}, errors.New("no secret") }
	if err := h.Reconfigure(Options{Schedule: sc}); err != nil {
		t.Fatal(err)
	}
	if _, body := h.post(t, "/u/api/v1/config", "sdkAppId", "1400000001"); !strings.Contains(body, `"turn:cloud"`) {
		t.Errorf("without a credential the cloud's ICE servers must stay: %s", body)
	}
}

func TestSignalDomains(t *testing.T) {
	c := newCloud(t, cors(cloudAnswer))
	h := serve(t, Options{Schedule: c.schedule()})
	const rest = "sdkAppId=1400000001&userSig=eJw*_-"
	for _, tt := range []struct{ target, want string }{
		{"/u/v2/ws?" + rest + "&signalDomain=main.rtc.qq.com&race=1", "main.rtc.qq.com GET /v2/ws?" + rest + "&signalDomain=main.rtc.qq.com&race=1"},
		{"/u//v2/ws?" + rest + "&signalDomain=main.rtc.qq.com%3A443", "main.rtc.qq.com GET /v2/ws?" + rest + "&signalDomain=main.rtc.qq.com%3A443"},
		{"/u?" + rest + "&signalDomain=MAIN.rtc.qq.com", "main.rtc.qq.com GET /?" + rest + "&signalDomain=MAIN.rtc.qq.com"},
		{"/u/v2/ws?" + rest, "default.rtc.qq.com GET /v2/ws?" + rest},
		{"/schedule/main.rtc.qq.com/v2/ws?" + rest + "&race=1", "main.rtc.qq.com GET /v2/ws?" + rest + "&race=1"},
		{"/schedule/main.rtc.qq.com?" + rest, "main.rtc.qq.com GET /?" + rest},
		{"/schedule/backup.rtc.qq.com/x/v2/ws?" + rest, "backup.rtc.qq.com GET /x/v2/ws?" + rest},
	} {
		w := h.upgrade(t, tt.target)
		if got := <-c.got; got != tt.want {
			t.Errorf("%s: upstream got %q, want %q", tt.target, got, tt.want)
		}
		w.Close()
	}
	n := c.Conns.Load()
	for _, target := range []string{
		"/u/v2/ws?signalDomain=other.example.com", "/u/v2/ws?signalDomain=rtc.qq.com", "/u/v2/ws?signalDomain=127.0.0.1", "/u/v2/ws?signalDomain=main.rtc.qq.com:80",
		"/u/v2/ws?signalDomain=x%40main.rtc.qq.com", "/u/v2/ws?signalDomain=main.rtc.qq.com%2F..", "/u/v2/ws?signalDomain=main.rtc.qq.com&signalDomain=main.rtc.qq.com",
		"/u/v2/ws?signalDomain=", "/u/v2/ws?%73ignalDomain=other.example.com", "/u/v2/ws?signalDomain=main.rtc.qq.com.", "/u/v2/ws?signalDomain=wss://main.rtc.qq.com",
		"/schedule/other.example.com/v2/ws", "/schedule/127.0.0.1/v2/ws", "/u/other.example.com/v2/ws", "/schedule/main.rtc.qq.com:80/v2/ws",
	} {
		w := h.dial(t)
		w.send(request(target, ""))
		if head := w.head(); !strings.HasPrefix(head, "HTTP/1.1 403 ") {
			t.Errorf("%s: %q, want 403", target, head)
		}
	}
	if c.Conns.Load() != n {
		t.Error("a refused domain was dialled")
	}
	if resp := h.get(t, "GET", "/u/v2/ws?signalDomain=main.rtc.qq.com", "", nil); resp.StatusCode != 426 {
		t.Errorf("a plain GET: %d, want 426", resp.StatusCode)
	}
	w := h.dial(t)
	w.send(request("/schedule/v2/ws", ""))
	if head := w.head(); !strings.HasPrefix(head, "HTTP/1.1 404 ") {
		t.Errorf("schedule mode without a domain: %q, want 404", head)
	}
}

func TestQuickStart(t *testing.T) {
	c := newCloud(t, cors(`{"code":0,"data":{"relayOuterIp":"1.2.3.4"}}`))
	h := serve(t, Options{Schedule: c.schedule()})
	for _, tt := range []struct{ target, want string }{
		{"/schedule/main.rtc.qq.com/v4/sub?sdkAppId=1", "main.rtc.qq.com POST /v4/sub?sdkAppId=1"},
		{"/u/main.rtc.qq.com/v4/sub?sdkAppId=1", "main.rtc.qq.com POST /v4/sub?sdkAppId=1"},
		{"/u/v4/sub?sdkAppId=1", "default.rtc.qq.com POST /v4/sub?sdkAppId=1"},
	} {
		resp := h.get(t, "POST", tt.target, `{"sdp":1}`, nil)
		if got := <-c.got; resp.StatusCode != 200 || got != tt.want || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d, upstream got %q, want %q", tt.target, resp.StatusCode, got, tt.want)
		}
		if b := <-c.bodies; b != `{"sdp":1}` {
			t.Errorf("upstream got body %q", b)
		}
	}
	if resp := h.get(t, "POST", "/schedule/other.example.com/v4/sub", "", nil); resp.StatusCode != 403 {
		t.Errorf("a foreign domain: %d, want 403", resp.StatusCode)
	}
}

func TestHintsServeClientsThatNameNoDomain(t *testing.T) {
	c := newCloud(t, cors(strings.Replace(cloudAnswer, `"main.`, `"evil.example.com","main.`, 1)))
	h := serve(t, Options{Schedule: c.schedule()})
	h.post(t, "/u/api/v1/config", "sdkAppId", "1400000001")
	<-c.got
	h.upgrade(t, "/u/v2/ws?sdkAppId=1400000001")
	if got := <-c.got; got != "main.rtc.qq.com GET /v2/ws?sdkAppId=1400000001" {
		t.Errorf("upstream got %q, want the domain of the last answer", got)
	}
	if logs := h.logs.String(); strings.Count(logs, "outside signal_domains") != 1 {
		t.Errorf("the domain outside the list is not named once:\n%s", logs)
	}
	for id := range uint64(3 * maxHints) {
		h.hints.put(id, []string{"x"})
	}
	if n := len(h.hints.byApp); n > maxHints {
		t.Errorf("%d applications remembered, want at most %d", n, maxHints)
	}
}

func TestLogsOfTheOneParameterMode(t *testing.T) {
	c := newCloud(t, cors(cloudAnswer))
	sc := c.schedule()
	sc.Logs = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "logs ", r.RequestURI) })
	h := serve(t, Options{Schedule: sc})
	resp := h.get(t, "POST", "/u//v5/AVQualityReportSvc/C2S?sdkappid=1", "x", nil)
	if b, _ := io.ReadAll(resp.Body); string(b) != "logs /u//v5/AVQualityReportSvc/C2S?sdkappid=1" {
		t.Errorf("answer %q", b)
	}
}

func TestScheduleOptions(t *testing.T) {
	for _, sc := range []*Schedule{
		{},
		{Path: "/s", SignalDomains: []string{"*"}},
		{Path: "/s", Upstreams: []string{"x"}},
		{Path: "/s", PublicHost: "a/b"},
		{Path: "/s", Unified: "/s"},
	} {
		if _, err := New(Options{Schedule: sc}); err == nil {
			t.Errorf("New with %+v: no error", sc)
		}
	}
}

// FuzzRewrite: whatever an upstream sends, the result is what it sent or valid JSON with our
// members, and members we do not name keep their bytes.
func FuzzRewrite(f *testing.F) {
	f.Add([]byte(cloudAnswer))
	f.Add([]byte(`{"code":0,"data":{"domains":[],"domains":["a"],"config":null}}`))
	f.Add([]byte(`{"code":0.0e5,"data":{"\ud800":1,"domains":{"a":[1]}}}`))
	f.Add([]byte(`{"code":0,"code":1,"data":{}}`))
	rw := &rewrite{domainPrefix: "h/s/", loggerDomain: "https://h/l", iceServers: []ICEServer{{URLs: []string{"turn:h"}}}, policy: "relay", insert: true}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, _, changed := rw.apply(in)
		if !changed {
			if !bytes.Equal(in, out) {
				t.Fatalf("unchanged, but %q became %q", in, out)
			}
			return
		}
		var top struct {
			Data struct {
				ICEServers []struct{ URLs string } `json:"iceServers"`
				Policy     string                  `json:"iceTransportPolicy"`
				Config     struct{ LoggerDomain string }
			}
		}
		if err := json.Unmarshal(out, &top); err != nil {
			t.Fatalf("%q became %q: %v", in, out, err)
		}
		before, _ := parseObject(in)
		after, err := parseObject(out)
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range before.keys {
			if k != "data" && !bytes.Equal(before.values[i], after.values[i]) {
				t.Fatalf("member %q: %q became %q", k, before.values[i], after.values[i])
			}
		}
		was, _ := parseObject(before.get("data"))
		is, err := parseObject(after.get("data"))
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range was.keys {
			switch k {
			case "domains", "config", "iceServers", "iceTransportPolicy":
			default:
				if !bytes.Equal(was.values[i], is.values[i]) {
					t.Fatalf("data member %q: %q became %q", k, was.values[i], is.values[i])
				}
			}
		}
		if string(is.get("iceTransportPolicy")) != `"relay"` || len(is.get("iceServers")) == 0 {
			t.Fatalf("our members are missing in %q", out)
		}
	})
}
