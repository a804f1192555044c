package firewall

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
)

// site is a host with a firewall and a client beside it, on a wire of their own.
type site struct {
	t            *testing.T
	host, client *testnet.Namespace
	sys          System
	env          []string
	fail         string // a program that fails
}

var (
	host4, host6 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	marker       = uint16(7) // a port that every ruleset of the tests lets in
)

// newSite makes one whose programs are those of the needs alone. alias renames
// programs.
func newSite(t *testing.T, alias map[string]string, programs ...string) *site {
	t.Helper()
	s := &site{t: t, host: testnet.NewNamespace(t), client: testnet.NewNamespace(t)}
	testnet.Need(t, "xdp") // for ethtool, which joining them takes
	testnet.Veth(t, s.host, "up0", s.client, "down0")
	s.host.Run(t, "ip addr add 10.0.0.1/24 dev up0", "ip -6 addr add fd00::1/64 dev up0 nodad")
	s.client.Run(t, "ip addr add 10.0.0.2/24 dev down0", "ip addr add 10.0.0.66/24 dev down0", "ip -6 addr add fd00::2/64 dev down0 nodad")
	s.sys = System{
		Root: t.TempDir(),
		Has:  func(name string) bool { return slices.Contains(programs, name) },
		Run: func(ctx context.Context, input, name string, args ...string) (string, error) {
			if name == s.fail {
				return "", errors.New(name + " fails")
			}
			if other := alias[name]; other != "" {
				name = other
			}
			return s.run(input, name, args...)
		},
	}
	return s
}

func (s *site) run(input, name string, args ...string) (string, error) {
	path, err := lookPath(name)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), s.env...)
	var out []byte
	s.host.Do(func() { out, err = cmd.Output() })
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s %v: %w: %s%s", name, args, err, exit.Stderr, out)
	}
	return string(out), err
}

// must runs a program of the host, with input.
func (s *site) must(input, name string, args ...string) string {
	s.t.Helper()
	out, err := s.run(input, name, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *site) live() *Live {
	s.t.Helper()
	l, err := Read(context.Background(), s.sys, "")
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

// apply puts a plan in place without a confirmation.
func (s *site) apply(p *Plan) {
	s.t.Helper()
	if _, err := Apply(context.Background(), s.sys, Change{Want: s.live().Want(p)}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) remove() {
	s.t.Helper()
	if _, err := Apply(context.Background(), s.sys, Change{}); err != nil {
		s.t.Fatal(err)
	}
}

// drifts are the codes of what is no note.
func (s *site) drifts(p *Plan) []string {
	s.t.Helper()
	var codes []string
	for _, d := range s.live().Judge(p, s.sys) {
		if !d.Note {
			codes = append(codes, d.Code)
		}
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}

func (s *site) wantDrifts(p *Plan, want ...string) {
	s.t.Helper()
	if got := s.drifts(p); !slices.Equal(got, want) {
		s.t.Errorf("check: got %v, want %v: %+v", got, want, s.live().Judge(p, s.sys))
	}
}

// passes reports whether a datagram from the client reaches a port of the host. One
// to the marker follows it, which every firewall of the tests lets in: when it is
// there and the first is not, that one was dropped.
func (s *site) passes(host netip.Addr, port uint16, from string) bool {
	s.t.Helper()
	probe, mark := s.listen(host, port), s.listen(host, marker)
	defer probe.Close()
	defer mark.Close()
	var err error
	s.client.Do(func() {
		for _, p := range []uint16{port, marker} {
			source := "0.0.0.0"
			if p == port && from != "" {
				source = from
			} else if host.Is6() {
				source = "::"
			}
			var c *net.UDPConn
			c, err = net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(source)}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(host, p)))
			if err != nil {
				return
			}
			_, err = c.Write([]byte("x"))
			c.Close()
			if err != nil {
				return
			}
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, 16)
	_ = mark.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := mark.Read(b); err != nil {
		s.t.Fatalf("the datagram to the marker: %v", err)
	}
	raw, err := probe.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	got := false
	if err := raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), b, syscall.MSG_DONTWAIT)
		got = err == nil
		return true
	}); err != nil {
		s.t.Fatal(err)
	}
	return got
}

func (s *site) listen(host netip.Addr, port uint16) *net.UDPConn {
	s.t.Helper()
	var c *net.UDPConn
	var err error
	s.host.Do(func() { c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host, port))) })
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *site) wantPass(want bool, host netip.Addr, port uint16) {
	s.t.Helper()
	if got := s.passes(host, port, ""); got != want {
		s.t.Errorf("%s port %d: passes %v, want %v", host, port, got, want)
	}
}

// small is a plan with a TURN listener alone.
func small(t *testing.T, change func(*Options)) *Plan {
	o := Options{Layout: External, Relay: Ports{20000, 29999}, Listeners: []Listener{
		{Role: RoleHTTPS, Port: 443, Proto: "tcp"}, {Role: RoleTURN, Port: 3478, Proto: "udp"}, {Role: RoleTURN, Port: 3478, Proto: "tcp"}},
		Addresses: []Address{{Public: host4}, {Public: host6}}}
	if change != nil {
		change(&o)
	}
	return mustPlan(t, o)
}

// A firewall of the tests: how it is loaded, and how it is listed.
type family struct {
	name     string
	need     string
	programs []string
	alias    map[string]string
	load     func(s *site)
	list     func(s *site) string
	// meddle are what others do afterwards: commands, and what check says of it.
	meddle []meddling
}

type meddling struct {
	name    string
	command []string
	want    string
	repair  bool // apply mends it
}

const nftInput = `
table inet filter {
	set blocked { type ipv4_addr; elements = { 10.0.0.66 }; }
	chain input {
		type filter hook input priority 0; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname "lo" accept
		ip saddr @blocked drop
		meta l4proto { icmp, ipv6-icmp } accept
		tcp dport 22 accept
		udp dport 7 accept
	}
	chain forward { type filter hook forward priority 0; policy drop; }
}`

const iptablesInput = `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:MINE - [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lo -j ACCEPT
%s
-A INPUT -p %s -j ACCEPT
-A INPUT -p tcp -m multiport --dports 22,80 -m comment --comment "a comment" -j ACCEPT
-A INPUT -p udp -m udp --dport 7 -j ACCEPT
-A INPUT -j MINE
-A MINE -j REJECT
COMMIT
`

func loadIPTables(restore4, restore6 string) func(*site) {
	return func(s *site) {
		s.must(fmt.Sprintf(iptablesInput, "-A INPUT -s 10.0.0.66/32 -j DROP", "icmp"), restore4)
		s.must(fmt.Sprintf(iptablesInput, "-A INPUT -s fd00::66/128 -j DROP", "ipv6-icmp"), restore6)
	}
}

func listing(programs ...string) func(*site) string {
	return func(s *site) string {
		all := ""
		for _, p := range programs {
			all += s.must("", p, "-S")
		}
		return all
	}
}

func families() []family {
	iptables := []string{"iptables", "ip6tables", "iptables-restore", "ip6tables-restore"}
	meddleWith := func(program string) []meddling {
		return []meddling{
			{"a drop before ours", []string{program, "-I", "INPUT", "-p", "udp", "-m", "udp", "--dport", "3000:4000", "-j", "DROP"}, DriftForeign, true},
			{"the jump is gone", []string{program, "-D", "INPUT", "-m", "comment", "--comment", "turngate", "-j", "TURNGATE"}, DriftClosed, true},
			{"our rules are gone", []string{program, "-F", "TURNGATE"}, DriftClosed, true},
		}
	}
	return []family{
		{
			name: "nftables", need: "nftables", programs: []string{"nft"},
			load: func(s *site) { s.must(nftInput, "nft", "-f", "-") },
			list: func(s *site) string { return s.must("", "nft", "list", "ruleset") },
			meddle: []meddling{
				{"a drop before ours", []string{"nft", "insert", "rule", "inet", "filter", "input", "udp", "dport", "3000-4000", "drop"}, DriftForeign, true},
				{"a drop before routing", []string{"nft", "add table inet other; add chain inet other pre { type filter hook prerouting priority -10; }; add rule inet other pre udp dport 3478 drop"}, DriftForeign, false},
				{"the chain is loaded anew", []string{"nft", "flush chain inet filter input; add rule inet filter input udp dport 7 accept; add rule inet filter input meta l4proto { icmp, ipv6-icmp } accept"}, DriftClosed, true},
				{"our rules are gone", []string{"nft", "flush chain inet filter turngate"}, DriftClosed, true},
				{"another table drops too", []string{"nft", "add table ip6 late; add chain ip6 late in { type filter hook input priority 10; policy drop; }; add rule ip6 late in udp dport 7 accept; add rule ip6 late in meta l4proto ipv6-icmp accept"}, DriftClosed, true},
			},
		},
		{
			name: "iptables", need: "iptables", programs: append([]string{"nft"}, iptables...),
			load: loadIPTables("iptables-restore", "ip6tables-restore"), list: listing("iptables", "ip6tables"), meddle: meddleWith("iptables"),
		},
		{
			name: "iptables without nft", need: "iptables", programs: iptables,
			load: loadIPTables("iptables-restore", "ip6tables-restore"), list: listing("iptables", "ip6tables"), meddle: meddleWith("ip6tables"),
		},
		{
			name: "iptables-legacy", need: "iptables", programs: iptables,
			alias: map[string]string{"iptables": "iptables-legacy", "ip6tables": "ip6tables-legacy",
				"iptables-restore": "iptables-legacy-restore", "ip6tables-restore": "ip6tables-legacy-restore"},
			load: loadIPTables("iptables-legacy-restore", "ip6tables-legacy-restore"), list: listing("iptables-legacy", "ip6tables-legacy"), meddle: meddleWith("iptables-legacy"),
		},
	}
}

func each(t *testing.T, f func(t *testing.T, s *site, f family)) {
	for _, fam := range families() {
		t.Run(fam.name, func(t *testing.T) {
			testnet.Need(t, fam.need)
			s := newSite(t, fam.alias, fam.programs...)
			fam.load(s)
			f(t, s, fam)
		})
	}
}

func TestAnExistingFirewallIsOpenedAndLeftAsItWas(t *testing.T) {
	each(t, func(t *testing.T, s *site, f family) {
		p := small(t, nil)
		before := f.list(s)
		s.wantPass(false, host4, 3478)
		s.wantPass(false, host6, 3478)
		s.wantDrifts(p, DriftClosed)

		s.apply(p)
		s.wantPass(true, host4, 3478)
		s.wantPass(true, host6, 3478)
		s.wantPass(false, host4, 3479)
		s.wantPass(false, host4, 20000)
		if s.passes(host4, 3478, "10.0.0.66") {
			t.Error("who is on the block list gets in")
		}
		s.wantDrifts(p)
		after := f.list(s)
		s.apply(p)
		if again := f.list(s); again != after {
			t.Errorf("applied a second time:\n%s\nwant\n%s", again, after)
		}

		s.remove()
		s.wantPass(false, host4, 3478)
		if got := f.list(s); got != before {
			t.Errorf("removed:\n%s\nwant\n%s", got, before)
		}
		if own := s.live().Own; !own.IsEmpty() {
			t.Errorf("still ours: %v", own.Lines())
		}
	})
}

func TestWhatOthersDoIsFoundAndMended(t *testing.T) {
	for _, fam := range families() {
		for _, m := range fam.meddle {
			t.Run(fam.name+"/"+m.name, func(t *testing.T) {
				testnet.Need(t, fam.need)
				s := newSite(t, fam.alias, fam.programs...)
				fam.load(s)
				p := small(t, nil)
				s.apply(p)
				s.must("", m.command[0], m.command[1:]...)
				if got := s.drifts(p); !slices.Contains(got, m.want) {
					t.Errorf("check: got %v, want %s", got, m.want)
				}
				s.apply(p)
				if !m.repair {
					s.wantDrifts(p, m.want)
					return
				}
				s.wantDrifts(p)
				s.wantPass(true, host4, 3478)
				s.wantPass(true, host6, 3478)
			})
		}
	}
}

func TestAChangeThatIsNotConfirmedIsTakenBack(t *testing.T) {
	each(t, func(t *testing.T, s *site, f family) {
		ctx := context.Background()
		s.apply(small(t, nil)) // the rules of before are ours too
		before := f.list(s)
		more := small(t, func(o *Options) {
			o.Listeners = append(o.Listeners, Listener{Role: RoleTURN, Port: 5000, Proto: "udp"})
			o.RelayIn = RelayOpen
		})
		watched := ""
		pending, err := Apply(ctx, s.sys, Change{Want: s.live().Want(more), Within: time.Hour, Watch: func(p Pending) error { watched = p.ID; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		s.wantPass(true, host4, 5000)
		s.wantPass(true, host6, 20000)
		s.wantDrifts(more, DriftPending)
		if _, err := Apply(ctx, s.sys, Change{}); !errors.Is(err, ErrPending) {
			t.Errorf("a change beside one that waits: %v, want %v", err, ErrPending)
		}
		if err := RollBack(ctx, s.sys, "another"); !errors.Is(err, ErrNothingPending) {
			t.Errorf("another change's timer: %v, want %v", err, ErrNothingPending)
		}
		if pending == nil || watched != pending.ID {
			t.Fatalf("watched %q, want %+v", watched, pending)
		}
		if err := RollBack(ctx, s.sys, watched); err != nil {
			t.Fatal(err)
		}
		if got := f.list(s); got != before {
			t.Errorf("taken back:\n%s\nwant\n%s", got, before)
		}
		if _, err := Confirm(ctx, s.sys); !errors.Is(err, ErrNothingPending) {
			t.Errorf("confirmed too late: %v, want %v", err, ErrNothingPending)
		}
	})
}

func TestAConfirmedChangeStays(t *testing.T) {
	each(t, func(t *testing.T, s *site, f family) {
		ctx := context.Background()
		p := small(t, nil)
		pending, err := Apply(ctx, s.sys, Change{Want: s.live().Want(p), Within: time.Hour, Watch: func(Pending) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		after := f.list(s)
		if _, err := Confirm(ctx, s.sys); err != nil {
			t.Fatal(err)
		}
		if err := RollBack(ctx, s.sys, pending.ID); !errors.Is(err, ErrNothingPending) {
			t.Errorf("the timer of a confirmed change: %v, want %v", err, ErrNothingPending)
		}
		if got := f.list(s); got != after {
			t.Errorf("confirmed:\n%s\nwant\n%s", got, after)
		}
		s.wantDrifts(p)
	})
}

func TestNothingIsHalfApplied(t *testing.T) {
	each(t, func(t *testing.T, s *site, f family) {
		before := f.list(s)
		s.fail = "nft"
		if slices.Contains(f.programs, "ip6tables-restore") {
			s.fail = "ip6tables-restore"
		}
		want := Own{}
		if s.fail != "nft" { // else it cannot even be read
			want = s.live().Want(small(t, nil))
		}
		if _, err := Apply(context.Background(), s.sys, Change{Want: want}); err == nil {
			t.Error("no error")
		}
		s.fail = ""
		if got := f.list(s); got != before {
			t.Errorf("after a failure:\n%s\nwant\n%s", got, before)
		}
		_, err := Apply(context.Background(), s.sys, Change{Want: s.live().Want(small(t, nil)), Within: time.Hour,
			Watch: func(Pending) error { return errors.New("no process") }})
		if err == nil {
			t.Error("nothing watches: no error")
		}
		if got := f.list(s); got != before {
			t.Errorf("without a watcher:\n%s\nwant\n%s", got, before)
		}
		if _, err := Waiting(s.sys); !errors.Is(err, ErrNothingPending) {
			t.Errorf("still waiting: %v", err)
		}
	})
}

func TestAChangeWhoseWatcherDiedIsTakenBackByTheNext(t *testing.T) {
	testnet.Need(t, "nftables")
	s := newSite(t, nil, "nft")
	s.must(nftInput, "nft", "-f", "-")
	p := small(t, nil)
	if _, err := Apply(context.Background(), s.sys, Change{Want: s.live().Want(p), Within: time.Nanosecond, Watch: func(Pending) error { return nil }}); err != nil {
		t.Fatal(err)
	}
	s.wantDrifts(p, DriftPending)
	s.remove()
	s.wantPass(false, host4, 3478)
}

func TestTheRelayRangeIsOpenWhereAnswersAreNotKnown(t *testing.T) {
	testnet.Need(t, "nftables")
	s := newSite(t, nil, "nft")
	s.must("table inet f { chain in { type filter hook input priority 0; policy drop; meta l4proto ipv6-icmp accept; udp dport 7 accept; }; }", "nft", "-f", "-")
	closed := small(t, func(o *Options) { o.RelayIn = RelayClosed })
	s.wantDrifts(closed, DriftClosed, DriftRelay)
	p := small(t, nil)
	s.apply(p)
	s.wantPass(true, host4, 20000)
	s.wantPass(true, host6, 29999)
	s.wantPass(false, host4, 30000)
	s.wantDrifts(p)
	s.wantDrifts(closed, DriftStale)
}

func TestNoConnectionTrackingForTheRelayRange(t *testing.T) {
	each(t, func(t *testing.T, s *site, f family) {
		before := f.list(s)
		p := small(t, func(o *Options) { o.NoTrack = true })
		s.apply(p)
		s.wantPass(true, host4, 20000)
		s.wantPass(true, host6, 20000)
		s.wantDrifts(p)
		s.apply(p)
		s.wantDrifts(p)
		if len(p.notrackPlaces(slices.Contains(f.programs, "nft"))) == 0 {
			t.Fatal("no rules against tracking")
		}
		s.wantDrifts(small(t, nil), DriftStale)
		s.remove()
		if got := f.list(s); got != before {
			t.Errorf("removed:\n%s\nwant\n%s", got, before)
		}
	})
}

func TestAHostThatFiltersWhatLeavesIt(t *testing.T) {
	testnet.Need(t, "nftables")
	s := newSite(t, nil, "nft")
	s.must(`table inet f { chain out { type filter hook output priority 0; policy drop; meta l4proto ipv6-icmp accept; }; }`, "nft", "-f", "-")
	p := small(t, nil)
	s.wantDrifts(p, DriftOutside)
	send := func() error {
		var err error
		s.host.Do(func() {
			c, dialErr := net.DialUDP("udp", &net.UDPAddr{Port: 20001}, &net.UDPAddr{IP: net.ParseIP("10.0.0.2"), Port: 8000})
			if err = dialErr; err == nil {
				_, err = c.Write([]byte("x"))
				c.Close()
			}
		})
		return err
	}
	if err := send(); !errors.Is(err, syscall.EPERM) {
		t.Errorf("media before: %v, want %v", err, syscall.EPERM)
	}
	s.apply(p)
	if err := send(); err != nil {
		t.Errorf("media: %v", err)
	}
	s.wantDrifts(p)
}

func TestAHostThatFiltersNothingNeedsNothing(t *testing.T) {
	testnet.Need(t, "nftables")
	s := newSite(t, nil, "nft")
	s.must("table inet f { chain in { type filter hook input priority 0; tcp dport 25 drop; }; }", "nft", "-f", "-")
	p := small(t, nil)
	if want := s.live().Want(p); !want.IsEmpty() {
		t.Errorf("want %v, want nothing", want.Lines())
	}
	s.wantDrifts(p)
}

func TestRulesThatAreLoadedAtBoot(t *testing.T) {
	testnet.Need(t, "nftables")
	s := newSite(t, nil, "nft", "systemctl")
	var calls []string
	real := s.sys.Run
	s.sys.Run = func(ctx context.Context, input, name string, args ...string) (string, error) {
		if name == "systemctl" {
			calls = append(calls, strings.Join(args, " "))
			return "", nil
		}
		return real(ctx, input, name, args...)
	}
	for _, dir := range []string{"/run/systemd/system", filepath.Dir(unitPath)} {
		if err := os.MkdirAll(s.sys.Root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.must(nftInput, "nft", "-f", "-")
	p := small(t, nil)
	s.apply(p)
	s.wantDrifts(p, DriftBoot)
	boot := []string{"/usr/bin/turngate", "firewall", "apply", "--now", "--config=/etc/a b/100%.toml"}
	if _, err := Apply(context.Background(), s.sys, Change{Want: s.live().Want(p), Boot: boot}); err != nil {
		t.Fatal(err)
	}
	golden(t, "turngate-firewall.service", s.sys.readFile(unitPath))
	s.wantDrifts(p)
	if want := []string{"daemon-reload", "enable turngate-firewall.service", "start --no-block turngate-firewall.service"}; !slices.Equal(calls, want) {
		t.Errorf("systemctl: got %q, want %q", calls, want)
	}
	s.remove()
	if got := s.sys.readFile(unitPath); got != "" {
		t.Errorf("the unit is still there:\n%s", got)
	}
}
