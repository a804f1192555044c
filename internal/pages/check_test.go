package pages

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/turngate/turngate/internal/limit"
)

// testCheck is a page whose links cost nothing.
func testCheck(rate float64) *Check {
	return NewCheck(CheckOptions{
		Path: "/check", Tickets: NewTickets(), Rate: limit.NewKeyedRate[netip.Prefix](rate, 5, 64), Log: slog.New(slog.DiscardHandler),
		Client:  func(*http.Request) netip.Addr { return netip.MustParseAddr("192.0.2.1") },
		Plan:    func(*http.Request) (Plan, error) { return Plan{Version: "test"}, nil },
		Servers: func(_ *http.Request, session string) (Credential, error) { return Credential{session, "secret"}, nil },
	})
}

func (c *Check) do(method, rest, token, body string, fields ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "https://proxy.example.com/check"+rest, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	c.Serve(w, r, rest)
	return w
}

func field(t *testing.T, w *httptest.ResponseRecorder, name string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		t.Fatalf("%q is no JSON: %v", w.Body, err)
	}
	s, _ := m[name].(string)
	return s
}

func TestOnlyALinkLeadsToACredential(t *testing.T) {
	c := testCheck(0)
	token, _ := c.opts.Tickets.Issue(time.Minute)
	for _, tc := range []struct {
		name, method, call, token string
		fields                    []string
		status                    int
		code                      string
	}{
		{"without a token", "POST", "/api/begin", "", nil, 401, "unknown"},
		{"with a guess", "POST", "/api/begin", "guess", nil, 401, "unknown"},
		{"with the token where a session belongs", "POST", "/api/plan", token, nil, 401, "over"},
		{"by GET", "GET", "/api/begin", token, nil, 405, "only POST"},
		{"a preflight", "OPTIONS", "/api/begin", "", []string{"Origin", "https://evil.example"}, 405, "only POST"},
		{"from another site", "POST", "/api/begin", token, []string{"Sec-Fetch-Site", "cross-site"}, 403, "foreign"},
		{"from a neighbour", "POST", "/api/begin", token, []string{"Sec-Fetch-Site", "same-site"}, 403, "foreign"},
		{"with another origin", "POST", "/api/begin", token, []string{"Origin", "https://evil.example"}, 403, "foreign"},
		{"with two origins", "POST", "/api/begin", token, []string{"Origin", "https://proxy.example.com", "Origin", "https://evil.example"}, 403, "foreign"},
		{"with no origin", "POST", "/api/begin", token, []string{"Origin", "null"}, 403, "foreign"},
		{"with two tokens", "POST", "/api/begin", token, []string{"Authorization", "Bearer x"}, 401, "unknown"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := c.do(tc.method, tc.call, tc.token, "{}", tc.fields...)
			if w.Code != tc.status || field(t, w, "error") != tc.code {
				t.Errorf("got %d %s, want %d %s", w.Code, w.Body, tc.status, tc.code)
			}
			if got := w.Header().Get("Access-Control-Allow-Origin"); got != "" {
				t.Errorf("other sites may read it: %q", got)
			}
		})
	}
	w := c.do("POST", "/api/begin", token, "{}", "Origin", "https://proxy.example.com", "Sec-Fetch-Site", "same-origin")
	session := field(t, w, "session")
	if w.Code != 200 || session == "" {
		t.Fatalf("with the token: %d %s", w.Code, w.Body)
	}
	if w := c.do("POST", "/api/begin", token, "{}"); w.Code != 401 || field(t, w, "error") != "used" {
		t.Errorf("the second time: %d %s, want 401 used", w.Code, w.Body)
	}
	w = c.do("POST", "/api/plan", session, "{}")
	if w.Code != 200 || field(t, w, "credential") != "secret" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("the plan: %d %s %v", w.Code, w.Body, w.Header())
	}
	for range maxServers {
		w = c.do("POST", "/api/plan", session, "{}")
	}
	if w.Code != 429 {
		t.Errorf("one credential more than a session gets: %d, want 429", w.Code)
	}
	for body, want := range map[string]int{
		`{"verdict":"works","failed":0,"warned":1}`: 200, `{"verdict":"works\nforged line"}`: 400, `{"verdict":7}`: 400, `{"x":1}`: 400,
		`{"verdict":"` + strings.Repeat("x", 8<<10) + `"}`: 400,
	} {
		if w := c.do("POST", "/api/end", session, body); w.Code != want {
			t.Errorf("end with %.40s: %d, want %d", body, w.Code, want)
		}
	}
	if w := c.do("POST", "/api/result", session, `{"n":5}`); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"arrived":false,"ended":false}` {
		t.Errorf("a probe that never came: %d %s", w.Code, w.Body)
	}
}

func TestTokensOfTheCheckPageCannotBeTriedFast(t *testing.T) {
	c := testCheck(0.001)
	limited := 0
	for range 50 {
		for _, call := range []string{"/api/begin", "/api/plan", "/api/result", "/api/end"} {
			if w := c.do("POST", call, "guess", "{}"); w.Code == 429 {
				limited++
			}
		}
	}
	if limited < 190 {
		t.Errorf("%d of 200 guesses were refused for being too many, want 195", limited)
	}
}

func TestADrainingHostSaysSo(t *testing.T) {
	c := testCheck(0)
	c.opts.Plan = func(*http.Request) (Plan, error) { return Plan{}, ErrDraining }
	token, _ := c.opts.Tickets.Issue(time.Minute)
	session := field(t, c.do("POST", "/api/begin", token, "{}"), "session")
	if w := c.do("POST", "/api/plan", session, "{}"); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d, want 503 with Retry-After", w.Code)
	}
	c.opts.Plan = func(*http.Request) (Plan, error) { return Plan{}, errors.New("a secret path") }
	if w := c.do("POST", "/api/plan", session, "{}"); w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("got %d %s, want 500 that tells nothing", w.Code, w.Body)
	}
}

func TestPagesLoadNothingFromElsewhere(t *testing.T) {
	c := testCheck(0)
	elsewhere := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9-]+\.[a-z]{2,}|javascript:|\son[a-z]+="|<style|style="|innerHTML|\beval\(`)
	for name, f := range c.files.files {
		if name == "icon.svg" {
			continue // its namespace is an address
		}
		if found := elsewhere.Find(f.data); found != nil {
			t.Errorf("%s has %q", name, found)
		}
	}
	for _, rest := range []string{"", "/", "/check.js", "/check.css", "/check-texts.json", "/check-codes.js", "/text.js", "/icon.svg", "/check-worker.js"} {
		w := c.do("GET", rest, "", "")
		if w.Code != 200 || w.Body.Len() == 0 {
			t.Errorf("GET %q: %d", rest, w.Code)
		}
		h := w.Header()
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "wss://proxy.example.com"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%q: policy %q has no %s", rest, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") {
			t.Errorf("%q: policy %q", rest, csp)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"} {
			if got := h.Get(name); got != want {
				t.Errorf("%q: %s is %q, want %q", rest, name, got, want)
			}
		}
		if again := c.do("GET", rest, "", "", "If-None-Match", h.Get("ETag")); again.Code != 304 {
			t.Errorf("%q asked again: %d, want 304", rest, again.Code)
		}
		if w := c.do("POST", rest, "", ""); w.Code != 405 {
			t.Errorf("POST %q: %d, want 405", rest, w.Code)
		}
	}
	for _, rest := range []string{"/x", "/check.html/x", "//check.js", "/status.html", "/api", "/assets/check.js"} {
		if w := c.do("GET", rest, "", ""); w.Code != 404 {
			t.Errorf("GET %q: %d, want 404", rest, w.Code)
		}
	}
}

func TestAHostThatIsNoneDoesNotGetIntoThePolicy(t *testing.T) {
	for host, want := range map[string]string{
		"proxy.example.com:8443": " wss://proxy.example.com:8443", "[2001:db8::1]": " wss://[2001:db8::1]",
		"": "", "a; script-src *": "", "a b": "", "a'": "", "a,b": "", strings.Repeat("a", 300): "",
	} {
		if got := webSocketSource(host); got != want {
			t.Errorf("%.40q: got %q, want %q", host, got, want)
		}
	}
}

// Every text is there in both languages with the same places to fill in, and
// every text that the scripts ask for is there.
func TestTextsAreComplete(t *testing.T) {
	asked := regexp.MustCompile(`(?:t\(|say\(|line\(|cause: |advice: |title: |detail: |facts: \[|sentence: |return |\? |, |: |\[)'([a-z]+(?:\.[a-zA-Z0-9_]+)+)'`)
	for _, c := range []struct {
		file    string
		scripts []string
		least   int // texts that the scripts ask for
	}{
		{"check-texts.json", []string{"check.js", "check-routes.js", "check-relay.js"}, 90},
		{"status-texts.json", []string{"status.js", "status-graph.js"}, 40},
	} {
		en, zh := texts(t, c.file)
		for key, text := range en {
			other, ok := zh[key]
			if !ok {
				t.Errorf("%s: %s: not in Chinese", c.file, key)
			} else if diff := cmp.Diff(places(text), places(other)); diff != "" {
				t.Errorf("%s: %s: places to fill in (-English +Chinese):\n%s", c.file, key, diff)
			}
		}
		for key := range zh {
			if _, ok := en[key]; !ok {
				t.Errorf("%s: %s: only in Chinese", c.file, key)
			}
		}
		n := 0
		for _, name := range c.scripts {
			script, err := assets.ReadFile("assets/" + name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range asked.FindAllSubmatch(script, -1) {
				n++
				if _, ok := en[string(m[1])]; !ok {
					t.Errorf("%s asks for %q, which is no text", name, m[1])
				}
			}
		}
		if n < c.least {
			t.Errorf("found %d texts in the scripts of %s only: the test does not see them", n, c.file)
		}
	}
}

func texts(t *testing.T, name string) (en, zh map[string]string) {
	t.Helper()
	data, err := assets.ReadFile("assets/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]map[string]string
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	return all["en"], all["zh"]
}

// places are what a text has to be filled in, sorted.
func places(text string) []string {
	list := regexp.MustCompile(`\{\w+\}`).FindAllString(text, -1)
	slices.Sort(list)
	return slices.Compact(list)
}

// The page speaks of codes that "turngate explain" knows.
func TestCodesOfThePageAreThoseOfTheCheck(t *testing.T) {
	list, err := os.ReadFile("../doctor/testdata/codes.txt")
	if err != nil {
		t.Fatal(err)
	}
	status := make(map[string]string)
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); len(f) > 1 {
			status[f[0]] = f[1]
		}
	}
	script, err := assets.ReadFile("assets/check-codes.js")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile(`(\w+): '(TG-\d{3})'`)
	n := 0
	for _, m := range code.FindAllSubmatch(script, -1) {
		n++
		name, got := string(m[1]), status[string(m[2])]
		good := name == "ok" || name == "https" || name == "video"
		if got == "" || good != (got == "ok") {
			t.Errorf("%s is %s: %q", name, m[2], got)
		}
	}
	if n < 50 {
		t.Errorf("found %d codes only: the test does not see them", n)
	}
	// And no script has one of its own.
	for _, name := range []string{"check.js", "check-routes.js", "check-relay.js"} {
		script, err := assets.ReadFile("assets/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if found := regexp.MustCompile(`TG-\d`).Find(script); found != nil {
			t.Errorf("%s has a code of its own: %s", name, found)
		}
	}
}
