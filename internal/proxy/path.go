package proxy

import (
	"errors"
	"net/http"
	"strings"
	"unicode/utf8"
)

// ErrTarget is wrapped by every refusal of a request target; the answer is 400.
var ErrTarget = errors.New("request target refused")

// A TargetError says what a request target was refused for. The text never
// holds bytes of the target.
type TargetError string

func (e TargetError) Error() string { return "request target refused: " + string(e) }

// Unwrap makes errors.Is(err, ErrTarget) true.
func (e TargetError) Unwrap() error { return ErrTarget }

// RawTarget returns the request target as the client wrote it, without scheme
// and authority if it came in absolute form (RFC 9112 section 3.2.2).
func RawTarget(r *http.Request) string {
	t := r.RequestURI
	if t == "" { // a request that no server read, as in tests
		t = r.URL.EscapedPath()
		if r.URL.RawQuery != "" || r.URL.ForceQuery {
			t += "?" + r.URL.RawQuery
		}
		return t
	}
	if t[0] == '/' {
		return t
	}
	for _, scheme := range []string{"http://", "https://", "ws://", "wss://"} {
		if len(t) >= len(scheme) && strings.EqualFold(t[:len(scheme)], scheme) {
			t = t[len(scheme):]
			if i := strings.IndexAny(t, "/?"); i < 0 {
				return "/"
			} else if t[i] == '?' {
				return "/" + t[i:]
			} else {
				return t[i:]
			}
		}
	}
	return t
}

// SplitTarget checks a raw request target and splits it into path and query.
// The query keeps its question mark and is "" when there is none. Neither part
// is decoded or changed.
//
// Refused with a [TargetError] is what the next server could understand
// differently: bytes outside printable ASCII, backslash, '#', broken escapes, and
// paths that after one or two rounds of decoding hold a segment "." or ".."
// (also with a ";" suffix), a slash or backslash that was encoded, a control
// byte, or bytes that are not UTF-8 (overlong dots).
func SplitTarget(target string) (path, query string, err error) {
	for i := 0; i < len(target); i++ {
		if c := target[i]; c <= ' ' || c >= 0x7f {
			return "", "", TargetError("byte outside printable ASCII")
		} else if c == '#' {
			return "", "", TargetError("fragment")
		}
	}
	path = target
	if i := strings.IndexByte(target, '?'); i >= 0 {
		path, query = target[:i], target[i:]
	}
	if err := checkPath(path); err != nil {
		return "", "", err
	}
	return path, query, nil
}

func checkPath(path string) error {
	if path == "" || path[0] != '/' {
		return TargetError("path does not begin with a slash")
	}
	if strings.IndexByte(path, '\\') >= 0 {
		return TargetError("backslash")
	}
	if hasDotSegment(path) {
		return TargetError("dot segment")
	}
	slashes := strings.Count(path, "/")
	p := path
	for round := 0; round < 2 && strings.IndexByte(p, '%') >= 0; round++ {
		d, ok := unescape(p)
		if !ok && round == 0 {
			return TargetError("broken escape")
		}
		if strings.Count(d, "/") != slashes || strings.IndexByte(d, '\\') >= 0 {
			return TargetError("encoded slash")
		}
		if !utf8.ValidString(d) {
			return TargetError("escapes that are not UTF-8")
		}
		for i := 0; i < len(d); i++ {
			if d[i] < ' ' || d[i] == 0x7f {
				return TargetError("encoded control byte")
			}
		}
		if hasDotSegment(d) {
			return TargetError("encoded dot segment")
		}
		p = d
	}
	return nil
}

// hasDotSegment reports whether a segment, up to a possible ";", is "." or "..".
func hasDotSegment(p string) bool {
	for {
		seg, rest, more := strings.Cut(p, "/")
		seg, _, _ = strings.Cut(seg, ";")
		if seg == "." || seg == ".." {
			return true
		}
		if !more {
			return false
		}
		p = rest
	}
}

// unescape decodes each %XX once. A broken escape stays as it is and makes ok
// false.
func unescape(s string) (decoded string, ok bool) {
	ok = true
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 < len(s) {
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi >= 0 && lo >= 0 {
				b = append(b, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		ok = false
		b = append(b, '%')
	}
	return string(b), ok
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// Join puts the remainder that [Router.Match] returned behind the path of an
// upstream. There is exactly one slash at the joint however many either side
// brings; an empty remainder gives the upstream's path itself, "/" when it has none.
// All other bytes stay.
func Join(base, rest string) string {
	if rest == "" {
		if base == "" {
			return "/"
		}
		return base
	}
	return strings.TrimRight(base, "/") + "/" + strings.TrimLeft(rest, "/")
}
