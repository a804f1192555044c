// Package inspect carries WebSockets message by message, so that a hook, an HTTP
// request to a firewall or filter, can decide about each one. It is what the
// program WsProxy does, whose x-wsproxy-* headers it understands.
//
// A [Server] is an http.Handler for its routes. The way of a connection:
//
//	entry         the client's handshake, then the upstream's
//	handshake.go  where a connection goes and how, and the 101
//	headers.go    x-wsproxy-*: what a trusted peer wants of one connection
//	target.go     which upstreams and hooks such a peer may name
//	socket.go     gorilla/websocket on both sides, which only reads and writes frames
//	rules.go      what of RFC 6455 gorilla does not hold a peer to
//	session.go    a connection pair: its two flows, and how it ends
//	flow.go       one direction: read, ask, deliver in order
//	hook.go       the request for a message and what its answer means
//	batch.go      many messages in one request
//	gate.go       how many requests at once, and when to stop asking
//
// A message is held whole, in each direction at most the limit of the route and
// what [Hook].InFlight lets wait; then the side it comes from is not read.
//
// Sessions outlive routes: [Server.Reconfigure] touches none.
//
// What clients do wrong is counted in the metrics and logged at Debug only. No log
// line or error holds a query, a payload or a header value.
package inspect

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/signaling/entry"
)

// Options configure a Server.
type Options struct {
	Routes []Route

	// Admit is asked as that of signaling.Options.
	Admit func(client netip.Addr) (done func(), ok bool)

	// Access, if set, gets the lines about sessions, as that of signaling.Options.
	Access *slog.Logger

	Log *slog.Logger // nil: slog.Default
}

// A Route binds a path to upstreams and hooks, or to what the headers of
// trusted peers say. The zero value of a duration or number means its default.
type Route struct {
	entry.Route

	HookDialer *proxy.Dialer // to hooks; nil: one with default options

	Settings
	Inbound  *Hook // of messages from the client; nil: none
	Outbound *Hook // of messages from the upstream; nil: none

	ByHeaders *ByHeaders // nil: the headers x-wsproxy-* mean nothing
}

// Settings say how one connection is carried.
type Settings struct {
	IdleTimeout time.Duration // without a byte; zero: no limit
	IdleInbound bool          // only the client's bytes count

	// The largest message of each side, counted after inflation over all its
	// fragments; zero: no limit.
	MaxMessage         int64
	MaxUpstreamMessage int64

	ValidateUTF8         bool // text of the client must be UTF-8
	ValidateUpstreamUTF8 bool // text of the upstream must be
	Compress             bool // permessage-deflate with the client, if it offers it
}

// ByHeaders makes a route listen to the headers x-wsproxy-* of trusted peers.
type ByHeaders struct {
	Trusted []netip.Prefix // TCP peers that are listened to
	// Strip carries other peers' connections too, as the route says and without
	// their headers; otherwise they get 403.
	Strip bool

	// Targets are the hosts that may be named, for upstream and hooks: "*" (all),
	// "app.example.com", "*.example.com", "192.0.2.0/24", each with a port if
	// wanted. A loopback, link-local or metadata address needs a prefix of its own.
	Targets []string
	// LocalTargets also lets a peer on this host name loopback addresses, which it
	// could reach itself.
	LocalTargets bool

	Concurrency int // requests at once to one host, of all connections; 100
}

// SessionInfo describes an open session.
type SessionInfo = entry.SessionInfo

// Server carries inspected connections. Its methods may be called at once.
type Server struct {
	entry.Server[*session]
	log *slog.Logger // that of entry

	metrics *metrics
	gates   gates
}

// New checks the options. It starts nothing and opens nothing.
func New(opt Options) (*Server, error) {
	s := &Server{}
	s.Init("inspect", "inspected WebSocket", opt.Log)
	s.log = s.Log
	s.gates.init()
	s.metrics = newMetrics(s)
	if err := s.Reconfigure(opt); err != nil {
		return nil, err
	}
	return s, nil
}

// Reconfigure replaces the routes for new connections. Open sessions live on
// untouched. With an error nothing has changed. Log is kept from New.
func (s *Server) Reconfigure(opt Options) error {
	t := &entry.Table{Admit: opt.Admit, Access: opt.Access}
	var errs []error
	for i := range opt.Routes {
		rt, err := newRoute(&opt.Routes[i])
		if err == nil {
			t.Closed = append(t.Closed, rt.closeIdle)
			err = t.Add(rt.Gate, func(w http.ResponseWriter, r *http.Request, at entry.Target) { s.serve(rt, w, r, at) })
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("inspection route %s: %w", opt.Routes[i].Path, err))
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
	settings  Settings
	inbound   *Hook
	outbound  *Hook
	client    *proxy.Client // to the hooks of the route
	byHeaders *byHeaders
}

func newRoute(o *Route) (*route, error) {
	if o.IdleTimeout < 0 {
		return nil, errors.New("a timeout is negative")
	}
	if o.MaxMessage < 0 || o.MaxUpstreamMessage < 0 {
		return nil, errors.New("a message limit is negative")
	}
	common := o.Route
	if o.ByHeaders != nil {
		// Who may say where to connect may say who the client is.
		common.Headers.Trust = append(append(proxy.Trust(nil), common.Headers.Trust...), o.ByHeaders.Trusted...)
	}
	g, err := entry.NewGate(&common)
	if err != nil {
		return nil, err
	}
	rt := &route{Gate: g, settings: o.Settings}
	hooks := o.HookDialer
	if hooks == nil {
		if hooks, err = proxy.NewDialer(proxy.DialOptions{}); err != nil {
			return nil, err
		}
	}
	rt.client = proxy.NewClient(hooks)
	if rt.inbound, err = o.Inbound.ready("inbound"); err != nil {
		return nil, err
	}
	if rt.outbound, err = o.Outbound.ready("outbound"); err != nil {
		return nil, err
	}
	switch {
	case o.ByHeaders != nil:
		rt.byHeaders, err = newByHeaders(o.ByHeaders, rt.Dialer, hooks)
	case rt.Pool == nil:
		err = errors.New("no upstream")
	}
	return rt, err
}

func (rt *route) closeIdle() {
	rt.client.CloseIdle()
	if rt.byHeaders != nil {
		rt.byHeaders.closeIdle()
	}
}

// Close cuts every session, refuses new ones and returns when none is left.
func (s *Server) Close() error {
	s.Shut()
	<-s.Empty()
	return nil
}
