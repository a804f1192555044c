package logger

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/logger/spool"
)

// spools holds the spools of a Server: one for each group of upstreams of a route, so that
// a group that is away holds up no other. Those of one route share its limit.
type spools struct {
	srv *Server
	dir string // "": there are none

	mu      sync.Mutex // guards the fields below
	ctx     context.Context
	closed  bool
	byName  map[string]*spooler // names of directories
	budgets map[string]*spool.Budget
}

// attach gives the routes of a table their spools; those that are known go on under the new
// routes. It opens nothing.
func (s *spools) attach(t *table) {
	if s.dir == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rt := range t.routes {
		name := url.PathEscape(strings.TrimRight(rt.name, "/") + "/")
		budget := s.budgets[name]
		if budget == nil {
			budget = new(spool.Budget)
			s.budgets[name] = budget
		}
		budget.SetMax(rt.spool)
		rt.spools = map[*proxy.Pool]*spooler{rt.mainland: s.attached(name, rt, rt.mainland, budget)}
		if rt.international != rt.mainland {
			rt.spools[rt.international] = s.attached(name+"international", rt, rt.international, budget)
		}
	}
}

// attached returns the spool of a name, which counts for a route from now on; the caller holds mu.
func (s *spools) attached(name string, rt *route, pool *proxy.Pool, budget *spool.Budget) *spooler {
	sp := s.byName[name]
	if sp == nil {
		sp = &spooler{srv: s.srv, dir: filepath.Join(s.dir, name), budget: budget, ended: make(chan struct{})}
		s.byName[name] = sp
	}
	sp.via.Store(&via{rt, pool})
	return sp
}

// settle starts what a table has and ends what it has not, once the table is in force. What waits
// in a spool that ends stays on the disk.
func (s *spools) settle(t *table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.ctx == nil {
		return
	}
	used := make(map[*spooler]bool)
	for _, rt := range t.routes {
		for _, sp := range rt.spools {
			used[sp] = true
		}
	}
	for name, sp := range s.byName {
		if used[sp] {
			sp.start(s.ctx)
			continue
		}
		delete(s.byName, name)
		if n, _ := sp.depth(); n > 0 {
			s.srv.log.Warn("reports wait in a spool without a route", "dir", sp.dir, "reports", n)
		}
		sp.stop()
	}
}

// serve sends what waits until ctx ends, and closes the spools.
func (s *spools) serve(ctx context.Context, t *table) {
	s.mu.Lock()
	s.ctx = ctx
	s.orphans()
	s.mu.Unlock()
	s.settle(t)
	<-ctx.Done()
	s.close()
}

// orphans names the spools on the disk that belong to no route; the caller holds mu.
func (s *spools) orphans() {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		segments, _ := filepath.Glob(filepath.Join(s.dir, e.Name(), "*.seg"))
		if e.IsDir() && s.byName[e.Name()] == nil && len(segments) > 0 {
			s.srv.log.Warn("reports wait in a spool without a route", "dir", filepath.Join(s.dir, e.Name()))
		}
	}
}

func (s *spools) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, sp := range s.byName {
		sp.stop()
	}
}

// depths returns how much waits, by route.
func (s *spools) depths() map[string]depth {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]depth)
	for _, sp := range s.byName {
		v := sp.via.Load()
		d := all[v.rt.name]
		reports, bytes := sp.depth()
		all[v.rt.name] = depth{d.reports + reports, d.bytes + bytes}
	}
	return all
}

type depth struct {
	reports int
	bytes   int64
}

// via is how the reports of a spool leave.
type via struct {
	rt   *route
	pool *proxy.Pool
}

// spooler keeps the reports for one group of upstreams while it is away, and sends them when it
// is back.
type spooler struct {
	srv    *Server
	dir    string
	budget *spool.Budget
	via    atomic.Pointer[via]

	// away says that the group did not answer when it was asked last: reports then go to
	// the disk at once, and the spooler alone asks.
	away atomic.Bool

	mu     sync.Mutex // guards the fields below
	queue  *spool.Queue
	retry  time.Time // when opening is tried again
	broken error     // why it is not open
	closed bool
	said   map[string]time.Time // when something was logged
	cancel context.CancelFunc   // of the sender; nil: not started
	ended  chan struct{}        // closed by the sender
}

// openRetry is the pause before a spool that cannot be opened is tried again.
const openRetry = 10 * time.Second

// open returns the queue, opened when it is not.
func (sp *spooler) open() (*spool.Queue, error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	switch {
	case sp.closed:
		return nil, spool.ErrClosed
	case sp.queue != nil:
		return sp.queue, nil
	case sp.broken != nil && time.Now().Before(sp.retry):
		return nil, sp.broken
	}
	limit := sp.via.Load().rt.spool
	q, err := spool.Open(spool.Options{Dir: sp.dir, Budget: sp.budget, Segment: min(1<<20, max(64<<10, limit/8)), Log: sp.srv.log})
	if err != nil {
		if sp.broken == nil || sp.broken.Error() != err.Error() {
			sp.srv.log.Error("spool cannot be opened: reports are not kept", "dir", sp.dir, "err", err)
		}
		sp.broken, sp.retry = err, time.Now().Add(openRetry)
		return nil, err
	}
	sp.broken, sp.queue = nil, q
	if n, bytes := q.Depth(); n > 0 {
		sp.srv.log.Info("reports wait in the spool", "dir", sp.dir, "reports", n, "bytes", bytes)
	}
	if n := q.Damaged(); n > 0 {
		sp.srv.metrics.spoolDropped.WithLabelValues(sp.via.Load().rt.name, "damaged").Add(float64(n))
	}
	return q, nil
}

// put writes a report to the disk.
func (sp *spooler) put(r report) error {
	q, err := sp.open()
	if err != nil {
		return err
	}
	return q.Put(r.encode())
}

// complain logs why reports are not kept, once a minute for each reason.
func (sp *spooler) complain(reason string, err error) {
	if sp.toSay(reason) {
		sp.srv.log.Warn("reports are not kept", "dir", sp.dir, "reason", reason, "err", err)
	}
}

// toSay reports whether something is to be logged: once a minute.
func (sp *spooler) toSay(what string) bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if time.Since(sp.said[what]) < time.Minute {
		return false
	}
	if sp.said == nil {
		sp.said = make(map[string]time.Time)
	}
	sp.said[what] = time.Now()
	return true
}

func (sp *spooler) depth() (reports int, bytes int64) {
	sp.mu.Lock()
	q := sp.queue
	sp.mu.Unlock()
	if q == nil {
		return 0, 0
	}
	return q.Depth()
}

// start begins to send, unless that has begun. A route without a spool sends what an
// earlier one left.
func (sp *spooler) start(ctx context.Context) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.cancel != nil || sp.closed {
		return
	}
	if _, err := os.Stat(sp.dir); sp.via.Load().rt.spool == 0 && errors.Is(err, os.ErrNotExist) {
		return
	}
	ctx, sp.cancel = context.WithCancel(ctx)
	go func() { // ends with ctx; stop waits for it
		defer close(sp.ended)
		sp.send(ctx)
	}()
}

// stop ends the sender and closes the queue.
func (sp *spooler) stop() {
	sp.mu.Lock()
	sp.closed = true
	cancel, q := sp.cancel, sp.queue
	sp.mu.Unlock()
	if cancel != nil {
		cancel()
		<-sp.ended
	}
	if q != nil {
		_ = q.Close()
	}
}
