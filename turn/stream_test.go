package turn_test

import (
	"fmt"
	"net"
	"slices"
	"testing"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
)

// A client writes messages of two channels, of none and a request in one go:
// each peer gets its own, in order, and the request is answered.
func TestWhatAStreamBringsAtOnceGoesToEachPeerInOrder(t *testing.T) {
	s, addr := start(t, nil)
	conn, err := net.Dial("tcp", addr.String())
	must(t, err)
	c := tc.New(conn, true, tc.Auth{User: "turn", Password: "turn"})
	defer c.Close()
	must(t, errOnly(c.Allocate(within(t))))
	peers := []*tc.Peer{tc.NewPeer(t, "127.0.0.1"), tc.NewPeer(t, "127.0.0.1")}
	for i, p := range peers {
		must(t, c.ChannelBind(within(t), 0x4000+uint16(i), p.Addr()))
	}
	var all []byte
	var want [2][]string
	for i := range 300 { // more than is forwarded at once
		to := i / 100 % 2
		payload := fmt.Sprintf("%03d%s", i, "......."[:i%7])
		want[to] = append(want[to], payload)
		all = append(all, tc.ChannelData(0x4000+uint16(to), []byte(payload), len(payload), true)...)
		if i%50 == 49 {
			all = append(all, tc.ChannelData(0x4009, []byte("nobody"), 6, true)...)
		}
	}
	all = append(all, tc.NewBuilder(tc.MethodBinding, tc.ClassRequest).Bytes()...)
	for chunk := range slices.Chunk(all, 3001) {
		_, err := conn.Write(chunk)
		must(t, err)
	}
	for i, p := range peers {
		for _, payload := range want[i] {
			d, err := p.Receive(within(t))
			if err != nil || string(d.Payload) != payload {
				t.Fatalf("peer %d: got %q, %v; want %q", i, d.Payload, err, payload)
			}
		}
	}
	must(t, errOnly(c.Binding(within(t))))
	if got := metric(t, s, "turngate_turn_dropped_total", "reason", "no channel"); got != 6 {
		t.Errorf("messages without a channel: %v counted, want 6", got)
	}
}
