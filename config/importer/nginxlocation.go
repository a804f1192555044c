package importer

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// locations carries the locations of a block over, nested ones too.
func (c *nginxConf) locations(sc scope, d *directive, list []*directive, srv server) {
	for _, l := range list {
		if l.name != "location" {
			continue
		}
		l.used = true
		in := sc.within(l.block)
		c.location(in, l, srv)
		c.locations(in, l, l.block, srv)
	}
}

// location carries one over, or says why not.
func (c *nginxConf) location(sc scope, d *directive, srv server) {
	what := "location " + strings.Join(d.args, " ")
	own := slices.DeleteFunc(slices.Clone(d.block), func(x *directive) bool { return x.name == "location" })
	path, ok := c.locationPath(d, what, own)
	if !ok {
		use(own)
		return
	}
	if find(own, "proxy_pass") == nil {
		c.otherContent(d, what, path, own)
		use(own)
		return
	}
	if find(own, "internal") != nil {
		c.notNeeded(d.pos, what, "no client may ask for it")
		use(own)
		return
	}
	for _, guard := range []string{"auth_basic", "auth_request", "auth_jwt", "auth_digest", "limit_except", "satisfy", "access_by_lua_block", "access_by_lua_file", "secure_link"} {
		g := sc.one(guard)
		if g == nil || g.arg(0) == "off" {
			continue
		}
		c.lost(g.pos, g.name, fmt.Sprintf("turngate does not have it, so %s was left out rather than opened to everybody", what), "let the upstream ask, then add the route by hand")
		use(own)
		return
	}
	if len(c.routes) >= maxRoutes {
		c.lost(d.pos, what, fmt.Sprintf("there are more than %d routes", maxRoutes), "")
		use(own)
		return
	}
	r := &route{pos: d.pos, path: path}
	if !c.access(sc, r, what) || !c.upstream(sc, d, r, srv, what) {
		use(own)
		return
	}
	c.headers(sc, r, srv, what)
	c.times(sc, r)
	c.limits(sc, r)
	c.addRoute(r, what)
}

var plainPattern = regexp.MustCompile(`^\^((?:/|\\/|[A-Za-z0-9_~-]|\\[.-])+?)(/\?)?(\.\*|\(\.\*\)|\(/\|\$\)|\(/\.\*\)\?)?(\$)?$`)

// locationPath is the path of a location that a route can have.
func (c *nginxConf) locationPath(d *directive, what string, own []*directive) (string, bool) {
	op, path := "", d.arg(0)
	if len(d.args) > 1 {
		op, path = d.args[0], d.args[1]
	} else {
		for _, o := range []string{"^~", "~*", "~", "="} {
			if p, ok := strings.CutPrefix(path, o); ok {
				op, path = o, p
				break
			}
		}
	}
	switch {
	case strings.HasPrefix(path, "@"):
		c.lost(d.pos, what, "it is reached from error_page or try_files, which turngate does not have", "")
		return "", false
	case op == "=":
		if find(own, "proxy_pass") != nil && !strings.HasSuffix(path, "/") {
			c.changed(d.pos, what, "a route owns the paths below it too", "")
		}
	case op == "~" || op == "~*":
		m := plainPattern.FindStringSubmatch(path)
		if m == nil {
			if find(own, "proxy_pass") == nil {
				return path, true // only its content matters
			}
			c.lost(d.pos, what, "routes have paths, not patterns", "write a route for each path")
			return "", false
		}
		path = strings.ReplaceAll(m[1], `\`, "")
		if op == "~*" {
			c.changed(d.pos, what, "the case of letters counts", "")
		}
	}
	return path, true
}

// otherContent says what becomes of a location that proxies nothing.
func (c *nginxConf) otherContent(d *directive, what, path string, own []*directive) {
	ret := find(own, "return")
	code := ""
	if ret != nil {
		code = ret.arg(0)
	}
	switch pass := find(own, "fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass", "memcached_pass"); {
	case pass != nil:
		c.lost(pass.pos, pass.name, "turngate speaks HTTP and WebSocket to upstreams", "")
	case strings.Contains(path, "/.well-known/acme-challenge"):
		c.changed(d.pos, what, "turngate has no web root for another ACME client", `write mode = "acme" in [tls], or renew by DNS`)
	case ret != nil && redirects(ret):
		c.lost(ret.pos, "return", "turngate redirects nobody: browsers do not follow redirects of WebSockets and reports", "")
	case ret == nil && find(own, "rewrite") != nil:
		c.lost(d.pos, what, "turngate does not rewrite paths and redirects nobody", "")
	case code == "404" || code == "403" || code == "444" || code == "400" || code == "410" || code == "405":
		c.notNeeded(d.pos, what, "paths without a route are answered 404")
	case ret != nil:
		c.changed(d.pos, what, "turngate has no answers of its own to choose", "for health checks it answers /healthz and /readyz")
	case find(own, "stub_status", "status") != nil:
		c.notNeeded(d.pos, what, `"turngate status" and the metrics say it`)
	case find(own, "deny") != nil && find(own, "allow") == nil && find(own, "root", "alias", "try_files") == nil:
		c.notNeeded(d.pos, what, "paths without a route are answered 404")
	case len(d.block) > len(own) && find(own, "root", "alias", "try_files") == nil:
	case find(own, "content_by_lua_block", "content_by_lua_file", "js_content", "perl") != nil:
		c.lost(d.pos, what, "turngate runs no programs", "")
	default:
		c.lost(d.pos, what, "it serves files, which turngate does not", "keep nginx for it, on another address or port")
	}
}

// access turns allow and deny, of which the first that fits counts, into the
// set of addresses that may use the route.
func (c *nginxConf) access(sc scope, r *route, what string) bool {
	var rules []*directive
	for i := len(sc) - 1; i >= 0 && rules == nil; i-- {
		if sc[i].byName["allow"] == nil && sc[i].byName["deny"] == nil {
			continue
		}
		for _, d := range sc[i].list {
			if d.name == "allow" || d.name == "deny" {
				d.used = true
				rules = append(rules, d)
			}
		}
	}
	if len(rules) == 0 {
		return true
	}
	undecided, allowed := everywhere, addrSet{}
	for i, d := range rules {
		var match addrSet
		switch p, ok := parsePrefix(d.arg(0)); {
		case d.arg(0) == "all":
			match = everywhere
		case d.arg(0) == "unix:":
		case !ok || i > 500:
			c.lost(d.pos, d.name, fmt.Sprintf("%q is not an address or prefix, so %s was left out", d.arg(0), what), "write the route with clients by hand")
			return false
		default:
			match = addrSet{rangeOf(p)}
		}
		match = undecided.and(match)
		undecided = undecided.minus(match)
		if d.name == "allow" {
			allowed = allowed.union(match)
		}
	}
	allowed = allowed.union(undecided)
	if fmt.Sprint(allowed) == fmt.Sprint(everywhere) {
		return true
	}
	r.limited, r.limitedBy, r.clients = true, rules[0].pos, allowed.prefixes()
	if len(r.clients) > maxPerList {
		c.lost(rules[0].pos, rules[0].name, fmt.Sprintf("the rules make more than %d prefixes, so %s was left out", maxPerList, what), "")
		return false
	}
	return true
}

// headers reads proxy_set_header: what makes a WebSocket, what names the client,
// and the rest.
func (c *nginxConf) headers(sc scope, r *route, srv server, what string) {
	list := sc.all("proxy_set_header")
	upgrade, always := false, false
	identifies := false
	preset := presetOf(r, true) != "" || presetOf(r, false) != ""
	for _, d := range list {
		name, val := strings.ToLower(d.arg(0)), d.arg(1)
		switch {
		case name == "upgrade":
			upgrade = upgrade || val != ""
		case name == "connection" && strings.EqualFold(val, "upgrade"):
			always = true
		case slices.Contains([]string{"x-real-ip", "x-forwarded-proto", "x-forwarded-host", "x-request-id"}, name):
			identifies = true
		}
	}
	r.ws = upgrade
	// With the word "upgrade" in Connection the location is made for WebSockets
	// alone; the hosts of a preset serve nothing else there.
	r.plain = !upgrade || !(always && presetOf(r, true) != "")
	c.narrowed(r, what)
	add := map[string]any{}
	var addPos Pos
	for _, d := range list {
		name, val := d.arg(0), d.arg(1)
		lower := strings.ToLower(name)
		plainOnly := func(text string) {
			if r.plain && !preset {
				c.changed(d.pos, d.name+" "+name, "requests that are no WebSocket handshakes are sent on without it", text)
			}
		}
		same := "$http_" + strings.ReplaceAll(lower, "-", "_")
		switch {
		case lower == "upgrade", lower == "connection", lower == "host", lower == "accept-encoding",
			strings.HasPrefix(lower, "sec-websocket-"), val == same && lower != "x-forwarded-for":
		case lower == "x-forwarded-for":
			switch {
			case val == "$proxy_add_x_forwarded_for", strings.Contains(val, "$http_x_forwarded_for"):
				r.both("xff", "append", d.pos)
			case val == "$remote_addr", val == "$realip_remote_addr":
				r.both("xff", "replace", d.pos)
			default:
				c.changed(d.pos, d.name+" "+name, "X-Forwarded-For always holds the address of the client", "")
			}
		case lower == "x-real-ip" && (val == "$remote_addr" || val == "$realip_remote_addr"),
			lower == "x-forwarded-proto" && (val == "$scheme" || val == "https"),
			lower == "x-forwarded-host" && (val == "$host" || val == "$http_host"),
			lower == "x-request-id" && val == "$request_id":
			if preset {
				c.changed(d.pos, d.name+" "+name, "a service with a preset is not told", "write identify = true if it should be")
			}
			plainOnly("")
		case lower == "cookie" && val == "", lower == "authorization" && val == "":
			r.both("keep_cookies", false, d.pos)
			c.changed(d.pos, d.name+" "+name, "Cookie and Authorization are dropped together", "")
		case val == "":
			c.changed(d.pos, d.name+" "+name, "a client's "+name+" is passed on", "")
		default:
			text, ok := c.headerValue(val, srv)
			if !ok {
				c.lost(d.pos, d.name+" "+name, fmt.Sprintf("turngate does not know the value %s", val), "write it in add_headers with {client}, {host}, {proto} or {id}")
				continue
			}
			if !r.ws {
				c.lost(d.pos, d.name+" "+name, "routes for plain requests add no headers", "")
				continue
			}
			add[name], addPos = text, d.pos
			plainOnly("")
		}
	}
	if len(add) > 0 {
		r.sig = append(r.sig, entry{key: "add_headers", val: add, pos: addPos})
	}
	if !identifies {
		r.sig = append(r.sig, entry{key: "identify", val: false, pos: r.pos, note: "the upstream was not told"})
	}
	if sc.is("underscores_in_headers", "on") {
		r.sig = append(r.sig, entry{key: "keep_underscores", val: true, pos: sc.one("underscores_in_headers").pos})
	}
	for _, d := range sc.all("proxy_hide_header") {
		c.changed(d.pos, d.name+" "+d.arg(0), "answers of the upstream pass with their headers", "")
	}
	for _, d := range sc.all("add_header") {
		name := strings.ToLower(d.arg(0))
		switch {
		case preset || !r.plain:
			c.notNeeded(d.pos, d.name+" "+d.arg(0), "the upstream's own headers pass, and no page is served")
		default:
			c.lost(d.pos, d.name+" "+d.arg(0), "turngate adds no headers to answers", "let the upstream send "+name)
		}
	}
}

var nginxVariable = regexp.MustCompile(`\$\{?[A-Za-z_0-9]+\}?`)

// headerValue writes a value of nginx with the placeholders of turngate.
func (c *nginxConf) headerValue(val string, srv server) (string, bool) {
	ok := !strings.ContainsAny(nginxVariable.ReplaceAllString(val, ""), "{}")
	text := nginxVariable.ReplaceAllStringFunc(val, func(v string) string {
		switch strings.Trim(v, "${}") {
		case "remote_addr":
			return "{client}"
		case "realip_remote_addr":
			return "{peer}"
		case "host", "http_host":
			return "{host}"
		case "scheme":
			return "{proto}"
		case "request_id":
			return "{id}"
		case "server_port":
			return strconv.Itoa(srv.port())
		case "server_name":
			if h := srv.host(false); h != "" {
				return h
			}
		case "https":
			return "on"
		}
		ok = false
		return ""
	})
	for _, p := range []string{"env:", "file:", "plain:"} {
		if strings.HasPrefix(text, p) {
			text = "plain:" + text
			break
		}
	}
	return text, ok
}

// times carries the timeouts over that turngate has for the same thing.
func (c *nginxConf) times(sc scope, r *route) {
	if d := sc.one("proxy_connect_timeout"); d != nil {
		if t, ok := nginxTime(d.arg(0)); ok && t > 0 {
			r.both("dial_timeout", durationText(t), d.pos)
		} else {
			c.lost(d.pos, d.name, "is not a time", "")
		}
	}
	for _, name := range []string{"proxy_read_timeout", "proxy_send_timeout"} {
		d := sc.one(name)
		if d == nil {
			continue
		}
		t, ok := nginxTime(d.arg(0))
		if !ok || t == 0 {
			c.lost(d.pos, d.name, "is not a time", "")
			continue
		}
		if r.plain && name == "proxy_read_timeout" {
			r.log = append(r.log, entry{key: "timeout", val: durationText(t), pos: d.pos})
		}
		switch {
		case r.ws && t < 5*time.Minute:
			c.changed(d.pos, d.name, "a WebSocket without traffic stays open", "write idle_timeout in [[signaling]] if it must end")
		case r.ws:
			c.notNeeded(d.pos, d.name, "a WebSocket without traffic stays open")
		case name == "proxy_send_timeout":
			c.notNeeded(d.pos, d.name, "timeout in [[logger]] bounds the whole answer")
		}
	}
	if d := sc.one("client_max_body_size"); d != nil && r.plain {
		switch n, ok := nginxSize(d.arg(0)); {
		case !ok:
			c.lost(d.pos, d.name, "is not a size", "")
		case n == 0:
			c.changed(d.pos, d.name, "a request is 8 MiB at most", "write max_body")
		default:
			r.log = append(r.log, entry{key: "max_body", val: configSize(n), pos: d.pos})
		}
	}
}

// limits carries limit_conn and limit_req over for the client's address.
func (c *nginxConf) limits(sc scope, r *route) {
	for _, d := range sc.all("limit_conn") {
		z, n := c.zones["limit_conn_zone"+d.arg(0)], 0
		n, _ = strconv.Atoi(d.arg(1))
		switch {
		case n <= 0:
			c.lost(d.pos, d.name, "is not a number", "")
		case !byClient(z.key):
			c.lost(d.pos, d.name, "turngate counts connections in all (https.max_connections) and of an address", "")
		case !r.ws:
			c.lost(d.pos, d.name, "routes for plain requests do not count connections", "see https.limits")
		default:
			r.sig = append(r.sig, entry{key: "max_connections_per_address", val: n, pos: d.pos})
		}
	}
	for _, d := range sc.all("limit_req") {
		name := ""
		for _, a := range d.args {
			if v, ok := strings.CutPrefix(a, "zone="); ok {
				name = v
			}
		}
		z := c.zones["limit_req_zone"+name]
		rate, ok := perSecond(z.rate)
		if !ok || !byClient(z.key) {
			c.lost(d.pos, d.name, "turngate counts requests of an address only", "see https.limits")
			continue
		}
		key := "requests_per_second"
		if r.ws {
			key = "handshakes_per_second"
		}
		c.rate(key, rate, d.pos, d.name)
	}
}

// rate sets a limit of https, which counts for all routes: the largest holds.
func (s *site) rate(key string, n int, pos Pos, what string) {
	t := s.draft.in("https.limits")
	if e := t.get(key); e == nil || e.val.(int) < n {
		t.put(key, n, pos, "")
	}
	s.changed(pos, what, "the limit counts for all routes together, and after an outage everybody may come at once", "")
}

// perSecond reads "10r/s" or "30r/m".
func perSecond(rate string) (int, bool) {
	number, unit, _ := strings.Cut(rate, "r/")
	n, err := strconv.Atoi(number)
	if err != nil || n <= 0 || n > 1<<30 {
		return 0, false
	}
	switch unit {
	case "s":
		return n, true
	case "m":
		return max(1, (n+59)/60), true
	}
	return 0, false
}

func byClient(key string) bool {
	return key == "$binary_remote_addr" || key == "$remote_addr"
}
