package importer

import (
	"strings"
)

// coturnSetting is one option of coturn, from a file or a command line.
type coturnSetting struct {
	name  string // long name
	value string
	given bool // there was a value, maybe an empty one
	pos   Pos
}

// on reports the value of a switch: without a word it is on.
func (o coturnSetting) on() bool {
	switch strings.ToLower(o.value) {
	case "0", "off", "no", "false", "f":
		return false
	}
	return true
}

// parseCoturn reads turnserver.conf: one option on a line, name and value
// divided by "=" or blanks, as coturn's own reader does. A "#" begins a comment at
// the beginning of a line only: secrets may hold one.
func parseCoturn(name, text string, line int) []coturnSetting {
	var all []coturnSetting
	for l := range strings.SplitSeq(text, "\n") {
		l = strings.TrimSpace(l)
		if l != "" && l[0] != '#' && l[0] != ';' {
			l = strings.TrimLeft(l, "-")
			i := strings.IndexAny(l, "= \t")
			o := coturnSetting{name: l, pos: Pos{name, line}}
			if i >= 0 {
				o.name, o.value, o.given = l[:i], unquoteCoturn(strings.TrimLeft(l[i:], "= \t")), true
			}
			all = append(all, o.long())
		}
		line++
	}
	return all
}

// unquoteCoturn takes off the quotes around a whole value.
func unquoteCoturn(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// long spells a short option out.
func (o coturnSetting) long() coturnSetting {
	if name, ok := coturnShort[o.name]; ok {
		o.name = name
	}
	return o
}

// coturnArguments reads the words of a command line behind the program's name.
func coturnArguments(words []word) []coturnSetting {
	var all []coturnSetting
	for i := 0; i < len(words); i++ {
		w := words[i]
		if len(w.text) < 2 || w.text[0] != '-' {
			continue
		}
		o := coturnSetting{pos: w.pos}
		next := func() {
			takes := coturnOptions[o.name].takes
			if takes != takesValue || i+1 >= len(words) {
				return
			}
			i++
			o.value, o.given = words[i].text, true
		}
		if strings.HasPrefix(w.text, "--") {
			o.name, o.value, o.given = strings.Cut(w.text[2:], "=")
			if !o.given {
				next()
			}
			o.value = unquoteCoturn(o.value)
			all = append(all, o)
			continue
		}
		// Letters may stand together; one that takes a value takes the rest.
		for j, c := range w.text[1:] {
			o = coturnSetting{name: string(c), pos: w.pos}.long()
			rest := w.text[2+j:]
			if coturnOptions[o.name].takes == takesValue {
				if o.value, o.given = strings.TrimPrefix(rest, "="), rest != ""; !o.given {
					next()
				}
				o.value = unquoteCoturn(o.value)
				all = append(all, o)
				break
			}
			all = append(all, o)
		}
	}
	return all
}
