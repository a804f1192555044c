package turn_test

import (
	"net/netip"
	"testing"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
)

func withMobility(o *turn.Options) { o.Mobility = true }

// roamer is a client with an allocation, a ticket, and a channel to a peer.
type roamer struct {
	*tc.Client
	site    site
	relayed netip.AddrPort
	ticket  []byte
	peer    *tc.Peer
}

const roamingChannel = 0x4001

func newRoamer(t testing.TB, s site) *roamer {
	t.Helper()
	c := s.dial(t)
	a, err := c.Allocate(within(t), tc.Bytes(tc.AttrMobilityTicket, nil))
	must(t, err)
	r := &roamer{Client: c, site: s, relayed: a.Relayed[0], peer: tc.NewPeer(t, "127.0.0.1")}
	var ok bool
	if r.ticket, ok = a.Response.Get(tc.AttrMobilityTicket); !ok || len(r.ticket) < 16 {
		t.Fatalf("Allocate that asks for mobility: ticket of %d bytes, want at least 16", len(r.ticket))
	}
	must(t, c.ChannelBind(within(t), roamingChannel, r.peer.Addr()))
	return r
}

// asks sends a Refresh with a ticket from elsewhere and returns the new one.
func (r *roamer) asks(t testing.TB, c *tc.Client, ticket []byte, code int) []byte {
	t.Helper()
	m := r.site.wants(t, c, code, tc.MethodRefresh, tc.Lifetime(600), tc.Bytes(tc.AttrMobilityTicket, ticket))
	next, _ := m.Get(tc.AttrMobilityTicket)
	return next
}

// hears checks which client the peer reaches.
func (r *roamer) hears(t testing.TB, c *tc.Client, payload string) {
	t.Helper()
	must(t, r.peer.Send(r.relayed, []byte(payload)))
	nextData(t, c, payload, roamingChannel, netip.AddrPort{})
}

// says sends from a client to the peer.
func (r *roamer) says(t testing.TB, c *tc.Client, payload string) {
	t.Helper()
	must(t, c.SendChannel(within(t), roamingChannel, []byte(payload)))
	nextFrom(t, r.peer, payload, r.relayed)
}

// TestAClientMoves with its allocation to another five-tuple: RFC 8016.
func TestAClientMoves(t *testing.T) {
	for _, from := range []string{"udp", "tcp"} {
		for _, to := range []string{"udp", "tcp"} {
			t.Run("from "+from+" to "+to, func(t *testing.T) {
				s, addr := start(t, withMobility)
				r := newRoamer(t, site{server: s, network: from, addr: addr})
				there := site{server: s, network: to, addr: addr}.dial(t, tc.Local(netip.MustParseAddrPort("127.0.0.7:0")))

				second := r.asks(t, there, r.ticket, 0)
				if string(second) == string(r.ticket) {
					t.Error("the new ticket is the old one")
				}
				if again := r.asks(t, there, r.ticket, 0); string(again) != string(second) {
					t.Error("the same Refresh again gets another ticket")
				}
				// Until the client is heard there, its peers reach it here.
				r.hears(t, r.Client, "still here")
				r.says(t, r.Client, "from here")
				r.says(t, there, "from there")
				r.hears(t, there, "now there")

				if got := s.Allocations(); got != 1 {
					t.Errorf("%d allocations, want 1", got)
				}
				all := s.Sessions()
				if got := all[0].Client; got != there.LocalAddr() || all[0].Transport != turn.Transport(to) {
					t.Errorf("session of %v over %v, want %v over %v", got, all[0].Transport, there.LocalAddr(), to)
				}
				for _, transport := range []string{"udp", "tcp"} {
					want := 0.0
					if transport == to {
						want = 1
					}
					if got := metric(t, s, "turngate_turn_allocations", "transport", transport); got != want {
						t.Errorf("allocations over %s: %v, want %v", transport, got, want)
					}
				}
				// The old five-tuple and the old ticket are nobody's.
				r.site.wants(t, r.Client, 437, tc.MethodRefresh, tc.Lifetime(600))
				r.asks(t, r.Client, r.ticket, 437)
				third := r.asks(t, r.Client, second, 0)
				r.says(t, r.Client, "back")
				r.hears(t, r.Client, "welcome")
				if string(third) == string(second) {
					t.Error("the third ticket is the second one")
				}
				_, err := r.Refresh(within(t), 0)
				must(t, err)
				waitFor(t, s, 0)
				r.asks(t, there, third, 437)
			})
		}
	}
}

// TestAConnectionIsLost and the client comes back with its ticket.
func TestAConnectionIsLost(t *testing.T) {
	for _, to := range []string{"udp", "tcp"} {
		s, addr := start(t, withMobility)
		r := newRoamer(t, site{server: s, network: "tcp", addr: addr})
		r.Close()
		until(t, "the session waits", func() bool { all := s.Sessions(); return len(all) == 1 && all[0].Away })
		must(t, r.peer.Send(r.relayed, []byte("lost")))
		until(t, "what nobody hears is counted", func() bool {
			return metric(t, s, "turngate_turn_relay_dropped_total", "direction", "down", "reason", "away") == 1
		})
		there := site{server: s, network: to, addr: addr}.dial(t)
		r.asks(t, there, r.ticket, 0)
		r.hears(t, there, "at once: there is no other way")
		r.says(t, there, "here I am")
		if all := s.Sessions(); all[0].Away || all[0].Client != there.LocalAddr() {
			t.Errorf("session %+v, want one of %v that is not away", all[0], there.LocalAddr())
		}
	}
	t.Run("without a ticket the allocation ends", func(t *testing.T) {
		s, addr := start(t, withMobility)
		c, _ := site{server: s, network: "tcp", addr: addr}.allocated(t)
		c.Close()
		waitFor(t, s, 0)
	})
	t.Run("one that waits can be kicked", func(t *testing.T) {
		s, addr := start(t, withMobility)
		free := s.FreePorts()
		newRoamer(t, site{server: s, network: "tcp", addr: addr}).Close()
		until(t, "the session waits", func() bool { all := s.Sessions(); return len(all) == 1 && all[0].Away })
		s.Kick(func(turn.Session) bool { return true })
		if got := s.FreePorts(); got != free {
			t.Errorf("%d ports free, want %d", got, free)
		}
	})
}

// TestATicketIsItsUsers and of nobody else.
func TestATicketIsItsUsers(t *testing.T) {
	s, addr := start(t, func(o *turn.Options) { twoUsers(o); withMobility(o) })
	r := newRoamer(t, site{server: s, network: "udp", addr: addr})
	stranger := r.site.dial(t)
	stranger.SetAuth(tc.Auth{User: "other", Password: "other"})
	r.asks(t, stranger, r.ticket, 441)
	stranger.SetAuth(tc.Auth{User: "turn", Password: "wrong"})
	if m, err := stranger.Request(within(t), tc.MethodRefresh, tc.Bytes(tc.AttrMobilityTicket, r.ticket)); tc.Code(err) != 401 {
		t.Errorf("with a wrong password: %v, %v, want 401", m, err)
	}
	there := r.site.dial(t)
	bent := append([]byte(nil), r.ticket...)
	bent[0] ^= 1
	for name, ticket := range map[string][]byte{"bent": bent, "short": r.ticket[1:], "empty": nil, "long": make([]byte, 700)} {
		if r.asks(t, there, ticket, 437); t.Failed() {
			t.Fatalf("with a ticket that is %s", name)
		}
	}
	r.hears(t, r.Client, "never moved")

	// An Allocate asks with an empty one, RFC 8016 section 3.1.2.
	r.site.wants(t, r.site.dial(t), 400, tc.MethodAllocate, tc.RequestedTransport(17), tc.Bytes(tc.AttrMobilityTicket, r.ticket))
	// A five-tuple that has an allocation cannot get another one.
	busy, _ := r.site.allocated(t)
	before := len(s.Sessions())
	m := r.site.wants(t, busy, 0, tc.MethodRefresh, tc.Lifetime(600), tc.Bytes(tc.AttrMobilityTicket, r.ticket))
	if got, ok := m.Get(tc.AttrMobilityTicket); ok || len(s.Sessions()) != before {
		t.Errorf("the Refresh of another allocation got a ticket (%x)", got)
	}
	r.hears(t, r.Client, "still not")
}

// TestMovingCountsAgainstTheLimits of the address that a client comes to.
func TestMovingCountsAgainstTheLimits(t *testing.T) {
	s, addr := start(t, func(o *turn.Options) { withMobility(o); o.Limits.AllocationsPerAddress = 1 })
	there := tc.Local(netip.MustParseAddrPort("127.0.0.8:0"))
	r := newRoamer(t, site{server: s, network: "udp", addr: addr})
	neighbour := r.site.dial(t, there)
	_, err := neighbour.Allocate(within(t))
	must(t, err)
	mover := r.site.dial(t, there)
	r.asks(t, mover, r.ticket, 486)
	_, err = neighbour.Refresh(within(t), 0)
	must(t, err)
	waitFor(t, s, 1)
	second := r.asks(t, mover, r.ticket, 0)
	// Before it is heard there it counts at both addresses, then at one.
	for _, local := range []tc.Option{there, tc.Local(netip.MustParseAddrPort("127.0.0.1:0"))} {
		r.site.wants(t, r.site.dial(t, local), 486, tc.MethodAllocate, tc.RequestedTransport(17))
	}
	r.says(t, mover, "arrived")
	c := r.site.dial(t)
	_, err = c.Allocate(within(t))
	must(t, err)
	_, err = c.Refresh(within(t), 0)
	must(t, err)
	waitFor(t, s, 1)
	// A client that moves on before it was heard leaves nothing behind.
	for range 5 {
		r.asks(t, r.site.dial(t), second, 0)
	}
	if got := len(s.Sessions()); got != 1 {
		t.Errorf("%d sessions, want 1", got)
	}
	r.says(t, mover, "where I was")
}

// TestMobilityIsOff unless it is switched on: the attribute is not known.
func TestMobilityIsOff(t *testing.T) {
	s, addr := start(t, nil)
	c := site{server: s, network: "udp", addr: addr}.dial(t)
	a, err := c.Allocate(within(t), tc.Bytes(tc.AttrMobilityTicket, nil))
	must(t, err)
	if ticket, ok := a.Response.Get(tc.AttrMobilityTicket); ok {
		t.Errorf("a ticket: %x", ticket)
	}
}
