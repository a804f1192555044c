package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// An Upstream is one server behind us. Its fields are fixed after [ParseUpstream].
type Upstream struct {
	Name string // host:port, for logs and metrics
	Host string // lower case; what DNS, SNI and the certificate check use
	Port uint16
	TLS  bool
	Path string // base path, undecoded, "" for none

	literal bool         // Host is an address
	down    atomic.Int64 // UnixNano until which it is not preferred; 0 is healthy
}

// ParseUpstream reads a base URL: http, https, ws or wss, host, optional port and
// path. User, query and fragment are refused.
func ParseUpstream(s string) (*Upstream, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", errors.Unwrap(err))
	}
	up := &Upstream{}
	port := ""
	switch u.Scheme {
	case "https", "wss":
		up.TLS, port = true, "443"
	case "http", "ws":
		port = "80"
	default:
		return nil, fmt.Errorf("upstream %q: want https://, wss://, http:// or ws://", u.Redacted())
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, fmt.Errorf("upstream %q: only scheme, host, port and path may stand in it", u.Redacted())
	}
	up.Host = strings.ToLower(u.Hostname())
	if _, err := netip.ParseAddr(up.Host); err == nil {
		up.literal = true
	} else if !validUpstreamName(up.Host) {
		return nil, fmt.Errorf("upstream %q: %q is no host name", s, up.Host)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, fmt.Errorf("upstream %q: port %q is not 1 to 65535", s, port)
	}
	up.Port = uint16(n)
	up.Name = net.JoinHostPort(up.Host, port)
	up.Path = u.EscapedPath()
	if up.Path != "" {
		if err := checkPath(up.Path); err != nil {
			return nil, fmt.Errorf("upstream %q: %w", s, err)
		}
	}
	return up, nil
}

func validUpstreamName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 253
}

// HostHeader returns what Host must say: the upstream's name, with the port unless it is
// the scheme's own.
func (u *Upstream) HostHeader() string {
	if u.TLS && u.Port == 443 || !u.TLS && u.Port == 80 {
		if strings.Contains(u.Host, ":") {
			return "[" + u.Host + "]"
		}
		return u.Host
	}
	return u.Name
}

// Target returns the request target for a remainder and query of the client's,
// see [Join].
func (u *Upstream) Target(rest, query string) string { return Join(u.Path, rest) + query }

// downTime is how long an upstream that failed is passed over.
const downTime = 10 * time.Second

// A Pool is a list of upstreams in order of preference. One failure takes an upstream
// out for ten seconds, then one request tries it again.
type Pool struct {
	ups []*Upstream
	now func() time.Time
}

// NewPool parses the base URLs of a pool; there must be at least one.
func NewPool(urls []string) (*Pool, error) {
	if len(urls) == 0 {
		return nil, errors.New("no upstream")
	}
	p := &Pool{now: time.Now}
	for _, s := range urls {
		u, err := ParseUpstream(s)
		if err != nil {
			return nil, err
		}
		p.ups = append(p.ups, u)
	}
	return p, nil
}

// Upstreams returns the members in order of preference; do not change the slice.
func (p *Pool) Upstreams() []*Upstream { return p.ups }

// Candidates returns the upstreams to try for one request, each at most once:
// the healthy ones and one whose trial is due, in order of preference, then as a last
// resort those that are out.
func (p *Pool) Candidates() []*Upstream {
	now := p.now().UnixNano()
	order := make([]*Upstream, 0, len(p.ups))
	var out []*Upstream
	for _, u := range p.ups {
		down := u.down.Load()
		if down == 0 || down <= now && u.down.CompareAndSwap(down, now+int64(downTime)) {
			order = append(order, u)
		} else {
			out = append(out, u)
		}
	}
	return append(order, out...)
}

// Failed takes an upstream out; changed is true when it was healthy before. An error
// that says nothing about the upstream, as of a client that left, changes nothing.
func (p *Pool) Failed(u *Upstream, err error) (changed bool) {
	switch Classify(err) {
	case CauseCanceled, CauseLocal:
		return false
	}
	return u.down.Swap(p.now().Add(downTime).UnixNano()) == 0
}

// Worked puts an upstream back; changed is true when it was out before.
func (p *Pool) Worked(u *Upstream) (changed bool) {
	return u.down.Load() != 0 && u.down.Swap(0) != 0
}

// Down reports whether an upstream is taken out, for status pages.
func (u *Upstream) Down() bool { return u.down.Load() != 0 }
