package turn

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/turn/wire"
)

// bans keeps sources away that fail to authenticate over and over. A source
// is an IPv4 address or an IPv6 /64, and only one that has proved to receive
// there can be banned: over UDP with a nonce of ours, over a connection with
// its handshake. So nobody gets somebody else banned.
//
// Behind one address there may be thousands. One that holds an allocation is
// never banned, and neither is one whose credentials were good once: the
// credential that expired is what honest clients fail with.
type bans struct {
	failures *limit.KeyedRate[netip.Prefix]
	holders  *limit.KeyedCap[netip.Prefix] // allocations of each source

	live atomic.Int32  // entries of active, for those who need no lock then
	made atomic.Uint64 // since the start

	mu     sync.RWMutex // guards the fields below
	length time.Duration
	active map[netip.Prefix]Ban
}

// Ban is a source that is not answered.
type Ban struct {
	Source netip.Prefix `json:"source"`
	User   string       `json:"user"` // of the last failure
	Since  time.Time    `json:"since"`
	Until  time.Time    `json:"until"`
}

const (
	failureKeys = 1 << 14 // sources whose failures are remembered
	maxBans     = 1 << 14 // beyond it the ban that would end first ends
	// forgivenFor is how long after its expiry a good credential is taken
	// for that of an honest client.
	forgivenFor = 30 * 24 * time.Hour
)

func newBans() *bans {
	return &bans{
		failures: limit.NewKeyedRate[netip.Prefix](0, 0, failureKeys),
		holders:  limit.NewKeyedCap[netip.Prefix](0),
		active:   make(map[netip.Prefix]Ban),
	}
}

// set changes how many failures a minute are too many, and for how long that
// bans. Bans that hold go on, unless there are to be none.
func (b *bans) set(perMinute int, length time.Duration) {
	b.failures.SetLimit(float64(perMinute)/60, perMinute)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.length = length
	if perMinute <= 0 {
		clear(b.active)
		b.live.Store(0)
	}
}

// holds reports whether a client is banned.
func (b *bans) holds(client netip.Addr, now time.Time) bool {
	if b.live.Load() == 0 {
		return false
	}
	source := limit.Source(client)
	b.mu.RLock()
	defer b.mu.RUnlock()
	ban, ok := b.active[source]
	return ok && now.Before(ban.Until)
}

// add bans a source and reports false when it is banned already.
func (b *bans) add(source netip.Prefix, user string, now time.Time) (Ban, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.active[source]; ok && now.Before(old.Until) {
		return old, false
	}
	if len(b.active) >= maxBans {
		b.drop(now)
	}
	if len(b.active) >= maxBans {
		var first Ban
		for _, ban := range b.active {
			if first.Until.IsZero() || ban.Until.Before(first.Until) {
				first = ban
			}
		}
		delete(b.active, first.Source)
	}
	ban := Ban{Source: source, User: printable(user), Since: now, Until: now.Add(b.length)}
	b.active[source] = ban
	b.live.Store(int32(len(b.active)))
	b.made.Add(1)
	return ban, true
}

// drop forgets the bans that are over. b.mu is held.
func (b *bans) drop(now time.Time) {
	for source, ban := range b.active {
		if !now.Before(ban.Until) {
			delete(b.active, source)
		}
	}
	b.live.Store(int32(len(b.active)))
}

// sweep forgets the bans that are over.
func (b *bans) sweep(now time.Time) {
	if b.live.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(now)
}

// failed counts a request with a nonce of ours and a wrong credential against
// its source, and bans the source when those are too many.
func (s *Server) failed(r *request, user string, a wire.Algorithm) {
	s.metrics.authFailures.Inc()
	if r.set.Limits.AuthFailures <= 0 || r.session != nil || r.wasGood(user, a) {
		return
	}
	source := limit.Source(r.tuple.client.Addr())
	if s.bans.failures.AllowAt(source, r.now) {
		return
	}
	s.hits[limitAuthFailures].Add(1)
	if s.bans.holders.Held(source) > 0 {
		s.refusals.log(r.set.Log, "not banned", "too many failed authentications, not banned: the address has live allocations",
			"source", source, "user", printable(user))
		return
	}
	if ban, ok := s.bans.add(source, user, r.now); ok {
		r.set.Log.Warn("source banned", "source", source, "user", ban.User, "failures_per_minute", r.set.Limits.AuthFailures,
			"until", ban.Until, "remedy", "turngate unban "+source.Addr().String())
	}
}

// wasGood reports whether a time-limited credential is wrong only because it
// has expired.
func (r *request) wasGood(user string, a wire.Algorithm) bool {
	expired, ok := expiry(user)
	if !ok || r.now.Before(expired) || r.now.Sub(expired) > forgivenFor {
		return false
	}
	return slices.ContainsFunc(r.secrets(), func(secret string) bool {
		return r.madeWith(a.NewKey(user, r.realm, restPassword(secret, user)))
	})
}

// Bans returns the sources that are banned, the latest first.
func (s *Server) Bans() []Ban {
	now := time.Now()
	s.bans.sweep(now)
	s.bans.mu.RLock()
	defer s.bans.mu.RUnlock()
	all := make([]Ban, 0, len(s.bans.active))
	for _, ban := range s.bans.active {
		all = append(all, ban)
	}
	slices.SortFunc(all, func(x, y Ban) int {
		return cmp.Or(y.Since.Compare(x.Since), x.Source.Compare(y.Source))
	})
	return all
}

// Unban lifts the ban of the source that an address belongs to, with the
// failures that led to it, and reports whether there was one.
func (s *Server) Unban(client netip.Addr) bool {
	source := limit.Source(client)
	s.bans.mu.Lock()
	defer s.bans.mu.Unlock()
	s.bans.failures.Forget(source)
	if _, ok := s.bans.active[source]; !ok {
		return false
	}
	delete(s.bans.active, source)
	s.bans.live.Store(int32(len(s.bans.active)))
	s.settings.Load().Log.Info("ban lifted", "source", source)
	return true
}
