// Package inspect carries WebSockets message by message, so that a hook, an HTTP
// request to a firewall or filter, can decide about each one. It is what the
// program WsProxy does, whose x-wsproxy-* headers it understands.
//
// A [Server] is an http.Handler for its routes. The way of a connection:
//
//	handshake.go  the client's handshake, then the upstream's, then the 101
//	headers.go    x-wsproxy-*: what a trusted peer wants of one connection
//	target.go     which upstreams and hooks such a peer may name
//	socket.go     gorilla/websocket on both sides, which only reads and writes frames
//	session.go    a connection pair: its two flows, and how it ends
//	flow.go       one direction: read, ask, deliver in order
//	hook.go       the request for a message and what its answer means
//	batch.go      many messages in one request
//	gate.go       how many requests at once, and when to stop asking
//	registry.go   list, kick, drain
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
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/signaling"
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

// A Route binds a path to an upstream and hooks, or to what the headers of
// trusted peers say. The zero value of a duration or number means its default.
type Route struct {
	Path      string   // as in signaling.Route
	Upstreams []string // base URLs in order of preference; or
	Targets   []proxy.Target
	Balance   string // among them, as in signaling.Route

	Dialer     *proxy.Dialer // to upstreams; nil: one with default options
	HookDialer *proxy.Dialer // to hooks; nil: one with default options
	Headers    proxy.HeaderPolicy

	HandshakeTimeout time.Duration // as in signaling.Route; 5 s
	WriteTimeout     time.Duration // one write stuck; 30 s

	Settings
	Inbound  *Hook // of messages from the client; nil: none
	Outbound *Hook // of messages from the upstream; nil: none

	ByHeaders *ByHeaders // nil: the headers x-wsproxy-* mean nothing

	Origins       []string
	SDKAppIDs     []uint64
	Clients       []netip.Prefix // who is served; empty: everybody
	MaxPerAddress int            // connections of one client address (IPv6: /64); 0: no limit

	Plain http.Handler // as in signaling.Route
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

// Server carries inspected connections. Its methods may be called at once.
type Server struct {
	table   atomic.Pointer[table]
	metrics *metrics
	log     *slog.Logger
	gates   gates

	draining atomic.Bool
	sessions registry
}

// table is one configuration; requests in progress keep the one they began with.
type table struct {
	router proxy.Router[*route]
	admit  func(client netip.Addr) (done func(), ok bool)
	routes []*route
	access *slog.Logger // nil: none
}

// sessionLog is where the lines about sessions go.
func (t *table) sessionLog(log *slog.Logger) *slog.Logger {
	if t.access != nil {
		return t.access
	}
	return log
}

func (t *table) close() {
	for _, rt := range t.routes {
		rt.closeIdle()
	}
}

// New checks the options. It starts nothing and opens nothing.
func New(opt Options) (*Server, error) {
	s := &Server{log: opt.Log}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.sessions.init()
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
	t := &table{admit: opt.Admit, access: opt.Access}
	var errs []error
	for i := range opt.Routes {
		rt, err := newRoute(&opt.Routes[i])
		if err == nil {
			err = t.router.Add(opt.Routes[i].Path, rt)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("inspection route %s: %w", opt.Routes[i].Path, err))
			continue
		}
		t.routes = append(t.routes, rt)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if old := s.table.Load(); old != nil {
		for _, rt := range t.routes {
			rt.inherit(old)
		}
	}
	if old := s.table.Swap(t); old != nil {
		old.close()
	}
	return nil
}

// ServeHTTP serves a request on any of the routes, by its raw target.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, query, err := proxy.SplitTarget(proxy.RawTarget(r))
	if err != nil {
		s.refuse(w, r, "", http.StatusBadRequest, "bad_target", "bad request target")
		return
	}
	t := s.table.Load()
	rt, rest, ok := t.router.Match(path)
	if !ok {
		s.refuse(w, r, "", http.StatusNotFound, "not_found", "not found")
		return
	}
	s.serve(t, rt, w, r, target{path, rest, query})
}

// route is a Route made ready.
type route struct {
	name      string
	pool      *proxy.Pool // nil: none
	balance   signaling.Balance
	dialer    *proxy.Dialer
	headers   proxy.HeaderPolicy
	handshake time.Duration
	write     time.Duration
	settings  Settings
	inbound   *Hook
	outbound  *Hook
	client    *proxy.Client // to the hooks of the route
	byHeaders *byHeaders
	origins   proxy.Origins
	appIDs    proxy.AppIDs
	clients   proxy.Trust // who is served; empty: everybody
	open      *limit.KeyedCap[netip.Prefix]
	plain     http.Handler

	maxPerAddress int
}

// inherit takes over what is known about the same route of an older table: the health of
// its upstreams, and who holds how many connections.
func (rt *route) inherit(old *table) {
	for _, was := range old.routes {
		if was.name != rt.name {
			continue
		}
		was.open.SetMax(rt.maxPerAddress)
		rt.open = was.open
		if rt.pool != nil && was.pool != nil {
			rt.pool.Inherit(was.pool)
		}
	}
}

func newRoute(o *Route) (*route, error) {
	rt := &route{
		name:      o.Path,
		dialer:    o.Dialer,
		headers:   o.Headers,
		handshake: o.HandshakeTimeout,
		write:     o.WriteTimeout,
		settings:  o.Settings,
		appIDs:    proxy.NewAppIDs(o.SDKAppIDs),
		clients:   o.Clients,
		plain:     o.Plain,

		maxPerAddress: o.MaxPerAddress,
		open:          limit.NewKeyedCap[netip.Prefix](o.MaxPerAddress),
	}
	if rt.handshake == 0 {
		rt.handshake = 5 * time.Second
	}
	if rt.write == 0 {
		rt.write = 30 * time.Second
	}
	if rt.handshake < 0 || rt.write < 0 || rt.settings.IdleTimeout < 0 {
		return nil, errors.New("a timeout is negative")
	}
	if rt.settings.MaxMessage < 0 || rt.settings.MaxUpstreamMessage < 0 {
		return nil, errors.New("a message limit is negative")
	}
	var err error
	if rt.origins, err = proxy.ParseOrigins(o.Origins); err != nil {
		return nil, err
	}
	hooks := o.HookDialer
	for _, d := range []**proxy.Dialer{&rt.dialer, &hooks} {
		if *d == nil {
			if *d, err = proxy.NewDialer(proxy.DialOptions{}); err != nil {
				return nil, err
			}
		}
	}
	if rt.balance, err = signaling.ParseBalance(o.Balance); err != nil {
		return nil, err
	}
	if all := append(proxy.Targets(o.Upstreams...), o.Targets...); len(all) > 0 {
		if rt.pool, err = proxy.MakePool(proxy.PoolOptions{Targets: all, Balance: rt.balance.Order()}); err != nil {
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
	if o.ByHeaders != nil {
		if rt.byHeaders, err = newByHeaders(o.ByHeaders, rt.dialer, hooks); err != nil {
			return nil, err
		}
		// Who may say where to connect may say who the client is.
		rt.headers.Trust = append(append(proxy.Trust(nil), rt.headers.Trust...), o.ByHeaders.Trusted...)
	} else if rt.pool == nil {
		return nil, errors.New("no upstream")
	}
	return rt, nil
}

func (rt *route) closeIdle() {
	rt.client.CloseIdle()
	if rt.byHeaders != nil {
		rt.byHeaders.closeIdle()
	}
}

// Drain ends every session as that of signaling does: new handshakes get 503,
// open sessions are closed with 1012, spread evenly over the given time. It
// returns when no session is left, or with ctx's error after it cut the rest.
func (s *Server) Drain(ctx context.Context, spread time.Duration) error {
	s.draining.Store(true)
	open := s.sessions.all()
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
				return s.cut(ctx)
			}
		}
		ses.end(endDrain)
	}
	select {
	case <-s.sessions.empty():
		return nil
	case <-ctx.Done():
		return s.cut(ctx)
	}
}

func (s *Server) cut(ctx context.Context) error {
	n := 0
	for _, ses := range s.sessions.all() {
		ses.end(endDrain)
		ses.abort()
		n++
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d inspected sessions cut: %w", n, ctx.Err())
}

// Close cuts every session, refuses new ones and returns when their goroutines
// have ended.
func (s *Server) Close() error {
	s.draining.Store(true)
	s.sessions.shut()
	var wg sync.WaitGroup
	for _, ses := range s.sessions.all() {
		wg.Go(func() {
			ses.end(endShutdown)
			ses.abort()
			<-ses.gone
		})
	}
	wg.Wait()
	s.table.Load().close()
	return nil
}
