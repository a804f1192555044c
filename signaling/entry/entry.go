// Package entry is what every kind of WebSocket route has in common: who is let in, which
// upstream answers, and the list of what is open. The rooms signaling and
// signaling/inspect carry the connections, each in its way.
//
// The way of a handshake:
//
//	entry.go     finds the route by the raw target
//	admit.go     what a client must ask for, and who is served
//	balance.go   which upstream a client gets
//	ask.go       the handshake with an upstream
//	answer.go    what an upstream must answer; everything else is relayed or 502
//	refuse.go    what a client gets that is not served
//	registry.go  the open sessions: list, kick, drain
//	health.go    checks of upstreams that no client waits for
//
// What clients do wrong is counted in the metrics and logged at Debug only. No log
// line or error holds a query: the TRTC query carries userSig, a credential.
package entry

import (
	"context"
	"errors"
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

// A Route binds a path to upstreams and says who is served there. The zero value of every
// duration means its default.
type Route struct {
	Path      string   // "/ws" or "/ws/": owns "/ws", "/ws/..." and nothing else
	Listen    []string // where alone it answers, see [proxy.ListenerOf]; empty: wherever no route does so
	Upstreams []string // base URLs in order of preference

	// Targets are upstreams with weights, backups or names of their own, behind those
	// of Upstreams.
	Targets []proxy.Target
	Balance string      // see [parseBalance]; "" is "order"
	Check   HealthCheck // the zero value makes none

	Dialer  *proxy.Dialer      // nil: one with default options
	Headers proxy.HeaderPolicy // the zero value drops Cookie and Authorization

	HandshakeTimeout time.Duration // dial to complete answer, for each upstream; 5 s
	WriteTimeout     time.Duration // how long one write may be stuck before the session ends; 30 s

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

	// Plain serves requests on the path that ask for no upgrade, of Clients only; nil: they
	// get 426.
	Plain http.Handler
}

// A Gate is a Route made ready. It is not changed once it is in use.
type Gate struct {
	Name         string      // in metrics and logs
	Pool         *proxy.Pool // nil: the route has no upstream of its own
	Dialer       *proxy.Dialer
	Headers      proxy.HeaderPolicy
	Handshake    time.Duration
	WriteTimeout time.Duration
	Qrator       bool
	Origins      proxy.Origins
	AppIDs       proxy.AppIDs

	path          string
	listen        []string
	clients       proxy.Trust // who is served; empty: everybody
	maxPerAddress int
	open          *limit.KeyedCap[netip.Prefix] // outlives a reload
	balance       balance
	check         HealthCheck
	silent        Silence
	plain         http.Handler
}

// NewGate checks a route.
func NewGate(o *Route) (*Gate, error) {
	g := &Gate{
		Name: proxy.RouteName(o.Listen, o.Path), path: o.Path, listen: o.Listen, Dialer: o.Dialer, Headers: o.Headers, Handshake: o.HandshakeTimeout, WriteTimeout: o.WriteTimeout,
		Qrator: o.Qrator, AppIDs: proxy.NewAppIDs(o.SDKAppIDs), clients: o.Clients,
		maxPerAddress: o.MaxPerAddress, open: limit.NewKeyedCap[netip.Prefix](o.MaxPerAddress),
		check: o.Check, silent: o.Silent, plain: o.Plain,
	}
	if g.Handshake == 0 {
		g.Handshake = 5 * time.Second
	}
	if g.WriteTimeout == 0 {
		g.WriteTimeout = 30 * time.Second
	}
	if g.Handshake < 0 || g.WriteTimeout < 0 {
		return nil, errors.New("a timeout is negative")
	}
	var err error
	if g.Origins, err = proxy.ParseOrigins(o.Origins); err != nil {
		return nil, err
	}
	if g.Dialer == nil {
		if g.Dialer, err = proxy.NewDialer(proxy.DialOptions{}); err != nil {
			return nil, err
		}
	}
	if g.balance, err = parseBalance(o.Balance); err != nil {
		return nil, err
	}
	if err = g.check.complete(); err != nil {
		return nil, err
	}
	if targets := append(proxy.Targets(o.Upstreams...), o.Targets...); len(targets) > 0 {
		g.Pool, err = proxy.MakePool(proxy.PoolOptions{Targets: targets, Balance: g.balance.order, Checked: g.check.Kind != ""})
	}
	return g, err
}

// inherit makes the gate go on with what the one of the same path in an older table knows.
func (g *Gate) inherit(was *Gate) {
	was.open.SetMax(g.maxPerAddress)
	g.open = was.open
	if g.Pool != nil && was.Pool != nil {
		g.Pool.Inherit(was.Pool)
	}
}

// A Target is where a request goes, undecoded.
type Target struct {
	Path  string // whole
	Rest  string // behind the route
	Query string // with its question mark

	table *Table
}

// A Handler serves what is below one route.
type Handler func(w http.ResponseWriter, r *http.Request, at Target)

// A Table is one configuration; requests in progress keep the one they began with.
type Table struct {
	// Admit, if set, is asked before an upstream is dialled. It returns false when the
	// client is over a limit (the answer is 429) and otherwise a function that is
	// called when the connection has ended.
	Admit func(client netip.Addr) (done func(), ok bool)

	// Access, if set, gets the lines about sessions instead of the log of the process.
	Access *slog.Logger

	// Closed is called when another table has taken the place of this one.
	Closed []func()

	router   proxy.Router[Handler]
	routes   []*Gate
	hidden   []*Gate       // carried like one of routes, and not listed
	replaced chan struct{} // closed when another table has taken its place
}

// Add binds a gate to its path. serve gets the handshakes; what asks for no upgrade goes to
// Plain, where the route has that and serves the client.
func (t *Table) Add(g *Gate, serve Handler) error {
	t.routes = append(t.routes, g)
	if plain := g.plain; plain != nil {
		inner := serve
		serve = func(w http.ResponseWriter, r *http.Request, at Target) {
			if AsksUpgrade(r) || !g.serves(g.Headers.Trust.Client(r)) { // which is then refused
				inner(w, r, at)
			} else {
				plain.ServeHTTP(w, r)
			}
		}
	}
	return t.router.Add(g.listen, g.path, serve)
}

// AddHidden binds a gate that is not listed with the routes. serve gets every request.
func (t *Table) AddHidden(g *Gate, serve Handler) error {
	t.hidden = append(t.hidden, g)
	return t.router.Add(g.listen, g.path, serve)
}

// gates returns all gates.
func (t *Table) gates() []*Gate { return append(t.routes[:len(t.routes):len(t.routes)], t.hidden...) }

func (t *Table) close() {
	close(t.replaced)
	for _, f := range t.Closed {
		f()
	}
}

// Server is the part of a room's Server that the rooms share. Its methods may be called at
// once. Those of [Registry] are for the callers of the room, as are ServeHTTP, Serve,
// Upstreams and Drain; the others are for the room.
type Server[S Session] struct {
	Registry[S]
	Log *slog.Logger

	metrics     *metrics
	table       atomic.Pointer[Table]
	configuring sync.Mutex // one Use at a time
	draining    atomic.Bool
}

// Init makes a server. room is the word in the names of its metrics, kind the one in their
// descriptions.
func (s *Server[S]) Init(room, kind string, log *slog.Logger) {
	if s.Log = log; log == nil {
		s.Log = slog.Default()
	}
	s.Registry.init()
	s.metrics = newMetrics(room, kind, func() float64 { return float64(s.Count()) })
}

// Use replaces the routes for new connections. Open sessions live on untouched; they count
// against the limits of the new routes, and what is known about an upstream stays known.
func (s *Server[S]) Use(t *Table) {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	t.replaced = make(chan struct{})
	old := s.table.Load()
	if old != nil {
		for _, g := range t.gates() {
			for _, was := range old.gates() {
				if strings.TrimRight(was.Name, "/") == strings.TrimRight(g.Name, "/") {
					g.inherit(was)
				}
			}
		}
	}
	if s.table.Store(t); old != nil {
		old.close()
	}
}

// ServeHTTP serves a request on any of the routes, by its raw target.
func (s *Server[S]) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, query, err := proxy.SplitTarget(proxy.RawTarget(r))
	if err != nil {
		s.Refuse(w, r, "", Refusal{http.StatusBadRequest, "bad_target", "bad request target"})
		return
	}
	t := s.table.Load()
	serve, rest, ok := t.router.Match(proxy.ListenerOf(r.Context()), path)
	if !ok {
		s.Refuse(w, r, "", Refusal{http.StatusNotFound, "not_found", "not found"})
		return
	}
	serve(w, r, Target{path, rest, query, t})
}

// SessionLog is where the lines about sessions go.
func (s *Server[S]) SessionLog() *slog.Logger {
	if access := s.table.Load().Access; access != nil {
		return access
	}
	return s.Log
}

// Draining reports whether new handshakes are refused.
func (s *Server[S]) Draining() bool { return s.draining.Load() }

// Drain ends every session: new handshakes get 503 with Retry-After, open sessions get
// Close 1012 (service restart), spread evenly over the given time so that the clients do not
// all come back at once. It returns when no session is left, or with ctx's error after it
// cut the rest.
func (s *Server[S]) Drain(ctx context.Context, spread time.Duration) error {
	s.draining.Store(true)
	return s.Registry.drain(ctx, spread)
}

// Shut refuses handshakes, cuts every session, and gives up the routes. The sessions then
// end, see [Registry.Empty].
func (s *Server[S]) Shut() {
	s.draining.Store(true)
	s.Registry.shut()
	for _, f := range s.table.Load().Closed {
		f()
	}
}
