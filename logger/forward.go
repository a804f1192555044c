package logger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/turngate/turngate/internal/proxy"
)

// forward serves one request:
//
//  1. what the path does not serve is refused
//  2. a small body is read whole, a larger one prepared for streaming
//  3. the upstreams are asked in order, as long as the body can be sent again
//  4. the answer is passed on, with the header rules of the package; or, with the upstreams
//     away and a spool, the report is kept and the answer is ours
func (s *Server) forward(rt *route, w http.ResponseWriter, r *http.Request, rest, query string) {
	start := time.Now()
	pool, ok := s.admit(rt, w, r, query)
	if !ok {
		return
	}
	up := newUpload(w, r, rt)
	defer up.stop()
	body, err := prepare(up, r)
	if err != nil {
		s.cutBody(rt, w, r, up)
		return
	}
	if s.away(rt, pool, r, body) && s.keep(rt, pool, w, r, body, rest, query, false) {
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	resp, u, err := s.ask(ctx, rt, pool, r, body, up, rest, query)
	if err != nil {
		if up.stop() != nil { // it is the client's body that failed, not the upstream
			s.cutBody(rt, w, r, up)
			return
		}
		if !s.keep(rt, pool, w, r, body, rest, query, true) {
			s.failed(rt, w, r, err)
		}
		return
	}
	defer resp.Body.Close()
	if up.failed() { // an answer to half a report is none
		s.cutBody(rt, w, r, up)
		return
	}
	if !awayStatus(resp.StatusCode) {
		s.back(rt, pool)
	} else if s.keep(rt, pool, w, r, body, rest, query, true) {
		return
	}
	s.metrics.requests.WithLabelValues(rt.name, strconv.Itoa(resp.StatusCode/100)+"xx").Inc() // before the client can ask
	s.answer(rt, w, r, resp, cancel)
	s.metrics.seconds.WithLabelValues(rt.name).Observe(time.Since(start).Seconds())
	s.log.Debug("report forwarded", "route", rt.name, "client", rt.headers.Trust.Client(r), "upstream", u.Name, "status", resp.StatusCode, "duration", time.Since(start))
}

// admit refuses what this path does not serve and picks the upstreams.
func (s *Server) admit(rt *route, w http.ResponseWriter, r *http.Request, query string) (*proxy.Pool, bool) {
	no := func(status int, result, text string) (*proxy.Pool, bool) {
		s.refuse(w, r, rt.name, status, result, text)
		return nil, false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions:
	default:
		w.Header().Set("Allow", "GET, HEAD, POST, OPTIONS")
		return no(http.StatusMethodNotAllowed, "bad_method", "method not allowed")
	}
	if len(r.Header["Upgrade"]) > 0 {
		return no(http.StatusBadRequest, "upgrade", "this path does not upgrade")
	}
	if r.ContentLength > rt.maxBody {
		return no(http.StatusRequestEntityTooLarge, "too_big", "the body is too big")
	}
	id, ok := proxy.AppID(query)
	if !rt.appIDs.Allow(id, ok) {
		return no(http.StatusForbidden, "forbidden_app", "this sdkappid is not served here")
	}
	if !rt.origins.Allow(r.Header["Origin"]) {
		return no(http.StatusForbidden, "forbidden_origin", "this Origin is not served here")
	}
	if proxy.International(id) {
		return rt.international, true
	}
	return rt.mainland, true
}

// prepare returns the body for the attempts: bytes that can be sent again, none for no
// body, or nil when the upload has to be streamed.
func prepare(up *upload, r *http.Request) ([]byte, error) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return []byte{}, nil
	}
	if r.ContentLength < 0 || r.ContentLength > smallBody {
		return nil, nil
	}
	body := make([]byte, r.ContentLength) // not pooled: a transport may read on in an attempt that is over
	_, err := io.ReadFull(up, body)
	if err == nil {
		up.complete()
	}
	return body, err
}

// ask tries the upstreams in order until one answers. It gives up when the body cannot be
// sent a second time.
func (s *Server) ask(ctx context.Context, rt *route, pool *proxy.Pool, r *http.Request, body []byte, up *upload, rest, query string) (*http.Response, *proxy.Upstream, error) {
	header := rt.headers.Request(r)
	if rt.repeatable && body != nil {
		header["Idempotency-Key"] = nil // tells the transport, and is not sent
	}
	last := errors.New("no upstream")
	for _, u := range pool.Candidates() {
		resp, err := s.askOne(ctx, rt, u, r, header, body, up, u.Target(rest, query))
		if err == nil {
			if pool.Worked(u) {
				s.log.Info("upstream up", "route", rt.name, "upstream", u.Name)
			}
			return resp, u, nil
		}
		last = err
		if ctx.Err() != nil || up.failed() {
			break // the client's doing
		}
		cause := proxy.Classify(err)
		s.metrics.failures.WithLabelValues(rt.name, string(cause)).Inc()
		if pool.Failed(u, err) {
			s.log.Warn("upstream down", "route", rt.name, "upstream", u.Name, "cause", cause, "err", err)
		} else {
			s.log.Debug("upstream request", "route", rt.name, "upstream", u.Name, "cause", cause, "err", err)
		}
		var own *proxy.Error
		reached := !errors.As(err, &own) || own.Phase != "dial" && own.Phase != "tls"
		if reached && (body == nil && up.touched() || body != nil && !rt.repeatable && r.Method == http.MethodPost) {
			break
		}
	}
	return nil, nil, last
}

func (s *Server) askOne(ctx context.Context, rt *route, u *proxy.Upstream, r *http.Request, header http.Header, body []byte, up *upload, target string) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	// The wait for the answer begins when the body is sent; a streamed body is bounded by
	// its own rate.
	wait := time.AfterFunc(rt.wait, func() { cancel(context.DeadlineExceeded) })
	defer wait.Stop()
	req := (&http.Request{Method: r.Method, URL: u.URL(target), Host: u.HostHeader(), Header: header, Body: http.NoBody}).WithContext(ctx)
	switch {
	case body == nil:
		req.ContentLength, req.Body = r.ContentLength, &progress{up, wait, rt.wait}
	case len(body) > 0:
		req.ContentLength = int64(len(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.Body, _ = req.GetBody()
	}
	trace := proxy.TraceOf(r.Context())
	trace.Try(u.Name)
	resp, err := rt.client.RoundTrip(u, req, func(phase string, took time.Duration) {
		s.metrics.phases.WithLabelValues(phase).Observe(took.Seconds())
		trace.Phase(phase, took)
	})
	if err != nil {
		cause := proxy.Classify(err)
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			cause, err = proxy.CauseTimeout, context.DeadlineExceeded
		}
		cancel(nil)
		var own *proxy.Error
		if errors.As(err, &own) {
			return nil, own
		}
		return nil, &proxy.Error{Upstream: u.Name, Phase: "request", Cause: cause, Err: err}
	}
	if resp.StatusCode < 200 {
		resp.Body.Close()
		cancel(nil)
		return nil, &proxy.Error{Upstream: u.Name, Phase: "answer", Cause: proxy.CauseAnswer, Err: fmt.Errorf("status %d", resp.StatusCode)}
	}
	resp.Body = &cancelBody{resp.Body, cancel}
	return resp, nil
}

// progress restarts the wait for the answer with every piece of a streamed body.
type progress struct {
	*upload
	timer *time.Timer
	wait  time.Duration
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.upload.Read(b)
	if p.timer.Stop() { // not once it has fired, or the answer is there
		p.timer.Reset(p.wait)
	}
	return n, err
}

// cancelBody ends the context of an exchange with its answer.
type cancelBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (c *cancelBody) Close() error {
	err := c.ReadCloser.Close()
	c.cancel(nil)
	return err
}

// copyBuffers are for answers; most are a few bytes.
var copyBuffers = sync.Pool{New: func() any { return new([8 << 10]byte) }}

// answer passes the upstream's answer on. cancel ends an exchange that makes no progress.
func (s *Server) answer(rt *route, w http.ResponseWriter, r *http.Request, resp *http.Response, cancel context.CancelFunc) {
	dst := w.Header()
	rt.headers.Response(dst, resp.Header)
	if (resp.StatusCode >= 500 || proxy.Redirects(resp.StatusCode)) && !rt.keepCORS {
		proxy.DropCORS(dst)
	}
	w.WriteHeader(resp.StatusCode)
	if r.Method == http.MethodHead {
		return
	}
	rc := http.NewResponseController(w)
	watch := time.AfterFunc(rt.wait, cancel)
	defer watch.Stop()
	buf := copyBuffers.Get().(*[8 << 10]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := resp.Body.Read(buf[:])
		watch.Stop()
		if n > 0 {
			_ = rc.SetWriteDeadline(time.Now().Add(rt.writeTimeout))
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			if resp.ContentLength < 0 {
				_ = rc.Flush()
			}
		}
		if err == io.EOF {
			_ = rc.SetWriteDeadline(time.Time{})
			return
		}
		if err != nil {
			// The status is out: only a broken connection tells the client.
			s.metrics.failures.WithLabelValues(rt.name, string(proxy.Classify(err))).Inc()
			panic(http.ErrAbortHandler)
		}
		watch.Reset(rt.wait)
	}
}

// refuse answers with an error of our own, without Access-Control-Allow-Origin.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, route string, status int, result, text string) {
	s.metrics.requests.WithLabelValues(route, result).Inc()
	proxy.TraceOf(r.Context()).End(result)
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if r.ProtoMajor == 1 && (status < 500 || r.ContentLength != 0) {
		h.Set("Connection", "close") // of a refused request the rest is not read
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, text+"\n")
	}
}

// cutBody answers a request whose body was not taken to its end.
func (s *Server) cutBody(rt *route, w http.ResponseWriter, r *http.Request, up *upload) {
	switch err := up.stop(); {
	case errors.Is(err, errTooBig):
		s.refuse(w, r, rt.name, http.StatusRequestEntityTooLarge, "too_big", "the body is too big")
	case errors.Is(err, errSlow):
		s.refuse(w, r, rt.name, http.StatusRequestTimeout, "slow_body", "the body arrives too slowly")
	default:
		s.refuse(w, r, rt.name, http.StatusBadRequest, "bad_body", "the body is broken")
	}
}

func (s *Server) failed(rt *route, w http.ResponseWriter, r *http.Request, err error) {
	cause := proxy.Classify(err)
	if strings.Contains(err.Error(), "malformed HTTP") || cause == proxy.CauseOther {
		cause = proxy.CauseAnswer
	}
	switch cause {
	case proxy.CauseTimeout:
		s.refuse(w, r, rt.name, http.StatusGatewayTimeout, "upstream_timeout", "the upstream did not answer in time")
	case proxy.CauseCanceled:
		s.refuse(w, r, rt.name, http.StatusBadGateway, "client_left", "the client went away")
	default:
		s.refuse(w, r, rt.name, http.StatusBadGateway, "upstream_"+string(cause), "the upstream cannot be reached")
	}
}
