package relay

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// at moves the clock of a relay.
func at(c *Clock, start time.Time, since time.Duration) { c.Set(start.Add(since)) }

func TestABudgetLetsItsRateThrough(t *testing.T) {
	for _, tt := range []struct {
		name string
		rate int64
		size int
	}{
		{"video of a call", 250_000, 1200},
		{"small datagrams", 50_000, 100},
		{"a gigabit", 125_000_000, 1400},
		{"less than a datagram a second", 1000, 1200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var hits atomic.Uint64
			b := NewBudget(tt.rate, &hits)
			const seconds = 20
			passed, asked := int64(0), 0
			start := time.Now().UnixNano()
			// Ten times the rate, while the clock moves in its steps.
			for step := range seconds * int(time.Second/tick) {
				now := start + int64(step)*int64(tick)
				for range 1 + int(tt.rate*10)*int(tick/time.Millisecond)/1000/tt.size {
					asked++
					if (budgets{b}).take(true, tt.size, now) {
						passed += int64(tt.size)
					}
				}
			}
			depth := max(tt.rate, minBurst)
			least, most := tt.rate*(seconds-1), tt.rate*seconds+depth+int64(tt.size)
			if passed < least || passed > most {
				t.Errorf("in %d s at %d bytes/s: %d bytes passed, want %d to %d", seconds, tt.rate, passed, least, most)
			}
			if refused := asked - int(passed)/tt.size; hits.Load() != uint64(refused) {
				t.Errorf("counted %d refusals of %d", hits.Load(), refused)
			}
			if !(budgets{b}).take(false, tt.size, start) {
				t.Error("the other direction has no room: its budget is to be its own")
			}
		})
	}
}

func TestTheLargestDatagramPassesAtAnyRate(t *testing.T) {
	b := NewBudget(1, new(atomic.Uint64))
	if !(budgets{b}).take(true, 65535, time.Now().UnixNano()) {
		t.Error("65535 bytes do not pass a full budget")
	}
}

func TestARefusalCostsTheOtherBudgetsNothing(t *testing.T) {
	var own, all atomic.Uint64
	mine, total := NewBudget(1<<20, &own), NewBudget(1<<20, &all)
	now := time.Now().UnixNano()
	for (budgets{total}).take(true, 1024, now) { // somebody else uses the total up
	}
	all.Store(0)
	for range 5000 {
		if (budgets{mine, total}).take(true, 1024, now) {
			t.Fatal("passed an empty total")
		}
	}
	if !(budgets{mine}).take(true, 1<<20, now) {
		t.Error("the allocation's own budget was charged for what the total refused")
	}
	if own.Load() != 0 || all.Load() != 5000 {
		t.Errorf("hits: got %d own and %d total, want 0 and 5000", own.Load(), all.Load())
	}
}

func TestManyTakeFromOneBudgetAtOnce(t *testing.T) {
	var hits atomic.Uint64
	b := NewBudget(1<<20, &hits)
	now := time.Now().UnixNano()
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if (budgets{b}).take(true, 1024, now) {
					passed.Add(1024)
				}
			}
		})
	}
	wg.Wait()
	if got := passed.Load(); got != 1<<20 {
		t.Errorf("%d bytes passed at one moment, want exactly the burst of %d", got, 1<<20)
	}
}

func TestARelayKeepsToItsBudget(t *testing.T) {
	table, path, r := bound(t)
	clock := r.o.Clock
	start := time.Now()
	at(clock, start, 0)
	var hits atomic.Uint64
	b := NewBudget(100_000, &hits)
	r.SetBudgets(b)
	p := run(make([]byte, 1000))
	for range 150 {
		if !table.Forward(path, 0x4000, p) {
			t.Fatal("a channel over its budget looks unbound")
		}
	}
	if up, limited := r.Stats().PacketsUp.Load(), r.Stats().LimitedUp.Load(); up != 100 || limited != 50 {
		t.Errorf("up: got %d passed and %d dropped, want 100 and 50", up, limited)
	}
	at(clock, start, 100*time.Millisecond)
	for range 20 {
		table.Forward(path, 0x4000, p)
	}
	if up := r.Stats().PacketsUp.Load(); up != 110 {
		t.Errorf("after 100 ms: got %d, want 110", up)
	}
	b.SetRate(1_000_000) // a reload
	at(clock, start, 200*time.Millisecond)
	for range 50 {
		table.Forward(path, 0x4000, p)
	}
	if up := r.Stats().PacketsUp.Load(); up != 160 {
		t.Errorf("after the rate was raised: got %d, want 160", up)
	}
	r.SetBudgets()
	for range 5000 {
		table.Forward(path, 0x4000, p)
	}
	if up := r.Stats().PacketsUp.Load(); up != 5160 {
		t.Errorf("without a budget: got %d, want 5160", up)
	}
}

func TestABudgetDoesNotAllocate(t *testing.T) {
	table, path, r := bound(t)
	var hits atomic.Uint64
	r.SetBudgets(NewBudget(1<<20, &hits), NewBudget(1<<20, &hits), NewBudget(1<<30, &hits))
	p := run(make([]byte, 1200))
	if n := testing.AllocsPerRun(2000, func() { table.Forward(path, 0x4000, p) }); n != 0 {
		t.Errorf("Forward under budgets: %v allocations per datagram, want 0", n)
	}
	if hits.Load() == 0 {
		t.Error("no datagram met a limit: half of the promise was not tried")
	}
}
