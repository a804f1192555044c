package limit

import (
	"sync"
	"sync/atomic"
)

// Cap bounds how many of something exist at once. The zero value has no bound.
type Cap struct {
	max  atomic.Int64 // 0: no bound
	held atomic.Int64
}

// NewCap returns a Cap for at most max holders; 0 or less means no bound.
func NewCap(max int) *Cap {
	c := new(Cap)
	c.SetMax(max)
	return c
}

// SetMax changes the bound. Holders above a lowered bound keep what they hold.
func (c *Cap) SetMax(max int) { c.max.Store(int64(max)) }

// Acquire takes one slot and reports whether there was one.
// Each true is to be followed by exactly one Release.
func (c *Cap) Acquire() bool {
	held := c.held.Add(1)
	if max := c.max.Load(); max > 0 && held > max {
		c.held.Add(-1)
		return false
	}
	return true
}

// Release gives one slot back. A Release without its Acquire panics: the bound
// would be wrong from then on without anybody noticing.
func (c *Cap) Release() {
	if c.held.Add(-1) < 0 {
		panic("limit: Release without Acquire")
	}
}

// Held returns how many slots are taken.
func (c *Cap) Held() int { return int(c.held.Load()) }

// KeyedCap bounds how many slots each key holds at once.
//
// A key costs memory only while it holds a slot, so the number of slots handed
// out bounds the memory: put a Cap in front where strangers choose the keys.
type KeyedCap[K comparable] struct {
	max     atomic.Int64 // 0: no bound
	sharder sharder[K]
	shards  [shardCount]capShard[K]
}

type capShard[K comparable] struct {
	mu   sync.Mutex // guards held
	held map[K]int
}

// NewKeyedCap returns a KeyedCap for at most max slots per key; 0 or less means
// no bound.
func NewKeyedCap[K comparable](max int) *KeyedCap[K] {
	c := &KeyedCap[K]{sharder: newSharder[K]()}
	for i := range c.shards {
		c.shards[i].held = make(map[K]int)
	}
	c.SetMax(max)
	return c
}

// SetMax changes the bound for every key. Keys above a lowered bound keep what
// they hold and get nothing new.
func (c *KeyedCap[K]) SetMax(max int) { c.max.Store(int64(max)) }

// Acquire takes one slot for k and reports whether there was one.
// Each true is to be followed by exactly one Release of the same key.
func (c *KeyedCap[K]) Acquire(k K) bool {
	// Held slots are counted also while there is no bound, so that a bound
	// set later knows them.
	max := c.max.Load()
	s := &c.shards[c.sharder.of(k)]
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.held[k]
	if max > 0 && int64(held) >= max {
		return false
	}
	s.held[k] = held + 1
	return true
}

// Release gives one slot of k back. A Release without its Acquire panics.
func (c *KeyedCap[K]) Release(k K) {
	s := &c.shards[c.sharder.of(k)]
	s.mu.Lock()
	defer s.mu.Unlock()
	switch held := s.held[k]; held {
	case 0:
		panic("limit: Release without Acquire")
	case 1:
		delete(s.held, k)
	default:
		s.held[k] = held - 1
	}
}

// Held returns how many slots k holds.
func (c *KeyedCap[K]) Held(k K) int {
	s := &c.shards[c.sharder.of(k)]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[k]
}

// Keys returns how many keys hold at least one slot.
func (c *KeyedCap[K]) Keys() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += len(s.held)
		s.mu.Unlock()
	}
	return n
}
