package importer

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/turngate/turngate/config"
)

// pass is where a proxy_pass leads.
type pass struct {
	scheme, host string // host with a port, or the name of an upstream block
	uri          string // "" when the client's own path is kept
	fixed        bool   // the uri is sent whatever the client asked for
}

var passURL = regexp.MustCompile(`^(https?)://([^/?#\s]+)([/?#].*)?$`)

// upstream reads proxy_pass and everything that says how the upstream is reached.
func (c *nginxConf) upstream(sc scope, loc *directive, r *route, srv server, what string) bool {
	d := scope{block(loc.block)}.one("proxy_pass")
	if d == nil {
		d = find(loc.block, "proxy_pass") // in an "if"
		if d == nil || find([]*directive{d}, "proxy_pass") == nil {
			return false
		}
		c.lost(d.pos, d.name, "it depends on a condition, and routes have none", "write the route by hand")
		return false
	}
	p, why := c.pass(sc, d.arg(0))
	if why != "" {
		c.lost(d.pos, d.name, why, "write the route by hand")
		return false
	}
	if rw := sc[len(sc)-1:].all("rewrite"); len(rw) > 0 && !c.rewritten(rw, r.path, &p) {
		return false
	}
	path := r.path
	if p.uri != "" {
		path = p.uri
		if strings.ContainsAny(path, "?#") {
			c.lost(d.pos, d.name, "the query of a client is passed on as it is, and nothing is put before it", "write the route by hand")
			return false
		}
		if strings.HasSuffix(r.path, "/") && !strings.HasSuffix(path, "/") {
			at := strings.TrimRight(r.path, "/")
			c.changed(d.pos, d.name, fmt.Sprintf("nginx replaces %s by %s with nothing between them and the rest; turngate puts a slash there", r.path, path),
				fmt.Sprintf("let clients use %s, which leads to %s", max(at, "/"), path))
		}
		if p.fixed {
			c.changed(d.pos, d.name, "the path behind the route's own is put behind that of the upstream", "")
		}
	}
	host, why := c.upstreamHost(sc, srv)
	if why != "" {
		c.changed(d.pos, "proxy_set_header Host", why, "write host in upstream")
	}
	targets, balance := c.servers(p, path, d.pos)
	implied := false
	if len(targets) == 0 {
		c.lost(d.pos, d.name, "no server of it can be carried over, so "+what+" was left out", "")
		return false
	}
	if host == "" && c.upstreams[p.host] != nil && config.IsHost(p.host) {
		host, implied = p.host, true // that is what nginx sends
	}
	for i := range targets {
		if h := hostOf(targets[i].url); host != "" && !strings.EqualFold(host, h) {
			targets[i].host, targets[i].implied = strings.ToLower(host), implied
		}
	}
	r.targets, r.balance = targets, balance
	c.upstreamTLS(sc, p, r, d)
	return true
}

// pass reads the URL, with variables that "set" gave a fixed value.
func (c *nginxConf) pass(sc scope, text string) (p pass, why string) {
	variables := strings.Contains(text, "$")
	for range 10 {
		before := text
		text = nginxVariable.ReplaceAllStringFunc(text, func(v string) string {
			name := "$" + strings.Trim(v, "${}")
			for i := len(sc) - 1; i >= 0; i-- {
				for _, d := range sc[i].byName["set"] {
					if d.arg(0) == name && len(d.args) == 2 {
						d.used = true
						return d.arg(1)
					}
				}
			}
			return v
		})
		if text == before || len(text) > 4000 {
			break
		}
	}
	if variables {
		whole := text
		for _, same := range []string{"$request_uri", "$uri$is_args$args", "$uri", "$is_args$args"} {
			text = strings.TrimSuffix(text, same)
		}
		if text != whole && strings.HasSuffix(text, "/") && strings.Count(text, "/") == 3 {
			text = strings.TrimSuffix(text, "/")
		}
	}
	if strings.Contains(text, "$") {
		return p, "the upstream depends on the request"
	}
	m := passURL.FindStringSubmatch(text)
	switch {
	case strings.Contains(text, "://unix:"):
		return p, "turngate reaches no upstream over a Unix socket"
	case m == nil:
		return p, fmt.Sprintf("%q is not the URL of an upstream", text)
	}
	return pass{m[1], m[2], m[3], variables && m[3] != ""}, ""
}

var captured = regexp.MustCompile(`^\^?((?:[^\\()\[\].*+?$^|]|\\[./-])*?)(/\?)?\((?:/\?)?\.[*+]\)\$?$`)

// rewritten takes the one kind of rewrite that is a path of an upstream: the
// beginning is replaced and the rest stays.
func (c *nginxConf) rewritten(list []*directive, path string, p *pass) bool {
	d := list[0]
	m := captured.FindStringSubmatch(d.arg(0))
	to, ok := strings.CutSuffix(d.arg(1), "$1")
	flag := d.arg(2)
	switch {
	case len(list) > 1, m == nil, !ok, strings.Contains(to, "$"), !strings.HasPrefix(to, "/"), flag != "break" && flag != "" && flag != "last",
		strings.TrimRight(strings.ReplaceAll(m[1], `\`, ""), "/") != strings.TrimRight(path, "/"), p.uri != "":
		c.lost(d.pos, d.name, "turngate does not rewrite paths, so the route was left out", "write the path that the upstream wants in upstream")
		return false
	}
	p.uri = to
	return true
}

// upstreamHost is the Host header that the upstream gets, or "" for its own.
func (c *nginxConf) upstreamHost(sc scope, srv server) (host, why string) {
	for _, d := range sc.all("proxy_set_header") {
		if !strings.EqualFold(d.arg(0), "Host") {
			continue
		}
		switch v := d.arg(1); v {
		case "$proxy_host", "":
			return "", ""
		case "$host", "$server_name":
			host = srv.host(false)
		case "$http_host", "$host:$server_port", "$host:$proxy_port", "$host:$port":
			host = srv.host(true)
		default:
			if u, err := url.Parse("https://" + v); err != nil || u.Host != v || !config.IsHost(u.Hostname()) {
				return "", fmt.Sprintf("turngate does not know the value %s: the upstream gets its own name", v)
			}
			return v, ""
		}
		if names := slices.DeleteFunc(slices.Clone(srv.names), func(n named) bool { return n.name == "" }); host != "" && len(names) > 1 {
			c.changed(d.pos, "proxy_set_header Host", "the upstream is told one name, "+host+", under whichever a client comes", "")
		}
		if host == "" {
			return "", "no name of this host is known: the upstream gets its own name in Host"
		}
		return host, ""
	}
	return "", ""
}

// servers are the upstreams that a pass leads to, with how they are chosen.
func (c *nginxConf) servers(p pass, path string, pos Pos) (list []upstream, balance string) {
	group := c.upstreams[p.host]
	if group == nil {
		return []upstream{{url: p.scheme + "://" + strings.ToLower(p.host) + path, weight: config.MaxWeight, pos: pos}}, ""
	}
	group.used = true
	most := 1
	type raw struct {
		upstream
		down bool
		n    int
	}
	var all []raw
	balance = "least_connections"
	fair := true // nobody chose
	for _, d := range group.block {
		d.used = true
		switch d.name {
		case "server":
			u := raw{upstream: upstream{pos: d.pos}, n: 1}
			for _, a := range d.args[min(1, len(d.args)):] {
				key, val, _ := strings.Cut(a, "=")
				switch key {
				case "weight":
					if n, err := strconv.Atoi(val); err == nil && n > 0 && n < 1<<20 {
						u.n = n
					}
				case "backup":
					u.backup = true
				case "down":
					u.down = true
				case "max_fails", "fail_timeout", "resolve", "service", "route":
				case "max_conns":
					if val != "0" {
						c.lost(d.pos, "max_conns", "the connections to one upstream are not counted", "see max_connections_per_address and https.max_connections")
					}
				default:
					c.changed(d.pos, d.name, fmt.Sprintf("the parameter %q has no meaning for turngate", key), "")
				}
			}
			addr := d.arg(0)
			if strings.HasPrefix(addr, "unix:") {
				c.lost(d.pos, d.name, "turngate reaches no upstream over a Unix socket", "")
				continue
			}
			u.url = p.scheme + "://" + strings.ToLower(addr) + path
			if len(all) < 100 && !slices.ContainsFunc(all, func(o raw) bool { return o.url == u.url }) {
				all = append(all, u)
				most = max(most, u.n)
			}
		case "least_conn", "least_time":
			fair = false
		case "ip_hash":
			balance, fair = "client_ip", false
		case "hash":
			fair = false
			name, isArg := strings.CutPrefix(d.arg(0), "$arg_")
			switch {
			case isArg:
				balance = "query:" + name
			case byClient(d.arg(0)):
				balance = "client_ip"
			default:
				c.changed(d.pos, d.name, fmt.Sprintf("turngate does not choose by %s, but by the number of connections", d.arg(0)), `see balance: "client_ip", "query:NAME"`)
			}
		case "random":
			fair = false
			c.changed(d.pos, d.name, "clients are spread by the number of connections", "")
		case "zone", "keepalive", "keepalive_requests", "keepalive_timeout", "keepalive_time", "resolver", "resolver_timeout", "state":
		default:
			c.lost(d.pos, d.name, "turngate has nothing like it for upstreams", "")
		}
	}
	front := 0
	for _, u := range all {
		u.weight = max(1, u.n*config.MaxWeight/most)
		if u.down {
			u.weight = 0
		}
		if !u.backup && !u.down {
			front++
		}
		list = append(list, u.upstream)
	}
	if front < 2 {
		return list, ""
	}
	if fair {
		c.changed(group.pos, "upstream "+group.arg(0), "clients are spread by the number of connections, not in turn", "")
	}
	return list, balance
}

// upstreamTLS carries over how the certificate of the upstream is checked.
func (c *nginxConf) upstreamTLS(sc scope, p pass, r *route, d *directive) {
	verify, name, trusted := sc.one("proxy_ssl_verify"), sc.one("proxy_ssl_name"), sc.one("proxy_ssl_trusted_certificate")
	serverName, own := sc.one("proxy_ssl_server_name"), sc.one("proxy_ssl_certificate")
	sc.one("proxy_ssl_certificate_key")
	if p.scheme != "https" {
		return
	}
	if own != nil {
		c.lost(own.pos, own.name, "turngate shows upstreams no certificate of its own", "")
	}
	if trusted != nil {
		r.both("ca", abs(c.prefix, trusted.arg(0)), trusted.pos)
	}
	if serverName != nil && serverName.arg(0) == "off" {
		c.changed(serverName.pos, serverName.name, "upstreams are always told the name", "")
	}
	sni := ""
	if name != nil {
		switch n := name.arg(0); {
		case n == "$proxy_host":
		case !strings.Contains(n, "$") && isDomainName(n):
			sni = strings.ToLower(n)
		case n == "$host" || n == "$server_name" || n == "$http_host":
			for _, t := range r.targets {
				sni = t.host
			}
		default:
			c.lost(name.pos, name.name, fmt.Sprintf("turngate does not know the value %s", n), "write sni in upstream")
		}
	} else if c.upstreams[p.host] != nil && strings.Contains(p.host, ".") && isDomainName(p.host) {
		sni = strings.ToLower(p.host)
	}
	for i, t := range r.targets {
		if host := hostOf(t.url); sni != "" && sni != host {
			r.targets[i].sni = sni
		}
	}
	if verify != nil && verify.arg(0) == "on" {
		return
	}
	for _, t := range r.targets {
		host := cmpOr(t.sni, hostOf(t.url))
		switch {
		case verify != nil:
			c.changed(verify.pos, verify.name, fmt.Sprintf("turngate always verifies the certificate of an upstream, here for %s", host), "name its certificate authority in ca, and its name in sni")
			return
		case trusted == nil && !(strings.Contains(host, ".") && isDomainName(host)):
			c.changed(d.pos, d.name, fmt.Sprintf("turngate verifies the certificate of the upstream, for %s, which nginx did not", host), "name its certificate authority in ca, and its name in sni")
			return
		}
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// isDomainName reports whether s is a name that a certificate can be for.
func isDomainName(s string) bool {
	_, err := netip.ParseAddr(s)
	return err != nil && config.IsHost(s)
}

func configSize(n int64) string { return config.Size(n).String() }
