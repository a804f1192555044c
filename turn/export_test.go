package turn_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/peers"
)

// A hundred allocations move to a fresh server that holds the same sockets,
// and their clients, which know nothing of it, go on.
func TestAllocationsMoveToAnotherServer(t *testing.T) {
	const clients = 100
	old, addr := start(t, nil)
	peer := tc.NewPeer(t, "127.0.0.1")
	ctx := within(t)
	type client struct {
		*tc.Client
		relayed string
		id      int
	}
	var all []client
	for i := range clients {
		c, err := tc.Dial(ctx, "udp", addr.String(), tc.Auth{User: "turn", Password: "turn"})
		must(t, err)
		defer c.Close()
		a, err := c.Allocate(ctx)
		must(t, err)
		must(t, c.CreatePermission(ctx, peer.Addr()))
		if i%2 == 0 {
			must(t, c.ChannelBind(ctx, 0x4000, peer.Addr()))
		}
		all = append(all, client{c, a.Relayed[0].String(), i})
	}

	states, err := old.Export()
	must(t, err)
	if len(states) != clients {
		t.Fatalf("states: got %d, want %d", len(states), clients)
	}
	sockets, err := old.ExportUDP(addr)
	must(t, err)
	must(t, old.Close())

	allow, err := peers.ParseRule("127.0.0.1")
	must(t, err)
	fresh, err := turn.New(turn.Options{
		Realm:     "r",
		Users:     []turn.User{{Name: "turn", Passwords: []string{"changed meanwhile"}}},
		Addresses: []turn.Address{{External: loopback, Local: loopback}},
		MinPort:   21000, MaxPort: 21999,
		Allow: []peers.Rule{allow},
		Log:   slog.New(slog.DiscardHandler),
	})
	must(t, err)
	defer fresh.Close()
	udp, err := fresh.AdoptUDP(sockets)
	must(t, err)
	for _, f := range sockets {
		f.Close()
	}
	must(t, fresh.ServeUDP(udp))
	for _, st := range states {
		must(t, fresh.Restore(st))
	}
	if got := fresh.Allocations(); got != clients {
		t.Errorf("allocations: got %d, want %d", got, clients)
	}

	for _, c := range all {
		payload := fmt.Sprintf("from client %d", c.id)
		if c.id%2 == 0 {
			must(t, c.SendChannel(ctx, 0x4000, []byte(payload)))
		} else {
			must(t, c.Send(ctx, peer.Addr(), []byte(payload)))
		}
		got, err := peer.Receive(ctx)
		must(t, err)
		if string(got.Payload) != payload || got.From.String() != c.relayed {
			t.Fatalf("peer got %q from %v, want %q from %s", got.Payload, got.From, payload, c.relayed)
		}
		must(t, peer.Send(got.From, []byte("to client")))
		back, err := c.Receive(ctx)
		must(t, err)
		if string(back.Payload) != "to client" {
			t.Fatalf("client %d got %q", c.id, back.Payload)
		}
		// The key that made the allocation stays good for it.
		if d, err := c.Refresh(ctx, 600); err != nil || d != 10*time.Minute {
			t.Fatalf("client %d: refresh %v %v", c.id, d, err)
		}
	}
	for _, c := range all {
		if _, err := c.Refresh(ctx, 0); err != nil {
			t.Fatalf("client %d: %v", c.id, err)
		}
	}
	waitFor(t, fresh, 0) // the answer comes first
	if got := fresh.FreePorts(); got != 1000 {
		t.Errorf("free ports at the end: got %d, want 1000", got)
	}
}
