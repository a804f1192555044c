package proxy

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Origins is an allow-list for the Origin header: exact scheme, host and port
// ("https://app.example.com", "http://localhost:3000"), or every host below a
// domain ("https://*.example.com"). The zero value allows everything.
type Origins struct {
	exact map[string]bool
	below []origin
}

type origin struct{ scheme, suffix, port string }

// ParseOrigins reads an allow-list. "null" may be listed for pages without an origin.
func ParseOrigins(list []string) (Origins, error) {
	var o Origins
	for _, s := range list {
		if s == "null" {
			o.add(s)
			continue
		}
		scheme, host, port, ok := splitOrigin(s)
		if !ok {
			return Origins{}, fmt.Errorf("origin %q: want scheme://host[:port] and nothing else", s)
		}
		if suffix, wild := strings.CutPrefix(host, "*"); wild {
			if !strings.HasPrefix(suffix, ".") || strings.Contains(suffix, "*") || len(suffix) < 2 {
				return Origins{}, fmt.Errorf("origin %q: a wildcard stands for whole labels on the left: https://*.example.com", s)
			}
			o.below = append(o.below, origin{scheme, suffix, port})
			continue
		}
		if strings.Contains(host, "*") {
			return Origins{}, fmt.Errorf("origin %q: a wildcard stands for whole labels on the left: https://*.example.com", s)
		}
		o.add(scheme + "://" + host + ":" + port)
	}
	return o, nil
}

func (o *Origins) add(s string) {
	if o.exact == nil {
		o.exact = make(map[string]bool)
	}
	o.exact[s] = true
}

// Empty reports whether the list allows every origin.
func (o *Origins) Empty() bool { return o.exact == nil && o.below == nil }

// Allow decides about the Origin fields of a request: with a list, exactly one
// field must be there and on it.
func (o *Origins) Allow(fields []string) bool {
	if o.Empty() {
		return true
	}
	if len(fields) != 1 {
		return false
	}
	if fields[0] == "null" {
		return o.exact["null"]
	}
	scheme, host, port, ok := splitOrigin(fields[0])
	if !ok {
		return false
	}
	if o.exact[scheme+"://"+host+":"+port] {
		return true
	}
	for _, b := range o.below {
		if b.scheme == scheme && b.port == port && strings.HasSuffix(host, b.suffix) && len(host) > len(b.suffix) {
			return true
		}
	}
	return false
}

// splitOrigin reads "scheme://host[:port]" (RFC 6454 section 6.2), lower-cased,
// with the port of the scheme filled in.
func splitOrigin(s string) (scheme, host, port string, ok bool) {
	scheme, rest, found := strings.Cut(strings.ToLower(s), "://")
	if !found || scheme == "" || rest == "" || strings.ContainsAny(rest, "/?#@\\ ") {
		return "", "", "", false
	}
	host = rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.HasSuffix(rest, "]") {
		host, port = rest[:i], rest[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", "", "", false
		}
	}
	if host == "" || strings.Contains(strings.Trim(host, "[]"), ":") != strings.HasPrefix(host, "[") {
		return "", "", "", false
	}
	if port == "" {
		switch scheme {
		case "http":
			port = "80"
		case "https":
			port = "443"
		default:
			port = "0"
		}
	}
	return scheme, host, port, true
}

// QueryValue returns the value of a parameter of a raw query (with or without
// its question mark), decoded. Names are compared decoded and without case, since
// we do not know which spelling the upstream looks for; n is how many there are, those
// counted that a server finds that takes ";" for a separator too.
// A caller that decides by the value refuses n > 1: the upstream might read another one.
func QueryValue(query, name string) (value string, n int) {
	query = strings.TrimPrefix(query, "?")
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		for more := true; more; {
			v, ok := parameter(pair, name)
			if ok {
				if n++; n == 1 {
					value = v
				}
			}
			_, pair, more = strings.Cut(pair, ";")
		}
	}
	return value, n
}

// parameter returns the decoded value of a pair, if it has this name.
func parameter(pair, name string) (value string, ok bool) {
	k, v, _ := strings.Cut(pair, "=")
	if decoded, err := url.QueryUnescape(k); err == nil {
		k = decoded
	}
	if !strings.EqualFold(strings.TrimSpace(k), name) {
		return "", false
	}
	if decoded, err := url.QueryUnescape(v); err == nil {
		v = decoded
	}
	return v, true
}

// AppIDs is an allow-list of sdkAppId values. The zero value allows everything.
type AppIDs map[uint64]bool

// NewAppIDs makes an allow-list; an empty one allows everything.
func NewAppIDs(ids []uint64) AppIDs {
	if len(ids) == 0 {
		return nil
	}
	m := make(AppIDs, len(ids))
	for _, id := range ids {
		m[id] = true
	}
	return m
}

// AppID reads the parameter sdkAppId of a raw query. ok is false when it is
// there more than once or is no number; id is 0 when it is missing.
func AppID(query string) (id uint64, ok bool) {
	v, n := QueryValue(query, "sdkAppId")
	if n == 0 {
		return 0, true
	}
	id, ok = ParseAppID(v)
	return id, ok && n == 1
}

// ParseAppID reads the decimal digits of an sdkAppId.
func ParseAppID(s string) (uint64, bool) {
	if s == "" || len(s) > 19 {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	id, err := strconv.ParseUint(s, 10, 64)
	return id, err == nil
}

// Allow decides about the sdkAppId that [AppID] read.
func (a AppIDs) Allow(id uint64, ok bool) bool {
	return len(a) == 0 || ok && a[id]
}

// International reports whether TRTC serves the application outside mainland
// China; its SDK draws the line by number.
func International(appID uint64) bool { return appID > 0 && appID < 1_400_000_000 }

// HostList is an allow-list of host names, exact or "*.example.com" (one or more
// labels below, not the domain itself). The zero value allows nothing.
type HostList struct {
	exact map[string]bool
	below []string
}

// ParseHostList reads patterns.
func ParseHostList(patterns []string) (HostList, error) {
	l := HostList{exact: make(map[string]bool)}
	for _, p := range patterns {
		name := strings.ToLower(p)
		bare, wild := strings.CutPrefix(name, "*.")
		if !validHostName(bare) || wild && !strings.Contains(bare, ".") {
			return HostList{}, fmt.Errorf("host pattern %q: want a name or *.name", p)
		}
		if wild {
			l.below = append(l.below, "."+bare)
		} else {
			l.exact[bare] = true
		}
	}
	return l, nil
}

// Host returns the host name that s allows us to dial on port 443: s is a
// name from the list in lower or upper case, alone or with ":443". Anything else,
// an address, a user, a path, another port, a final dot, is refused.
func (l *HostList) Host(s string) (host string, ok bool) {
	s = strings.ToLower(s)
	s = strings.TrimSuffix(s, ":443")
	if !validHostName(s) || !strings.Contains(s, ".") {
		return "", false
	}
	if l.exact[s] {
		return s, true
	}
	for _, b := range l.below {
		if strings.HasSuffix(s, b) {
			return s, true
		}
	}
	return "", false
}

// validHostName accepts lower-case DNS names of letters, digits and hyphens that
// are not an IP address in any spelling.
func validHostName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := 0; i < len(label); i++ {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
		last = label
	}
	return last[0] < '0' || last[0] > '9' // 127.1 and 0x7f000001 are addresses to some resolvers
}
