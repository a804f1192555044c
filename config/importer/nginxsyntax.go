package importer

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// directive is one of nginx: a name, arguments, and maybe a block.
type directive struct {
	name   string
	args   []string
	pos    Pos
	block  []*directive
	braces bool // there is a block, maybe an empty one

	used bool // the interpreter has read it
}

// arg is an argument, or "".
func (d *directive) arg(i int) string {
	if i < len(d.args) {
		return d.args[i]
	}
	return ""
}

// nginxReader parses files and what they include.
type nginxReader struct {
	opts    Options
	prefix  string
	files   int
	bytes   int
	nodes   int
	open    []string          // files that are being read, for cycles
	read    map[string]bool   // all that were read
	dump    map[string][]byte // of "nginx -T"
	missing func(*directive, string, error)
}

// dumpHeader begins a file in the output of "nginx -T".
var dumpHeader = regexp.MustCompile(`(?m)^# configuration file (.+):$`)

// splitDump takes the output of "nginx -T" apart. The first file is the main one.
func splitDump(src Source) (main Source, files map[string][]byte) {
	text := string(src.Data)
	heads := dumpHeader.FindAllStringSubmatchIndex(text, maxFiles)
	if len(heads) == 0 {
		return src, nil
	}
	files = map[string][]byte{}
	for i, h := range heads {
		end := len(text)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		name := text[h[2]:h[3]]
		files[name] = []byte(strings.TrimPrefix(text[h[1]:end], "\n"))
		if i == 0 {
			main = Source{name, files[name]}
		}
	}
	return main, files
}

// file parses one file with its includes.
func (r *nginxReader) file(name string, data []byte) ([]*directive, error) {
	if slices.Contains(r.open, name) || len(r.open) >= maxDepth {
		return nil, &SyntaxError{Pos{File: name}, "includes itself"}
	}
	if r.files++; r.files > maxFiles {
		return nil, &SyntaxError{Pos{File: name}, fmt.Sprintf("more than %d files are included", maxFiles)}
	}
	if r.bytes += len(data); r.bytes > maxTotal {
		return nil, &SyntaxError{Pos{File: name}, "all included files together are too large for a configuration"}
	}
	r.open = append(r.open, name)
	defer func() { r.open = r.open[:len(r.open)-1] }()
	r.read[name] = true
	l := &nginxLexer{text: strings.ReplaceAll(string(data), "\r\n", "\n"), pos: Pos{name, 1}}
	list, err := r.block(l, 0)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// block reads directives up to the closing brace, or the end of the file.
func (r *nginxReader) block(l *nginxLexer, depth int) ([]*directive, error) {
	if depth > maxDepth {
		return nil, l.errorf("blocks nest deeper than %d", maxDepth)
	}
	list := []*directive{}
	for {
		var words []string
		pos, end, err := l.statement(&words)
		if err != nil {
			return nil, err
		}
		switch {
		case end == endOfFile && len(words) > 0:
			return nil, &SyntaxError{pos, fmt.Sprintf("%q does not end with a semicolon", printable(words[0]))}
		case end == endOfFile && depth > 0:
			return nil, l.errorf("the file ends inside a block: a closing brace is missing")
		case end == endOfFile:
			return list, nil
		case end == '}' && len(words) > 0:
			return nil, &SyntaxError{pos, fmt.Sprintf("%q does not end with a semicolon", printable(words[0]))}
		case end == '}' && depth == 0:
			return nil, l.errorf("a closing brace that closes nothing")
		case end == '}':
			return list, nil
		case len(words) == 0 && end == ';':
			return nil, &SyntaxError{pos, "a semicolon that ends nothing"}
		case len(words) == 0:
			return nil, &SyntaxError{pos, "a block without a name"}
		}
		if r.nodes++; r.nodes > 100_000 {
			return nil, &SyntaxError{pos, "there are more than 100000 directives"}
		}
		d := &directive{name: words[0], args: words[1:], pos: pos, braces: end == '{'}
		switch {
		case end == '{' && strings.HasSuffix(d.name, "_by_lua_block"):
			if err := l.skipLua(); err != nil {
				return nil, err
			}
		case end == '{':
			if d.block, err = r.block(l, depth+1); err != nil {
				return nil, err
			}
		case d.name == "include":
			inner, err := r.include(d)
			if err != nil {
				return nil, err
			}
			list = append(list, inner...)
			continue
		}
		list = append(list, d)
	}
}

// notRead are included files that hold nothing of ours.
var notRead = []string{"mime.types", "fastcgi_params", "fastcgi.conf", "uwsgi_params", "scgi_params", "koi-utf", "koi-win", "win-utf",
	"options-ssl-nginx.conf"}

// include reads the files that a directive names.
func (r *nginxReader) include(d *directive) ([]*directive, error) {
	if len(d.args) != 1 {
		return nil, &SyntaxError{d.pos, "include needs one file"}
	}
	pattern := abs(r.prefix, d.args[0])
	if base := path.Base(pattern); slices.Contains(notRead, base) || strings.HasPrefix(base, "mod-") || strings.Contains(pattern, "/modules") {
		return nil, nil
	}
	names := []string{pattern}
	if strings.ContainsAny(pattern, "*?[") {
		names = r.glob(pattern)
	}
	var list []*directive
	for _, name := range names {
		data, err := r.readFile(name)
		if err != nil {
			r.missing(d, name, err)
			continue
		}
		if len(data) > maxFile {
			return nil, &SyntaxError{Pos{File: name}, "is too large for a configuration file"}
		}
		inner, err := r.file(name, data)
		if err != nil {
			return nil, err
		}
		list = append(list, inner...)
	}
	return list, nil
}

func (r *nginxReader) glob(pattern string) []string {
	if r.dump != nil {
		var names []string
		for name := range r.dump {
			if ok, _ := filepath.Match(pattern, name); ok {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	if r.opts.Glob == nil {
		return nil
	}
	names, _ := r.opts.Glob(pattern)
	return names
}

func (r *nginxReader) readFile(name string) ([]byte, error) {
	if r.dump != nil {
		if data, ok := r.dump[name]; ok {
			return data, nil
		}
		return nil, fmt.Errorf("it is not in the dump")
	}
	if r.opts.ReadFile == nil {
		return nil, fmt.Errorf("it was not given")
	}
	data, err := r.opts.ReadFile(name)
	return bytes.TrimPrefix(data, []byte("\ufeff")), err
}

// nginxLexer reads words as ngx_conf_read_token of nginx does.
type nginxLexer struct {
	text string
	at   int
	pos  Pos
}

const endOfFile = 0

func (l *nginxLexer) errorf(format string, args ...any) error {
	return &SyntaxError{l.pos, fmt.Sprintf(format, args...)}
}

func (l *nginxLexer) next() (byte, bool) {
	if l.at >= len(l.text) {
		return 0, false
	}
	c := l.text[l.at]
	l.at++
	if c == '\n' {
		l.pos.Line++
	}
	return c, true
}

// statement reads words up to ";", "{", "}" or the end. pos is that of the first
// word.
func (l *nginxLexer) statement(words *[]string) (pos Pos, end byte, err error) {
	for {
		c, ok := l.next()
		if !ok {
			if len(*words) == 0 {
				pos = l.pos
			}
			return pos, endOfFile, nil
		}
		switch c {
		case ' ', '\t', '\n', '\r':
			continue
		case '#':
			for ok && c != '\n' {
				c, ok = l.next()
			}
			continue
		}
		if len(*words) == 0 {
			pos = l.pos
		}
		switch c {
		case ';', '{', '}':
			return pos, c, nil
		}
		w, err := l.word(c)
		if err != nil {
			return pos, 0, err
		}
		*words = append(*words, w)
		if len(*words) > 10_000 {
			return pos, 0, l.errorf("more than 10000 words before a semicolon")
		}
	}
}

// word reads the rest of a word that begins with c.
func (l *nginxLexer) word(c byte) (string, error) {
	var b strings.Builder
	start := l.pos
	if c == '"' || c == '\'' {
		quote := c
		for {
			c, ok := l.next()
			switch {
			case !ok:
				return "", &SyntaxError{start, "a quote that is not closed"}
			case c == '\\':
				l.escape(&b)
				continue
			case c != quote:
				b.WriteByte(c)
				continue
			}
			if l.at < len(l.text) && !strings.ContainsRune(" \t\r\n;{)", rune(l.text[l.at])) {
				return "", l.errorf("%q directly behind a closing quote", l.text[l.at])
			}
			return b.String(), nil
		}
	}
	variable := c == '$'
	if c == '\\' {
		l.escape(&b)
	} else {
		b.WriteByte(c)
	}
	for l.at < len(l.text) {
		c := l.text[l.at]
		switch {
		case c == '{' && variable: // ${name}
			variable = false
			for l.at < len(l.text) && l.text[l.at] != '}' && l.text[l.at] != '\n' {
				b.WriteByte(l.text[l.at])
				l.at++
			}
			if l.at < len(l.text) && l.text[l.at] == '}' {
				b.WriteByte('}')
				l.at++
			}
			continue
		case strings.IndexByte(" \t\r\n;{", c) >= 0:
			return b.String(), nil
		case c == '\\':
			l.at++
			l.escape(&b)
			variable = false
			continue
		}
		variable = c == '$'
		b.WriteByte(c)
		l.at++
	}
	return b.String(), nil
}

// escape reads what follows a backslash. Other characters than these keep it: it
// belongs to a regular expression.
func (l *nginxLexer) escape(b *strings.Builder) {
	c, ok := l.next()
	switch {
	case !ok:
		b.WriteByte('\\')
	case c == '"' || c == '\'' || c == '\\':
		b.WriteByte(c)
	case c == 't':
		b.WriteByte('\t')
	case c == 'r':
		b.WriteByte('\r')
	case c == 'n':
		b.WriteByte('\n')
	default:
		b.WriteByte('\\')
		b.WriteByte(c)
	}
}

// skipLua skips the program of a *_by_lua_block: braces count outside strings
// and comments.
func (l *nginxLexer) skipLua() error {
	start := l.pos
	for depth := 1; depth > 0; {
		c, ok := l.next()
		if !ok {
			return &SyntaxError{start, "a Lua block that is not closed"}
		}
		rest := l.text[l.at:]
		switch c {
		case '{':
			depth++
		case '}':
			depth--
		case '"', '\'':
			for {
				d, ok := l.next()
				if !ok || d == c || d == '\n' {
					break
				}
				if d == '\\' {
					l.next()
				}
			}
		case '-':
			if !strings.HasPrefix(rest, "-") {
				continue
			}
			l.next()
			if n, long := luaBracket(l.text[l.at:]); long {
				l.skipTo("]" + strings.Repeat("=", n) + "]")
				continue
			}
			for l.at < len(l.text) && l.text[l.at] != '\n' {
				l.next()
			}
		case '[':
			if n, long := luaBracket("[" + rest[:min(len(rest), 40)]); long {
				l.skipTo("]" + strings.Repeat("=", n) + "]")
			}
		}
	}
	return nil
}

// luaBracket reports whether s begins with [[ or [==[.
func luaBracket(s string) (equals int, ok bool) {
	if !strings.HasPrefix(s, "[") {
		return 0, false
	}
	for equals+1 < len(s) && s[equals+1] == '=' && equals < 30 {
		equals++
	}
	return equals, equals+1 < len(s) && s[equals+1] == '['
}

func (l *nginxLexer) skipTo(end string) {
	for l.at < len(l.text) && !strings.HasPrefix(l.text[l.at:], end) {
		l.next()
	}
	for range end {
		l.next()
	}
}
