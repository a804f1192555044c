package inspect

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/signaling/entry"
)

// A course is where one connection goes and how it is carried.
type course struct {
	entry.Course
	settings          Settings
	inbound, outbound *Hook
	client            *proxy.Client // to the hooks
	shared            int           // requests at once to a host that headers name; 0: each hook has its own number
}

// serve takes a client's handshake, performs one with an upstream, answers the
// client, and carries the session until it is over.
func (s *Server) serve(rt *route, w http.ResponseWriter, r *http.Request, at entry.Target) {
	guest, ok := s.Admit(rt.Gate, w, r, at)
	if !ok {
		return
	}
	leave := sync.OnceFunc(guest.Leave)
	defer leave() // the session ends before this returns
	course, no := rt.course(r, at)
	if no != nil {
		s.Refuse(w, r, rt.Name, *no)
		return
	}
	up, opened, err := s.Ask(r.Context(), rt.Gate, course.Course)
	switch {
	case errors.Is(err, errTarget):
		s.Refuse(w, r, rt.Name, *forbiddenTarget("upstream"))
		return
	case err != nil:
		s.Failed(rt.Gate, w, r, err)
		return
	}
	defer up.Release()
	if opened.Status != http.StatusSwitchingProtocols {
		s.Relay(rt.Gate, w, r, opened)
		return
	}
	ses := &session{
		key: rand.Text(), client: guest.Client, route: rt.Name, upstream: up.Name, appID: guest.AppID, opened: time.Now(),
		settings: course.settings, done: leave, srv: s, ending: make(chan struct{}),
	}
	s.start(rt, course, ses, w, r, opened, at)
}

// course decides where a connection goes: as the route says, or as the headers of a
// trusted peer do.
func (rt *route) course(r *http.Request, at entry.Target) (*course, *entry.Refusal) {
	c := &course{
		// Extensions are between the client and us: messages are read here.
		Course:   entry.Course{Header: rt.Upgrade(r, "Sec-Websocket-Version", "Sec-Websocket-Key", "Sec-Websocket-Protocol"), Rest: at.Rest, Query: at.Query},
		settings: rt.settings, inbound: rt.inbound, outbound: rt.outbound, client: rt.client,
	}
	b := rt.byHeaders
	if b == nil {
		c.Search = rt.Search(r, at.Query)
		return c, nil
	}
	peer := proxy.Peer(r).Addr()
	trusted := b.trusted.Contains(peer)
	switch {
	case !trusted && (!b.strip || rt.Pool == nil):
		return nil, &entry.Refusal{Status: http.StatusForbidden, Result: "untrusted", Text: "this peer may not say where to connect"}
	case !trusted || rt.Pool != nil && !asksByHeaders(r.Header):
		c.Search = rt.Search(r, at.Query)
		return c, nil
	}
	w, err := parseWish(r.Header, rt.settings.MaxMessage)
	if err != nil {
		return nil, &entry.Refusal{Status: http.StatusBadRequest, Result: "bad_option", Text: err.Error()}
	}
	reach := b.of(peer)
	for _, u := range []struct {
		what string
		to   *proxy.Upstream
	}{{"upstream", w.upstream}, {"inboundhook", w.inbound.host()}, {"outboundhook", w.outbound.host()}} {
		if u.to != nil && b.check(reach, u.to) != nil {
			return nil, forbiddenTarget(u.what)
		}
	}
	c.Search, c.Named, c.Dialer, c.Rest = proxy.Listed([]*proxy.Upstream{w.upstream}), true, reach.dialer, at.Path
	c.client, c.shared = reach.client, b.concurrency
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

func forbiddenTarget(what string) *entry.Refusal {
	return &entry.Refusal{Status: http.StatusForbidden, Result: "forbidden_target", Text: "x-wsproxy-" + what + ": " + errTarget.Error()}
}

// start lists the session, sends the client its 101 and carries it to its end. It is
// listed first: who has been answered can be found and ended.
func (s *Server) start(rt *route, c *course, ses *session, w http.ResponseWriter, r *http.Request, opened *entry.Answer, at entry.Target) {
	up, err := dialled(opened.Conn, opened.Rest)
	if err != nil { // a handshake with ourselves
		opened.Conn.Close()
		s.log.Error("upstream connection cannot be taken over", "route", rt.Name, "err", err)
		s.Refuse(w, r, rt.Name, entry.Refusal{Status: http.StatusInternalServerError, Result: "internal", Text: "internal error"})
		return
	}
	up.bound(c.settings.MaxUpstreamMessage)
	up.write, up.validate = rt.WriteTimeout, c.settings.ValidateUpstreamUTF8
	ses.up = up
	// Not the request's context: that ends with the hijack.
	ses.ctx, ses.cancel = context.WithCancel(context.Background())
	ses.id = s.NextID()
	if !s.Add(ses.id, ses, nil) {
		opened.Conn.Close()
		ses.cancel()
		s.Refuse(w, r, rt.Name, entry.GoingAway)
		return
	}
	s.Answered(rt.Gate)
	down, err := accepted(w, r, responseHeader(&rt.Headers, opened.Header), c.settings.Compress, rt.Handshake)
	if err != nil {
		s.Closed(rt.Name, "client lost")
		s.log.Debug("client left before its answer", "route", rt.Name, "err", err)
		opened.Conn.Close()
		ses.cancel()
		s.Remove(ses.id, nil)
		return
	}
	down.bound(c.settings.MaxMessage)
	down.write, down.validate = rt.WriteTimeout, c.settings.ValidateUTF8
	ses.attach(down)
	attrs := []slog.Attr{
		slog.Uint64("session", ses.id), slog.String("connection", ses.key), slog.String("route", ses.route),
		slog.Any("client", ses.client), slog.String("upstream", ses.upstream),
	}
	attrs = append(attrs, proxy.TraceOf(r.Context()).Take()...)
	s.SessionLog().LogAttrs(context.Background(), slog.LevelInfo, "session opened", attrs...)

	var keys []gateKey
	for _, side := range []struct {
		direction string
		hook      *Hook
		flow      *flow
	}{{"inbound", c.inbound, &ses.in}, {"outbound", c.outbound, &ses.out}} {
		if side.hook == nil {
			continue
		}
		key := gateKey{rt.Name, side.direction, side.hook.URL, side.hook.Concurrency}
		if c.shared > 0 {
			key = gateKey{rt.Name, "both", side.hook.to.URL("").String(), c.shared}
		}
		keys = append(keys, key)
		to := side.hook.target
		if to == "" {
			to = at.Path + at.Query
		}
		side.flow.hook = side.hook
		side.flow.caller = &caller{
			hook: side.hook, client: c.client, gate: s.gates.get(key, s.breakerChanged(key, side.hook)), counters: s.metrics.hook(rt.Name, side.direction),
			direction: side.direction, key: ses.key, route: rt.Name, peer: clientAddr(ses.client), target: to,
		}
	}
	defer func() {
		for _, key := range keys {
			s.gates.give(key)
		}
	}()
	if s.Draining() { // began before us
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
