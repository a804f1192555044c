package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// plan says when each lane (a flow in one direction) sends its bursts. All
// lanes have the same period and each a phase of its own, so that together they
// look like independent senders. Times are rounded up to a tick: the generator
// wakes so often and not more, and what is due at one tick is due at the same time.
type plan struct {
	start  int64 // Unix nanoseconds
	period float64
	tick   int64
	phases []phase // in order of time

	turn int // how many bursts were handed out
	ends int // how many there are
}

type phase struct {
	at   float64
	lane int
}

// newPlan spreads rate packets a second over the lanes for about d. The same
// arguments make the same plan.
func newPlan(start int64, lanes, burst int, rate float64, d, tick time.Duration) *plan {
	p := &plan{start: start, tick: int64(tick), period: float64(lanes*burst) / rate * 1e9}
	r := rand.New(rand.NewPCG(1, uint64(lanes)))
	p.phases = make([]phase, lanes)
	for i := range p.phases {
		p.phases[i] = phase{r.Float64() * p.period, i}
	}
	if lanes == 1 {
		p.phases[0].at = 0
	}
	slices.SortFunc(p.phases, func(a, b phase) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return a.lane - b.lane
	})
	p.ends = max(1, int(math.Round(rate*d.Seconds()/float64(burst))))
	return p
}

// next returns the lane that sends next and when; false after the last burst.
func (p *plan) next() (lane int, due int64, ok bool) {
	if p.turn >= p.ends {
		return 0, 0, false
	}
	ph := p.phases[p.turn%len(p.phases)]
	due = int64(float64(p.turn/len(p.phases))*p.period + ph.at)
	due = (due + p.tick - 1) / p.tick * p.tick
	return ph.lane, p.start + due, true
}

func (p *plan) advance() { p.turn++ }
