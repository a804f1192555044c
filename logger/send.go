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
)

const (
	firstBackoff = time.Second
	lastBackoff  = 15 * time.Second

	maxReplayAnswer = 64 << 10 // of the body that is read for the connection to be kept
)

// send sends what waits, oldest first and one at a time, until ctx ends. A report leaves the
// spool when the upstream has answered it with anything but a status that says "later".
// That is written down before the next one goes.
func (sp *spooler) send(ctx context.Context) {
	backoff, sent := firstBackoff, 0
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
		if err != nil {
			if ctx.Err() == nil {
				sp.away.Store(true)
				pause(ctx, backoff+rand.N(backoff/4))
				backoff = min(2*backoff, lastBackoff)
			}
			continue
		}
		// Confirmed. Nothing may come between the answer and this.
		sp.done(q.Done())
		sp.away.Store(false)
		backoff = firstBackoff
		sent++
		sp.srv.metrics.replayed.WithLabelValues(v.rt.name, strconv.Itoa(resp.StatusCode/100)+"xx").Inc()
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxReplayAnswer))
		resp.Body.Close()
	}
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
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
