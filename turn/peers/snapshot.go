package peers

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sort"
)

// snapshot is a whole policy, compiled: each family's address space is cut
// wherever a prefix of any kind begins or ends, and each piece knows what
// applies to it. A lookup is one binary search. It is never changed.
type snapshot struct {
	v4, v6 space
	listen []uint16 // ports of own listeners
	ports  []PortRange
}

// space is one address family: cells[i] begins at starts[i] and ends before
// starts[i+1]. starts[0] is the lowest address.
type space struct {
	starts []key
	cells  []cell
}

// cell holds what is true of every address in one piece of a space.
type cell struct {
	home  bool      // leads to this host
	own   bool      // an address of this host
	rules []*reason // the operator's, most specific first
	base  *reason   // what refuses it otherwise; nil: nothing
}

// key is an address as a number.
type key struct{ hi, lo uint64 }

func (k key) less(o key) bool { return k.hi < o.hi || k.hi == o.hi && k.lo < o.lo }

func keyOf(a netip.Addr) key {
	if a.Is4() {
		b := a.As4()
		return key{lo: uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return key{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (s *space) find(k key) *cell {
	lo, hi := 0, len(s.starts)
	for hi-lo > 1 {
		if m := int(uint(lo+hi) >> 1); k.less(s.starts[m]) {
			hi = m
		} else {
			lo = m
		}
	}
	return &s.cells[lo]
}

func (s *snapshot) cell(a netip.Addr) *cell {
	if a.Is4() {
		return s.v4.find(keyOf(a))
	}
	return s.v6.find(keyOf(a))
}

// judge returns what refuses the peer, or nil. relay is asked for own
// addresses only.
func (s *snapshot) judge(peer netip.AddrPort, relay func(netip.AddrPort) bool) *reason {
	if !peer.Addr().IsValid() {
		return byNoAddress
	}
	if peer.Port() == 0 {
		return byPortZero
	}
	if by := s.judgeOne(peer, relay); by != nil {
		return by
	}
	v4, n := embedded(peer.Addr())
	for i := range n {
		if by := s.judgeOne(netip.AddrPortFrom(v4[i], peer.Port()), relay); by != nil {
			return by
		}
	}
	return nil
}

// judgeOne follows the list in the package comment.
func (s *snapshot) judgeOne(peer netip.AddrPort, relay func(netip.AddrPort) bool) *reason {
	c, port := s.cell(peer.Addr()), peer.Port()
	if c.home && slices.Contains(s.listen, port) {
		return byListener
	}
	for _, r := range c.rules {
		if !r.rule.Ports.Contains(port) {
			continue
		}
		if r.allow {
			return nil
		}
		return r
	}
	if c.base != nil {
		if c.own && relay(peer) {
			return nil
		}
		return c.base
	}
	if len(s.ports) == 0 {
		return nil
	}
	for _, r := range s.ports {
		if r.Contains(port) {
			return nil
		}
	}
	return byPorts
}

// portEdges returns a port of every stretch of ports within which judge gives
// the same answer for the address.
func (s *snapshot) portEdges(a netip.Addr) []uint16 {
	edges := []uint16{1}
	add := func(r PortRange) {
		if r != (PortRange{}) {
			edges = append(edges, r.Lo, r.Hi+1) // Hi+1 may wrap to 0, which is refused
		}
	}
	if !a.IsValid() {
		return nil
	}
	v4, n := embedded(a)
	for _, a := range append(v4[:n:n], a) {
		for _, r := range s.cell(a).rules {
			add(r.rule.Ports)
		}
	}
	for _, r := range s.ports {
		add(r)
	}
	for _, p := range s.listen {
		add(PortRange{p, p})
	}
	return edges
}

// layer is a prefix of any kind on its way into cells.
type layer struct {
	prefix netip.Prefix
	by     *reason
	home   bool
	own    bool
}

func compile(o *Options, own []netip.Prefix, listen []uint16) *snapshot {
	var layers []layer
	for i, e := range table {
		layers = append(layers, layer{prefix: e.Prefix, by: tableReasons[i]})
	}
	for _, p := range leadsHome {
		layers = append(layers, layer{prefix: p, home: true})
	}
	for _, p := range own {
		for _, a := range subnetWide(p) {
			layers = append(layers, layer{prefix: netip.PrefixFrom(a, a.BitLen()), by: byBroadcast, home: true})
		}
		a := p.Addr()
		layers = append(layers, layer{prefix: netip.PrefixFrom(a, a.BitLen()), by: byOwn, home: true, own: true})
	}
	for _, r := range o.Allow {
		layers = append(layers, layer{prefix: r.Prefix, by: ruleReason(r, true)})
	}
	for _, r := range o.Deny {
		layers = append(layers, layer{prefix: r.Prefix, by: ruleReason(r, false)})
	}
	return &snapshot{
		v4:     compileSpace(layers, netip.IPv4Unspecified()),
		v6:     compileSpace(layers, netip.IPv6Unspecified()),
		listen: listen,
		ports:  o.Ports,
	}
}

// compileSpace cuts the family that lowest belongs to.
func compileSpace(layers []layer, lowest netip.Addr) space {
	layers = slices.DeleteFunc(slices.Clone(layers), func(l layer) bool {
		return l.prefix.Addr().Is4() != lowest.Is4()
	})
	cuts := []netip.Addr{lowest}
	for _, l := range layers {
		cuts = append(cuts, l.prefix.Addr())
		if next := last(l.prefix).Next(); next.IsValid() {
			cuts = append(cuts, next)
		}
	}
	slices.SortFunc(cuts, netip.Addr.Compare)
	cuts = slices.Compact(cuts)

	var s space
	for _, at := range cuts {
		s.starts = append(s.starts, keyOf(at))
		s.cells = append(s.cells, cellAt(layers, at))
	}
	return s
}

func cellAt(layers []layer, at netip.Addr) cell {
	var c cell
	baseRank, baseBits := 0, -1 // table before own; the longest row names it
	for _, l := range layers {
		if !l.prefix.Contains(at) {
			continue
		}
		c.home = c.home || l.home
		c.own = c.own || l.own
		switch {
		case l.by == nil:
		case l.by.kind == kindRule:
			c.rules = append(c.rules, l.by)
		default:
			rank := 1
			if l.by.kind == kindTable {
				rank = 2
			}
			if rank > baseRank || rank == baseRank && l.prefix.Bits() > baseBits || l.by == byOwn && rank >= baseRank {
				c.base, baseRank, baseBits = l.by, rank, l.prefix.Bits()
			}
		}
	}
	sort.SliceStable(c.rules, func(i, j int) bool { return moreSpecific(c.rules[i], c.rules[j]) })
	return c
}

// moreSpecific orders the operator's rules: longer prefix, fewer ports, deny.
func moreSpecific(a, b *reason) bool {
	if x, y := a.rule.Prefix.Bits(), b.rule.Prefix.Bits(); x != y {
		return x > y
	}
	if x, y := a.rule.Ports.size(), b.rule.Ports.size(); x != y {
		return x < y
	}
	return !a.allow && b.allow
}
