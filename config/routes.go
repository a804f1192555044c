package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Reserved are the paths that turngate serves itself; no route may take one
// or lie below one.
var Reserved = []string{"/healthz", "/readyz", "/.well-known"}

// claim is a path that somebody wants on the HTTPS listener.
type claim struct {
	key  string
	path string // as written
	at   []ListenAddr
	kind string // "check", "signaling", "logger", "trtc" or "api"
}

func (c *checker) signaling() {
	for i, r := range c.cfg.Signaling {
		at := element("signaling", i)
		c.preset(at, r.Preset, signalingPresets)
		c.targets(child(at, "upstream"), r.Upstream)
		c.balance(at, r)
		c.addHeaders(child(at, "add_headers"), r.AddHeaders)
		if len(r.Upstream) == 0 && r.Mode != ModeHeaders && !c.faulty(child(at, "preset")) {
			c.err(child(at, "upstream"), "the route leads nowhere", `write upstream = ["https://host/path"], or a preset`)
		}
		c.originList(child(at, "origins"), r.Origins)
		c.reach(at, r.Reach.Reach)
		c.inspection(at, r)
		c.tunnelOnly(at, r)
		const sdk = Duration(3700 * time.Second) // the SDK keeps an idle socket for 3600 s
		if r.Preset == PresetTRTC && r.IdleTimeout > 0 && r.IdleTimeout < sdk {
			c.warn(child(at, "idle_timeout"), fmt.Sprintf("%s cuts idle clients that the TRTC SDK keeps for an hour", r.IdleTimeout), `write "0s" for none, or at least "3700s"`)
		}
		if IsWatchRTC(r.Preset) && r.IdleTimeout > 0 && r.IdleTimeout < Duration(5*time.Minute) {
			c.warn(child(at, "idle_timeout"), fmt.Sprintf("%s cuts clients of watchRTC, which keep no connection alive", r.IdleTimeout), `write "0s" for none, or at least "5m"`)
		}
		if IsWatchRTC(r.Preset) && r.MaxMessage > 0 && r.MaxMessage < 1<<20 {
			c.warn(child(at, "max_message"), fmt.Sprintf("%s cuts clients of watchRTC that send the statistics of a long call", r.MaxMessage), `write at least "1MiB"`)
		}
	}
	for _, r := range c.cfg.WatchRTCAlone() {
		i := slices.IndexFunc(c.cfg.Signaling, func(s Signaling) bool { return s.Path == r.Path && slices.Equal(s.Listen, r.Listen) })
		for n, t := range r.Upstream {
			if t.SNI != "" || t.Host != "" {
				c.warn(element(child(element("signaling", i), "upstream"), n), "sni and host do not hold for the SDK's HTTPS requests on this path, which go to the host of the url",
					`write the name into the url, and where it is into resolve = { "name" = "address" }`)
			}
		}
	}
}

func (c *checker) logger() {
	for i, r := range c.cfg.Logger {
		at := element("logger", i)
		c.preset(at, r.Preset, loggerPresets)
		c.upstreams(child(at, "upstream"), r.Upstream)
		if len(r.Upstream) == 0 && r.Preset != PresetTRTC && !c.faulty(child(at, "preset")) {
			c.err(child(at, "upstream"), "the route leads nowhere", `write upstream = ["https://host/path"], or a preset`)
		}
		c.originList(child(at, "origins"), r.Origins)
		c.reach(at, r.Reach)
		if r.MaxBody == 0 {
			c.err(child(at, "max_body"), "0 refuses every report", `write a size like "8MiB"`)
		} else if IsWatchRTC(r.Preset) && r.MaxBody < 1<<20 {
			c.warn(child(at, "max_body"), fmt.Sprintf("%s is less than watchRTC may send", r.MaxBody), `write at least "1MiB"`)
		}
		if r.Spool > 0 && r.Spool < 1<<20 {
			c.warn(child(at, "spool"), fmt.Sprintf("%s holds a few reports only", r.Spool), `write a size like "64MiB", or "0B" for no spool`)
		}
		if r.SpoolStatus < 200 || r.SpoolStatus > 299 {
			c.err(child(at, "spool_status"), fmt.Sprintf("%d would make clients send again what is kept", r.SpoolStatus), "write 200")
		}
	}
}

// claims lists the paths that the file wants on the HTTPS listeners.
func (c *checker) claims() []claim {
	var list []claim
	for i, r := range c.cfg.Signaling {
		list = append(list, claim{child(element("signaling", i), "path"), r.Path, r.Listen, "signaling"})
	}
	for i, r := range c.cfg.Logger {
		list = append(list, claim{child(element("logger", i), "path"), r.Path, r.Listen, "logger"})
	}
	if t := c.cfg.TRTC; c.cfg.UsesTRTC() {
		list = append(list, claim{"trtc.schedule", t.Schedule, nil, "trtc"}, claim{"trtc.unified", t.Unified, nil, "trtc"})
	}
	list = append(list, claim{"turn.api.path", c.cfg.TURN.API.Path, nil, "api"}, claim{"check.path", c.cfg.Check.Path, nil, "check"})
	return slices.DeleteFunc(list, func(a claim) bool {
		// Without its preset a route has no path; and an empty path of [trtc],
		// [turn.api] or [check] is no route.
		return a.path == "" && (a.kind == "trtc" || a.kind == "api" || a.kind == "check" || c.faulty(strings.TrimSuffix(a.key, "path")+"preset"))
	})
}

// paths checks every wanted path. A signaling and a log route may share one:
// the WebSocket handshakes go to the first, all other requests to the second.
func (c *checker) paths() {
	claims := c.claims()
	for i, a := range claims {
		if what := badPath(a.path); what != "" {
			c.err(a.key, what, `write a path like "/ws/"`)
			continue
		}
		if a.kind == "check" && trim(a.path) == "" {
			c.err(a.key, `"/" would be in the way of everything`, `write "/check"`)
			continue
		}
		for _, own := range Reserved {
			if within(a.path, own) {
				c.err(a.key, fmt.Sprintf("%q is a path of turngate itself", a.path), "choose another one")
			}
		}
		if page := trim(c.cfg.Check.Path); a.kind == "check" {
			continue // who is in its way has been told
		} else if page != "" && len(a.at) == 0 && within(a.path, page) {
			c.err(a.key, fmt.Sprintf("%q is a path of the check page", a.path), "choose another one, or move the page with check.path")
		}
		for _, b := range claims[:i] {
			shared := a.kind == "logger" && b.kind == "signaling"
			if trim(a.path) != trim(b.path) || !Meet(a.at, b.at) {
				continue
			}
			if shared {
				if !slices.Equal(a.at, b.at) {
					c.err(strings.TrimSuffix(a.key, "path")+"listen", fmt.Sprintf("%q of %s%s answers on other listeners", b.path, b.key, c.onLine(b.key)), "write the same list for both, or another path")
				}
				continue
			}
			c.err(a.key, fmt.Sprintf("%q is taken by %s%s", a.path, b.key, c.onLine(b.key)), "choose another path; with and without the final slash is the same one")
		}
	}
}

func (c *checker) onLine(key string) string {
	if n := c.pos.line(key); n > 0 {
		return fmt.Sprintf(" on line %d", n)
	}
	return ""
}

func trim(path string) string { return strings.TrimRight(path, "/") }

// within reports whether a path is own, or below it.
func within(path, own string) bool {
	return trim(path) == own || strings.HasPrefix(path, own+"/")
}

// badPath says what is wrong with the path of a route, or "".
func badPath(path string) string {
	switch {
	case path == "":
		return "the route has no path"
	case path[0] != '/':
		return fmt.Sprintf("%q does not begin with a slash", path)
	case strings.ContainsAny(path, "?#"):
		return fmt.Sprintf("%q has a query or fragment: the client's own query would not be understood behind it", path)
	case strings.Contains(path, "//"):
		return fmt.Sprintf("%q has a double slash", path)
	case strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`%\"'<>^{|}`+"`", r) }):
		return fmt.Sprintf("%q has a character that is not allowed in a path", path)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return fmt.Sprintf("%q has the segment %q", path, segment)
		}
	}
	return ""
}

func (c *checker) preset(route, preset string, known []string) {
	if preset == "" || slices.Contains(known, preset) {
		return
	}
	fix := "write " + oneOf(known)
	if s := Closest(preset, known); s != "" {
		fix = fmt.Sprintf("did you mean %q?", s)
	}
	c.err(child(route, "preset"), fmt.Sprintf("%q is not a preset", preset), fix)
}

func (c *checker) upstreams(key string, list []*url.URL) {
	for i, u := range list {
		if slices.ContainsFunc(list[:i], func(v *url.URL) bool { return v.String() == u.String() }) {
			c.err(element(key, i), fmt.Sprintf("%s stands in the list twice", u), "remove one")
		}
	}
	c.addresses(key, list)
}

// addresses checks URLs of upstreams, each for itself.
func (c *checker) addresses(key string, list []*url.URL) {
	for i, u := range list {
		if plainHTTP(u) {
			c.warn(element(key, i), fmt.Sprintf("%s is reached without encryption", u), "write https:// if the upstream can")
		}
		if what := badPath(u.EscapedPath()); u.Path != "" && what != "" && !strings.Contains(u.EscapedPath(), "%") {
			c.err(element(key, i), "path "+what, `write "https://host/path"`)
		}
	}
}

// originList checks values that are compared with the Origin header:
// scheme://host[:port], where the host may begin with "*." for every name
// below it, or "null".
func (c *checker) originList(key string, list []string) {
	if !c.set[key] {
		return // inherited, and checked where it stands
	}
	for i, o := range list {
		if o == "null" {
			continue
		}
		scheme, rest, _ := strings.Cut(o, "://")
		host := strings.TrimPrefix(rest, "*.")
		u, err := url.Parse("https://" + host)
		if err != nil || u.Host != host || scheme != "https" && scheme != "http" || !IsHost(u.Hostname()) {
			c.err(element(key, i), fmt.Sprintf("%q is not an origin", o), `write "https://app.example.com" or "https://*.example.com"`)
		}
	}
}

func (c *checker) trtc() {
	t := c.cfg.TRTC
	c.originList("trtc.origins", t.Origins)
	c.upstreams("trtc.schedule_upstream", t.ScheduleUpstream)
	for i, d := range t.SignalDomains {
		name, wild := strings.CutPrefix(d, "*.")
		switch key := element("trtc.signal_domains", i); {
		case !isDomain(name):
			c.err(key, fmt.Sprintf("%q is not a domain", d), `write "*.rtc.qq.com" or "signaling.rtc.qq.com"`)
		case wild && !strings.Contains(name, "."):
			c.err(key, fmt.Sprintf("%q would allow a whole top-level domain", d), "name the domain below it")
		}
	}
	if len(t.SignalDomains) == 0 && t.Unified != "" && c.cfg.UsesTRTC() {
		c.warn("trtc.signal_domains", "is empty: the route trtc.unified refuses every client", `list the domains, or write unified = ""`)
	}
	if _, ok := c.pos["trtc"]; ok && !c.cfg.UsesTRTC() {
		c.warn("trtc", "counts only beside a route with preset \"trtc\", and there is none", "remove the table, or give a route the preset")
	}
}
