package relay

import (
	"net"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/turngate/turngate/internal/testnet"
)

func TestDontFragmentSetsTheBit(t *testing.T) {
	testnet.Need(t, "netns") // a raw socket needs root too
	pc, err := net.ListenPacket("ip4:udp", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	raw, err := ipv4.NewRawConn(pc)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := newRelay(t, discard{}, nil)
	_, peer := udp(t)
	r.Permit(peer.Addr(), time.Now().Add(time.Hour))
	for _, tt := range []struct {
		name string
		send func() bool
		want ipv4.HeaderFlags
	}{
		{"SendTo", func() bool { return r.SendTo(peer, []byte("a")) }, 0},
		{"SendUnfragmented", func() bool { return r.SendUnfragmented(peer, []byte("b")) }, ipv4.DontFragment},
		{"SendTo again", func() bool { return r.SendTo(peer, []byte("c")) }, 0},
	} {
		if !tt.send() {
			t.Fatalf("%s: not sent", tt.name)
		}
		raw.SetReadDeadline(time.Now().Add(10 * time.Second))
		for buf := make([]byte, 2048); ; {
			h, p, _, err := raw.ReadFrom(buf)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if port := uint16(p[0])<<8 | uint16(p[1]); port != r.Relayed().Port() {
				continue // somebody else's
			}
			if h.Flags&ipv4.DontFragment != tt.want {
				t.Errorf("%s: flags %v, want %v", tt.name, h.Flags, tt.want)
			}
			break
		}
	}
}
