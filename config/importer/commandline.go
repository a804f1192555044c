package importer

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// word is one word of a shell command.
type word struct {
	text string
	pos  Pos
}

var (
	// heredoc begins a file that a script writes.
	heredoc  = regexp.MustCompile(`<<-?\s*['"\\]?([A-Za-z_][A-Za-z_0-9]*)['"]?`)
	variable = regexp.MustCompile(`^["']?\$[A-Za-z_0-9{(]`)
	program  = regexp.MustCompile(`(^|[\s=/"'])(turnserver|coturn/coturn\S*|instrumentisto/coturn\S*)(["'\s]|$)`)
)

// isCommand reports whether a text is a script, a unit file or a container's
// command with a TURN server in it.
func isCommand(text string) bool {
	first, _, _ := strings.Cut(text, "\n")
	script := strings.HasPrefix(first, "#!")
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if script && (program.MatchString(line) || strings.Contains(line, "turnserver.conf")) ||
			strings.HasPrefix(line, "ExecStart") && program.MatchString(line) {
			return true
		}
		w, _ := cutWord(strings.TrimPrefix(line, "sudo "))
		switch path.Base(w) {
		case "turnserver", "docker", "podman", "nohup":
			if rest := line[len(w):]; w != "turnserver" && program.MatchString(line) || strings.Contains(rest, " -") || line == w {
				return true
			}
		}
	}
	return false
}

// coturnCommand reads a script, a unit file or a command: the options behind
// turnserver, and a turnserver.conf that a script writes.
func (s *site) coturnCommand(src Source) error {
	lines := strings.Split(string(src.Data), "\n")
	var all []coturnSetting
	found := false
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if line == "" || line[0] == '#' {
			continue
		}
		if m := heredoc.FindStringSubmatch(line); m != nil {
			from := i + 1
			for i++; i < len(lines) && strings.TrimSpace(lines[i]) != m[1]; i++ {
			}
			if strings.Contains(line, "turnserver.conf") {
				body := strings.Join(lines[from:min(i, len(lines))], "\n")
				all = append(all, parseCoturn(src.Name, body, from+1)...)
				found = true
			}
			continue
		}
		from := i
		for strings.HasSuffix(lines[i], "\\") && i+1 < len(lines) {
			i++
		}
		if !program.MatchString(strings.Join(lines[from:i+1], " ")) || strings.HasPrefix(line, "echo ") {
			continue
		}
		if words, ok := argumentsOf(splitWords(src.Name, lines[from:i+1], from+1)); ok {
			all = append(all, coturnArguments(words)...)
			found = found || len(words) > 0
		}
	}
	if !found {
		return &SyntaxError{Pos{File: src.Name}, "has no options of turnserver; name its turnserver.conf"}
	}
	all = slices.DeleteFunc(all, func(o coturnSetting) bool {
		if o.name == "external-ip" || !variable.MatchString(o.value) {
			return false
		}
		s.lost(o.pos, o.name, "the value is a variable of a script", "write it by hand")
		return true
	})
	s.turn.dir = "/etc"
	if strings.Contains(string(src.Data), "/etc/coturn/") {
		s.turn.dir = "/etc/coturn"
	}
	return s.coturn(src.Name, all)
}

// argumentsOf are the words behind the program's name, up to the end of the
// command.
func argumentsOf(words []word) ([]word, bool) {
	for i, w := range words {
		text := strings.TrimPrefix(w.text, "ExecStart=")
		name := path.Base(text)
		image, _, _ := strings.Cut(name, ":")
		if name != "turnserver" && !(image == "coturn" && strings.Contains(text, "/")) {
			continue
		}
		rest := words[i+1:]
		for j, w := range rest {
			switch w.text {
			case "&", "&&", "|", "||", ";", ">", ">>", "2>&1", ">/dev/null":
				rest = rest[:j]
				return rest, true
			}
		}
		return rest, true
	}
	return nil, false
}

// splitWords splits lines of a command as a shell does, without expanding
// anything.
func splitWords(file string, lines []string, first int) []word {
	var words []word
	for n, line := range lines {
		pos := Pos{file, first + n}
		if n < len(lines)-1 {
			line = strings.TrimSuffix(line, "\\")
		}
		var b strings.Builder
		in, quote := false, byte(0)
		for i := 0; i < len(line); i++ {
			c := line[i]
			switch {
			case quote == 0 && (c == '"' || c == '\''):
				quote, in = c, true
			case quote == c:
				quote = 0
			case c == '\\' && quote != '\'' && i+1 < len(line):
				i++
				b.WriteByte(line[i])
				in = true
			case quote == 0 && (c == ' ' || c == '\t' || c == '\r'):
				if in {
					words = append(words, word{b.String(), pos})
					b.Reset()
					in = false
				}
			case quote == 0 && c == '#' && !in:
				i = len(line)
			default:
				b.WriteByte(c)
				in = true
			}
		}
		if in {
			words = append(words, word{b.String(), pos})
		}
	}
	return words
}
