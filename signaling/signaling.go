// Package signaling is the wss reverse proxy of turngate: it takes a WebSocket
// handshake from a client, performs it with an upstream, checks the upstream's
// answer, and then carries bytes both ways without looking into messages.
//
// A [Server] is an http.Handler for all signaling routes, for the TRTC scheduler
// and for the one-parameter mode (schedule.go). The way of a connection:
//
//	handshake.go   what a client must ask for; the request towards the upstream
//	answer.go      what an upstream must answer; everything else is relayed or 502
//	balance.go     which upstream a client gets
//	refuse.go      what a client gets that is not served
//	health.go      checks of upstreams that no client waits for
//	tunnel.go      the two directions of a session; closes at frame boundaries
//	loops.go       carries sessions without a goroutine or a buffer for each
//	frames.go      the frame headers of both directions, without payload
//	session.go     the registry: list, kick, drain, the lines in the log
//
// Sessions outlive routes: [Server.Reconfigure] swaps the routes and touches no
// open tunnel, and a session keeps nothing of the configuration it began under.
//
// What clients do wrong is counted in the metrics and logged at Debug only. No log
// line or error holds a query: the TRTC query carries userSig, a credential.
package signaling

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/internal/proxy"
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

// A Route binds a path to upstreams. The zero value of every duration means its
// default.
type Route struct {
	Path      string   // "/ws" or "/ws/": owns "/ws", "/ws/..." and nothing else
	Upstreams []string // base URLs in order of preference

	// Targets are upstreams with weights, backups or names of their own, behind those
	// of Upstreams.
	Targets []proxy.Target
	Balance string      // see [ParseBalance]; "" is "order"
	Check   HealthCheck // the zero value makes none

	Dialer  *proxy.Dialer      // nil: one with default options
	Headers proxy.HeaderPolicy // the zero value drops Cookie and Authorization

	HandshakeTimeout time.Duration // dial to complete answer, for each upstream; 5 s
	WriteTimeout     time.Duration // how long one write may be stuck before the session ends; 30 s
	IdleTimeout      time.Duration // without a byte either way; zero: no limit

	// MaxMessage limits a client's message in bytes as sent, closed with 1009; zero means
	// [DefaultMaxMessage], negative no limit.
	MaxMessage int64
	// Lenient switches off the check of the client's frame headers (RFC 6455 section
	// 5: masks, opcodes, control frames), for clients that are not RFC 6455, and MaxMessage with it.
	Lenient bool

	Origins   []string       // allowed Origin values, see [proxy.ParseOrigins]; empty: any
	SDKAppIDs []uint64       // allowed sdkAppId values of the query; empty: any
	Clients   []netip.Prefix // who is served; empty: everybody

	// MaxPerAddress limits the connections of one client address (IPv6: /64), those
	// whose handshake is under way included; zero: no limit.
	MaxPerAddress int

	// Qrator makes the route answer as Qrator's reverse proxy does: 400 to what asks for
	// no WebSocket and when no upstream answers, an upstream's 101 byte for byte, and
	// any other answer of it relayed at once.
	Qrator bool
	// Silent names what gets no answer, only the end of the connection.
	Silent Silence

	// Plain serves requests on the path that ask for no upgrade; nil: they get 426.
	Plain http.Handler
}

// Message limits. What the TRTC SDKs send stays below 20 kB.
const (
	DefaultMaxMessage = 16 << 20
	TRTCMaxMessage    = 1 << 20
)

// Server carries signaling connections. Its methods may be called at once.
type Server struct {
	table       atomic.Pointer[table]
	configuring sync.Mutex // one Reconfigure at a time
	metrics     *metrics
	log         *slog.Logger

	draining atomic.Bool
	sessions registry
	hints    domainHints
	loops    loops
	wg       sync.WaitGroup // sessions and the janitor
}

// table is one configuration; requests in progress keep the one they began with.
type table struct {
	router proxy.Router[handler]
	admit  func(client netip.Addr) (done func(), ok bool)

	routes   []*route
	hidden   []*route        // of the scheduler: carried like one of routes
	clients  []*proxy.Client // of the scheduler
	replaced chan struct{}   // closed when another table has taken its place
	access   *slog.Logger    // nil: none
}

// sessionLog is where the lines about sessions go.
func (t *table) sessionLog(log *slog.Logger) *slog.Logger {
	if t.access != nil {
		return t.access
	}
	return log
}

func (t *table) close() {
	close(t.replaced)
	for _, c := range t.clients {
		c.CloseIdle()
	}
}

// handler serves what is below one route.
type handler interface {
	serve(s *Server, t *table, w http.ResponseWriter, r *http.Request, rest, query string)
}

// New checks the options. It starts nothing and opens nothing.
func New(opt Options) (*Server, error) {
	s := &Server{log: opt.Log}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.sessions.init()
	s.metrics = newMetrics(&s.sessions)
	if err := s.Reconfigure(opt); err != nil {
		return nil, err
	}
	return s, nil
}

// Reconfigure replaces routes and hooks for new connections. Open sessions live
// on untouched; they count against the limits of the new routes, and what is known
// about an upstream stays known. With an error nothing has changed. Log is kept from New.
func (s *Server) Reconfigure(opt Options) error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	t := &table{admit: opt.Admit, access: opt.Access, replaced: make(chan struct{})}
	var errs []error
	for i := range opt.Routes {
		rt, err := newRoute(&opt.Routes[i])
		if err == nil {
			err = t.router.Add(opt.Routes[i].Path, rt)
			t.routes = append(t.routes, rt)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("signaling route %s: %w", opt.Routes[i].Path, err))
		}
	}
	if opt.Schedule != nil {
		if err := addSchedule(t, opt.Schedule); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	old := s.table.Load()
	t.inherit(old)
	s.table.Store(t)
	if old != nil {
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
	h, rest, ok := t.router.Match(path)
	if !ok {
		s.refuse(w, r, "", http.StatusNotFound, "not_found", "not found")
		return
	}
	h.serve(s, t, w, r, rest, query)
}

// route is a Route made ready.
type route struct {
	name          string
	pool          *proxy.Pool
	dialer        *proxy.Dialer
	headers       proxy.HeaderPolicy
	handshake     time.Duration
	limits        limits
	origins       proxy.Origins
	appIDs        proxy.AppIDs
	clients       proxy.Trust // who is served; empty: everybody
	maxPerAddress int
	open          *limit.KeyedCap[netip.Prefix] // outlives a reload
	balance       balance
	check         HealthCheck
	qrator        bool
	silent        Silence
	plain         http.Handler
	maxMessage    int64
	lenient       bool
}

func newRoute(o *Route) (*route, error) {
	rt := &route{
		name:          o.Path,
		dialer:        o.Dialer,
		headers:       o.Headers,
		handshake:     o.HandshakeTimeout,
		limits:        limits{write: o.WriteTimeout, idle: o.IdleTimeout},
		appIDs:        proxy.NewAppIDs(o.SDKAppIDs),
		clients:       o.Clients,
		maxPerAddress: o.MaxPerAddress,
		open:          limit.NewKeyedCap[netip.Prefix](o.MaxPerAddress),
		check:         o.Check,
		qrator:        o.Qrator,
		silent:        o.Silent,
		plain:         o.Plain,
		maxMessage:    o.MaxMessage,
		lenient:       o.Lenient,
	}
	if rt.handshake == 0 {
		rt.handshake = 5 * time.Second
	}
	if rt.limits.write == 0 {
		rt.limits.write = 30 * time.Second
	}
	if rt.maxMessage == 0 {
		rt.maxMessage = DefaultMaxMessage
	}
	if rt.handshake < 0 || rt.limits.write < 0 || rt.limits.idle < 0 {
		return nil, errors.New("a timeout is negative")
	}
	var err error
	if rt.origins, err = proxy.ParseOrigins(o.Origins); err != nil {
		return nil, err
	}
	if rt.dialer == nil {
		if rt.dialer, err = proxy.NewDialer(proxy.DialOptions{}); err != nil {
			return nil, err
		}
	}
	if rt.balance, err = parseBalance(o.Balance); err != nil {
		return nil, err
	}
	if err = rt.check.complete(); err != nil {
		return nil, err
	}
	if targets := append(proxy.Targets(o.Upstreams...), o.Targets...); len(targets) > 0 {
		rt.pool, err = proxy.MakePool(proxy.PoolOptions{Targets: targets, Balance: rt.balance.order, Checked: rt.check.Kind != ""})
	}
	return rt, err
}

// inherit lets the routes go on with what those of the same path in an older table know.
func (t *table) inherit(old *table) {
	if old == nil {
		return
	}
	for _, rt := range append(t.routes[:len(t.routes):len(t.routes)], t.hidden...) {
		for _, was := range append(old.routes[:len(old.routes):len(old.routes)], old.hidden...) {
			if strings.TrimRight(was.name, "/") != strings.TrimRight(rt.name, "/") {
				continue
			}
			was.open.SetMax(rt.maxPerAddress)
			rt.open = was.open
			if rt.pool != nil && was.pool != nil {
				rt.pool.Inherit(was.pool)
			}
		}
	}
}

func (rt *route) serve(s *Server, t *table, w http.ResponseWriter, r *http.Request, rest, query string) {
	if rt.plain != nil && !asksUpgrade(r) {
		rt.plain.ServeHTTP(w, r)
		return
	}
	if rt.pool == nil {
		s.refuse(w, r, rt.name, http.StatusBadGateway, "no_upstream", "no upstream")
		return
	}
	s.connect(t, rt, w, r, rt.pool.Search(rt.key(r, query)), rest, query)
}

// Drain ends every session: new handshakes get 503 with Retry-After, open
// sessions get Close 1012 (service restart) at a frame boundary, spread evenly
// over the given time so that the clients do not all come back at once. It returns when
// no session is left, or with ctx's error after it cut the rest.
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
		ses.requestClose(closeServiceRestart, "drain", drainBoundaryWait)
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
		ses.setReason("drain")
		ses.abort()
		n++
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d signaling sessions cut: %w", n, ctx.Err())
}

// Close cuts every session, refuses new ones and returns when their goroutines have ended.
func (s *Server) Close() error {
	s.draining.Store(true)
	s.sessions.shut()
	for _, ses := range s.sessions.all() {
		ses.setReason("shutdown")
		ses.abort()
	}
	for _, c := range s.table.Load().clients {
		c.CloseIdle()
	}
	s.wg.Wait()
	s.loops.close()
	return nil
}
