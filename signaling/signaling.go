// Package signaling is the wss reverse proxy of turngate: it takes a WebSocket
// handshake from a client, performs it with an upstream, checks the upstream's
// answer, and then carries bytes both ways without looking into messages.
//
// A [Server] is an http.Handler for all signaling routes, for the TRTC scheduler
// and for the one-parameter mode (schedule.go). The way of a connection:
//
//	entry/        from the client's handshake to the upstream's answer
//	session.go    the session; its lines in the log, and the janitor
//	tunnel.go     the two directions of a session; closes at frame boundaries
//	loops.go      carries sessions without a goroutine or a buffer for each
//	frames.go     the frame headers of both directions, without payload
//
// Sessions outlive routes: [Server.Reconfigure] swaps the routes and touches no
// open tunnel, and a session keeps nothing of the configuration it began under.
//
// What clients do wrong is counted in the metrics and logged at Debug only. No log
// line or error holds a query: the TRTC query carries userSig, a credential.
package signaling

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/signaling/entry"
)

// Options configure a Server.
type Options struct {
	Routes   []Route
	Schedule *Schedule // TRTC scheduler and one-parameter mode; nil: none

	// Admit, if set, is asked before an upstream is dialled. It returns false when the
	// client is over a limit (the answer is 429) and otherwise a function that is
	// called when the connection has ended.
	Admit func(client netip.Addr) (done func(), ok bool)

	Log *slog.Logger // nil: slog.Default

	// Access, if set, gets the lines about sessions instead of Log. It is an access log:
	// what a client wrote about itself may stand in it, credentials may not.
	Access *slog.Logger
}

// A Route is a path whose WebSockets are carried as bytes. The zero value of every
// duration means its default.
type Route struct {
	entry.Route

	IdleTimeout time.Duration // without a byte either way; zero: no limit

	// MaxMessage limits a client's message in bytes as sent, closed with 1009; zero means
	// [DefaultMaxMessage], negative no limit.
	MaxMessage int64
	// Lenient switches off the check of the client's frame headers (RFC 6455 section
	// 5: masks, opcodes, control frames), for clients that are not RFC 6455, and MaxMessage with it.
	Lenient bool
}

// Message limits. What the TRTC SDKs send stays below 20 kB.
const (
	DefaultMaxMessage = 16 << 20
	TRTCMaxMessage    = 1 << 20
)

// SessionInfo describes an open session.
type SessionInfo = entry.SessionInfo

// Server carries signaling connections. Its methods may be called at once.
type Server struct {
	entry.Server[*session]
	log *slog.Logger // that of entry

	metrics  *metrics
	sessions tally
	hints    domainHints
	loops    loops
	wg       sync.WaitGroup // sessions and the janitor
}

// New checks the options. It starts nothing and opens nothing.
func New(opt Options) (*Server, error) {
	s := &Server{}
	s.Init("signaling", "WebSocket", opt.Log)
	s.log = s.Log
	s.sessions.quit = make(chan struct{})
	s.metrics = newMetrics(s)
	if err := s.Reconfigure(opt); err != nil {
		return nil, err
	}
	return s, nil
}

// Reconfigure replaces routes and hooks for new connections. Open sessions live
// on untouched; they count against the limits of the new routes, and what is known
// about an upstream stays known. With an error nothing has changed. Log is kept from New.
func (s *Server) Reconfigure(opt Options) error {
	t := &entry.Table{Admit: opt.Admit, Access: opt.Access}
	var errs []error
	for i := range opt.Routes {
		rt, err := newRoute(&opt.Routes[i])
		if err == nil {
			err = t.Add(rt.Gate, func(w http.ResponseWriter, r *http.Request, at entry.Target) { s.serve(rt, w, r, at) })
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("signaling route %s: %w", opt.Routes[i].Path, err))
		}
	}
	if opt.Schedule != nil {
		if err := s.addSchedule(t, opt.Schedule); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.Use(t)
	return nil
}

// route is a Route made ready.
type route struct {
	*entry.Gate
	limits     limits
	maxMessage int64
	lenient    bool
}

func newRoute(o *Route) (*route, error) {
	g, err := entry.NewGate(&o.Route)
	if err != nil {
		return nil, err
	}
	rt := &route{Gate: g, limits: limits{write: g.WriteTimeout, idle: o.IdleTimeout}, maxMessage: o.MaxMessage, lenient: o.Lenient}
	if rt.maxMessage == 0 {
		rt.maxMessage = DefaultMaxMessage
	}
	if rt.limits.idle < 0 {
		return nil, errors.New("a timeout is negative")
	}
	return rt, nil
}

func (s *Server) serve(rt *route, w http.ResponseWriter, r *http.Request, at entry.Target) {
	if rt.Pool == nil {
		s.Refuse(w, r, rt.Name, entry.Refusal{Status: http.StatusBadGateway, Result: "no_upstream", Text: "no upstream"})
		return
	}
	s.connect(rt, w, r, rt.Search(r, at.Query), at)
}

// connect serves one handshake: it checks the client, asks the upstreams that search
// gives, and starts a session with the first that answers 101.
func (s *Server) connect(rt *route, w http.ResponseWriter, r *http.Request, search *proxy.Search, at entry.Target) {
	guest, ok := s.Admit(rt.Gate, w, r, at)
	if !ok {
		return
	}
	up, a, err := s.Ask(r.Context(), rt.Gate, entry.Course{Search: search, Header: rt.Upgrade(r, "Sec-Websocket-"), Rest: at.Rest, Query: at.Query})
	if err != nil {
		guest.Leave()
		s.Failed(rt.Gate, w, r, err)
		return
	}
	done := func() { up.Release(); guest.Leave() }
	if a.Status != http.StatusSwitchingProtocols {
		defer done()
		s.Relay(rt.Gate, w, r, a)
		return
	}
	ses := &session{
		client: guest.Client, route: rt.Name, appID: guest.AppID, upstream: up.Name, limits: rt.limits, done: done, trace: proxy.TraceOf(r.Context()),
	}
	ses.up.frames = frames{strict: !rt.lenient, extensions: a.Extended(), deflate: a.Deflates(), maxMessage: rt.maxMessage}
	s.hijack(rt, w, r, ses, a)
}

// hijack takes the client's connection, sends the 101 and starts the session.
func (s *Server) hijack(rt *route, w http.ResponseWriter, r *http.Request, ses *session, a *entry.Answer) {
	client, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		ses.done()
		a.Conn.Close()
		s.log.Error("connection cannot be taken over", "route", rt.Name, "err", err)
		s.Refuse(w, r, rt.Name, entry.Refusal{Status: http.StatusInternalServerError, Result: "no_hijack", Text: "this connection cannot become a WebSocket"})
		return
	}
	_ = client.SetDeadline(time.Time{})
	// Bytes the client sent behind its request, before it had an answer.
	early := make([]byte, rw.Reader.Buffered())
	if _, err := io.ReadFull(rw.Reader, early); err != nil {
		early = nil
	}
	s.start(ses, client, a.Conn, early, a.Rest, func() error {
		_ = client.SetWriteDeadline(time.Now().Add(ses.limits.write))
		head := a.Raw
		if !rt.Qrator {
			head = a.Forward(&rt.Headers)
		}
		s.Answered(rt.Gate)
		_, err := client.Write(head)
		_ = client.SetWriteDeadline(time.Time{})
		return err
	})
}

// Close cuts every session, refuses new ones and returns when their goroutines have ended.
func (s *Server) Close() error {
	s.Shut()
	s.sessions.stop()
	s.wg.Wait()
	s.loops.close()
	return nil
}
