package inspect

import (
	"context"
	"sync"
	"time"
)

const (
	breakAfter = 5               // failures in a row
	breakTime  = 5 * time.Second // then nobody asks; afterwards one tries
)

// A gate stands before a hook: it bounds the requests at once of all connections,
// and stops asking for a while when the hook fails again and again.
type gate struct {
	slots            chan struct{}
	route, direction string
	changed          func(open bool) // tells about the breaker; called with mu held

	mu       sync.Mutex // guards the fields below
	failures int        // in a row
	until    time.Time  // nobody asks before; zero: the breaker is closed
	trying   bool       // one asks although it is open
}

// enter waits for a slot.
func (g *gate) enter(ctx context.Context) error {
	select {
	case g.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case g.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errBusy
	}
}

func (g *gate) leave() { <-g.slots }

// ask reports whether the hook may be asked; each success is followed by one call
// of answered or nothing.
func (g *gate) ask(now time.Time) (trial bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.until.IsZero():
		return false, nil
	case now.Before(g.until) || g.trying:
		return false, errBreaker
	}
	g.trying = true
	return true, nil
}

// answered tells whether a verdict was had.
func (g *gate) answered(ok bool, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trying = false
	if ok {
		if !g.until.IsZero() {
			g.changed(false)
		}
		g.failures, g.until = 0, time.Time{}
		return
	}
	if g.failures++; g.failures >= breakAfter {
		if g.until.IsZero() {
			g.changed(true)
		}
		g.until = now.Add(breakTime)
	}
}

// nothing gives a trial back that came to nothing.
func (g *gate) nothing(trial bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if trial {
		g.trying = false
	}
}

func (g *gate) open() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.until.IsZero()
}

// gates are those of the hooks that sessions use now.
type gates struct {
	mu   sync.Mutex // guards the field below
	used map[gateKey]*gateUse
}

// gateKey says what shares a gate: a hook of a route, however often the
// configuration was read again, or one host that headers name on a route.
type gateKey struct {
	route, direction string // direction "both" for hosts that headers name
	hook             string
	slots            int
}

type gateUse struct {
	*gate
	users int
}

func (g *gates) init() { g.used = make(map[gateKey]*gateUse) }

// get returns the gate of a hook, for one session; give is called when that is over.
func (g *gates) get(key gateKey, changed func(open bool)) *gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.used[key]
	if u == nil {
		u = &gateUse{gate: &gate{slots: make(chan struct{}, key.slots), route: key.route, direction: key.direction, changed: changed}}
		g.used[key] = u
	}
	u.users++
	return u.gate
}

// give forgets a gate that nobody uses, unless it holds a breaker open: of those some
// are remembered.
func (g *gates) give(key gateKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.used[key]
	if u.users--; u.users > 0 {
		return
	}
	if u.open() && len(g.used) < 1024 {
		return
	}
	delete(g.used, key)
}

// openBreakers counts by route and direction.
func (g *gates) openBreakers() map[[2]string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := make(map[[2]string]int)
	for key, u := range g.used {
		k := [2]string{key.route, key.direction}
		n[k] += 0
		if u.open() {
			n[k]++
		}
	}
	return n
}
