package setup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Layouts, as in the configuration.
const (
	External = "external" // 2-A: in front of the company network
	Intranet = "intranet" // 2-B: inside it
)

// A Network is what a host knows of its addresses.
type Network struct {
	Own    []Own        // of interfaces that are up, without loopback and link-local
	Out    []netip.Addr // that traffic to the Internet leaves from, one of a family at most
	Domain string       // the name that clients use; empty: none
	Names  []netip.Addr // what DNS says of it
	Seen   netip.Addr   // what a STUN server outside sees; invalid: none was asked
}

// Own is an address of an interface.
type Own struct {
	Addr      netip.Addr
	Interface string
}

// An Address is what is handed out; Private is valid behind a NAT.
type Address struct{ Public, Private netip.Addr }

func (a Address) String() string {
	if !a.Private.IsValid() {
		return a.Public.String()
	}
	return a.Public.String() + "/" + a.Private.String()
}

// A Choice is a layout with its addresses, and why.
type Choice struct {
	Layout    string
	Addresses []Address // IPv4 first
	Why       string    // one line
	Notes     []string  // what else there is to know
}

// Errors of [Network.Choose].
var (
	ErrNoAddress = errors.New("this host has no address but loopback")
	ErrNoPublic  = errors.New("the public address of this host is not known: no interface has it, and DNS does not tell it")
)

// Choose finds layout and addresses. A layout or addresses that are given hold.
func (n Network) Choose(layout string, given []Address) (Choice, error) {
	if len(given) > 0 {
		return n.asGiven(layout, given), nil
	}
	if len(n.Own) == 0 {
		return Choice{}, ErrNoAddress
	}
	four, six := n.pick(false, layout), n.pick(true, layout)
	first := four
	if !first.addr.Public.IsValid() {
		first = six
	}
	c := Choice{Layout: layout, Addresses: []Address{first.addr}}
	found := Intranet
	if IsPublic(first.addr.Public) {
		found = External
	}
	switch {
	case layout == "":
		c.Layout, c.Why = found, first.why
	case layout == External && found == Intranet:
		return Choice{}, ErrNoPublic
	default:
		c.Why = "--layout; " + first.why
	}
	if six.addr.Public.IsValid() && first != six {
		switch {
		case slices.Contains(n.Names, six.addr.Public):
			c.Addresses = append(c.Addresses, six.addr)
		case IsPublic(six.addr.Public) || c.Layout == Intranet:
			c.Notes = append(c.Notes, fmt.Sprintf("IPv6 is left out: DNS does not lead to %s; --external-ip %s,%s takes it in", six.addr.Public, first.addr, six.addr.Public))
		}
	}
	c.Notes = append(c.Notes, n.others(c)...)
	return c, nil
}

func (n Network) asGiven(layout string, given []Address) Choice {
	c := Choice{Layout: layout, Addresses: given, Why: "--external-ip"}
	if layout == "" {
		c.Layout = External
		kind := "public"
		if !IsPublic(given[0].Public) {
			c.Layout, kind = Intranet, "private"
		}
		c.Why = fmt.Sprintf("--external-ip %s is %s", given[0].Public, kind)
	}
	return c
}

// picked is the address of a family, and why this one.
type picked struct {
	addr Address
	why  string
}

func (n Network) pick(six bool, layout string) picked {
	of := func(a netip.Addr) bool { return a.Is6() == six }
	var own []Own
	for _, o := range n.Own {
		if of(o.Addr) {
			own = append(own, o)
		}
	}
	var out netip.Addr
	if i := slices.IndexFunc(n.Out, of); i >= 0 {
		out = n.Out[i]
	}
	// Where several would do, the one that traffic leaves from comes first.
	slices.SortStableFunc(own, func(a, b Own) int { return rank(a.Addr, out) - rank(b.Addr, out) })
	for _, o := range own {
		if slices.Contains(n.Names, o.Addr) {
			return picked{Address{Public: o.Addr}, fmt.Sprintf("%s leads to %s on %s, which is %s", n.Domain, o.Addr, o.Interface, kind(o.Addr))}
		}
	}
	if layout != Intranet && !six && out.IsValid() && !IsPublic(out) {
		if n.Seen.IsValid() && IsPublic(n.Seen) && of(n.Seen) {
			return picked{Address{n.Seen, out}, fmt.Sprintf("the Internet sees %s, which no interface has: %s is behind NAT", n.Seen, out)}
		}
		for _, a := range n.Names {
			if of(a) && IsPublic(a) {
				return picked{Address{a, out}, fmt.Sprintf("%s leads to %s, which no interface has: %s is behind NAT", n.Domain, a, out)}
			}
		}
	}
	if len(own) == 0 {
		return picked{}
	}
	return picked{Address{Public: own[0].Addr}, fmt.Sprintf("%s on %s is %s", own[0].Addr, own[0].Interface, kind(own[0].Addr))}
}

// rank puts the address that traffic leaves from first, then public ones.
func rank(a, out netip.Addr) int {
	switch {
	case a == out:
		return 0
	case IsPublic(a):
		return 1
	}
	return 2
}

// others mentions the addresses that were not chosen.
func (n Network) others(c Choice) []string {
	var list []string
	for _, o := range n.Own {
		chosen := slices.ContainsFunc(c.Addresses, func(a Address) bool { return o.Addr == a.Public || o.Addr == a.Private })
		if !chosen && !o.Addr.Is6() {
			list = append(list, fmt.Sprintf("%s (%s)", o.Addr, o.Interface))
		}
	}
	if len(list) == 0 {
		return nil
	}
	return []string{"other addresses of this host: " + strings.Join(list, ", ") + "; --external-ip chooses one"}
}

func kind(a netip.Addr) string {
	if IsPublic(a) {
		return "public"
	}
	return "private"
}

// special are prefixes that the Internet does not lead to and netip has no name for:
// RFC 6890 and its successors. Those for documentation count as public, so that
// examples behave like what they stand for.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"),
}

// IsPublic reports whether an address can be reached from the Internet.
func IsPublic(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}
