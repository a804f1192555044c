package importer

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/turngate/turngate/config"
)

// haproxyConf is HAProxy's configuration while it is interpreted.
type haproxyConf struct {
	*site
	dir      string
	global   *section
	backends map[string]*section
	sections []*section
}

func (s *site) haproxyFile(src Source) error {
	sections, err := parseHAProxy(src.Name, string(src.Data))
	if err != nil {
		return err
	}
	c := &haproxyConf{site: s, dir: filepath.Dir(src.Name), global: &section{kind: "global"}, backends: map[string]*section{}, sections: sections}
	for _, sec := range sections {
		switch sec.kind {
		case "global":
			c.global = sec
		case "backend", "listen":
			c.backends[sec.name] = sec
		}
	}
	for _, sec := range sections {
		if sec.kind == "frontend" || sec.kind == "listen" {
			c.frontend(sec)
		}
	}
	for _, sec := range sections {
		c.leftovers(sec)
	}
	return nil
}

// rule is a backend with the condition under which it is used.
type rule struct {
	backend string
	paths   []string // nil: any
	hosts   []string
	ws, any bool // WebSockets alone, or everything; neither: plain requests alone
	pos     Pos
	hit     bool
}

func (r *rule) covers(path string, ws bool) bool {
	return (r.any || r.ws == ws) && (r.paths == nil || slices.ContainsFunc(r.paths, func(p string) bool { return strings.HasPrefix(path, p) }))
}

// frontend carries over a listener with everything behind it.
func (c *haproxyConf) frontend(sec *section) {
	mode := sec.one("mode")
	binds := c.binds(sec)
	if mode == nil || mode.word(1) != "http" {
		if !c.tcp(sec, binds) {
			return
		}
	}
	if sec.kind == "listen" && sec.one("stats", "enable") != nil || sec.kind == "frontend" && sec.one("stats", "enable") != nil {
		c.notNeeded(sec.pos, sec.kind+" "+sec.name, `"turngate status" and the metrics say it`)
		useLines(sec.lines)
		return
	}
	named := acls(sec)
	rules := c.rules(sec, named)
	if len(rules) == 0 {
		if sec.one("redirect") != nil || sec.one("http-request", "redirect") != nil {
			c.changed(sec.pos, sec.kind+" "+sec.name, "it only redirects, and turngate opens no port for plain HTTP", "clients use wss:// and https://")
		} else {
			c.lost(sec.pos, sec.kind+" "+sec.name, "it leads to no backend that turngate can reach", "")
		}
		useLines(sec.lines)
		return
	}
	paths := map[string]bool{}
	for _, r := range rules {
		if r.paths == nil {
			paths["/"] = true
		}
		for _, p := range r.paths {
			paths[p] = true
		}
	}
	access, open := c.denials(sec, named, paths)
	if !open {
		return
	}
	before := len(c.routes)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		var found [2]*rule
		for i, ws := range []bool{true, false} {
			if at := slices.IndexFunc(rules, func(r *rule) bool { return r.covers(path, ws) }); at >= 0 {
				found[i] = rules[at]
				rules[at].hit = true
			}
		}
		if found[0] != nil && found[1] != nil && found[0].backend == found[1].backend {
			c.route(sec, path, found[0], true, true, access)
			continue
		}
		if found[0] != nil {
			c.route(sec, path, found[0], true, false, access)
		}
		if found[1] != nil {
			c.route(sec, path, found[1], false, true, access)
		}
	}
	for _, r := range rules {
		for _, h := range r.hosts {
			c.host(h, r.pos)
		}
		c.anyName = c.anyName || r.hit && len(r.hosts) == 0
		if !r.hit {
			if len(r.hosts) > 0 || slices.ContainsFunc(rules, func(o *rule) bool { return o != r && len(o.hosts) > 0 && o.pos.Line <= r.pos.Line }) {
				c.lost(r.pos, "use_backend "+r.backend, "its paths lead elsewhere already, and turngate has routes for paths, not for names", "give it a path of its own")
			} else {
				c.notNeeded(r.pos, "use_backend "+r.backend, "an earlier rule takes all of it")
			}
		}
	}
	if len(c.routes) == before {
		return
	}
	c.openBinds(sec, binds)
	c.frontendLimits(sec, named)
	if d := sec.one("timeout", "http-request"); d != nil {
		if t, ok := haproxyTime(d.word(2)); ok && t > 0 {
			c.draft.in("https").put("header_timeout", durationText(t), d.pos, "")
		}
	}
	if sec.one("log") != nil || c.global.one("log") != nil {
		if o := sec.one("option", "httplog"); o != nil {
			c.draft.in("log").put("access", "stdout", o.pos, "")
			c.changed(o.pos, "option httplog", "the access log goes to standard output, as JSON and without the login in the query", `write another file in log.access, or "" for none`)
		}
	}
}

// host takes a name that a rule asks for.
func (c *haproxyConf) host(name string, pos Pos) {
	name, _, _ = strings.Cut(strings.ToLower(name), ":")
	if name != "" && name != "localhost" && isDomainName(strings.TrimPrefix(name, "*.")) {
		c.addName(name, pos)
	}
}

// rules are those of a frontend in order, the default last.
func (c *haproxyConf) rules(sec *section, named map[string][]test) []*rule {
	var list []*rule
	for _, l := range sec.all("use_backend") {
		before, cond := ifPart(l.words)
		name := ""
		if len(before) > 1 {
			name = before[1]
		}
		if c.backends[name] == nil {
			c.lost(l.pos, "use_backend "+name, "there is no such backend here", "")
			continue
		}
		for _, conj := range condition(cond, named) {
			if len(list) >= maxRoutes {
				c.lost(l.pos, "use_backend "+name, fmt.Sprintf("there are more than %d rules", maxRoutes), "")
				return list
			}
			r := &rule{backend: name, any: true, pos: l.pos}
			if why := r.narrow(conj); why != "" {
				c.lost(l.pos, "use_backend "+name, why, "write the route by hand")
				continue
			}
			list = append(list, r)
		}
	}
	if d := sec.one("default_backend"); d != nil {
		if c.backends[d.word(1)] == nil {
			c.lost(d.pos, "default_backend "+d.word(1), "there is no such backend here", "")
		} else {
			list = append(list, &rule{backend: d.word(1), any: true, pos: d.pos})
		}
	} else if sec.kind == "listen" {
		list = append(list, &rule{backend: sec.name, any: true, pos: sec.pos})
	}
	return list
}

// narrow applies the tests of a condition to a rule, or says which it cannot.
func (r *rule) narrow(conj conjunction) (why string) {
	for _, t := range conj {
		switch {
		case t.kind == "path" && !t.not && r.paths == nil && len(t.values) > 0:
			for _, p := range t.values {
				if !strings.HasPrefix(p, "/") {
					return fmt.Sprintf("%q is not a path", p)
				}
			}
			r.paths = t.values
		case t.kind == "host" && !t.not:
			r.hosts = append(r.hosts, t.values...)
		case t.kind == "ws":
			if !r.any && r.ws == t.not {
				return "its conditions exclude each other"
			}
			r.any, r.ws = false, !t.not
		case t.kind == "true" && !t.not:
		default:
			return fmt.Sprintf("turngate has no condition like %s", t.what)
		}
	}
	return ""
}

// restriction is who may use a path.
type restriction struct {
	path string // "" for all
	set  addrSet
	pos  Pos
}

// denials reads what refuses requests. open is false when a rule guards
// everything in a way that turngate has not, and nothing may be imported.
func (c *haproxyConf) denials(sec *section, named map[string][]test, paths map[string]bool) (list []restriction, open bool) {
	open = true
	for _, verb := range [][]string{{"http-request", "deny"}, {"http-request", "tarpit"}, {"http-request", "reject"}, {"http-request", "silent-drop"},
		{"tcp-request", "connection"}, {"tcp-request", "content"}, {"block"}} {
		for _, l := range sec.all(verb...) {
			if verb[0] == "tcp-request" && l.word(2) != "reject" {
				l.used = false
				continue
			}
			what := strings.Join(l.words[:min(len(l.words), 2)], " ")
			_, cond := ifPart(l.words)
			for _, conj := range condition(cond, named) {
				r := restriction{set: everywhere, pos: l.pos}
				known, guard, isRate := len(conj) > 0, false, false
				for _, t := range conj {
					guard = guard || t.not
					switch {
					case t.kind == "rate" && len(conj) == 1:
						isRate = true
					case t.kind == "path" && !t.not && len(t.values) == 1 && r.path == "":
						r.path = t.values[0]
					case t.kind == "src":
						refused := addrSet{}
						for _, v := range t.values {
							p, ok := parsePrefix(v)
							known = known && ok && len(t.values) <= 500
							if known {
								refused = refused.union(addrSet{rangeOf(p)})
							}
						}
						if !t.not {
							r.set = r.set.minus(refused)
						} else {
							r.set = r.set.and(refused)
						}
					case t.kind == "path" && !t.not && len(t.values) > 1:
						known = false
					default:
						known = false
					}
				}
				switch {
				case isRate: // frontendLimits
				case len(conj) == 0:
					c.lost(l.pos, what, "it refuses everything", "")
					return nil, false
				case !known && guard:
					c.lost(l.pos, what, "turngate does not have it, so the routes of this frontend were left out rather than opened to everybody", "restrict who reaches this host in the firewall")
					useLines(sec.lines)
					return nil, false
				case !known:
					c.lost(l.pos, what, fmt.Sprintf("turngate has no condition like %s", conj[0].what), "")
				default:
					if !slices.ContainsFunc(conj, func(t test) bool { return t.kind == "src" }) {
						r.set = addrSet{}
					}
					if r.path != "" {
						paths[r.path] = true
					}
					list = append(list, r)
				}
			}
		}
	}
	if l := sec.one("http-request", "auth"); l != nil {
		c.lost(l.pos, "http-request auth", "turngate does not have it, so the routes of this frontend were left out rather than opened to everybody", "let the upstream ask")
		useLines(sec.lines)
		return nil, false
	}
	return list, open
}

func useLines(list []*haproxyLine) {
	for _, l := range list {
		l.used = true
	}
}

var (
	replacePath = regexp.MustCompile(`^%\[path,regsub\(\^?([^,()]+),([^,()]*)(?:,[gi]+)?\)\]$`)
	logFormat   = regexp.MustCompile(`%\[[^\]]*\]|%[a-zA-Z]+`)
)

// route makes one route of a path and a backend.
func (c *haproxyConf) route(front *section, path string, ru *rule, ws, plain bool, access []restriction) {
	back := c.backends[ru.backend]
	what := "backend " + ru.backend
	r := &route{pos: ru.pos, path: path, ws: ws, plain: plain}
	set := everywhere
	for _, a := range access {
		if a.path == "" || strings.HasPrefix(path, a.path) {
			set, r.limited, r.limitedBy = set.and(a.set), true, a.pos
		}
	}
	if r.limited {
		if r.clients = set.prefixes(); len(r.clients) > maxPerList {
			c.lost(r.limitedBy, what, "its rules make too many prefixes, so the route was left out", "")
			return
		}
	}
	for _, s := range []*section{front, back} {
		if l := s.one("http-request", "auth"); l != nil {
			c.lost(l.pos, "http-request auth", fmt.Sprintf("turngate does not have it, so %s was left out rather than opened to everybody", what), "let the upstream ask")
			return
		}
	}
	if back != front {
		for _, verb := range []string{"deny", "tarpit", "reject", "silent-drop"} {
			if l := back.one("http-request", verb); l != nil {
				c.lost(l.pos, "http-request "+verb, fmt.Sprintf("turngate refuses nothing for one backend, so %s was left out", what), "write the route by hand")
				return
			}
		}
	}
	to, ok := c.upstreamPath(front, back, path)
	if !ok || !c.servers(r, back, to, ru) {
		return
	}
	c.requestHeaders(r, front, back, ru)
	c.backendTimes(r, front, back)
	c.addRoute(r, what)
}

// upstreamPath is the path that the upstream sees: the client's own, unless the
// beginning is replaced.
func (c *haproxyConf) upstreamPath(front, back *section, path string) (string, bool) {
	for _, s := range []*section{front, back} {
		for _, verb := range []string{"replace-path", "replace-uri", "set-path", "set-uri", "replace-pathq", "set-pathq"} {
			l := s.one("http-request", verb)
			if l == nil {
				continue
			}
			from, to, ok := "", "", false
			if m := captured.FindStringSubmatch(l.word(2)); m != nil && strings.HasPrefix(verb, "replace") {
				from = strings.ReplaceAll(m[1], `\`, "")
				to, ok = strings.CutSuffix(l.word(3), `\1`)
			} else if m := replacePath.FindStringSubmatch(l.word(2)); m != nil {
				from, to, ok = m[1], m[2], true
			}
			if trimmed := strings.TrimRight(path, "/"); ok && strings.TrimRight(from, "/") == trimmed {
				if to == "" {
					to = "/"
				}
				return to, true
			} else if ok && s == front && !strings.HasPrefix(from, trimmed) {
				continue // of another path
			}
			c.lost(l.pos, "http-request "+verb, "turngate does not rewrite paths, so the route "+path+" was left out", "write the path that the upstream wants in upstream")
			return "", false
		}
	}
	return path, true
}

// servers reads the servers of a backend.
func (c *haproxyConf) servers(r *route, back *section, path string, ru *rule) bool {
	var defaults []string
	if d := back.one("default-server"); d != nil {
		defaults = d.words[1:]
	}
	most := 1
	var weights []int
	for _, l := range back.all("server") {
		if len(l.words) < 3 || len(r.targets) >= 100 {
			continue
		}
		u := upstream{pos: l.pos}
		scheme, weight, down, verify, check := "http", 1, false, "", false
		params := slices.Concat(defaults, l.words[3:])
		for i := 0; i < len(params); i++ {
			next := func() string {
				if i++; i < len(params) {
					return params[i]
				}
				return ""
			}
			switch p := params[i]; p {
			case "ssl":
				scheme = "https"
			case "no-ssl":
				scheme = "http"
			case "verify":
				verify = next()
			case "ca-file":
				if f := next(); f != "@system-ca" {
					r.both("ca", c.file(f, "ca-base"), l.pos)
				}
			case "sni":
				c.sni(&u, next(), l.pos)
			case "verifyhost":
				if v := next(); isDomainName(v) {
					u.sni = strings.ToLower(v)
				}
			case "weight":
				if n, err := strconv.Atoi(next()); err == nil && n >= 0 && n <= 256 {
					weight = n
				}
			case "backup":
				u.backup = true
			case "disabled":
				down = true
			case "check":
				check = true
			case "inter":
				if t, ok := haproxyTime(next()); ok && t > 0 && check {
					r.sig = append(r.sig, entry{key: "health_interval", val: durationText(t), pos: l.pos})
				}
			case "rise", "fall":
				if n, err := strconv.Atoi(next()); err == nil && n > 0 && n < 1000 {
					r.sig = append(r.sig, entry{key: "health_" + p, val: n, pos: l.pos})
				}
			case "send-proxy", "send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn", "proxy-v2-options":
				c.lost(l.pos, p, "turngate sends upstreams no PROXY header: they see the client in X-Forwarded-For", "let the upstream expect none")
			case "crt":
				next()
				c.lost(l.pos, p, "turngate shows upstreams no certificate of its own", "")
			case "maxconn", "minconn", "maxqueue":
				c.lost(l.pos, p+" "+printable(next()), "the connections to one upstream are not counted", "see max_connections_per_address and https.max_connections")
			case "cookie", "addr", "port", "alpn", "check-alpn", "check-sni", "resolvers", "resolve-prefer", "init-addr", "slowstart", "on-marked-down", "on-marked-up",
				"on-error", "observe", "error-limit", "fastinter", "downinter", "id", "pool-max-conn", "pool-purge-delay", "ciphers", "ciphersuites", "ssl-min-ver", "ssl-max-ver",
				"source", "tcp-ut", "track", "agent-port", "agent-inter", "agent-addr", "proto", "check-proto", "ws", "npn", "crl-file", "namespace", "socks4", "max-reuse", "log-proto", "curves", "sigalgs":
				if v := next(); p == "socks4" {
					c.lost(l.pos, p, "turngate reaches upstreams through HTTP or SOCKS5 proxies", "write proxy in the route")
				} else if p == "source" && v != "" {
					c.lost(l.pos, p, "requests leave from the address that the host chooses", "")
				}
			}
		}
		addr := l.words[2]
		host, port := addr, ""
		if i := strings.LastIndexByte(addr, ':'); i >= 0 && (strings.Count(addr, ":") == 1 || strings.Contains(addr, "]:")) {
			host, port = addr[:i], addr[i+1:]
		}
		for _, p := range []string{"ipv4@", "ipv6@", "tcp@"} {
			host = strings.TrimPrefix(host, p)
		}
		if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
			host = "[" + host + "]"
		}
		if strings.ContainsAny(host, "/@$*") || host == "" || !config.IsHost(strings.Trim(host, "[]")) {
			c.lost(l.pos, "server "+l.words[1], "turngate reaches upstreams by name or address, over TCP", "write it in upstream")
			continue
		}
		if port != "" && !(scheme == "https" && port == "443" || scheme == "http" && port == "80") {
			host += ":" + port
		}
		u.url = scheme + "://" + strings.ToLower(host) + path
		if slices.ContainsFunc(r.targets, func(o upstream) bool { return o.url == u.url }) {
			continue
		}
		if scheme == "http" {
			u.sni = ""
		} else if name := cmpOr(u.sni, hostOf(u.url)); verify == "none" || verify == "" && c.global.one("ssl-server-verify", "none") != nil {
			c.changed(l.pos, "server "+l.words[1], fmt.Sprintf("turngate always verifies the certificate of an upstream, here for %s", name), "name its certificate authority in ca, and its name in sni")
		}
		if u.sni == hostOf(u.url) {
			u.sni = ""
		}
		if down {
			weight = 0
		}
		most = max(most, weight)
		weights = append(weights, weight)
		r.targets = append(r.targets, u)
		if check {
			r.sig = append(r.sig, entry{key: "health_check", val: "connect", pos: l.pos})
		}
	}
	if len(r.targets) == 0 {
		c.lost(ru.pos, "backend "+ru.backend, "no server of it can be carried over, so the route "+r.path+" was left out", "")
		return false
	}
	front := 0
	for i := range r.targets {
		if w := weights[i]; w > 0 {
			r.targets[i].weight = max(1, w*config.MaxWeight/most)
			if !r.targets[i].backup {
				front++
			}
		}
	}
	if front > 1 {
		c.balance(r, back)
	}
	if o := back.one("option", "httpchk"); o != nil {
		c.changed(o.pos, "option httpchk", "an upstream is checked by opening a connection to it", `health_check = "websocket" and health_path ask for a WebSocket`)
	}
	back.all("http-check")
	return true
}

// sni reads "str(name)" and fetches that are the client's name.
func (c *haproxyConf) sni(u *upstream, expr string, pos Pos) {
	if name, ok := strings.CutPrefix(expr, "str("); ok {
		if name = strings.ToLower(strings.Trim(strings.TrimSuffix(name, ")"), `"'`)); isDomainName(name) {
			u.sni = name
			return
		}
	}
	c.changed(pos, "sni", "the upstream is told its own name", "write sni in upstream")
}

func (c *haproxyConf) balance(r *route, back *section) {
	d := back.one("balance")
	stick := back.one("stick", "on")
	if ck := back.one("cookie"); ck != nil {
		c.changed(ck.pos, "cookie", "a client is kept at its upstream by its address, not by a cookie", `see balance: "client_ip", "query:NAME"`)
		r.balance = "client_ip"
		return
	}
	if stick != nil && stick.word(2) == "src" {
		r.balance = "client_ip"
		return
	}
	r.balance = "least_connections"
	if d == nil {
		c.changed(back.pos, "balance", "clients are spread by the number of connections, not in turn", "")
		return
	}
	switch name := d.word(1); {
	case name == "source":
		r.balance = "client_ip"
	case name == "leastconn":
	case name == "first":
		r.balance = "order"
	case name == "url_param" && d.word(2) != "":
		r.balance = "query:" + d.word(2)
	case strings.HasPrefix(strings.ToLower(name), "hdr(x-forwarded-for"), strings.HasPrefix(strings.ToLower(name), "hdr(x-real-ip"), name == "hash" && d.word(2) == "src":
		r.balance = "client_ip"
	case name == "roundrobin" || name == "static-rr" || strings.HasPrefix(name, "random"):
		c.changed(d.pos, "balance "+name, "clients are spread by the number of connections, not in turn", "")
	default:
		c.changed(d.pos, "balance "+name, "turngate does not choose by it, but by the number of connections", `see balance: "client_ip", "query:NAME"`)
	}
}

// requestHeaders reads forwardfor and set-header of both sides.
func (c *haproxyConf) requestHeaders(r *route, front, back *section, ru *rule) {
	preset := presetOf(r, true) != "" || presetOf(r, false) != ""
	sides := []*section{front}
	if back != front {
		sides = append(sides, back)
	}
	identifies, host := false, ""
	add := map[string]any{}
	var pos Pos
	for _, s := range sides {
		if o := s.one("option", "forwardfor"); o != nil {
			r.both("xff", "append", o.pos)
			for i, w := range o.words {
				if p, ok := parsePrefix(o.word(i + 1)); w == "except" && ok && !p.Addr().IsLoopback() {
					c.draft.add("https", "trusted_proxies", prefixText(p), o.pos)
				}
			}
		}
		for _, verb := range []string{"set-header", "add-header"} {
			for _, l := range s.all("http-request", verb) {
				before, cond := ifPart(l.words)
				name, val := l.word(2), ""
				if len(before) > 3 {
					val = before[3]
				}
				lower := strings.ToLower(name)
				if cond != nil {
					alternatives := condition(cond, acls(s))
					if len(alternatives) != 1 || slices.ContainsFunc(alternatives[0], func(t test) bool { return t.kind != "true" }) {
						c.lost(l.pos, "http-request "+verb+" "+name, "headers are added to every request of a route", "write it in add_headers if it should be")
						continue
					}
					if alternatives[0][0].not {
						c.notNeeded(l.pos, "http-request "+verb+" "+name, "every client comes over TLS")
						continue
					}
				}
				text, ok := haproxyValue(val)
				switch {
				case lower == "host":
					host = val
				case slices.Contains([]string{"x-real-ip", "x-forwarded-proto", "x-forwarded-host", "x-request-id"}, lower) && ok && !preset:
					identifies = true
				case lower == "x-forwarded-for":
					r.both("xff", "replace", l.pos)
				case lower == "x-forwarded-port", lower == "x-forwarded-ssl", ok && r.ws:
					if ok && r.ws {
						add[name], pos = text, l.pos
					}
				case !ok:
					c.lost(l.pos, "http-request "+verb+" "+name, "turngate does not know its value", "write it in add_headers with {client}, {host}, {proto} or {id}")
				default:
					c.lost(l.pos, "http-request "+verb+" "+name, "routes for plain requests add no headers", "")
				}
			}
		}
	}
	if len(add) > 0 {
		r.sig = append(r.sig, entry{key: "add_headers", val: add, pos: pos})
	}
	if !identifies {
		r.sig = append(r.sig, entry{key: "identify", val: false, pos: r.pos, note: "the upstream was not told"})
	}
	if host == "" || !config.IsHost(host) { // HAProxy passes on what the client asked for
		host = ""
		for _, h := range ru.hosts {
			if h, _, _ = strings.Cut(strings.ToLower(h), ":"); isDomainName(h) {
				host = h
				break
			}
		}
	}
	for i, t := range r.targets {
		switch {
		case host == "" && !preset:
			c.changed(back.pos, "backend "+back.name, "its servers get their own name in Host, because no name of this host is known", "write host in upstream if they look at it")
		case host != "" && !strings.EqualFold(host, hostOf(t.url)) && !preset:
			r.targets[i].host = strings.ToLower(host)
		}
	}
}

// haproxyValue writes a log-format value with the placeholders of turngate.
func haproxyValue(val string) (string, bool) {
	ok := !strings.ContainsAny(logFormat.ReplaceAllString(val, ""), "{}")
	text := logFormat.ReplaceAllStringFunc(val, func(v string) string {
		switch strings.ToLower(strings.Trim(v, "%[]")) {
		case "src", "ci":
			return "{client}"
		case "req.hdr(host)", "hdr(host)":
			return "{host}"
		case "unique-id", "id", "uuid()", "uuid", "rand":
			return "{id}"
		case "dst_port", "fp":
			return "443"
		}
		ok = false
		return ""
	})
	return config.EscapeSecret(text), ok
}

// backendTimes carries the timeouts over that turngate has for the same thing.
func (c *haproxyConf) backendTimes(r *route, front, back *section) {
	get := func(s *section, name string) (*haproxyLine, time.Duration) {
		l := s.one("timeout", name)
		if l == nil {
			return nil, 0
		}
		t, ok := haproxyTime(l.word(2))
		if !ok {
			c.lost(l.pos, "timeout "+name, "is not a time", "")
			return nil, 0
		}
		return l, t
	}
	if l, t := get(back, "connect"); l != nil && t > 0 {
		r.both("dial_timeout", durationText(t), l.pos)
	}
	tunnel, idle := get(back, "tunnel")
	server, wait := get(back, "server")
	client, clientIdle := get(front, "client")
	if r.plain && server != nil && wait > 0 {
		r.log = append(r.log, entry{key: "timeout", val: durationText(wait), pos: server.pos})
	}
	if !r.ws {
		return
	}
	switch {
	case tunnel != nil && idle >= 5*time.Minute:
		c.notNeeded(tunnel.pos, "timeout tunnel", "a WebSocket without traffic stays open")
	case tunnel != nil:
		c.changed(tunnel.pos, "timeout tunnel", "a WebSocket without traffic stays open", "write idle_timeout in [[signaling]] if it must end")
	case client != nil && clientIdle < 5*time.Minute:
		c.changed(client.pos, "timeout client", "a WebSocket without traffic stays open", "write idle_timeout in [[signaling]] if it must end")
	}
}

// bind is where a frontend listens.
type bind struct {
	addr       netip.Addr
	port       int
	tls, proxy bool
	line       *haproxyLine
	certs      []string
	guarded    bool // clients must show a certificate
}

func (c *haproxyConf) binds(sec *section) []bind {
	var list []bind
	for _, l := range sec.all("bind") {
		b := bind{line: l}
		hasCA := false
		for i := 2; i < len(l.words); i++ {
			switch l.words[i] {
			case "ssl":
				b.tls = true
			case "accept-proxy":
				b.proxy = true
			case "crt":
				b.certs = append(b.certs, l.word(i+1))
				i++
			case "crt-list":
				c.lost(l.pos, "crt-list", "turngate takes the names of certificates from the certificates", "name the files in [tls]")
				i++
			case "verify":
				b.guarded = l.word(i+1) == "required"
				i++
			case "ca-file":
				hasCA = true
				i++
			}
		}
		b.guarded = b.guarded && hasCA
		for addr := range strings.SplitSeq(l.word(1), ",") {
			if strings.ContainsAny(addr, "/@$") {
				c.lost(l.pos, "bind", fmt.Sprintf("turngate listens on TCP and UDP, not on %s", addr), "")
				continue
			}
			var ok bool
			if b.addr, b.port, ok = listenAddr(addr, 0); !ok || b.port == 0 {
				c.lost(l.pos, "bind", fmt.Sprintf("%q is not an address and port", addr), "write it in https.listen")
				continue
			}
			if len(list) < 200 {
				list = append(list, b)
			}
		}
	}
	return list
}

// openBinds writes where wss and https are served, and the certificates.
func (c *haproxyConf) openBinds(sec *section, binds []bind) {
	tls := slices.ContainsFunc(binds, func(b bind) bool { return b.tls })
	for _, b := range binds {
		if !b.tls {
			why := fmt.Sprintf("port %d is plain HTTP, which turngate does not serve", b.port)
			if !tls {
				why += ": the routes are on :443 with TLS"
			}
			c.changed(b.line.pos, "bind", why, "clients use wss:// and https://")
			continue
		}
		c.listen("https", listenText(b.addr, b.port), b.line.pos)
		for _, crt := range b.certs {
			path := c.file(crt, "crt-base")
			if strings.HasSuffix(crt, "/") || filepath.Ext(crt) == "" {
				c.changed(b.line.pos, "crt", fmt.Sprintf("%s is a folder, as it seems, and turngate reads files", path), "name the files in [tls]")
				continue
			}
			c.addPair(path, path, b.line.pos, b.line.pos) // HAProxy keeps both in one file
		}
		if b.proxy {
			var from []string
			for _, l := range sec.all("tcp-request", "connection", "expect-proxy") {
				_, cond := ifPart(l.words)
				for _, conj := range condition(cond, acls(sec)) {
					for _, t := range conj {
						if t.kind == "src" && !t.not {
							from = append(from, t.values...)
						}
					}
				}
			}
			c.proxyHeader(from, b.line.pos)
		}
	}
	for _, l := range sec.all("tcp-request", "connection", "expect-proxy") {
		_, cond := ifPart(l.words)
		var from []string
		for _, conj := range condition(cond, acls(sec)) {
			for _, t := range conj {
				if t.kind == "src" && !t.not {
					from = append(from, t.values...)
				}
			}
		}
		c.proxyHeader(from, l.pos)
	}
}

func (c *haproxyConf) proxyHeader(from []string, pos Pos) {
	any := false
	for _, v := range from {
		if p, ok := parsePrefix(v); ok {
			c.draft.add("https", "proxy_protocol", prefixText(p), pos)
			any = true
		}
	}
	if !any {
		c.draft.add("https", "proxy_protocol", "0.0.0.0/0", pos)
		c.draft.add("https", "proxy_protocol", "::/0", pos)
		c.changed(pos, "accept-proxy", "the file does not say which balancers send the header, so everybody may, as with HAProxy", "list them in https.proxy_protocol")
	}
}

// file makes a path start where ca-base or crt-base say.
func (c *haproxyConf) file(path, base string) string {
	dir := c.dir
	if b := c.global.one(base); b != nil {
		dir = abs(c.dir, b.word(1))
	}
	return abs(dir, path)
}

var rateTest = regexp.MustCompile(`(http_req_rate|conn_rate|conn_cur|sess_rate)`)

// frontendLimits carries maxconn and the rates of stick tables over.
func (c *haproxyConf) frontendLimits(sec *section, named map[string][]test) {
	if l := sec.one("maxconn"); l != nil {
		if n, err := strconv.Atoi(l.word(1)); err == nil && n > 0 && n < 1<<30 {
			c.draft.in("https").put("max_connections", n, l.pos, "")
			if n < 2000 {
				c.draft.in("https").put("max_connections_per_address", n, l.pos, "")
			}
		}
	}
	for _, verb := range [][]string{{"http-request", "deny"}, {"http-request", "tarpit"}, {"http-request", "silent-drop"}, {"http-request", "reject"},
		{"tcp-request", "connection", "reject"}, {"tcp-request", "content", "reject"}} {
		for _, l := range sec.all(verb...) {
			_, cond := ifPart(l.words)
			for _, conj := range condition(cond, named) {
				if len(conj) != 1 || conj[0].kind != "rate" {
					continue
				}
				c.rateLimit(sec, conj[0], l.pos)
			}
		}
	}
	sec.all("http-request", "track-sc0")
	sec.all("http-request", "track-sc1")
	sec.all("tcp-request", "connection", "track-sc0")
	sec.all("tcp-request", "content", "track-sc0")
}

var storeRate = regexp.MustCompile(`(http_req_rate|conn_rate|sess_rate)\(([0-9a-z]+)\)`)

func (c *haproxyConf) rateLimit(sec *section, t test, pos Pos) {
	m := rateTest.FindString(t.what)
	n := 0
	for i, v := range t.values {
		if v == "gt" || v == "ge" {
			n, _ = strconv.Atoi(append(t.values, "")[i+1])
		}
	}
	if m == "" || n <= 0 || n > 1<<30 || t.not {
		c.lost(pos, t.what, "turngate has no limit like it", "see https.limits")
		return
	}
	if m == "conn_cur" {
		c.draft.in("https").put("max_connections_per_address", n, pos, "")
		return
	}
	period := time.Duration(0)
	for _, s := range slices.Concat([]*section{sec}, c.sections) {
		for _, l := range s.all("stick-table") {
			for _, f := range storeRate.FindAllStringSubmatch(strings.Join(l.words, " "), -1) {
				if d, ok := haproxyTime(f[2]); ok && f[1] == m && period == 0 {
					period = d
				}
			}
		}
	}
	if period < time.Millisecond {
		c.lost(pos, t.what, "no stick-table says over what time", "see https.limits")
		return
	}
	key := map[string]string{"http_req_rate": "requests_per_second", "conn_rate": "connections_per_second", "sess_rate": "connections_per_second"}[m]
	c.rate(key, max(1, int(float64(n)/period.Seconds()+0.999)), pos, t.what)
}

// tcp takes a frontend of mode tcp: TURN is served by turngate itself, and what is
// behind TLS is HTTP. It reports whether routes are to be made.
func (c *haproxyConf) tcp(sec *section, binds []bind) bool {
	back := sec
	if d := sec.one("default_backend"); d != nil && c.backends[d.word(1)] != nil {
		back = c.backends[d.word(1)]
	}
	turn := slices.ContainsFunc(binds, func(b bind) bool { return slices.Contains(turnPorts, strconv.Itoa(b.port)) })
	for _, l := range back.all("server") {
		turn = turn || slices.Contains(turnPorts, portOf(l.word(2)))
	}
	switch {
	case turn:
		for _, b := range binds {
			if b.tls || b.port == 443 {
				c.listen("https", listenText(b.addr, b.port), b.line.pos)
				for _, crt := range b.certs {
					c.addPair(c.file(crt, "crt-base"), c.file(crt, "crt-base"), b.line.pos, b.line.pos)
				}
			} else {
				c.listen("turn", listenText(b.addr, b.port), b.line.pos)
			}
		}
		c.changed(sec.pos, sec.kind+" "+sec.name, "turngate is the TURN server itself, on these ports", "import turnserver.conf too")
	case slices.ContainsFunc(binds, func(b bind) bool { return b.tls }):
		c.changed(sec.pos, sec.kind+" "+sec.name, "turngate reads requests, and routes them by their path", "")
		return true
	default:
		c.lost(sec.pos, sec.kind+" "+sec.name, "turngate forwards no other TCP", "")
	}
	useLines(sec.lines)
	useLines(back.lines)
	return false
}

// leftovers remarks on every line that nothing has read.
func (c *haproxyConf) leftovers(sec *section) {
	switch sec.kind {
	case "resolvers", "peers", "cache", "mailers", "program", "http-errors", "ring", "log-forward", "traces":
		why := map[string]string{"resolvers": "addresses of upstreams are looked up again by themselves", "http-errors": "no page is served"}[sec.kind]
		if why != "" {
			c.notNeeded(sec.pos, sec.kind, why)
		} else {
			c.lost(sec.pos, sec.kind, "turngate has nothing like it", "")
		}
		return
	case "userlist":
		c.notNeeded(sec.pos, sec.kind, "who uses it is reported there")
		return
	case "fcgi-app", "crt-store":
		c.lost(sec.pos, sec.kind, "turngate has nothing like it", "")
		return
	}
	for _, l := range sec.lines {
		if l.used {
			continue
		}
		name := l.words[0]
		two := strings.Join(l.words[:min(2, len(l.words))], " ")
		k, ok := haproxyTable[two]
		if ok {
			name = two
		} else if k, ok = haproxyTable[name]; !ok {
			switch name {
			case "http-request", "http-response", "tcp-request", "option", "timeout", "no":
				name = two
			}
			k = known{weight: Lost, why: "turngate has nothing like it"}
			if strings.HasPrefix(name, "tune.") {
				k = known{weight: NotNeeded, why: "turngate sizes itself"}
			}
		}
		if k.weight >= 0 {
			c.remark(k.weight, l.pos, name, k.why, k.fix)
		}
	}
}
