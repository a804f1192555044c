package turn_test

import (
	"net/netip"
	"testing"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
)

// passed sends n datagrams of 1000 bytes and returns how many of them the
// server relayed; the others it dropped for a limit.
func passed(t testing.TB, s *turn.Server, c *tc.Client, n int) int {
	t.Helper()
	of := func() turn.Session {
		for _, ses := range s.Sessions() {
			if ses.Client == c.LocalAddr() {
				return ses
			}
		}
		t.Fatal("the session is gone")
		return turn.Session{}
	}
	before := of()
	for i := range n {
		must(t, c.SendChannel(within(t), 0x4001, make([]byte, 1000)))
		if i%50 == 49 { // do not outrun the socket
			must(t, errOnly(c.Binding(within(t))))
		}
	}
	must(t, errOnly(c.Binding(within(t))))
	after := of()
	up, dropped := int(after.PacketsUp-before.PacketsUp), int(after.OverBudget-before.OverBudget)
	if up+dropped != n {
		t.Errorf("%d relayed and %d over the limit, of %d", up, dropped, n)
	}
	return up
}

func TestBandwidthLimits(t *testing.T) {
	// 64 KiB pass at once at any rate; what flows in during the test is little.
	const least, most = 65, 80
	var o turn.Options
	s, addr := start(t, func(now *turn.Options) { twoUsers(now); o = *now })
	peer := tc.NewPeer(t, "127.0.0.1")
	call := func(user string) *tc.Client {
		c := site{server: s, network: "udp", addr: addr}.dial(t)
		c.SetAuth(tc.Auth{User: user, Password: user})
		must(t, errOnly(c.Allocate(within(t))))
		must(t, c.ChannelBind(within(t), 0x4001, peer.Addr()))
		return c
	}
	one, two, other := call("turn"), call("turn"), call("other")
	limits := func(l turn.Limits) { o.Limits = l; must(t, s.Reconfigure(o)) }
	between := func(what string, got, lo, hi int) {
		t.Helper()
		if got < lo || got > hi {
			t.Errorf("%s: %d of 200 passed, want %d to %d", what, got, lo, hi)
		}
	}
	between("no limit", passed(t, s, one, 200), 200, 200)

	limits(turn.Limits{BytesPerSecondPerAllocation: 1000})
	between("of an allocation", passed(t, s, one, 200), least, most)
	between("of an allocation, the next one", passed(t, s, two, 200), least, most)

	limits(turn.Limits{})
	between("lifted by a reload", passed(t, s, one, 200), 200, 200)

	limits(turn.Limits{BytesPerSecondPerUser: 1000})
	between("of a user", passed(t, s, one, 200), least, most)
	between("of a user, another allocation", passed(t, s, two, 200), 0, most-least)
	between("of a user, another user", passed(t, s, other, 200), least, most)

	limits(turn.Limits{BytesPerSecond: 1000})
	between("in all", passed(t, s, other, 200), least, most)
	between("in all, somebody else", passed(t, s, one, 200), 0, most-least)
	late := call("turn")
	between("in all, a new allocation", passed(t, s, late, 200), 0, most-least)

	for _, limit := range []string{"bytes_per_second_per_allocation", "bytes_per_second_per_user", "bytes_per_second_total"} {
		if got := metric(t, s, "turngate_turn_limit_hits_total", "limit", limit); got < 100 {
			t.Errorf("%s: %v hits counted", limit, got)
		}
	}
	if got := metric(t, s, "turngate_turn_relay_dropped_total", "direction", "up", "reason", "bandwidth"); got < 900 {
		t.Errorf("drops counted: %v", got)
	}
	limits(turn.Limits{})
	for peer.Pending() > 0 {
		must(t, errOnly(peer.Receive(within(t))))
	}
	must(t, one.SendChannel(within(t), 0x4001, []byte("free")))
	for {
		d, err := peer.Receive(within(t))
		must(t, err)
		if string(d.Payload) == "free" {
			return
		}
	}
}

func TestSessionsTellWhatTheyDo(t *testing.T) {
	s, addr := start(t, nil)
	c, relayed := site{server: s, network: "udp", addr: addr}.allocated(t)
	peer, silent := tc.NewPeer(t, "127.0.0.1"), netip.MustParseAddr("127.0.0.1")
	must(t, c.ChannelBind(within(t), 0x4001, peer.Addr()))
	passed(t, s, c, 10)
	got := s.Sessions()[0]
	if got.Relays[0] != relayed || got.User != "turn" || got.Transport != turn.UDP || got.Client != c.LocalAddr() || got.Server != addr {
		t.Errorf("session %+v", got)
	}
	if len(got.Peers) != 1 || got.Peers[0].Address != peer.Addr() || got.Peers[0].Channel != 0x4001 || peer.Addr().Addr() != silent {
		t.Errorf("peers: %+v, want channel 4001 to %v alone", got.Peers, peer.Addr())
	}
	if got.BytesUp != 10_000 || got.RateUp <= 0 || got.RateUp > 10_000 {
		t.Errorf("%d bytes up at %v a second, want 10000 at a positive rate", got.BytesUp, got.RateUp)
	}
}
