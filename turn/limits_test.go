package turn_test

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/peers"
)

// TestALimitIsACodeACounterAndALogLine: one line, however often it holds.
func TestALimitIsACodeACounterAndALogLine(t *testing.T) {
	for _, tt := range []struct {
		limit string
		set   func(*turn.Options)
		code  int
	}{
		{"allocations", func(o *turn.Options) { o.Limits.Allocations = 1 }, 508},
		{"allocations_per_user", func(o *turn.Options) { o.Limits.AllocationsPerUser = 1 }, 486},
		{"allocations_per_address", func(o *turn.Options) { o.Limits.AllocationsPerAddress = 1 }, 486},
		{"relay_ports", func(o *turn.Options) { o.MinPort, o.MaxPort = 22500, 22500 }, 508},
		{"permissions_per_allocation", func(o *turn.Options) { o.Limits.Permissions = 1 }, 508},
		{"channels_per_allocation", func(o *turn.Options) { o.Limits.Channels = 1 }, 508},
	} {
		t.Run(tt.limit, func(t *testing.T) {
			logs := &lockedBuffer{}
			s, addr := start(t, func(o *turn.Options) {
				tt.set(o)
				o.Allow = []peers.Rule{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}
				o.Log = slog.New(slog.NewJSONHandler(logs, nil))
			})
			udp := site{server: s, network: "udp", addr: addr}
			c, _ := udp.allocated(t)
			near := []*tc.Peer{tc.NewPeer(t, "127.0.0.1"), tc.NewPeer(t, "127.0.0.1")}
			const times = 3
			for range times {
				var err error
				switch tt.limit {
				case "permissions_per_allocation":
					must(t, c.CreatePermission(within(t), near[0].Addr()))
					err = c.CreatePermission(within(t), near[0].Addr(), netip.MustParseAddrPort("127.0.0.2:9"))
				case "channels_per_allocation":
					must(t, c.ChannelBind(within(t), 0x4000, near[0].Addr()))
					err = c.ChannelBind(within(t), 0x4001, near[1].Addr())
				default:
					_, err = udp.dial(t).Allocate(within(t))
				}
				if got := tc.Code(err); got != tt.code {
					t.Fatalf("over the limit: %v, want %d", err, tt.code)
				}
			}
			if got := metric(t, s, "turngate_turn_limit_hits_total", "limit", tt.limit); got != times {
				t.Errorf("counted %v hits, want %d", got, times)
			}
			if got := metric(t, s, "turngate_turn_limit_hits_total"); got != times {
				t.Errorf("counted %v hits of all limits, want %d", got, times)
			}
			if got := strings.Count(logs.String(), `"limit":"`+tt.limit+`"`); got != 1 {
				t.Errorf("%d log lines, want 1:\n%s", got, logs)
			}
		})
	}
}
