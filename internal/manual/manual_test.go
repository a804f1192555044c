package manual_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/turngate/turngate/internal/manual"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

func read(t *testing.T, pages map[string]string) *manual.Manual {
	t.Helper()
	files := fstest.MapFS{}
	for name, text := range pages {
		files[name+".md"] = &fstest.MapFile{Data: []byte(text)}
	}
	m, err := manual.Read(files)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// What a terminal shows, in three widths and with escape sequences.
func TestRendering(t *testing.T) {
	src, err := os.ReadFile("testdata/page.md")
	if err != nil {
		t.Fatal(err)
	}
	p, err := manual.Parse("page", src)
	if err != nil {
		t.Fatal(err)
	}
	link := func(target string) string { return "see " + target }
	for name, style := range map[string]manual.Style{
		"width-80": {Link: link},
		"width-40": {Width: 40, Link: link},
		"bold-60":  {Width: 60, Bold: true},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := p.Whole().Write(&b, style); err != nil {
				t.Fatal(err)
			}
			file := "testdata/" + name + ".txt"
			if *update {
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Errorf("rendered differently (-want +got; -update rewrites it):\n%s", diff)
			}
		})
	}
}

func TestFinding(t *testing.T) {
	m := read(t, map[string]string{
		"layout-2a":       "# Outside\n\n## See that\n\n## If not\n",
		"layout-2b":       "# Inside\n\n## See that\n",
		"operations":      "# Operating\n\n## Reload\n\n## Access log\n\n### Fields\n\n## Log\n",
		"troubleshooting": "# Symptoms\n\n## 5501: `enterRoom` fails\n\n## TURN 401\n\n## HTTP 401\n\nThe code TG-061 of a check, and\n486 elsewhere.\n\n### A case\n\n`TG-062`\n",
	})
	for _, c := range []struct {
		name  string
		words string
		want  string
	}{
		{"a page", "operations", "operations"},
		{"a page in capitals and with its suffix", "Operations.md", "operations"},
		{"a page by its path", "docs/operations.md", "operations"},
		{"a page without signs", "Layout2A", "layout-2a"},
		{"the end of a name", "2-b", "layout-2b"},
		{"the beginning of a name", "trouble", "troubleshooting"},
		{"the beginning of two names", "layout", ""},
		{"one letter", "o", ""},
		{"a section by its address", "operations#access-log", "operations#access-log"},
		{"a section by words of its heading", "operations log", "operations#access-log operations#log"},
		{"a section by a word in the place of its address", "operations#fields", "operations#fields"},
		{"a symptom", "5501", "troubleshooting#5501-enterroom-fails"},
		{"a symptom that is two", "401", "troubleshooting#turn-401 troubleshooting#http-401"},
		{"both words of a heading", "http 401", "troubleshooting#http-401"},
		{"a heading of two pages", "see that", "layout-2a#see-that layout-2b#see-that"},
		{"a part of a word", "550", ""},
		{"what stands in a text only", "486", ""},
		{"nothing", "", ""},
		{"blanks", "  ", ""},
		{"an anchor alone", "#reload", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := addresses(m.Find(strings.Split(c.words, " ")...)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if got, want := addresses(m.Mentions("tg-061")), "troubleshooting#http-401"; got != want {
		t.Errorf("mentions of TG-061: got %q, want %q", got, want)
	}
	if got, want := addresses(m.Mentions("TG-062")), "troubleshooting#a-case"; got != want {
		t.Errorf("mentions of TG-062: got %q, want %q", got, want)
	}
}

func addresses(list []manual.Section) string {
	var all []string
	for _, s := range list {
		all = append(all, s.Address())
	}
	return strings.Join(all, " ")
}

func TestNearest(t *testing.T) {
	names := []string{"status", "sessions", "security", "serve", "top"}
	for word, want := range map[string]string{
		"sercurity": "[security]",
		"statsu":    "[status]",
		"Serve":     "[serve]",
		"tpo":       "[top]",
		"xyz":       "[]",
		"s":         "[]",
		"":          "[]",
	} {
		if got := fmt.Sprint(manual.Nearest(word, names)); got != want {
			t.Errorf("%q: got %s, want %s", word, got, want)
		}
	}
}

func TestBlocksAndLinks(t *testing.T) {
	m := read(t, map[string]string{"page": "# T\n\n1. one [a](b.md#c)\n\n   ```toml file=x\n   a = 1\n\n     b = 2\n   ```\n\ntext\n\n    indented\n\n| a |\n| --- |\n| [x](https://example.com/) |\n\n~~~\nplain\n~~~\n"})
	var got []string
	for _, b := range m.Page("page").Blocks() {
		got = append(got, fmt.Sprintf("%d %q %q", b.Line, b.Info, b.Text))
	}
	for _, l := range m.Page("page").Links() {
		got = append(got, fmt.Sprintf("%d %s", l.Line, l.Target))
	}
	want := []string{
		`6 "toml file=x" "a = 1\n\n  b = 2\n"`,
		`13 "" "indented\n"`,
		`20 "" "plain\n"`,
		"3 b.md#c", "17 https://example.com/",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestADocumentBeginsWithItsTitle(t *testing.T) {
	for _, src := range []string{"", "text\n", "text\n\n# late\n", "# one\n\n# two\n"} {
		if _, err := manual.Parse("page", []byte(src)); err == nil {
			t.Errorf("%q: got a page, want an error", src)
		}
	}
}

func TestAnchorsAreThoseOfGitHub(t *testing.T) {
	m := read(t, map[string]string{"page": "# 5501: `enterRoom` fails, *at once*\n\n## A & B\n\n## 在内网 (2-B)\n\n## A & B\n"})
	var got []string
	for _, s := range m.Page("page").Sections() {
		got = append(got, s.Anchor)
	}
	if diff := cmp.Diff([]string{"5501-enterroom-fails-at-once", "a--b", "在内网-2-b", "a--b-1"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
