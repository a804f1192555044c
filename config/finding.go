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
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
		if f.Col > 0 {
			fmt.Fprintf(&b, ":%d", f.Col)
		}
	}
	b.WriteString(": ")
	if f.Severity == Warning {
		b.WriteString("warning: ")
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.What)
	if f.Fix != "" {
		b.WriteString("; " + f.Fix)
	}
	return b.String()
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

// add drops a second finding about a key that already has an error: the later
// check saw a value that the earlier one refused.
func (r *report) add(s Severity, key, what, fix string) {
	if r.faulty(key) {
		return
	}
	r.findings = append(r.findings, Finding{
		File: r.file, Line: r.pos.line(key), Key: key, Severity: s, What: what, Fix: fix,
	})
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
