// Package browser drives a real headless Chromium from tests: it opens a test
// page from loopback, runs scripts in it with a deadline, and reports what the
// page asked of the network.
//
// # Trust
//
// Chromium verifies the certificate of a "turns:" server in the network service,
// with the same verifier as for https and wss. One switch therefore covers all
// of them: --ignore-certificate-errors-spki-list with the key of a certificate of
// the served chain (leaf or authority, as long as the server sends it). It needs
// --user-data-dir to be honoured. No NSS database and no managed policy is needed.
package browser

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/turngate/turngate/internal/testnet"
)

// Options of a browser.
type Options struct {
	// Trust lists certificates (leaf or authority) whose keys are accepted in a
	// served chain, whatever the name.
	Trust []*x509.Certificate
	// Hosts maps host names, or patterns like "*.rtc.qq.com", to "addr" or
	// "addr:port". Every other name does not resolve, so that nothing leaves the
	// machine; loopback addresses stay what they are. The port holds for https and
	// wss; the URL of a TURN server needs its real one.
	Hosts map[string]string
	// Flags are further Chromium switches, without the dashes.
	Flags map[string]any
}

// Browser is a running Chromium with a fresh profile.
type Browser struct {
	tb  testing.TB
	ctx context.Context
	web *site
}

// Start starts Chromium and the server of the test pages. Both end with the
// test. It skips as testnet.Need does.
func Start(tb testing.TB, o Options) *Browser {
	tb.Helper()
	testnet.Need(tb, "chromium")
	web, err := newSite()
	if err != nil {
		tb.Fatalf("test page server: %v", err)
	}
	hosts := maps.Clone(o.Hosts)
	if hosts == nil {
		hosts = map[string]string{}
	}
	hosts[PageHost] = web.addr
	// Not TempDir: Chromium's children still write while it is being removed.
	profile, err := os.MkdirTemp("", "turngate-chromium-")
	if err != nil {
		web.close()
		tb.Fatalf("browser profile: %v", err)
	}
	opts := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(testnet.Program("chromium", "chromium-browser", "google-chrome")),
		chromedp.UserDataDir(profile),
		chromedp.NoFirstRun,
		chromedp.NoDefaultBrowserCheck,
		chromedp.Headless,
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-extensions", true),
		chromedp.Flag("disable-default-apps", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		// Timers of a page nobody looks at must keep their pace.
		chromedp.Flag("disable-background-timer-throttling", true),
		chromedp.Flag("disable-backgrounding-occluded-windows", true),
		chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.Flag("use-fake-ui-for-media-stream", true),
		chromedp.Flag("use-fake-device-for-media-stream", true),
		chromedp.Flag("autoplay-policy", "no-user-gesture-required"),
		chromedp.Flag("host-resolver-rules", resolverRules(hosts)),
		chromedp.WSURLReadTimeout(time.Minute), // a loaded machine starts slowly
		chromedp.Flag("ignore-certificate-errors-spki-list", spkiList(append([]*x509.Certificate{web.cert}, o.Trust...))),
	}
	for name, value := range o.Flags {
		opts = append(opts, chromedp.Flag(name, value))
	}
	alloc, endAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, end := chromedp.NewContext(alloc)
	tb.Cleanup(func() {
		// Ask first: a browser that is killed leaves children that still write.
		polite, cancel := context.WithTimeout(ctx, 10*time.Second)
		chromedp.Cancel(polite)
		cancel()
		end()
		endAlloc()
		web.close()
		remove(profile)
	})
	if err := chromedp.Run(ctx); err != nil {
		tb.Fatalf("chromium: %v", err)
	}
	return &Browser{tb: tb, ctx: ctx, web: web}
}

// remove deletes the profile, which the last of Chromium's processes may still
// be adding to.
func remove(dir string) {
	for range 100 {
		if os.RemoveAll(dir) == nil {
			return
		}
		time.Sleep(20 * time.Millisecond) // foreign processes; there is no event to wait for
	}
}

func resolverRules(hosts map[string]string) string {
	var rules []string
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		// WebRTC looks up TURN servers over UDP with a final dot, all else without.
		rules = append(rules, "MAP "+name+" "+hosts[name], "MAP "+name+". "+hosts[name])
	}
	return strings.Join(append(rules, "MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1", "EXCLUDE localhost"), ", ")
}

func spkiList(certs []*x509.Certificate) string {
	var sums []string
	for _, c := range certs {
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		sums = append(sums, base64.StdEncoding.EncodeToString(sum[:]))
	}
	return strings.Join(sums, ",")
}
