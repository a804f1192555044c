package relay

import (
	"context"
	"sync/atomic"
	"time"
)

// tick is how coarse a Clock is: what a permission or channel may outlive its
// RFC lifetime by.
const tick = 100 * time.Millisecond

// Clock is a coarse clock for the packet path, which must not ask the kernel
// for the time of each packet. It counts from when it was made, so that setting
// the system's time of day neither ends nor prolongs what is relayed.
type Clock struct {
	start time.Time
	nanos atomic.Int64 // since start
}

// NewClock returns a clock that shows the present time and stands still until
// Run.
func NewClock() *Clock {
	return &Clock{start: time.Now()}
}

// Set moves the clock.
func (c *Clock) Set(t time.Time) { c.nanos.Store(c.at(t)) }

// Run keeps the clock going until ctx ends.
func (c *Clock) Run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			c.Set(now)
		case <-ctx.Done():
			return
		}
	}
}

func (c *Clock) now() int64 { return c.nanos.Load() }

// at returns what the clock shows at t. A time of another process has no
// monotonic reading, and is taken by the time of day.
func (c *Clock) at(t time.Time) int64 { return int64(t.Sub(c.start)) }

// time returns when the clock shows nanos, by the time of day as it is now.
func (c *Clock) time(nanos int64) time.Time {
	now := time.Now()
	return now.Add(time.Duration(nanos) - now.Sub(c.start))
}
