package inspect

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// SessionInfo describes an open session.
type SessionInfo struct {
	ID         uint64
	Connection string // what hooks and the log call it
	Client     netip.Addr
	Route      string
	Upstream   string
	SDKAppID   uint64 // 0: none was named
	Opened     time.Time
	ToUpstream uint64 // bytes
	ToClient   uint64 // bytes
}

// Sessions lists the open sessions, oldest first.
func (s *Server) Sessions() []SessionInfo {
	open := s.sessions.all()
	list := make([]SessionInfo, len(open))
	for i, ses := range open {
		list[i] = SessionInfo{
			ID: ses.id, Connection: ses.key, Client: ses.client, Route: ses.route, Upstream: ses.upstream, SDKAppID: ses.appID,
			Opened: ses.opened, ToUpstream: ses.up.tap.written.Load(),
		}
		ses.mu.Lock()
		if ses.down != nil {
			list[i].ToClient = ses.down.tap.written.Load()
		}
		ses.mu.Unlock()
	}
	return list
}

// Count returns the number of open sessions.
func (s *Server) Count() int { return s.sessions.count() }

// Kick ends a session with Close 1008 and reports whether it existed.
func (s *Server) Kick(id uint64) bool {
	ses := s.sessions.get(id)
	if ses == nil {
		return false
	}
	ses.end(endKicked)
	return true
}

// registry holds the open sessions of a server.
type registry struct {
	mu     sync.Mutex // guards the fields below
	open   map[uint64]*session
	lastID uint64
	closed bool          // no session may be added any more
	vacant chan struct{} // closed while no session is open
}

func (g *registry) init() {
	g.open = make(map[uint64]*session)
	g.vacant = make(chan struct{})
	close(g.vacant)
}

// add lists a session and gives it its number; false when the server is closed.
func (g *registry) add(ses *session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	if len(g.open) == 0 {
		g.vacant = make(chan struct{})
	}
	g.lastID++
	ses.id = g.lastID
	g.open[ses.id] = ses
	return true
}

func (g *registry) remove(ses *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, ses.id)
	if len(g.open) == 0 {
		close(g.vacant)
	}
}

// shut refuses further sessions.
func (g *registry) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// empty returns a channel that is closed when no session is open.
func (g *registry) empty() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.vacant
}

func (g *registry) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open)
}

func (g *registry) get(id uint64) *session {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open[id]
}

// all returns the open sessions, oldest first.
func (g *registry) all() []*session {
	g.mu.Lock()
	list := make([]*session, 0, len(g.open))
	for _, ses := range g.open {
		list = append(list, ses)
	}
	g.mu.Unlock()
	slices.SortFunc(list, func(a, b *session) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return list
}
