package config

import (
	"strconv"
	"strings"
)

// maxDepth bounds how deep keys may nest. The deepest key of the schema has
// three parts; the TOML parser needs time that grows with the square of the
// depth and more, so a deeper file is refused before it is parsed.
const maxDepth = 16

// positions says on which line the file names a key, table or list element.
// Keys are full paths as [child] and [element] build them.
type positions map[string]int

// line returns the line of path, or of its nearest parent that stands in the
// file, or 0.
func (p positions) line(path string) int {
	for path != "" {
		if n, ok := p[path]; ok {
			return n
		}
		path = parent(path)
	}
	return 0
}

// child is the path of key inside the table at path.
func child(path, key string) string {
	if !isBare(key) {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// element is the path of the i-th element, from 0, of the list at path.
func element(path string, i int) string {
	return path + "[" + strconv.Itoa(i) + "]"
}

// parent removes the last part of path: an index or a key.
func parent(path string) string {
	quoted := strings.HasSuffix(path, `"`)
	for i := len(path) - 1; i > 0; i-- {
		switch {
		case quoted:
			// A quoted part begins at the first unescaped quote to the left.
			if path[i] == '"' && i < len(path)-1 && path[i-1] != '\\' {
				quoted = false
			}
		case path[i] == '[' || path[i] == '.':
			return path[:i]
		}
	}
	return ""
}

func isBare(key string) bool {
	for i := range len(key) {
		if !isBareByte(key[i]) {
			return false
		}
	}
	return key != ""
}

func isBareByte(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '_' || b == '-'
}

// scan finds the lines of all keys. The TOML library keeps them to itself, and
// for lists of tables it keeps only the last.
//
// It reads any bytes without panic; on a file that is not valid TOML the
// result is right up to the first error, which the parser then reports.
// tooDeep is the line where keys nest deeper than [maxDepth], or 0.
func scan(src string) (pos positions, tooDeep int) {
	s := &scanner{src: src, lineNo: 1, pos: positions{}, tables: map[string]int{}}
	s.document()
	return s.pos, s.tooDeep
}

type scanner struct {
	src     string
	at      int
	lineNo  int
	pos     positions
	headers []header        // in their order
	values  map[string]span // of keys; nil: nobody wants them
	tables  map[string]int  // lists of tables: how many elements so far
	depth   int
	tooDeep int
}

// header is a [table] or [[list]]: the path that the keys below it belong to, and where its line
// begins.
type header struct {
	path string
	from int
}

// span is a part of the source.
type span struct{ from, to int }

func (s *scanner) document() {
	table := ""
	for s.tooDeep == 0 {
		s.space(true)
		if s.at >= len(s.src) {
			return
		}
		if s.src[s.at] == '[' {
			table = s.header()
			continue
		}
		s.pair(table)
		s.toLineEnd()
	}
}

// header reads [table] or [[list]] and returns the path that the keys below
// it belong to.
func (s *scanner) header() string {
	from := strings.LastIndexByte(s.src[:s.at], '\n') + 1
	s.at++
	list := s.peek() == '['
	if list {
		s.at++
	}
	lineNo := s.lineNo
	keys := s.keys()
	path := ""
	for i, k := range keys {
		path = child(path, k)
		if i == len(keys)-1 {
			break
		}
		s.note(path, lineNo)
		if n := s.tables[path]; n > 0 {
			path = element(path, n-1)
		}
	}
	s.note(path, lineNo)
	if list {
		s.tables[path]++
		path = element(path, s.tables[path]-1)
		s.note(path, lineNo)
	}
	s.headers = append(s.headers, header{path, from})
	s.toLineEnd()
	return path
}

// pair reads key = value inside the table at path.
func (s *scanner) pair(path string) {
	start, lineNo := s.at, s.lineNo
	for _, k := range s.keys() {
		path = child(path, k)
		s.note(path, lineNo)
	}
	if s.space(false); s.peek() == '=' {
		s.at++
		s.space(false)
		from := s.at
		s.value(path)
		if s.values != nil {
			s.values[path] = span{from, s.at}
		}
	}
	if s.at == start {
		s.at++ // not TOML; go on behind it
	}
}

func (s *scanner) value(path string) {
	switch s.peek() {
	case '"', '\'':
		s.text()
	case '[':
		s.nest(func() {
			for i := 0; ; i++ {
				if s.space(true); s.atEnd(']') {
					return
				}
				s.note(element(path, i), s.lineNo)
				start := s.at
				s.value(element(path, i))
				if s.space(true); s.peek() == ',' {
					s.at++
				}
				if s.at == start {
					s.at++
				}
			}
		})
	case '{':
		s.nest(func() {
			for {
				if s.space(true); s.atEnd('}') {
					return
				}
				start := s.at
				s.pair(path)
				if s.space(true); s.peek() == ',' {
					s.at++
				}
				if s.at == start {
					s.at++
				}
			}
		})
	default:
		for s.at < len(s.src) && !strings.ContainsRune(",]}#\n", rune(s.src[s.at])) {
			s.at++
		}
	}
}

// nest runs body behind an opening bracket, one level deeper.
func (s *scanner) nest(body func()) {
	s.at++
	s.depth++
	if s.depth > maxDepth && s.tooDeep == 0 {
		s.tooDeep = s.lineNo
	}
	if s.tooDeep == 0 {
		body()
	}
	s.depth--
}

// atEnd reports whether a list or inline table ends here, and steps over close.
func (s *scanner) atEnd(close byte) bool {
	if s.at >= len(s.src) || s.tooDeep != 0 {
		return true
	}
	if s.src[s.at] != close {
		return false
	}
	s.at++
	return true
}

// keys reads a dotted key.
func (s *scanner) keys() []string {
	var keys []string
	for {
		s.space(false)
		switch c := s.peek(); {
		case c == '"' || c == '\'':
			keys = append(keys, s.text())
		case isBareByte(c):
			start := s.at
			for isBareByte(s.peek()) {
				s.at++
			}
			keys = append(keys, s.src[start:s.at])
		default:
			return keys
		}
		if len(keys)+s.depth > maxDepth && s.tooDeep == 0 {
			s.tooDeep = s.lineNo
		}
		if s.space(false); s.peek() != '.' || s.tooDeep != 0 {
			return keys
		}
		s.at++
	}
}

// text reads a string in any of the four quotings and returns its value.
func (s *scanner) text() string {
	quote := s.src[s.at : s.at+1]
	long := strings.HasPrefix(s.src[s.at:], strings.Repeat(quote, 3))
	if long {
		quote = strings.Repeat(quote, 3)
	}
	s.at += len(quote)
	start := s.at
	for s.at < len(s.src) {
		switch c := s.src[s.at]; {
		case c == '\\' && quote[0] == '"':
			if s.at++; s.peek() == '\n' {
				continue
			}
		case c == '\n':
			if !long {
				return s.src[start:s.at] // unclosed
			}
			s.lineNo++
		case strings.HasPrefix(s.src[s.at:], quote):
			body := s.src[start:s.at]
			s.at += len(quote)
			for long && s.peek() == quote[0] { // up to two quotes may precede the closing three
				s.at++
			}
			if v, err := strconv.Unquote(`"` + body + `"`); err == nil && quote == `"` {
				return v
			}
			return body
		}
		s.at++
	}
	s.at = len(s.src) // a backslash may have stepped over the end
	return s.src[start:]
}

// space skips blanks, and with lines also line ends and comments.
func (s *scanner) space(lines bool) {
	for s.at < len(s.src) {
		switch c := s.src[s.at]; {
		case c == ' ' || c == '\t' || c == '\r':
		case c == '\n' && lines:
			s.lineNo++
		case c == '#' && lines:
			for s.at+1 < len(s.src) && s.src[s.at+1] != '\n' {
				s.at++
			}
		default:
			return
		}
		s.at++
	}
}

func (s *scanner) toLineEnd() {
	for s.at < len(s.src) && s.src[s.at] != '\n' {
		s.at++
	}
}

// note keeps the first line on which path is named.
func (s *scanner) note(path string, line int) {
	if _, known := s.pos[path]; !known {
		s.pos[path] = line
	}
}

func (s *scanner) peek() byte {
	if s.at < len(s.src) {
		return s.src[s.at]
	}
	return 0
}
