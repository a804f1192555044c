package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// nginxListen is one listen directive.
type nginxListen struct {
	addr       netip.Addr // not valid: every address
	port       int
	tls, proxy bool
	byDefault  bool
	pos        Pos
}

// server carries one server block over: its routes first, because a server
// without one has nothing that turngate needs.
func (c *nginxConf) server(sc scope, d *directive) {
	listens := c.listens(sc, d)
	before := len(c.routes)
	if find(d.block, "proxy_pass") == nil {
		c.idleServer(d, listens)
		return
	}
	if v := sc.one("ssl_verify_client"); v != nil && v.arg(0) != "off" {
		c.lost(v.pos, v.name, "turngate asks clients for no certificate, so the routes of this server were left out rather than opened to everybody", "restrict who reaches this host in the firewall")
		use(d.block)
		return
	}
	names := c.serverNames(sc)
	c.locations(sc, d, d.block, server{names, listens})
	if len(c.routes) == before && !c.carried(d) {
		return
	}
	for _, n := range names {
		if n.name != "" {
			c.addName(n.name, n.pos)
		}
	}
	if len(names) == 0 && d.arg(0) != "bare" || slices.ContainsFunc(listens, func(l nginxListen) bool { return l.byDefault }) && len(names) == 0 {
		c.anyName = true
	}
	c.openListeners(sc, d, listens)
	c.certificates(sc)
	c.realIP(sc, listens)
	c.accessLog(sc)
}

// carried reports whether routes of a server are those of an earlier one.
func (c *nginxConf) carried(d *directive) bool {
	in := func(p Pos) bool { return p.File == d.pos.File && p.Line >= d.pos.Line }
	return slices.ContainsFunc(c.routes, func(r *route) bool { return in(r.pos) }) || len(c.routes) > 0
}

// server is what locations need to know of theirs.
type server struct {
	names   []named
	listens []nginxListen
}

// host is the name that clients ask for, with the port if it is unusual, or "".
func (s server) host(port bool) string {
	for _, n := range s.names {
		if n.name == "" || strings.HasPrefix(n.name, "*") {
			continue
		}
		if p := s.port(); port && p != 443 {
			return n.name + ":" + strconv.Itoa(p)
		}
		return n.name
	}
	return ""
}

func (s server) port() int {
	for _, l := range s.listens {
		if l.tls {
			return l.port
		}
	}
	return 443
}

// idleServer says why a server without a route is not needed, or what of it is
// lost.
func (c *nginxConf) idleServer(d *directive, listens []nginxListen) {
	use(d.block)
	ret, rewrite := find(d.block, "return"), find(d.block, "rewrite")
	pass := find(d.block, "fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass", "memcached_pass")
	switch {
	case pass != nil:
		c.lost(pass.pos, pass.name, "turngate speaks HTTP and WebSocket to upstreams", "")
	case find(d.block, "ssl_reject_handshake") != nil:
		c.notNeeded(d.pos, d.name, "with a domain, requests for other names are answered 421")
	case ret != nil && redirects(ret) || rewrite != nil && find(d.block, "root") == nil:
		c.changed(d.pos, d.name, "it only redirects, and turngate opens no port for plain HTTP: who types http:// gets no answer", "clients use wss:// and https://; keep nginx on port 80 for browsers")
	case ret != nil:
		c.notNeeded(d.pos, d.name, "it serves nothing; turngate answers unknown paths with 404 and unknown names with 421")
	default:
		c.lost(d.pos, d.name, "it serves files, which turngate does not", "keep nginx for it, on another address or port")
	}
}

// redirects reports whether a return is a redirect.
func redirects(d *directive) bool {
	return strings.HasPrefix(d.arg(0), "3") || strings.Contains(d.arg(0), "://")
}

// listens reads where a server listens.
func (c *nginxConf) listens(sc scope, d *directive) []nginxListen {
	var list []nginxListen
	sslOn := sc.is("ssl", "on")
	for _, l := range (scope{block(d.block)}).all("listen") {
		n := nginxListen{pos: l.pos, tls: sslOn}
		for _, a := range l.args[min(1, len(l.args)):] {
			switch {
			case a == "ssl" || a == "quic":
				n.tls = true
				if a == "quic" {
					c.changed(l.pos, l.name, "turngate has no HTTP/3; WebSockets never use it", "")
				}
			case a == "proxy_protocol":
				n.proxy = true
			case a == "default_server" || a == "default":
				n.byDefault = true
			case strings.HasPrefix(a, "ipv6only"), strings.HasPrefix(a, "backlog"), strings.HasPrefix(a, "so_keepalive"),
				strings.HasPrefix(a, "rcvbuf"), strings.HasPrefix(a, "sndbuf"), strings.HasPrefix(a, "fastopen"),
				a == "http2", a == "spdy", a == "reuseport", a == "deferred", a == "bind":
			default:
				c.changed(l.pos, l.name, fmt.Sprintf("the parameter %q has no meaning for turngate", a), "")
			}
		}
		addr := l.arg(0)
		if strings.HasPrefix(addr, "unix:") {
			c.lost(l.pos, l.name, "turngate listens on TCP and UDP, not on a Unix socket", "")
			continue
		}
		var ok bool
		if n.addr, n.port, ok = listenAddr(addr, 80); !ok {
			c.lost(l.pos, l.name, fmt.Sprintf("%q is not an address and port", addr), "write it in https.listen")
			continue
		}
		list = append(list, n)
	}
	return list
}

// listenAddr reads "443", "*:443", "192.0.2.1:443", "192.0.2.1", "[::]:443" or
// "localhost:443". The address is not valid for every address.
func listenAddr(s string, port int) (netip.Addr, int, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return netip.Addr{}, n, n > 0 && n < 65536
	}
	host := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && (strings.Count(s, ":") == 1 || strings.Contains(s, "]:")) {
		n, err := strconv.Atoi(s[i+1:])
		if err != nil || n < 1 || n > 65535 {
			return netip.Addr{}, 0, false
		}
		host, port = s[:i], n
	}
	switch host {
	case "", "*", "0.0.0.0", "[::]", "::":
		return netip.Addr{}, port, true
	case "localhost":
		host = "127.0.0.1"
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return a.Unmap(), port, err == nil && a.Zone() == ""
}

// serverNames are the names of a server that are names. A server without one
// answers any.
func (c *nginxConf) serverNames(sc scope) []named {
	var list []named
	for _, d := range sc[1:].all("server_name") {
		for _, n := range d.args {
			n = strings.ToLower(n)
			switch {
			case n == "" || n == "_" || n == "localhost" || strings.HasPrefix(n, "$"):
			case strings.HasPrefix(n, "~"), strings.HasSuffix(n, ".*"), strings.Contains(strings.TrimPrefix(n, "*."), "*"):
				c.lost(d.pos, d.name, fmt.Sprintf("%s is a pattern that turngate does not know", n), `list the names in https.names, or write "*.example.com"`)
				list = append(list, named{"", d.pos})
			case strings.HasPrefix(n, "."):
				list = append(list, named{n[1:], d.pos}, named{"*" + n, d.pos})
			default:
				if _, err := netip.ParseAddr(n); err != nil { // addresses always pass
					list = append(list, named{n, d.pos})
				}
			}
		}
	}
	return list
}

// openListeners writes where wss and https are served, with TLS only.
func (c *nginxConf) openListeners(sc scope, d *directive, listens []nginxListen) {
	tls := slices.ContainsFunc(listens, func(l nginxListen) bool { return l.tls })
	for _, l := range listens {
		if !l.tls {
			why := fmt.Sprintf("port %d is plain HTTP, which turngate does not serve", l.port)
			if tls {
				c.changed(l.pos, "listen", why, "clients use wss:// and https://")
			} else {
				c.changed(l.pos, "listen", why+": the routes are on :443 with TLS", "write [tls], and let clients use wss:// and https://")
			}
			continue
		}
		c.webTLS = true
		c.listen("https", listenText(l.addr, l.port), l.pos)
	}
	if len(listens) == 0 && len(d.args) == 0 {
		c.changed(d.pos, d.name, "it listens on port 80 with plain HTTP, which turngate does not serve: the routes are on :443 with TLS", "write [tls], and let clients use wss:// and https://")
	}
}

func (c *nginxConf) certificates(sc scope) {
	certs, keys := sc.all("ssl_certificate"), sc.all("ssl_certificate_key")
	for i, cert := range certs {
		path := cert.arg(0)
		switch {
		case strings.Contains(path, "$"), strings.HasPrefix(path, "data:"):
			c.lost(cert.pos, cert.name, "turngate reads certificates from files with fixed names", "name the files in [tls]")
			continue
		case i >= len(keys):
			c.lost(cert.pos, cert.name, "there is no ssl_certificate_key for it", "name both in [tls]")
			continue
		case strings.Contains(keys[i].arg(0), "$"), strings.Contains(keys[i].arg(0), ":"):
			c.lost(keys[i].pos, keys[i].name, "turngate reads keys from files with fixed names", "name the files in [tls]")
			continue
		}
		c.addPair(abs(c.prefix, path), abs(c.prefix, keys[i].arg(0)), cert.pos, keys[i].pos)
	}
	if d := sc.one("ssl_protocols"); d != nil {
		if slices.ContainsFunc(d.args, func(a string) bool { return a == "TLSv1" || a == "TLSv1.1" || a == "SSLv3" || a == "SSLv2" }) {
			c.changed(d.pos, d.name, "turngate serves TLS 1.2 and later", "")
		} else if !slices.Contains(d.args, "TLSv1.2") {
			c.changed(d.pos, d.name, "turngate serves TLS 1.2 too", "")
		}
	}
	if d := sc.one("ssl_password_file"); d != nil {
		c.lost(d.pos, d.name, "turngate reads no key that is encrypted", "decrypt it: openssl pkey -in KEY -out KEY.plain, mode 0600")
	}
}

// realIP carries over whom nginx believes about the client's address.
func (c *nginxConf) realIP(sc scope, listens []nginxListen) {
	from, header := sc.all("set_real_ip_from"), sc.one("real_ip_header")
	sc.one("real_ip_recursive")
	proxied := slices.IndexFunc(listens, func(l nginxListen) bool { return l.proxy })
	key := "trusted_proxies"
	switch {
	case header != nil && header.arg(0) == "proxy_protocol":
		key = "proxy_protocol"
	case header == nil && len(from) > 0, header != nil && !strings.EqualFold(header.arg(0), "X-Forwarded-For"):
		pos, name := Pos{}, "X-Real-IP"
		if header != nil {
			pos, name = header.pos, header.arg(0)
		} else {
			pos = from[0].pos
		}
		c.changed(pos, "real_ip_header", fmt.Sprintf("turngate takes the client's address from X-Forwarded-For, not from %s", name), "let the proxy in front send X-Forwarded-For")
	}
	if proxied >= 0 && key != "proxy_protocol" {
		what, fix := "turngate takes the client's address from the PROXY header", ""
		switch {
		case header == nil:
			c.changed(listens[proxied].pos, "proxy_protocol", what, fix)
		case len(from) > 0:
			c.changed(from[0].pos, "set_real_ip_from", what, "if its sender passes X-Forwarded-For of further proxies, list those in https.trusted_proxies")
		}
		from = nil
	}
	any := false
	for _, d := range from {
		p, ok := parsePrefix(d.arg(0))
		if !ok {
			if d.arg(0) != "unix:" {
				c.lost(d.pos, d.name, fmt.Sprintf("%q is not an address or prefix", d.arg(0)), "write it in https."+key)
			}
			continue
		}
		any = true
		c.draft.add("https", key, prefixText(p), d.pos)
	}
	if proxied >= 0 && !any {
		pos := listens[proxied].pos
		c.draft.add("https", "proxy_protocol", "0.0.0.0/0", pos)
		c.draft.add("https", "proxy_protocol", "::/0", pos)
		c.changed(pos, "proxy_protocol", "the file does not say which balancers send the header, so everybody may, as with nginx", "list them in https.proxy_protocol")
	}
}

func (c *nginxConf) accessLog(sc scope) {
	for _, d := range sc.all("access_log") {
		if d.arg(0) == "off" || d.arg(0) == "" {
			continue
		}
		c.draft.in("log").put("access", "stdout", d.pos, "")
		c.changed(d.pos, d.name, "the access log goes to standard output, as JSON and without the login in the query", `write another file in log.access, or "" for none`)
	}
}
