package turn

import (
	"net/netip"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/limit"
)

// address returns the n-th IPv4 address of a large network.
func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

func TestBansAreBoundedAndEnd(t *testing.T) {
	b := newBans()
	b.set(10, time.Minute)
	now := time.Now()
	for n := range maxBans + 100 {
		if _, ok := b.add(limit.Source(address(n)), "u", now.Add(time.Duration(n))); !ok {
			t.Fatalf("address %d was not banned", n)
		}
	}
	if got := len(b.active); got != maxBans {
		t.Errorf("%d bans are kept, want %d", got, maxBans)
	}
	if b.holds(address(0), now) || !b.holds(address(maxBans+99), now) {
		t.Error("the bans that end first make room: want the first address free and the last one banned")
	}
	if _, again := b.add(limit.Source(address(maxBans)), "u", now); again {
		t.Error("a source that is banned was banned again")
	}
	if b.holds(address(maxBans+99), now.Add(2*time.Minute)) {
		t.Error("a ban of a minute holds after two")
	}
	b.sweep(now.Add(2 * time.Minute))
	if b.live.Load() != 0 || len(b.active) != 0 {
		t.Errorf("%d bans are left when all are over", len(b.active))
	}
}

func TestABanIsForTheNetworkOfAnIPv6Client(t *testing.T) {
	b := newBans()
	b.set(10, time.Minute)
	now := time.Now()
	b.add(limit.Source(netip.MustParseAddr("2001:db8:0:1::1")), "u", now)
	for addr, want := range map[string]bool{
		"2001:db8:0:1::1":           true,
		"2001:db8:0:1:ffff::2":      true,
		"2001:db8:0:2::1":           false,
		"::ffff:192.0.2.1":          false,
		"192.0.2.1":                 false,
		"2001:db8:0:1:0:0:c000:201": true,
	} {
		if got := b.holds(netip.MustParseAddr(addr), now); got != want {
			t.Errorf("%s banned: %v, want %v", addr, got, want)
		}
	}
}

func TestRatesAreThoseOfTheLastInterval(t *testing.T) {
	began := time.Now().Add(-10 * time.Second)
	r := rates{at: began}
	if up, down := r.last(1000, 2000); up < 90 || up > 101 || down < 180 || down > 201 {
		t.Errorf("before the first look: %v up and %v down, want the mean of 10 s: 100 and 200", up, down)
	}
	r.observe(began.Add(5*time.Second), 500, 0)
	r.observe(began.Add(10*time.Second), 5500, 100)
	if up, down := r.last(9999, 9999); up != 1000 || down != 20 {
		t.Errorf("after two looks: %v up and %v down, want 1000 and 20", up, down)
	}
}

func TestEveryLimitHasAName(t *testing.T) {
	seen := make(map[string]bool)
	for n := range limitNames {
		name := n.String()
		if name == "" || seen[name] {
			t.Errorf("limit %d is called %q", n, name)
		}
		seen[name] = true
	}
}
