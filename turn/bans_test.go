package turn_test

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
)

// metric returns the sum of a metric of the server over the label pairs that
// are given ("name", "value", ...).
func metric(t testing.TB, s *turn.Server, name string, labels ...string) float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(s.Collectors()...)
	families, err := r.Gather()
	must(t, err)
	sum, found := 0.0, false
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		found = true
		for _, m := range f.GetMetric() {
			has := map[string]string{}
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			match := true
			for i := 0; i < len(labels); i += 2 {
				match = match && has[labels[i]] == labels[i+1]
			}
			if match {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	if !found && len(labels) == 0 {
		t.Fatalf("there is no metric %s", name)
	}
	return sum
}

// until waits for something that has no event of its own.
func until(t testing.TB, what string, true func() bool) {
	t.Helper()
	ctx := within(t)
	for !true() {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

// wrong asks n times with a wrong password and checks that each is answered.
func wrong(t testing.TB, c *tc.Client, user string, n int) {
	t.Helper()
	c.SetAuth(tc.Auth{User: user, Password: "a wrong one"})
	must(t, c.Learn(within(t)))
	for i := range n {
		b := tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Add(tc.RequestedTransport(tc.TransportUDP))
		c.Sign(b)
		if got := raw(t, c, b).ErrorCode(); got != 401 {
			t.Fatalf("wrong password no. %d: %d, want 401", i+1, got)
		}
	}
}

func strict(failures int) func(*turn.Options) {
	return func(o *turn.Options) {
		twoUsers(o)
		o.Limits.AuthFailures, o.Limits.Ban = failures, time.Hour
	}
}

func TestTooManyFailuresBanTheirSource(t *testing.T) {
	logs := &lockedBuffer{}
	s, addr := start(t, func(o *turn.Options) {
		strict(5)(o)
		o.Log = slog.New(slog.NewJSONHandler(logs, nil))
	})
	udp, tcp := site{server: s, network: "udp", addr: addr}, site{server: s, network: "tcp", addr: addr}
	open := tcp.dial(t)
	must(t, errOnly(open.Binding(within(t))))
	c := udp.dial(t)
	wrong(t, c, "turn", 5)
	if got := s.Bans(); len(got) != 0 {
		t.Fatalf("banned after 5 failures of 5: %v", got)
	}
	wrong(t, c, "turn", 1)
	bans := s.Bans()
	if len(bans) != 1 || bans[0].Source != netip.MustParsePrefix("127.0.0.1/32") || time.Until(bans[0].Until) < 59*time.Minute {
		t.Fatalf("bans: got %+v, want one of 127.0.0.1/32 for an hour", bans)
	}

	// Not a byte for it any more, over UDP and over what is open.
	before := metric(t, s, "turngate_turn_dropped_total", "reason", "banned")
	must(t, c.SendRaw(within(t), tc.NewBuilder(tc.MethodBinding, tc.ClassRequest).Bytes()))
	until(t, "the request of a banned source is counted", func() bool {
		return metric(t, s, "turngate_turn_dropped_total", "reason", "banned") > before
	})
	gone, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if m, err := c.Stray(gone); err == nil {
		t.Errorf("a banned source got %v", m)
	}
	must(t, open.SendRaw(within(t), tc.NewBuilder(tc.MethodBinding, tc.ClassRequest).Bytes()))
	select {
	case <-open.Done():
	case <-within(t).Done():
		t.Error("a connection of a banned source is still open after a message")
	}
	cutOff(t, connect(t, addr), "a new connection of a banned source")

	// Others are served.
	other := udp.dial(t, tc.Local(netip.MustParseAddrPort("127.0.0.2:0")))
	must(t, errOnly(other.Allocate(within(t))))

	if got := strings.Count(logs.String(), "source banned"); got != 1 {
		t.Errorf("%d log lines about the ban, want 1:\n%s", got, logs)
	}
	if live, made := metric(t, s, "turngate_turn_bans"), metric(t, s, "turngate_turn_bans_total"); live != 1 || made != 1 {
		t.Errorf("metrics: %v bans live and %v made, want 1 and 1", live, made)
	}
	if strings.Contains(logs.String(), "a wrong one") {
		t.Error("the log has the password")
	}

	// The operator lifts it, and the failures are forgotten with it.
	if !s.Unban(netip.MustParseAddr("127.0.0.1")) || s.Unban(netip.MustParseAddr("127.0.0.1")) {
		t.Error("Unban: want true once, for the ban that there was")
	}
	wrong(t, udp.dial(t), "turn", 5)
	if got := s.Bans(); len(got) != 0 {
		t.Errorf("banned again after 5 failures of 5: %v", got)
	}
	_, _ = udp.allocated(t)
}

func TestOneFailingClientDoesNotBanACompany(t *testing.T) {
	s, addr := start(t, strict(3))
	udp := site{server: s, network: "udp", addr: addr}
	call, _ := udp.allocated(t)
	for _, user := range []string{"other", "nobody", "turn"} {
		wrong(t, udp.dial(t), user, 10)
	}
	if got := s.Bans(); len(got) != 0 {
		t.Errorf("an address with an allocation was banned: %v", got)
	}
	if hits := metric(t, s, "turngate_turn_limit_hits_total", "limit", "auth_failures"); hits < 20 {
		t.Errorf("failures beyond the limit: counted %v, want 27 or so", hits)
	}
	must(t, errOnly(call.Refresh(within(t), 0)))
	waitFor(t, s, 0)
	wrong(t, udp.dial(t), "other", 1)
	defer s.Unban(loopback) // or the clients wait for answers at their end
	if got := s.Bans(); len(got) != 1 {
		t.Errorf("bans after the last allocation has gone: %v, want one", got)
	}
}

func TestNobodyIsBannedForWhatHeMayNotHaveSent(t *testing.T) {
	s, addr := start(t, strict(3))
	c := site{server: s, network: "udp", addr: addr}.dial(t)
	must(t, c.Learn(within(t)))
	realm, _ := c.Challenge()
	for range 20 { // as somebody who spoofs the address has to guess the nonce
		c.SetChallenge(realm, []byte("AAAAAAAAAAAAAAAA"))
		b := tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Add(tc.RequestedTransport(tc.TransportUDP))
		c.Sign(b)
		challenged(t, raw(t, c, b), 438)
	}
	if got := s.Bans(); len(got) != 0 {
		t.Errorf("banned without a nonce of ours: %v", got)
	}
}

func TestACredentialThatExpiredIsNoAttack(t *testing.T) {
	s, addr := start(t, strict(3))
	udp := site{server: s, network: "udp", addr: addr}
	defer s.Unban(loopback) // or the clients wait for answers at their end
	for _, tt := range []struct {
		name, secret string
		banned       int
	}{{"a good one", "north", 0}, {"one of another secret", "south", 1}} {
		c := udp.dial(t)
		user, password := turn.Credential(tt.secret, "alice", time.Now().Add(-time.Hour))
		c.SetAuth(tc.Auth{User: user, Password: password})
		must(t, c.Learn(within(t)))
		for range 4 {
			b := tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Add(tc.RequestedTransport(tc.TransportUDP))
			c.Sign(b)
			challenged(t, raw(t, c, b), 401)
		}
		if got := s.Bans(); len(got) != tt.banned {
			t.Errorf("%s, expired: %d bans, want %d", tt.name, len(got), tt.banned)
		}
	}
}

func TestAReloadCanSwitchBansOff(t *testing.T) {
	var o turn.Options
	s, addr := start(t, func(now *turn.Options) { strict(3)(now); o = *now })
	udp := site{server: s, network: "udp", addr: addr}
	wrong(t, udp.dial(t), "turn", 4)
	if got := len(s.Bans()); got != 1 {
		t.Fatalf("%d bans, want 1", got)
	}
	o.Limits.AuthFailures = 0 // a reload that wants none
	must(t, s.Reconfigure(o))
	if got := len(s.Bans()); got != 0 {
		t.Errorf("%d bans after a reload that wants none", got)
	}
	wrong(t, udp.dial(t), "turn", 20)
	_, _ = udp.allocated(t)
}
