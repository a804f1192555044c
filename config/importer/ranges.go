package importer

import (
	"net/netip"
	"slices"
)

// addrRange is a run of addresses of one family, both ends included.
type addrRange struct{ lo, hi netip.Addr }

// addrSet is a set of addresses: ranges in order that neither meet nor touch.
type addrSet []addrRange

var everywhere = addrSet{
	rangeOf(netip.MustParsePrefix("0.0.0.0/0")),
	rangeOf(netip.MustParsePrefix("::/0")),
}

func rangeOf(p netip.Prefix) addrRange {
	p = p.Masked()
	return addrRange{p.Addr(), lastOf(p)}
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		switch kept := p.Bits() - 8*i; {
		case kept <= 0:
			b[i] = 0xff
		case kept < 8:
			b[i] |= 0xff >> kept
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// set sorts ranges and joins those that meet or touch.
func set(ranges ...addrRange) addrSet {
	ranges = slices.Clone(ranges)
	slices.SortFunc(ranges, func(a, b addrRange) int { return a.lo.Compare(b.lo) })
	var out addrSet
	for _, r := range ranges {
		if n := len(out); n > 0 && out[n-1].lo.Is4() == r.lo.Is4() {
			if last := &out[n-1]; r.lo.Compare(last.hi) <= 0 || last.hi.Next() == r.lo {
				if r.hi.Compare(last.hi) > 0 {
					last.hi = r.hi
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// union is what lies in one of the sets.
func (s addrSet) union(t addrSet) addrSet { return set(slices.Concat(s, t)...) }

// minus is what lies in s and not in t.
func (s addrSet) minus(t addrSet) addrSet {
	var out addrSet
	for _, r := range s {
		lo, left := r.lo, true
		for _, cut := range t {
			if cut.lo.Is4() != r.lo.Is4() || cut.hi.Less(lo) || r.hi.Less(cut.lo) {
				continue
			}
			if lo.Less(cut.lo) {
				out = append(out, addrRange{lo, cut.lo.Prev()})
			}
			if lo = cut.hi.Next(); !lo.IsValid() || r.hi.Less(lo) {
				left = false
				break
			}
		}
		if left {
			out = append(out, addrRange{lo, r.hi})
		}
	}
	return out
}

// and is what lies in both sets.
func (s addrSet) and(t addrSet) addrSet { return s.minus(s.minus(t)) }

// prefixes are the fewest prefixes that are exactly the set.
func (s addrSet) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, r := range s {
		out = append(out, r.prefixes()...)
	}
	return out
}

// prefixes splits a range, at most 2*32 or 2*128 pieces.
func (r addrRange) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for lo := r.lo; lo.IsValid() && lo.Compare(r.hi) <= 0; {
		// The largest prefix that begins at lo and ends not behind hi.
		bits := lo.BitLen()
		for bits > 0 {
			p := netip.PrefixFrom(lo, bits-1)
			if p.Masked().Addr() != lo || lastOf(p).Compare(r.hi) > 0 {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(lo, bits)
		out = append(out, p)
		lo = lastOf(p).Next()
	}
	return out
}

// parsePrefix reads an address or prefix as nginx, coturn and HAProxy write
// them: bits behind the length do not matter.
func parsePrefix(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		if p.Addr().Is4In6() {
			if p.Bits() < 96 {
				return netip.Prefix{}, false
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.Masked(), true
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), true
}
