package logger

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/logger/spool"
)

const (
	firstBackoff = time.Second
	lastBackoff  = 15 * time.Second

	maxReplayAnswer = 64 << 10 // of the body that is read for the connection to be kept
)

// send sends what waits, oldest first and one at a time, until ctx ends. A report leaves the
// spool when the upstream has answered it with anything but a status that says "later".
// That is written down before the next one goes.
//
// A report that alone is never answered so, as by a firewall that resets what it does not
// like, must not hold up all others: when another one passes it is put behind them.
func (sp *spooler) send(ctx context.Context) {
	var (
		backoff  = firstBackoff
		sent     int
		refusals int // of the oldest, in a row, by an upstream that was there
		lap      int // reports in a row that failed, all of which had been put behind
	)
	for ctx.Err() == nil {
		q, err := sp.open()
		if err != nil {
			pause(ctx, openRetry)
			continue
		}
		damaged := q.Damaged()
		record, ok := q.Next()
		if n := q.Damaged() - damaged; n > 0 {
			sp.dropped("damaged", n)
		}
		if !ok {
			if sent > 0 {
				sp.srv.log.Info("spool sent", "dir", sp.dir, "reports", sent)
				sent = 0
			}
			select {
			case <-q.Arrived():
			case <-ctx.Done():
			}
			continue
		}
		v := sp.via.Load()
		rep, err := decodeReport(record)
		switch {
		case err != nil:
			sp.dropped("damaged", 1)
			sp.done(q.Done())
			continue
		case time.Since(rep.At) > v.rt.spoolAge:
			sp.dropped("age", 1)
			sp.done(q.Done())
			continue
		}
		resp, err := sp.askPatiently(ctx, v, rep)
		if refusals++; err != nil && !refused(err) {
			refusals = 0
		}
		if err != nil && refusals >= patience && rep.Aside == 0 && sp.anotherPasses(ctx, v, q, refusals-patience) {
			resp, err = sp.askPatiently(ctx, v, rep) // it may be back since a moment ago
			if err != nil && ctx.Err() == nil {
				if sp.toSay("aside") {
					sp.srv.log.Warn("upstream takes reports, but not the oldest: it is put behind the others", "route", v.rt.name, "err", err)
				}
				sp.away.Store(false)
				sp.putAside(q, rep)
				backoff, refusals = firstBackoff, 0
				continue
			}
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return
		case rep.Aside > 0 && refused(err):
			sp.putAside(q, rep)
			if reports, _ := q.Depth(); lap+1 >= reports {
				lap = -1
				wait(ctx, q.Arrived(), lastBackoff)
			}
			lap++
			continue
		default:
			sp.away.Store(true)
			pause(ctx, backoff+rand.N(backoff/4))
			backoff = min(2*backoff, lastBackoff)
			continue
		}
		// Confirmed. Nothing may come between the answer and this.
		sp.done(q.Done())
		sp.away.Store(false)
		backoff, refusals, lap = firstBackoff, 0, 0
		sent++
		sp.answered(v, resp)
	}
}

// patience is how often a report is refused before it is asked whether others are.
const patience = 3

// farthest is how far behind the oldest another one is looked for.
const farthest = 16

// refused reports whether a report came as far as the upstream.
func refused(err error) bool {
	var e *proxy.Error
	return !errors.As(err, &e) || e.Phase != "dial" && e.Phase != "tls"
}

// anotherPasses sends one of the reports behind the oldest, another with each turn, and reports
// whether it was answered.
func (sp *spooler) anotherPasses(ctx context.Context, v *via, q *spool.Queue, turn int) bool {
	record, done, ok := q.Ahead(1 + turn%farthest)
	if !ok {
		return false
	}
	rep, err := decodeReport(record)
	if err != nil || rep.Aside > 0 {
		return false
	}
	resp, err := sp.askPatiently(ctx, v, rep)
	if err != nil {
		return false
	}
	sp.done(done())
	sp.answered(v, resp)
	return true
}

// putAside puts the oldest report behind the others.
func (sp *spooler) putAside(q *spool.Queue, rep report) {
	rep.Aside++
	if err := q.Behind(rep.encode()); err != nil {
		sp.complain("disk", err)
	}
}

// answered ends an exchange that confirmed a report.
func (sp *spooler) answered(v *via, resp *http.Response) {
	sp.srv.metrics.replayed.WithLabelValues(v.rt.name, strconv.Itoa(resp.StatusCode/100)+"xx").Inc()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxReplayAnswer))
	resp.Body.Close()
}

// done logs that a crash would send a report again.
func (sp *spooler) done(err error) {
	if err != nil {
		sp.srv.log.Error("spool position is not written: a report may be sent again after a restart", "dir", sp.dir, "err", err)
	}
}

func (sp *spooler) dropped(reason string, n int) {
	sp.srv.metrics.spoolDropped.WithLabelValues(sp.via.Load().rt.name, reason).Add(float64(n))
}

// stopGrace is how long a report that is on its way may still be answered when the sender ends:
// one that is cut off would be sent again.
const stopGrace = 2 * time.Second

func (sp *spooler) askPatiently(ctx context.Context, v *via, rep report) (*http.Response, error) {
	asking, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopGrace, cancel) })
	resp, err := sp.ask(asking, v, rep)
	stop()
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &cancelBody{resp.Body, func(error) { cancel() }}
	return resp, nil
}

// errLater is an answer that says that the report is welcome at another time.
var errLater = errors.New("the upstream is away")

// ask sends a report to the upstreams in order until one answers. The answer's body is
// the caller's to close.
func (sp *spooler) ask(ctx context.Context, v *via, rep report) (*http.Response, error) {
	last := errLater
	for _, u := range v.pool.Candidates() {
		header := rep.Header.Clone()
		header["Idempotency-Key"] = nil // a kept connection that is gone costs no failure; not sent
		resp, err := sp.srv.askOne(ctx, v.rt, u, (&http.Request{Method: http.MethodPost}).WithContext(ctx), header, rep.body, nil, u.Target(rep.Rest, rep.Query))
		switch {
		case err == nil && !later(resp.StatusCode):
			if v.pool.Worked(u) {
				sp.srv.log.Info("upstream up", "route", v.rt.name, "upstream", u.Name)
			}
			return resp, nil
		case err == nil:
			resp.Body.Close()
			continue
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		last = err
		sp.srv.metrics.failures.WithLabelValues(v.rt.name, string(proxy.Classify(err))).Inc()
		v.pool.Failed(u, err)
	}
	return nil, last
}

// later reports whether an answer to a report that waits leaves it waiting.
func later(status int) bool {
	return awayStatus(status) || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

// pause waits, or returns at the end of ctx.
func pause(ctx context.Context, d time.Duration) { wait(ctx, nil, d) }

// wait is a pause that something that comes ends.
func wait(ctx context.Context, something <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-something:
	case <-ctx.Done():
	}
}
