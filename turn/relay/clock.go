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
// for the time of each packet.
type Clock struct{ nanos atomic.Int64 }

// NewClock returns a clock that shows the present time and stands still until
// Run.
func NewClock() *Clock {
	c := new(Clock)
	c.Set(time.Now())
	return c
}

// Set moves the clock.
func (c *Clock) Set(t time.Time) { c.nanos.Store(t.UnixNano()) }

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
