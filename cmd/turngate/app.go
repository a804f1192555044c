package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/accesslog"
	"github.com/turngate/turngate/internal/acme"
	"github.com/turngate/turngate/internal/admin"
	"github.com/turngate/turngate/internal/edge"
	"github.com/turngate/turngate/internal/pages"
	"github.com/turngate/turngate/logger"
	"github.com/turngate/turngate/signaling"
	"github.com/turngate/turngate/signaling/inspect"
	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/relay"
)

// app is a turngate: the rooms, and the sockets that lead to them. newApp
// opens everything, serve runs it until its context ends and the drain is
// over, reload changes it while it runs.
type app struct {
	log      *slog.Logger
	level    *slog.LevelVar
	registry *prometheus.Registry
	started  time.Time
	recent   *recentLog

	certs       *edge.Certificates
	acmeMetrics *acme.Metrics
	issued      chan struct{} // room for one: the ACME server issued something
	replanned   chan struct{} // room for one: another plan runs
	httpsCaps   *edge.Caps
	turnCaps    *edge.Caps
	edgeMetrics *edge.Metrics
	iceLimits   *iceLimits
	checks      *checks
	recorder    *pages.Recorder
	httpLimits  *httpLimits
	httpMetrics *httpMetrics
	accessLog   *accesslog.Log
	turn        *turn.Server
	signaling   *signaling.Server
	inspect     *inspect.Server
	logger      *logger.Server
	http        *http.Server
	handler     atomic.Pointer[front]
	draining    atomic.Bool
	drains      drainState
	plan        atomic.Pointer[plan] // what runs
	admin       *admin.Server

	reloads  reloadState
	reloadMu sync.Mutex      // one reload at a time; guards the fields below
	tickets  edge.TicketKeys // those that are used, the plan's until the file changes
	doors    map[string]*door
	sockets  map[string][]*relay.Listener // UDP, by configured address
	side     map[string]*sideListener     // plain HTTP, by purpose and address

	stopped  chan struct{} // closed by stop
	stopOnce sync.Once

	ctx context.Context // of serve; nil before
	wg  sync.WaitGroup  // doors
}

// newApp makes a turngate of a configuration: every socket is open when it
// returns, and nothing is served yet.
func newApp(cfg *config.Config, log *slog.Logger, level *slog.LevelVar) (*app, error) {
	recent := new(recentLog)
	log = recent.beside(log)
	a := &app{
		log: log, level: level, recent: recent,
		started:     time.Now(),
		stopped:     make(chan struct{}),
		registry:    admin.NewRegistry(fullVersion()),
		httpsCaps:   edge.NewCaps(edge.DefaultCaps),
		turnCaps:    edge.NewCaps(edge.DefaultCaps),
		edgeMetrics: edge.NewMetrics(),
		iceLimits:   newICELimits(),
		checks:      newChecks(),
		httpLimits:  newHTTPLimits(log),
		httpMetrics: newHTTPMetrics(),
		accessLog:   accesslog.New(log),
		doors:       make(map[string]*door),
		sockets:     make(map[string][]*relay.Listener),
		side:        make(map[string]*sideListener),
		acmeMetrics: acme.NewMetrics(),
		issued:      make(chan struct{}, 1),
		replanned:   make(chan struct{}, 1),
	}
	a.recorder = pages.NewRecorder(a.sample)
	p, err := a.newPlan(cfg)
	if err != nil {
		return nil, err
	}
	if err := a.open(p); err != nil {
		return nil, err
	}
	a.newHTTP(cfg)
	a.admin = a.newAdmin(cfg.Admin.Socket)
	a.registry.MustRegister(a.reloads.collector(), a.edgeMetrics, a.iceLimits.answers,
		a.httpLimits.hits, a.httpMetrics.requests, a.httpMetrics.seconds, edge.CertificateMetrics(a.certs), a.acmeMetrics)
	a.registry.MustRegister(a.turn.Collectors()...)
	a.registry.MustRegister(a.signaling.Collectors()...)
	a.registry.MustRegister(a.inspect.Collectors()...)
	a.registry.MustRegister(a.logger.Collectors()...)
	a.registry.MustRegister(a.accessLog.Collectors()...)
	return a, nil
}

// open makes the rooms of the first plan and opens its sockets. On an error
// everything is closed again.
func (a *app) open(p *plan) error {
	var err error
	if a.certs, err = edge.LoadCertificates(p.tls.pairs(), edge.CertificateOptions{Log: a.log}); err != nil {
		return err
	}
	if a.logger, err = logger.New(p.logger); err != nil {
		return err
	}
	if a.signaling, err = signaling.New(p.signaling); err != nil {
		return err
	}
	if a.inspect, err = inspect.New(p.inspect); err != nil {
		return err
	}
	if a.turn, err = turn.New(p.turn); err != nil {
		return err
	}
	next, err := a.openSockets(p)
	if err != nil {
		a.turn.Close()
		return err
	}
	if p.turn.Offload, err = a.openOffload(p.cfg); err != nil {
		next.close()
		a.turn.Close()
		return fmt.Errorf("turn.offload = %q: %w", p.cfg.TURN.Offload, err)
	}
	a.swap(p, next)
	return nil
}

// swap makes a plan the one that runs. Nothing in it can fail any more: every
// part has been checked and every socket is open.
func (a *app) swap(p *plan, next *opened) {
	must := func(err error) {
		if err != nil { // checked before; a file may have changed since
			a.log.Error("part of the configuration was not applied", "err", err)
		}
	}
	a.level.Set(p.cfg.Log.Level)
	must(a.certs.Set(p.tls.pairs()))
	a.swapOffload(p)
	must(a.turn.Reconfigure(p.turn))
	must(a.logger.Reconfigure(p.logger))
	must(a.signaling.Reconfigure(p.signaling))
	must(a.inspect.Reconfigure(p.inspect))
	a.httpsCaps.Set(httpsCaps(p.cfg.HTTPS))
	a.turnCaps.Set(caps(p.cfg.HTTPS.MaxConnections, p.cfg.TURN.Limits.ConnectionsPerAddress))
	a.httpLimits.set(p.cfg.HTTPS)
	a.iceLimits.rate.SetLimit(float64(p.cfg.TURN.API.Rate), iceBurst*p.cfg.TURN.API.Rate)
	a.handler.Store(a.newFront(p))
	a.tickets = p.tickets
	a.swapDoors(p, next.doors)
	a.swapSockets(p, next.sockets)
	a.swapSides(p, next.side)
	a.swapAccess(next.access)
	a.plan.Store(p)
	ping(a.replanned)
}

func caps(all, perAddress int) edge.CapNumbers {
	n := edge.DefaultCaps
	n.Conns, n.ConnsPerSource = all, perAddress
	return n
}

func httpsCaps(h config.HTTPS) edge.CapNumbers {
	n := caps(h.MaxConnections, h.MaxConnectionsPerAddress)
	n.HandshakesPerSource, n.HandshakeBurst = h.Limits.TLSHandshakesPerSecond, h.MaxConnectionsPerAddress
	return n
}

// serve runs the app until ctx ends, then drains it: no new work, WebSockets
// closed one after the other, allocations served until they end or the limit
// is reached. now ends the drain.
func (a *app) serve(ctx context.Context, now <-chan struct{}) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	a.reloadMu.Lock()
	a.ctx = run
	for _, d := range a.doors {
		a.serveDoor(d)
	}
	for _, l := range a.side {
		a.serveSide(l)
	}
	a.reloadMu.Unlock()

	// The access log ends last: sessions write their lines until the end.
	logging, stopLogging := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLogging()
	var access sync.WaitGroup
	access.Go(func() { a.accessLog.Serve(logging) })

	var rooms sync.WaitGroup
	rooms.Go(func() {
		if err := a.turn.Serve(run); err != nil {
			a.log.Error("TURN server ended", "err", err)
		}
	})
	rooms.Go(func() { _ = a.signaling.Serve(run) })
	rooms.Go(func() { _ = a.inspect.Serve(run) })
	rooms.Go(func() { _ = a.logger.Serve(run) })
	rooms.Go(func() { _ = a.certs.Watch(run) })
	rooms.Go(func() { a.keepCertificates(run) })
	rooms.Go(func() { a.watchTicketKeys(run) })
	rooms.Go(func() { tidyMemory(run) })
	rooms.Go(func() { a.recorder.Run(run) })
	rooms.Go(func() {
		if err := a.admin.Serve(run); err != nil {
			a.log.Error("admin socket ended", "err", err)
		}
	})
	rooms.Go(func() { _ = admin.Watchdog(run, a.alive, a.log) })
	notify(admin.NotifyReady("serving"), a.log)

	ctx, cancel := a.untilStopped(ctx)
	defer cancel()
	<-ctx.Done()
	a.drain(now)
	stop()
	a.http.Close()
	a.closeSides()
	a.wg.Wait()
	rooms.Wait()
	a.closeOffload(a.plan.Load())
	stopLogging()
	access.Wait()
	a.log.Info("stopped")
	return nil
}

// alive asks the rooms something that needs their locks: a deadlock hangs
// here, and systemd's watchdog notices.
func (a *app) alive() error {
	a.turn.Allocations()
	a.turn.FreePorts()
	a.webSockets()
	return nil
}

// webSockets counts the open ones, tunnels and inspected.
func (a *app) webSockets() int { return a.signaling.Count() + a.inspect.Count() }

// drain ends the work of the app in good order.
func (a *app) drain(now <-chan struct{}) {
	cfg := a.plan.Load().cfg.Drain
	websockets, allocations := a.drains.limits(cfg)
	limit := max(websockets, allocations) + 5*time.Second
	a.draining.Store(true)
	a.log.Info("draining", "sessions", a.webSockets(), "allocations", a.turn.Allocations(), "limit", limit)
	notify(admin.NotifyStopping("draining", limit), a.log)
	ended, end := context.WithCancel(context.Background())
	defer end()
	go func() { // ends with the drain
		select {
		case <-now:
			end()
		case <-ended.Done():
		}
	}()
	fresh, cancel := context.WithTimeout(ended, limit)
	defer cancel()
	a.drains.begin(max(websockets, allocations), cancel)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.signaling.Drain(fresh, websockets); err != nil {
			a.log.Warn("signaling sessions were cut", "err", err)
		}
	})
	wg.Go(func() {
		if err := a.inspect.Drain(fresh, websockets); err != nil {
			a.log.Warn("inspected sessions were cut", "err", err)
		}
	})
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(fresh, allocations)
		defer cancel()
		if left := a.turn.Drain(ctx); left > 0 {
			a.log.Warn("allocations were cut at the drain limit", "allocations", left)
		}
	})
	wg.Wait()
	// Requests under way get a moment; upgraded connections are gone.
	last, cancelLast := context.WithTimeout(ended, 5*time.Second)
	defer cancelLast()
	_ = a.http.Shutdown(last)
}

func notify(err error, log *slog.Logger) {
	if err != nil {
		log.Warn("systemd was not told", "err", err)
	}
}
