package importer

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/turngate/turngate/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// cases are folders of testdata, each the file system of a host, with the files
// that are named to the import.
var cases = []struct {
	dir   string
	files []string
	opts  Options
}{
	{dir: "recipe", files: []string{"/etc/nginx/nginx.conf", "/etc/coturn/turnserver.conf"}},
	{dir: "recipe-script", files: []string{"/opt/turn.sh"}, opts: Options{ExternalIP: "14.3.3.3"}},
	{dir: "debian-nginx", files: []string{"/etc/nginx/nginx.conf"}},
	{dir: "debian-coturn", files: []string{"/etc/turnserver.conf"}},
	{dir: "debian-haproxy", files: []string{"/etc/haproxy/haproxy.cfg"}},
	{dir: "el-nginx", files: []string{"/etc/nginx/nginx.conf"}},
	{dir: "el-haproxy", files: []string{"/etc/haproxy/haproxy.cfg"}},
	{dir: "ws-map", files: []string{"/etc/nginx/conf.d/chat.conf"}},
	{dir: "node-app", files: []string{"/etc/nginx/sites-available/app"}},
	{dir: "watchrtc", files: []string{"/etc/nginx/nginx.conf"}},
	{dir: "coturn-nextcloud", files: []string{"/etc/turnserver.conf"}},
	{dir: "coturn-matrix", files: []string{"/etc/turnserver.conf"}},
	{dir: "coturn-jitsi", files: []string{"/etc/turnserver.conf"}},
	{dir: "coturn-bbb", files: []string{"/etc/turnserver.conf"}},
	{dir: "docker-coturn", files: []string{"/opt/run.sh"}},
	{dir: "systemd-coturn", files: []string{"/etc/systemd/system/turn.service"}},
	{dir: "haproxy-wss", files: []string{"/etc/haproxy/haproxy.cfg"}},
}

// on gives options the file system of a case.
func on(dir string, opts Options) Options {
	root := filepath.Join("testdata", dir)
	opts.ReadFile = func(path string) ([]byte, error) { return os.ReadFile(filepath.Join(root, path)) }
	opts.Glob = func(pattern string) ([]string, error) {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		for i := range names {
			names[i] = strings.TrimPrefix(names[i], root)
		}
		return names, err
	}
	return opts
}

func importCase(t testing.TB, dir string, files []string, opts Options) (*Result, error) {
	t.Helper()
	opts = on(dir, opts)
	var sources []Source
	for _, name := range files {
		data, err := opts.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, Source{name, data})
	}
	return Import(sources, opts)
}

func TestImportedFilesAreWhatTheyShouldBe(t *testing.T) {
	for _, c := range cases {
		t.Run(c.dir, func(t *testing.T) {
			res, err := importCase(t, c.dir, c.files, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			var remarks strings.Builder
			for _, r := range res.Remarks {
				fmt.Fprintln(&remarks, r)
			}
			golden(t, filepath.Join(c.dir, "want.toml"), string(res.TOML))
			golden(t, filepath.Join(c.dir, "want.remarks"), remarks.String())
		})
	}
	dirs, _ := filepath.Glob("testdata/*")
	for _, d := range dirs {
		if d != "testdata/fuzz" && filepath.Ext(d) == "" && !slices.ContainsFunc(cases, func(c struct {
			dir   string
			files []string
			opts  Options
		}) bool {
			return c.dir == filepath.Base(d)
		}) {
			t.Errorf("%s is no case", d)
		}
	}
}

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

// The routes of the imported recipe are those of the file that somebody who knows
// the presets would write.
func TestTheRecipeIsImportedAsItsPresets(t *testing.T) {
	res, err := importCase(t, "recipe", cases[0].files, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Remarks) > 0 {
		t.Errorf("remarks: got %v, want none", res.Remarks)
	}
	byHand, findings := config.LoadBytes("", []byte(`domain = "proxy.example.com"
external_ip = "14.3.3.3"
[tls]
cert = "/etc/nginx/crt/1_proxy.example.com_bundle.crt"
key = "/etc/nginx/crt/2_proxy.example.com.key"
[turn]
realm = "tencent"
max_port = 65535
[[turn.user]]
name = "turn"
password = "turn"
[[signaling]]
preset = "trtc"
[[logger]]
preset = "trtc"
`), config.Env{})
	if byHand == nil {
		t.Fatal(findings)
	}
	if changes := config.Changes(byHand, res.Config); len(changes) > 0 {
		t.Errorf("the import means something else: %v", changes)
	}
	if got := res.Config.TURN.User[0].Password.Reveal(); got != "turn" {
		t.Errorf("password: got %q, want %q", got, "turn")
	}
	script, err := importCase(t, "recipe-script", cases[1].files, cases[1].opts)
	if err != nil || len(script.Remarks) > 0 {
		t.Errorf("turn.sh: got %v, remarks %v, want neither", err, script.Remarks)
	}
}

// one imports a single file.
func one(t *testing.T, name, text string) (*Result, error) {
	t.Helper()
	return Import([]Source{{name, []byte(text)}}, Options{})
}

func TestBrokenSyntaxIsReportedWithItsLine(t *testing.T) {
	for _, tc := range []struct{ name, file, text, want string }{
		{"a missing semicolon", "nginx.conf", "http {\n server {\n  listen 443\n }\n}\n", `nginx.conf:3: "listen" does not end with a semicolon`},
		{"a missing brace", "nginx.conf", "http {\n server {\n  listen 443;\n }\n", "nginx.conf:5: the file ends inside a block: a closing brace is missing"},
		{"a brace too many", "nginx.conf", "events {}\n}\n", "nginx.conf:2: a closing brace that closes nothing"},
		{"an open quote", "nginx.conf", "http {\n add_header X \"a;\n}\n", "nginx.conf:2: a quote that is not closed"},
		{"a word behind a quote", "nginx.conf", "http {\n add_header X \"a\"b;\n}\n", "nginx.conf:2: 'b' directly behind a closing quote"},
		{"a lone semicolon", "nginx.conf", "events {}\n;\n", "nginx.conf:2: a semicolon that ends nothing"},
		{"an open Lua block", "nginx.conf", "http {\n init_by_lua_block {\n local a = '}'\n", "nginx.conf:2: a Lua block that is not closed"},
		{"deep blocks", "nginx.conf", strings.Repeat("http {\n", 100), "nginx.conf:65: blocks nest deeper than 64"},
		{"another kind of file", "x.txt", "dear sir,\n", "x.txt: is neither nginx.conf nor turnserver.conf nor haproxy.cfg, nor a command line of turnserver"},
		{"a binary", "nginx.conf", "\x7fELF\x00", "nginx.conf: is not a text file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := one(t, tc.file, tc.text)
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || err.Error() != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}
