package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// HeaderValue is the value of a header field that a route adds: a text that "config
// show" prints, or a secret from the environment or a file, that it does not.
type HeaderValue struct{ Secret }

// plain is the value as a file would have it.
func (v HeaderValue) plain() string {
	if v.ref() != "" {
		return v.ref()
	}
	text := v.Reveal()
	if kind, _, ok := strings.Cut(text, ":"); ok && (kind == "env" || kind == "file" || kind == "plain") {
		return "plain:" + text
	}
	return text
}

// placeholders are what may stand in braces in a header value.
var placeholders = []string{"{client}", "{peer}", "{id}", "{host}", "{proto}"}

// addHeaders checks the fields that a route adds.
func (c *checker) addHeaders(key string, fields map[string]HeaderValue) {
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		at, value := child(key, name), fields[name].Reveal()
		lower := strings.ToLower(name)
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r) }) {
			c.err(at, fmt.Sprintf("%q is not the name of a header", name), `write a name like "X-Client"`)
			continue
		}
		switch {
		case slices.Contains(notAdded, lower), strings.HasPrefix(lower, "sec-websocket-"):
			c.err(at, name+" is written by turngate itself", "remove it")
		case lower == "x-forwarded-for":
			c.err(at, "X-Forwarded-For is always sent", "see the key xff; remove it here")
		case seen[lower]:
			c.err(at, name+" is there twice, in another spelling", "remove one")
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			c.err(at, "has a control character in it", "remove it")
		}
		seen[lower] = true
		for _, p := range placeholders {
			value = strings.ReplaceAll(value, p, "")
		}
		if strings.ContainsAny(value, "{}") {
			c.err(at, "has braces around an unknown word", "write "+oneOf(placeholders))
		}
	}
}

// notAdded are fields of one hop, and those that turngate writes.
var notAdded = []string{"host", "connection", "upgrade", "keep-alive", "te", "trailer", "trailers", "transfer-encoding", "content-length",
	"expect", "http2-settings", "proxy-authenticate", "proxy-authorization", "proxy-connection", "proxy-authentication-info"}
