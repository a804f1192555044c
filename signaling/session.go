package signaling

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/turngate/turngate/internal/poller"
	"github.com/turngate/turngate/internal/proxy"
)

// limits are the bounds a session was opened with.
type limits struct {
	write time.Duration // one write stuck
	idle  time.Duration // no byte either way; 0: none
}

// A session is one open tunnel. It keeps its sockets, counters and limits, and
// nothing of the configuration.
type session struct {
	id       uint64
	client   netip.Addr
	route    string
	upstream string
	appID    uint64
	opened   time.Time
	limits   limits
	done     func() // gives back what Admit took
	srv      *Server
	trace    *proxy.Trace // until the session is open; nil: no access log

	loop     *poller.Loop // carries the session; nil: two goroutines do
	attached atomic.Bool  // the loop has the sockets
	cut      atomic.Bool  // the loop is to close them

	up   pump // client to upstream
	down pump // upstream to client; the only writer of Close frames to the client

	active    atomic.Int64  // tick of the last bytes
	closeWith atomic.Uint32 // close code somebody asked for; 0: none
	closeSent atomic.Bool   // a Close frame of ours is on the way to the client
	ended     atomic.Int32  // pumps that have ended

	clientClosed atomic.Bool // the client sent a Close frame

	mu     sync.Mutex // guards reason
	reason string
}

// SessionInfo describes an open session.
type SessionInfo struct {
	ID         uint64
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
			ID: ses.id, Client: ses.client, Route: ses.route, Upstream: ses.upstream, SDKAppID: ses.appID,
			Opened: ses.opened, ToUpstream: ses.up.bytes.Load(), ToClient: ses.down.bytes.Load(),
		}
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
	ses.requestClose(closePolicy, "kicked", boundaryWait)
	return true
}

// setReason keeps the first reason given.
func (ses *session) setReason(reason string) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.reason == "" {
		ses.reason = reason
	}
}

// registry holds the open sessions of a server.
type registry struct {
	mu      sync.Mutex // guards the fields below
	open    map[uint64]*session
	janitor bool
	closed  bool          // no session may be added any more
	quit    chan struct{} // closed with it
	vacant  chan struct{} // closed while no session is open

	last                 atomic.Uint64 // session id
	toUpstream, toClient atomic.Uint64 // bytes of ended sessions
	tick                 atomic.Int64  // seconds as the janitor counts them
}

func (g *registry) init() {
	g.open = make(map[uint64]*session)
	g.vacant = make(chan struct{})
	close(g.vacant)
	g.quit = make(chan struct{})
}

// shut refuses further sessions and ends the janitor.
func (g *registry) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.closed = true
		close(g.quit)
	}
}

func (g *registry) remove(ses *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.toUpstream.Add(ses.up.bytes.Load())
	g.toClient.Add(ses.down.bytes.Load())
	delete(g.open, ses.id)
	if len(g.open) == 0 {
		close(g.vacant)
	}
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

// bytes returns the bytes carried so far, ended sessions included.
func (g *registry) bytes() (toUpstream, toClient uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	toUpstream, toClient = g.toUpstream.Load(), g.toClient.Load()
	for _, ses := range g.open {
		toUpstream += ses.up.bytes.Load()
		toClient += ses.down.bytes.Load()
	}
	return toUpstream, toClient
}

// watch is the janitor: once a second it looks for stuck writes and idle sessions. It
// ends with the last session. Deadlines on every write would cost a timer each.
func (s *Server) watch() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.sessions.quit:
			return
		}
		now := s.sessions.tick.Add(1)
		s.sessions.mu.Lock()
		if len(s.sessions.open) == 0 {
			s.sessions.janitor = false
			s.sessions.mu.Unlock()
			return
		}
		var stuck, idle []*session
		for _, ses := range s.sessions.open {
			switch {
			case ses.up.stuck(now, ses.limits.write) || ses.down.stuck(now, ses.limits.write):
				stuck = append(stuck, ses)
			case ses.limits.idle > 0 && time.Duration(now-ses.active.Load())*time.Second > ses.limits.idle:
				idle = append(idle, ses)
			}
		}
		s.sessions.mu.Unlock()
		for _, ses := range stuck {
			ses.setReason("stuck")
			ses.abort()
		}
		for _, ses := range idle {
			ses.requestClose(closeNormal, "idle", boundaryWait)
		}
	}
}

// start registers a session, logs it and has its two pumps advanced. It takes over both
// connections.
//
// The session is listed before answer sends the client its 101: who has been
// answered can be found and ended.
func (s *Server) start(ses *session, client, upstream net.Conn, fromClient, fromUpstream []byte, answer func() error) {
	ses.srv, ses.opened = s, time.Now()
	ses.up.init(ses, client, upstream, fromClient)
	ses.down.init(ses, upstream, client, fromUpstream)
	g := &s.sessions
	ses.active.Store(g.tick.Load())
	ses.id = g.last.Add(1)
	ses.loop = s.pick(ses.id, client, upstream)
	attrs := []slog.Attr{
		slog.Uint64("session", ses.id), slog.String("route", ses.route), slog.Any("client", ses.client),
		slog.String("upstream", ses.upstream), slog.Uint64("sdkAppId", ses.appID),
	}
	s.table.Load().sessionLog(s.log).LogAttrs(context.Background(), slog.LevelInfo, "session opened", append(attrs, ses.trace.Take()...)...)
	ses.trace = nil
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		ses.closeSockets()
		ses.done()
		return
	}
	if len(g.open) == 0 {
		g.vacant = make(chan struct{})
	}
	g.open[ses.id] = ses
	if !g.janitor {
		g.janitor = true
		s.wg.Go(s.watch)
	}
	s.wg.Add(1) // while Close cannot be waiting yet
	g.mu.Unlock()
	if answer() != nil {
		ses.closeSockets() // it ends as any other
	}
	if ses.loop == nil || !ses.attach() {
		s.wg.Go(ses.up.run)
		s.wg.Go(ses.down.run)
	}
	if s.draining.Load() { // began before us
		ses.requestClose(closeServiceRestart, "drain", boundaryWait)
	}
}

// finish runs once, when both pumps have ended. On a loop it must not wait for anybody.
func (ses *session) finish() {
	ses.up.src.Close()
	ses.up.dst.Close()
	if ses.loop != nil {
		go ses.leave() // Close waits for it
		return
	}
	ses.leave()
}

// leave takes the session out of all books.
func (ses *session) leave() {
	s := ses.srv
	defer s.wg.Done()
	ses.done()
	ses.mu.Lock()
	reason := ses.reason
	ses.mu.Unlock()
	s.metrics.closes.WithLabelValues(ses.route, reason).Inc()
	s.metrics.closeCode("client", ses.up.frames.code)
	s.metrics.closeCode("upstream", ses.down.frames.code)
	attrs := []slog.Attr{
		slog.Uint64("session", ses.id), slog.String("route", ses.route), slog.Any("client", ses.client), slog.String("upstream", ses.upstream),
		slog.Uint64("sdkAppId", ses.appID), slog.Duration("duration", time.Since(ses.opened).Round(time.Millisecond)),
		slog.Uint64("toUpstream", ses.up.bytes.Load()), slog.Uint64("toClient", ses.down.bytes.Load()), slog.String("reason", reason),
	}
	if code := ses.up.frames.code; code != 0 {
		attrs = append(attrs, slog.Int("clientClose", int(code)))
	}
	if code := ses.down.frames.code; code != 0 {
		attrs = append(attrs, slog.Int("upstreamClose", int(code)))
	}
	s.table.Load().sessionLog(s.log).LogAttrs(context.Background(), slog.LevelInfo, "session closed", attrs...)
	s.sessions.remove(ses) // last: a drain returns then
}
