package proxy

import (
	"net/http"
	"net/netip"
	"strings"
)

// Trust is the set of proxies in front of us whose X-Forwarded-For is believed.
// The zero value trusts nobody.
type Trust []netip.Prefix

// Contains reports whether a peer at this address is a trusted proxy.
func (t Trust) Contains(a netip.Addr) bool {
	a = a.Unmap()
	for _, p := range t {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Peer returns the address of the TCP peer of a request, as the listener set it
// (behind the PROXY protocol that is the announced source). It is the zero
// AddrPort when RemoteAddr is no IP address. A zone is left out: prefixes hold none, and
// nobody else understands ours.
func Peer(r *http.Request) netip.AddrPort {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// Client returns the address of the client: the peer, or, when the peer is a
// trusted proxy, the right-most address in X-Forwarded-For that is not one. The
// walk goes from right to left and stops at the first element that is no
// address: what stands left of it was written by nobody we trust.
func (t Trust) Client(r *http.Request) netip.Addr {
	peer := Peer(r).Addr()
	return t.client(peer, r.Header["X-Forwarded-For"])
}

func (t Trust) client(peer netip.Addr, xff []string) netip.Addr {
	client := peer
	for i := len(xff) - 1; i >= 0; i-- {
		list := xff[i]
		for more := true; more; {
			if !t.Contains(client) {
				return client
			}
			elem := list
			if j := strings.LastIndexByte(list, ','); j >= 0 {
				elem, list = list[j+1:], list[:j]
			} else {
				more = false
			}
			a, ok := parseElement(elem)
			if !ok {
				return client
			}
			client = a
		}
	}
	return client
}

// parseElement reads one element of X-Forwarded-For: an address, with a port or
// in brackets as some proxies write it. A zone is not accepted.
func parseElement(s string) (netip.Addr, bool) {
	s = strings.Trim(s, " \t")
	if len(s) > 64 {
		return netip.Addr{}, false
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap(), ap.Addr().Zone() == ""
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
		if !strings.Contains(s, ":") {
			return netip.Addr{}, false
		}
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil && a.Zone() == ""
}
