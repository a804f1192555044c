package signaling

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
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

// Info implements [entry.Session].
func (ses *session) Info() SessionInfo {
	return SessionInfo{
		ID: ses.id, Client: ses.client, Route: ses.route, Upstream: ses.upstream, SDKAppID: ses.appID,
		Opened: ses.opened, ToUpstream: ses.up.bytes.Load(), ToClient: ses.down.bytes.Load(),
	}
}

// Kick implements [entry.Session].
func (ses *session) Kick() { ses.requestClose(closePolicy, "kicked", boundaryWait) }

// Restart implements [entry.Session]: the Close frame goes out at a frame boundary.
func (ses *session) Restart() { ses.requestClose(closeServiceRestart, "drain", drainBoundaryWait) }

// Cut implements [entry.Session].
func (ses *session) Cut(reason string) {
	ses.setReason(reason)
	ses.abort()
}

// setReason keeps the first reason given.
func (ses *session) setReason(reason string) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.reason == "" {
		ses.reason = reason
	}
}

// tally is what the sessions of a server have together, beside the list of them.
type tally struct {
	toUpstream, toClient uint64       // bytes of ended sessions; guarded by the list's lock
	tick                 atomic.Int64 // seconds as the janitor counts them

	janitor, stopping sync.Once
	quit              chan struct{} // closed by stop
}

// stop ends the janitor.
func (g *tally) stop() { g.stopping.Do(func() { close(g.quit) }) }

// bytes returns the bytes carried so far, ended sessions included.
func (s *Server) bytes() (toUpstream, toClient uint64) {
	s.Each(func(ses *session) {
		toUpstream += ses.up.bytes.Load()
		toClient += ses.down.bytes.Load()
	}, func() {
		toUpstream += s.sessions.toUpstream
		toClient += s.sessions.toClient
	})
	return toUpstream, toClient
}

// watch is the janitor, which begins with the first session: once a second it looks for
// stuck writes and idle sessions. Deadlines on every write would cost a timer each.
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
		var stuck, idle []*session
		s.Each(func(ses *session) {
			switch {
			case ses.up.stuck(now, ses.limits.write) || ses.down.stuck(now, ses.limits.write):
				stuck = append(stuck, ses)
			case ses.limits.idle > 0 && time.Duration(now-ses.active.Load())*time.Second > ses.limits.idle:
				idle = append(idle, ses)
			}
		}, nil)
		for _, ses := range stuck {
			ses.Cut("stuck")
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
	ses.active.Store(s.sessions.tick.Load())
	ses.id = s.NextID()
	ses.loop = s.pick(ses.id, client, upstream)
	attrs := []slog.Attr{
		slog.Uint64("session", ses.id), slog.String("route", ses.route), slog.Any("client", ses.client),
		slog.String("upstream", ses.upstream), slog.Uint64("sdkAppId", ses.appID),
	}
	s.SessionLog().LogAttrs(context.Background(), slog.LevelInfo, "session opened", append(attrs, ses.trace.Take()...)...)
	ses.trace = nil
	if !s.Add(ses.id, ses, func() { s.wg.Add(1) }) { // while Close cannot be waiting yet
		ses.closeSockets()
		ses.done()
		return
	}
	s.sessions.janitor.Do(func() { s.wg.Go(s.watch) })
	if answer() != nil {
		ses.closeSockets() // it ends as any other
	}
	if ses.loop == nil || !ses.attach() {
		s.wg.Go(ses.up.run)
		s.wg.Go(ses.down.run)
	}
	if s.Draining() { // began before us
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
	s.Closed(ses.route, reason)
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
	s.SessionLog().LogAttrs(context.Background(), slog.LevelInfo, "session closed", attrs...)
	s.Remove(ses.id, func() { // last: a drain returns then
		s.sessions.toUpstream += ses.up.bytes.Load()
		s.sessions.toClient += ses.down.bytes.Load()
	})
}
