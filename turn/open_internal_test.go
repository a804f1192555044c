package turn

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/turn/wire"
)

// TestARelayAddressThatTheHostHasLost is no fault of its ports: none of them is set
// aside, and the operator learns the reason, once.
func TestARelayAddressThatTheHostHasLost(t *testing.T) {
	lost := netip.MustParseAddr("198.18.213.77")
	if c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(lost, 0))); err == nil {
		c.Close()
		testnet.Lacks(t, "strictbind", "this host binds addresses that it does not have")
	}
	for _, tt := range []struct {
		name  string
		build func(*wire.Builder)
	}{
		{"a port", udpRelay},
		{"a pair", func(b *wire.Builder) { udpRelay(b); b.Add(wire.EvenPort, []byte{0x80}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var logs bytes.Buffer
			s, o := unserved(t, func(o *Options) {
				o.Addresses[0].Local = lost
				o.Log = slog.New(slog.NewJSONHandler(&logs, nil))
			})
			from := new(answers)
			for range 3 {
				s.handleAllocate(asks(t, s, from, "192.0.2.9:1000", wire.Allocate, tt.build))
			}
			if from.codes[0] != 508 {
				t.Fatalf("answers %v, want 508", from.codes)
			}
			if got, want := s.FreePorts(), int(o.MaxPort)-int(o.MinPort)+1; got != want {
				t.Errorf("%d ports are free, want %d", got, want)
			}
			if got := strings.Count(logs.String(), "relay socket cannot be opened"); got != 1 || strings.Contains(logs.String(), "limit reached") {
				t.Errorf("%d log lines of the reason, want 1, and none of a limit:\n%s", got, &logs)
			}
		})
	}
}
