package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/turngate/turngate/config"
)

var fenced = regexp.MustCompile("(?ms)^( *)```(toml|js|sh)\n(.*?)^ *```")

// Every snippet of the README is what the program accepts or prints.
func TestReadmeSnippets(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	env := config.Env{Lookup: func(name string) (string, bool) { return "long enough to be one", name == "TURNGATE_PASSWORD" }}
	seen := map[string]int{}
	for _, m := range fenced.FindAllStringSubmatch(string(readme), -1) {
		indent, kind, text := m[1], m[2], strings.ReplaceAll("\n"+m[3], "\n"+m[1], "\n")[1:]
		seen[kind]++
		switch kind {
		case "toml":
			text = strings.ReplaceAll(text, "file:/etc/turngate/turn.password", "long enough to be one")
			if cfg, findings := config.LoadBytes("README.md", []byte(text), env); cfg == nil {
				t.Errorf("configuration:\n%s\n%v", text, findings)
			}
		case "js":
			golden, err := os.ReadFile("testdata/client-trtc.js")
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(golden), text) {
				t.Errorf("the client snippet is not what \"turngate client trtc\" prints:\n%s", text)
			}
		case "sh":
			for _, command := range []string{"go run ./cmd/turngate serve ", "go test ./... "} {
				if !strings.Contains(text, command) {
					t.Errorf("the two commands: %q is missing in %q", command, indent+text)
				}
			}
		}
	}
	if seen["toml"] != 2 || seen["js"] != 1 || seen["sh"] != 1 {
		t.Errorf("snippets found: %v, want 2 toml, 1 js, 1 sh", seen)
	}
}
