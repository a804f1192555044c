package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// MaxWeight is the largest weight of an upstream, and the one it has without a word.
const MaxWeight = 100

// Target is one upstream of a WebSocket route: "https://host/path", or a table with
// that as url.
type Target struct {
	URL    *url.URL `toml:"url" reload:"live"`    // scheme http or https
	Weight int      `toml:"weight" reload:"live"` // 0 to MaxWeight; 0: nobody is sent there
	Backup bool     `toml:"backup" reload:"live"`
	SNI    string   `toml:"sni" reload:"live"`  // name for TLS; empty: that in URL
	Host   string   `toml:"host" reload:"live"` // what the Host header says; empty: that in URL
}

// String is the URL, and what makes it another upstream than that alone.
func (t Target) String() string {
	s := ""
	if t.URL != nil {
		s = t.URL.String()
	}
	if t.SNI != "" {
		s += " sni=" + t.SNI
	}
	if t.Host != "" {
		s += " host=" + t.Host
	}
	return s
}

// MarshalText makes a Target a value, not a table of keys.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// plain is the target as a file would have it.
func (t Target) plain() any {
	m := map[string]any{}
	if t.Weight != MaxWeight {
		m["weight"] = int64(t.Weight)
	}
	if t.Backup {
		m["backup"] = true
	}
	if t.SNI != "" {
		m["sni"] = t.SNI
	}
	if t.Host != "" {
		m["host"] = t.Host
	}
	if len(m) == 0 {
		return t.URL.String()
	}
	m["url"] = t.URL.String()
	return m
}

// URLs are those of the upstreams that anybody is sent to, backups last.
func URLs(list []Target) []*url.URL {
	var main, backup []*url.URL
	for _, t := range list {
		switch {
		case t.Weight == 0:
		case t.Backup:
			backup = append(backup, t.URL)
		default:
			main = append(main, t.URL)
		}
	}
	return append(main, backup...)
}

// targets are the upstreams with these URLs, which this package wrote itself.
func targets(texts ...string) []Target {
	var list []Target
	for _, u := range urls(texts...) {
		list = append(list, Target{URL: u, Weight: MaxWeight})
	}
	return list
}

// targets checks the upstreams of a WebSocket route.
func (c *checker) targets(key string, list []Target) {
	var plain []*url.URL
	off := 0
	for i, t := range list {
		at := element(key, i)
		plain = append(plain, t.URL)
		if slices.ContainsFunc(list[:i], func(o Target) bool { return o.String() == t.String() }) {
			c.err(at, fmt.Sprintf("%s stands in the list twice", t), "remove one")
		}
		if t.Weight > MaxWeight {
			c.err(child(at, "weight"), fmt.Sprintf("%d is more than %d", t.Weight, MaxWeight), "write a number from 0 (nobody is sent there) to 100")
		}
		if t.Weight == 0 {
			off++
		}
		switch {
		case t.SNI != "" && t.URL.Scheme != "https":
			c.err(child(at, "sni"), "there is no TLS to "+t.URL.String(), "write https:// in url, or remove sni")
		case t.SNI != "" && !isDomain(t.SNI):
			c.err(child(at, "sni"), fmt.Sprintf("%q is not a host name", t.SNI), `write a name like "signal.example.com"`)
		}
		if t.Host != "" {
			u, err := url.Parse("https://" + t.Host)
			if err != nil || u.Host != t.Host || !IsHost(u.Hostname()) {
				c.err(child(at, "host"), fmt.Sprintf("%q is not a host", t.Host), `write "signal.example.com" or "signal.example.com:8443"`)
			}
		}
	}
	c.addresses(key, plain)
	if off > 0 && off == len(list) {
		c.warn(key, "every upstream has weight 0: nobody is served", "give one a weight")
	}
}

// balance checks the words that choose among upstreams.
func (c *checker) balance(at string, r Signaling) {
	key := child(at, "balance")
	switch name, isQuery := strings.CutPrefix(r.Balance, "query:"); {
	case isQuery && name == "":
		c.err(key, "names no parameter", `write "query:userId"`)
	case isQuery && strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("&=#?+%", r) }):
		c.err(key, fmt.Sprintf("%q is not the name of a parameter", name), `write "query:userId"`)
	case isQuery, slices.Contains(balances, r.Balance):
	default:
		c.err(key, fmt.Sprintf("%q is not known", r.Balance), "write "+oneOf(append(slices.Clone(balances), "query:NAME")))
	}
	if r.HealthPath != "" {
		if what := badPath(r.HealthPath); what != "" {
			c.err(child(at, "health_path"), what, `write a path like "/health"`)
		}
		if r.HealthCheck != "websocket" {
			c.warn(child(at, "health_path"), `counts only with health_check = "websocket"`, "remove it")
		}
	}
}

// tunnelOnly refuses what routes that look into messages do not do: they write the 101
// themselves, and Qrator's is the upstream's byte for byte.
func (c *checker) tunnelOnly(at string, r Signaling) {
	if r.Mode != ModeTunnel && r.Answer != "standard" {
		c.err(child(at, "answer"), fmt.Sprintf("does not count on a route with mode = %q", r.Mode), "remove it")
	}
}

var balances = []string{"order", "client_ip", "least_connections"}
