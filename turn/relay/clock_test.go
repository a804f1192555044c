package relay

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/turngate/turngate/internal/testnet"
)

// stepped returns the moment t as it would read had somebody set the time of day
// ahead by d. A time.Time has both readings; of the day's the seconds stand above
// 30 bits of nanoseconds.
func stepped(t testing.TB, at time.Time, d time.Duration) time.Time {
	t.Helper()
	set := at
	*(*uint64)(unsafe.Pointer(&set)) += uint64(d/time.Second) << 30
	if set.Sub(at) != 0 || set.Round(0).Sub(at.Round(0)) != d {
		testnet.Lacks(t, "clock", "time.Time is not what it was when this was written")
	}
	return set
}

func TestSettingTheTimeOfDayChangesNothingThatIsRelayed(t *testing.T) {
	peer := netip.MustParseAddrPort("192.0.2.1:4000")
	const lifetime = 5 * time.Minute
	for _, tt := range []struct {
		name  string
		set   time.Duration
		since time.Duration
		live  bool
	}{
		{"ahead by an hour, within the lifetime", time.Hour, lifetime - time.Second, true},
		{"ahead by an hour, after the lifetime", time.Hour, lifetime + time.Second, false},
		{"back by an hour, within the lifetime", -time.Hour, lifetime - time.Second, true},
		{"back by an hour, after the lifetime", -time.Hour, lifetime + time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, clock := newRelay(t, discard{}, nil)
			begin := time.Now()
			until := begin.Add(lifetime)
			if err := r.Bind(0x4000, peer, until, until); err != nil {
				t.Fatal(err)
			}
			clock.Set(stepped(t, begin.Add(tt.since), tt.set))
			if permit, channel := r.HasPermit(peer.Addr()), r.HasChannel(0x4000); permit != tt.live || channel != tt.live {
				t.Errorf("permission lives: %v, channel lives: %v, want %v", permit, channel, tt.live)
			}
			if permits, _ := r.State(); len(permits) == 1 && permits[0].Until.Sub(until).Abs() > time.Millisecond {
				t.Errorf("permission lives until %v, want %v", permits[0].Until, until)
			}
		})
	}
}

func TestSettingTheTimeOfDayBackStopsNoBudget(t *testing.T) {
	_, clock := newRelay(t, discard{}, nil)
	const rate = 10_000
	all := budgets{NewBudget(rate, new(atomic.Uint64))}
	begin := time.Now()
	for second := range 100 {
		now := begin.Add(time.Duration(second) * time.Second)
		if second >= 50 {
			now = stepped(t, now, -time.Hour)
		}
		clock.Set(now)
		if !all.take(true, rate, clock.now()) {
			t.Fatalf("second %d: the budget of a second is used up", second)
		}
	}
}
