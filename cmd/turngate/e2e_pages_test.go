package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/pages"
	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/internal/testnet/browser"
)

// looks are the screens on which pages have to look good.
var looks = []struct {
	name string
	view browser.View
}{
	{"desktop", browser.View{Width: 1280, Height: 900}},
	{"desktop-dark", browser.View{Width: 1280, Height: 900, Dark: true}},
	{"phone", browser.View{Width: 390, Height: 844, Phone: true}},
	{"phone-dark", browser.View{Width: 390, Height: 844, Phone: true, Dark: true}},
}

// lookEverywhere looks at an open page on every screen and in both languages, and
// fails the test for what overflows, has too little contrast, no name, or the
// wrong language.
func lookEverywhere(t *testing.T, page *browser.Page, state string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, look := range looks {
		if err := page.Look(look.view); err != nil {
			t.Fatal(err)
		}
		for lang, tag := range map[string]string{"en": "en", "zh": "zh-CN"} {
			var complaints []string
			err := page.Eval(ctx, `(async () => {
				document.querySelector('[data-lang="`+lang+`"]').click();
				await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
				return (`+audit+`)("`+tag+`");
			})()`, &complaints)
			if err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("%s-%s-%s", state, look.name, lang)
			for _, c := range complaints {
				t.Errorf("%s: %s", name, c)
			}
			shootAs(t, page, name)
		}
	}
}

// audit is what a page must not have; contrast is that of WCAG 2.2, 1.4.3.
const audit = `(tag) => {
	const list = [];
	const width = document.documentElement.clientWidth; // innerWidth of a phone grows with what is too wide
	const say = (what, e) => list.push(what + ': <' + e.tagName.toLowerCase() + ' class="' + (e.getAttribute('class') ?? '') + '"> ' + e.textContent.trim().slice(0, 60));
	if (document.documentElement.lang !== tag) list.push('the language is ' + document.documentElement.lang + ', want ' + tag);
	if (document.scrollingElement.scrollWidth > width) list.push('wider than the screen: ' + document.scrollingElement.scrollWidth);
	const rgb = (text) => { const n = text.match(/[\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
	const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
	const behind = (e) => {
		const layers = [];
		for (let at = e; at; at = at.parentElement) layers.push(rgb(getComputedStyle(at).backgroundColor));
		return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255, 1]);
	};
	const light = (c) => { const f = c.slice(0, 3).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
	const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((m, n) => n - m); return (x + 0.05) / (y + 0.05); };
	const hidden = (e) => e.closest('.unseen, [hidden], :disabled, noscript, script, title') || !e.checkVisibility() || e.closest('details:not([open]) > :not(summary)');
	for (const e of document.body.querySelectorAll('*')) {
		if (hidden(e)) continue;
		const style = getComputedStyle(e);
		const box = e.getBoundingClientRect();
		if (box.width && (box.right > width + 1 || box.left < -1)) say('beyond the edge', e);
		if (style.overflowX === 'hidden' && e.scrollWidth > e.clientWidth + 1) say('cut off', e);
		const own = [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim());
		if (own) {
			const back = behind(e);
			const ratio = contrast(over(rgb(e.namespaceURI.endsWith('svg') ? style.fill : style.color), back), back);
			const size = parseFloat(style.fontSize);
			const large = size >= 24 || size >= 18.66 && Number(style.fontWeight) >= 700;
			if (ratio < (large ? 3 : 4.5)) say('contrast ' + ratio.toFixed(2), e);
		}
		if (e.matches('button, summary, [role=img], progress, a, [tabindex]')) {
			const by = e.getAttribute('aria-labelledby');
			const name = e.getAttribute('aria-label') || (by ? document.getElementById(by)?.textContent : '') || e.textContent;
			if (!name.trim()) say('no name', e);
		}
		if (e.matches('button, summary') && box.height < 24) say('too small to touch', e);
	}
	return list;
}`

func TestAuditSeesWhatIsWrong(t *testing.T) {
	testnet.Need(t, "chromium")
	s := browserFor(t, startGate(t, ""))
	page := s.browser.Visit(t, "https://"+s.host+"/check", browser.View{Width: 390, Height: 844, Phone: true})
	waitUntil(t, page, `document.getElementById('title').textContent`)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var complaints []string
	err := page.Eval(ctx, `(() => {
		const add = (tag, text, style) => { const e = document.createElement(tag); e.textContent = text; Object.assign(e.style, style); document.querySelector('main').append(e); };
		add('p', 'pale', { color: '#bbb' });
		add('div', 'wide', { width: '700px' });
		add('button', '', { height: '12px', padding: 0 });
		return (`+audit+`)('fr');
	})()`, &complaints)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the language is", "wider than the screen", "contrast 1.", "beyond the edge: <div", "no name: <button", "too small to touch: <button"} {
		if !slices.ContainsFunc(complaints, func(c string) bool { return strings.HasPrefix(c, want) }) {
			t.Errorf("no %q in %q", want, complaints)
		}
	}
}

// Signaling and media are told apart in one sentence, in the words of the page.
func TestCheckPageTellsSignalingFromMedia(t *testing.T) {
	needRoute(t)
	testnet.Need(t, "chromium")
	open := checkedCloud(t).Addr
	for _, tt := range []struct {
		name, upstream string
		relays         bool
		sentence       string
		paths          string
	}{
		{"dead signaling", testnet.ClosedAddress(t), true, "Signaling is dead, sound and picture would get through", "failed Signaling, ok Log reports, ok Sound and picture"},
		{"blocked media", open, false, "Signaling works, sound and picture are blocked", "ok Signaling, ok Log reports, failed Sound and picture"},
		{"both", testnet.ClosedAddress(t), false, "Neither signaling nor sound and picture get through", "failed Signaling, ok Log reports, failed Sound and picture"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limits := ""
			if !tt.relays {
				limits = "[turn.limits]\nallocations = 1"
			}
			g := startGateWith(t, "", limits, "[[signaling]]\npath = \"/ws/\"\nupstream = [\"http://"+tt.upstream+"/\"]\n[[logger]]\npath = \"/logger/\"\nupstream = [\"http://"+open+"/\"]\n")
			if !tt.relays {
				g.allocate(t, "udp")
			}
			s := browserFor(t, g)
			got := s.check(t, s.link(t), browser.View{Width: 1280, Height: 900, Language: "en-US"})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var seen struct{ Sentence, Paths, Live string }
			err := got.page.Eval(ctx, `({
				Sentence: document.getElementById('sentence').textContent,
				Paths: [...document.querySelectorAll('#paths li')].map((p) => p.firstChild.getAttribute('aria-label') + ' ' + p.textContent).join(', '),
				Live: document.getElementById('live').textContent,
			})`, &seen)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(seen.Sentence, tt.sentence) || seen.Paths != tt.paths || !strings.Contains(got.Text, seen.Sentence) {
				t.Errorf("the page says %q and %q, want %q and %q, and the sentence in the report\n%s", seen.Sentence, seen.Paths, tt.sentence, tt.paths, got.Text)
			}
			if !strings.Contains(seen.Live, seen.Sentence) {
				t.Errorf("readers of screens are told %q, want the sentence in it", seen.Live)
			}
			if !tt.relays {
				for _, code := range []string{"TG-064", "TG-074", "TG-084", "TG-211"} {
					if !strings.Contains(got.Text, code) {
						t.Errorf("no %s in the report\n%s", code, got.Text)
					}
				}
			}
			lookEverywhere(t, got.page, "red-"+strings.ReplaceAll(tt.name, " ", "-"))
		})
	}
}

// browserFor is a stage without a cloud.
func browserFor(t *testing.T, g *gate) *stage {
	return &stage{gate: g, host: fmt.Sprintf("%s:%d", proxyHost, g.https.Port()), browser: browser.Start(t, browser.Options{
		Trust: []*x509.Certificate{gateCertificate(t, g)},
		Hosts: map[string]string{proxyHost: "127.0.0.1"},
	})}
}

// A host that was just installed has a certificate that nobody trusts.
func TestCheckPageKnowsAWarningThatWasClickedAway(t *testing.T) {
	needRoute(t)
	testnet.Need(t, "chromium")
	g := startGate(t, routesTo(checkedCloud(t).Addr))
	s := &stage{gate: g, host: fmt.Sprintf("%s:%d", proxyHost, g.https.Port()), browser: browser.Start(t, browser.Options{Hosts: map[string]string{proxyHost: "127.0.0.1"}})}
	got := s.check(t, s.link(t), browser.View{Width: 390, Height: 844, Phone: true, Language: "zh-CN", Distrust: true})
	if r := got.row("certificate"); r.State != "bad" || !strings.Contains(r.Text, "TG-021") || !strings.Contains(r.Text, "自签名") {
		t.Errorf("row certificate: %+v", r)
	}
	if got.Verdict != "bad" || !strings.Contains(got.Text, "证书不受信任") {
		t.Errorf("verdict %s, want bad for the certificate\n%s", got.Verdict, got.Text)
	}
}

// The report can be copied by who may do nothing else.
func TestReportIsCopiedWithoutPermission(t *testing.T) {
	needRoute(t)
	testnet.Need(t, "chromium")
	s := browserFor(t, startGate(t, routesTo(checkedCloud(t).Addr)))
	got := s.check(t, s.link(t), browser.View{Width: 1280, Height: 900, Language: "en-US"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, tt := range []struct{ name, without, label string }{
		{"without the permission for the clipboard", `navigator.clipboard.writeText = () => Promise.reject(new DOMException('denied', 'NotAllowedError'));`, "Copied"},
		{"without a clipboard", `Object.defineProperty(navigator, 'clipboard', { value: undefined });`, "Copied"},
		{"without any way at all", `document.execCommand = () => false;`, "Press Ctrl+C"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var seen struct {
				Label, Copied, Selected, Live, Focus string
				Left                                 int
			}
			err := got.page.Gesture(ctx, tt.without+`
				window.taken = '';
				document.addEventListener('copy', () => { window.taken = document.activeElement.value ?? ''; }, { once: true });
				new Promise((done) => {
					const button = document.getElementById('copy');
					const look = () => {
						if (!button.dataset.busy) { setTimeout(look, 20); return; }
						done({ Label: button.textContent, Copied: window.taken, Selected: String(getSelection()), Live: document.getElementById('live').textContent,
							Focus: document.activeElement.id, Left: document.querySelectorAll('textarea').length });
					};
					delete button.dataset.busy;
					button.click();
					look();
				})`, &seen)
			if err != nil {
				t.Fatal(err)
			}
			if seen.Label != tt.label || seen.Live != tt.label || seen.Left != 0 {
				t.Errorf("the button says %q, readers of screens hear %q, %d fields are left; want %q and none", seen.Label, seen.Live, seen.Left, tt.label)
			}
			text, focus := seen.Copied, "copy"
			if tt.label != "Copied" {
				text, focus = seen.Selected, "text"
			}
			if strings.TrimSpace(text) != strings.TrimSpace(got.Text) || seen.Focus != focus {
				t.Errorf("got %q with the focus on %q, want the report and %q", text, seen.Focus, focus)
			}
		})
	}
	lookEverywhere(t, got.page, "report")
}

// A page of today has to run where its texts do not load.
func TestCheckPageThatDoesNotLoadSaysSo(t *testing.T) {
	testnet.Need(t, "chromium")
	var files http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".json") {
			http.Error(w, "not today", http.StatusBadGateway)
			return
		}
		pages.NewCheck(pages.CheckOptions{Path: "/check"}).Serve(w, r, strings.TrimPrefix(r.URL.Path, "/check"))
	})
	up := testnet.PlainUpstream(t, files)
	page := browser.Start(t, browser.Options{}).Visit(t, "http://"+up.Addr+"/check", browser.View{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var title string
	err := page.Eval(ctx, `new Promise((done) => {
		const look = () => { const text = document.getElementById('title').textContent; if (text) done(text); else setTimeout(look, 20); };
		look();
	})`, &title)
	if err != nil || !strings.Contains(title, "did not load") || !strings.Contains(title, "未能加载") {
		t.Errorf("the page says %q (%v)", title, err)
	}
}
