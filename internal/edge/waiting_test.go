package edge

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Those who stall are pushed out, the oldest first, and an honest client of the same
// address comes in at any time.
func TestStalledConnectionsMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		w := start(t, ln, func(o *Options) { o.Caps = NewCaps(CapNumbers{HalfOpenPerSource: 10}) })
		var mu sync.Mutex // guards cut
		var cut []int
		stalled := make([]net.Conn, 50)
		for i := range stalled {
			stalled[i] = ln.dial()
			go func() {
				io.Copy(io.Discard, stalled[i])
				mu.Lock()
				defer mu.Unlock()
				cut = append(cut, i)
			}()
			synctest.Wait()
			if i%10 == 9 {
				honest := tls.Client(ln.dial(), w.tlsConfig("http/1.1"))
				roundTrip(t, honest)
				t.Cleanup(func() { honest.Close() })
			}
		}
		synctest.Wait()
		mu.Lock()
		if !slices.IsSorted(cut) || len(cut) != 40+1 {
			t.Errorf("cut were %v, want the oldest 40 in their order, and one for an honest client", cut)
		}
		mu.Unlock()
		if got := w.opts.Caps.HalfOpen(); got != 9 {
			t.Errorf("%d half-open connections, want 9", got)
		}
		if got := w.rejected(tooManyHalfOpenOfSource); got != 41 {
			t.Errorf("%d counted as pushed out, want 41", got)
		}
		time.Sleep(DefaultTimeouts.Prove + time.Second)
		if q := w.opts.Caps.halfOpen; q.count() != 0 || len(q.bySource) != 0 {
			t.Errorf("%d connections and %d sources are still in the queue", q.count(), len(q.bySource))
		}
	})
}

func TestWaiting(t *testing.T) {
	a, b := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
	q := newWaiting(4, 2)
	var out []string
	enter := func(name string, source netip.Prefix) *waiter {
		w := &waiter{out: func(why reason) { out = append(out, fmt.Sprintf("%s %s", name, why)) }}
		q.enter(w)
		if source.IsValid() {
			q.countSource(w, source)
		}
		return w
	}
	a1 := enter("a1", a)
	enter("a2", a)
	enter("a3", a) // pushes a1 out
	q.leave(a1)    // which then leaves by itself
	enter("b1", b)
	unknown := enter("u1", netip.Prefix{})
	enter("b2", b) // the queue is full: a2 is the oldest
	q.set(1, 1)
	enter("b3", b) // a lowered bound pushes one out for one that comes, in all and of the source
	q.countSource(unknown, a)
	if want := []string{"a1 source_half_open", "a2 half_open", "a3 half_open", "b1 source_half_open"}; !slices.Equal(out, want) {
		t.Errorf("pushed out: %v, want %v", out, want)
	}
	q.set(0, 0)
	for range 1000 {
		enter("any", a)
	}
	if len(out) != 4 || q.count() != 1003 {
		t.Errorf("without bounds %d are in and %d pushed out, want 1003 and 4", q.count(), len(out))
	}
	pushed := enter("late", b)
	q.leave(pushed)
	q.countSource(pushed, b) // came too late: counts for nobody
	if pushed.of != nil {
		t.Error("who has left is counted for his source")
	}
}

func TestHandshakesOfASource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		w := start(t, ln, func(o *Options) { o.Caps = NewCaps(CapNumbers{HandshakesPerSource: 2, HandshakeBurst: 3}) })
		count := func() (in int) {
			for range 10 {
				stalled := ln.dial() // costs nothing
				t.Cleanup(func() { stalled.Close() })
				c := tls.Client(ln.dial(), w.tlsConfig("http/1.1"))
				t.Cleanup(func() { c.NetConn().Close() })
				if c.Handshake() == nil {
					in++
				}
			}
			synctest.Wait()
			return in
		}
		for _, step := range []struct {
			name string
			want int
		}{{"at once", 3}, {"a second later", 2}, {"without a limit", 10}} {
			if got := count(); got != step.want {
				t.Errorf("%s: %d of 10 handshakes, want %d", step.name, got, step.want)
			}
			if step.want == 2 {
				w.opts.Caps.Set(CapNumbers{})
			}
			time.Sleep(time.Second)
		}
		if got := w.rejected(tooFast); got != 7+8 {
			t.Errorf("%d counted as refused, want 15", got)
		}
	})
}

// A proxy that many clients stand behind is not one client.
func TestSharedSources(t *testing.T) {
	w := start(t, nil, func(o *Options) {
		o.Caps = NewCaps(CapNumbers{ConnsPerSource: 1, HalfOpenPerSource: 1, HandshakesPerSource: 1})
		o.Shared = []netip.Prefix{netip.MustParsePrefix("::ffff:127.0.0.0/104")}
	})
	for range 5 {
		roundTrip(t, w.dialTLS(t, "http/1.1"))
	}
}

func TestOnClose(t *testing.T) {
	w := start(t, nil, nil)
	w.dial(t).Write(binding)
	call := w.nextTURN(t)
	calls := 0
	if !OnClose(call.conn, func() { t.Error("a replaced function is called") }) || !OnClose(call.conn, func() { calls++ }) {
		t.Fatal("the connection is not known")
	}
	call.conn.Close()
	call.conn.Close()
	if calls != 1 {
		t.Errorf("called %d times, want once", calls)
	}
	if OnClose(call.conn, func() { calls++ }); calls != 2 {
		t.Error("not called for a connection that is closed already")
	}
	if a, b := net.Pipe(); OnClose(a, nil) || OnClose(b, nil) {
		t.Error("a connection of somebody else's is known")
	}
}
