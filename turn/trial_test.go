package turn_test

import (
	"net/netip"
	"testing"
	"time"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/peers"
)

// trial returns a client with a credential for trying the server.
func trial(t *testing.T, addr netip.AddrPort, expires time.Time) *tc.Client {
	t.Helper()
	user, password := turn.Credential("north", turn.TrialUser+"test", expires)
	c, err := tc.Dial(within(t), "udp", addr.String(), tc.Auth{User: user, Password: password})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestATrialReachesRelaysOfThisServerAlone(t *testing.T) {
	elsewhere, err := peers.ParseRule("127.0.0.0/8")
	must(t, err)
	_, addr := start(t, func(o *turn.Options) { o.Allow = append(o.Allow, elsewhere) })
	expires := time.Now().Add(time.Hour)
	one, two := trial(t, addr, expires), trial(t, addr, expires)
	must(t, errOnly(one.Allocate(within(t))))
	relay, err := two.Allocate(within(t))
	must(t, err)
	for _, c := range []struct {
		name           string
		peer           netip.AddrPort
		permit, listen int
	}{
		{"another relay of this server", relay.Relayed[0], 0, 0},
		{"a port of this host that is no relay", tc.NewPeer(t, "127.0.0.1").Addr(), 0, 403},
		{"a peer elsewhere", tc.NewPeer(t, "127.0.0.2").Addr(), 403, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := tc.Code(one.CreatePermission(within(t), c.peer)); got != c.permit {
				t.Errorf("CreatePermission: %d, want %d", got, c.permit)
			}
			if got := tc.Code(one.ChannelBind(within(t), 0x4001, c.peer)); got != c.listen {
				t.Errorf("ChannelBind: %d, want %d", got, c.listen)
			}
		})
	}
}

func TestATrialHasFewRelays(t *testing.T) {
	_, addr := start(t, nil)
	expires := time.Now().Add(time.Hour)
	for n := range 49 {
		_, err := trial(t, addr, expires).Allocate(within(t))
		want := 0
		if n == 48 {
			want = 486
		}
		if got := tc.Code(err); got != want {
			t.Fatalf("relay %d: %d, want %d", n+1, got, want)
		}
	}
}

func TestATrialEndsWithItsCredential(t *testing.T) {
	_, addr := start(t, nil)
	expires := time.Now().Add(5 * time.Second).Truncate(time.Second)
	c := trial(t, addr, expires)
	must(t, errOnly(c.Allocate(within(t))))
	<-time.After(time.Until(expires)) // wall time is what is tested
	if _, err := c.Refresh(within(t), 600); tc.Code(err) != 401 {
		t.Errorf("Refresh: %v, want 401", err)
	}
}
