package turn

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/turngate/turngate/turn/peers"
	"github.com/turngate/turngate/turn/relay"
	"github.com/turngate/turngate/turn/wire"
)

// unserved returns a server without a listener.
func unserved(t *testing.T, change func(*Options)) (*Server, Options) {
	t.Helper()
	local := netip.MustParseAddr("127.0.0.1")
	o := Options{
		Realm: "r", Addresses: []Address{{External: local, Local: local}}, MinPort: 22500, MaxPort: 22999,
		Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, o
}

// answers is the way back to a client who keeps the codes of his answers.
type answers struct{ codes []int }

func (a *answers) answer(p []byte) {
	var m wire.Message
	code := -1
	if m.Parse(p) == nil {
		code = 0
		if value, ok := m.Get(wire.ErrorCode); ok {
			code = int(value[2])*100 + int(value[3])
		}
	}
	a.codes = append(a.codes, code)
}
func (a *answers) egress() relay.Egress { return a }
func (a *answers) Send([]relay.Frame)   {}
func (a *answers) opened(*session)      {}
func (a *answers) closed()              {}
func (a *answers) accepting() bool      { return true }

// asks returns a request of an authenticated client.
func asks(t *testing.T, s *Server, from *answers, client string, method wire.Method, build func(*wire.Builder)) *request {
	t.Helper()
	b := wire.NewBuilder(method, wire.Request, wire.NewTransactionID())
	build(b)
	var msg wire.Message
	if err := msg.Parse(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	tuple := fiveTuple{transport: TCP, client: netip.MustParseAddrPort(client)}
	return &request{
		set: s.settings.Load(), msg: &msg, tuple: tuple, from: from, session: s.session(tuple),
		realm: "r", now: time.Now(), user: "u", key: wire.Key("k"), algorithm: wire.MD5,
	}
}

func udpRelay(b *wire.Builder) { b.Add(wire.RequestedTransport, []byte{protocolUDP, 0, 0, 0}) }

func TestAllocationsOfAnAddressAreThoseOfTheNetworkOfAnIPv6Client(t *testing.T) {
	s, _ := unserved(t, func(o *Options) { o.Limits.AllocationsPerAddress = 2 })
	for _, tt := range []struct {
		client string
		code   int
	}{
		{"[2001:db8:0:1::1]:1000", 0},
		{"[2001:db8:0:1::2]:1000", 0},
		{"[2001:db8:0:1:ffff::3]:1000", 486},
		{"[2001:db8:0:2::1]:1000", 0},
		{"192.0.2.1:1000", 0},
		{"192.0.2.1:1001", 0},
		{"192.0.2.1:1002", 486},
		{"192.0.2.2:1000", 0},
	} {
		from := new(answers)
		s.handleAllocate(asks(t, s, from, tt.client, wire.Allocate, udpRelay))
		if len(from.codes) != 1 || from.codes[0] != tt.code {
			t.Errorf("Allocate of %s: answers %v, want %d", tt.client, from.codes, tt.code)
		}
	}
}

// TestARequestThatAReloadOvertakes was judged by the policy that it began with,
// and must not bring back what the reload took away.
func TestARequestThatAReloadOvertakes(t *testing.T) {
	const client = "192.0.2.1:1000"
	peer := netip.MustParseAddrPort("8.8.8.8:4000")
	for _, tt := range []struct {
		name   string
		method wire.Method
		handle func(*Server, *request)
	}{
		{"a permission", wire.CreatePermission, (*Server).handleCreatePermission},
		{"a channel", wire.ChannelBind, (*Server).handleChannelBind},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, o := unserved(t, nil)
			from := new(answers)
			s.handleAllocate(asks(t, s, from, client, wire.Allocate, udpRelay))
			late := asks(t, s, from, client, tt.method, func(b *wire.Builder) {
				b.AddAddress(wire.XORPeerAddress, peer)
				b.Add(wire.ChannelNumber, []byte{0x40, 0, 0, 0})
			})
			o.Deny = []peers.Rule{{Prefix: netip.MustParsePrefix("8.8.8.8/32")}}
			if err := s.Reconfigure(o); err != nil {
				t.Fatal(err)
			}
			tt.handle(s, late)
			if permits, channels := late.session.counts(); permits != 0 || channels != 0 {
				t.Errorf("answers %v: %d permissions and %d channels for a peer that is denied, want none", from.codes, permits, channels)
			}
		})
	}
}
