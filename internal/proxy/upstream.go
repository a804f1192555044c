package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// An Upstream is one server behind us. Its exported fields are fixed after
// [ParseUpstream] or [NewPool]; its health changes.
type Upstream struct {
	Name string // host:port, for logs and metrics
	Host string // lower case; what DNS, SNI and the certificate check use
	Port uint16
	TLS  bool
	Path string // base path, undecoded, "" for none

	Weight int  // share of the clients where they are spread, 1 to [MaxWeight]
	Off    bool // nobody is sent there
	Backup bool // only while no other upstream can be used

	sni     string // name for TLS instead of Host, "" for none
	host    string // Host field instead of Name, "" for none
	literal bool   // Host is an address
	checked bool   // active checks have a say
	health  *health
}

// MaxWeight is the largest weight of an upstream, and the one it has by default.
const MaxWeight = 100

// A Target is an upstream as it is configured.
type Target struct {
	URL    string // as for [ParseUpstream]
	Weight int    // 1 to [MaxWeight]; zero means MaxWeight
	Off    bool
	Backup bool

	// ServerName is what TLS asks for and the certificate is verified for, instead
	// of the name in URL; Host is what the Host field says. Both may be "".
	ServerName string
	Host       string
}

// Targets makes targets of plain URLs.
func Targets(urls ...string) []Target {
	list := make([]Target, len(urls))
	for i, u := range urls {
		list[i].URL = u
	}
	return list
}

// ParseUpstream reads a base URL: http, https, ws or wss, host, optional port and
// path. User, query and fragment are refused.
func ParseUpstream(s string) (*Upstream, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", errors.Unwrap(err))
	}
	up := &Upstream{Weight: MaxWeight, health: new(health)}
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

// newUpstream reads a target.
func newUpstream(t Target) (*Upstream, error) {
	u, err := ParseUpstream(t.URL)
	if err != nil {
		return nil, err
	}
	u.Off, u.Backup = t.Off, t.Backup
	if t.Weight != 0 {
		u.Weight = t.Weight
	}
	switch {
	case u.Weight < 1 || u.Weight > MaxWeight:
		return nil, fmt.Errorf("upstream %q: weight %d is not 1 to %d", t.URL, t.Weight, MaxWeight)
	case t.ServerName != "" && !u.TLS:
		return nil, fmt.Errorf("upstream %q: a server name without TLS", t.URL)
	case t.ServerName != "" && !validUpstreamName(strings.ToLower(t.ServerName)):
		return nil, fmt.Errorf("upstream %q: server name %q is no host name", t.URL, t.ServerName)
	case t.Host != "" && !ValidHost(t.Host):
		return nil, fmt.Errorf("upstream %q: host %q: want host[:port]", t.URL, t.Host)
	}
	u.sni, u.host = strings.ToLower(t.ServerName), t.Host
	return u, nil
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

// HostHeader returns what Host must say: what the target names, else the upstream's name,
// with the port unless it is the scheme's own.
func (u *Upstream) HostHeader() string {
	if u.host != "" {
		return u.host
	}
	if u.TLS && u.Port == 443 || !u.TLS && u.Port == 80 {
		if strings.Contains(u.Host, ":") {
			return "[" + u.Host + "]"
		}
		return u.Host
	}
	return u.Name
}

// serverName is what TLS asks for and the certificate must be for.
func (u *Upstream) serverName() string {
	if u.sni != "" {
		return u.sni
	}
	return u.Host
}

// Target returns the request target for a remainder and query of the client's,
// see [Join].
func (u *Upstream) Target(rest, query string) string { return Join(u.Path, rest) + query }

// URI returns the base URL in one spelling, with the name for TLS behind it when
// that is another one. It tells the members of a pool apart.
func (u *Upstream) URI() string {
	s := "http://"
	if u.TLS {
		s = "https://"
	}
	s += u.Name + u.Path
	if u.sni != "" {
		s += " sni=" + u.sni
	}
	if u.host != "" {
		s += " host=" + u.host
	}
	return s
}
