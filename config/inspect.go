package config

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Modes of a WebSocket route.
const (
	ModeTunnel  = "tunnel"  // bytes
	ModeInspect = "inspect" // messages, and hooks that decide about them
	ModeHeaders = "headers" // the same, as the x-wsproxy-* headers of trusted peers say
)

// Inspection is the part of Signaling that concerns routes which look into messages.
type Inspection struct {
	Mode               string         `toml:"mode" reload:"live" one:"tunnel|inspect|headers"` // inspect if there is a hook and the file does not say
	MaxUpstreamMessage Size           `toml:"max_upstream_message" reload:"live"`              // 0: no limit
	Compress           bool           `toml:"compress" reload:"live"`
	ValidateUTF8       bool           `toml:"validate_utf8" reload:"live"`
	IdleCounts         string         `toml:"idle_counts" reload:"live" one:"both|inbound"`
	TrustedPeers       []netip.Prefix `toml:"trusted_peers" reload:"live"`
	Untrusted          string         `toml:"untrusted" reload:"live" one:"refuse|strip"`
	Targets            []string       `toml:"targets" reload:"live"`
	WebhookPoolSize    int            `toml:"webhook_pool_size" reload:"live"`
	Hook               Hooks          `toml:"hook"`
}

// Hooks are those of the two directions. A hook without URL is none.
type Hooks struct {
	Inbound  Hook `toml:"inbound"`
	Outbound Hook `toml:"outbound"`
}

// Hook is an HTTP request that decides about messages.
type Hook struct {
	URL           string            `toml:"url" reload:"live"`
	Method        string            `toml:"method" reload:"live" one:"POST|PUT|PATCH|GET|DELETE|HEAD|OPTIONS"`
	Headers       map[string]Secret `toml:"headers" reload:"live"`
	Timeout       Duration          `toml:"timeout" reload:"live"`
	OnError       string            `toml:"on_error" reload:"live" one:"close|forward"`
	InFlight      int               `toml:"in_flight" reload:"live"`   // of one connection
	Concurrency   int               `toml:"concurrency" reload:"live"` // of all connections
	Binary        string            `toml:"binary" reload:"live" one:"deny|forward|hook"`
	Rewrite       bool              `toml:"rewrite" reload:"live"`
	MaxAnswer     Size              `toml:"max_answer" reload:"live"`
	BatchMessages int               `toml:"batch_messages" reload:"live"` // 1: no batches
	BatchDelay    Duration          `toml:"batch_delay" reload:"live"`
	Keys          map[string]Secret `toml:"keys" reload:"live"` // by id; empty: no signature
}

// inspection is what a route has that says nothing about it.
func inspection() Inspection {
	hook := Hook{
		Method: "POST", Timeout: Duration(5 * time.Second), OnError: "close", InFlight: 32, Concurrency: 100,
		Binary: "deny", MaxAnswer: 1 << 20, BatchMessages: 1, BatchDelay: Duration(5 * time.Millisecond),
	}
	return Inspection{
		Mode: ModeTunnel, MaxUpstreamMessage: 16 << 20, ValidateUTF8: true, IdleCounts: "both", Untrusted: "refuse",
		WebhookPoolSize: 100, Hook: Hooks{hook, hook},
	}
}

// deriveMode makes a route with a hook one that inspects.
func deriveMode(cfg *Config, d *decoder) {
	for i := range cfg.Signaling {
		r, at := &cfg.Signaling[i], element("signaling", i)
		if r.Mode == ModeTunnel && !d.set[child(at, "mode")] && (r.Hook.Inbound.URL != "" || r.Hook.Outbound.URL != "") {
			r.Mode = ModeInspect
			cfg.origins[child(at, "mode")] = Origin{Note: "hook"}
		}
	}
}

// inspection checks the keys of a route that looks into messages.
func (c *checker) inspection(at string, r Signaling) {
	hooks := r.Hook.Inbound.URL != "" || r.Hook.Outbound.URL != ""
	if r.Mode == ModeTunnel && hooks {
		c.err(child(at, "mode"), "a tunnel does not look into messages, and there is a hook", `write "inspect", or remove the hook`)
	}
	unset := inspection()
	unset.Mode, unset.Hook = r.Mode, r.Hook
	byHeaders := r.Inspection
	byHeaders.MaxUpstreamMessage, byHeaders.Compress, byHeaders.ValidateUTF8, byHeaders.IdleCounts =
		unset.MaxUpstreamMessage, unset.Compress, unset.ValidateUTF8, unset.IdleCounts
	switch {
	case r.Mode == ModeHeaders:
		c.headersMode(at, r)
	case !reflect.DeepEqual(byHeaders, unset):
		c.idle(at, `mode = "headers"`, "trusted_peers", "untrusted", "targets", "webhook_pool_size")
	case r.Mode == ModeTunnel && !reflect.DeepEqual(r.Inspection, unset):
		c.idle(at, `mode = "inspect"`, "max_upstream_message", "compress", "validate_utf8", "idle_counts")
	}
	if r.Preset == PresetTRTC && r.Mode != ModeTunnel && (c.cfg.TRTC.Schedule != "" || c.cfg.TRTC.Unified != "") {
		c.warn(child(at, "mode"), "connections by trtc.schedule and trtc.unified are not inspected", `write schedule = "" and unified = "" in [trtc]`)
	}
	hooked := child(at, "hook")
	c.hook(child(hooked, "inbound"), r.Hook.Inbound)
	c.hook(child(hooked, "outbound"), r.Hook.Outbound)
}

// idle warns about those of the keys that the file sets: nothing reads them.
func (c *checker) idle(at, counts string, keys ...string) {
	for _, k := range keys {
		if c.set[child(at, k)] {
			c.warn(child(at, k), "counts only with "+counts, "remove it, or write "+counts)
		}
	}
}

func (c *checker) headersMode(at string, r Signaling) {
	key := child(at, "trusted_peers")
	if len(r.TrustedPeers) == 0 && r.Untrusted == "refuse" {
		c.warn(key, "is empty: every connection is refused", `list the addresses of the proxy that sets the headers, like ["192.0.2.7"]`)
	}
	for i, p := range r.TrustedPeers {
		if p.Bits() == 0 {
			c.warn(element(key, i), fmt.Sprintf("%s lets everybody choose where connections go", p), "list the addresses of the proxy that sets the headers")
		}
	}
	if r.Untrusted == "strip" && len(r.Upstream) == 0 {
		c.err(child(at, "untrusted"), `"strip" needs an upstream for the connections of other peers`, `write upstream = ["https://host/path"], or "refuse"`)
	}
	key = child(at, "targets")
	if len(r.Targets) == 0 && len(r.TrustedPeers) > 0 {
		c.warn(key, "is empty: no upstream may be named", `list upstreams and hooks, like ["*.example.com", "192.0.2.0/24:8080"], or ["*"]`)
	}
	for i, t := range r.Targets {
		if !isTarget(t) {
			c.err(element(key, i), fmt.Sprintf("%q is not a target", t), `write "app.example.com", "*.example.com", "192.0.2.0/24" or "*", with ":port" if wanted ("[2001:db8::/32]:443")`)
		}
	}
	if r.WebhookPoolSize == 0 {
		c.err(child(at, "webhook_pool_size"), "0 would ask no hook at all", "write a number from 1")
	}
}

// isTarget reports whether s is "*", a name, "*.name", an address or a prefix, with a
// port if wanted.
func isTarget(s string) bool {
	host, port := s, ""
	switch rest, bracket := strings.CutPrefix(s, "["); {
	case bracket:
		var ok bool
		if host, port, ok = strings.Cut(rest, "]"); !ok || port != "" && port[0] != ':' {
			return false
		}
		if port != "" {
			if port = port[1:]; port == "" {
				return false
			}
		}
	case strings.Count(s, ":") == 1:
		host, port, _ = strings.Cut(s, ":")
		if port == "" {
			return false
		}
	}
	if port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false
		}
	}
	if _, err := parsePrefix(host); err == nil {
		return true
	}
	name := strings.TrimPrefix(host, "*.")
	return host == "*" || isHostName(name) && !strings.HasSuffix(name, ".") && !strings.Contains(host, "/")
}

// hook checks one direction. Without a URL the other keys mean nothing.
func (c *checker) hook(at string, h Hook) {
	if h.URL == "" {
		if !reflect.DeepEqual(h, inspection().Hook.Inbound) {
			c.warn(at, "has no url: no message is asked about", `write url = "https://host/path", or remove the table`)
		}
		return
	}
	u, err := url.Parse(h.URL)
	switch key := child(at, "url"); {
	case strings.Contains(h.URL, "@"): // it may hold a password: do not repeat it
		c.err(key, "a user in the URL of a hook is not supported", `write headers = { Authorization = "env:NAME" }`)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || !IsHost(u.Hostname()) || strings.Contains(h.URL, "#"):
		c.err(key, "is not the URL of a hook", `write "https://host[:port]/path"`)
	case plainHTTP(u):
		c.warn(key, "messages reach the hook without encryption", "write https:// if the hook can")
	}
	for _, n := range []struct {
		key  string
		zero bool
	}{{"in_flight", h.InFlight == 0}, {"concurrency", h.Concurrency == 0}, {"batch_messages", h.BatchMessages == 0}, {"max_answer", h.MaxAnswer == 0}} {
		if n.zero {
			c.err(child(at, n.key), "must be more than zero", "write a number from 1")
		}
	}
	c.positive(at, "timeout", h.Timeout)
	if h.BatchMessages > 1 {
		c.positive(at, "batch_delay", h.BatchDelay)
	}
	if h.Method == "HEAD" && (h.Rewrite || h.BatchMessages > 1) {
		c.err(child(at, "method"), "an answer to HEAD has no body to rewrite with or to list verdicts in", `write "POST"`)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Headers)) {
		key, lower := child(child(at, "headers"), name), strings.ToLower(name)
		switch {
		case name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r) }):
			c.err(key, fmt.Sprintf("%q is not the name of a header", name), `write { Authorization = "..." }`)
		case strings.HasPrefix(lower, "x-turngate-") || slices.Contains([]string{"host", "connection", "content-length", "transfer-encoding", "te",
			"trailer", "upgrade", "keep-alive", "proxy-connection", "proxy-authorization", "expect"}, lower):
			c.err(key, fmt.Sprintf("%q cannot be set", name), "remove it")
		case strings.ContainsFunc(h.Headers[name].Reveal(), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			c.err(key, "has a control character in it", "remove it")
		}
	}
	for _, id := range slices.Sorted(maps.Keys(h.Keys)) {
		key := child(child(at, "keys"), id)
		switch {
		case id == "" || len(id) > 64 || !isBare(strings.ReplaceAll(id, ".", "_")):
			c.err(key, "the id of a key has letters, digits, '.', '_' and '-', 64 at most", `write { "2026-11" = "env:HOOK_KEY" }`)
		case len(h.Keys[id].Reveal()) < 16:
			c.err(key, "is shorter than 16 characters", `choose a random one, for example from "openssl rand -hex 32"`)
		}
	}
	if len(h.Keys) > 2 {
		c.err(child(at, "keys"), fmt.Sprintf("%d keys sign every request", len(h.Keys)), "keep the new one and the one before it")
	}
}
