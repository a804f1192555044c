package peers

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func prefixes(ss ...string) func() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return func() []netip.Prefix { return out }
}

func addrPorts(ss ...string) func() []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range ss {
		out = append(out, netip.MustParseAddrPort(s))
	}
	return func() []netip.AddrPort { return out }
}

func rules(t testing.TB, ss ...string) []Rule {
	t.Helper()
	var out []Rule
	for _, s := range ss {
		r, err := ParseRule(s)
		if err != nil {
			t.Fatalf("rule %q: %v", s, err)
		}
		out = append(out, r)
	}
	return out
}

func policy(t testing.TB, o Options) *Policy {
	t.Helper()
	if o.Own == nil {
		o.Own = prefixes("10.0.0.4/24", "2600:9::1/64")
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestBuiltInTable holds a first, a last and an inner address of what is
// refused, the neighbours that are not, and every way to write an IPv4
// address in IPv6.
func TestBuiltInTable(t *testing.T) {
	p := policy(t, Options{Own: prefixes("14.3.3.3/24", "2600:9::1/64", "127.0.0.1/8")})
	for _, tt := range []struct{ addr, rule string }{
		{"8.8.8.8", ""},
		{"1.0.0.0", ""},
		{"0.0.0.0", "this network 0.0.0.0/8 (RFC 1122)"},
		{"0.1.2.3", "this network 0.0.0.0/8 (RFC 1122)"},
		{"9.255.255.255", ""},
		{"10.0.0.0", "private 10.0.0.0/8 (RFC 1918)"},
		{"10.9.9.9", "private 10.0.0.0/8 (RFC 1918)"},
		{"10.255.255.255", "private 10.0.0.0/8 (RFC 1918)"},
		{"11.0.0.0", ""},
		{"100.63.255.255", ""},
		{"100.64.0.0", "shared 100.64.0.0/10 (RFC 6598)"},
		{"100.100.100.200", "cloud metadata 100.100.100.200/32 (Alibaba Cloud)"},
		{"100.127.255.255", "shared 100.64.0.0/10 (RFC 6598)"},
		{"100.128.0.0", ""},
		{"126.255.255.255", ""},
		{"127.0.0.1", "loopback 127.0.0.0/8 (RFC 1122)"},
		{"127.255.255.254", "loopback 127.0.0.0/8 (RFC 1122)"},
		{"128.0.0.0", ""},
		{"168.63.129.16", "cloud platform 168.63.129.16/32 (Azure)"},
		{"168.63.129.17", ""},
		{"169.254.0.23", "link-local 169.254.0.0/16 (RFC 3927)"},
		{"169.254.169.254", "cloud metadata 169.254.169.254/32 (RFC 3927)"},
		{"172.15.255.255", ""},
		{"172.16.9.9", "private 172.16.0.0/12 (RFC 1918)"},
		{"172.31.255.255", "private 172.16.0.0/12 (RFC 1918)"},
		{"172.32.0.0", ""},
		{"192.0.0.192", "protocol assignments 192.0.0.0/24 (RFC 6890)"},
		{"192.0.1.0", ""},
		{"192.0.2.5", "documentation 192.0.2.0/24 (RFC 5737)"},
		{"192.88.99.1", "6to4 relay anycast 192.88.99.0/24 (RFC 7526)"},
		{"192.168.9.9", "private 192.168.0.0/16 (RFC 1918)"},
		{"192.169.0.0", ""},
		{"198.17.255.255", ""},
		{"198.18.0.1", "benchmarking 198.18.0.0/15 (RFC 2544)"},
		{"198.19.255.255", "benchmarking 198.18.0.0/15 (RFC 2544)"},
		{"198.51.100.1", "documentation 198.51.100.0/24 (RFC 5737)"},
		{"203.0.113.1", "documentation 203.0.113.0/24 (RFC 5737)"},
		{"223.255.255.255", ""},
		{"224.0.0.1", "multicast 224.0.0.0/4 (RFC 5771)"},
		{"239.255.255.250", "multicast 224.0.0.0/4 (RFC 5771)"},
		{"240.0.0.1", "reserved 240.0.0.0/4 (RFC 1112)"},
		{"255.255.255.255", "limited broadcast 255.255.255.255/32 (RFC 919)"},
		{"14.3.3.3", "own address"},
		{"14.3.3.255", "broadcast or anycast address of an own subnet"},
		{"14.3.3.0", "broadcast or anycast address of an own subnet"},
		{"14.3.3.4", ""},

		{"::", "unspecified ::/128 (RFC 4291)"},
		{"::1", "loopback ::1/128 (RFC 4291)"},
		{"::ffff:8.8.8.8", ""},
		{"::ffff:0.0.0.0", "this network 0.0.0.0/8 (RFC 1122)"},
		{"::ffff:127.0.0.1", "loopback 127.0.0.0/8 (RFC 1122)"},
		{"::ffff:10.9.9.9", "private 10.0.0.0/8 (RFC 1918)"},
		{"::ffff:169.254.169.254", "cloud metadata 169.254.169.254/32 (RFC 3927)"},
		{"::ffff:14.3.3.3", "own address"},
		{"::127.0.0.1", "IPv4-compatible ::/96 (RFC 4291)"},
		{"::8.8.8.8", "IPv4-compatible ::/96 (RFC 4291)"},
		{"::ffff:0:127.0.0.1", "IPv4-translated ::ffff:0:0:0/96 (RFC 2765)"},
		{"2002:7f00:1::1", "6to4 2002::/16 (RFC 3056)"},
		{"2002:a09:909::1", "6to4 2002::/16 (RFC 3056)"},
		{"64:ff9b::7f00:1", "NAT64 64:ff9b::/96 (RFC 6052)"},
		{"64:ff9b::8.8.8.8", "NAT64 64:ff9b::/96 (RFC 6052)"},
		{"64:ff9b:1::a09:909", "local-use NAT64 64:ff9b:1::/48 (RFC 8215)"},
		{"64:ff9b:2::1", "not global unicast ::/3 (RFC 4291)"},
		{"200::1", "not global unicast ::/3 (RFC 4291)"},
		{"2001:0:a09:909::1", "Teredo 2001::/32 (RFC 4380)"},
		{"2001:10::1", "protocol assignments 2001::/23 (RFC 2928)"},
		{"2001:200::1", ""},
		{"2001:db8::9", "documentation 2001:db8::/32 (RFC 3849)"},
		{"2606:4700::1111", ""},
		{"2600:9::1", "own address"},
		{"2600:9::", "broadcast or anycast address of an own subnet"},
		{"2600:9::2", ""},
		{"3fff:1::1", "documentation 3fff::/20 (RFC 9637)"},
		{"4000::1", "not global unicast 4000::/2 (RFC 4291)"},
		{"5f00::1", "segment routing SIDs 5f00::/16 (RFC 9602)"},
		{"fd00::9", "unique local fc00::/7 (RFC 4193)"},
		{"fd00:ec2::254", "unique local fc00::/7 (RFC 4193)"},
		{"fe80::1", "link-local fe80::/10 (RFC 4291)"},
		{"fe80::1%eth0", "link-local fe80::/10 (RFC 4291)"},
		{"fec0::1", "site-local fec0::/10 (RFC 3879)"},
		{"ff02::1", "multicast ff00::/8 (RFC 4291)"},
	} {
		a := netip.MustParseAddr(tt.addr)
		v := p.Check(netip.AddrPortFrom(a, 8000))
		if v.Rule() != tt.rule || v.Allowed() != (tt.rule == "") {
			t.Errorf("Check(%s): rule %q, allowed %v, want rule %q", a, v.Rule(), v.Allowed(), tt.rule)
		}
		if got := p.CheckAddr(a); got.Rule() != tt.rule {
			t.Errorf("CheckAddr(%s): rule %q, want %q", a, got.Rule(), tt.rule)
		}
		if v.Allowed() != (v.Remedy() == "") {
			t.Errorf("Check(%s): allowed %v with remedy %q", a, v.Allowed(), v.Remedy())
		}
	}
}

func TestOperatorRules(t *testing.T) {
	tests := []struct {
		name        string
		allow, deny []string
		peer, rule  string
	}{
		{"an allow rule opens a private network", []string{"10.1.0.0/16"}, nil, "10.1.2.3:9", ""},
		{"and nothing beside it", []string{"10.1.0.0/16"}, nil, "10.2.2.3:9", "private 10.0.0.0/8 (RFC 1918)"},
		{"an allow rule with a port opens that port", []string{"10.1.0.0/16:8000"}, nil, "10.1.2.3:8000", ""},
		{"and no other", []string{"10.1.0.0/16:8000"}, nil, "10.1.2.3:8001", "private 10.0.0.0/8 (RFC 1918)"},
		{"a mapped peer falls under the IPv4 rule", []string{"10.1.0.0/16"}, nil, "[::ffff:10.1.2.3]:9", ""},
		{"an own address can be allowed", []string{"10.0.0.4"}, nil, "10.0.0.4:9", ""},
		{"but not its listener", []string{"10.0.0.4"}, nil, "10.0.0.4:3478", "own listener"},
		{"nor the same port over loopback", []string{"127.0.0.0/8"}, nil, "127.8.8.8:3478", "own listener"},
		{"nor over the unspecified address", []string{"::/0"}, nil, "[::]:3478", "own listener"},
		{"nor carried in NAT64", []string{"64:ff9b::/96", "10.0.0.4"}, nil, "[64:ff9b::a00:4]:3478", "own listener"},
		{"a deny rule closes the Internet", nil, []string{"203.0.114.0/24"}, "203.0.114.1:9", "deny 203.0.114.0/24 from turn.peers.deny"},
		{"a deny rule for ports closes those", nil, []string{"0.0.0.0/0:1-1023"}, "8.8.8.8:53", "deny 0.0.0.0/0:1-1023 from turn.peers.deny"},
		{"and no others", nil, []string{"0.0.0.0/0:1-1023"}, "8.8.8.8:1024", ""},
		{"the longer deny wins", []string{"10.0.0.0/8"}, []string{"10.1.2.3"}, "10.1.2.3:9", "deny 10.1.2.3 from turn.peers.deny"},
		{"the longer allow wins", []string{"203.0.114.0/24"}, []string{"0.0.0.0/0"}, "203.0.114.1:9", ""},
		{"for its network only", []string{"203.0.114.0/24"}, []string{"0.0.0.0/0"}, "8.8.8.8:9", "deny 0.0.0.0/0 from turn.peers.deny"},
		{"between equals deny wins", []string{"10.1.0.0/16"}, []string{"10.1.0.0/16"}, "10.1.2.3:9", "deny 10.1.0.0/16 from turn.peers.deny"},
		{"between equal prefixes fewer ports win", []string{"10.1.0.0/16:8000"}, []string{"10.1.0.0/16"}, "10.1.2.3:8000", ""},
		{"loopback of IPv6 can be allowed", []string{"::1"}, nil, "[::1]:9", ""},
		{"a carrier and what it carries must both pass", []string{"64:ff9b::/96"}, nil, "[64:ff9b::8.8.8.8]:9", ""},
		{"the carried address stays refused", []string{"64:ff9b::/96"}, nil, "[64:ff9b::169.254.169.254]:9", "cloud metadata 169.254.169.254/32 (RFC 3927)"},
		{"also in 6to4", []string{"2002::/16"}, nil, "[2002:a09:909::1]:9", "private 10.0.0.0/8 (RFC 1918)"},
		{"also as the client of Teredo", []string{"2001::/32"}, nil, "[2001:0:808:808:0:0:f5f6:f6f6]:9", "private 10.0.0.0/8 (RFC 1918)"},
		{"also as the server of Teredo", []string{"2001::/32"}, nil, "[2001:0:a09:909:0:0:f7f7:f7f7]:9", "private 10.0.0.0/8 (RFC 1918)"},
		{"port 0 is no peer", []string{"0.0.0.0/0"}, nil, "8.8.8.8:0", "port 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := policy(t, Options{
				Allow: rules(t, tt.allow...), Deny: rules(t, tt.deny...),
				Listeners: addrPorts("[::]:3478"),
			})
			if got := p.Check(netip.MustParseAddrPort(tt.peer)).Rule(); got != tt.rule {
				t.Errorf("Check(%s): refused by %q, want %q", tt.peer, got, tt.rule)
			}
		})
	}
}

func TestRelayedAddressesOfThisServer(t *testing.T) {
	live := netip.MustParseAddrPort("14.3.3.3:20001")
	o := Options{
		Own:          prefixes("10.0.0.4/24", "14.3.3.3/32"),
		Listeners:    addrPorts("10.0.0.4:3478"),
		RelayToRelay: true,
		IsRelay:      func(a netip.AddrPort) bool { return a == live },
		RelayPorts:   PortRange{20000, 20099},
	}
	denied := o
	denied.Deny = rules(t, "14.3.3.3")
	off := o
	off.RelayToRelay = false
	tests := []struct {
		name              string
		o                 Options
		peer              string
		check, permission string
	}{
		{"a live relay is a peer", o, "14.3.3.3:20001", "", ""},
		{"also as a mapped address", o, "[::ffff:14.3.3.3]:20001", "", ""},
		{"a dead port of the range may get a permission", o, "14.3.3.3:20002", "own address", ""},
		{"a port outside the range may not", o, "14.3.3.3:22", "own address", "own address"},
		{"a listener may not, although bound to another own address", o, "14.3.3.3:3478", "own listener", "own listener"},
		{"a permission without a port passes", o, "14.3.3.3:0", "port 0", ""},
		{"the operator can deny it", denied, "14.3.3.3:20001", "deny 14.3.3.3 from turn.peers.deny", "deny 14.3.3.3 from turn.peers.deny"},
		{"without the switch it is an own address", off, "14.3.3.3:20001", "own address", "own address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := policy(t, tt.o)
			peer := netip.MustParseAddrPort(tt.peer)
			if got := p.Check(peer).Rule(); got != tt.check {
				t.Errorf("Check(%s): refused by %q, want %q", peer, got, tt.check)
			}
			if got := p.CheckPermission(peer).Rule(); got != tt.permission {
				t.Errorf("CheckPermission(%s): refused by %q, want %q", peer, got, tt.permission)
			}
		})
	}
}

func TestPermissionIsForTheAddress(t *testing.T) {
	p := policy(t, Options{
		Allow: rules(t, "10.1.0.0/16:8000-8010", "10.2.0.0/16:3478"),
		Deny:  rules(t, "8.8.8.8:1-65535", "9.9.9.9:2-65535"),
		Ports: []PortRange{{1024, 65535}},
	})
	for _, tt := range []struct{ peer, rule string }{
		{"10.1.2.3:1", ""},
		{"10.1.2.3:8000", ""},
		{"1.1.1.1:53", ""}, // 1024 and up could be reached
		{"8.8.8.8:9", "deny 8.8.8.8:1-65535 from turn.peers.deny"},
		{"9.9.9.9:9", "deny 9.9.9.9:2-65535 from turn.peers.deny"}, // port 1 is outside Ports
		{"10.3.0.1:8000", "private 10.0.0.0/8 (RFC 1918)"},
	} {
		if got := p.CheckPermission(netip.MustParseAddrPort(tt.peer)).Rule(); got != tt.rule {
			t.Errorf("CheckPermission(%s): refused by %q, want %q", tt.peer, got, tt.rule)
		}
	}
	if got, want := p.Check(netip.MustParseAddrPort("1.1.1.1:53")).Rule(), "port outside the allowed peer ports"; got != want {
		t.Errorf("Check of a port outside Ports: refused by %q, want %q", got, want)
	}
	if v := (p.CheckAddr(netip.Addr{})); v.Rule() != "not an address" {
		t.Errorf("CheckAddr of no address: refused by %q", v.Rule())
	}
}

func TestVerdictCarriesTheCanonicalPeer(t *testing.T) {
	p := policy(t, Options{})
	for in, want := range map[string]string{
		"[::ffff:8.8.8.8]:9":   "8.8.8.8:9",
		"[fe80::1%eth0]:9":     "[fe80::1]:9",
		"[64:ff9b::8.8.8.8]:9": "[64:ff9b::808:808]:9",
	} {
		if got := p.Check(netip.MustParseAddrPort(in)).Peer.String(); got != want {
			t.Errorf("Check(%s).Peer is %s, want %s", in, got, want)
		}
	}
}

func TestRemedyNamesTheKeyToChange(t *testing.T) {
	deny := rules(t, "1.1.1.0/24")
	deny[0].Origin = "turn.user[0].deny"
	p := policy(t, Options{Deny: deny, Ports: []PortRange{{1024, 65535}}, Listeners: addrPorts("10.0.0.4:3478")})
	for peer, want := range map[string]string{
		"10.1.2.3:9":    `add "10.1.2.3" to turn.peers.allow`,
		"8.8.8.8:53":    `add "8.8.8.8:53" to turn.peers.allow`,
		"1.1.1.1:9":     `take "1.1.1.0/24" out of turn.user[0].deny`,
		"10.0.0.4:3478": "none",
		"8.8.8.8:0":     "none",
	} {
		if got := p.Check(netip.MustParseAddrPort(peer)).Remedy(); !strings.Contains(got, want) {
			t.Errorf("remedy for %s is %q, want it to contain %q", peer, got, want)
		}
	}
}

func TestNewRefusesWrongOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"a rule without a network":   {Allow: []Rule{{}}},
		"a network that is not one":  {Deny: []Rule{{Prefix: netip.MustParsePrefix("10.1.2.3/8")}}},
		"IPv4 written as IPv6":       {Allow: []Rule{{Prefix: netip.MustParsePrefix("::ffff:10.0.0.0/104")}}},
		"ports the wrong way round":  {Ports: []PortRange{{9, 8}}},
		"relays that nobody can see": {RelayToRelay: true},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("New with %s: no error", name)
		}
	}
}

func TestRunFollowsTheInterfaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var own atomic.Pointer[[]netip.Prefix]
		own.Store(&[]netip.Prefix{})
		p := policy(t, Options{Own: func() []netip.Prefix { return *own.Load() }})
		peer := netip.MustParseAddrPort("14.3.3.3:9")
		if !p.Check(peer).Allowed() {
			t.Fatal("the address is refused before the host has it")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); p.Run(ctx, 5*time.Second) }()
		own.Store(&[]netip.Prefix{netip.MustParsePrefix("14.3.3.3/24")})
		time.Sleep(6 * time.Second) // of the bubble's clock
		synctest.Wait()
		if got := p.Check(peer).Rule(); got != "own address" {
			t.Errorf("six seconds later the peer is refused by %q, want own address", got)
		}
		cancel()
		<-done
	})
	if p := policy(t, Options{}); p.Refresh() {
		t.Error("Refresh reports a change where there is none")
	}
}

func TestInterfaceAddrsHasLoopback(t *testing.T) {
	if got := policy(t, Options{Own: InterfaceAddrs}).Check(netip.MustParseAddrPort("127.0.0.1:9")); got.Allowed() {
		t.Error("loopback is allowed")
	}
	for _, p := range InterfaceAddrs() {
		if p.Addr() == netip.MustParseAddr("127.0.0.1") && p.Bits() == 8 {
			return
		}
	}
	t.Errorf("no 127.0.0.1/8 among %v", InterfaceAddrs())
}

func TestTableIsACopy(t *testing.T) {
	before := Table()
	Table()[0] = Entry{}
	if diff := cmp.Diff(before, Table(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("a caller changed the table: %s", diff)
	}
	for _, e := range before {
		if e.Prefix != e.Prefix.Masked() || e.Name == "" || e.Source == "" {
			t.Errorf("row %v is not well formed", e)
		}
	}
}

// BenchmarkCheck: an Internet peer is the common case.
func BenchmarkCheck(b *testing.B) {
	live := netip.MustParseAddrPort("10.0.0.4:20001")
	p := policy(b, Options{
		Allow: rules(b, "10.1.0.0/16", "10.2.0.0/16:8000-8010"), Deny: rules(b, "203.0.114.0/24"),
		Listeners: addrPorts("[::]:3478", "[::]:443"), RelayToRelay: true,
		IsRelay: func(a netip.AddrPort) bool { return a == live },
	})
	for name, s := range map[string]string{
		"peer=internet4": "8.8.8.8:4000", "peer=internet6": "[2606:4700::1111]:4000",
		"peer=mapped": "[::ffff:8.8.8.8]:4000", "peer=private": "10.9.9.9:4000", "peer=relay": "10.0.0.4:20001",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			peer := netip.MustParseAddrPort(s)
			for b.Loop() {
				p.Check(peer)
			}
		})
	}
}

func TestCheckDoesNotAllocate(t *testing.T) {
	p := policy(t, Options{
		Allow: rules(t, "64:ff9b::/96"), Ports: []PortRange{{1024, 65535}}, Listeners: addrPorts("[::]:3478"),
		RelayToRelay: true, IsRelay: func(netip.AddrPort) bool { return true },
	})
	for _, s := range []string{"8.8.8.8:4000", "[::ffff:10.1.1.1]:4000", "[64:ff9b::808:808]:4000", "10.0.0.4:20001", "[2606:4700::1111]:9"} {
		peer := netip.MustParseAddrPort(s)
		if n := testing.AllocsPerRun(1000, func() {
			v := p.Check(peer)
			_ = v.Rule()
		}); n != 0 {
			t.Errorf("Check(%s): %v allocations, want 0", s, n)
		}
	}
}
