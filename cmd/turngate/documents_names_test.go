package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/turngate/turngate/config"
)

// source is the text of a document.
func (d document) source(t *testing.T) string {
	t.Helper()
	src, err := os.ReadFile("../../" + d.file)
	if err != nil {
		t.Fatal(err)
	}
	return string(src)
}

// What the documents call a key or a table of the configuration is one.
func TestKeysInDocuments(t *testing.T) {
	cfg, findings := config.LoadBytes("", []byte("[turn]\nuser = [{name = \"a\", password = \"long enough to be one\"}]\ndatabase = [{driver = \"sqlite\", dsn = \"/db\"}]\n"), config.Env{})
	if cfg == nil {
		t.Fatal(findings)
	}
	known, tables := map[string]bool{}, map[string]bool{}
	for _, v := range cfg.Values() {
		parts := strings.Split(regexp.MustCompile(`\[\d+\]`).ReplaceAllString(v.Key, ""), ".")
		for i := range parts {
			known[strings.Join(parts[:i+1], ".")] = true
		}
		if len(parts) > 1 {
			tables[parts[0]] = true
		}
	}
	named := regexp.MustCompile("`\\[{0,2}([a-z_]+(?:\\.[a-z_]+)*)\\]{0,2}(?: [a-z_]+| = [^`]*)?`")
	seen := 0
	for _, d := range documents(t) {
		for _, m := range named.FindAllStringSubmatch(d.source(t), -1) {
			first, _, dotted := strings.Cut(m[1], ".")
			if isTable := strings.HasPrefix(m[0], "`["); !isTable && !dotted || dotted && !tables[first] || m[1] == "turn.sh" {
				continue // a word, or a name of something else
			}
			seen++
			if !known[m[1]] {
				t.Errorf("%s: %s is no key and no table of the configuration", d.file, m[0])
			}
		}
	}
	if seen < 30 {
		t.Errorf("%d keys found: the test does not see the documents", seen)
	}
}

// What they call a metric is one that metrics.md lists, which is held equal to the
// program by its own test.
func TestMetricsInDocuments(t *testing.T) {
	known := map[string]bool{}
	list, err := os.ReadFile(metricsDoc)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(turngate_[a-z_]+)`").FindAllStringSubmatch(string(list), -1) {
		known[m[1]] = true
	}
	for _, d := range documents(t) {
		for _, name := range regexp.MustCompile(`turngate_[a-z_]+`).FindAllString(d.source(t), -1) {
			family := strings.HasSuffix(name, "_") // turngate_turn_offload_*
			if family {
				family = false
				for k := range known {
					family = family || strings.HasPrefix(k, name)
				}
			}
			if !known[name] && !family {
				t.Errorf("%s: there is no metric %s", d.file, name)
			}
		}
	}
}

// Files of the package that they name are in it.
func TestPackagedFilesInDocuments(t *testing.T) {
	src, err := os.ReadFile("../../scripts/packaging/nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type entry struct{ src, dst string }
	var trees []entry
	var files []string
	for _, m := range regexp.MustCompile(`\{(?:src: (\S+), )?dst: ([^,}]+)(, type: tree)?`).FindAllStringSubmatch(string(src), -1) {
		if m[3] != "" {
			trees = append(trees, entry{m[1], m[2]})
		}
		files = append(files, m[2])
	}
	seen := 0
	for _, d := range documents(t) {
		for _, path := range regexp.MustCompile(`/usr/(?:share/turngate|lib)/[\w./-]*\w`).FindAllString(d.source(t), -1) {
			seen++
			ok := slices.Contains(files, path)
			for _, tree := range trees {
				if rest, below := strings.CutPrefix(path, tree.dst+"/"); below {
					_, err := os.Stat("../../" + tree.src + rest)
					ok = ok || err == nil
				}
			}
			if !ok {
				t.Errorf("%s: the package has no %s", d.file, path)
			}
		}
	}
	if seen < 5 {
		t.Errorf("%d files found: the test does not see the documents", seen)
	}
}
