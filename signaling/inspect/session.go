package inspect

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"
)

// Close codes (RFC 6455 section 7.4.1 and the registry it set up).
const (
	codeNormal         = 1000
	codeGoingAway      = 1001
	codeProtocolError  = 1002
	codeNoStatus       = 1005
	codeInvalidData    = 1007
	codePolicy         = 1008
	codeTooBig         = 1009
	codeInternal       = 1011
	codeServiceRestart = 1012
)

const (
	closeLimit = 1 * time.Second // for a Close frame of ours, and then for the peer's
	echoLimit  = 2 * time.Second // for the other side's Close, after one side's was passed on
)

// closing is what a Close frame says.
type closing struct {
	code   int
	reason string
}

// ending is why a session ends by our own decision, and what each side hears. Whose
// fault it is hears the reason; the other side only that we go.
type ending struct {
	reason           string // for metrics and the log
	client, upstream closing
}

var away = closing{codeGoingAway, "going away"}

var (
	endIdle   = ending{"idle", closing{codeNormal, "idle"}, closing{codeNormal, "idle"}}
	endKicked = ending{"kicked", closing{codePolicy, "closed by the administrator"}, away}
	endDrain  = ending{"drain", closing{codeServiceRestart, "service restart"}, away}
	endPanic  = ending{"panic", closing{codeInternal, "internal error"}, away}
)

// A session is a client's connection and an upstream's. It keeps its settings and
// hooks, and nothing else of the configuration it began under.
type session struct {
	id       uint64
	key      string // names the connection to hooks and in the log; unique
	client   netip.Addr
	route    string
	upstream string
	appID    uint64
	opened   time.Time
	settings Settings
	done     func() // gives back what Admit took
	srv      *Server

	up     *socket
	in     flow // client to upstream
	out    flow
	ctx    context.Context // ends with the session: hooks are not waited for any more
	cancel context.CancelFunc

	ending chan struct{} // closed by end

	mu      sync.Mutex // guards the fields below
	down    *socket    // the client's; nil until it has its 101
	ended   bool
	how     ending
	reason  string // why it ended, whoever did it; the first word counts
	aborted bool
}

// end asks for Close frames to both sides and the end of the session. The first
// request counts.
func (ses *session) end(how ending) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.ended {
		return
	}
	ses.ended, ses.how = true, how
	if ses.reason == "" {
		ses.reason = how.reason
	}
	ses.cancel()
	close(ses.ending)
}

// Info implements [entry.Session].
func (ses *session) Info() SessionInfo {
	i := SessionInfo{
		ID: ses.id, Connection: ses.key, Client: ses.client, Route: ses.route, Upstream: ses.upstream, SDKAppID: ses.appID,
		Opened: ses.opened, ToUpstream: ses.up.tap.written.Load(),
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.down != nil {
		i.ToClient = ses.down.tap.written.Load()
	}
	return i
}

// Kick implements [entry.Session].
func (ses *session) Kick() { ses.end(endKicked) }

// Restart implements [entry.Session].
func (ses *session) Restart() { ses.end(endDrain) }

// Cut implements [entry.Session].
func (ses *session) Cut(reason string) {
	how := endDrain
	how.reason = reason
	ses.end(how)
	ses.abort()
}

// note keeps the first reason given.
func (ses *session) note(reason string) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.reason == "" {
		ses.reason = reason
	}
}

// abort closes both connections at once.
func (ses *session) abort() {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.aborted = true
	ses.up.tap.abort()
	if ses.down != nil {
		ses.down.tap.abort()
	}
}

// attach gives the session its client.
func (ses *session) attach(down *socket) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.down = down
	if ses.aborted {
		down.tap.abort()
	}
}

// run carries messages until the session is over. Both sockets are then closed and
// every goroutine of the session has ended.
func (ses *session) run() {
	ses.in.init(ses, "inbound", ses.down, ses.up)
	ses.out.init(ses, "outbound", ses.up, ses.down)
	ses.down.pass(ses.up)
	ses.up.pass(ses.down)
	stopIdle := ses.watchIdle()
	defer stopIdle()

	over := make(chan struct{}, 2)
	var flows sync.WaitGroup
	for _, f := range []*flow{&ses.in, &ses.out} {
		flows.Go(func() {
			defer func() { over <- struct{}{} }()
			defer ses.recovered()
			f.run()
		})
	}
	both := false
	select {
	case <-ses.ending:
	case <-over:
		limit := time.NewTimer(echoLimit)
		select {
		case <-over:
			both = true
		case <-ses.ending:
		case <-limit.C:
		}
		limit.Stop()
	}
	if both {
		ses.down.closeWrite() // a server ends the connection first: RFC 6455 section 7.1.1
	} else {
		ses.closeBoth()
	}
	// What a side still sends is read for a moment, so that the Close arrives.
	cut := time.AfterFunc(closeLimit, ses.abort)
	flows.Wait()
	cut.Stop()
	ses.cancel()
	ses.abort()
	ses.finish()
}

// closeBoth sends each side the Close frame of the ending, or of the side that has
// closed already.
func (ses *session) closeBoth() {
	ses.mu.Lock()
	how := ses.how
	if !ses.ended { // one side closed or was lost, and the other one does not follow
		how.client, how.upstream = ses.out.farewell(), ses.in.farewell()
		if c, ok := ses.in.last(); ok {
			how.client = c // the client's own Close comes back to it
		}
		if c, ok := ses.out.last(); ok {
			how.upstream = c
		}
	}
	ses.mu.Unlock()
	ses.end(how) // the flows discard from now on
	var wg sync.WaitGroup
	for _, side := range []struct {
		*socket
		closing
	}{{ses.down, how.client}, {ses.up, how.upstream}} {
		wg.Go(func() {
			// A write under way is given the same time.
			_ = side.tap.SetWriteDeadline(time.Now().Add(closeLimit))
			side.sendClose(side.closing, closeLimit)
			side.closeWrite()
		})
	}
	wg.Wait()
}

// watchIdle ends the session when no bytes pass. A message that waits for its hook is
// not idleness. There is one timer and no work per message.
func (ses *session) watchIdle() (stop func()) {
	limit := ses.settings.IdleTimeout
	if limit == 0 {
		return func() {}
	}
	last := func() time.Time {
		at := ses.down.tap.readAt.Load()
		if !ses.settings.IdleInbound {
			at = max(at, ses.down.tap.writtenAt.Load(), ses.up.tap.readAt.Load(), ses.up.tap.writtenAt.Load())
		}
		return time.Unix(0, at)
	}
	var mu sync.Mutex // a timer that fires while it is made
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(limit, func() {
		left := limit - time.Since(last())
		if left <= 0 && (ses.in.waiting() || ses.out.waiting()) {
			left = limit
		}
		if left <= 0 {
			ses.end(endIdle)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		timer.Reset(left)
	})
	return func() { timer.Stop() }
}

// recovered ends this session only when one of its goroutines panics.
func (ses *session) recovered() {
	if v := recover(); v != nil {
		ses.srv.log.Error("session panic", "session", ses.id, "panic", v, "stack", string(debug.Stack()))
		ses.end(endPanic)
		ses.abort()
	}
}

// finish runs once, when both connections are closed.
func (ses *session) finish() {
	ses.done()
	ses.mu.Lock()
	reason := ses.reason
	ses.mu.Unlock()
	ses.srv.Closed(ses.route, reason)
	attrs := []slog.Attr{
		slog.Uint64("session", ses.id), slog.String("connection", ses.key), slog.String("route", ses.route), slog.Any("client", ses.client),
		slog.String("upstream", ses.upstream), slog.Duration("duration", time.Since(ses.opened).Round(time.Millisecond)),
		slog.Uint64("toUpstream", ses.up.tap.written.Load()), slog.Uint64("toClient", ses.down.tap.written.Load()), slog.String("reason", reason),
	}
	if c, ok := ses.in.last(); ok {
		attrs = append(attrs, slog.Int("clientClose", c.code))
	}
	if c, ok := ses.out.last(); ok {
		attrs = append(attrs, slog.Int("upstreamClose", c.code))
	}
	ses.srv.SessionLog().LogAttrs(context.Background(), slog.LevelInfo, "session closed", attrs...)
	ses.srv.Remove(ses.id, nil) // last: a drain returns then
}
