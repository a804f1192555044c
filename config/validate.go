package config

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// checker holds the checks that need more than one value or the meaning of a
// key. Whether a single value can be read at all is decided where its type is.
type checker struct {
	*report
	cfg *Config
	env Env
	set map[string]bool
}

// check reports everything that is wrong with a complete Config.
func check(cfg *Config, d *decoder) {
	c := &checker{d.report, cfg, d.env, d.set}
	c.site()
	c.tls()
	c.listeners()
	c.believed()
	c.names()
	c.relay()
	c.credentials()
	c.databases()
	c.api()
	c.limits()
	c.reach("upstream", cfg.Upstream.Reach)
	c.signaling()
	c.logger()
	c.paths()
	c.trtc()
	c.times()
	c.admin()
}

func (c *checker) site() {
	if d := c.cfg.Domain; d != "" && !isDomain(d) {
		c.err("domain", fmt.Sprintf("%q is not a domain name", d), `write a name like "proxy.example.com", without scheme, port or path`)
	}
	seen := map[netip.Addr]bool{}
	single := map[bool]int{} // by "is IPv4": addresses without a private one
	pairs := map[bool]int{}
	for i, e := range c.cfg.ExternalIP {
		key := c.listKey("external_ip", i)
		four := e.Public.Is4()
		if e.Private.IsValid() {
			pairs[four]++
			if seen[e.Private] {
				c.err(key, fmt.Sprintf("the private address %s stands in two pairs", e.Private), "map each private address once")
			}
			seen[e.Private] = true
		} else {
			single[four]++
		}
		if single[four] > 1 || single[four] > 0 && pairs[four] > 0 {
			c.err(key, "two external addresses of one family", `give one, or a "public/private" pair for each address of the host`)
		}
		switch {
		case e.Public.IsLoopback():
			c.warn(key, fmt.Sprintf("%s is reached from this host only", e.Public), "write the address that clients reach")
		case c.cfg.Layout == External && isPrivate(e.Public):
			c.warn(key, fmt.Sprintf("%s is a private address, in the external layout", e.Public), `write the public address, "public/private" behind NAT, or layout = "intranet"`)
		}
	}
}

// believed warns where the file believes everybody about whose address a
// connection has: limits, clients and logs then hold what a stranger writes.
func (c *checker) believed() {
	for _, list := range []struct {
		key      string
		prefixes []netip.Prefix
	}{
		{"https.trusted_proxies", c.cfg.HTTPS.TrustedProxies},
		{"https.proxy_protocol", c.cfg.HTTPS.ProxyProtocol},
		{"turn.proxy_protocol", c.cfg.TURN.ProxyProtocol},
	} {
		for i, p := range list.prefixes {
			if p.Bits() == 0 {
				c.warn(element(list.key, i), fmt.Sprintf("%s lets everybody say which address he comes from", p),
					"list the addresses of what stands in front of this host")
			}
		}
	}
}

// listeners looks for two listeners that cannot both open. All of ours use
// TCP; those of TURN use UDP as well.
func (c *checker) listeners() {
	type open struct {
		key  string
		addr ListenAddr
	}
	var all []open
	for i, l := range c.cfg.HTTPS.Listen {
		all = append(all, open{element("https.listen", i), l})
	}
	for i, l := range c.cfg.TURN.Listen {
		all = append(all, open{element("turn.listen", i), l})
	}
	own := make(map[ListenAddr]bool) // routes may share one
	list := func(at string, listen []ListenAddr) {
		for i, l := range listen {
			if key := element(child(at, "listen"), i); l.IsZero() || !own[l] {
				all = append(all, open{key, l})
			} else if slices.Contains(listen[:i], l) {
				c.err(key, fmt.Sprintf("%s stands in the list twice", l), "remove one")
			}
			own[l] = true
		}
	}
	for i, r := range c.cfg.Signaling {
		list(element("signaling", i), r.Listen)
	}
	for i, r := range c.cfg.Logger {
		list(element("logger", i), r.Listen)
	}
	if m := c.cfg.Admin.Metrics; !m.IsZero() {
		all = append(all, open{"admin.metrics", m})
		if m.Wildcard() || !m.Addr.IsLoopback() && !isPrivate(m.Addr) {
			c.warn("admin.metrics", "the metrics are open to everybody who reaches "+m.String(), `listen on "127.0.0.1:9641", or let the firewall decide`)
		}
	}
	if s := c.cfg.Admin.Status; !s.IsZero() {
		all = append(all, open{"admin.status", s})
		if s.Wildcard() || !s.Addr.IsLoopback() {
			c.err("admin.status", "the page asks for no login, and "+s.String()+" is reached from elsewhere", `write "127.0.0.1:9642", and reach it with ssh -L 9642:127.0.0.1:9642`)
		}
	}
	if acme := c.cfg.TLS.ACME; c.cfg.TLS.UsesHTTP() {
		all = append(all, open{"tls.acme.http_listen", acme.HTTPListen})
	}
	for i, a := range all {
		switch {
		case a.addr.IsZero():
			c.err(a.key, "is empty", `write ":443", or remove the element`)
		case a.addr.Port == 0 && !a.addr.Addr.IsLoopback():
			c.warn(a.key, "port 0 is another port after each start", "name the port")
		}
		for _, b := range all[:i] {
			if a.addr.Port == 0 || !overlap(a.addr, b.addr) {
				continue
			}
			fix := "change one of the two"
			if b.key != a.key && strings.HasPrefix(b.key, "https.") && (strings.HasPrefix(a.key, "signaling[") || strings.HasPrefix(a.key, "logger[")) {
				fix = "a listener of a route is for routes that name it: choose another port, or remove it here to share those of [https]"
			}
			if strings.HasPrefix(a.key, "turn.") && strings.HasPrefix(b.key, "https.") {
				if a.addr == b.addr {
					continue // TCP is shared, and UDP is TURN's alone
				}
				fix = fmt.Sprintf("write it as there, %q, to share TCP and add TURN over UDP, or remove it here", b.addr)
			}
			c.err(a.key, fmt.Sprintf("%s is taken by %s (%s)", a.addr, b.key, b.addr), fix)
		}
	}
	if len(c.cfg.HTTPS.Listen) == 0 {
		c.err("https.listen", "is empty", `write [":443"]`)
	}
}

// names checks the names that clients may come under.
func (c *checker) names() {
	for i, n := range c.cfg.HTTPS.Names {
		key := element("https.names", i)
		switch {
		case n == "*":
		case !isDomain(strings.TrimPrefix(n, "*.")):
			c.err(key, fmt.Sprintf("%q is not a name", n), `write a name like "proxy.example.com" or "*.example.com", or "*" for any`)
		case c.cfg.Domain == "":
			c.warn(key, "without a domain every name is served", "set domain, or remove this")
		}
	}
}

// relay checks the range of relay ports against everything that also wants
// ports, and the peer policy.
func (c *checker) relay() {
	t := c.cfg.TURN
	if t.MinPort > t.MaxPort {
		c.err("turn.max_port", fmt.Sprintf("%d is below min_port %d", t.MaxPort, t.MinPort), "swap the two values")
		return
	}
	relay := PortRange{t.MinPort, t.MaxPort}
	for i, l := range t.Listen {
		if l.Port != 0 && relay.Contains(l.Port) {
			c.warn(element("turn.listen", i), fmt.Sprintf("port %d lies in the relay range %s, which has one port less for it", l.Port, relay), "listen elsewhere, or move min_port and max_port")
		}
	}
	if relay.Lo < 1024 {
		c.warn("turn.min_port", fmt.Sprintf("%d is a port of system services", relay.Lo), "begin at 1024 or above")
	}
	if e, reserved, ok := c.env.ephemeralPorts(); ok {
		both := PortRange{max(e.Lo, relay.Lo), min(e.Hi, relay.Hi)}
		covered := slices.ContainsFunc(reserved, func(r PortRange) bool { return r.Lo <= both.Lo && both.Hi <= r.Hi })
		if both.Lo <= both.Hi && !covered {
			key := "turn.max_port"
			if !c.set[key] {
				key = "turn.min_port"
			}
			all := relay.String()
			for _, have := range reserved { // stays so
				all += "," + have.String()
			}
			c.warn(key, fmt.Sprintf("the relay range %s overlaps the ports of outgoing connections, %s: some relay ports will be taken", relay, e),
				fmt.Sprintf("sysctl -w net.ipv4.ip_local_reserved_ports=%s, or use the default range", all))
		}
	}
	c.realms()
	for i, name := range t.OffloadInterfaces {
		if name == "" || len(name) > 15 || strings.ContainsAny(name, "/: \t") {
			c.err(element("turn.offload_interfaces", i), fmt.Sprintf("%q is not the name of a network interface", name), "see ip link")
		}
	}
	l := t.Limits
	if (t.Offload == "native" || t.Offload == "generic") && (l.BytesPerSecondPerAllocation > 0 || l.BytesPerSecondPerUser > 0 || l.BytesPerSecondTotal > 0) {
		c.warn("turn.offload", "nothing is relayed in the kernel, as only user space keeps limits of bandwidth", `drop turn.limits.bytes_per_second_*, or write "off"`)
	}
	for i, r := range t.Peers.Allow {
		if r.Prefix.Bits() == 0 && r.Ports.Any() {
			c.warn(element("turn.peers.allow", i), fmt.Sprintf("%s allows every peer, also inside your network", r), "list the prefixes that are needed")
		}
	}
}

func (c *checker) credentials() {
	t := c.cfg.TURN
	if len(t.Realm) > 127 {
		c.err("turn.realm", "is longer than 127 bytes", "use the domain")
	}
	seen := map[string]int{}
	for i, u := range t.User {
		at := element("turn.user", i)
		name, password := child(at, "name"), child(at, "password")
		first, twice := seen[u.Name]
		switch {
		case u.Name == "":
			c.err(name, "the user has no name", `write name = "..."`)
		case strings.ContainsFunc(u.Name, isControl):
			c.err(name, "has a control character in it", "remove it")
		case strings.Contains(u.Name, ":"):
			c.err(name, fmt.Sprintf("%q has a colon in it, which marks time-limited credentials", u.Name), "choose a name without")
		case len(u.Name) > 508: // RFC 8489 section 14.3
			c.err(name, "is longer than 508 bytes", "choose a shorter name")
		case twice:
			c.err(name, fmt.Sprintf("%q is on line %d already", u.Name, first), "remove one of the two users")
		}
		seen[u.Name] = c.pos.line(name)
		if len(u.All()) == 0 {
			c.err(password, "the user has no password", `write password = "..."`)
		} else if !u.Password.IsEmpty() {
			c.password(password, u.Name, u.Password)
		}
		for j, p := range u.Passwords {
			key := element(child(at, "passwords"), j)
			if p.IsEmpty() {
				c.err(key, "is empty", "remove it, or write the password")
				continue
			}
			c.password(key, u.Name, p)
		}
		if n := len(u.All()); n > maxPasswords {
			c.err(child(at, "passwords"), fmt.Sprintf("a user with %d passwords", n), "keep the new one and the one before it")
		}
	}
	for i, s := range t.Secrets {
		switch key := element("turn.secrets", i); {
		case s.IsEmpty():
			c.err(key, "is empty", "remove it, or write the shared secret")
		case len(s.Reveal()) < 16:
			c.warn(key, "is shorter than 16 characters: it can be guessed from one credential", `choose a random one, for example from "openssl rand -hex 32"`)
		}
	}
	fromScheduler := c.cfg.UsesTRTC() && c.cfg.TRTC.InjectTURN
	if len(t.User)+len(t.Secrets)+len(t.Database) == 0 && t.API.Path == "" && len(t.Listen) > 0 && !fromScheduler && !c.findings.HasErrors() {
		c.warn("turn", "there is neither a user nor a secret: nobody can use the relay", "add [[turn.user]] with name and password")
	}
}

func (c *checker) limits() {
	t := c.cfg.TURN
	ports := int(t.MaxPort) - int(t.MinPort) + 1
	if n := t.Limits.Allocations; n > ports && ports > 0 && c.set["turn.limits.allocations"] {
		c.warn("turn.limits.allocations", fmt.Sprintf("%d is more than the %d relay ports", n, ports), "widen min_port to max_port, or write 0")
	}
	for _, l := range []struct {
		key string
		n   int
	}{
		{"turn.limits.permissions_per_allocation", t.Limits.PermissionsPerAllocation},
		{"turn.limits.channels_per_allocation", t.Limits.ChannelsPerAllocation},
	} {
		if l.n == 0 {
			c.err(l.key, "0 would let one client use all memory", "write a number from 1")
		}
	}
	for _, l := range []struct {
		key string
		n   Size
	}{
		{"turn.limits.bytes_per_second_per_allocation", t.Limits.BytesPerSecondPerAllocation},
		{"turn.limits.bytes_per_second_per_user", t.Limits.BytesPerSecondPerUser},
		{"turn.limits.bytes_per_second_total", t.Limits.BytesPerSecondTotal},
	} {
		if l.n > 0 && l.n < 8000 {
			c.warn(l.key, fmt.Sprintf("%s a second carries no call, not even its sound", l.n), `write bytes, like "250KB" for 2 Mbit/s`)
		}
	}
	if n, all := c.cfg.HTTPS.MaxConnectionsPerAddress, c.cfg.HTTPS.MaxConnections; all > 0 && n > all {
		c.warn("https.max_connections_per_address", fmt.Sprintf("%d is more than max_connections %d", n, all), "lower it")
	}
	if b := t.Egress.Bytes; b < 2048 {
		c.err("turn.egress.bytes", fmt.Sprintf("%s does not hold one packet", b), `write at least "2KiB"`)
	}
}

// times refuses zero where it would mean either "at once" or "for ever".
func (c *checker) times() {
	cfg := c.cfg
	c.positive("https", "header_timeout", cfg.HTTPS.HeaderTimeout)
	c.positive("https", "handshake_timeout", cfg.HTTPS.HandshakeTimeout)
	c.positive("turn", "credential_ttl", cfg.TURN.CredentialTTL)
	c.positive("turn.api", "ttl", cfg.TURN.API.TTL)
	for i, db := range cfg.TURN.Database {
		c.positive(element("turn.database", i), "timeout", db.Timeout)
		c.positive(element("turn.database", i), "cache", db.Cache)
	}
	c.positive("turn.limits", "first_message", cfg.TURN.Limits.FirstMessage)
	c.positive("turn.limits", "ban", cfg.TURN.Limits.Ban)
	c.positive("turn.egress", "queue", cfg.TURN.Egress.Queue)
	c.positive("upstream", "dial_timeout", cfg.Upstream.DialTimeout)
	c.positive("upstream", "tls_timeout", cfg.Upstream.TLSTimeout)
	c.positive("upstream", "handshake_timeout", cfg.Upstream.HandshakeTimeout)
	for i, r := range cfg.Signaling {
		at := element("signaling", i)
		c.positive(at, "dial_timeout", r.Reach.DialTimeout)
		c.positive(at, "tls_timeout", r.Reach.TLSTimeout)
		c.positive(at, "handshake_timeout", r.Reach.HandshakeTimeout)
		c.positive(at, "health_interval", r.HealthInterval)
		for key, n := range map[string]int{"health_rise": r.HealthRise, "health_fall": r.HealthFall} {
			if n == 0 {
				c.err(child(at, key), "must be more than zero", "write 2")
			}
		}
	}
	for i, r := range cfg.Logger {
		at := element("logger", i)
		c.positive(at, "dial_timeout", r.Reach.DialTimeout)
		c.positive(at, "tls_timeout", r.Reach.TLSTimeout)
		c.positive(at, "timeout", r.Timeout)
		c.positive(at, "spool_age", r.SpoolAge)
	}
	if ttl := cfg.TURN.CredentialTTL; ttl > 0 && ttl < Duration(10*time.Minute) {
		c.warn("turn.credential_ttl", fmt.Sprintf("a credential of %s ends before many calls do", ttl), `write "12h"`)
	}
}

// reach checks the keys of [upstream], in its own table or in a route. What a
// route inherits is checked where it stands.
func (c *checker) reach(path string, u Reach) {
	own := func(key string) bool { return path == "upstream" || c.set[child(path, key)] }
	if own("proxy") {
		c.proxy(child(path, "proxy"), u.Proxy)
	}
	if own("no_proxy") {
		for i, s := range u.NoProxy {
			if what := badNoProxy(s); what != "" {
				c.err(element(child(path, "no_proxy"), i), what, `write "example.com", ".example.com", "192.0.2.0/24" or "*", with ":443" behind a name for that port alone`)
			}
		}
		if len(u.NoProxy) > 0 && u.Proxy.IsEmpty() && c.set[child(path, "no_proxy")] {
			c.warn(child(path, "no_proxy"), "counts only beside a proxy, and there is none", "remove it, or name the proxy")
		}
	}
	if own("resolve") {
		for _, name := range slices.Sorted(maps.Keys(u.Resolve)) {
			if !isHostName(name) {
				c.err(child(child(path, "resolve"), name), fmt.Sprintf("%q is not a host name", name), `write { "host.example.com" = "192.0.2.7:443" }`)
			}
		}
	}
}

// positive leaves an inherited zero to the table it comes from.
func (c *checker) positive(table, key string, d Duration) {
	if key = child(table, key); d <= 0 && c.set[key] {
		c.err(key, "must be more than zero", `write a duration like "5s"`)
	}
}

func (c *checker) admin() {
	const longest = 107 // bytes in sockaddr_un, less the final zero
	if s := c.cfg.Admin.Socket; len(s) > longest {
		c.err("admin.socket", fmt.Sprintf("the path is longer than %d bytes", longest), `write socket = "/run/turngate/admin.sock"`)
	}
}

// overlap reports whether two TCP listeners want the same address and port.
func overlap(a, b ListenAddr) bool {
	return a.Port == b.Port && (a.Addr == b.Addr || a.Wildcard() || b.Wildcard() ||
		a.Addr == netip.IPv4Unspecified() && b.Addr.Is4() || b.Addr == netip.IPv4Unspecified() && a.Addr.Is4())
}

// isPrivate reports whether addr is of a network that the Internet does not
// reach: RFC 1918, RFC 4193, shared (RFC 6598) and link-local addresses.
func isPrivate(addr netip.Addr) bool {
	return addr.IsPrivate() || addr.IsLinkLocalUnicast() || netip.MustParsePrefix("100.64.0.0/10").Contains(addr)
}

// isDomain reports whether s is a host name and not an address.
func isDomain(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return false
	}
	labels := strings.Split(s, ".")
	_, err := strconv.Atoi(labels[len(labels)-1])
	return err != nil && isHostName(s) && !strings.Contains(s, "_") && !strings.HasSuffix(s, ".")
}

// WeakPassword reports whether a password is among those that are tried first.
func WeakPassword(name, password string) bool {
	p := strings.ToLower(password)
	return len(p) < 8 || p == strings.ToLower(name) || slices.Contains([]string{
		"password", "passw0rd", "12345678", "123456789", "1234567890", "turnserver", "turnpassword", "changeme", "qwertyuiop",
	}, p)
}

// plainHTTP reports whether requests to u travel unencrypted over a network.
func plainHTTP(u *url.URL) bool {
	if u.Scheme != "http" || u.Hostname() == "localhost" {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err != nil || !addr.IsLoopback()
}

// realms checks that every realm belongs to a listener.
func (c *checker) realms() {
	var listeners []string
	for _, l := range slices.Concat(c.cfg.TURN.Listen, c.cfg.HTTPS.Listen) {
		listeners = append(listeners, l.String())
	}
	for _, at := range slices.Sorted(maps.Keys(c.cfg.TURN.Realms)) {
		key := child("turn.realms", at)
		if !slices.Contains(listeners, at) {
			c.err(key, fmt.Sprintf("%q is not a listener", at), "write it as in turn.listen or https.listen: "+oneOf(listeners))
		}
		if c.cfg.TURN.Realms[at] == "" {
			c.err(key, "the realm is empty", "name it, or remove the entry")
		}
	}
}
