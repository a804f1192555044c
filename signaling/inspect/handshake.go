package inspect

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/signaling"
)

// target is the request target, undecoded.
type target struct {
	path  string // whole
	rest  string // behind the route
	query string // with its question mark
}

// A course is where one connection goes and how it is carried.
type course struct {
	upstreams         *proxy.Search
	pool              *proxy.Pool // of the upstreams; nil: headers named the one
	dialer            *proxy.Dialer
	rest              string // of the target, for the upstream
	settings          Settings
	inbound, outbound *Hook
	client            *proxy.Client // to the hooks
	shared            int           // requests at once to a host that headers name; 0: each hook has its own number
}

// refuse answers with an error of our own.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, route string, status int, result, text string) {
	s.metrics.handshakes.WithLabelValues(route, result).Inc()
	proxy.TraceOf(r.Context()).End(result)
	signaling.Refuse(w, r, status, text)
}

// serve takes a client's handshake, performs one with an upstream, answers the
// client, and carries the session until it is over.
func (s *Server) serve(t *table, rt *route, w http.ResponseWriter, r *http.Request, at target) {
	if rt.plain != nil && !signaling.AsksUpgrade(r) {
		rt.plain.ServeHTTP(w, r)
		return
	}
	if no := signaling.CheckOpening(r); no != nil {
		s.refuse(w, r, rt.name, no.Status, no.Result, no.Text)
		return
	}
	appID, ok := proxy.AppID(at.query)
	if !rt.appIDs.Allow(appID, ok) {
		s.refuse(w, r, rt.name, http.StatusForbidden, "forbidden_app", "this sdkAppId is not served here")
		return
	}
	if !rt.origins.Allow(r.Header["Origin"]) {
		s.refuse(w, r, rt.name, http.StatusForbidden, "forbidden_origin", "this Origin is not served here")
		return
	}
	if s.draining.Load() {
		s.refuse(w, r, rt.name, http.StatusServiceUnavailable, "draining", "going away")
		return
	}
	course, no := rt.course(r, at)
	if no != nil {
		s.refuse(w, r, rt.name, no.Status, no.Result, no.Text)
		return
	}
	client := rt.headers.Trust.Client(r)
	if len(rt.clients) > 0 && !rt.clients.Contains(client) {
		s.refuse(w, r, rt.name, http.StatusForbidden, "forbidden_client", "this address is not served here")
		return
	}
	source := limit.Source(client)
	if !rt.open.Acquire(source) {
		s.refuse(w, r, rt.name, http.StatusTooManyRequests, "limited", "too many connections")
		return
	}
	defer rt.open.Release(source) // the session ends before this returns
	done := func() {}
	if t.admit != nil {
		if done, ok = t.admit(client); !ok {
			s.refuse(w, r, rt.name, http.StatusTooManyRequests, "limited", "too many connections")
			return
		}
	}
	up, opened, err := s.ask(r.Context(), rt, course, rt.request(r), at.query)
	if err != nil {
		done()
		s.failed(w, r, rt, err)
		return
	}
	defer up.Release()
	if opened.Status != http.StatusSwitchingProtocols {
		defer done()
		defer opened.Conn.Close()
		if !opened.Relay(w, r, &rt.headers, rt.handshake) {
			s.refuse(w, r, rt.name, http.StatusBadGateway, "upstream_answer", "the upstream's answer is not understood")
			return
		}
		s.metrics.handshakes.WithLabelValues(rt.name, "upstream_status_"+strconv.Itoa(opened.Status/100)+"xx").Inc()
		return
	}
	ses := &session{
		key: rand.Text(), client: client, route: rt.name, upstream: up.Name, appID: appID, opened: time.Now(),
		settings: course.settings, done: done, srv: s,
		ending: make(chan struct{}), gone: make(chan struct{}),
	}
	s.start(rt, course, ses, w, r, opened, at)
}

// request returns the header for the upstream. Extensions are between the client
// and us: messages are read here.
func (rt *route) request(r *http.Request) http.Header {
	header := rt.headers.Request(r)
	for name := range header {
		if strings.HasPrefix(name, "Sec-Websocket-") {
			delete(header, name)
		}
	}
	for _, name := range []string{"Sec-Websocket-Version", "Sec-Websocket-Key", "Sec-Websocket-Protocol"} {
		if v := r.Header[name]; v != nil {
			header[name] = v
		}
	}
	return header
}

// course decides where a connection goes: as the route says, or as the headers of a
// trusted peer do.
func (rt *route) course(r *http.Request, at target) (*course, *signaling.Refusal) {
	c := &course{
		pool: rt.pool, dialer: rt.dialer, rest: at.rest, settings: rt.settings,
		inbound: rt.inbound, outbound: rt.outbound, client: rt.client,
	}
	b := rt.byHeaders
	if b == nil {
		c.upstreams = rt.pool.Search(rt.balance.Key(r, at.query, rt.headers.Trust))
		return c, nil
	}
	peer := proxy.Peer(r).Addr()
	trusted := b.trusted.Contains(peer)
	switch {
	case !trusted && !b.strip:
		return nil, &signaling.Refusal{Status: http.StatusForbidden, Result: "untrusted", Text: "this peer may not say where to connect"}
	case !trusted || rt.pool != nil && !asksByHeaders(r.Header):
		if rt.pool == nil {
			return nil, &signaling.Refusal{Status: http.StatusForbidden, Result: "untrusted", Text: "this peer may not say where to connect"}
		}
		c.upstreams = rt.pool.Search(rt.balance.Key(r, at.query, rt.headers.Trust))
		return c, nil
	}
	w, err := parseWish(r.Header, rt.settings.MaxMessage)
	if err != nil {
		return nil, &signaling.Refusal{Status: http.StatusBadRequest, Result: "bad_option", Text: err.Error()}
	}
	reach := b.of(peer)
	for _, u := range []struct {
		what string
		to   *proxy.Upstream
	}{{"upstream", w.upstream}, {"inboundhook", w.inbound.host()}, {"outboundhook", w.outbound.host()}} {
		if u.to != nil && b.check(reach, u.to) != nil {
			return nil, &signaling.Refusal{Status: http.StatusForbidden, Result: "forbidden_target", Text: "x-wsproxy-" + u.what + ": " + errTarget.Error()}
		}
	}
	c.pool, c.upstreams = nil, proxy.Listed([]*proxy.Upstream{w.upstream})
	c.dialer, c.client, c.rest, c.shared = reach.dialer, reach.client, at.path, b.concurrency
	c.inbound, c.outbound = w.inbound, w.outbound
	c.settings.IdleTimeout, c.settings.MaxMessage = w.idle, w.maxFrame
	c.settings.Compress, c.settings.ValidateUTF8 = w.compress, w.validateUTF8
	c.settings.ValidateUpstreamUTF8 = true // as WsProxy does
	return c, nil
}

func (h *Hook) host() *proxy.Upstream {
	if h == nil {
		return nil
	}
	return h.to
}

// ask tries the upstreams in order, as signaling does.
func (s *Server) ask(ctx context.Context, rt *route, c *course, header http.Header, query string) (*proxy.Upstream, *signaling.Opened, error) {
	var last error = errors.New("no upstream")
	for u := c.upstreams.Next(); u != nil; u = c.upstreams.Next() {
		opened, err := s.askOne(ctx, rt, c, u, header, query)
		if err == nil {
			if c.pool != nil && c.pool.Worked(u) {
				s.log.Info("upstream up", "route", rt.name, "upstream", u.Name)
			}
			return u, opened, nil
		}
		u.Release()
		last = err
		cause := proxy.Classify(err)
		s.metrics.failures.WithLabelValues(rt.name, string(cause)).Inc()
		if c.pool != nil && c.pool.Failed(u, err) {
			s.log.Warn("upstream down", "route", rt.name, "upstream", u.Name, "cause", cause, "err", err)
		} else {
			s.log.Debug("upstream handshake", "route", rt.name, "upstream", u.Name, "cause", cause, "err", err)
		}
		if ctx.Err() != nil || cause == proxy.CauseAnswer {
			break
		}
	}
	return nil, nil, last
}

func (s *Server) askOne(parent context.Context, rt *route, c *course, u *proxy.Upstream, header http.Header, query string) (*signaling.Opened, error) {
	ctx, cancel := context.WithTimeout(parent, rt.handshake)
	defer cancel()
	trace := proxy.TraceOf(parent)
	trace.Try(u.Name)
	return signaling.Open(parent, ctx, c.dialer, u, header, c.rest, query, func(phase string, took time.Duration) {
		s.metrics.phase(phase, took)
		trace.Phase(phase, took)
	})
}

// failed answers a handshake for which no upstream answered as it must.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, rt *route, err error) {
	cause := proxy.Classify(err)
	result := "upstream_" + string(cause)
	switch {
	case errors.Is(err, errTarget):
		s.refuse(w, r, rt.name, http.StatusForbidden, "forbidden_target", "x-wsproxy-upstream: "+errTarget.Error())
	case cause == proxy.CauseCanceled:
		s.refuse(w, r, rt.name, http.StatusBadGateway, "client_left", "the client went away")
	case cause == proxy.CauseTimeout:
		s.refuse(w, r, rt.name, http.StatusGatewayTimeout, result, "the upstream did not answer in time")
	case cause == proxy.CauseDNS:
		s.refuse(w, r, rt.name, http.StatusBadGateway, result, "the upstream's name has no address")
	default:
		s.refuse(w, r, rt.name, http.StatusBadGateway, result, "the upstream cannot be reached")
	}
}

// start lists the session, sends the client its 101 and carries it to its end. It is
// listed first: who has been answered can be found and ended.
func (s *Server) start(rt *route, c *course, ses *session, w http.ResponseWriter, r *http.Request, opened *signaling.Opened, at target) {
	up, err := dialled(opened.Conn, opened.Rest)
	if err != nil { // a handshake with ourselves
		opened.Conn.Close()
		ses.done()
		s.log.Error("upstream connection cannot be taken over", "route", rt.name, "err", err)
		s.refuse(w, r, rt.name, http.StatusInternalServerError, "internal", "internal error")
		return
	}
	up.write, up.limit, up.validate = rt.write, c.settings.MaxUpstreamMessage, c.settings.ValidateUpstreamUTF8
	ses.up = up
	// Not the request's context: that ends with the hijack.
	ses.ctx, ses.cancel = context.WithCancel(context.Background())
	if !s.sessions.add(ses) {
		opened.Conn.Close()
		ses.cancel()
		ses.done()
		s.refuse(w, r, rt.name, http.StatusServiceUnavailable, "draining", "going away")
		return
	}
	down, err := accepted(w, r, responseHeader(&rt.headers, opened.Header), c.settings.Compress, rt.handshake)
	if err != nil {
		s.metrics.handshakes.WithLabelValues(rt.name, "client_left").Inc()
		s.log.Debug("client left before its answer", "route", rt.name, "err", err)
		opened.Conn.Close()
		ses.cancel()
		ses.done()
		s.sessions.remove(ses)
		close(ses.gone)
		return
	}
	down.write, down.limit, down.validate = rt.write, c.settings.MaxMessage, c.settings.ValidateUTF8
	if c.settings.Compress {
		down.inflates()
	}
	ses.attach(down)
	s.metrics.handshakes.WithLabelValues(rt.name, "ok").Inc()
	attrs := []slog.Attr{
		slog.Uint64("session", ses.id), slog.String("connection", ses.key), slog.String("route", ses.route),
		slog.Any("client", ses.client), slog.String("upstream", ses.upstream),
	}
	attrs = append(attrs, proxy.TraceOf(r.Context()).Take()...)
	s.table.Load().sessionLog(s.log).LogAttrs(context.Background(), slog.LevelInfo, "session opened", attrs...)

	var keys []gateKey
	for _, side := range []struct {
		direction string
		hook      *Hook
		flow      *flow
	}{{"inbound", c.inbound, &ses.in}, {"outbound", c.outbound, &ses.out}} {
		if side.hook == nil {
			continue
		}
		key := gateKey{rt.name, side.direction, side.hook.URL, side.hook.Concurrency}
		if c.shared > 0 {
			key = gateKey{rt.name, "both", side.hook.to.URL("").String(), c.shared}
		}
		keys = append(keys, key)
		to := side.hook.target
		if to == "" {
			to = at.path + at.query
		}
		side.flow.hook = side.hook
		side.flow.caller = &caller{
			hook: side.hook, client: c.client, gate: s.gates.get(key, s.breakerChanged(key, side.hook)), counters: s.metrics.hook(rt.name, side.direction),
			direction: side.direction, key: ses.key, route: rt.name, peer: clientAddr(ses.client), target: to,
		}
	}
	defer func() {
		for _, key := range keys {
			s.gates.give(key)
		}
	}()
	if s.draining.Load() { // began before us
		ses.end(endDrain)
	}
	ses.run()
}

// breakerChanged tells the operator.
func (s *Server) breakerChanged(key gateKey, h *Hook) func(open bool) {
	return func(open bool) {
		if open {
			s.log.Warn("hook down", "route", key.route, "direction", key.direction, "hook", h.to.Name, "pause", breakTime)
		} else {
			s.log.Info("hook up", "route", key.route, "direction", key.direction, "hook", h.to.Name)
		}
	}
}

func clientAddr(a netip.Addr) netip.Addr { return a.Unmap() }

// log notes at Debug what a message came to.
func (ses *session) log(msg string, f *flow, err error) {
	ses.srv.log.Debug(msg, "session", ses.id, "direction", f.direction, "err", err)
}
