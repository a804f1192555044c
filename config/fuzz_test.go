package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// FuzzLoadBytes: loading never panics, every finding has a line of the file or
// none, what loads can be shown, and what is shown loads again.
func FuzzLoadBytes(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.toml")
	for _, path := range append(paths, "turngate.toml") {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("a.b.c = { d = [ { e = '''x''' } ] }\n[[a.q]]\n\"x\\u0041\" = 1979-05-27 07:32:00\n"))
	f.Add([]byte(uncommented()))
	env := showEnv()
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := 1 + bytes.Count(data, []byte("\n"))
		cfg, findings := LoadBytes("f", data, env)
		for _, finding := range findings {
			if finding.Line < 0 || finding.Line > lines || finding.Col < 0 || finding.What == "" {
				t.Errorf("%d lines: %+v", lines, finding)
			}
		}
		if (cfg == nil) != findings.HasErrors() {
			t.Fatalf("config %v with findings %v", cfg != nil, findings)
		}
		if cfg == nil {
			return
		}
		var shown bytes.Buffer
		cfg.WriteTOML(&shown)
		if strings.Contains(shown.String(), masked) {
			return // a literal secret
		}
		again, findings := LoadBytes("f", shown.Bytes(), env)
		if again == nil {
			t.Fatalf("findings in the shown file: %v\n%s", findings, shown.String())
		}
		if changes := Changes(cfg, again); changes != nil {
			t.Errorf("the shown file means something else: %v", changes)
		}
	})
}

// FuzzScan: every key that the parser finds has a line.
func FuzzScan(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.toml")
	for _, path := range append(paths, "turngate.toml") {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add("a.b.c = { d = [ { e = '''x''' } ] }\n[[a.q]]\n'x' = 1979-05-27 07:32:00\n[a.q.z]\ny=\"\"\"\\\n\"\"\"\"\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		pos, tooDeep := scan(text)
		if tooDeep > 0 {
			return
		}
		var tree map[string]any
		if _, err := toml.Decode(text, &tree); err != nil {
			return
		}
		var visit func(path string, v any)
		visit = func(path string, v any) {
			if strings.ContainsAny(path, `\"`) {
				return // escapes are spelt in more ways than one
			}
			if path != "" && pos[path] == 0 {
				t.Errorf("no line for %s", path)
			}
			if m, ok := v.(map[string]any); ok {
				for k, e := range m {
					visit(child(path, k), e)
				}
			} else if list, ok := listOf(v); ok {
				for i, e := range list {
					visit(element(path, i), e)
				}
			}
		}
		visit("", tree)
	})
}
