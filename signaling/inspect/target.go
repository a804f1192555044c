package inspect

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/turngate/turngate/internal/proxy"
)

// errTarget is what a guard says; the answer is 403.
var errTarget = errors.New("this target is not allowed")

// byHeaders is ByHeaders made ready. The clients keep connections, so each guard
// has its own: what one peer may reach another may not reuse.
type byHeaders struct {
	trusted     proxy.Trust
	strip       bool
	local       bool
	targets     targets
	concurrency int
	reach       [2]reach // [1]: loopback allowed
}

// reach is how upstreams and hooks of one kind of peer are dialled.
type reach struct {
	guard  proxy.Guard
	dialer *proxy.Dialer
	client *proxy.Client
}

func newByHeaders(o *ByHeaders, upstreams, hooks *proxy.Dialer) (*byHeaders, error) {
	b := &byHeaders{trusted: o.Trusted, strip: o.Strip, local: o.LocalTargets, concurrency: o.Concurrency}
	if b.concurrency == 0 {
		b.concurrency = DefaultConcurrency
	}
	if b.concurrency < 0 {
		return nil, errors.New("the concurrency is negative")
	}
	var err error
	if b.targets, err = parseTargets(o.Targets); err != nil {
		return nil, err
	}
	for i := range b.reach {
		guard := b.targets.guard(i == 1)
		b.reach[i] = reach{guard, upstreams.Guarded(guard), proxy.NewClient(hooks.Guarded(guard))}
	}
	return b, nil
}

// of returns the reach of a peer.
func (b *byHeaders) of(peer netip.Addr) *reach {
	if b.local && peer.Unmap().IsLoopback() {
		return &b.reach[1]
	}
	return &b.reach[0]
}

func (b *byHeaders) closeIdle() {
	for i := range b.reach {
		b.reach[i].client.CloseIdle()
	}
}

// check refuses before anything is dialled what needs no DNS to be refused.
func (b *byHeaders) check(r *reach, u *proxy.Upstream) error {
	if addr, err := netip.ParseAddr(u.Host); err == nil {
		return r.guard(u.Host, netip.AddrPortFrom(addr.Unmap(), u.Port))
	}
	if b.targets.named(u.Host, u.Port) || len(b.targets.prefixes) > 0 { // a name may lead to a prefix
		return nil
	}
	return errTarget
}

// targets is an allow-list of hosts.
type targets struct {
	names    []namedTarget
	prefixes []prefixTarget
}

type namedTarget struct {
	any    bool   // "*"
	exact  string // lower case
	suffix string // ".example.com" of "*.example.com"
	port   uint16 // 0: any
}

type prefixTarget struct {
	prefix netip.Prefix
	port   uint16 // 0: any
}

// ParseTargets checks an allow-list of [ByHeaders].
func ParseTargets(list []string) error {
	_, err := parseTargets(list)
	return err
}

func parseTargets(list []string) (t targets, err error) {
	for _, text := range list {
		host, port, err := splitTargetPort(text)
		if err != nil {
			return t, err
		}
		if p, err := parsePrefix(host); err == nil {
			t.prefixes = append(t.prefixes, prefixTarget{p, port})
			continue
		}
		n := namedTarget{port: port}
		name := strings.ToLower(host)
		switch {
		case name == "*":
			n.any = true
		case strings.HasPrefix(name, "*.") && validName(name[2:]):
			n.suffix = name[1:]
		case validName(name):
			n.exact = name
		default:
			return t, fmt.Errorf("target %q: want a name, *.name, an address or prefix, with :port if wanted, or *", text)
		}
		t.names = append(t.names, n)
	}
	return t, nil
}

// splitTargetPort reads "host", "host:port", "[v6]", "[v6/64]:port" or a bare IPv6
// address or prefix.
func splitTargetPort(s string) (host string, port uint16, err error) {
	rest := s
	if strings.HasPrefix(s, "[") {
		var ok bool
		if host, rest, ok = strings.Cut(s[1:], "]"); !ok {
			return "", 0, fmt.Errorf("target %q has no closing bracket", s)
		}
		if rest == "" {
			return host, 0, nil
		}
	} else if strings.Count(s, ":") != 1 {
		return s, 0, nil
	} else {
		host, _, _ = strings.Cut(s, ":")
		rest = s[len(host):]
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(rest, ":"), 10, 16)
	if rest[0] != ':' || err != nil || n == 0 {
		return "", 0, fmt.Errorf("target %q: the port is not 1 to 65535", s)
	}
	return host, uint16(n), nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func validName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return len(s) <= 253
}

// guard decides about every address that is dialled. An address is allowed by a
// prefix that holds it, or by the name it was found for unless it is one of those
// that a name never leads to. local is for a peer on this host.
func (t *targets) guard(local bool) proxy.Guard {
	return func(host string, to netip.AddrPort) error {
		addr := to.Addr().Unmap().WithZone("")
		for _, p := range t.prefixes {
			if addr.IsValid() && p.prefix.Contains(addr) && (p.port == 0 || p.port == to.Port()) {
				return nil
			}
		}
		if !t.named(host, to.Port()) {
			return errTarget
		}
		if !addr.IsValid() || !sensitive(addr) || local && addr.IsLoopback() {
			return nil
		}
		return errTarget
	}
}

// named reports whether a name is listed.
func (t *targets) named(host string, port uint16) bool {
	for _, n := range t.names {
		switch {
		case n.port != 0 && port != n.port:
		case n.any, n.exact == host, n.suffix != "" && strings.HasSuffix(host, n.suffix):
			return true
		}
	}
	return false
}

// metadata are the addresses at which clouds give credentials to the host that
// asks, beside those that are link-local.
var metadata = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("192.0.0.192"),     // Oracle
	netip.MustParseAddr("fd00:ec2::254"),   // Amazon
	netip.MustParseAddr("fd20:ce::254"),    // Google
}

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	nat64       = netip.MustParsePrefix("64:ff9b::/96")
	nat64Local  = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour   = netip.MustParsePrefix("2002::/16")
	compatible  = netip.MustParsePrefix("::/96")
)

// sensitive reports whether an address leads to this host, its link, or what
// trusts it for its address. IPv6 forms of an IPv4 address count as that.
func sensitive(a netip.Addr) bool {
	a = a.Unmap()
	if a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast() || slices.Contains(metadata, a) ||
		a.Is4() && (thisNetwork.Contains(a) || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})) {
		return true
	}
	if a.Is4() {
		return false
	}
	b := a.As16()
	switch {
	case nat64.Contains(a), nat64Local.Contains(a), compatible.Contains(a):
		return sensitive(netip.AddrFrom4([4]byte(b[12:])))
	case sixToFour.Contains(a):
		return sensitive(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return false
}
