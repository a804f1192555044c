package turn_test

import (
	"net/netip"
	"testing"

	"github.com/turngate/turngate/turn"
)

func TestRealmOfEachListener(t *testing.T) {
	var guests netip.AddrPort
	s, addr := start(t, func(o *turn.Options) {
		o.RealmAt = func(server netip.AddrPort) string {
			if server == guests {
				return "guests"
			}
			return ""
		}
	})
	udp, err := s.OpenUDP(netip.AddrPortFrom(loopback, 0))
	must(t, err)
	guests = udp.Addr()
	must(t, s.ServeUDP(udp))
	for at, want := range map[netip.AddrPort]string{addr: "r", guests: "guests"} {
		c := site{server: s, network: "udp", addr: at}.dial(t)
		_, err := c.Allocate(within(t))
		must(t, err)
		if got, _ := c.Challenge(); got != want {
			t.Errorf("realm at %v: got %q, want %q", at, got, want)
		}
		must(t, errOnly(c.Refresh(within(t), 600)))
	}
}
