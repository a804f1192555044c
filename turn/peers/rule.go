package peers

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Rule is one line of the operator's allow or deny list.
type Rule struct {
	Prefix netip.Prefix // masked; IPv4 as IPv4
	Ports  PortRange    // zero: every port
	Origin string       // where it was written, for names; may be empty
}

// ParseRule reads a rule as it stands in a configuration file:
//
//	203.0.113.7              one address
//	203.0.113.0/24           a network
//	203.0.113.0/24:8000      one port of it
//	203.0.113.0/24:8000-8010 a range of ports
//	2001:db8::/32            the same for IPv6; with ports in brackets:
//	[2001:db8::/32]:8000-8010
//
// Its errors say what to write instead.
func ParseRule(s string) (Rule, error) {
	where, ports, err := splitPorts(s)
	if err != nil {
		return Rule{}, err
	}
	r := Rule{}
	if r.Prefix, err = parsePrefix(where); err != nil {
		return Rule{}, err
	}
	if ports != "" {
		if r.Ports, err = ParsePortRange(ports); err != nil {
			return Rule{}, err
		}
	}
	return r, r.check()
}

// String returns the rule in the form ParseRule reads.
func (r Rule) String() string {
	s := r.Prefix.String()
	if r.Prefix.IsSingleIP() {
		s = r.Prefix.Addr().String()
	}
	if r.Ports == (PortRange{}) {
		return s
	}
	if r.Prefix.Addr().Is6() {
		s = "[" + s + "]"
	}
	return s + ":" + r.Ports.String()
}

func (r Rule) origin(otherwise string) string {
	if r.Origin != "" {
		return r.Origin
	}
	return otherwise
}

// check finds what a Rule made by hand could have wrong.
func (r Rule) check() error {
	switch a := r.Prefix.Addr(); {
	case !r.Prefix.IsValid():
		return fmt.Errorf("no network: write an address such as 203.0.113.7 or a network such as 203.0.113.0/24")
	case a.Is4In6() && r.Prefix.Bits() >= 96:
		return fmt.Errorf("%v is IPv4 written as IPv6: write %v", r.Prefix,
			netip.PrefixFrom(a.Unmap(), r.Prefix.Bits()-96).Masked())
	case r.Prefix != r.Prefix.Masked():
		return fmt.Errorf("%v has bits set behind its length: write %v for the network or %v for the one address",
			r.Prefix, r.Prefix.Masked(), a)
	case r.Ports.Lo > r.Ports.Hi, r.Ports.Lo == 0 && r.Ports.Hi != 0:
		return fmt.Errorf("port range %v: write the lower port first, from 1 to 65535", r.Ports)
	}
	return nil
}

// splitPorts cuts a rule into its network and its ports.
func splitPorts(s string) (where, ports string, err error) {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		where, ports, ok = strings.Cut(rest, "]")
		if !ok {
			return "", "", fmt.Errorf("%q has no closing bracket: write [2001:db8::/32]:8000", s)
		}
		if ports == "" {
			return where, "", nil
		}
		if ports, ok = strings.CutPrefix(ports, ":"); !ok || ports == "" {
			return "", "", fmt.Errorf("%q has no port behind the bracket: write [2001:db8::/32]:8000", s)
		}
		return where, ports, nil
	}
	if strings.Count(s, ":") > 1 {
		return s, "", nil // IPv6 without brackets has no ports
	}
	where, ports, found := strings.Cut(s, ":")
	if found && ports == "" {
		return "", "", fmt.Errorf("%q has no port behind the colon: write 203.0.113.0/24:8000", s)
	}
	return where, ports, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "%") {
		return netip.Prefix{}, fmt.Errorf("%q has a zone: a peer has none, write the address alone", s)
	}
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return p, fmt.Errorf("%q is not a network: write it as 203.0.113.0/24 or 2001:db8::/32", s)
		}
		return p, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not an address: write 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32 (names are not looked up)", s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// PortRange is a range of ports, both ends included. The zero value means
// every port.
type PortRange struct{ Lo, Hi uint16 }

// ParsePortRange reads "8000" or "8000-8010".
func ParsePortRange(s string) (PortRange, error) {
	lo, hi, two := strings.Cut(s, "-")
	if !two {
		hi = lo
	}
	l, errL := strconv.ParseUint(lo, 10, 16)
	h, errH := strconv.ParseUint(hi, 10, 16)
	if errL != nil || errH != nil || l == 0 || h == 0 {
		return PortRange{}, fmt.Errorf("%q are no ports: write 8000 or 8000-8010, from 1 to 65535", s)
	}
	if l > h {
		return PortRange{}, fmt.Errorf("ports %q: swap the two, the lower one comes first", s)
	}
	return PortRange{uint16(l), uint16(h)}, nil
}

// Contains reports whether the range has the port.
func (r PortRange) Contains(port uint16) bool {
	return r == PortRange{} || r.Lo <= port && port <= r.Hi
}

// String returns the range in the form ParsePortRange reads.
func (r PortRange) String() string {
	if r.Lo == r.Hi {
		return strconv.Itoa(int(r.Lo))
	}
	return strconv.Itoa(int(r.Lo)) + "-" + strconv.Itoa(int(r.Hi))
}

// size is the number of ports, for telling which of two rules is narrower.
func (r PortRange) size() int {
	if r == (PortRange{}) {
		return 1 << 16
	}
	return int(r.Hi) - int(r.Lo) + 1
}
