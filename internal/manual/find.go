package manual

import (
	"slices"
	"strings"
	"unicode"
)

// Find returns what somebody means who asks for these words: a page by its name
// ("security", "2a"), a section by its address ("operations#reload"), or the
// sections whose heading has all the words ("5501", "kernel path"), of which the
// first is the one to show. It returns nothing when nothing fits.
func (m *Manual) Find(words ...string) []Section {
	asked := strings.ToLower(strings.Join(words, " "))
	page, anchor, inPage := strings.Cut(asked, "#")
	page = strings.TrimSuffix(strings.TrimPrefix(page, "docs/"), ".md")
	p := m.named(page)
	switch {
	case p != nil && !inPage:
		return []Section{p.Whole()}
	case p != nil:
		for _, s := range p.sections {
			if s.Anchor == anchor {
				return []Section{s}
			}
		}
		return p.headed(strings.Fields(strings.ReplaceAll(anchor, "-", " ")))
	}
	want := strings.Fields(asked)
	if len(want) == 0 {
		return nil
	}
	var found []Section
	if p := m.named(want[0]); p != nil && len(want) > 1 {
		found = p.headed(want[1:])
	}
	for _, p := range m.pages {
		found = append(found, p.headed(want)...)
	}
	return slices.CompactFunc(found, func(a, b Section) bool { return a == b })
}

// named finds a page by its name, its name without signs ("layout2a"), or what
// one name alone begins or ends with ("trouble", "2a").
func (m *Manual) named(name string) *Page {
	if p := m.Page(name); p != nil {
		return p
	}
	name = letters(name)
	if len(name) < 2 {
		return nil
	}
	var found *Page
	for _, p := range m.pages {
		switch have := letters(p.Name); {
		case have == name:
			return p
		case !strings.HasPrefix(have, name) && !strings.HasSuffix(have, name):
		case found == nil:
			found = p
		default:
			return nil
		}
	}
	return found
}

func letters(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
}

// headed are the sections whose heading has all the words.
func (p *Page) headed(words []string) []Section {
	var found []Section
	for _, s := range p.sections {
		have := fields(s.Title)
		if !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(have, strings.ToLower(w)) }) {
			found = append(found, s)
		}
	}
	return found
}

// fields are the words and numbers of a text, in lower case.
func fields(s string) []string {
	return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-'
	})
}

// Mentions are the smallest sections whose text has the word.
func (m *Manual) Mentions(word string) []Section {
	word = strings.ToLower(word)
	var found []Section
	for _, p := range m.pages {
		for i, s := range p.sections {
			end := s.to
			if i+1 < len(p.sections) {
				end = min(end, p.sections[i+1].from) // what stands below a smaller heading is its own
			}
			if slices.ContainsFunc(p.nodes[s.from:end], func(n node) bool { return slices.Contains(fields(p.content(n)), word) }) {
				found = append(found, s)
			}
		}
	}
	return found
}

// Nearest returns those of the candidates that are a slip of the pen away from
// the word, the nearest first.
func Nearest(word string, candidates []string) []string {
	type near struct {
		name string
		far  int
	}
	var list []near
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d <= max(1, min(len(word), len(c))/3) {
			list = append(list, near{c, d})
		}
	}
	slices.SortStableFunc(list, func(a, b near) int { return a.far - b.far })
	var names []string
	for _, n := range list {
		names = append(names, n.name)
	}
	return slices.Compact(names)
}

// distance is the number of letters to change, add, drop or swap.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
