package turn_test

import (
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/offload"
)

// engine is a kernel packet path that relays nothing and says what it has
// carried when it is told so.
type engine struct {
	mu      sync.Mutex
	bound   map[offload.Key]offload.Binding
	carried map[offload.Key]offload.Counters
	refuse  error
	adds    int
}

func newEngine() *engine {
	return &engine{bound: make(map[offload.Key]offload.Binding), carried: make(map[offload.Key]offload.Counters)}
}

func (e *engine) Add(b offload.Binding) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.adds++
	if e.refuse != nil {
		delete(e.bound, b.Key)
		delete(e.carried, b.Key)
		return e.refuse
	}
	e.bound[b.Key] = b
	return nil
}

func (e *engine) Remove(k offload.Key) offload.Counters {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.carried[k]
	delete(e.bound, k)
	delete(e.carried, k)
	return c
}

func (e *engine) Stats(k offload.Key) offload.Counters {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.carried[k]
}

func (e *engine) Refresh() {}

func (e *engine) Status() offload.Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return offload.Status{Mode: offload.Native, Bindings: len(e.bound), Interfaces: []string{"eth0"}}
}

func (e *engine) Close() error { return nil }

// carry says that each binding has carried more by now.
func (e *engine) carry(c offload.Counters) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k := range e.bound {
		e.carried[k] = offload.Counters{
			PacketsUp: e.carried[k].PacketsUp + c.PacketsUp, BytesUp: e.carried[k].BytesUp + c.BytesUp,
			PacketsDown: e.carried[k].PacketsDown + c.PacketsDown, BytesDown: e.carried[k].BytesDown + c.BytesDown,
		}
	}
}

// all returns what is installed.
func (e *engine) all() (all []offload.Binding) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, b := range e.bound {
		all = append(all, b)
	}
	return all
}

// one returns the only binding that is installed.
func (e *engine) one(t testing.TB) offload.Binding {
	t.Helper()
	all := e.all()
	if len(all) != 1 {
		t.Fatalf("%d channels in the kernel, want 1: %+v", len(all), all)
	}
	return all[0]
}

func (e *engine) none(t testing.TB, when string) {
	t.Helper()
	if all := e.all(); len(all) != 0 {
		t.Errorf("%s: in the kernel are %+v, want nothing", when, all)
	}
}

// offloaded starts a server with an engine, and a client with a channel.
func offloaded(t testing.TB, change func(*turn.Options)) (*turn.Server, *engine, *roamer, turn.Options) {
	t.Helper()
	e := newEngine()
	var o turn.Options
	s, addr := start(t, func(now *turn.Options) {
		withMobility(now)
		now.Offload = e
		relays := netip.MustParseAddr("127.0.0.5") // the peer is elsewhere
		now.Addresses = []turn.Address{{External: relays, Local: relays}}
		if change != nil {
			change(now)
		}
		o = *now
	})
	return s, e, newRoamer(t, site{server: s, network: "udp", addr: addr}), o
}

func near(t testing.TB, what string, got time.Time, left time.Duration) {
	t.Helper()
	if d := time.Until(got) - left; d < -30*time.Second || d > time.Second {
		t.Errorf("%s: %v left, want %v", what, time.Until(got), left)
	}
}

func TestAChannelIsInTheKernelAsLongAsItIsBound(t *testing.T) {
	s, e, r, _ := offloaded(t, nil)
	b := e.one(t)
	want := offload.Key{Client: r.LocalAddr(), Server: r.site.addr, Channel: roamingChannel}
	if b.Key != want || b.Relay != r.relayed || b.Peer != r.peer.Addr() {
		t.Errorf("in the kernel is %+v, want %+v from %v to %v", b, want, r.relayed, r.peer.Addr())
	}
	near(t, "to the peer", b.Up, 10*time.Minute)
	near(t, "to the client", b.Down, 5*time.Minute)
	if got := s.Sessions()[0].InKernel; got != 1 {
		t.Errorf("the session has %d channels in the kernel, want 1", got)
	}

	// The allocation lasts as long as the channel, and was made before it.
	must(t, errOnly(r.Client.Refresh(within(t), 3600)))
	b = e.one(t)
	must(t, r.CreatePermission(within(t), r.peer.Addr()))
	must(t, r.ChannelBind(within(t), roamingChannel, r.peer.Addr()))
	if again := e.one(t); !again.Up.After(b.Up) || !again.Down.After(b.Down) {
		t.Errorf("renewed until %v and %v, before %v and %v", again.Up, again.Down, b.Up, b.Down)
	}
	must(t, r.ChannelBind(within(t), 0x4002, netip.AddrPortFrom(r.peer.Addr().Addr(), 9)))
	if got := len(e.all()); got != 2 {
		t.Errorf("%d channels in the kernel, want 2", got)
	}
	_, err := r.Refresh(within(t), 0)
	must(t, err)
	waitFor(t, s, 0)
	e.none(t, "after the client has released it")
}

func TestAChannelLeavesTheKernelAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, s *turn.Server, r *roamer, o turn.Options)
	}{
		{"when its session is kicked", func(t *testing.T, s *turn.Server, _ *roamer, _ turn.Options) {
			if n := s.Kick(func(turn.Session) bool { return true }); n != 1 {
				t.Errorf("%d kicked, want 1", n)
			}
		}},
		{"when a reload denies its peer", func(t *testing.T, s *turn.Server, _ *roamer, o turn.Options) {
			o.Allow = nil
			must(t, s.Reconfigure(o))
		}},
		{"when a reload limits bandwidth", func(t *testing.T, s *turn.Server, _ *roamer, o turn.Options) {
			o.Limits.BytesPerSecond = 1e9
			must(t, s.Reconfigure(o))
		}},
		{"when a reload switches the kernel path off", func(t *testing.T, s *turn.Server, _ *roamer, o turn.Options) {
			o.Offload = offload.None{Why: "off"}
			must(t, s.Reconfigure(o))
		}},
		{"when the server is closed", func(t *testing.T, s *turn.Server, _ *roamer, _ turn.Options) { must(t, s.Close()) }},
		{"when its client moves to TCP", func(t *testing.T, s *turn.Server, r *roamer, _ turn.Options) {
			there := site{server: s, network: "tcp", addr: r.site.addr}.dial(t)
			r.asks(t, there, r.ticket, 0)
			r.says(t, there, "here I am")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, e, r, o := offloaded(t, nil)
			e.one(t)
			e.carry(offload.Counters{PacketsUp: 3, BytesUp: 300, PacketsDown: 2, BytesDown: 20})
			tt.do(t, s, r, o)
			e.none(t, tt.name)
			if up, down := metric(t, s, "turngate_turn_offload_packets_total", "direction", "up"), metric(t, s, "turngate_turn_offload_bytes_total", "direction", "down"); up != 3 || down != 20 {
				t.Errorf("carried in the kernel: %v datagrams up and %v bytes down, want 3 and 20", up, down)
			}
		})
	}
}

func TestAClientThatMovesTakesItsChannelAlong(t *testing.T) {
	_, e, r, _ := offloaded(t, nil)
	there := r.site.dial(t)
	r.asks(t, there, r.ticket, 0)
	if got := e.one(t).Client; got != r.LocalAddr() {
		t.Errorf("before it is heard the client is %v, want %v", got, r.LocalAddr())
	}
	r.says(t, there, "here I am")
	if got := e.one(t).Client; got != there.LocalAddr() {
		t.Errorf("the client is %v, want %v", got, there.LocalAddr())
	}
}

func TestWhatTheKernelCannotDecideStaysInUserSpace(t *testing.T) {
	t.Run("clients over TCP", func(t *testing.T) {
		s, e, r, _ := offloaded(t, nil)
		e.one(t)
		newRoamer(t, site{server: s, network: "tcp", addr: r.site.addr})
		e.one(t)
	})
	t.Run("limits of bandwidth", func(t *testing.T) {
		for _, l := range []turn.Limits{{BytesPerSecond: 1e9}, {BytesPerSecondPerUser: 1e9}, {BytesPerSecondPerAllocation: 1e9}} {
			s, e, _, o := offloaded(t, func(o *turn.Options) { o.Limits = l })
			e.none(t, "limited")
			o.Limits = turn.Limits{}
			must(t, s.Reconfigure(o))
			e.one(t)
		}
	})
	t.Run("another client of this server", func(t *testing.T) {
		_, e, r, _ := offloaded(t, nil)
		_, relayed := r.site.allocated(t)
		must(t, r.ChannelBind(within(t), 0x4002, relayed))
		if got := e.one(t).Peer; got != r.peer.Addr() {
			t.Errorf("the peer in the kernel is %v, want %v only", got, r.peer.Addr())
		}
	})
	t.Run("what the engine refuses, until it is renewed", func(t *testing.T) {
		s, e, r, _ := offloaded(t, nil)
		e.carry(offload.Counters{PacketsUp: 5, BytesUp: 50})
		e.mu.Lock()
		e.refuse = errors.New("full")
		e.mu.Unlock()
		must(t, r.ChannelBind(within(t), roamingChannel, r.peer.Addr()))
		e.none(t, "refused")
		r.says(t, r.Client, "through user space")
		ses := s.Sessions()[0]
		if ses.InKernel != 0 || ses.PacketsUp != 6 || ses.BytesUp != 50+18 {
			t.Errorf("session %+v: want 6 datagrams and 68 bytes up, none in the kernel", ses)
		}
		if got := metric(t, s, "turngate_turn_offload_refused_total"); got != 1 {
			t.Errorf("refused %v, want 1", got)
		}
		e.mu.Lock()
		e.refuse = nil
		e.mu.Unlock()
		must(t, r.ChannelBind(within(t), roamingChannel, r.peer.Addr()))
		e.one(t)
		e.carry(offload.Counters{PacketsUp: 1, BytesUp: 10})
		if ses := s.Sessions()[0]; ses.PacketsUp != 7 || ses.BytesUp != 78 {
			t.Errorf("session %+v: want 7 datagrams and 78 bytes up", ses)
		}
	})
}

func TestWhatTheKernelCarriesCountsLikeAnything(t *testing.T) {
	s, e, r, o := offloaded(t, nil)
	r.says(t, r.Client, "user space")
	e.carry(offload.Counters{PacketsUp: 100, BytesUp: 100000, PacketsDown: 7, BytesDown: 70})
	check := func(up, bytes uint64) {
		t.Helper()
		if ses := s.Sessions()[0]; ses.PacketsUp != up || ses.BytesUp != bytes || ses.PacketsDown != 7 || ses.BytesDown != 70 {
			t.Errorf("session %+v: want %d datagrams and %d bytes up, 7 and 70 down", ses, up, bytes)
		}
		if got := metric(t, s, "turngate_turn_packets_total", "direction", "up"); got != float64(up) {
			t.Errorf("metric of datagrams up %v, want %d", got, up)
		}
	}
	check(101, 100010)
	check(101, 100010) // and not twice
	e.carry(offload.Counters{PacketsUp: 1, BytesUp: 1})
	check(102, 100011)
	// Another engine begins to count at zero.
	next := newEngine()
	o.Offload = next
	must(t, s.Reconfigure(o))
	next.one(t)
	e.none(t, "replaced")
	next.carry(offload.Counters{PacketsUp: 1, BytesUp: 1})
	check(103, 100012)
	if got := metric(t, s, "turngate_turn_offload_packets_total", "direction", "up"); got != 102 {
		t.Errorf("datagrams in the kernel %v, want 102", got)
	}
	s.Kick(func(turn.Session) bool { return true })
	if got := metric(t, s, "turngate_turn_packets_total", "direction", "up"); got != 103 {
		t.Errorf("metric of datagrams up after the end %v, want 103", got)
	}
}
