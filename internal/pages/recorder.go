package pages

import (
	"context"
	"sync"
	"time"
)

// The status page shows the last fifteen minutes.
const (
	sampleEvery = 5 * time.Second
	sampleCount = 15*60/5 + 1
)

// Sample is what was the case at a moment: numbers by name. Those of a counter
// only grow, and the page shows their differences.
type Sample struct {
	At      int64              `json:"at"` // ms since 1970
	Numbers map[string]float64 `json:"numbers"`
}

// Recorder keeps the latest samples. Its methods may be called at once.
type Recorder struct {
	take func() map[string]float64 // nil: nobody looks now

	mu      sync.Mutex // guards the field below
	samples []Sample   // oldest first
}

// NewRecorder returns a recorder of what take returns; it is not called more
// than once at a time. While it returns nil nothing
// is kept.
func NewRecorder(take func() map[string]float64) *Recorder { return &Recorder{take: take} }

// Run takes samples until ctx ends.
func (r *Recorder) Run(ctx context.Context) {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		r.record(time.Now())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (r *Recorder) record(now time.Time) {
	if numbers := r.take(); numbers != nil {
		r.Keep(Sample{now.UnixMilli(), numbers})
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples = nil
}

// Keep adds a sample that is newer than all others.
func (r *Recorder) Keep(s Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.samples) == sampleCount {
		r.samples = append(r.samples[:0], r.samples[1:]...)
	}
	r.samples = append(r.samples, s)
}

// Samples returns what is kept, the oldest first.
func (r *Recorder) Samples() []Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Sample{}, r.samples...)
}
