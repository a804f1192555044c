package config

import (
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// golden compares got with a file in testdata, or rewrites the file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// file is a file of a test machine.
type file struct {
	data string
	mode fs.FileMode
}

// machine is an Env with these variables and files, run as root.
func machine(vars map[string]string, files map[string]file) Env {
	return Env{
		Root:   true,
		Lookup: func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
		ReadFile: func(path string) ([]byte, fs.FileMode, error) {
			f, ok := files[path]
			if !ok {
				return nil, 0, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}
			return []byte(f.data), f.mode, nil
		},
	}
}

// mustLoad loads text that must have no error.
func mustLoad(t *testing.T, text string) *Config {
	t.Helper()
	cfg, findings := LoadBytes("turngate.toml", []byte(text), machine(nil, nil))
	if cfg == nil {
		t.Fatalf("findings:\n%v", findings)
	}
	return cfg
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestTheFileOfLayout2ALoads(t *testing.T) {
	cfg, findings := LoadBytes("/etc/turngate/turngate.toml", []byte(read(t, "layout-2a.toml")), machine(nil, nil))
	if len(findings) != 1 || findings[0].Key != "turn.user[0].password" || findings[0].Severity != Warning {
		t.Fatalf("findings: %v, want one about the password, which is a placeholder", findings)
	}
	if got, want := cfg.ExternalIP, []ExternalIP{{Public: netip.MustParseAddr("14.3.3.3")}}; !reflect.DeepEqual(got, want) {
		t.Errorf("external_ip: got %v, want %v", got, want)
	}
	if got := [2]uint16{cfg.TURN.MinPort, cfg.TURN.MaxPort}; got != [2]uint16{20000, 65535} {
		t.Errorf("relay range: got %v, want 20000 to 65535", got)
	}
	if got := cfg.TURN.User[0].Password.Reveal(); got != "…" {
		t.Errorf("password: got %q", got)
	}
	if len(cfg.Signaling) != 1 || cfg.Signaling[0].Upstream[0].String() != "https://signaling.rtc.qq.com/" || cfg.Signaling[0].KeepCookies {
		t.Errorf("signaling: got %+v, want the trtc preset", cfg.Signaling)
	}
	if len(cfg.Logger) != 1 || len(cfg.Logger[0].Upstream) != 0 || cfg.Logger[0].MaxBody != 8<<20 {
		t.Errorf("logger: got %+v, want the trtc preset", cfg.Logger)
	}
}

func TestAnEmptyFileIsTheDefault(t *testing.T) {
	cfg := mustLoad(t, "")
	if got := len(cfg.Signaling) + len(cfg.Logger); got != 2 || !cfg.UsesTRTC() {
		t.Errorf("got %d routes, want the two TRTC routes", got)
	}
	if got, want := cfg.TURN.Realm, "turngate"; got != want {
		t.Errorf("realm: got %q, want %q", got, want)
	}
	if got, want := cfg.StateDir, "/var/lib/turngate"; got != want {
		t.Errorf("state_dir: got %q, want %q", got, want)
	}
	if got, want := cfg.Admin.Socket, "/run/turngate/admin.sock"; got != want {
		t.Errorf("admin.socket: got %q, want %q", got, want)
	}
	if d := Default(); d == nil || d.Layout != External {
		t.Errorf("Default: got %+v", d)
	}
}

func TestEmptyRouteListsMeanNone(t *testing.T) {
	cfg := mustLoad(t, "signaling = []\nlogger = []")
	if len(cfg.Signaling)+len(cfg.Logger) != 0 || cfg.UsesTRTC() {
		t.Errorf("got %v and %v, want no route", cfg.Signaling, cfg.Logger)
	}
}

func TestStateLivesWhereTheServiceManagerOrTheUserSays(t *testing.T) {
	for _, tc := range []struct {
		name          string
		vars          map[string]string
		root          bool
		state, socket string
	}{
		{"systemd", map[string]string{"STATE_DIRECTORY": "/var/lib/tg:/x", "RUNTIME_DIRECTORY": "/run/tg", "HOME": "/h"}, false, "/var/lib/tg", "/run/tg/admin.sock"},
		{"root", map[string]string{"HOME": "/root"}, true, "/var/lib/turngate", "/run/turngate/admin.sock"},
		{"a user", map[string]string{"HOME": "/home/u"}, false, "/home/u/.local/state/turngate", "/home/u/.local/state/turngate/admin.sock"},
		{"a user with XDG", map[string]string{"HOME": "/home/u", "XDG_STATE_HOME": "/s"}, false, "/s/turngate", "/s/turngate/admin.sock"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env := machine(tc.vars, nil)
			env.Root = tc.root
			cfg, _ := LoadBytes("f", nil, env)
			if cfg.StateDir != tc.state || cfg.Admin.Socket != tc.socket {
				t.Errorf("got %q and %q, want %q and %q", cfg.StateDir, cfg.Admin.Socket, tc.state, tc.socket)
			}
		})
	}
}

func TestRoutesTakeWhatTheyDoNotSayFromOtherTables(t *testing.T) {
	cfg := mustLoad(t, `
[upstream]
dial_timeout = "1s"
resolve = { "a.example.com" = "192.0.2.1" }
[[signaling]]
preset = "trtc"
tls_timeout = "9s"
sdk_app_ids = [7]
[[signaling]]
path = "/other"
upstream = ["wss://other.example.com:8443/x/"]
[[logger]]
preset = "trtc"
[trtc]
sdk_app_ids = [1400000001]
origins = ["https://app.example.com"]
`)
	trtc, other, logs := cfg.Signaling[0], cfg.Signaling[1], cfg.Logger[0]
	second := Duration(time.Second)
	if trtc.Reach.DialTimeout != second || trtc.Reach.TLSTimeout != 9*second || other.Reach.TLSTimeout != 5*second {
		t.Errorf("timeouts: got %v and %v", trtc.Reach, other.Reach)
	}
	if got := other.Reach.Resolve["a.example.com"].String(); got != "192.0.2.1" {
		t.Errorf("resolve: got %q", got)
	}
	if got := other.Upstream[0].String(); got != "https://other.example.com:8443/x/" {
		t.Errorf("upstream: got %q, want wss turned into https", got)
	}
	if !reflect.DeepEqual(trtc.SDKAppIDs, []uint64{7}) || !reflect.DeepEqual(logs.SDKAppIDs, []uint64{1400000001}) || other.SDKAppIDs != nil {
		t.Errorf("sdk_app_ids: got %v, %v, %v", trtc.SDKAppIDs, logs.SDKAppIDs, other.SDKAppIDs)
	}
	if len(trtc.Origins) != 1 || other.Origins != nil {
		t.Errorf("origins: got %v, %v", trtc.Origins, other.Origins)
	}
	if trtc.KeepCookies || !other.KeepCookies {
		t.Errorf("keep_cookies: got %v and %v, want false towards TRTC and true otherwise", trtc.KeepCookies, other.KeepCookies)
	}
	for key, want := range map[string]string{
		"signaling[0].dial_timeout":      "turngate.toml:3",
		"signaling[0].tls_timeout":       "turngate.toml:7",
		"signaling[0].handshake_timeout": "default",
		"signaling[0].path":              "preset trtc",
		"signaling[0].xff":               "default",
		"signaling[1].path":              "turngate.toml:10",
		"logger[0].sdk_app_ids":          "turngate.toml:15",
	} {
		if got := cfg.Origin(key).String(); got != want {
			t.Errorf("origin of %s: got %q, want %q", key, got, want)
		}
	}
}

func TestRelativePathsStartAtTheFile(t *testing.T) {
	cfg, _ := LoadBytes("/etc/turngate/turngate.toml", []byte("[tls]\ncert = \"tls/c.pem\"\nkey = \"/k.pem\""), machine(nil, nil))
	if got, want := cfg.TLS.Pairs(), [][2]string{{"/etc/turngate/tls/c.pem", "/k.pem"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLoadNamesAFileThatCannotBeRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.toml")
	cfg, findings := Load(path)
	if want := path + ": cannot be read: no such file or directory; check path, owner and mode"; cfg != nil || findings.Error() != want {
		t.Errorf("got %q, want %q", findings.Error(), want)
	}
	if _, findings = Load(filepath.Dir(path)); !strings.Contains(findings.Error(), "is not a regular file") {
		t.Errorf("a directory: got %q", findings.Error())
	}
}

func TestAWatchRTCRouteServesTheRequestsBesideItsSocket(t *testing.T) {
	cfg := mustLoad(t, `
[[signaling]]
preset = "watchrtc-staging-legacy"
path = "/wr/"
origins = ["https://app.example.com"]
dial_timeout = "1s"
[[signaling]]
preset = "watchrtc"
[[signaling]]
path = "/other"
upstream = ["https://other.example.com/"]
[[logger]]
preset = "watchrtc"
path = "/watchrtc/"
max_body = "2MiB"
`)
	routes := cfg.LogRoutes()
	if len(routes) != 2 || routes[0].MaxBody != 2<<20 {
		t.Fatalf("got %+v, want the route of the file and one for /wr/", routes)
	}
	got := routes[1]
	if got.Path != "/wr/" || got.Upstream[0].String() != "https://watchrtc-staging2.testrtc.com/" || got.XFF != "append" || !got.KeepCookies ||
		got.MaxBody != 8<<20 || len(got.Origins) != 1 || got.Reach.DialTimeout != Duration(time.Second) || got.Timeout <= 0 {
		t.Errorf("got %+v, want it like its [[signaling]] route", got)
	}
	if len(cfg.Logger) != 1 {
		t.Errorf("the routes of the file have become %d", len(cfg.Logger))
	}
}
