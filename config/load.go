package config

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxFile is far above any real configuration.
const maxFile = 1 << 20

// Load reads the configuration file at path on this machine. The Config is
// nil when a finding is an error.
func Load(path string) (*Config, Findings) {
	env := Machine()
	data, mode, err := env.readFile(path)
	switch {
	case err != nil:
		var cause interface{ Unwrap() error }
		if errors.As(err, &cause) {
			err = cause.Unwrap() // the path stands in the finding already
		}
		return nil, Findings{{File: path, Severity: Error, What: "cannot be read: " + err.Error(), Fix: "check path, owner and mode"}}
	case !mode.IsRegular():
		return nil, Findings{{File: path, Severity: Error, What: "is not a regular file", Fix: "name the configuration file"}}
	}
	return LoadBytes(path, data, env)
}

// LoadBytes is [Load] for a file that was read already. The name stands in
// findings and origins, and relative paths in the file start at its directory.
func LoadBytes(name string, data []byte, env Env) (*Config, Findings) {
	r := &report{file: name}
	tree := r.parse(data)
	if tree == nil {
		r.findings.sort()
		return nil, r.findings
	}
	cfg := base()
	cfg.file = name
	dir := ""
	if name != "" {
		dir = filepath.Dir(name)
	}
	d := &decoder{report: r, env: env, dir: dir, set: map[string]bool{}}
	d.table("", tree, reflect.ValueOf(cfg).Elem())
	fill(cfg, d)
	check(cfg, d)
	r.findings.sort()
	if r.findings.HasErrors() {
		return nil, r.findings
	}
	return cfg, r.findings
}

// parse returns the file as a tree, or nil with a finding that says why not.
func (r *report) parse(data []byte) map[string]any {
	if len(data) >= maxFile {
		r.err("", "is 1 MiB or larger", "name the configuration file")
		return nil
	}
	text := strings.TrimPrefix(string(data), "\ufeff")
	pos, tooDeep := scan(text)
	if tooDeep > 0 {
		r.findings = append(r.findings, Finding{File: r.file, Line: tooDeep, Severity: Error,
			What: fmt.Sprintf("keys or brackets nest deeper than %d", maxDepth), Fix: "no key of turngate needs that"})
		return nil
	}
	r.pos = pos
	var tree map[string]any
	if _, err := toml.Decode(text, &tree); err != nil {
		r.findings = append(r.findings, syntaxFinding(r.file, text, pos, err))
		return nil
	}
	if tree == nil {
		tree = map[string]any{}
	}
	return tree
}

var definedTwice = regexp.MustCompile(`^Key '(.*)' has already been defined`)

// printable replaces what a terminal would not print.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if isControl(r) {
			return '?'
		}
		return r
	}, s)
}

// syntaxFinding turns an error of the TOML parser into a finding. Its message
// may quote the value; near a secret it is replaced.
func syntaxFinding(file, text string, pos positions, err error) Finding {
	f := Finding{File: file, Severity: Error, What: err.Error()}
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return f
	}
	lines := strings.Split(text, "\n")
	f.Line = min(max(pe.Position.Line, 0), len(lines))
	f.Key, f.What, f.Fix = pe.LastKey, shorten(printable(pe.Message)), "correct the TOML syntax here"
	source := pe.LastKey
	if f.Line > 0 {
		source += lines[f.Line-1]
		before := strings.Join(lines[:f.Line-1], "\n")
		if f.Line > 1 {
			before += "\n"
		}
		if col := pe.Position.Start - len(before) + 1; col > 0 && col <= len(lines[f.Line-1])+1 {
			f.Col = col
		}
	}
	if m := definedTwice.FindStringSubmatch(pe.Message); m != nil {
		f.Key = cmp.Or(pe.LastKey, m[1])
		f.What, f.Fix = "is set twice", "remove one of the two"
		if first := pos[f.Key]; first > 0 && first < f.Line {
			f.What += fmt.Sprintf(", first on line %d", first)
		}
		return f
	}
	names := keyNames()
	last := pe.LastKey[strings.LastIndexByte(pe.LastKey, '.')+1:]
	if _, known := names[last]; !known {
		f.Key = "" // in a file that is no configuration, say one of keys, it is content
	}
	for name, secret := range names {
		if secret && strings.Contains(strings.ToLower(source), name) {
			f.What, f.Fix = "is not valid TOML", "put the value in quotes, and a backslash or quote in it behind a backslash"
		}
	}
	return f
}
