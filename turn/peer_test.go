package turn_test

import (
	"net"
	"net/netip"
	"testing"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/peers"
)

// TestAPeerThatWasARelay is a peer no more when its allocation has ended, even
// if a channel was bound to it.
func TestAPeerThatWasARelay(t *testing.T) {
	s, addr := start(t, func(o *turn.Options) { o.Allow = nil }) // loopback by RelayToRelay only
	site := site{server: s, network: "udp", addr: addr}
	one, _ := site.allocated(t)
	two, relayed := site.allocated(t)
	must(t, one.ChannelBind(within(t), 0x4001, relayed))
	if got := tc.Code(one.ChannelBind(within(t), 0x4002, netip.AddrPortFrom(relayed.Addr(), 22999))); got != 403 {
		t.Errorf("ChannelBind to a port that is no relay: %d, want 403", got)
	}
	must(t, errOnly(two.Refresh(within(t), 0)))
	waitFor(t, s, 1) // the answer comes first
	l, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(relayed))
	must(t, err)
	defer l.Close()
	must(t, one.SendChannel(within(t), 0x4001, []byte("stray")))
	must(t, one.Send(within(t), relayed, []byte("stray")))
	must(t, errOnly(one.Binding(within(t)))) // both have been handled
	witness, err := net.Dial("udp", l.LocalAddr().String())
	must(t, err)
	defer witness.Close()
	must(t, errOnly(witness.Write([]byte("witness"))))
	b := make([]byte, 100)
	n, err := l.Read(b)
	if err != nil || string(b[:n]) != "witness" {
		t.Errorf("a program on the former relay port received %q, %v; want nothing of the client", b[:n], err)
	}
}

// TestPermissionsAreCountedOnce: renewing one and adding one needs one more.
func TestPermissionsAreCountedOnce(t *testing.T) {
	s, addr := start(t, func(o *turn.Options) {
		o.Limits = turn.Limits{Permissions: 2}
		o.Allow = []peers.Rule{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}
	})
	c, _ := site{server: s, network: "udp", addr: addr}.allocated(t)
	one, two := netip.MustParseAddrPort("127.0.1.1:9"), netip.MustParseAddrPort("127.0.1.2:9")
	must(t, c.CreatePermission(within(t), one, netip.AddrPortFrom(one.Addr(), 10)))
	if err := c.CreatePermission(within(t), one, two); err != nil {
		t.Errorf("one renewed and one new of two: %v", err)
	}
}
