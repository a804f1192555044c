package browser

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/turngate/turngate/internal/testnet"
)

// Versions of the SDKs that the tests drive. Another version is another wire
// contract until somebody has read it.
const (
	V5Version = "5.17.1"  // trtc-sdk-v5
	V4Version = "4.15.22" // trtc-js-sdk

	WatchRTCVersion       = "1.43.1" // @testrtc/watchrtc-sdk
	WatchRTCLegacyVersion = "1.30.4" // the same, with the hosts of its time
)

// OpenV5 opens the page that holds trtc-sdk-v5, OpenV4 the one with
// trtc-js-sdk. The SDKs come from the npm registry once, and are kept in the
// user's cache folder: they are not ours to distribute.
func (b *Browser) OpenV5(tb testing.TB) *Page { return b.openSDK(tb, "v5.html") }

// OpenV4 is OpenV5 for trtc-js-sdk.
func (b *Browser) OpenV4(tb testing.TB) *Page { return b.openSDK(tb, "v4.html") }

func (b *Browser) openSDK(tb testing.TB, page string) *Page {
	tb.Helper()
	dir := Packages(tb, "trtc-"+V5Version+"-"+V4Version, "trtc-sdk-v5@"+V5Version, "trtc-js-sdk@"+V4Version)
	b.web.serve("/sdk/v5.js", filepath.Join(dir, "node_modules", "trtc-sdk-v5", "trtc.js"))
	b.web.serve("/sdk/v4.js", filepath.Join(dir, "node_modules", "trtc-js-sdk", "trtc.js"))
	return b.Open(tb, page)
}

// OpenWatchRTC opens the page that holds a version of the watchRTC SDK.
func (b *Browser) OpenWatchRTC(tb testing.TB, version string) *Page {
	tb.Helper()
	dir := Packages(tb, "watchrtc-"+version, "@testrtc/watchrtc-sdk@"+version)
	b.web.serve("/sdk/watchrtc-"+version+".js", filepath.Join(dir, "node_modules", "@testrtc", "watchrtc-sdk", "lib", "index.js"))
	return b.Open(tb, "watchrtc.html?"+version)
}

// Packages returns a folder of the user's cache with npm packages installed.
func Packages(tb testing.TB, name string, specs ...string) string {
	tb.Helper()
	testnet.Need(tb, "npm")
	cache, err := os.UserCacheDir()
	if err != nil {
		tb.Fatalf("cache folder: %v", err)
	}
	base := filepath.Join(cache, "turngate-test")
	dir := filepath.Join(base, name)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		tb.Fatalf("cache folder: %v", err)
	}
	// Other test processes may do the same now: install aside, then move.
	tmp, err := os.MkdirTemp(base, "install-")
	if err != nil {
		tb.Fatalf("cache folder: %v", err)
	}
	defer os.RemoveAll(tmp)
	args := append([]string{"install", "--prefix", tmp, "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact"}, specs...)
	cmd := exec.CommandContext(tb.Context(), "npm", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		testnet.Lacks(tb, "npm", fmt.Sprintf("npm install: %v\n%s", err, out))
	}
	if err := os.Rename(tmp, dir); err != nil {
		if _, there := os.Stat(dir); there != nil {
			tb.Fatalf("cache folder: %v", err)
		}
	}
	return dir
}
