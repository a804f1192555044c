package importer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

var haproxySections = []string{"global", "defaults", "frontend", "backend", "listen", "resolvers", "peers", "userlist", "cache", "mailers",
	"program", "http-errors", "ring", "fcgi-app", "log-forward", "crt-store", "traces"}

// haproxyLine is one line of a section.
type haproxyLine struct {
	words []string
	pos   Pos
	used  bool // the interpreter has read it
}

func (l *haproxyLine) word(i int) string {
	if i < len(l.words) {
		return l.words[i]
	}
	return ""
}

// section is one of haproxy.cfg.
type section struct {
	kind, name string
	pos        Pos
	lines      []*haproxyLine
	base       *section // the defaults that count for it, or nil

	byFirst map[string][]*haproxyLine // lines by their first word, made when it is asked for
}

// all are the lines that begin with words; those of defaults count when the
// section has none.
func (s *section) all(words ...string) []*haproxyLine {
	for at := s; at != nil; at = at.base {
		if at.byFirst == nil {
			at.byFirst = map[string][]*haproxyLine{}
			for _, l := range at.lines {
				at.byFirst[l.words[0]] = append(at.byFirst[l.words[0]], l)
			}
		}
		var found []*haproxyLine
		for _, l := range at.byFirst[words[0]] {
			if len(l.words) >= len(words) && slices.Equal(l.words[:len(words)], words) {
				l.used = true
				found = append(found, l)
			}
		}
		if found != nil {
			return found
		}
	}
	return nil
}

// one is the last line that begins with words, or nil.
func (s *section) one(words ...string) *haproxyLine {
	if list := s.all(words...); len(list) > 0 {
		return list[len(list)-1]
	}
	return nil
}

// parseHAProxy reads sections and lines; which words a line may have is left to
// the interpreter.
func parseHAProxy(name, text string) ([]*section, error) {
	var all []*section
	var defaults *section
	named := map[string]*section{}
	n := 0
	for raw := range strings.SplitSeq(text, "\n") {
		n++
		pos := Pos{name, n}
		words, err := haproxyWords(strings.TrimSuffix(raw, "\r"), pos)
		if err != nil {
			return nil, err
		}
		if len(words) == 0 {
			continue
		}
		if !slices.Contains(haproxySections, words[0]) || words[0] == "peers" && len(words) > 2 {
			if len(all) == 0 {
				return nil, &SyntaxError{pos, fmt.Sprintf("%q stands before the first section", printable(words[0]))}
			}
			at := all[len(all)-1]
			at.lines = append(at.lines, &haproxyLine{words: words, pos: pos})
			continue
		}
		s := &section{kind: words[0], pos: pos}
		if len(words) > 1 {
			s.name = words[1]
		}
		switch s.kind {
		case "frontend", "backend", "listen":
			if s.name == "" {
				return nil, &SyntaxError{pos, s.kind + " has no name"}
			}
			s.base = defaults
			if len(words) > 3 && words[2] == "from" && named[words[3]] != nil {
				s.base = named[words[3]]
			}
		case "defaults":
			defaults = s
			if s.name != "" {
				named[s.name] = s
			}
		}
		if all = append(all, s); len(all) > 5000 {
			return nil, &SyntaxError{pos, "there are more than 5000 sections"}
		}
	}
	return all, nil
}

// haproxyWords splits a line: blanks divide, a backslash escapes, quotes hold
// together, "#" begins a comment.
func haproxyWords(line string, pos Pos) ([]string, error) {
	var words []string
	var b strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, in = c, true
		case c == '\\' && quote != '\'' && i+1 < len(line):
			i++
			in = true
			switch e := line[i]; {
			case strings.IndexByte(` #\"'$`, e) >= 0 && (quote == 0 || strings.IndexByte(`\"$`, e) >= 0):
				b.WriteByte(e)
			case e == 't' && quote == 0:
				b.WriteByte('\t')
			default:
				b.WriteByte('\\')
				b.WriteByte(e)
			}
		case quote == 0 && (c == ' ' || c == '\t'):
			if in {
				words = append(words, b.String())
				b.Reset()
				in = false
			}
		case quote == 0 && c == '#':
			i = len(line)
		default:
			b.WriteByte(c)
			in = true
		}
		if len(words) > 1000 {
			return nil, &SyntaxError{pos, "more than 1000 words on a line"}
		}
	}
	if quote != 0 {
		return nil, &SyntaxError{pos, "a quote that is not closed"}
	}
	if in {
		words = append(words, b.String())
	}
	return words, nil
}

// haproxyTime reads "50s", "1h" or "5000", which are milliseconds.
func haproxyTime(s string) (time.Duration, bool) {
	unit := time.Millisecond
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"us", time.Microsecond}, {"ms", time.Millisecond}, {"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour}} {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = n, u.unit
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 32)
	d := time.Duration(n) * unit
	return d, err == nil && n >= 0 && d/unit == time.Duration(n) && d < 10*365*24*time.Hour
}
