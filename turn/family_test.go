package turn_test

import (
	"net/netip"
	"testing"

	"github.com/turngate/turngate/internal/testnet"
	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/peers"
)

var loopback6 = netip.MustParseAddr("::1")

// bothFamilies gives the server a relayed address of each family.
func bothFamilies(o *turn.Options) {
	o.Addresses = append(o.Addresses, turn.Address{External: loopback6, Local: loopback6})
	o.Allow = append(o.Allow, peers.Rule{Prefix: netip.PrefixFrom(loopback6, 128)})
}

const (
	familyIPv4 = 1
	familyIPv6 = 2
)

// echoed sends a payload over a channel and wants it back.
func echoed(t *testing.T, c *tc.Client, channel uint16, payload string) {
	t.Helper()
	must(t, c.SendChannel(within(t), channel, []byte(payload)))
	got, err := c.Receive(within(t))
	must(t, err)
	if string(got.Payload) != payload || got.Channel != channel {
		t.Errorf("got %q on channel %x, want %q on %x", got.Payload, got.Channel, payload, channel)
	}
}

func TestRelayedAddressOfEachFamily(t *testing.T) {
	testnet.Need(t, "ipv6")
	s, addr := start(t, bothFamilies)
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			site := site{server: s, network: network, addr: addr}
			peer4, peer6 := tc.NewEcho(t, "127.0.0.1"), tc.NewEcho(t, "::1")

			c, relayed := site.allocated(t, tc.RequestedAddressFamily(familyIPv6))
			if !relayed.Addr().Is6() {
				t.Errorf("relayed address: got %v, want IPv6", relayed)
			}
			must(t, c.ChannelBind(within(t), 0x4000, peer6.Addr()))
			echoed(t, c, 0x4000, "over IPv6")
			if err := c.CreatePermission(within(t), peer4.Addr()); tc.Code(err) != 443 {
				t.Errorf("IPv4 peer: got %v, want 443", err)
			}
			if err := c.ChannelBind(within(t), 0x4001, peer4.Addr()); tc.Code(err) != 443 {
				t.Errorf("channel to an IPv4 peer: got %v, want 443", err)
			}

			c = site.dial(t)
			a, err := c.Allocate(within(t), tc.AdditionalAddressFamily(familyIPv6))
			must(t, err)
			if len(a.Relayed) != 2 || !a.Relayed[0].Addr().Is4() || !a.Relayed[1].Addr().Is6() {
				t.Fatalf("relayed addresses: got %v, want IPv4 and IPv6", a.Relayed)
			}
			must(t, c.ChannelBind(within(t), 0x4000, peer4.Addr()))
			must(t, c.ChannelBind(within(t), 0x4001, peer6.Addr()))
			echoed(t, c, 0x4000, "over IPv4")
			echoed(t, c, 0x4001, "over IPv6")
			if err := c.ChannelBind(within(t), 0x4000, peer6.Addr()); tc.Code(err) != 400 {
				t.Errorf("the channel of the other family: got %v, want 400", err)
			}
			must(t, c.CreatePermission(within(t), peer4.Addr(), peer6.Addr()))

			// One family can go by itself.
			must(t, errOnly(c.Request(within(t), tc.MethodRefresh, tc.RequestedAddressFamily(familyIPv4), tc.Lifetime(0))))
			must(t, errOnly(c.Binding(within(t))))
			echoed(t, c, 0x4001, "IPv6 alone")
			if err := c.CreatePermission(within(t), peer4.Addr()); tc.Code(err) != 443 {
				t.Errorf("IPv4 peer after its release: got %v, want 443", err)
			}
			must(t, errOnly(c.Refresh(within(t), 600)))
			must(t, errOnly(c.Refresh(within(t), 0)))
			if _, err := c.Refresh(within(t), 600); tc.Code(err) != 437 {
				t.Errorf("refresh after the release of both: got %v, want 437", err)
			}
		})
	}
	waitFor(t, s, 0)
	if got := s.FreePorts(); got != 2000 {
		t.Errorf("free ports at the end: got %d, want 2000", got)
	}
}

func TestFamilyThatIsNotThere(t *testing.T) {
	s, addr := start(t, nil) // IPv4 only
	site := site{server: s, network: "udp", addr: addr}
	if _, err := site.dial(t).Allocate(within(t), tc.RequestedAddressFamily(familyIPv6)); tc.Code(err) != 440 {
		t.Errorf("IPv6: got %v, want 440", err)
	}
	c := site.dial(t)
	a, err := c.Allocate(within(t), tc.AdditionalAddressFamily(familyIPv6))
	must(t, err)
	code, _ := a.Response.Get(tc.AttrAddressErrorCode)
	if len(a.Relayed) != 1 || string(code) != "\x02\x00\x04\x28" {
		t.Errorf("relayed %v with ADDRESS-ERROR-CODE % x, want IPv4 alone and 440 for IPv6", a.Relayed, code)
	}
	for name, attrs := range map[string][]tc.Attr{
		"IPv4 as the additional one":   {tc.AdditionalAddressFamily(familyIPv4)},
		"both attributes":              {tc.AdditionalAddressFamily(familyIPv6), tc.RequestedAddressFamily(familyIPv4)},
		"an additional one and a pair": {tc.AdditionalAddressFamily(familyIPv6), tc.EvenPort(true)},
		"a token and a family":         {tc.ReservationToken(make([]byte, 8)), tc.RequestedAddressFamily(familyIPv4)},
	} {
		if _, err := site.dial(t).Allocate(within(t), attrs...); tc.Code(err) != 400 {
			t.Errorf("%s: got %v, want 400", name, err)
		}
	}
	if _, err := site.dial(t).Allocate(within(t), tc.RequestedAddressFamily(7)); tc.Code(err) != 440 {
		t.Errorf("an unknown family: got %v, want 440", err)
	}
}
