package ports

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func allocator(t testing.TB, o Options) *Allocator {
	t.Helper()
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// drain takes ports until none is left.
func drain(t testing.TB, take func() (uint16, error)) []uint16 {
	t.Helper()
	var out []uint16
	for {
		p, err := take()
		if errors.Is(err, ErrExhausted) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out = append(out, p); len(out) > 1<<16 {
			t.Fatal("more ports than there are")
		}
	}
}

func TestARangeOfNServesExactlyN(t *testing.T) {
	for _, r := range []struct{ min, max uint16 }{
		{20000, 20099}, {20001, 20001}, {1, 1}, {65535, 65535}, {1, 65535}, {20001, 20100}, {65534, 65535},
	} {
		t.Run(fmt.Sprintf("%d-%d", r.min, r.max), func(t *testing.T) {
			a := allocator(t, Options{Min: r.min, Max: r.max})
			n := int(r.max) - int(r.min) + 1
			for round := range 3 {
				got := drain(t, a.Take)
				slices.Sort(got)
				if len(got) != n || got[0] != r.min || got[n-1] != r.max || len(slices.Compact(got)) != n {
					t.Fatalf("round %d: %d ports from %d to %d, want each of %d to %d once", round, len(got), got[0], got[len(got)-1], r.min, r.max)
				}
				if s := a.Stats(); s != (Stats{Size: n, Taken: n}) {
					t.Fatalf("round %d: stats %+v with everything taken", round, s)
				}
				for _, p := range got {
					a.Return(p)
				}
				if s := a.Stats(); s != (Stats{Size: n, Free: n, Resting: n}) {
					t.Fatalf("round %d: stats %+v with everything returned", round, s)
				}
			}
		})
	}
}

func TestTheOrderIsRandom(t *testing.T) {
	one := drain(t, allocator(t, Options{Min: 20000, Max: 20999}).Take)
	two := drain(t, allocator(t, Options{Min: 20000, Max: 20999}).Take)
	if slices.Equal(one, two) || slices.IsSorted(one) {
		t.Error("ports come in an order that can be foretold")
	}
}

func TestAReturnedPortRestsWhileOthersAreFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := allocator(t, Options{Min: 20000, Max: 20009, Rest: 30 * time.Second})
		first, _ := a.Take()
		a.Return(first)
		time.Sleep(time.Second) // of the bubble's clock
		var got []uint16
		for range 9 {
			p, _ := a.Take()
			if p == first {
				t.Fatalf("port %d is handed out again although others are free", p)
			}
			got = append(got, p)
		}
		a.Return(got[0])
		time.Sleep(time.Second)
		a.Return(got[1])
		for i, want := range []uint16{first, got[0], got[1]} {
			if p, err := a.Take(); p != want {
				t.Fatalf("take %d from rest: port %d, %v, want the longest rested, %d", i, p, err, want)
			}
		}
		a.Return(first)
		time.Sleep(30 * time.Second)
		if s := a.Stats(); s != (Stats{Size: 10, Free: 1, Taken: 9}) {
			t.Errorf("after the rest: stats %+v, want one port free and none resting", s)
		}
	})
}

func TestABusyPortIsTriedAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := allocator(t, Options{Min: 20000, Max: 20001, Retry: 10 * time.Second})
		one, _ := a.Take()
		a.Busy(one)
		two, _ := a.Take()
		if two == one {
			t.Fatalf("the busy port %d is handed out at once", one)
		}
		if p, err := a.Take(); !errors.Is(err, ErrExhausted) {
			t.Fatalf("took %d, %v with one port taken and one busy, want ErrExhausted", p, err)
		}
		if s := a.Stats(); s != (Stats{Size: 2, Busy: 1, Taken: 1}) {
			t.Errorf("stats %+v, want one busy and one taken", s)
		}
		time.Sleep(10 * time.Second)
		if p, err := a.Take(); p != one || err != nil {
			t.Errorf("after the retry time: %d, %v, want %d", p, err, one)
		}
	})
}

func TestEvenPorts(t *testing.T) {
	a := allocator(t, Options{Min: 20001, Max: 20010})
	got := drain(t, a.TakeEven)
	slices.Sort(got)
	if want := []uint16{20002, 20004, 20006, 20008, 20010}; !slices.Equal(got, want) {
		t.Fatalf("even ports %v, want %v", got, want)
	}
	a.Return(20004)
	a.Return(20008)
	if p, err := a.TakeEven(); p != 20004 {
		t.Errorf("even port from rest: %d, %v, want the longest rested, 20004", p, err)
	}
}

func TestPairs(t *testing.T) {
	a := allocator(t, Options{Min: 20001, Max: 20008}) // 20001 and 20008 have no partner
	got := drain(t, a.TakePair)
	slices.Sort(got)
	if want := []uint16{20002, 20004, 20006}; !slices.Equal(got, want) {
		t.Fatalf("pairs at %v, want %v", got, want)
	}
	if s := a.Stats(); s.Taken != 6 || s.Free != 2 {
		t.Errorf("stats %+v, want both ports of three pairs taken", s)
	}
	a.Return(20004)
	if p, err := a.TakePair(); err == nil {
		t.Fatalf("pair at %d with half of it taken", p)
	}
	a.Return(20003)
	a.Return(20002) // complete before the next
	a.Return(20005)
	for i, want := range []uint16{20002, 20004} {
		if p, err := a.TakePair(); p != want {
			t.Errorf("pair %d from rest: %d, %v, want %d, the longest complete", i, p, err, want)
		}
	}
}

// TestEvenPortCyclesLoseNothing repeats EVEN-PORT allocate and release beyond
// the size of the range without any rest (compare GHSA-847g-qmc6-6m4r).
func TestEvenPortCyclesLoseNothing(t *testing.T) {
	a := allocator(t, Options{Min: 20000, Max: 20099})
	for i := range 1000 {
		p, err := a.TakePair()
		if err != nil {
			t.Fatalf("cycle %d: %v", i, err)
		}
		a.Return(p)
		a.Return(p + 1)
	}
	if s := a.Stats(); s.Free != 100 || s.Taken != 0 {
		t.Errorf("stats %+v, want all 100 free", s)
	}
}

func TestResizeKeepsTakenPorts(t *testing.T) {
	a := allocator(t, Options{Min: 20000, Max: 20003})
	old := drain(t, a.Take)
	if err := a.Resize(20002, 20007); err != nil {
		t.Fatal(err)
	}
	if s := a.Stats(); s != (Stats{Size: 6, Free: 4, Taken: 4}) {
		t.Errorf("stats %+v after Resize", s)
	}
	for _, p := range old {
		a.Return(p)
	}
	got := drain(t, a.Take)
	slices.Sort(got)
	if want := []uint16{20002, 20003, 20004, 20005, 20006, 20007}; !slices.Equal(got, want) {
		t.Errorf("ports %v, want %v", got, want)
	}
	for _, r := range []struct{ min, max uint16 }{{0, 9}, {9, 8}} {
		if err := a.Resize(r.min, r.max); err == nil {
			t.Errorf("Resize(%d, %d): no error", r.min, r.max)
		}
		if _, err := New(Options{Min: r.min, Max: r.max}); err == nil {
			t.Errorf("New for %d to %d: no error", r.min, r.max)
		}
	}
}

func TestClaim(t *testing.T) {
	a := allocator(t, Options{Min: 20000, Max: 20001})
	for _, p := range []uint16{20001, 999} {
		if err := a.Claim(p); err != nil {
			t.Errorf("Claim(%d): %v", p, err)
		}
		if err := a.Claim(p); err == nil {
			t.Errorf("Claim(%d) twice: no error", p)
		}
	}
	if err := a.Claim(0); err == nil {
		t.Error("Claim(0): no error")
	}
	if got := drain(t, a.Take); !slices.Equal(got, []uint16{20000}) {
		t.Errorf("ports left %v, want 20000", got)
	}
	a.Return(999)
	if p, err := a.Take(); err == nil {
		t.Errorf("the claimed port outside the range came back as %d", p)
	}
}

func TestReturnOfAPortThatIsNotTakenDoesNothing(t *testing.T) {
	a := allocator(t, Options{Min: 20000, Max: 20001})
	before := a.Stats()
	for _, p := range []uint16{0, 1, 20000, 20001, 65535} {
		a.Return(p)
		a.Busy(p)
	}
	if after := a.Stats(); after != before {
		t.Errorf("stats %+v, want %+v", after, before)
	}
}

func TestManyAtOnce(t *testing.T) {
	a := allocator(t, Options{Min: 20000, Max: 20063})
	var mu sync.Mutex
	owner := map[uint16]int{}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				var ps []uint16
				if i%3 == 0 {
					if p, err := a.TakePair(); err == nil {
						ps = append(ps, p, p+1)
					}
				} else if p, err := a.Take(); err == nil {
					ps = append(ps, p)
				}
				mu.Lock()
				for _, p := range ps {
					if by, ok := owner[p]; ok {
						t.Errorf("port %d belongs to %d and to %d", p, by, w)
					}
					owner[p] = w
				}
				mu.Unlock()
				mu.Lock()
				for _, p := range ps {
					delete(owner, p)
				}
				mu.Unlock()
				for _, p := range ps {
					a.Return(p)
				}
			}
		})
	}
	wg.Wait()
	if s := a.Stats(); s.Free != 64 || s.Taken != 0 {
		t.Errorf("stats %+v, want all 64 free", s)
	}
}

func BenchmarkTakeReturn(b *testing.B) {
	for _, max := range []uint16{20099, 65535} {
		b.Run(fmt.Sprintf("range=%d", int(max)-20000+1), func(b *testing.B) {
			a := allocator(b, Options{Min: 20000, Max: max})
			b.ReportAllocs()
			for b.Loop() {
				p, _ := a.Take()
				a.Return(p)
			}
		})
	}
}
