package main

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turngate/turngate/internal/edge"
	"github.com/turngate/turngate/internal/pages"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/signaling/entry"
)

// front is what a request passes before a room serves it: its form, the name it
// came under, the limits of its sender. Behind it the answer is counted and
// written into the access log. One is made for each plan.
type front struct {
	router  proxy.Router[place]
	names   siteNames
	trust   proxy.Trust
	limits  *httpLimits
	metrics *httpMetrics
	access  *slog.Logger // nil: no access log
	certs   *edge.Certificates
	check   *checkPage // nil: not served
}

// place is a path and who serves it.
type place struct {
	path    string
	name    string // in metrics and the access log
	handler http.Handler
	exact   bool // the path alone, nothing below it
	anybody bool // under any name: for balancers that look whether we live
}

// httpMetrics are the collectors of the front.
type httpMetrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newHTTPMetrics() *httpMetrics {
	return &httpMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_https_requests_total", Help: "Requests by route and status class; 1xx is a WebSocket that opened, aborted an answer that broke off. Route other is no route of ours.",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "turngate_https_seconds", Help: "Time from a request's head to the end of its answer, or to the opening of a WebSocket, by route.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route"}),
	}
}

// visit is one request on its way through the front.
type visit struct {
	*front
	answer
	began  time.Time
	client netip.Addr
	place  place
	query  string // with its question mark
	trace  *proxy.Trace
	body   *countedBody
	probe  *pages.Probe // nil: no request of the check page
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &visit{front: f, answer: answer{ResponseWriter: w}, began: time.Now(), client: f.trust.Client(r), place: place{name: "other"}}
	if f.access != nil {
		r = v.follow(r)
	}
	whole := false
	defer func() { v.end(whole) }()
	v.serve(r)
	whole = true
}

func (v *visit) serve(r *http.Request) {
	path, query, err := proxy.SplitTarget(proxy.RawTarget(r))
	if err == nil {
		v.query = query
		if p, rest, ok := v.router.Match(proxy.ListenerOf(r.Context()), path); ok && (rest == "" || !p.exact) {
			v.place = p
		}
		r = v.probed(r, path)
	}
	who := v.limits.caller(v.client, v.query)
	if no := v.limits.request(who); no != nil {
		no.answer(v, r)
		return
	}
	if status := v.judge(r, v.place, err); status != 0 {
		v.refuse(r, status)
		return
	}
	if !entry.AsksUpgrade(r) {
		v.place.handler.ServeHTTP(v, r)
		return
	}
	release, no := v.limits.handshake(who)
	if no != nil {
		no.answer(v, r)
		return
	}
	defer func() {
		// A WebSocket holds its slots until its connection is closed, by whoever.
		if v.taken == nil || !edge.OnClose(v.taken, release) {
			release()
		}
	}()
	v.place.handler.ServeHTTP(v, r)
}

// judge returns the status that refuses a request before anybody serves it, or 0.
func (f *front) judge(r *http.Request, p place, targetErr error) int {
	switch {
	case fieldCount(r.Header) > maxFields:
		return http.StatusRequestHeaderFieldsTooLarge
	case !plainLength(r.Header["Content-Length"]), targetErr != nil:
		return http.StatusBadRequest
	case !p.anybody && !f.trust.Contains(proxy.Peer(r).Addr()) && !f.names.serve(r, f.certs):
		return http.StatusMisdirectedRequest
	case p.handler == nil:
		return http.StatusNotFound
	}
	return 0
}

func (v *visit) refuse(r *http.Request, status int) {
	if status == http.StatusRequestHeaderFieldsTooLarge {
		v.Header().Set("Connection", "close")
	}
	proxy.TraceOf(r.Context()).End(map[int]string{
		http.StatusBadRequest:                  "bad_target",
		http.StatusRequestHeaderFieldsTooLarge: "too_many_fields",
		http.StatusMisdirectedRequest:          "other_name",
		http.StatusNotFound:                    "not_found",
	}[status])
	plain(v, status)
}

// end counts a request that was answered; whole is false when its answer broke
// off in a panic.
func (v *visit) end(whole bool) {
	took := time.Since(v.began)
	code := "aborted"
	switch {
	case v.taken != nil:
		code = "1xx"
	case !whole:
	case v.status != 0:
		code = strconv.Itoa(v.status/100) + "xx"
	default: // net/http says so
		v.status, code = http.StatusOK, "2xx"
	}
	v.metrics.requests.WithLabelValues(v.place.name, code).Inc()
	v.metrics.seconds.WithLabelValues(v.place.name).Observe(took.Seconds())
	v.endProbe()
	if v.access != nil {
		v.log(took, !whole)
	}
}

// answer is a ResponseWriter that remembers what went through it.
type answer struct {
	http.ResponseWriter
	status int      // 0: none yet
	sent   int64    // bytes of body
	taken  net.Conn // by Hijack
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(p)
	a.sent += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Hijack implements http.Hijacker.
func (a *answer) Hijack() (c net.Conn, rw *bufio.ReadWriter, err error) {
	c, rw, err = http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil {
		a.taken = c
	}
	return c, rw, err
}

// countedBody counts what a client sent.
type countedBody struct {
	io.ReadCloser
	read atomic.Int64 // a transport may read on in an attempt that is over
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Add(int64(n))
	return n, err
}
