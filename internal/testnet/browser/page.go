package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/security"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// Page is an open test page in a browser context of its own (storage and cache
// included). Its methods may be called at once.
type Page struct {
	tb     testing.TB
	ctx    context.Context
	origin string

	mu         sync.Mutex // guards the fields below
	console    []string   // the newest lines
	exceptions []string
	urls       []string
}

const maxConsole = 4000

// Open opens a page of testdata, for example "page.html". Console and exceptions
// are printed when the test fails.
func (b *Browser) Open(tb testing.TB, name string) *Page {
	tb.Helper()
	return b.open(tb, b.web.url+"/"+name)
}

// View is how a page of [Browser.Visit] is looked at. The zero value is the
// browser's own way.
type View struct {
	Width, Height int
	Phone         bool // touch, and two pixels for one
	Dark          bool
	Language      string // of navigator.language
	Distrust      bool   // open it although the certificate is not trusted, as after a click on the warning
}

// Visit opens a page of anybody's. Its Origin is that of the address.
func (b *Browser) Visit(tb testing.TB, address string, v View) *Page {
	tb.Helper()
	before := v.looks()
	if v.Distrust {
		before = append(before, security.SetIgnoreCertificateErrors(true))
	}
	if v.Language != "" {
		before = append(before, emulation.SetUserAgentOverride("Mozilla/5.0 (test) Chrome").WithAcceptLanguage(v.Language))
	}
	return b.open(tb, address, before...)
}

// looks are the actions that make a page look so.
func (v View) looks() (list []chromedp.Action) {
	if v.Width > 0 {
		scale := 1.0
		if v.Phone {
			scale = 2
		}
		list = append(list, emulation.SetDeviceMetricsOverride(int64(v.Width), int64(v.Height), scale, v.Phone))
	}
	scheme := "light"
	if v.Dark {
		scheme = "dark"
	}
	return append(list, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
}

// Look changes size and colours of an open page.
func (p *Page) Look(v View) error { return chromedp.Run(p.ctx, v.looks()...) }

// Gesture is Eval as if the user had just clicked: some things browsers allow
// only then.
func (p *Page) Gesture(ctx context.Context, expr string, out any) error {
	return p.eval(ctx, expr, out, func(e *runtime.EvaluateParams) *runtime.EvaluateParams { return e.WithUserGesture(true) })
}

// Screenshot returns the whole page as PNG.
func (p *Page) Screenshot() ([]byte, error) {
	var png []byte
	err := chromedp.Run(p.ctx, chromedp.FullScreenshot(&png, 100))
	return png, err
}

func (b *Browser) open(tb testing.TB, address string, before ...chromedp.Action) *Page {
	tb.Helper()
	u, err := url.Parse(address)
	if err != nil {
		tb.Fatal(err)
	}
	origin := u.Scheme + "://" + u.Host
	id, err := b.newWindow()
	if err != nil {
		tb.Fatalf("open %s: new window: %v", address, err)
	}
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithTargetID(id))
	p := &Page{tb: tb, ctx: ctx, origin: origin}
	chromedp.ListenTarget(ctx, p.event)
	tb.Cleanup(func() {
		cancel()
		if tb.Failed() {
			p.dump()
		}
	})
	actions := append([]chromedp.Action{network.Enable(), runtime.Enable(), log.Enable()}, before...)
	if err := chromedp.Run(ctx, append(actions, chromedp.Navigate(address))...); err != nil {
		tb.Fatalf("open %s: %v", address, err)
	}
	return p
}

// newWindow makes a window in a browser context of its own. chromedp's
// WithNewBrowserContext asks for a tab, and Chromium's present headless mode has
// no window in a new context that could take one.
func (b *Browser) newWindow() (target.ID, error) {
	ctx := cdp.WithExecutor(b.ctx, chromedp.FromContext(b.ctx).Browser)
	bc, err := target.CreateBrowserContext().WithDisposeOnDetach(true).Do(ctx)
	if err != nil {
		return "", err
	}
	return target.CreateTarget("about:blank").WithBrowserContextID(bc).WithNewWindow(true).Do(ctx)
}

// Origin is the page's own origin.
func (p *Page) Origin() string { return p.origin }

// Eval runs the JavaScript expression and waits for its promise. The value goes
// to out as JSON does; nil drops it.
func (p *Page) Eval(ctx context.Context, expr string, out any) error {
	return p.eval(ctx, expr, out, func(e *runtime.EvaluateParams) *runtime.EvaluateParams { return e })
}

func (p *Page) eval(ctx context.Context, expr string, out any, with chromedp.EvaluateOption) error {
	run, cancel := context.WithCancel(p.ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	var raw []byte
	await := func(e *runtime.EvaluateParams) *runtime.EvaluateParams {
		return e.WithAwaitPromise(true).WithReturnByValue(true)
	}
	err := chromedp.Run(run, chromedp.Evaluate(expr, &raw, await, with))
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("page: %s: %w", head(expr), context.Cause(ctx))
		}
		return fmt.Errorf("page: %s: %w", head(expr), err)
	}
	if out == nil || len(raw) == 0 {
		return nil
	}
	return json.Unmarshal(raw, out)
}

// Call calls a function of the page with the arguments as JSON, and waits for
// its promise.
func (p *Page) Call(ctx context.Context, out any, fn string, args ...any) error {
	var list []string
	for _, a := range args {
		b, err := json.Marshal(a)
		if err != nil {
			return err
		}
		list = append(list, string(b))
	}
	return p.Eval(ctx, fn+"("+strings.Join(list, ", ")+")", out)
}

// Hosts returns the hosts (with port, if the URL has one) that the page asked
// for by HTTP or WebSocket, sorted, without the page's own origin. Attempts
// that failed count.
func (p *Page) Hosts() []string {
	var hosts []string
	for _, raw := range p.URLs() {
		if u, err := url.Parse(raw); err == nil && u.Host != "" && !strings.HasPrefix(raw, p.origin+"/") {
			hosts = append(hosts, u.Host)
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// URLs returns all requested URLs, in order.
func (p *Page) URLs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.urls)
}

// Console returns the newest console lines.
func (p *Page) Console() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.console)
}

// Exceptions returns uncaught exceptions.
func (p *Page) Exceptions() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.exceptions)
}

func (p *Page) event(ev any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch ev := ev.(type) {
	case *runtime.EventConsoleAPICalled:
		var parts []string
		for _, a := range ev.Args {
			if a.Value != nil {
				parts = append(parts, string(a.Value))
			} else {
				parts = append(parts, a.Description)
			}
		}
		if len(p.console) == maxConsole {
			p.console = slices.Delete(p.console, 0, maxConsole/2)
		}
		line := string(ev.Type) + ": " + strings.Join(parts, " ")
		// Some pages colour their lines: a format, then styles.
		if _, rest, styled := strings.Cut(line, `"display: inline" `); styled {
			line = rest
		}
		p.console = append(p.console, line)
	case *log.EventEntryAdded: // what the browser itself complains of: policies, failed loads
		p.console = append(p.console, string(ev.Entry.Level)+": "+ev.Entry.Text)
	case *runtime.EventExceptionThrown:
		p.exceptions = append(p.exceptions, ev.ExceptionDetails.Error())
	case *network.EventRequestWillBeSent:
		p.urls = append(p.urls, ev.Request.URL)
	case *network.EventWebSocketCreated:
		p.urls = append(p.urls, ev.URL)
	}
}

func (p *Page) dump() {
	p.mu.Lock()
	defer p.mu.Unlock()
	const lines, width = 80, 300
	show := p.console[max(0, len(p.console)-lines):]
	var b strings.Builder
	for _, l := range show {
		fmt.Fprintf(&b, "  %s\n", l[:min(len(l), width)])
	}
	p.tb.Logf("exceptions of the page: %q\nhosts asked: %q\nconsole of the page:\n%s", p.exceptions, p.urls, b.String())
}

func head(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
