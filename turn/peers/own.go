package peers

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
)

// InterfaceAddrs returns the addresses of this host's interfaces, each with
// the length of its subnet. It is empty when they cannot be read.
func InterfaceAddrs() []netip.Prefix {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Prefix
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		addr, ok := netip.AddrFromSlice(n.IP)
		if !ok {
			continue
		}
		addr = addr.Unmap()
		ones, bits := n.Mask.Size()
		if bits != addr.BitLen() {
			ones = addr.BitLen()
		}
		out = append(out, netip.PrefixFrom(addr, ones))
	}
	return out
}

// ownPrefixes brings what Own returned into one order and form.
func ownPrefixes(own []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range own {
		if !p.IsValid() {
			continue
		}
		if a := p.Addr(); a.Is4In6() {
			p = netip.PrefixFrom(a.Unmap(), max(p.Bits()-96, 0))
		} else {
			p = netip.PrefixFrom(a.WithZone(""), p.Bits())
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits())
	})
	return slices.Compact(out)
}

func listenerPorts(listeners func() []netip.AddrPort) []uint16 {
	if listeners == nil {
		return nil
	}
	var out []uint16
	for _, l := range listeners() {
		out = append(out, l.Port())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// subnetWide returns the addresses of the subnet that every host in it, and so
// this one, takes as its own: the broadcast addresses of IPv4 (all ones, and
// all zeros as of old), the subnet-router anycast address of IPv6 (RFC 4291
// section 2.6.1), which a forwarding host answers.
func subnetWide(p netip.Prefix) []netip.Addr {
	base := p.Masked().Addr()
	if base.Is6() {
		if p.Bits() < 127 {
			return []netip.Addr{base}
		}
		return nil
	}
	if p.Bits() > 30 {
		return nil
	}
	return []netip.Addr{base, last(p)}
}

// last returns the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// leadsHome are the addresses beside its own by which a host reaches itself.
var leadsHome = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("224.0.0.0/4"), // multicast loops back
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/127"), // :: and ::1
	netip.MustParsePrefix("ff00::/8"),
}
