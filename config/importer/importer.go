// Package importer reads the configuration of nginx, coturn and HAProxy, and
// writes the turngate.toml that does the same.
//
// [Import] takes the files of one host together: those of a web proxy and of a
// TURN server make one configuration. What the result cannot do as the source
// did stands in the remarks, each with its line. Nothing is left out in silence,
// and a route whose access was restricted in a way that cannot be carried over is
// left out rather than opened.
//
// Each format has its parser (nginxsyntax.go, coturnsyntax.go,
// haproxysyntax.go), which knows the grammar and nothing else, and an
// interpreter, which reads the tree into a [site]: routes, listeners, names and
// the TURN server, in no format. The site then writes itself (draft.go).
package importer

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/turngate/turngate/config"
)

// Limits on what is read: far above any real configuration, and small enough that
// a hostile one costs neither memory nor time.
const (
	maxFile    = 2 << 20 // bytes of one file
	maxTotal   = 8 << 20 // bytes of all files, included ones too
	maxFiles   = 500
	maxDepth   = 64 // of blocks, and of includes
	maxRoutes  = 200
	maxUsers   = 1000
	maxPerList = 2000 // elements of one list: prefixes, servers
)

// Kind is the format of a file.
type Kind string

const (
	Nginx   Kind = "nginx"
	Coturn  Kind = "coturn"
	HAProxy Kind = "haproxy"
	// Command is a command line of turnserver: a script, a unit file or a
	// container's command.
	Command Kind = "turnserver command"
)

// A Source is one file to import.
type Source struct {
	Name string // stands in remarks and comments; relative paths in the file start at its directory
	Data []byte
}

// Options say what the files themselves do not.
type Options struct {
	// Prefix is the directory that relative paths and includes of nginx start
	// at. Empty: that of the first nginx file.
	Prefix string
	// ExternalIP stands for an external-ip that is a variable of a script.
	ExternalIP string
	// ReadFile and Glob are how included files are found. nil: there are none.
	ReadFile func(path string) ([]byte, error)
	Glob     func(pattern string) ([]string, error)
}

// A Result is a configuration and what was not carried over into it.
type Result struct {
	TOML    []byte // loads without an error; holds the passwords of the source
	Config  *config.Config
	Kinds   []Kind // of the sources, in their order
	Remarks Remarks
}

// SyntaxError is a source that cannot be read.
type SyntaxError struct {
	Pos
	What string
}

func (e *SyntaxError) Error() string { return e.Pos.String() + ": " + e.What }

// Pos is a place in a source.
type Pos struct {
	File string
	Line int // from 1; 0: the whole file
}

func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Import reads the sources as the configuration of one host. The error is made
// of [SyntaxError], all that were found.
func Import(sources []Source, opts Options) (*Result, error) {
	s := newSite(opts)
	if len(sources) > 0 {
		s.somewhere = Pos{File: sources[0].Name}
	}
	res := &Result{}
	var failed []error
	total := 0
	var web []Source // nginx files share their includes
	for _, src := range sources {
		if total += len(src.Data); len(src.Data) > maxFile || total > maxTotal {
			failed = append(failed, &SyntaxError{Pos{File: src.Name}, "is too large for a configuration file"})
			continue
		}
		if strings.ContainsRune(string(src.Data), 0) {
			failed = append(failed, &SyntaxError{Pos{File: src.Name}, "is not a text file"})
			continue
		}
		src.Data = []byte(strings.TrimPrefix(string(src.Data), "\ufeff"))
		kind, ok := detect(src)
		if !ok {
			failed = append(failed, &SyntaxError{Pos{File: src.Name}, "is neither nginx.conf nor turnserver.conf nor haproxy.cfg, nor a command line of turnserver"})
			continue
		}
		res.Kinds = append(res.Kinds, kind)
		var err error
		switch kind {
		case Nginx:
			web = append(web, src)
		case Coturn:
			err = s.coturnFile(src)
		case Command:
			err = s.coturnCommand(src)
		case HAProxy:
			err = s.haproxyFile(src)
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	if len(web) > 0 {
		if err := s.nginxFiles(web); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	if err := s.write(res); err != nil {
		return nil, err
	}
	res.Remarks.sort(sources)
	return res, nil
}

// detect tells the format of a file by what stands in it, and by its name only
// when nothing does.
func detect(src Source) (Kind, bool) {
	text := string(src.Data)
	var blocks, nginx, haproxy, coturn, lines int
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		lines++
		word, rest := cutWord(line)
		_, isOption := coturnOptions[strings.TrimLeft(word, "-")]
		switch {
		case slices.Contains(nginxBlocks, strings.TrimRight(word, "{")) && (strings.HasSuffix(line, "{") || strings.Contains(line, "{ ")):
			blocks++
		case strings.HasSuffix(line, ";"), strings.Contains(line, "; #"):
			nginx++
		case slices.Contains(haproxySections, word) && !strings.ContainsAny(line, "{;="):
			haproxy++
		case isOption && (rest == "" || strings.HasPrefix(rest, "=") || !strings.HasSuffix(line, "{")):
			coturn++
		}
	}
	switch {
	case isCommand(text):
		return Command, true
	case strings.HasPrefix(text, "#!"): // a script of something else
		return "", false
	case blocks > 0:
		return Nginx, true
	case haproxy > 0 && haproxy >= nginx:
		return HAProxy, true
	case nginx > 0 && nginx >= coturn:
		return Nginx, true
	case coturn > 0:
		return Coturn, true
	}
	if lines > 0 && lines != strings.Count(text, "}") {
		return "", false
	}
	switch base := strings.ToLower(filepath.Base(src.Name)); {
	case strings.Contains(base, "nginx"):
		return Nginx, true
	case strings.Contains(base, "turn"):
		return Coturn, true
	case strings.Contains(base, "haproxy"):
		return HAProxy, true
	}
	return "", false
}

// cutWord splits a line after its first word, at a space or an equals sign.
func cutWord(line string) (word, rest string) {
	if i := strings.IndexAny(line, " \t="); i >= 0 {
		return line[:i], strings.TrimLeft(line[i:], " \t")
	}
	return line, ""
}
