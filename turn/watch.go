package turn

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/turngate/turngate/internal/limit"
)

// watchEvery is how often the server looks at itself: rates of sessions are
// the mean of so long.
const watchEvery = 5 * time.Second

// watch keeps what nobody's packet or request keeps: rates, bans that are
// over, and the log lines about limits that only the packet path meets.
func (s *Server) watch(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	var seen [limitNames]uint64
	for {
		select {
		case now := <-ticker.C:
			s.settings.Load().engine().Refresh()
			for _, ses := range s.snapshot() {
				sum := ses.traffic()
				ses.rates.observe(now, sum.bytes[0], sum.bytes[1])
				ses.sync() // what has expired
			}
			s.bans.sweep(now)
			s.logBandwidth(s.settings.Load().Log, &seen)
		case <-ctx.Done():
			return
		}
	}
}

// rates are the bytes a second of a session over the last interval.
type rates struct {
	mu               sync.Mutex // guards the fields below
	at               time.Time  // of the last look; at first when the session began
	lastUp, lastDown uint64
	observed         bool
	up, down         float64
}

func (r *rates) observe(now time.Time, up, down uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seconds := now.Sub(r.at).Seconds(); seconds > 0 {
		r.up = float64(up-r.lastUp) / seconds
		r.down = float64(down-r.lastDown) / seconds
		r.at, r.lastUp, r.lastDown, r.observed = now, up, down, true
	}
}

// last returns the rates; before the first look they are the mean since the
// session began, of the bytes given.
func (r *rates) last(up, down uint64) (perSecondUp, perSecondDown float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.observed {
		seconds := max(time.Since(r.at), time.Second).Seconds()
		return float64(up) / seconds, float64(down) / seconds
	}
	return r.up, r.down
}

// joined and left keep the books about a session from the moment it can be
// seen until it cannot. s.mu is held.
func (s *Server) joined(ses *session) {
	ses.rates.at = ses.created
	ses.source = limit.Source(ses.at.Load().tuple.client.Addr())
	s.bans.holders.Acquire(ses.source)
	s.bandwidth.join(ses)
}

// resource follows a session to the source of another place. s.mu is held.
func (s *Server) resource(ses *session) {
	s.bans.holders.Release(ses.source)
	ses.source = limit.Source(ses.at.Load().tuple.client.Addr())
	s.bans.holders.Acquire(ses.source)
}

func (s *Server) left(ses *session) {
	s.bans.holders.Release(ses.source)
	s.bandwidth.leave(ses)
}

// peers lists the channels of a session, and the permissions of addresses
// without a channel.
func (ses *session) peers() []Peer {
	all := []Peer{}
	for _, l := range ses.legs {
		permits, channels := l.relay.State()
		bound := make(map[netip.Addr]bool, len(channels))
		for _, c := range channels {
			bound[c.Peer.Addr()] = true
			all = append(all, Peer{c.Peer, c.Channel, c.Until})
		}
		for _, p := range permits {
			if !bound[p.Peer] {
				all = append(all, Peer{Address: netip.AddrPortFrom(p.Peer, 0), Until: p.Until})
			}
		}
	}
	slices.SortFunc(all, func(x, y Peer) int { return x.Address.Compare(y.Address) })
	return all
}
