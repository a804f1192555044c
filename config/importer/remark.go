package importer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Weight says what it means that something was not carried over.
type Weight int

const (
	NotNeeded Weight = iota // turngate does it by itself, or it has no meaning there
	Changed                 // it works otherwise
	Lost                    // turngate does not do it
)

var weights = []string{"not needed", "changed", "lost"}

func (w Weight) String() string { return weights[w] }

// MarshalText writes "lost", "changed" or "not needed".
func (w Weight) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// Remark is one thing of a source that the result does not do as the source
// did. It never holds a password.
type Remark struct {
	Weight Weight `json:"weight"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	What   string `json:"what"` // the directive or option
	Why    string `json:"why"`
	Fix    string `json:"fix,omitempty"` // what to do, if anything
}

// String is the remark on one line.
func (r Remark) String() string {
	s := fmt.Sprintf("%s: %s: %s: %s", Pos{r.File, r.Line}, r.Weight, r.What, r.Why)
	if r.Fix != "" {
		s += "; " + r.Fix
	}
	return s
}

// Remarks are those of all sources: what is lost first, then by place.
type Remarks []Remark

// Count is how many remarks have a weight.
func (rs Remarks) Count(w Weight) int {
	n := 0
	for _, r := range rs {
		if r.Weight == w {
			n++
		}
	}
	return n
}

func (rs *Remarks) sort(sources []Source) {
	order := func(file string) int {
		i := slices.IndexFunc(sources, func(s Source) bool { return s.Name == file })
		if i < 0 {
			return len(sources)
		}
		return i
	}
	slices.SortStableFunc(*rs, func(a, b Remark) int {
		return cmp.Or(cmp.Compare(b.Weight, a.Weight), cmp.Compare(order(a.File), order(b.File)),
			cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	*rs = slices.Compact(*rs)
}

// remark notes something about a place in a source.
func (s *site) remark(w Weight, p Pos, what, why, fix string) {
	r := Remark{w, p.File, p.Line, printable(what), printable(why), printable(fix)}
	if s.said[r] {
		return
	}
	s.said[r] = true
	s.remarks = append(s.remarks, r)
}

func (s *site) lost(p Pos, what, why, fix string)    { s.remark(Lost, p, what, why, fix) }
func (s *site) changed(p Pos, what, why, fix string) { s.remark(Changed, p, what, why, fix) }
func (s *site) notNeeded(p Pos, what, why string)    { s.remark(NotNeeded, p, what, why, "") }

// printable keeps what a stranger wrote from reaching a terminal as commands, and
// shortens it.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if r := []rune(s); len(r) > 300 {
		return string(r[:300]) + "..."
	}
	return s
}
