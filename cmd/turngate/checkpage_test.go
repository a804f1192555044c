package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/pages"
)

// checkCall calls the API of the check page.
func (g *gate) checkCall(t *testing.T, call, token string) (int, map[string]any) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	req, err := http.NewRequest("POST", "https://"+g.https.String()+"/check/api/"+call, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	var out map[string]any
	_ = json.Unmarshal(body, &out)
	return resp.StatusCode, out
}

func TestCheckLinkCommand(t *testing.T) {
	g := startGate(t, "")
	ask := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := run(append([]string{"check-link", "--config", g.file()}, args...), strings.NewReader(""), &out, &errs)
		return code, out.String(), errs.String()
	}
	code, out, errs := ask()
	url, token, ok := strings.Cut(strings.TrimSpace(out), "#")
	if code != 0 || !ok || url != "https://"+g.https.String()+"/check" || !strings.Contains(errs, "works once") {
		t.Fatalf("got %d, %q, %q; want a link", code, out, errs)
	}
	status, answer := g.checkCall(t, "begin", token)
	session, _ := answer["session"].(string)
	if status != 200 || session == "" {
		t.Fatalf("begin: %d %v", status, answer)
	}
	status, answer = g.checkCall(t, "plan", session)
	user, _ := answer["username"].(string)
	if status != 200 || !strings.Contains(user, ":turngate-check-") || answer["credential"] == "" {
		t.Errorf("plan: %d %v", status, answer)
	}
	if logs := g.logs.String(); strings.Contains(logs, token) || strings.Contains(logs, session) || !strings.Contains(logs, "check page opened") {
		t.Errorf("the log says %s", logs)
	}
	for _, bad := range [][]string{{"--ttl", "0s"}, {"--ttl", "25h"}, {"x"}} {
		if code, _, _ := ask(bad...); code != 2 {
			t.Errorf("%q: exit code %d, want 2", bad, code)
		}
	}
	if code, _, errs := ask("--host", "a/b"); code != 1 || !strings.Contains(errs, "not a host") {
		t.Errorf("a host that is none: %d %q", code, errs)
	}

	// A reload keeps sessions, and can take the page away.
	rewrite := func(extra string) {
		t.Helper()
		text, err := os.ReadFile(g.file())
		if err == nil {
			err = os.WriteFile(g.file(), append(text, extra...), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.reload(); err != nil {
			t.Fatal(err)
		}
	}
	rewrite("\n[trtc]\nunified = \"/v/\"\n")
	if status, _ := g.checkCall(t, "plan", session); status != 200 {
		t.Errorf("plan after a reload: %d, want 200", status)
	}
	rewrite("\n[check]\npath = \"\"\n")
	if status, _ := g.checkCall(t, "plan", session); status != 404 {
		t.Errorf("plan of a page that is switched off: %d, want 404", status)
	}
	if code, _, errs := ask(); code != 1 || !strings.Contains(errs, "check.path is empty") {
		t.Errorf("a link to no page: %d %q", code, errs)
	}
}

func TestWhatTheCheckPageTries(t *testing.T) {
	load := func(text string) *config.Config {
		t.Helper()
		cfg, findings := config.LoadBytes("x.toml", []byte(text), config.Env{})
		if cfg == nil {
			t.Fatal(findings)
		}
		return cfg
	}
	for _, c := range []struct {
		name, text, host string
		urls             []string
	}{
		{"by default", "", "proxy.example.com", []string{
			"turn:proxy.example.com:3478?transport=udp", "turn:proxy.example.com:3478?transport=tcp",
			"turns:proxy.example.com:443?transport=tcp", "turn:proxy.example.com:443?transport=tcp"}},
		{"everything on 443, by an IPv6 address", "[turn]\nlisten = [\":443\"]", "[2001:db8::1]", []string{
			"turn:[2001:db8::1]:443?transport=udp", "turns:[2001:db8::1]:443?transport=tcp", "turn:[2001:db8::1]:443?transport=tcp"}},
		{"another port", "[https]\nlisten = [\":8443\"]\n[turn]\nlisten = []", "proxy.example.com:8443", []string{
			"turns:proxy.example.com:8443?transport=tcp", "turn:proxy.example.com:8443?transport=tcp"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, r := range checkRelays(load(c.text), c.host) {
				got = append(got, r.URL)
			}
			if diff := cmp.Diff(c.urls, got); diff != "" {
				t.Errorf("relays (-want +got):\n%s", diff)
			}
		})
	}
	routes := checkRoutes(load(`
[trtc]
sdk_app_ids = [1400000009]
[[signaling]]
preset = "trtc"
[[signaling]]
preset = "wsproxy"
path = "/inside/"
trusted_peers = ["10.0.0.0/8"]
targets = ["app.example.com"]
[[signaling]]
path = "/own/"
upstream = ["https://a.example.com/x", "https://b.example.com/"]
origins = ["https://*.example.com"]
`))
	mainland := []string{"schedule.cloud-rtc.com", "schedule.cloud-rtc.net", "schedule.rtc.qcloud.com"}
	want := []pages.Route{
		{Kind: "signaling", Name: "/ws/", Path: "/ws/?sdkAppId=1400000009", Upstreams: []string{"signaling.rtc.qq.com"}},
		{Kind: "signaling", Name: "/own/", Path: "/own/", Upstreams: []string{"a.example.com", "b.example.com"}, Origin: "https://check.example.com"},
		{Kind: "logger", Name: "/logger/", Path: "/logger/v5/AVQualityReportSvc/C2S?random=1&sdkappid=1400000009&cmdtype=jssdk_log"},
		{Kind: "schedule", Name: "/schedule/", Path: "/schedule/api/v1/config", AppID: 1400000009, Upstreams: mainland},
		{Kind: "schedule", Mode: "unified", Name: "/u/", Path: "/u/api/v1/config", AppID: 1400000009, Upstreams: mainland},
		{Kind: "signaling", Mode: "unified", Name: "/u/",
			Path: "/u/v2/ws?sdkAppId=1400000009&userId=turngate-check&userSig=none&keepAlive=0&signalDomain=signaling.rtc.qq.com"},
		{Kind: "logger", Mode: "unified", Name: "/u/", Path: "/u/v5/AVQualityReportSvc/C2S?random=1&sdkappid=1400000009&cmdtype=jssdk_log"},
	}
	if diff := cmp.Diff(want, routes); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

func TestWhatTheCheckPageTriesOfTheScheduler(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"nothing without a TRTC route", "[[signaling]]\npath = \"/a/\"\nupstream = [\"https://a.example.com/\"]\n[[logger]]\npath = \"/b/\"\nupstream = [\"https://a.example.com/\"]\n", nil},
		{"nothing that is switched off", "[trtc]\nschedule = \"\"\nunified = \"\"\n[[signaling]]\npreset = \"trtc\"\n", nil},
		{"no WebSocket to a host that clients may not name", "[trtc]\nschedule = \"\"\nsignal_domains = [\"*.example.com\"]\n[[signaling]]\npreset = \"trtc\"\n",
			[]string{"schedule /u/api/v1/config", "logger /u/v5/AVQualityReportSvc/C2S?random=1&sdkappid=1400000000&cmdtype=jssdk_log"}},
		{"the schedulers of an international application", "[trtc]\nunified = \"\"\nsdk_app_ids = [20000001]\n[[logger]]\npreset = \"trtc\"\n",
			[]string{"schedule /schedule/api/v1/config schedule.rtc-web.com schedule.rtc-web.io intl-schedule.cloud-rtc.com schedule.rtc.tencentcloud.com"}},
		{"a scheduler of one's own", "[trtc]\nunified = \"\"\nschedule_upstream = [\"https://s.example.com/x\"]\n[[logger]]\npreset = \"trtc\"\n",
			[]string{"schedule /schedule/api/v1/config s.example.com"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, findings := config.LoadBytes("x.toml", []byte(c.text), config.Env{})
			if cfg == nil {
				t.Fatal(findings)
			}
			var got []string
			for _, r := range checkRoutes(cfg) {
				if r.Kind == pages.Scheduler || r.Mode == pages.Unified {
					line := r.Kind + " " + r.Path
					if r.Mode == "" {
						line += " " + strings.Join(r.Upstreams, " ")
					}
					got = append(got, line)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A mark that is nobody's passes like any other parameter.
func TestStrangersCannotMarkRequests(t *testing.T) {
	g := startGate(t, "")
	v := &visit{front: &front{check: g.plan.Load().check}, query: "?a=b&" + pages.ProbeParameter + "=x.1"}
	r, err := http.NewRequest("GET", "https://proxy.example.com/ws/"+v.query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := v.probed(r, "/ws/"); got != r || v.probe != nil || v.query != "?a=b&"+pages.ProbeParameter+"=x.1" {
		t.Errorf("the request became %v, its query %q", got, v.query)
	}
}
