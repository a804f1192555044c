package turn

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/turngate/turngate/turn/offload"
)

// inKernel are the channels of a leg that the kernel relays. They follow what
// the relay's tables say: whoever changes a table calls sync afterwards.
type inKernel struct {
	// mu is taken after s.mu and ses.mu, and neither of them while it is held.
	mu    sync.Mutex
	bound map[uint16]*installed // by channel
}

// installed is a channel that was given to the kernel.
type installed struct {
	offload.Binding
	engine  offload.Engine
	refused bool             // it was not taken, and is offered again when it is renewed
	seen    offload.Counters // and added to the relay's
}

// kernelCarried sums what the kernel carried; up first.
type kernelCarried struct {
	packets, bytes [2]atomic.Uint64
	refused        atomic.Uint64 // bindings that the engine did not take
}

// engine returns the engine of the settings.
func (set *settings) engine() offload.Engine {
	if set.Offload == nil {
		return offload.None{}
	}
	return set.Offload
}

// Offload describes the kernel packet path.
func (s *Server) Offload() offload.Status { return s.settings.Load().engine().Status() }

// sync brings the kernel in line with what may be relayed now.
func (l *leg) sync() {
	l.kernel.mu.Lock()
	defer l.kernel.mu.Unlock()
	engine := l.ses.s.settings.Load().engine()
	wanted := l.forKernel()
	for channel, have := range l.kernel.bound {
		w, ok := wanted[channel]
		if !ok || have.engine != engine || w.Key != have.Key || w.Relay != have.Relay || w.Peer != have.Peer {
			if !have.refused {
				l.fold(have, have.engine.Remove(have.Key))
			}
			delete(l.kernel.bound, channel)
		}
	}
	for channel, w := range wanted {
		have := l.kernel.bound[channel]
		switch {
		case have == nil:
			have = &installed{engine: engine, refused: true}
			if l.kernel.bound == nil {
				l.kernel.bound = make(map[uint16]*installed)
			}
			l.kernel.bound[channel] = have
		case have.Up.Equal(w.Up) && have.Down.Equal(w.Down):
			continue
		}
		l.offer(have, w)
	}
}

// offer gives a channel to its engine, or renews it there. l.kernel.mu is held.
func (l *leg) offer(have *installed, w offload.Binding) {
	if !have.refused {
		l.fold(have, have.engine.Stats(have.Key)) // lost if it is refused now
	}
	err := have.engine.Add(w)
	if err != nil {
		l.ses.s.kernel.refused.Add(1)
		l.ses.log.Debug("channel stays in user space", "channel", w.Channel, "peer", w.Peer, "err", err)
	}
	if have.refused || err != nil {
		have.seen = offload.Counters{} // an engine counts from zero
	}
	have.Binding, have.refused = w, err != nil
}

// forKernel returns the channels that the kernel may relay: between a UDP
// client who is there and a UDP peer elsewhere, without a limit of bytes a
// second, which only user space keeps.
func (l *leg) forKernel() map[uint16]offload.Binding {
	set, at := l.ses.s.settings.Load(), l.ses.at.Load()
	if _, none := set.engine().(offload.None); none || l.gone.Load() || set.Limits.bytes() || isTrial(l.ses.user) ||
		at.tuple.transport != UDP || at.tuple.away != 0 {
		return nil
	}
	permits, channels := l.relay.State()
	if len(channels) == 0 {
		return nil
	}
	permitted := make(map[netip.Addr]time.Time, len(permits))
	for _, p := range permits {
		permitted[p.Peer] = p.Until
	}
	local := l.relay.Local()
	expires := *l.expires.Load()
	wanted := make(map[uint16]offload.Binding, len(channels))
	for _, c := range channels {
		if set.isExternal(c.Peer.Addr()) { // another client of ours: see deliver
			continue
		}
		up := earlier(c.Until, expires)
		wanted[c.Channel] = offload.Binding{
			Key:   offload.Key{Client: at.tuple.client, Server: at.tuple.server, Channel: c.Channel},
			Relay: local,
			Peer:  c.Peer,
			Up:    up,
			Down:  earlier(up, permitted[c.Peer.Addr()]), // RFC 8656 section 12.7
		}
	}
	return wanted
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// bytes reports whether a limit of bytes a second is set.
func (l Limits) bytes() bool {
	return l.BytesPerSecondPerAllocation > 0 || l.BytesPerSecondPerUser > 0 || l.BytesPerSecond > 0
}

// carriedInKernel adds what the kernel has carried since the last call to the
// relay's counters, so that whoever reads those next sees all.
func (l *leg) carriedInKernel() {
	l.kernel.mu.Lock()
	defer l.kernel.mu.Unlock()
	for _, have := range l.kernel.bound {
		if !have.refused {
			l.fold(have, have.engine.Stats(have.Key))
		}
	}
}

// fold adds what is new in a reading. l.kernel.mu is held.
func (l *leg) fold(have *installed, now offload.Counters) {
	if now.PacketsUp < have.seen.PacketsUp || now.PacketsDown < have.seen.PacketsDown {
		return // nothing could be read
	}
	d := now.Sub(have.seen)
	have.seen = now
	st, sum := l.relay.Stats(), &l.ses.s.kernel
	for _, c := range []struct {
		relay, sum *atomic.Uint64
		n          uint64
	}{
		{&st.PacketsUp, &sum.packets[0], d.PacketsUp}, {&st.PacketsDown, &sum.packets[1], d.PacketsDown},
		{&st.BytesUp, &sum.bytes[0], d.BytesUp}, {&st.BytesDown, &sum.bytes[1], d.BytesDown},
	} {
		if c.n > 0 {
			c.relay.Add(c.n)
			c.sum.Add(c.n)
		}
	}
}

// inKernel returns how many channels of a leg the kernel relays.
func (l *leg) inKernel() (n int) {
	l.kernel.mu.Lock()
	defer l.kernel.mu.Unlock()
	for _, have := range l.kernel.bound {
		if !have.refused {
			n++
		}
	}
	return n
}

// sync brings the kernel in line with all of a session.
func (ses *session) sync() {
	for _, l := range ses.legs {
		l.sync()
	}
}
