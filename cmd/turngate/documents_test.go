package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/config/importer"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/manual"
	"github.com/turngate/turngate/internal/testnet"
)

// document is README.md or one of docs; the tests of its blocks are here and, as
// far as commands are run, in documents_run_test.go.
type document struct {
	*manual.Page
	file string // from the top of the project: "docs/operations.md"
}

// records tell what was, and no reader follows them.
var records = []string{"CHANGES.md", "measurements.md"}

func documents(t *testing.T) []document {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) < 5 {
		t.Fatalf("documents: %v, %v", files, err)
	}
	var list []document
	for _, file := range append(files, "../../README.md") {
		if slices.Contains(records, filepath.Base(file)) {
			continue
		}
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p, err := manual.Parse(strings.TrimSuffix(filepath.Base(file), ".md"), src)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, document{p, filepath.ToSlash(strings.TrimPrefix(file, "../../"))})
	}
	return list
}

// block is a piece of code with what the words behind its fence say:
//
//	toml file=/etc/turngate/turngate.toml    the reader writes this file
//	toml append=FILE                         the reader puts it at the end of the file
//	sh exit=1                                the commands end with 1; "0|1" with either
//	sh background=443                        they go on running, and listen on this port
type block struct {
	manual.Block
	doc   document
	lang  string
	words map[string]string
}

var knownWords = []string{"file", "append", "exit", "background"}

func (d document) blocks(t *testing.T) []block {
	t.Helper()
	var list []block
	for _, b := range d.Blocks() {
		fields := strings.Fields(b.Info)
		if len(fields) == 0 {
			t.Errorf("%s:%d: a block without a language: nothing can be tested of it", d.file, b.Line)
			continue
		}
		next := block{b, d, fields[0], map[string]string{}}
		for _, f := range fields[1:] {
			key, value, _ := strings.Cut(f, "=")
			if !slices.Contains(knownWords, key) || value == "" {
				t.Errorf("%s:%d: %q behind the fence means nothing", d.file, b.Line, f)
			}
			next.words[key] = value
		}
		list = append(list, next)
	}
	return list
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.doc.file, b.Line) }

// checkers say what holds of a block of their language, wherever it stands.
var checkers = map[string]func(*testing.T, block){
	"toml":       checkTOML,
	"sh":         checkShell,
	"console":    checkShell,
	"js":         checkJS,
	"nginx":      checkImport,
	"haproxy":    checkImport,
	"turnserver": checkImport,
	"yaml":       checkYAML,
	"json":       checkJSON,
	"keepalived": checkKeepalived,
	"logrotate":  checkLogrotate,
	"sql":        checkSQL,
	"redis":      checkRedis,
	"text":       checkDrawing,
}

// Every piece of code in the documents is of a kind that something is known of,
// and that holds.
func TestDocumentBlocks(t *testing.T) {
	for _, d := range documents(t) {
		for _, b := range d.blocks(t) {
			check, known := checkers[b.lang]
			if !known {
				t.Errorf("%s: nobody tests blocks of %q", b, b.lang)
				continue
			}
			t.Run(fmt.Sprintf("%s:%d", b.doc.Name, b.Line), func(t *testing.T) { check(t, b) })
		}
	}
}

func checkTOML(t *testing.T, b block) {
	const secret = "a-secret-that-is-long-enough"
	env := config.Env{
		Lookup:   func(string) (string, bool) { return secret, true },
		ReadFile: func(string) ([]byte, fs.FileMode, error) { return []byte(secret), 0o600, nil },
	}
	cfg, findings := config.LoadBytes(b.doc.file, []byte(b.Text), env)
	if cfg == nil {
		t.Errorf("%s: not a configuration:\n%s\n%v", b, b.Text, findings)
	}
	for _, f := range findings {
		t.Errorf("%s: %v", b, f)
	}
}

func checkYAML(t *testing.T, b block) {
	var v map[string]any
	if err := yaml.Unmarshal([]byte(b.Text), &v); err != nil || len(v) == 0 {
		t.Errorf("%s: %v, %v", b, v, err)
	}
	if _, isCompose := v["services"]; isCompose {
		return
	}
	testnet.Need(t, "helm")
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(b.Text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("helm", "lint", "--strict", "../../scripts/helm/turngate", "--values", file).CombinedOutput(); err != nil {
		t.Errorf("%s: not values of the chart: %v\n%s", b, err, out)
	}
	// What the chart does not know it would not use: each key is one that it has.
	var have map[string]any
	text, err := os.ReadFile("../../scripts/helm/turngate/values.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &have)
	}
	if err != nil {
		t.Fatal(err)
	}
	for key := range v {
		if _, known := have[key]; !known {
			t.Errorf("%s: the chart has no value %q", b, key)
		}
	}
}

func checkJSON(t *testing.T, b block) {
	if !json.Valid([]byte(b.Text)) {
		t.Errorf("%s: not JSON", b)
	}
}

// checkJS lets what "turngate client" prints pass, and has node read the rest.
func checkJS(t *testing.T, b block) {
	goldens, err := filepath.Glob("testdata/client*.js")
	if err != nil || len(goldens) == 0 {
		t.Fatal("no output of turngate client to compare with")
	}
	for _, name := range goldens {
		golden, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(golden), b.Text) {
			return
		}
	}
	if strings.Contains(b.Text, "turnServer") {
		t.Errorf("%s: what the page needs is not what \"turngate client\" prints", b)
	}
	testnet.Need(t, "npm")
	cmd := exec.Command("node", "--input-type=module", "--check", "-")
	cmd.Stdin = strings.NewReader(b.Text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", b, err, out)
	}
}

// checkImport has the importer read what it is for.
func checkImport(t *testing.T, b block) {
	name := map[string]string{"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "turnserver": "turnserver.conf"}[b.lang]
	res, err := importer.Import([]importer.Source{{Name: name, Data: []byte(b.Text)}}, importer.Options{})
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	for _, r := range res.Remarks {
		if r.Weight == importer.Lost {
			t.Errorf("%s: lost: %v", b, r)
		}
	}
}

func checkKeepalived(t *testing.T, b block) {
	testnet.Need(t, "keepalived")
	file := filepath.Join(t.TempDir(), "keepalived.conf")
	if err := os.WriteFile(file, []byte(b.Text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(testnet.Program("keepalived"), "--config-test", "--use-file", file).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", b, err, out)
	}
}

func checkLogrotate(t *testing.T, b block) {
	testnet.Need(t, "logrotate")
	dir := t.TempDir() // for /var/log/turngate, which is there where the package is
	file := filepath.Join(dir, "turngate")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(b.Text, "/var/log/turngate", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "access.log"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(testnet.Program("logrotate"), "--debug", "--state", file+".state", file).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("error:")) {
		t.Errorf("%s: %v\n%s", b, err, out)
	}
}

// checkDrawing lets drawings pass: everything else has a language.
func checkDrawing(t *testing.T, b block) {
	if !strings.ContainsAny(b.Text, "─►│└") {
		t.Errorf("%s: a block of text that is no drawing: nothing can be tested of it", b)
	}
}

// checkShell parses: that the commands do what is said is shown by running them.
func checkShell(t *testing.T, b block) {
	script := b.Text
	if b.lang == "console" {
		var lines []string
		for _, step := range console(b.Text) {
			lines = append(lines, step.command)
		}
		script = strings.Join(lines, "\n")
		if script == "" {
			t.Errorf("%s: no line begins with \"$ \"", b)
		}
	}
	cmd := exec.Command("bash", "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", b, err, out)
	}
	for _, line := range commandLines(script) {
		if err := parsesAsCommand(line); err != nil {
			t.Errorf("%s: %q: %v", b, strings.Join(line, " "), err)
		}
	}
}

// step is a command of a console block and what it prints.
type step struct {
	command string
	output  []string
}

func console(text string) []step {
	var steps []step
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			steps = append(steps, step{command: command})
		} else if n := len(steps); n > 0 {
			steps[n-1].output = append(steps[n-1].output, line)
		}
	}
	return steps
}

// commandLines finds the command lines of turngate in a script, as words.
func commandLines(script string) [][]string {
	script = strings.ReplaceAll(script, "\\\n", " ")
	var found [][]string
	for line := range strings.Lines(script) {
		for _, m := range atCommand.FindAllStringSubmatchIndex(line, -1) {
			found = append(found, shellWords(line[m[1]:]))
		}
	}
	return found
}

// atCommand is where a command of turngate begins.
var atCommand = regexp.MustCompile(`(?:^\s*|[|&;(]\s*|sudo |exec |env \S+ )(?:\./)?turngate(?:$|\s+)`)

// shellWords are the words up to the end of the command.
func shellWords(s string) []string {
	var words []string
	word, open, quote := "", false, rune(0)
	end := func() {
		if open {
			words = append(words, word)
		}
		word, open = "", false
	}
	for _, r := range s {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word += string(r)
		case r == '"' || r == '\'':
			quote, open = r, true
		case r == ' ' || r == '\t':
			end()
		case strings.ContainsRune("|;&)<>\n", r), r == '#' && !open:
			end()
			return words
		default:
			word, open = word+string(r), true
		}
	}
	end()
	return words
}

// parsesAsCommand checks a command line against the commands, flags and
// arguments that turngate has.
func parsesAsCommand(words []string) error {
	root := newRootCommand(streams{strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if cmd == root && len(words) > 0 {
		return fmt.Errorf("no command %q", words[0])
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if cmd.Name() == "help" {
		return help(streams{strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}}, root, cmd.Flags().Args())
	}
	if !cmd.Runnable() {
		return fmt.Errorf("%s is not a command by itself", cmd.CommandPath())
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// What stands in running text in backticks as a command of turngate is one: it
// may leave its arguments out.
func TestCommandsInRunningText(t *testing.T) {
	span := regexp.MustCompile("`(?:sudo )?turngate ([^`]+)`")
	for _, d := range documents(t) {
		src, err := os.ReadFile("../../" + d.file)
		if err != nil {
			t.Fatal(err)
		}
		inBlock := false
		for i, line := range strings.Split(string(src), "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				inBlock = !inBlock
			}
			if inBlock {
				continue
			}
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				words := shellWords(m[1])
				root := newRootCommand(streams{strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}})
				root.InitDefaultHelpCmd()
				cmd, rest, err := root.Find(words)
				if err != nil || cmd == root {
					t.Errorf("%s:%d: %q: no such command", d.file, i+1, m[0])
					continue
				}
				if err := cmd.ParseFlags(rest); err != nil && !strings.Contains(err.Error(), "needs an argument") {
					t.Errorf("%s:%d: %q: %v", d.file, i+1, m[0], err)
				}
			}
		}
	}
}

// Whoever has a code of something that is wrong finds it among the symptoms.
func TestEveryCodeBelongsToASymptom(t *testing.T) {
	src, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range doctor.Topics() {
		if (topic.Status == doctor.Fail || topic.Status == doctor.Warn) && !strings.Contains(string(src), string(topic.Code)) {
			t.Errorf("docs/troubleshooting.md does not name %s, %s", topic.Code, topic.Title)
		}
	}
}

// Codes of checks that the documents name exist.
func TestCodesInDocuments(t *testing.T) {
	for _, d := range documents(t) {
		src, err := os.ReadFile("../../" + d.file)
		if err != nil {
			t.Fatal(err)
		}
		for _, code := range regexp.MustCompile(`TG-\d{3}`).FindAllString(string(src), -1) {
			if _, known := doctor.Lookup(code); !known {
				t.Errorf("%s names %s, which is no code", d.file, code)
			}
		}
	}
}

// Links between documents lead somewhere, also those to a heading and those to
// files of the project.
func TestLinksOfDocuments(t *testing.T) {
	pages := map[string]document{}
	for _, d := range documents(t) {
		pages[d.file] = d
	}
	links := 0
	for _, d := range pages {
		for _, l := range d.Links() {
			links++
			if strings.Contains(l.Target, "://") {
				continue
			}
			target, anchor, hasAnchor := strings.Cut(l.Target, "#")
			file := d.file
			if target != "" {
				file = path.Join(path.Dir(d.file), target)
			}
			if _, err := os.Stat("../../" + file); err != nil {
				t.Errorf("%s:%d: %s leads nowhere", d.file, l.Line, l.Target)
				continue
			}
			page, known := pages[file]
			if !hasAnchor || !known {
				continue
			}
			if !slices.ContainsFunc(page.Sections(), func(s manual.Section) bool { return s.Anchor == anchor }) {
				t.Errorf("%s:%d: %s has no heading for #%s", d.file, l.Line, file, anchor)
			}
		}
	}
	if links < 20 {
		t.Errorf("%d links found: the test does not see the documents", links)
	}
}

// The map of the documents names each of them.
func TestTheMapIsComplete(t *testing.T) {
	src, err := os.ReadFile("../../docs/README.md")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("../../docs")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".md") && name != "README.md" && !strings.Contains(string(src), "("+name+")") {
			t.Errorf("docs/README.md does not name %s", name)
		}
	}
}

// The README begins with what builds and runs the program, and what tests it.
func TestTheTwoCommandsOfTheReadme(t *testing.T) {
	var all strings.Builder
	for _, d := range documents(t) {
		if d.file == "README.md" {
			for _, b := range d.Blocks() {
				all.WriteString(b.Text)
			}
		}
	}
	for _, command := range []string{"go run ./cmd/turngate serve ", "go test ./... "} {
		if !strings.Contains(all.String(), command) {
			t.Errorf("%q is in no block", command)
		}
	}
}

// A document in another language has the same commands and files as the one it
// is of.
func TestTranslations(t *testing.T) {
	pages := map[string]document{}
	for _, d := range documents(t) {
		pages[d.Name] = d
	}
	for name, d := range pages {
		original, isTranslation := strings.CutSuffix(name, ".zh")
		if !isTranslation {
			continue
		}
		of, ok := pages[original]
		if !ok {
			t.Errorf("%s is a translation of nothing", d.file)
			continue
		}
		code := func(d document) (list []string) {
			for _, b := range d.blocks(t) {
				list = append(list, "```"+b.Info+"\n"+b.Text)
			}
			return list
		}
		if got, want := code(d), code(of); !slices.Equal(got, want) {
			t.Errorf("%s has other code than %s: %d blocks, %d blocks\n%s", d.file, of.file, len(got), len(want), firstDifference(got, want))
		}
		if got, want := len(d.Sections()), len(of.Sections()); got != want {
			t.Errorf("%s: %d headings, %s has %d", d.file, got, of.file, want)
		}
	}
}

func firstDifference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("got\n%s\nwant\n%s", got[i], want[i])
		}
	}
	return ""
}
