package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/pages"
	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/internal/testnet/browser"
)

// checkRow is a row of the check page as the page shows it.
type checkRow struct{ ID, State, Text string }

// checked is what a check page came to.
type checked struct {
	Verdict, Title, Detail, Text, Help string
	Rows                               []checkRow
	page                               *browser.Page
}

func (c checked) row(id string) checkRow {
	i := slices.IndexFunc(c.Rows, func(r checkRow) bool { return r.ID == id })
	if i < 0 {
		return checkRow{State: "missing"}
	}
	return c.Rows[i]
}

// link makes a link under the name of the stage.
func (s *stage) link(t *testing.T) string {
	t.Helper()
	link, err := s.gate.checkLink(proxyHost, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return link.URL
}

// check opens an address and waits until the page has a verdict.
func (s *stage) check(t *testing.T, address string, v browser.View) checked {
	t.Helper()
	return waitForVerdict(t, s.browser.Visit(t, address, v))
}

func waitForVerdict(t *testing.T, page *browser.Page) checked {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	var out checked
	err := page.Eval(ctx, `new Promise((done) => {
		const look = () => {
			const verdict = document.getElementById('verdict').className.replace('verdict ', '');
			if (verdict === 'run' || !document.getElementById('actions').hidden && !document.body.dataset.told || !document.getElementById('title').textContent) { setTimeout(look, 50); return; }
			done({
				Verdict: verdict, Title: document.getElementById('title').textContent, Detail: document.getElementById('subtitle').textContent,
				Text: document.getElementById('text').textContent, Help: document.getElementById('help').textContent,
				Rows: [...document.querySelectorAll('li.row')].map((r) => ({ID: r.id.replace('row-', ''), State: r.dataset.state, Text: r.innerText})),
			});
		};
		look();
	})`, &out)
	if err != nil {
		t.Fatal(err)
	}
	out.page = page
	if list := page.Exceptions(); len(list) > 0 {
		t.Errorf("exceptions of the page: %q", list)
	}
	for _, line := range page.Console() {
		if strings.Contains(line, "Content Security Policy") {
			t.Errorf("the page's own policy refused something: %s", line)
		}
	}
	shoot(t, page)
	return out
}

// waitUntil waits until an expression of the page is true.
func waitUntil(t *testing.T, page *browser.Page, expr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := page.Eval(ctx, `new Promise((done) => { const look = () => { if (`+expr+`) done(true); else setTimeout(look, 20); }; look(); })`, nil); err != nil {
		t.Fatal(err)
	}
}

// needRoute skips where a browser has no interface for WebRTC: without a
// permission for the camera it uses that of the default route alone.
func needRoute(t *testing.T) {
	t.Helper()
	c, err := net.Dial("udp", "192.0.2.1:9") // sends nothing
	if err == nil {
		c.Close()
		return
	}
	testnet.Lacks(t, "chromium", "there is no default route: "+err.Error())
}

// shoot keeps a picture of the page where TURNGATE_TEST_PICTURES says.
func shoot(t *testing.T, page *browser.Page) {
	shootAs(t, page, strings.NewReplacer("/", "-", " ", "-", ",", "").Replace(t.Name()))
}

func shootAs(t *testing.T, page *browser.Page, name string) {
	t.Helper()
	dir := os.Getenv("TURNGATE_TEST_PICTURES")
	if dir == "" {
		return
	}
	png, err := page.Screenshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCheckPageSaysDoneWhenEverythingWorks(t *testing.T) {
	needRoute(t)
	s := setStage(t)
	for _, tc := range []struct {
		name, title string
		view        browser.View
	}{
		{"on a desktop", "Done: everything works", browser.View{Width: 1280, Height: 900, Language: "en-US"}},
		{"on a phone, in the dark and in Chinese", "完成：一切正常", browser.View{Width: 390, Height: 844, Phone: true, Dark: true, Language: "zh-CN"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := s.check(t, s.link(t), tc.view)
			if got.Verdict != "ok" || got.Title != tc.title {
				t.Errorf("verdict %s %q, want ok %q\n%s", got.Verdict, got.Title, tc.title, got.Text)
			}
			udp, https := s.gate.turnUDP.Port(), s.gate.https.Port()
			for _, id := range []string{"https", "certificate", "signaling-0", "logger-1", "schedule-2", "schedule-3", "signaling-4", "logger-5", fmt.Sprintf("relay-udp-%d", udp), fmt.Sprintf("relay-tcp-%d", udp),
				fmt.Sprintf("relay-tls-%d", https), fmt.Sprintf("relay-tcp-%d", https), "video"} {
				if r := got.row(id); r.State != "ok" {
					t.Errorf("row %s: got %+v, want ok", id, r)
				}
			}
			if hosts := got.page.Hosts(); slices.ContainsFunc(hosts, func(h string) bool { return h != s.host }) {
				t.Errorf("the page asked %q, want its own host only", hosts)
			}
			if s.gate.logs.line("check page ended", `"result":"works"`) == "" {
				t.Errorf("no line in the log about the end of the check")
			}
			for _, code := range []string{"TG-020", "TG-030", "TG-040", "TG-050", "TG-060", "TG-070", "TG-080", "TG-230", "TG-260"} {
				if !strings.Contains(got.Text, code) {
					t.Errorf("no %s in the report:\n%s", code, got.Text)
				}
			}
			if !tc.view.Phone {
				lookEverywhere(t, got.page, "done")
			}
		})
	}
}

// blackHole takes TURN's UDP port away and swallows what comes there, as a
// firewall does.
func (g *gate) blackHole(t *testing.T) {
	t.Helper()
	g.reloadMu.Lock()
	for _, all := range g.sockets {
		for _, l := range all {
			g.turn.RetireUDP(l.Addr())
		}
	}
	g.reloadMu.Unlock()
	hole, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(g.turnUDP))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hole.Close() })
}

func TestCheckPageSaysWhatIsWrongAndWhomToAsk(t *testing.T) {
	needRoute(t)
	testnet.Need(t, "chromium")
	asked := make(chan *http.Request, 8)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		w.WriteHeader(http.StatusForbidden)
	}))
	defer upstream.Close()
	g := startGate(t, fmt.Sprintf(`
[[signaling]]
path = "/closed/"
upstream = ["http://127.0.0.1:%d/"]

[[signaling]]
path = "/refusing/"
upstream = [%[2]q]
origins = ["https://*.example.com"]
sdk_app_ids = [1400000001]

[[logger]]
path = "/logger/"
upstream = [%[2]q]
`, testnet.FreePort(t), upstream.URL+"/base/"))
	g.blackHole(t)
	s := browserFor(t, g)
	page := s.browser.Visit(t, s.link(t), browser.View{Width: 1280, Height: 900, Language: "en-US"})
	waitUntil(t, page, `document.querySelectorAll('li.row.ok').length > 4`) // UDP takes long to be given up
	lookEverywhere(t, page, "running")
	waitUntil(t, page, `(document.querySelector('[data-lang="en"]').click(), true)`)
	got := waitForVerdict(t, page)
	if got.Verdict != "bad" || !strings.Contains(got.Detail, "One test failed") {
		t.Errorf("verdict %s %q %q, want that one test failed\n%s", got.Verdict, got.Title, got.Detail, got.Text)
	}
	for _, want := range []struct {
		id, state string
		words     []string
	}{
		{"certificate", "ok", nil},
		{"https", "ok", []string{"TG-030"}},
		{"signaling-0", "bad", []string{"TG-042", "refuses connections of this host", "Let this host reach", "Administrator of this host"}},
		{"signaling-1", "ok", []string{"refuses with HTTP 403, which is in order"}},
		{"logger-2", "warn", []string{"TG-058", "does not allow pages to read", "CORS"}},
		{fmt.Sprintf("relay-udp-%d", g.turnUDP.Port()), "warn", []string{"TG-061", "drops UDP", fmt.Sprintf("Open UDP %d from the users' network to %s", g.turnUDP.Port(), proxyHost), "Company's firewall team"}},
		{fmt.Sprintf("relay-tcp-%d", g.turnUDP.Port()), "ok", []string{"40 of 40"}},
		{fmt.Sprintf("relay-tls-%d", g.https.Port()), "ok", nil},
		{"video", "ok", []string{"TLS"}},
	} {
		r := got.row(want.id)
		if r.State != want.state {
			t.Errorf("row %s: %s, want %s\n%s", want.id, r.State, want.state, r.Text)
		}
		for _, w := range want.words {
			if !strings.Contains(r.Text, w) {
				t.Errorf("row %s reads %q, want %q in it", want.id, r.Text, w)
			}
		}
	}
	lookEverywhere(t, page, "red")
	// What the upstream saw is what a client sends: no mark, and what the route asks for.
	for range 2 {
		r := <-asked
		if strings.Contains(r.URL.RawQuery, "turngate") {
			t.Errorf("the upstream saw %s", r.URL)
		}
		if r.Method == "GET" && (r.URL.RawQuery != "sdkAppId=1400000001" || r.Header.Get("Origin") != "https://check.example.com") {
			t.Errorf("the upstream saw %s of %q", r.URL, r.Header.Get("Origin"))
		}
	}
}

func TestCheckPageWithoutAGoodLinkSaysHowToGetOne(t *testing.T) {
	s := setStage(t)
	base := "https://" + s.host + "/check"
	used := s.link(t)
	s.check(t, used, browser.View{})
	for _, tc := range []struct{ name, address, detail string }{
		{"no link", base, "makes for you"},
		{"a guess", base + "/#0123456789abcdef", "not known here"},
		{"a link that was used", used, "opened already"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := s.check(t, tc.address, browser.View{Width: 390, Height: 844, Phone: true, Language: "en-US"})
			if got.Verdict != "warn" || !strings.Contains(got.Detail, tc.detail) || !strings.Contains(got.Help, "turngate check-link") || len(got.Rows) != 0 {
				t.Errorf("got %s %q, help %q, %d rows; want %q and the command", got.Verdict, got.Detail, got.Help, len(got.Rows), tc.detail)
			}
			lookEverywhere(t, got.page, strings.ReplaceAll(tc.name, " ", "-"))
		})
	}
}

func TestStatusPageShowsGraphs(t *testing.T) {
	testnet.Need(t, "chromium")
	at := testnet.FreePort(t)
	g := startGateWith(t, "", "", "status = \"127.0.0.1:"+fmt.Sprint(at)+"\"\n")
	address := fmt.Sprintf("http://127.0.0.1:%d/", at)
	for i := range 120 { // ten minutes
		n := float64(i)
		g.recorder.Keep(pages.Sample{At: time.Now().Add(time.Duration(i-120) * 5 * time.Second).UnixMilli(), Numbers: map[string]float64{
			"connections": 200 + 40*math.Sin(n/9), "websockets": 150 + 30*math.Sin(n/11), "allocations": 60 + 20*math.Sin(n/7),
			"relay_up": n * 5e6, "relay_down": n * n * 9e4, "web_up": n * 4e4, "web_down": n * 9e4, "upstream_failures": math.Floor(n / 30), "limit_hits": math.Floor(n / 40),
		}})
	}
	b := browser.Start(t, browser.Options{})
	page := b.Visit(t, address, browser.View{Width: 1280, Height: 900, Language: "en-US"})
	waitUntil(t, page, `document.querySelector('path.line')`)
	for lang, want := range map[string][]string{
		"en": {"running", "layout external", "Relayed media", "364 days left", "Upstreams", "signaling.rtc.qq.com"},
		"zh": {"运行中", "布局 external", "中继的媒体", "剩余 364 天", "上游", "signaling.rtc.qq.com"},
	} {
		waitUntil(t, page, `(document.querySelector('[data-lang="`+lang+`"]').click(), true)`)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var got struct {
			Text  string
			Lines int
		}
		if err := page.Eval(ctx, `({Text: document.body.innerText, Lines: document.querySelectorAll('path.line').length})`, &got); err != nil {
			t.Fatal(err)
		}
		if got.Lines != 15 {
			t.Errorf("%d lines in the graphs, want 15", got.Lines)
		}
		for _, w := range want {
			if !strings.Contains(got.Text, w) {
				t.Errorf("%s: the page reads %q, want %q in it", lang, got.Text, w)
			}
		}
	}
	// By keyboard a graph tells its past.
	waitUntil(t, page, `(() => {
		const graph = document.querySelector('svg');
		graph.focus();
		graph.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}));
		return document.activeElement === graph && graph.querySelector('.cursor');
	})()`)
	waitUntil(t, page, `(document.activeElement.blur(), !document.querySelector('.cursor'))`)
	lookEverywhere(t, page, "status-busy")
	if list := append(page.Exceptions(), page.Console()...); len(list) > 0 {
		t.Errorf("complaints of the browser: %q", list)
	}
}

func TestStatusPageOfAQuietHostAndOfOneInTrouble(t *testing.T) {
	testnet.Need(t, "chromium")
	b := browser.Start(t, browser.Options{})
	for _, tt := range []struct {
		name, extra string
		words       []string
	}{
		{"quiet", "", []string{"running"}},
		{"trouble", "[[signaling]]\npath = \"/ws/\"\nupstream = [\"http://" + testnet.ClosedAddress(t) + "/\"]\n", []string{"look at this", "is down"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := testnet.FreePort(t)
			g := startGateWith(t, "", "", "status = \"127.0.0.1:"+fmt.Sprint(at)+"\"\n"+tt.extra)
			if tt.extra != "" {
				g.check(t, "--ca", g.certFile()) // its handshake makes the upstream go out
			}
			page := b.Visit(t, fmt.Sprintf("http://127.0.0.1:%d/", at), browser.View{Width: 1280, Height: 900, Language: "en-US"})
			for _, w := range tt.words {
				waitUntil(t, page, fmt.Sprintf(`document.body.innerText.includes(%q)`, w))
			}
			lookEverywhere(t, page, "status-"+tt.name)
		})
	}
}
