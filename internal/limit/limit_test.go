package limit

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestSource(t *testing.T) {
	for _, c := range []struct{ name, addr, want string }{
		{"an IPv4 address stands for itself", "203.0.113.7", "203.0.113.7/32"},
		{"an IPv4-mapped address is the IPv4 address", "::ffff:203.0.113.7", "203.0.113.7/32"},
		{"an IPv6 address stands for its /64", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"a zone does not make another source", "fe80::1%eth0", "fe80::/64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Source(netip.MustParseAddr(c.addr)).String(); got != c.want {
				t.Errorf("Source(%s) = %s, want %s", c.addr, got, c.want)
			}
		})
	}
	if got := Source(netip.Addr{}); got != (netip.Prefix{}) {
		t.Errorf("Source of no address = %v, want the zero Prefix", got)
	}
}

func TestCap(t *testing.T) {
	c := NewCap(2)
	for i := range 2 {
		if !c.Acquire() {
			t.Fatalf("slot %d of two was refused", i+1)
		}
	}
	if c.Acquire() {
		t.Error("a third slot of two was granted")
	}
	if got := c.Held(); got != 2 {
		t.Errorf("Held after a refusal = %d, want 2", got)
	}
	c.Release()
	if !c.Acquire() {
		t.Error("a released slot was not granted again")
	}
	c.SetMax(0)
	if !c.Acquire() {
		t.Error("refused without a bound")
	}
	c.SetMax(1)
	if c.Acquire() {
		t.Error("granted above a lowered bound")
	}
}

func TestKeyedCapHoldsPerKey(t *testing.T) {
	a, b := prefix("192.0.2.1"), prefix("192.0.2.2")
	c := NewKeyedCap[netip.Prefix](2)
	for range 2 {
		if !c.Acquire(a) {
			t.Fatal("a slot within the bound was refused")
		}
	}
	if c.Acquire(a) {
		t.Error("a third slot of two was granted")
	}
	if !c.Acquire(b) {
		t.Error("one key's slots counted against another key")
	}
	c.Release(a)
	if got := c.Held(a); got != 1 {
		t.Errorf("Held = %d, want 1", got)
	}
	c.Release(a)
	c.Release(b)
	if got := c.Keys(); got != 0 {
		t.Errorf("%d keys remembered after the last Release, want 0", got)
	}
}

func TestReleaseWithoutAcquirePanics(t *testing.T) {
	for name, release := range map[string]func(){
		"Cap":      func() { NewCap(1).Release() },
		"KeyedCap": func() { NewKeyedCap[int](1).Release(7) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			release()
		})
	}
}

// Many goroutines on few keys: the bound is never exceeded and nothing is lost.
func TestCapsUnderConcurrency(t *testing.T) {
	const bound = 3
	total, keyed := NewCap(bound), NewKeyedCap[int](bound)
	var now [4]atomic.Int64
	var all atomic.Int64
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 2000 {
				k := (g + i) % len(now)
				if keyed.Acquire(k) {
					if n := now[k].Add(1); n > bound {
						t.Errorf("key %d holds %d slots, want at most %d", k, n, bound)
					}
					now[k].Add(-1)
					keyed.Release(k)
				}
				if total.Acquire() {
					if n := all.Add(1); n > bound {
						t.Errorf("%d slots held, want at most %d", n, bound)
					}
					all.Add(-1)
					total.Release()
				}
			}
		})
	}
	wg.Wait()
	if total.Held() != 0 || keyed.Keys() != 0 {
		t.Errorf("left over: %d slots, %d keys; want none", total.Held(), keyed.Keys())
	}
}

func TestKeyedRateRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewKeyedRate[string](2, 3, 100)
		for i := range 3 {
			if !r.Allow("a") {
				t.Fatalf("event %d of a burst of 3 was refused", i+1)
			}
		}
		if r.Allow("a") {
			t.Error("a fourth event of a burst of 3 was allowed")
		}
		if !r.Allow("b") {
			t.Error("one key's events counted against another key")
		}
		if got, want := r.RetryAfter("a"), 500*time.Millisecond; got != want {
			t.Errorf("RetryAfter = %v, want %v", got, want)
		}
		time.Sleep(r.RetryAfter("a"))
		if !r.Allow("a") {
			t.Error("refused after RetryAfter had passed")
		}
		if got := r.RetryAfter("never seen"); got != 0 {
			t.Errorf("RetryAfter of an unknown key = %v, want 0", got)
		}
	})
}

func TestKeyedRateForgetsTheLeastRecentlyUsed(t *testing.T) {
	const keys = 64
	r := NewKeyedRate[int](1, 1, keys)
	for k := range 10 * keys {
		r.Allow(k)
		r.Allow(-1) // stays in use all the time
	}
	if got := r.Keys(); got > keys {
		t.Errorf("%d keys remembered, want at most %d", got, keys)
	}
	if r.Allow(-1) {
		t.Error("a key in constant use was forgotten: its spent bucket is full again")
	}
	if !r.Allow(0) {
		t.Error("a key unused for long was still remembered")
	}
}

func TestKeyedRateSetLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewKeyedRate[int](1, 1, 10)
		r.Allow(1)
		r.SetLimit(100, 5)
		time.Sleep(20 * time.Millisecond)
		for i := range 2 {
			if !r.Allow(1) {
				t.Errorf("event %d after 20 ms at 100 a second was refused: a known key did not get the new rate", i+1)
			}
		}
		r.SetLimit(0, 0)
		for range 100 {
			if !r.Allow(1) {
				t.Fatal("refused without a limit")
			}
		}
	})
}

// A decision about a known key is on the path of every datagram and connection.
func TestDecisionsDoNotAllocate(t *testing.T) {
	p := prefix("2001:db8::1")
	rate := NewKeyedRate[netip.Prefix](1e9, 1e9, 100)
	rate.Allow(p)
	conns := NewKeyedCap[netip.Prefix](100)
	conns.Acquire(p)
	now := time.Now()
	for name, f := range map[string]func(){
		"KeyedRate.AllowAt":            func() { rate.AllowAt(p, now) },
		"KeyedCap.Acquire and Release": func() { conns.Acquire(p); conns.Release(p) },
		"Source":                       func() { p = Source(p.Addr()) },
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

func prefix(addr string) netip.Prefix { return Source(netip.MustParseAddr(addr)) }

func BenchmarkKeyedRate(b *testing.B) {
	for _, c := range []struct {
		name string
		keys int
	}{{"keys=1", 1}, {"keys=10000", 10_000}, {"keys=100000/evicting", 100_000}} {
		b.Run(c.name, func(b *testing.B) {
			r := NewKeyedRate[netip.Prefix](1, 10, 20_000)
			sources := make([]netip.Prefix, c.keys)
			for i := range sources {
				sources[i] = Source(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
			}
			now := time.Now()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r.AllowAt(sources[i%len(sources)], now)
			}
		})
	}
}

func BenchmarkKeyedCap(b *testing.B) {
	c := NewKeyedCap[netip.Prefix](10)
	p := prefix("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		c.Acquire(p)
		c.Release(p)
	}
}

func TestForgetGivesAFullBucket(t *testing.T) {
	r := NewKeyedRate[string](1.0/60, 3, 100)
	now := time.Now()
	for range 3 {
		r.AllowAt("a", now)
	}
	if r.AllowAt("a", now) {
		t.Fatal("a fourth event of three passed")
	}
	r.Forget("a")
	r.Forget("nobody knows it")
	for i := range 3 {
		if !r.AllowAt("a", now) {
			t.Errorf("event %d after Forget: refused, want the whole burst again", i+1)
		}
	}
	if r.AllowAt("a", now) {
		t.Error("a fourth event after Forget passed")
	}
}
