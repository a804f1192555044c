package relay

import (
	"sync/atomic"
	"time"
)

// Budget bounds the payload that passes, in bytes a second and each direction
// on its own: a client that sends much still hears its peers. One Budget may
// serve any number of relays, and everything about it may be called at once.
//
// Taking from it neither locks nor allocates and asks no clock but the
// relay's, whose steps the burst has to bridge.
type Budget struct {
	rate atomic.Int64 // bytes a second; 0 is no bound
	up   bucket
	down bucket
	hits *atomic.Uint64 // datagrams refused; shared by the budgets of a kind
}

// bucket is a token bucket of which only the time is kept at which it will be
// full again, in nanoseconds of the Clock (the generic cell rate algorithm of
// ITU-T I.371): one word, so that taking is one compare-and-swap.
type bucket struct{ full atomic.Int64 }

const (
	// burst is how much of the rate may pass at once: an intra frame of video
	// is many times the mean, and the Clock moves in steps.
	burst = time.Second
	// minBurst lets the largest datagram pass at any rate.
	minBurst = 64 << 10
)

// NewBudget returns a budget of so many bytes a second; 0 is no bound. What
// it refuses is counted in hits.
func NewBudget(bytesPerSecond int64, hits *atomic.Uint64) *Budget {
	b := &Budget{hits: hits}
	b.SetRate(bytesPerSecond)
	return b
}

// SetRate changes the rate; 0 is no bound.
func (b *Budget) SetRate(bytesPerSecond int64) { b.rate.Store(max(0, bytesPerSecond)) }

// Rate returns the rate.
func (b *Budget) Rate() int64 { return b.rate.Load() }

// cost is the time in which n bytes flow in.
func cost(n int, rate int64) int64 { return int64(n) * int64(time.Second) / rate }

func (t *bucket) take(n int, rate, now int64) bool {
	depth := max(int64(burst), cost(minBurst, rate))
	for {
		full := t.full.Load()
		next := max(full, now) + cost(n, rate)
		if next-now > depth {
			return false
		}
		if t.full.CompareAndSwap(full, next) {
			return true
		}
	}
}

// giveBack undoes a take.
func (t *bucket) giveBack(n int, rate int64) { t.full.Add(-cost(n, rate)) }

// budgets are those that one relay takes from: its own, its user's and that of
// all, the narrowest first.
type budgets []*Budget

func (b *Budget) of(up bool) *bucket {
	if up {
		return &b.up
	}
	return &b.down
}

// take takes n bytes from every budget or from none.
func (all budgets) take(up bool, n int, now int64) bool {
	for i, b := range all {
		rate := b.rate.Load()
		if rate == 0 || b.of(up).take(n, rate, now) {
			continue
		}
		b.hits.Add(1)
		for _, taken := range all[:i] {
			if rate := taken.rate.Load(); rate > 0 {
				taken.of(up).giveBack(n, rate)
			}
		}
		return false
	}
	return true
}

// SetBudgets changes the budgets that the relay's traffic counts against, the
// narrowest first. None is no bound, and costs nothing.
func (r *Relay) SetBudgets(all ...*Budget) {
	if len(all) == 0 {
		r.budgets.Store(nil)
		return
	}
	kept := budgets(all)
	r.budgets.Store(&kept)
}

// affordUp returns those of the payloads to a peer that the budgets have room
// for, in the same slice, and counts the others.
func (r *Relay) affordUp(payloads []Frame) []Frame {
	all := r.budgets.Load()
	if all == nil {
		return payloads
	}
	now, fit := r.o.Clock.now(), payloads[:0]
	for _, p := range payloads {
		if all.take(true, len(p.Payload), now) {
			fit = append(fit, p)
		}
	}
	r.stats.LimitedUp.Add(uint64(len(payloads) - len(fit)))
	return fit
}

// affordDown reports whether the budgets have room for a payload to the
// client, and counts it when they have not.
func (r *Relay) affordDown(n int) bool {
	all := r.budgets.Load()
	if all == nil || all.take(false, n, r.o.Clock.now()) {
		return true
	}
	r.stats.LimitedDown.Add(1)
	return false
}
