package proxy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// bypassList says which upstreams are reached without the proxy.
type bypassList struct {
	all      bool
	prefixes []netip.Prefix
	names    []bypassName
}

type bypassName struct {
	name  string     // in small letters; begins with a dot for the names below only
	below bool       // names below it count too
	port  uint16     // 0: any
	addr  netip.Addr // instead of a name
}

// parseBypass reads what a proxy is not used for, in the words of NO_PROXY:
//
//	example.com      the name and every name below it
//	.example.com     the names below it only; *.example.com is the same
//	192.0.2.7, 2001:db8::1, 192.0.2.0/24    an address, or the addresses of a prefix
//	example.com:8443, 192.0.2.7:80, [2001:db8::1]:443    with this port only
//	*                everything
//
// Names are compared as they stand in the URL of an upstream: no DNS is asked, and
// a fixed address of Resolve does not count.
func parseBypass(list []string) (b bypassList, err error) {
	for _, s := range list {
		s = strings.ToLower(strings.TrimSpace(s))
		if s == "" {
			continue
		}
		if s == "*" {
			b.all = true
			continue
		}
		if p, perr := netip.ParsePrefix(s); perr == nil {
			b.prefixes = append(b.prefixes, p.Masked())
			continue
		}
		n, ok := parseBypassName(s)
		if !ok {
			err = fmt.Errorf("no_proxy %q: want a name, .suffix, address, prefix or *, with or without a port", s)
			continue
		}
		b.names = append(b.names, n)
	}
	return b, err
}

func parseBypassName(s string) (n bypassName, ok bool) {
	host := s
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return bypassName{addr: ap.Addr().Unmap(), port: ap.Port()}, true
	}
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return bypassName{addr: a.Unmap()}, true
	}
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		p, err := strconv.ParseUint(s[i+1:], 10, 16)
		if err != nil || p == 0 {
			return n, false
		}
		host, n.port = s[:i], uint16(p)
	}
	host = strings.TrimPrefix(host, "*") // of "*.example.com"
	n.below = true
	n.name = strings.TrimSuffix(host, ".")
	return n, validUpstreamName(strings.TrimPrefix(n.name, "."))
}

func (b *bypassList) merge(more bypassList) {
	b.all = b.all || more.all
	b.prefixes = append(b.prefixes, more.prefixes...)
	b.names = append(b.names, more.names...)
}

// match reports whether an upstream's host, in small letters, and port are on the list.
func (b *bypassList) match(host string, port uint16) bool {
	if b.all {
		return true
	}
	addr, err := netip.ParseAddr(host)
	if err == nil {
		addr = addr.Unmap()
		for _, p := range b.prefixes {
			if p.Contains(addr) {
				return true
			}
		}
	}
	host = strings.TrimSuffix(host, ".")
	for _, n := range b.names {
		switch {
		case n.port != 0 && n.port != port:
		case n.addr.IsValid():
			if n.addr == addr {
				return true
			}
		case addr.IsValid():
		case strings.HasPrefix(n.name, "."):
			if strings.HasSuffix(host, n.name) {
				return true
			}
		case host == n.name || strings.HasSuffix(host, "."+n.name):
			return true
		}
	}
	return false
}
