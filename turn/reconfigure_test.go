package turn_test

import (
	"net"
	"net/netip"
	"testing"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/peers"
)

// TestReconfigureKeepsCalls changes everything that an allocation was made
// with; it lives on, and what is new holds for the next.
func TestReconfigureKeepsCalls(t *testing.T) {
	var o turn.Options
	s, addr := start(t, func(now *turn.Options) { o = *now })
	site := site{server: s, network: "udp", addr: addr}
	c, relayed := site.allocated(t)
	echo := tc.NewEcho(t, "127.0.0.1")
	must(t, c.ChannelBind(within(t), 0x4001, echo.Addr()))

	o.Realm = "elsewhere"
	o.Users = []turn.User{{Name: "new", Passwords: []string{"new"}}}
	o.MinPort, o.MaxPort = 22400, 22400
	must(t, s.Reconfigure(o))

	must(t, c.SendChannel(within(t), 0x4001, []byte("still")))
	nextData(t, c, "still", 0x4001, netip.AddrPort{})
	must(t, errOnly(c.Refresh(within(t), 600)))
	must(t, c.CreatePermission(within(t), echo.Addr()))

	if _, err := site.dial(t).Allocate(within(t)); tc.Code(err) != 401 {
		t.Errorf("Allocate of a user who is gone: %v, want 401", err)
	}
	other, err := tc.Dial(within(t), "udp", addr.String(), tc.Auth{User: "new", Password: "new"})
	must(t, err)
	defer other.Close()
	a, err := other.Allocate(within(t))
	must(t, err)
	if a.Relayed[0].Port() != 22400 || a.Relayed[0] == relayed {
		t.Errorf("relayed address %v, want port 22400 of the new range", a.Relayed[0])
	}
	must(t, errOnly(other.Refresh(within(t), 0)))
}

// TestReconfigureTakesPeersAway at once, and only those that it names.
func TestReconfigureTakesPeersAway(t *testing.T) {
	var o turn.Options
	s, addr := start(t, func(now *turn.Options) {
		now.Allow = []peers.Rule{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}
		o = *now
	})
	c, _ := site{server: s, network: "udp", addr: addr}.allocated(t)
	kept, refused, bound := tc.NewPeer(t, "127.0.0.1"), tc.NewPeer(t, "127.0.0.2"), tc.NewPeer(t, "127.0.0.2")
	must(t, c.CreatePermission(within(t), kept.Addr(), refused.Addr()))
	must(t, c.ChannelBind(within(t), 0x4001, bound.Addr()))

	o.Deny = []peers.Rule{{Prefix: netip.MustParsePrefix("127.0.0.2/32")}}
	must(t, s.Reconfigure(o))
	must(t, c.Send(within(t), refused.Addr(), []byte("no")))
	must(t, c.SendChannel(within(t), 0x4001, []byte("no")))
	must(t, c.Send(within(t), kept.Addr(), []byte("yes")))
	nextFrom(t, kept, "yes", netip.AddrPort{})
	if got := tc.Code(c.ChannelBind(within(t), 0x4001, bound.Addr())); got != 403 {
		t.Errorf("binding the refused peer again: %d, want 403", got)
	}
	o.Deny = nil
	must(t, s.Reconfigure(o))
	must(t, c.CreatePermission(within(t), refused.Addr()))
	must(t, c.Send(within(t), refused.Addr(), []byte("again")))
	nextFrom(t, refused, "again", netip.AddrPort{})
	must(t, c.ChannelBind(within(t), 0x4001, bound.Addr()))
	must(t, c.SendChannel(within(t), 0x4001, []byte("again")))
	nextFrom(t, bound, "again", netip.AddrPort{})
}

// TestABadReconfigureChangesNothing.
func TestABadReconfigureChangesNothing(t *testing.T) {
	var good turn.Options
	s, addr := start(t, func(now *turn.Options) { good = *now })
	for name, change := range map[string]func(*turn.Options){
		"no realm":               func(o *turn.Options) { o.Realm = "" },
		"no address":             func(o *turn.Options) { o.Addresses = nil },
		"ports the wrong way":    func(o *turn.Options) { o.MinPort, o.MaxPort = 9, 8 },
		"port 0":                 func(o *turn.Options) { o.MinPort = 0 },
		"a rule of no network":   func(o *turn.Options) { o.Deny = []peers.Rule{{}} },
		"families that disagree": func(o *turn.Options) { o.Addresses[0].Local = netip.IPv6Loopback() },
	} {
		bad := good
		bad.Addresses = append([]turn.Address(nil), good.Addresses...)
		bad.Users = nil
		change(&bad)
		if err := s.Check(bad); err == nil {
			t.Errorf("Check with %s: no error", name)
		}
		if err := s.Reconfigure(bad); err == nil {
			t.Errorf("Reconfigure with %s: no error", name)
		}
	}
	serves(t, s, addr)
}

// TestCloseFreesReservedPorts too.
func TestCloseFreesReservedPorts(t *testing.T) {
	s, addr := start(t, nil)
	c := site{server: s, network: "udp", addr: addr}.dial(t)
	a, err := c.Allocate(within(t), tc.EvenPort(true))
	must(t, err)
	must(t, c.Close())
	must(t, s.Close())
	for _, port := range []uint16{a.Relayed[0].Port(), a.Relayed[0].Port() + 1} {
		l, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, port)))
		if err != nil {
			t.Errorf("after Close: %v", err)
			continue
		}
		l.Close()
	}
}
