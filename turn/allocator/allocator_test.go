package allocator

import (
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// socket is a relay socket that relays nothing.
type socket struct {
	once   sync.Once
	closed chan struct{}
	refuse error // of Start
}

func newSocket() *socket { return &socket{closed: make(chan struct{})} }

func (s *socket) Start() error { return s.refuse }

func (s *socket) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *socket) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

var (
	relayed = netip.MustParseAddrPort("192.0.2.1:20000")
	peer    = netip.MustParseAddrPort("198.51.100.9:8000")
	peer6   = netip.MustParseAddrPort("[2001:db8::9]:8000")
)

func newAllocator(t *testing.T) *Allocator {
	t.Helper()
	a, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func TestAllocationLivesFromAllocateToRefreshZero(t *testing.T) {
	a := newAllocator(t)
	s := newSocket()
	ended := 0
	al, err := a.Allocate(s, relayed, time.Minute, func() { ended++ })
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Count(); got != 1 {
		t.Errorf("Count: got %d, want 1", got)
	}
	for _, step := range []struct {
		name string
		err  error
	}{
		{"permission", al.Permit(peer.Addr())},
		{"IPv6 permission", al.Permit(peer6.Addr())},
		{"channel", al.Bind(0x4000, peer)},
		{"channel again", al.Bind(0x4000, peer)},
		{"IPv6 channel", al.Bind(0x4001, peer6)},
		{"refresh", al.Refresh(time.Hour)},
	} {
		if step.err != nil {
			t.Errorf("%s: %v", step.name, step.err)
		}
	}
	for name, err := range map[string]error{
		"channel to another peer": al.Bind(0x4000, netip.MustParseAddrPort("198.51.100.9:8001")),
		"peer to another channel": al.Bind(0x4002, peer),
	} {
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s: got %v, want %v", name, err, ErrRefused)
		}
	}
	if err := al.Refresh(0); err != nil {
		t.Error(err)
	}
	if ended != 1 || !s.isClosed() || a.Count() != 0 {
		t.Errorf("after Refresh 0: ended %d times, socket closed %v, %d allocations; want 1, true, 0", ended, s.isClosed(), a.Count())
	}
	if err := al.Permit(peer.Addr()); err != ErrGone {
		t.Errorf("Permit afterwards: got %v, want %v", err, ErrGone)
	}
	if err := al.Refresh(time.Hour); err != ErrGone {
		t.Errorf("Refresh afterwards: got %v, want %v", err, ErrGone)
	}
	if err := al.Close(); err != nil || ended != 1 {
		t.Errorf("Close afterwards: %v, ended %d times; want no error and once", err, ended)
	}
}

// pion has a goroutine for each allocation, which has nothing to do here.
func TestAnAllocationHasNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := New()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		before := runtime.NumGoroutine()
		for range 10 {
			if _, err := a.Allocate(newSocket(), relayed, time.Minute, func() {}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := runtime.NumGoroutine() - before; got > 0 {
			t.Errorf("10 allocations: got %d goroutines more, want none", got)
		}
		if got := a.Count(); got != 10 {
			t.Errorf("Count: got %d, want 10", got)
		}
	})
}

func TestASocketThatDoesNotStartIsNoAllocation(t *testing.T) {
	a := newAllocator(t)
	s := newSocket()
	s.refuse = errors.New("no epoll")
	_, err := a.Allocate(s, relayed, time.Minute, func() { t.Error("ended was called") })
	if !errors.Is(err, ErrRefused) || !s.isClosed() || a.Count() != 0 {
		t.Errorf("got %v, socket closed %v, %d allocations; want %v, true, 0", err, s.isClosed(), a.Count(), ErrRefused)
	}
	if _, err := a.Allocate(newSocket(), relayed, time.Minute, func() {}); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

func TestAllocationEndsWhenItsTimeHasCome(t *testing.T) {
	for _, lifetime := range []time.Duration{time.Minute, 10 * time.Minute, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			a, err := New()
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			var at time.Time
			start := time.Now()
			s := newSocket()
			if _, err := a.Allocate(s, relayed, lifetime, func() { at = time.Now() }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(lifetime - time.Second)
			synctest.Wait()
			if s.isClosed() {
				t.Fatalf("lifetime %v: ended a second early", lifetime)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if got := at.Sub(start); got != lifetime {
				t.Errorf("ended after %v, want %v", got, lifetime)
			}
		})
	}
}

func TestRefreshedAllocationOutlivesPionsHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := New()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		s := newSocket()
		al, err := a.Allocate(s, relayed, time.Hour, func() {})
		if err != nil {
			t.Fatal(err)
		}
		for range 10 { // 550 minutes; pion's nonce expires on the way
			time.Sleep(55 * time.Minute)
			if err := al.Refresh(time.Hour); err != nil {
				t.Fatal(err)
			}
			if err := al.Permit(peer.Addr()); err != nil {
				t.Fatal(err)
			}
		}
		if s.isClosed() || a.Count() != 1 {
			t.Errorf("socket closed %v, %d allocations; want a live one", s.isClosed(), a.Count())
		}
	})
}

func TestCloseEndsEveryAllocation(t *testing.T) {
	a := newAllocator(t)
	var ended atomic.Int32
	sockets := make([]*socket, 100)
	for i := range sockets {
		sockets[i] = newSocket()
		if _, err := a.Allocate(sockets[i], relayed, time.Hour, func() { ended.Add(1) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for _, s := range sockets {
		<-s.closed
	}
	if _, err := a.Allocate(newSocket(), relayed, time.Hour, func() {}); err == nil {
		t.Error("Allocate after Close: got no error")
	}
}

// Requests, refreshes to zero and closes of many goroutines at once: pion must
// neither lose an allocation nor stop a timer that is not there.
func TestManyGoroutinesAtOnce(t *testing.T) {
	a := newAllocator(t)
	var ended atomic.Int32
	var wg sync.WaitGroup
	const workers, rounds = 8, 50
	for range workers {
		wg.Go(func() {
			for i := range rounds {
				al, err := a.Allocate(newSocket(), relayed, time.Hour, func() { ended.Add(1) })
				if err != nil {
					t.Error(err)
					return
				}
				var both sync.WaitGroup
				both.Go(func() {
					for c := range uint16(4) {
						_ = al.Bind(0x4000+c, netip.AddrPortFrom(peer.Addr(), 8000+c))
					}
				})
				if i%2 == 0 {
					_ = al.Close()
				} else {
					_ = al.Refresh(0)
				}
				both.Wait()
			}
		})
	}
	wg.Wait()
	if got := ended.Load(); got != workers*rounds {
		t.Errorf("ended: got %d, want %d", got, workers*rounds)
	}
	if got := a.Count(); got != 0 {
		t.Errorf("Count: got %d, want 0", got)
	}
}

func BenchmarkAllocator(b *testing.B) {
	a, err := New()
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	b.Run("allocate and release", func(b *testing.B) {
		for b.Loop() {
			al, err := a.Allocate(newSocket(), relayed, time.Hour, func() {})
			if err != nil {
				b.Fatal(err)
			}
			al.Close()
		}
	})
	b.Run("bind again", func(b *testing.B) {
		al, err := a.Allocate(newSocket(), relayed, time.Hour, func() {})
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := al.Bind(0x4000, peer); err != nil {
				b.Fatal(err)
			}
		}
	})
}
