// Package logger is the log-report reverse proxy of turngate, the target of TRTC's
// loggerProxy. It is not a logging library.
//
// What a report path needs, and what a plain reverse proxy gets wrong:
//
//   - The SDK appends "/v5/..." to the configured URL, so "/logger//v5/..." must work
//     without a redirect: browsers drop a report whose answer is one.
//   - The SDK takes every readable answer for a delivery, also a 503. Errors of our own
//     carry no Access-Control-Allow-Origin, and an upstream's 5xx loses it, so that the SDK
//     keeps the report and sends it again. All other CORS fields are the upstream's.
//   - The SDK waits for an answer without limit: the wait for the upstream is bounded here.
//   - Cookies of the company's domain do not reach the vendor.
//
// Bodies up to 64 KiB, which is every report, are read first and can then be sent again on
// another connection; larger ones are streamed.
//
// A route can keep reports on the disk while its upstreams are away (spool.go, keep.go, send.go, and
// the package spool): what was answered is delivered, at least once.
package logger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/logger/spool"
)

// Options configure a Server.
type Options struct {
	Routes []Route
	Log    *slog.Logger // nil: slog.Default

	// SpoolDir holds the spools of the routes that have one. It is kept from New.
	SpoolDir string
}

// A Route binds a path to upstreams. The zero value of every limit means its default.
type Route struct {
	Path   string   // "/logger" or "/logger/": owns "/logger", "/logger/..." and nothing else
	Listen []string // where alone it answers, see [proxy.ListenerOf]; empty: wherever no route does so

	// Upstreams are base URLs in order of preference. Without them TRTC's own are used:
	// apisgp.my-imcloud.com for an sdkappid below 1,400,000,000, otherwise yun.tim.qq.com;
	// Mainland and International replace these two.
	Upstreams     []string
	Mainland      []string
	International []string

	Dialer  *proxy.Dialer      // nil: one with default options
	Headers proxy.HeaderPolicy // the zero value drops Cookie and Authorization

	MaxBody      int64         // bytes; 8 MiB
	ReadTimeout  time.Duration // longest pause in a request's body; 10 s
	Wait         time.Duration // for the upstream's answer, and longest pause within it; 10 s
	WriteTimeout time.Duration // longest pause of a client that reads the answer; 30 s

	// KeepCORS leaves the CORS fields of a 5xx as they are, for clients that do not take a
	// readable error for a delivery.
	KeepCORS bool

	// Repeatable says that a request may reach the upstream twice: one whose connection
	// ended before the answer is then sent again. Log reports are repeatable.
	Repeatable bool

	// Spool is how many bytes of POSTs are kept on the disk while the upstreams are away: none
	// answers, or with 502, 503 or 504. 0: none; what an earlier spool left is still sent. A
	// kept report is answered with SpoolStatus (200), readable for its page, and sent
	// when an upstream is back, oldest first. It may arrive twice, as after a time-out. What
	// waits longer than SpoolAge (24 h) is dropped. When the spool is full the client is told
	// as without one.
	Spool       int64
	SpoolStatus int
	SpoolAge    time.Duration

	Origins   []string // allowed Origin values, see [proxy.ParseOrigins]; empty: any
	SDKAppIDs []uint64 // allowed sdkappid values of the query; empty: any
}

var (
	defaultMainland      = []string{"https://yun.tim.qq.com"}
	defaultInternational = []string{"https://apisgp.my-imcloud.com"}
)

// DefaultUpstreams are the URLs of the log servers of a TRTC route that names none:
// for all sdkappids.
func DefaultUpstreams() []string { return slices.Concat(defaultMainland, defaultInternational) }

// Server forwards log reports. It is an http.Handler for all its routes and holds idle
// connections to upstreams until Close.
type Server struct {
	table   atomic.Pointer[table]
	metrics *metrics
	log     *slog.Logger
	spools  spools
}

type table struct {
	router proxy.Router[*route]
	routes []*route
}

// New checks the options. It starts nothing and opens nothing. What is kept is sent by Serve.
func New(opt Options) (*Server, error) {
	s := &Server{log: opt.Log}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.spools = spools{srv: s, dir: opt.SpoolDir, byName: make(map[string]*spooler), budgets: make(map[string]*spool.Budget)}
	s.metrics = newMetrics(&s.spools)
	if err := s.Reconfigure(opt); err != nil {
		return nil, err
	}
	return s, nil
}

// Reconfigure replaces the routes for new requests; those in progress end under the old
// ones. With an error nothing has changed. Log is kept from New.
func (s *Server) Reconfigure(opt Options) error {
	t := &table{}
	var errs []error
	for i := range opt.Routes {
		rt, err := newRoute(&opt.Routes[i])
		if err == nil {
			err = t.router.Add(opt.Routes[i].Listen, opt.Routes[i].Path, rt)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("logger route %s: %w", opt.Routes[i].Path, err))
			continue
		}
		if rt.spool > 0 && s.spools.dir == "" {
			errs = append(errs, fmt.Errorf("logger route %s: a spool without a directory", rt.name))
		}
		t.routes = append(t.routes, rt)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.spools.attach(t)
	if old := s.table.Swap(t); old != nil {
		old.close()
	}
	s.spools.settle(t)
	return nil
}

// Serve sends what waits in the spools until ctx ends. It returns when nothing is being sent
// any more; what is left stays on the disk. Reports are kept before, too.
func (s *Server) Serve(ctx context.Context) error {
	s.spools.serve(ctx, s.table.Load())
	return nil
}

// Close ends idle connections to upstreams. The HTTP server that calls ServeHTTP has to be
// shut down first.
func (s *Server) Close() error {
	s.table.Load().close()
	s.spools.close()
	return nil
}

func (t *table) close() {
	for _, rt := range t.routes {
		rt.client.CloseIdle()
	}
}

// ServeHTTP serves a request on any of the routes, by its raw target.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, query, err := proxy.SplitTarget(proxy.RawTarget(r))
	if err != nil {
		s.refuse(w, r, "", http.StatusBadRequest, "bad_target", "bad request target")
		return
	}
	rt, rest, ok := s.table.Load().router.Match(proxy.ListenerOf(r.Context()), path)
	if !ok {
		s.refuse(w, r, "", http.StatusNotFound, "not_found", "not found")
		return
	}
	s.forward(rt, w, r, rest, query)
}

// route is a Route made ready.
type route struct {
	name          string
	mainland      *proxy.Pool
	international *proxy.Pool
	client        *proxy.Client
	headers       proxy.HeaderPolicy
	origins       proxy.Origins
	appIDs        proxy.AppIDs

	maxBody      int64
	readTimeout  time.Duration
	wait         time.Duration
	writeTimeout time.Duration
	repeatable   bool
	keepCORS     bool

	spool       int64
	spoolStatus int
	spoolAge    time.Duration
	spools      map[*proxy.Pool]*spooler // fixed once the route is in a table
}

func newRoute(o *Route) (*route, error) {
	rt := &route{
		name: proxy.RouteName(o.Listen, o.Path), headers: o.Headers, appIDs: proxy.NewAppIDs(o.SDKAppIDs), repeatable: o.Repeatable, keepCORS: o.KeepCORS,
		spool: o.Spool, spoolStatus: o.SpoolStatus, spoolAge: o.SpoolAge,
		maxBody: o.MaxBody, readTimeout: o.ReadTimeout, wait: o.Wait, writeTimeout: o.WriteTimeout,
	}
	if rt.maxBody == 0 {
		rt.maxBody = 8 << 20
	}
	if rt.readTimeout == 0 {
		rt.readTimeout = 10 * time.Second
	}
	if rt.wait == 0 {
		rt.wait = 10 * time.Second
	}
	if rt.writeTimeout == 0 {
		rt.writeTimeout = 30 * time.Second
	}
	if rt.spoolStatus == 0 {
		rt.spoolStatus = http.StatusOK
	}
	if rt.spoolAge == 0 {
		rt.spoolAge = 24 * time.Hour
	}
	if rt.spoolStatus < 200 || rt.spoolStatus > 299 {
		return nil, fmt.Errorf("spool status %d is not 2xx", rt.spoolStatus)
	}
	if rt.spool < 0 || rt.spoolAge < 0 || rt.maxBody < 0 || rt.readTimeout < 0 || rt.wait < 0 || rt.writeTimeout < 0 {
		return nil, errors.New("a limit is negative")
	}
	mainland, international := o.Mainland, o.International
	if mainland == nil {
		mainland = defaultMainland
	}
	if international == nil {
		international = defaultInternational
	}
	var err error
	if rt.mainland, err = proxy.NewPool(mainland); err != nil {
		return nil, err
	}
	if rt.international, err = proxy.NewPool(international); err != nil {
		return nil, err
	}
	if o.Upstreams != nil { // one pool, so that both see the same health
		if rt.mainland, err = proxy.NewPool(o.Upstreams); err != nil {
			return nil, err
		}
		rt.international = rt.mainland
	}
	if rt.origins, err = proxy.ParseOrigins(o.Origins); err != nil {
		return nil, err
	}
	dialer := o.Dialer
	if dialer == nil {
		if dialer, err = proxy.NewDialer(proxy.DialOptions{}); err != nil {
			return nil, err
		}
	}
	rt.client = proxy.NewClient(dialer)
	return rt, nil
}
