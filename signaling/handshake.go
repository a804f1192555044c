package signaling

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/internal/proxy"
)

// asksUpgrade reports whether a request is meant as an upgrade of any kind.
func asksUpgrade(r *http.Request) bool {
	return len(r.Header["Upgrade"]) > 0 || hasToken(r.Header["Connection"], "upgrade")
}

// A refusal is an answer of ours to a handshake that goes no further.
type refusal struct {
	status int
	result string // metrics label
	text   string
}

// checkHandshake holds the rules for a client's opening handshake (RFC 6455 section
// 4.2.1), stricter where leniency has been used to smuggle: one Upgrade that is
// exactly websocket, one key of 16 bytes, no body.
func checkHandshake(r *http.Request) *refusal {
	h := r.Header
	bad := func(text string) *refusal { return &refusal{http.StatusBadRequest, "bad_handshake", text} }
	switch {
	case r.Method != http.MethodGet:
		return &refusal{http.StatusMethodNotAllowed, "bad_method", "only GET can open a WebSocket"}
	case !asksUpgrade(r), r.ProtoMajor != 1:
		return &refusal{http.StatusUpgradeRequired, "no_upgrade", "this path serves WebSocket only"}
	case r.ProtoMinor < 1:
		return bad("HTTP/1.1 is needed")
	case len(h["Upgrade"]) != 1 || !strings.EqualFold(h["Upgrade"][0], "websocket"):
		return bad("Upgrade must be websocket")
	case !hasToken(h["Connection"], "upgrade"):
		return bad("Connection must name Upgrade")
	case len(h["Sec-Websocket-Version"]) != 1 || h["Sec-Websocket-Version"][0] != "13":
		return &refusal{http.StatusUpgradeRequired, "bad_version", "WebSocket version 13 is needed"}
	case len(h["Sec-Websocket-Key"]) != 1:
		return bad("one Sec-WebSocket-Key is needed")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return bad("a handshake has no body")
	}
	if key, err := base64.StdEncoding.DecodeString(h["Sec-Websocket-Key"][0]); err != nil || len(key) != 16 {
		return bad("Sec-WebSocket-Key must be 16 bytes in base64")
	}
	return nil
}

// connect serves one handshake: it checks the client, asks the upstreams that search
// gives, and starts a session with the first that answers 101.
func (s *Server) connect(t *table, rt *route, w http.ResponseWriter, r *http.Request, search *proxy.Search, rest, query string) {
	ses, ok := s.admit(t, rt, w, r, query)
	if !ok {
		return
	}
	header := rt.headers.Request(r)
	for name, values := range r.Header { // whatever Connection says about them
		if strings.HasPrefix(name, "Sec-Websocket-") {
			header[name] = values
		}
	}
	conn, up, a, err := s.ask(r.Context(), rt, search, header, rest, query)
	if err != nil {
		ses.done()
		s.failed(w, r, rt, err)
		return
	}
	free := ses.done
	ses.done = func() { up.Release(); free() }
	if a.status != http.StatusSwitchingProtocols {
		defer ses.done()
		defer conn.Close()
		s.relay(w, r, rt, conn, a)
		return
	}
	ses.upstream = up.Name
	ses.up.frames = frames{strict: !rt.lenient, extensions: a.extended(), maxMessage: rt.maxMessage}
	s.hijack(w, r, rt, ses, conn, a)
}

// admit decides whether a handshake goes on, and otherwise answers it. The session has
// what is known of it; whoever gets it calls done once.
func (s *Server) admit(t *table, rt *route, w http.ResponseWriter, r *http.Request, query string) (*session, bool) {
	no := func(status int, result, text string) (*session, bool) {
		s.refuse(w, r, rt.name, status, result, text)
		return nil, false
	}
	client := rt.headers.Trust.Client(r)
	if len(rt.clients) > 0 && !rt.clients.Contains(client) {
		if rt.silent.Clients {
			s.drop(r, rt.name, "forbidden_client")
			return nil, false
		}
		return no(http.StatusForbidden, "forbidden_client", "this address is not served here")
	}
	if bad := checkHandshake(r); bad != nil {
		if rt.qrator {
			bad.status = http.StatusBadRequest
		}
		return no(bad.status, bad.result, bad.text)
	}
	appID, ok := proxy.AppID(query)
	if !rt.appIDs.Allow(appID, ok) {
		return no(http.StatusForbidden, "forbidden_app", "this sdkAppId is not served here")
	}
	if !rt.origins.Allow(r.Header["Origin"]) {
		return no(http.StatusForbidden, "forbidden_origin", "this Origin is not served here")
	}
	if s.draining.Load() {
		return no(http.StatusServiceUnavailable, "draining", "going away")
	}
	source := limit.Source(client)
	if !rt.open.Acquire(source) {
		if rt.silent.Limit {
			s.drop(r, rt.name, "limited")
			return nil, false
		}
		return no(http.StatusTooManyRequests, "limited", "too many connections")
	}
	done := func() { rt.open.Release(source) }
	if t.admit != nil {
		leave, ok := t.admit(client)
		if !ok {
			done()
			return no(http.StatusTooManyRequests, "limited", "too many connections")
		}
		done = func() { leave(); rt.open.Release(source) }
	}
	return &session{client: client, route: rt.name, appID: appID, done: done, limits: rt.limits, trace: proxy.TraceOf(r.Context())}, true
}

// ask tries the upstreams one after the other. An upstream that does not answer is passed
// over; any HTTP answer ends the search, and so does what is no HTTP. The connection has
// no deadline when it is returned with a 101, and that of the handshake otherwise. The
// upstream that is returned is to be released.
func (s *Server) ask(ctx context.Context, rt *route, search *proxy.Search, header http.Header, rest, query string) (net.Conn, *proxy.Upstream, *answer, error) {
	var last error = errors.New("no upstream")
	for u := search.Next(); u != nil; u = search.Next() {
		conn, a, err := s.askOne(ctx, rt, u, header, rest, query)
		if err == nil {
			if u.Worked() {
				s.log.Info("upstream up", "route", rt.name, "upstream", u.Name)
			}
			return conn, u, a, nil
		}
		u.Release()
		last = err
		cause := proxy.Classify(err)
		s.metrics.failures.WithLabelValues(rt.name, string(cause)).Inc()
		switch {
		case says(err) && u.Failed(err):
			s.log.Warn("upstream down", "route", rt.name, "upstream", u.Name, "cause", cause, "err", err)
		case !says(err) && u.Notable():
			s.log.Warn("upstream refuses a handshake", "route", rt.name, "upstream", u.Name, "cause", cause, "err", err)
		default:
			s.log.Debug("upstream handshake", "route", rt.name, "upstream", u.Name, "cause", cause, "err", err)
		}
		if ctx.Err() != nil || cause == proxy.CauseAnswer {
			break
		}
	}
	return nil, nil, nil, last
}

// says reports whether a failure speaks against the upstream: it could not be reached, or
// was silent. A connection that it ended, or an answer that is wrong, may be its way with
// what this one client sent, and must not take it from all others.
func says(err error) bool {
	var e *proxy.Error
	if !errors.As(err, &e) {
		return true
	}
	return e.Phase == "dial" || e.Phase == "tls" || e.Cause == proxy.CauseTimeout || e.Cause == proxy.CauseCanceled
}

func (s *Server) askOne(parent context.Context, rt *route, u *proxy.Upstream, header http.Header, rest, query string) (net.Conn, *answer, error) {
	ctx, cancel := context.WithTimeout(parent, rt.handshake)
	defer cancel()
	trace := proxy.TraceOf(parent)
	trace.Try(u.Name)
	return open(parent, ctx, rt.dialer, &rt.headers, u, header, rest, query, func(name string, took time.Duration) {
		s.metrics.phase(name, took)
		trace.Phase(name, took)
	})
}

// connectTo opens a connection to an upstream, TLS included. phase is told how long each
// step took.
func connectTo(ctx context.Context, d *proxy.Dialer, u *proxy.Upstream, phase func(name string, took time.Duration)) (net.Conn, error) {
	start := time.Now()
	conn, err := d.Dial(ctx, u)
	if err != nil {
		return nil, err
	}
	dialed := time.Now()
	phase("dial", dialed.Sub(start))
	if conn, err = d.Handshake(ctx, u, conn, "http/1.1"); err != nil {
		return nil, err
	}
	if u.TLS {
		phase("tls", time.Since(dialed))
	}
	return conn, nil
}

// open performs the opening handshake with one upstream; ctx bounds all of it, whatever
// bytes come, and is made of parent, the client's. The policy says how names are spelled.
// The error is a [*proxy.Error]; without one the connection has no deadline.
func open(parent, ctx context.Context, d *proxy.Dialer, policy *proxy.HeaderPolicy, u *proxy.Upstream, header http.Header, rest, query string, phase func(name string, took time.Duration)) (net.Conn, *answer, error) {
	conn, err := connectTo(ctx, d, u, phase)
	if err != nil {
		return nil, nil, err
	}
	asked := time.Now()
	fail := func(at string, err error) error {
		conn.Close()
		cause := proxy.Classify(err)
		switch {
		case parent.Err() != nil:
			cause = proxy.CauseCanceled
		case ctx.Err() != nil:
			cause = proxy.CauseTimeout
		case cause == proxy.CauseOther:
			cause = proxy.CauseAnswer
		}
		return &proxy.Error{Upstream: u.Name, Phase: at, Cause: cause, Err: err}
	}
	// The client's leaving and the deadline both end reads and writes below.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	if _, err := conn.Write(handshakeRequest(u, policy, header, rest, query)); err != nil {
		stop()
		return nil, nil, fail("request", err)
	}
	a, err := readAnswer(conn)
	if err == nil && a.status == http.StatusSwitchingProtocols {
		err = a.check(header["Sec-Websocket-Key"][0], header)
	}
	if err != nil {
		stop()
		return nil, nil, fail("answer", err)
	}
	if !stop() { // the deadline is set, or about to be
		return nil, nil, fail("answer", context.DeadlineExceeded)
	}
	phase("answer", time.Since(asked))
	return conn, a, nil
}

// The fields of a handshake in the order and spelling browsers use; all others
// follow by name.
var handshakeOrder = []struct{ key, spelled string }{
	{"Pragma", "Pragma"},
	{"Cache-Control", "Cache-Control"},
	{"User-Agent", "User-Agent"},
	{"Origin", "Origin"},
	{"Sec-Websocket-Version", "Sec-WebSocket-Version"},
	{"Accept-Encoding", "Accept-Encoding"},
	{"Accept-Language", "Accept-Language"},
	{"Sec-Websocket-Key", "Sec-WebSocket-Key"},
	{"Sec-Websocket-Extensions", "Sec-WebSocket-Extensions"},
	{"Sec-Websocket-Protocol", "Sec-WebSocket-Protocol"},
}

// handshakeRequest writes the request for an upstream. Target and query are the
// client's bytes; the client's own key goes along, so that the upstream's 101 can be passed
// back as it is.
func handshakeRequest(u *proxy.Upstream, policy *proxy.HeaderPolicy, header http.Header, rest, query string) []byte {
	b := make([]byte, 0, 2<<10)
	b = append(b, "GET "...)
	b = append(b, u.Target(rest, query)...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, u.HostHeader()...)
	b = append(b, "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"...)
	field := func(spelled string, values []string) {
		for _, v := range values {
			b = append(b, spelled...)
			b = append(b, ": "...)
			b = append(b, v...)
			b = append(b, "\r\n"...)
		}
	}
	var others []string
	for name := range header {
		if !slices.ContainsFunc(handshakeOrder, func(f struct{ key, spelled string }) bool { return f.key == name }) {
			others = append(others, name)
		}
	}
	for _, f := range handshakeOrder {
		field(f.spelled, header[f.key])
	}
	slices.Sort(others)
	for _, name := range others {
		field(policy.Spelling(name), header[name])
	}
	return append(b, "\r\n"...)
}

// failed answers a handshake for which no upstream answered as it must.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, rt *route, err error) {
	cause := proxy.Classify(err)
	result := "upstream_" + string(cause)
	switch {
	case cause == proxy.CauseCanceled:
		s.refuse(w, r, rt.name, http.StatusBadGateway, "client_left", "the client went away")
	case rt.qrator && cause != proxy.CauseAnswer:
		s.refuse(w, r, rt.name, http.StatusBadRequest, result, "no upstream answers")
	case cause == proxy.CauseTimeout:
		s.refuse(w, r, rt.name, http.StatusGatewayTimeout, result, "the upstream did not answer in time")
	default:
		s.refuse(w, r, rt.name, http.StatusBadGateway, result, "the upstream cannot be reached")
	}
}

// maxRelayBody limits the body of an answer that is not 101.
const maxRelayBody = 64 << 10

// qratorRelay is how long a Qrator route waits for such a body: the client's connection
// is to end within a second, half of which net/http may take to close it.
const qratorRelay = 400 * time.Millisecond

// relay passes an upstream's refusal (any answer but 101) on as plain HTTP. A Qrator
// route passes the status on even if the body does not come in time, or is too long.
func (s *Server) relay(w http.ResponseWriter, r *http.Request, rt *route, conn net.Conn, a *answer) {
	result := "upstream_status_" + strconv.Itoa(a.status/100) + "xx"
	limit := rt.handshake
	if rt.qrator {
		limit = min(limit, qratorRelay)
	}
	switch {
	case rt.silent.Errors:
		s.drop(r, rt.name, result)
	case a.relay(w, r, conn, &rt.headers, limit, rt.qrator):
		s.metrics.handshakes.WithLabelValues(rt.name, result).Inc()
	default:
		s.refuse(w, r, rt.name, http.StatusBadGateway, "upstream_answer", "the upstream's answer is not understood")
	}
}

// relay passes an answer that is not 101 on, and reports whether it could. With bare the
// status passes without the body when that cannot be had.
func (a *answer) relay(w http.ResponseWriter, r *http.Request, conn net.Conn, headers *proxy.HeaderPolicy, limit time.Duration, bare bool) bool {
	_ = conn.SetDeadline(time.Now().Add(limit))
	resp, err := a.response(conn)
	if err != nil || resp.StatusCode < 200 {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRelayBody+1))
	if err != nil || len(body) > maxRelayBody {
		if !bare {
			return false
		}
		body = nil
		resp.Header.Del("Content-Encoding") // of nothing
	}
	h := w.Header()
	headers.Response(h, resp.Header)
	h.Del("Content-Length")
	if r.ProtoMajor == 1 {
		h.Set("Connection", "close")
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(body)
	return true
}

// hijack takes the client's connection, sends the 101 and starts the session.
func (s *Server) hijack(w http.ResponseWriter, r *http.Request, rt *route, ses *session, upstream net.Conn, a *answer) {
	client, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		ses.done()
		upstream.Close()
		s.log.Error("connection cannot be taken over", "route", rt.name, "err", err)
		s.refuse(w, r, rt.name, http.StatusInternalServerError, "no_hijack", "this connection cannot become a WebSocket")
		return
	}
	_ = client.SetDeadline(time.Time{})
	// Bytes the client sent behind its request, before it had an answer.
	early := make([]byte, rw.Reader.Buffered())
	if _, err := io.ReadFull(rw.Reader, early); err != nil {
		early = nil
	}
	s.start(ses, client, upstream, early, a.rest, func() error {
		_ = client.SetWriteDeadline(time.Now().Add(ses.limits.write))
		head := a.raw
		if !rt.qrator {
			head = a.forward(&rt.headers)
		}
		_, err := client.Write(head)
		result := "ok"
		if err != nil {
			result = "client_left"
		}
		s.metrics.handshakes.WithLabelValues(rt.name, result).Inc()
		_ = client.SetWriteDeadline(time.Time{})
		return err
	})
}
