package turn_test

import (
	"net/netip"
	"testing"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
)

func TestFullServerSendsClientsToAnother(t *testing.T) {
	s, addr := start(t, func(o *turn.Options) {
		o.Limits.Allocations = 1
		o.Alternates = []netip.AddrPort{
			netip.MustParseAddrPort("192.0.2.1:3478"),
			netip.MustParseAddrPort("[2001:db8::1]:3478"), // not for a client over IPv4
			netip.MustParseAddrPort("192.0.2.2:3479"),
		}
	})
	site := site{server: s, network: "udp", addr: addr}
	site.allocated(t)
	seen := map[string]bool{}
	c := site.dial(t)
	for range 2 {
		m, code := site.ask(t, c, tc.MethodAllocate, func(b *tc.Builder) { b.Add(tc.RequestedTransport(tc.TransportUDP)) })
		if code != 300 {
			t.Fatalf("got %v, want 300", m)
		}
		value, _ := m.Get(tc.AttrAlternateServer)
		seen[string(value)] = true
	}
	for _, want := range []string{"\x00\x01\x0d\x96\xc0\x00\x02\x01", "\x00\x01\x0d\x97\xc0\x00\x02\x02"} {
		if !seen[want] {
			t.Errorf("ALTERNATE-SERVER: got %v, want % x among them", seen, want)
		}
	}
}

func TestAReservationThatIsNotThereSendsNobodyElsewhere(t *testing.T) {
	s, addr := start(t, func(o *turn.Options) {
		o.Alternates = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:3478")}
	})
	site := site{server: s, network: "udp", addr: addr}
	site.wants(t, site.dial(t), 508, tc.MethodAllocate, tc.RequestedTransport(tc.TransportUDP), tc.ReservationToken(make([]byte, 8)))
	if got := metric(t, s, "turngate_turn_limit_hits_total"); got != 0 {
		t.Errorf("counted %v hits of limits, want none", got)
	}
}
