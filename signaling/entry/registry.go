package entry

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Session is an open connection of a client and an upstream.
type Session interface {
	Info() SessionInfo
	Kick()             // ends it with Close 1008
	Restart()          // ends it with Close 1012
	Cut(reason string) // ends both connections at once
}

// SessionInfo describes an open session.
type SessionInfo struct {
	ID         uint64
	Connection string // what hooks and the log call it; "" for a tunnel
	Client     netip.Addr
	Route      string
	Upstream   string
	SDKAppID   uint64 // 0: none was named
	Opened     time.Time
	ToUpstream uint64 // bytes
	ToClient   uint64 // bytes
}

// A Registry holds the open sessions of a server.
type Registry[S Session] struct {
	mu     sync.Mutex // guards the fields below
	open   map[uint64]S
	closed bool          // no session may be added any more
	vacant chan struct{} // closed while no session is open

	last atomic.Uint64 // session id
}

func (g *Registry[S]) init() {
	g.open = make(map[uint64]S)
	g.vacant = make(chan struct{})
	close(g.vacant)
}

// NextID returns the id of a session that is to be added.
func (g *Registry[S]) NextID() uint64 { return g.last.Add(1) }

// Add lists a session; false when the server is closed. also, if not nil, is called before
// anybody can see or end it.
func (g *Registry[S]) Add(id uint64, ses S, also func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	if len(g.open) == 0 {
		g.vacant = make(chan struct{})
	}
	g.open[id] = ses
	if also != nil {
		also()
	}
	return true
}

// Remove forgets a session. also, if not nil, is called in the same moment.
func (g *Registry[S]) Remove(id uint64, also func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if also != nil {
		also()
	}
	delete(g.open, id)
	if len(g.open) == 0 {
		close(g.vacant)
	}
}

// Each calls f with every open session, in no order, while none comes or goes. also, if not
// nil, is called in the same moment.
func (g *Registry[S]) Each(f func(S), also func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, ses := range g.open {
		f(ses)
	}
	if also != nil {
		also()
	}
}

// Empty returns a channel that is closed when no session is open.
func (g *Registry[S]) Empty() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.vacant
}

// Count returns the number of open sessions.
func (g *Registry[S]) Count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open)
}

// Get returns an open session.
func (g *Registry[S]) Get(id uint64) (ses S, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ses, ok = g.open[id]
	return ses, ok
}

// All returns the open sessions, oldest first.
func (g *Registry[S]) All() []S {
	g.mu.Lock()
	defer g.mu.Unlock()
	ids := make([]uint64, 0, len(g.open))
	for id := range g.open {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	list := make([]S, len(ids))
	for i, id := range ids {
		list[i] = g.open[id]
	}
	return list
}

// Sessions lists the open sessions, oldest first.
func (g *Registry[S]) Sessions() []SessionInfo {
	open := g.All()
	list := make([]SessionInfo, len(open))
	for i, ses := range open {
		list[i] = ses.Info()
	}
	return list
}

// Kick ends a session with Close 1008 and reports whether it existed.
func (g *Registry[S]) Kick(id uint64) bool {
	ses, ok := g.Get(id)
	if ok {
		ses.Kick()
	}
	return ok
}

// drain ends every session, see [Server.Drain].
func (g *Registry[S]) drain(ctx context.Context, spread time.Duration) error {
	open := g.All()
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i, ses := range open {
		at := start.Add(time.Duration(float64(spread) * float64(i) / float64(len(open))))
		if d := time.Until(at); d > 0 {
			timer.Reset(d)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return g.cut(ctx)
			}
		}
		ses.Restart()
	}
	select {
	case <-g.Empty():
		return nil
	case <-ctx.Done():
		return g.cut(ctx)
	}
}

func (g *Registry[S]) cut(ctx context.Context) error {
	left := g.All()
	for _, ses := range left {
		ses.Cut("drain")
	}
	if len(left) == 0 {
		return nil
	}
	return fmt.Errorf("%d sessions cut: %w", len(left), ctx.Err())
}

// shut refuses further sessions and cuts those that are open.
func (g *Registry[S]) shut() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	for _, ses := range g.All() {
		ses.Cut("shutdown")
	}
}
