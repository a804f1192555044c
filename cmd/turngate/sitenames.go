package main

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/edge"
)

// siteNames are the names that we are. A browser that has two names with one
// address and one certificate sends requests for both over one connection, and a
// page of somebody else's may have its own name lead to our address: what is
// meant for another site is sent back with 421 (RFC 9110 section 15.5.20).
type siteNames struct {
	any   bool
	exact map[string]bool
	below []string // ".example.com"
}

func newSiteNames(cfg *config.Config) siteNames {
	n := siteNames{any: cfg.Domain == "", exact: map[string]bool{strings.ToLower(cfg.Domain): true, "localhost": true}}
	for _, name := range cfg.HTTPS.Names {
		n.any = n.any || name == "*"
		n.add(name)
	}
	return n
}

func (n *siteNames) add(name string) {
	if below, ok := strings.CutPrefix(name, "*"); ok {
		n.below = append(n.below, below)
	} else {
		n.exact[name] = true
	}
}

// serve reports whether a request is for us: by its Host, and by the name that
// its TLS handshake asked for.
func (n *siteNames) serve(r *http.Request, certs *edge.Certificates) bool {
	if n.any {
		return true
	}
	return n.ours(hostOnly(r.Host), certs) && (r.TLS == nil || n.ours(r.TLS.ServerName, certs))
}

// ours reports whether host is a name of ours, an address, or nothing at all:
// HTTP/1.0 has no Host, and who comes by address sends no name in TLS.
func (n *siteNames) ours(host string, certs *edge.Certificates) bool {
	if host == "" || n.exact[host] {
		return true
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if n.exact[host] {
		return true
	}
	for _, b := range n.below {
		if strings.HasSuffix(host, b) && len(host) > len(b) {
			return true
		}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return certs.Names(host)
}

// hostOnly is a Host without its port and without the brackets of an address.
func hostOnly(host string) string {
	if h, port, err := net.SplitHostPort(host); err == nil && strings.Trim(port, "0123456789") == "" {
		return h
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}
