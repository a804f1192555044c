package limit

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// KeyedRate is a token bucket per key: perSecond tokens flow in, at most burst
// are kept, each event takes one.
//
// It remembers at most the number of keys given to NewKeyedRate and forgets the
// least recently used first. A forgotten key starts again with a full bucket:
// somebody with more addresses than that is not held by a limit per address,
// and needs a Cap or a KeyedRate with a single key beside it.
type KeyedRate[K comparable] struct {
	off     atomic.Bool // no limit at all
	sharder sharder[K]
	shards  [shardCount]rateShard[K]
}

// rateShard is a map into a slice whose entries form a ring in order of use;
// entry 0 is the ring's anchor and holds no key. Indexes instead of pointers
// keep the ring out of the garbage collector's way and a hit free of allocation.
type rateShard[K comparable] struct {
	mu      sync.Mutex // guards the fields below
	limit   rate.Limit
	burst   int
	max     int // entries, without the anchor
	index   map[K]int32
	entries []rateEntry[K]
}

type rateEntry[K comparable] struct {
	key        K
	bucket     *rate.Limiter
	prev, next int32
}

// NewKeyedRate returns a limiter for perSecond events a second and key, bursts
// of burst, and at most keys remembered keys (rounded up to a small multiple).
// A perSecond of 0 or less means no limit.
func NewKeyedRate[K comparable](perSecond float64, burst, keys int) *KeyedRate[K] {
	r := &KeyedRate[K]{sharder: newSharder[K]()}
	for i := range r.shards {
		s := &r.shards[i]
		s.max = max(1, (keys+shardCount-1)/shardCount)
		s.index = make(map[K]int32)
		s.entries = make([]rateEntry[K], 1)
	}
	r.SetLimit(perSecond, burst)
	return r
}

// SetLimit changes rate and burst for every key, also for the known ones, which
// keep the tokens they have.
func (r *KeyedRate[K]) SetLimit(perSecond float64, burst int) {
	if perSecond <= 0 {
		r.off.Store(true)
		return
	}
	now := time.Now()
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		s.limit, s.burst = rate.Limit(perSecond), max(1, burst)
		for j := range s.entries[1:] {
			b := s.entries[1+j].bucket
			b.SetLimitAt(now, s.limit)
			b.SetBurstAt(now, s.burst)
		}
		s.mu.Unlock()
	}
	r.off.Store(false)
}

// Allow takes one token of k and reports whether there was one.
func (r *KeyedRate[K]) Allow(k K) bool {
	return r.off.Load() || r.AllowAt(k, time.Now())
}

// AllowAt is Allow for callers that read the clock once for many events.
func (r *KeyedRate[K]) AllowAt(k K, now time.Time) bool {
	if r.off.Load() {
		return true
	}
	s := &r.shards[r.sharder.of(k)]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bucket(k).AllowN(now, 1)
}

// RetryAfter returns how long k has to wait for its next token: 0 when it has
// one. It is what a Retry-After header says after a refusal.
func (r *KeyedRate[K]) RetryAfter(k K) time.Duration {
	if r.off.Load() {
		return 0
	}
	s := &r.shards[r.sharder.of(k)]
	s.mu.Lock()
	defer s.mu.Unlock()
	i, known := s.index[k]
	if !known || s.limit <= 0 {
		return 0
	}
	missing := 1 - s.entries[i].bucket.Tokens()
	return max(0, time.Duration(missing/float64(s.limit)*float64(time.Second)))
}

// Forget gives k a full bucket again.
func (r *KeyedRate[K]) Forget(k K) {
	s := &r.shards[r.sharder.of(k)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, known := s.index[k]; known {
		s.entries[i].bucket = rate.NewLimiter(s.limit, s.burst)
	}
}

// Keys returns how many keys are remembered.
func (r *KeyedRate[K]) Keys() int {
	n := 0
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		n += len(s.index)
		s.mu.Unlock()
	}
	return n
}

// bucket returns the bucket of k, most recently used from now on.
// The caller holds mu.
func (s *rateShard[K]) bucket(k K) *rate.Limiter {
	i, known := s.index[k]
	switch {
	case known:
		s.unlink(i)
	case len(s.entries) <= s.max:
		i = int32(len(s.entries))
		s.entries = append(s.entries, rateEntry[K]{})
	default:
		i = s.entries[0].prev // least recently used
		s.unlink(i)
		delete(s.index, s.entries[i].key)
	}
	if !known {
		s.index[k] = i
		s.entries[i] = rateEntry[K]{key: k, bucket: rate.NewLimiter(s.limit, s.burst)}
	}
	s.linkFirst(i)
	return s.entries[i].bucket
}

func (s *rateShard[K]) unlink(i int32) {
	e := &s.entries[i]
	s.entries[e.prev].next = e.next
	s.entries[e.next].prev = e.prev
}

func (s *rateShard[K]) linkFirst(i int32) {
	first := s.entries[0].next
	s.entries[i].prev, s.entries[i].next = 0, first
	s.entries[first].prev = i
	s.entries[0].next = i
}
