package config

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Severity says whether a finding stops the file from being used.
type Severity int

const (
	Warning Severity = iota // worth a look; the file is used
	Error                   // the file is not used
)

func (s Severity) String() string {
	if s == Error {
		return "error"
	}
	return "warning"
}

// MarshalText writes "error" or "warning".
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one thing that is wrong with a configuration file, for the
// operator who has to mend it. It never holds the value of a secret.
type Finding struct {
	File     string   `json:"file"`
	Line     int      `json:"line"` // from 1; 0 when no line is to blame
	Col      int      `json:"col,omitempty"`
	Key      string   `json:"key,omitempty"` // full path, elements of lists counted from 0: turn.user[0].name
	Severity Severity `json:"severity"`
	What     string   `json:"what"`
	Fix      string   `json:"fix,omitempty"`
}

// String is the finding on one line: FILE:LINE: key: what; fix.
func (f Finding) String() string {
	text := f.place()
	if f.Severity == Warning {
		text += "warning: "
	}
	text += f.about()
	if f.Fix != "" {
		text += "; " + f.Fix
	}
	return text
}

// Said is the finding without its fix and severity, for who shows these in a
// way of his own: FILE:LINE: key: what.
func (f Finding) Said() string { return f.place() + f.about() }

// place is FILE:LINE:COL: with what of it is known.
func (f Finding) place() string {
	at := f.File
	if f.Line > 0 {
		at += fmt.Sprintf(":%d", f.Line)
		if f.Col > 0 {
			at += fmt.Sprintf(":%d", f.Col)
		}
	}
	return at + ": "
}

func (f Finding) about() string {
	if f.Key == "" {
		return f.What
	}
	return f.Key + ": " + f.What
}

// Findings are all findings of one file, by line.
type Findings []Finding

// Error is every finding on a line of its own.
func (fs Findings) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// HasErrors reports whether one of the findings is an error.
func (fs Findings) HasErrors() bool {
	return slices.ContainsFunc(fs, func(f Finding) bool { return f.Severity == Error })
}

// Err returns the findings that are errors, as an error, or nil.
func (fs Findings) Err() error {
	if errs := fs.only(Error); len(errs) > 0 {
		return errs
	}
	return nil
}

// Warnings returns the findings that are warnings.
func (fs Findings) Warnings() Findings { return fs.only(Warning) }

func (fs Findings) only(s Severity) Findings {
	return slices.DeleteFunc(slices.Clone(fs), func(f Finding) bool { return f.Severity != s })
}

// MarshalJSON writes a list also when there is no finding.
func (fs Findings) MarshalJSON() ([]byte, error) {
	return json.Marshal(append([]Finding{}, fs...))
}

func (fs Findings) sort() {
	slices.SortStableFunc(fs, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.Key, b.Key))
	})
}

// report collects findings about one file while it is loaded.
type report struct {
	file     string
	pos      positions
	findings Findings
}

func (r *report) err(key, what, fix string)  { r.add(Error, key, what, fix) }
func (r *report) warn(key, what, fix string) { r.add(Warning, key, what, fix) }

// add drops a second finding about a key that already has an error, or that
// is part of one: the later check saw a value that the earlier one refused.
func (r *report) add(s Severity, key, what, fix string) {
	if r.faulty(key) || r.within(key) {
		return
	}
	r.findings = append(r.findings, Finding{
		File: r.file, Line: r.pos.line(key), Key: key, Severity: s, What: shorten(what), Fix: shorten(fix),
	})
}

// within reports whether the table or list that key stands in has an error itself: it
// is no table, for example, and all its keys are but defaults.
func (r *report) within(key string) bool {
	for key = parent(key); key != ""; key = parent(key) {
		if slices.ContainsFunc(r.findings, func(f Finding) bool { return f.Severity == Error && f.Key == key }) {
			return true
		}
	}
	return false
}

// maxText is more than any finding of ours has to say. What goes beyond is a
// value of the file, and a page of it helps nobody.
const maxText = 600

// shorten cuts the middle out of a text that quotes a very long value: what
// is wrong with it stands at one of the ends.
func shorten(s string) string {
	runes := []rune(s)
	if len(runes) <= maxText {
		return s
	}
	return string(runes[:maxText/3]) + "..." + string(runes[len(runes)-maxText/3:])
}

// faulty reports whether key, or an element of the list key, has an error.
func (r *report) faulty(key string) bool {
	return key != "" && slices.ContainsFunc(r.findings, func(f Finding) bool {
		return f.Severity == Error && (f.Key == key || strings.HasPrefix(f.Key, key+"["))
	})
}

// listKey names the i-th element of a list that may be written as one value.
func (r *report) listKey(key string, i int) string {
	if _, ok := r.pos[element(key, 0)]; ok {
		return element(key, i)
	}
	return key
}

// wrong is why a value cannot be read, and how it should be written.
type wrong struct{ what, fix string }

func (w *wrong) Error() string { return w.what + "; " + w.fix }
