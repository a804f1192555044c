package peers

import "net/netip"

// embedded returns the IPv4 addresses that an IPv6 address carries; n tells
// how many of them there are. IPv4-mapped is no carrier here: it was turned
// into IPv4 before.
func embedded(a netip.Addr) (v4 [2]netip.Addr, n int) {
	if !a.Is6() {
		return v4, 0
	}
	if loopbackAndUnspecified.Contains(a) { // lie in ::/96 and carry nothing
		return v4, 0
	}
	b := a.As16()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	switch {
	case carrierCompatible.Contains(a), carrierTranslated.Contains(a),
		carrierNAT64.Contains(a), carrierLocalNAT64.Contains(a):
		// RFC 6052 section 2.2 has other places for shorter NAT64
		// prefixes; with those the last 32 bits are zero and refused.
		v4[0] = at(12)
		return v4, 1
	case carrier6to4.Contains(a):
		v4[0] = at(2)
		return v4, 1
	case carrierTeredo.Contains(a):
		// The server, and the client with all bits turned
		// (RFC 4380 section 4).
		v4[0] = at(4)
		v4[1] = netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
		return v4, 2
	}
	return v4, 0
}

var (
	carrierCompatible = netip.MustParsePrefix("::/96")
	carrierTranslated = netip.MustParsePrefix("::ffff:0:0:0/96")
	carrierNAT64      = netip.MustParsePrefix("64:ff9b::/96")
	carrierLocalNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")
	carrier6to4       = netip.MustParsePrefix("2002::/16")
	carrierTeredo     = netip.MustParsePrefix("2001::/32")

	loopbackAndUnspecified = netip.MustParsePrefix("::/127")
)
