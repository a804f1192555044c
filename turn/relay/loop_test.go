package relay

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// Many relays on one loop: each client hears its own peers, while others come and go.
func TestALoopReadsManyRelays(t *testing.T) {
	loops := NewLoops(1)
	defer loops.Close()
	peer, from := udp(t)
	until := time.Now().Add(time.Hour)
	open := func(out Egress) *Relay {
		r, _ := newRelay(t, out, func(o *Options) { o.Loops = loops })
		r.Permit(from.Addr(), until)
		start(t, r)
		return r
	}
	quit := make(chan struct{})
	var churn sync.WaitGroup
	churn.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			conn, addr := udp(t)
			r, err := New(Options{Conn: conn, Egress: discard{}, Loops: loops, Clock: NewClock(), Relayed: addr})
			if err != nil {
				t.Error(err)
				return
			}
			started := make(chan error, 1)
			go func() { started <- r.Start() }()
			r.Close()
			if err := <-started; err != nil {
				t.Errorf("Start: %v", err)
			}
		}
	})
	type client struct {
		*Relay
		out *sink
	}
	var all []client
	for range 100 {
		out := newSink()
		all = append(all, client{open(out), out})
	}
	for round := range 5 {
		for i, c := range all {
			peer.WriteToUDPAddrPort(fmt.Appendf(nil, "%d to %d", round, i), c.Relayed())
		}
		for i, c := range all {
			if got, want := string(c.out.next(t)), fmt.Sprintf("from %v: %d to %d", from, round, i); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	}
	close(quit)
	churn.Wait()
}

// A relay may end itself by what it hears, before it starts, and after its loops.
func TestRelaysEndInAnyOrder(t *testing.T) {
	loops := NewLoops(1)
	early, _ := newRelay(t, discard{}, func(o *Options) { o.Loops = loops })
	early.Close()
	if err := early.Start(); err != nil {
		t.Errorf("Start of a relay that has ended: %v", err)
	}
	peer, from := udp(t)
	var self *Relay
	ended := make(chan error, 1)
	self, _ = newRelay(t, endAtOnce(func() { ended <- self.Close() }), func(o *Options) { o.Loops = loops })
	self.Permit(from.Addr(), time.Now().Add(time.Hour))
	start(t, self)
	peer.WriteToUDPAddrPort([]byte("x"), self.Relayed())
	if err := <-ended; err != nil {
		t.Errorf("Close: %v", err)
	}
	late, _ := newRelay(t, discard{}, func(o *Options) { o.Loops = loops })
	start(t, late)
	loops.Close()
	late.Close()
	if _, err := loops.watch(late.socket, late.handle); err == nil {
		t.Error("closed loops watch a socket")
	}
}

type endAtOnce func()

func (f endAtOnce) Send([]Frame) { f() }
