package peers

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// reference is the policy written down as slowly and plainly as possible:
// loops over prefixes, no compiled form, bytes taken apart by hand.
type reference struct {
	o    Options
	own  []netip.Prefix
	lis  []netip.AddrPort
	live netip.AddrPort
}

func (r *reference) allowed(a netip.Addr, port uint16) bool {
	if a.Is4In6() {
		b := a.As16()
		return r.allowed(netip.AddrFrom4([4]byte{b[12], b[13], b[14], b[15]}), port)
	}
	if port == 0 || !r.plain(a, port) {
		return false
	}
	if a.Is4() || a == netip.IPv6Unspecified() || a == netip.IPv6Loopback() {
		return true
	}
	b := a.As16()
	v4 := func(i int, not byte) netip.Addr {
		return netip.AddrFrom4([4]byte{b[i] ^ not, b[i+1] ^ not, b[i+2] ^ not, b[i+3] ^ not})
	}
	switch first := binary.BigEndian.Uint64(b[:8]); {
	case first == 0 && (b[8]|b[9]|b[10]|b[11]) == 0,
		first == 0 && b[8] == 0xff && b[9] == 0xff && b[10]|b[11] == 0,
		first == 0x64_ff9b_0000_0000 && b[8]|b[9]|b[10]|b[11] == 0,
		first>>16 == 0x64_ff9b_0001:
		return r.plain(v4(12, 0), port)
	case b[0] == 0x20 && b[1] == 0x02:
		return r.plain(v4(2, 0), port)
	case first>>32 == 0x2001_0000:
		return r.plain(v4(4, 0), port) && r.plain(v4(12, 0xff), port)
	}
	return true
}

func (r *reference) plain(a netip.Addr, port uint16) bool {
	own, home := false, false
	for _, p := range r.own {
		own = own || p.Addr().Unmap() == a
	}
	home = own
	for _, s := range []string{"0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "::/128", "::1/128", "ff00::/8"} {
		home = home || netip.MustParsePrefix(s).Contains(a)
	}
	wide := false
	for _, p := range r.own {
		first, bits := p.Masked().Addr(), p.Bits()
		switch {
		case first.Is4() && bits <= 30:
			// The last address is the one whose successor leaves the prefix.
			wide = wide || a == first || p.Contains(a) && !p.Masked().Contains(a.Next())
		case first.Is6() && bits < 127:
			wide = wide || a == first
		}
	}
	home = home || wide
	if home {
		for _, l := range r.lis {
			if l.Port() == port {
				return false
			}
		}
	}
	best, bestAllow, bestBits, bestPorts := false, false, 0, 0
	try := func(rule Rule, allow bool) {
		lo, hi := int(rule.Ports.Lo), int(rule.Ports.Hi)
		if lo == 0 && hi == 0 {
			hi = 65535
		}
		if !rule.Prefix.Contains(a) || int(port) < lo || int(port) > hi {
			return
		}
		bits, ports := rule.Prefix.Bits(), hi-lo
		better := !best || bits > bestBits || bits == bestBits && ports < bestPorts ||
			bits == bestBits && ports == bestPorts && !allow
		if better {
			best, bestAllow, bestBits, bestPorts = true, allow, bits, ports
		}
	}
	for _, rule := range r.o.Allow {
		try(rule, true)
	}
	for _, rule := range r.o.Deny {
		try(rule, false)
	}
	if best {
		return bestAllow
	}
	refused := own || wide
	for _, e := range Table() {
		refused = refused || e.Prefix.Contains(a)
	}
	if refused {
		return own && r.o.RelayToRelay && netip.AddrPortFrom(a, port) == r.live
	}
	in := len(r.o.Ports) == 0
	for _, p := range r.o.Ports {
		in = in || p.Lo <= port && port <= p.Hi
	}
	return in
}

// reader deals out fuzz input; at the end it deals zeroes.
type reader []byte

func (r *reader) byte() byte {
	if len(*r) == 0 {
		return 0
	}
	b := (*r)[0]
	*r = (*r)[1:]
	return b
}

func (r *reader) uint16() uint16 { return uint16(r.byte())<<8 | uint16(r.byte()) }

// addr favours the addresses where something changes: the first and last of a
// known prefix, their neighbours, and IPv4 inside carriers.
func (r *reader) addr(known []netip.Prefix) netip.Addr {
	switch k := r.byte(); {
	case k < 100:
		p := known[int(r.byte())%len(known)]
		a := p.Addr()
		if k&1 != 0 {
			a = last(p)
		}
		if k&2 != 0 && a.Next().IsValid() {
			a = a.Next()
		}
		if k&4 != 0 && a.Prev().IsValid() {
			a = a.Prev()
		}
		return a
	case k < 160:
		v4 := known[int(r.byte())%len(known)].Addr()
		if !v4.Is4() {
			v4 = netip.AddrFrom4([4]byte{r.byte(), r.byte(), r.byte(), r.byte()})
		}
		b := v4.As4()
		var out [16]byte
		switch k % 7 {
		case 0: // mapped
			out[10], out[11] = 0xff, 0xff
		case 1: // translated
			out[8], out[9] = 0xff, 0xff
		case 2:
			copy(out[:], []byte{0, 0x64, 0xff, 0x9b})
		case 3:
			copy(out[:], []byte{0, 0x64, 0xff, 0x9b, 0, 1})
		case 4: // 6to4
			copy(out[:], []byte{0x20, 0x02, b[0], b[1], b[2], b[3]})
			return netip.AddrFrom16(out)
		case 5: // Teredo
			copy(out[:], []byte{0x20, 0x01, 0, 0, 8, 8, 8, 8})
			b = [4]byte{^b[0], ^b[1], ^b[2], ^b[3]}
		}
		copy(out[12:], b[:])
		return netip.AddrFrom16(out)
	case k < 200:
		return netip.AddrFrom4([4]byte{r.byte(), r.byte(), r.byte(), r.byte()})
	default:
		var out [16]byte
		for i := range out {
			out[i] = r.byte()
		}
		return netip.AddrFrom16(out)
	}
}

func (r *reader) ports() PortRange {
	if r.byte()&1 == 0 {
		return PortRange{}
	}
	a, b := max(r.uint16(), 1), max(r.uint16(), 1)
	return PortRange{min(a, b), max(a, b)}
}

func FuzzPolicyAgainstReference(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x02\x00\x01\x08\x00\x02\x01\x10\x01\x00\x50\x01\x00\x01\x01\x03\x01\x02\x03\x04\x05\x06\x07"))
	f.Add([]byte("every seed here only has to start the mutator off, so a sentence of some length does as well as anything else, 0123456789"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := reader(data)
		var known []netip.Prefix
		for _, e := range Table() {
			known = append(known, e.Prefix)
		}
		ref := &reference{}
		for range in.byte() % 4 {
			a := in.addr(known).Unmap()
			p := netip.PrefixFrom(a, int(in.byte())%(a.BitLen()+1))
			ref.own = append(ref.own, p)
			known = append(known, netip.PrefixFrom(a, a.BitLen()), p.Masked())
		}
		for i := range in.byte() % 6 {
			a := in.addr(known).Unmap()
			r := Rule{Prefix: netip.PrefixFrom(a, int(in.byte())%(a.BitLen()+1)).Masked(), Ports: in.ports()}
			if r.check() != nil {
				continue // a prefix of mapped addresses
			}
			known = append(known, r.Prefix)
			if i%2 == 0 {
				ref.o.Allow = append(ref.o.Allow, r)
			} else {
				ref.o.Deny = append(ref.o.Deny, r)
			}
		}
		for range in.byte() % 3 {
			ref.lis = append(ref.lis, netip.AddrPortFrom(in.addr(known), in.uint16()))
		}
		if p := in.ports(); p != (PortRange{}) {
			ref.o.Ports = []PortRange{p}
		}
		ref.o.RelayToRelay = in.byte()&1 != 0
		ref.live = netip.AddrPortFrom(in.addr(known).Unmap(), in.uint16())
		ref.o.IsRelay = func(a netip.AddrPort) bool { return a == ref.live }
		ref.o.Own = func() []netip.Prefix { return ref.own }
		ref.o.Listeners = func() []netip.AddrPort { return ref.lis }
		p, err := New(ref.o)
		if err != nil {
			t.Fatal(err)
		}

		for range 8 {
			a, port := in.addr(known), in.uint16()
			if in.byte()&1 != 0 && len(ref.lis) > 0 {
				port = ref.lis[0].Port()
			}
			peer := netip.AddrPortFrom(a, port)
			v := p.Check(peer)
			if want := ref.allowed(a, port); v.Allowed() != want {
				t.Fatalf("Check(%v) is %v by %q, the reference says %v\nrules %v %v own %v listeners %v ports %v live %v",
					peer, v.Allowed(), v.Rule(), want, ref.o.Allow, ref.o.Deny, ref.own, ref.lis, ref.o.Ports, ref.live)
			}
			if v.Allowed() {
				if got := p.CheckPermission(peer); !got.Allowed() {
					t.Fatalf("Check(%v) passes, CheckPermission refuses by %q", peer, got.Rule())
				}
				if v.Peer.Addr().Is4In6() || v.Peer.Addr().Zone() != "" {
					t.Fatalf("Check(%v) returns %v, which is not canonical", peer, v.Peer)
				}
			}
			if in.byte() == 7 { // slow: every port of the address
				// Which relays live is not for a permission to ask.
				apart := ref.o
				apart.RelayToRelay = false
				p, err := New(apart)
				if err != nil {
					t.Fatal(err)
				}
				want := false
				for q := 1; q < 1<<16 && !want; q++ {
					want = p.Check(netip.AddrPortFrom(a, uint16(q))).Allowed()
				}
				if got := p.CheckAddr(a).Allowed(); got != want {
					t.Fatalf("CheckAddr(%v) is %v, but trying every port gives %v", a, got, want)
				}
			}
		}
	})
}
