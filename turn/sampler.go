package turn

import (
	"log/slog"
	"sync"
	"time"
)

// sampler logs what strangers cause: the first of a kind at once, the others
// counted and summed up.
type sampler struct {
	mu   sync.Mutex
	seen map[string]*sample
}

type sample struct {
	last   time.Time
	hidden int
}

const (
	sampleEvery = time.Minute
	sampleKinds = 256 // kinds are rule names of ours, not strangers' words
)

func newSampler() sampler { return sampler{seen: make(map[string]*sample)} }

func (sm *sampler) log(log *slog.Logger, kind, message string, args ...any) {
	sm.mu.Lock()
	k := sm.seen[kind]
	if k == nil && len(sm.seen) < sampleKinds {
		k = new(sample)
		sm.seen[kind] = k
	}
	now := time.Now()
	if k == nil || now.Sub(k.last) < sampleEvery {
		if k != nil {
			k.hidden++
		}
		sm.mu.Unlock()
		return
	}
	k.last = now
	hidden := k.hidden
	k.hidden = 0
	sm.mu.Unlock()
	if hidden > 0 {
		args = append(args, "suppressed", hidden)
	}
	log.Warn(message, args...)
}
