package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/turngate/turngate"

// mayImport says which packages of ours the code of a folder may import; a
// folder stands for itself and everything below it. Tests may import
// internal/testnet besides, and tests of cmd/turngate everything. Changing the
// table is a design decision and gets a note in docs/decisions.
var mayImport = map[string][]string{
	"cmd/turngate":    {"config", "signaling", "turn", "logger", "firewall", "internal", "docs"},
	"config":          {},
	"config/importer": {"config"},
	"signaling":       {"signaling/entry", "internal/proxy", "internal/poller"},
	"signaling/entry": {"internal/proxy", "internal/limit"},
	"logger":          {"internal/proxy", "internal/limit", "logger/spool"},
	"logger/spool":    {},
	"firewall":        {},

	"signaling/inspect": {"signaling/entry", "internal/proxy"},

	"turn":           {"turn/wire", "turn/allocator", "turn/relay", "turn/peers", "turn/ports", "turn/offload", "internal/limit"},
	"turn/wire":      {},
	"turn/allocator": {"turn/wire"},
	"turn/relay":     {"turn/offload"},
	"turn/offload":   {},
	"turn/peers":     {},
	"turn/ports":     {},
	"turn/userdb":    {},

	"internal/edge":      {"internal/limit", "internal/poller"},
	"internal/acme":      {},
	"internal/poller":    {},
	"internal/proxy":     {"internal/limit", "internal/poller"},
	"internal/pki":       {},
	"internal/limit":     {},
	"internal/admin":     {},
	"internal/doctor":    {},
	"internal/pages":     {"internal/limit"},
	"internal/setup":     {},
	"internal/testnet":   {"internal/testnet"},
	"internal/accesslog": {},
	"internal/manual":    {},

	"docs": {}, // the documents, for "turngate help"

	"scripts": {"config"}, // its tests
}

// homes says where each outside module may be imported by what is not a test.
// A module that is not listed has no home yet.
var homes = map[string][]string{
	"github.com/pion/turn/v3":               {"turn/allocator"},
	"github.com/pion/logging":               {"turn/allocator"},
	"github.com/pion/stun/v2":               {"turn/wire"},
	"github.com/gorilla/websocket":          {"signaling", "internal/testnet"},
	"github.com/BurntSushi/toml":            {"config"},
	"github.com/spf13/cobra":                {"cmd/turngate"},
	"github.com/prometheus/client_golang":   {"internal/admin", "cmd/turngate", metricsFile},
	"github.com/coreos/go-systemd/v22":      {"internal/admin"},
	"github.com/pires/go-proxyproto":        {"internal/edge"},
	"modernc.org/sqlite":                    {"turn/userdb"},
	"github.com/jackc/pgx/v5":               {"turn/userdb"},
	"github.com/redis/go-redis/v9":          {"turn/userdb"},
	"github.com/caddyserver/certmagic":      {"internal/acme"},
	"github.com/mholt/acmez/v3":             {"internal/acme"},
	"go.uber.org/zap":                       {"internal/acme"},
	"github.com/cilium/ebpf":                {"turn/offload"},
	"golang.org/x/time":                     {"internal/limit"},
	"golang.org/x/net":                      {"turn/relay", "signaling", "logger", "internal/proxy", "internal/testnet"},
	"golang.org/x/sys":                      {"turn/relay", "turn/offload", "internal/edge", "internal/proxy", "internal/admin", "internal/testnet"},
	"golang.org/x/term":                     {"cmd/turngate"},
	"github.com/yuin/goldmark":              {"internal/manual"},
	"github.com/pion/webrtc/v4":             {"internal/testnet"},
	"github.com/pion/ice/v4":                {"internal/testnet"},
	"github.com/pion/interceptor":           {"internal/testnet"},
	"github.com/pion/rtcp":                  {"internal/testnet"},
	"github.com/pion/rtp":                   {"internal/testnet"},
	"github.com/pion/dtls/v3":               {"internal/testnet"},
	"github.com/chromedp/chromedp":          {"internal/testnet"},
	"github.com/chromedp/cdproto":           {"internal/testnet"},
	"github.com/rogpeppe/go-internal":       {testOnly},
	"github.com/google/go-cmp":              {testOnly},
	"go.yaml.in/yaml/v3":                    {testOnly},
	"go.uber.org/goleak":                    {testOnly},
	"github.com/prometheus/client_model/go": {testOnly},
}

const (
	metricsFile = "metrics.go" // of any room
	testOnly    = "_test.go"
)

// The sources are read here and not by "go list": a test that starts another
// program is served from the test cache after a violation.
func TestImportsKeepToTheHouse(t *testing.T) {
	imports := 0
	each(t, func(file, folder string, test bool, imported string) {
		imports++
		if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
			if !allowed(folder, ours, test) {
				t.Errorf("%s imports %s: %s may not (see mayImport)", file, ours, folder)
			}
			return
		}
		if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
			return // the standard library
		}
		at, known := homeOf(imported)
		switch {
		case !known:
			t.Errorf("%s imports %s, which has no home in the house (see homes)", file, imported)
		case test || slices.Contains(at, metricsFile) && path.Base(file) == metricsFile:
		case !slices.ContainsFunc(at, func(home string) bool { return within(folder, home) }):
			t.Errorf("%s imports %s, whose home is %v", file, imported, at)
		}
	})
	if imports < 100 {
		t.Errorf("read %d imports only: the test does not see the sources", imports)
	}
}

func TestTheTopLevelIsTheCard(t *testing.T) {
	want := []string{"cmd", "signaling", "turn", "logger", "firewall", "config", "scripts", "internal", "docs", ".ci",
		"go.mod", "go.sum", "README.md", "LICENSE", ".gitignore", ".git"}
	entries, err := filepath.Glob("../../*")
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := filepath.Glob("../../.[a-z]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range append(entries, hidden...) {
		if name := filepath.Base(e); !slices.Contains(want, name) && name != "turngate" && name != "dist" {
			t.Errorf("%s is not of the top level", name)
		}
	}
}

// each calls f with every import of every Go file.
func each(t *testing.T, f func(file, folder string, test bool, imported string)) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2 || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		for _, i := range parsed.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			f(rel, path.Dir(rel), strings.HasSuffix(rel, "_test.go"), imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func allowed(folder, imported string, test bool) bool {
	if folder == imported || test && (within(imported, "internal/testnet") || within(folder, "cmd/turngate")) {
		return true
	}
	// The longest row that the folder is in counts.
	row := ""
	for r := range mayImport {
		if within(folder, r) && len(r) > len(row) {
			row = r
		}
	}
	list, ok := mayImport[row]
	if test && within(folder, "turn") { // the rooms of TURN are tested together
		list = append(slices.Clone(list), "turn")
	}
	return ok && slices.ContainsFunc(list, func(l string) bool { return within(imported, l) })
}

// within reports whether a path is a folder or lies below it.
func within(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

func homeOf(imported string) ([]string, bool) {
	for m, at := range homes {
		if within(imported, m) {
			return at, true
		}
	}
	return nil, false
}
