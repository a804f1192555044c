package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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

// shoot keeps a picture of the page where TURNGATE_TEST_PICTURES says.
func shoot(t *testing.T, page *browser.Page) {
	dir := os.Getenv("TURNGATE_TEST_PICTURES")
	if dir == "" {
		return
	}
	png, err := page.Screenshot()
	if err != nil {
		t.Fatal(err)
	}
	name := strings.NewReplacer("/", "-", " ", "-").Replace(t.Name()) + ".png"
	if err := os.WriteFile(filepath.Join(dir, name), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCheckPageSaysDoneWhenEverythingWorks(t *testing.T) {
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
			for _, id := range []string{"certificate", "signaling-0", "logger-1", fmt.Sprintf("relay-udp-%d", udp), fmt.Sprintf("relay-tcp-%d", udp),
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
		})
	}
}
