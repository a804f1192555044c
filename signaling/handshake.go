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

// refuse answers with an error of our own.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, route string, status int, result, text string) {
	s.metrics.handshakes.WithLabelValues(route, result).Inc()
	Refuse(w, r, status, text)
}

// Refuse answers a handshake with an error of our own, and ends the connection.
func Refuse(w http.ResponseWriter, r *http.Request, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if r.ProtoMajor == 1 {
		h.Set("Connection", "close") // what follows on the connection is not to be trusted
	}
	switch status {
	case http.StatusUpgradeRequired:
		h.Set("Sec-WebSocket-Version", "13")
		if r.ProtoMajor == 1 { // h2 has no such fields
			h.Set("Upgrade", "websocket")
			h["Connection"] = []string{"close", "Upgrade"} // net/http looks at the first only
		}
	case http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodGet)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", "5")
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, text+"\n")
	}
}

// connect serves one handshake: it checks the client, asks the upstreams in order,
// and starts a session with the first that answers 101.
func (s *Server) connect(t *table, rt *route, w http.ResponseWriter, r *http.Request, ups []*proxy.Upstream, rest, query string) {
	if no := checkHandshake(r); no != nil {
		s.refuse(w, r, rt.name, no.status, no.result, no.text)
		return
	}
	appID, ok := proxy.AppID(query)
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
	client := rt.headers.Trust.Client(r)
	done := func() {}
	if t.admit != nil {
		if done, ok = t.admit(client); !ok {
			s.refuse(w, r, rt.name, http.StatusTooManyRequests, "limited", "too many connections")
			return
		}
	}
	header := rt.headers.Request(r)
	for name, values := range r.Header { // whatever Connection says about them
		if strings.HasPrefix(name, "Sec-Websocket-") {
			header[name] = values
		}
	}
	conn, up, a, err := s.ask(r.Context(), rt, ups, header, rest, query)
	if err != nil {
		done()
		s.failed(w, r, rt, err)
		return
	}
	if a.status != http.StatusSwitchingProtocols {
		defer done()
		defer conn.Close()
		s.relay(w, r, rt, conn, a)
		return
	}
	ses := &session{
		client:   client,
		route:    rt.name,
		upstream: up.Name,
		appID:    appID,
		done:     done,
		limits:   rt.limits,
	}
	ses.up.frames = frames{strict: !rt.lenient, extensions: a.extended(), maxMessage: rt.maxMessage}
	s.hijack(w, r, rt, ses, conn, a)
}

// ask tries the upstreams in order. An upstream that does not answer is passed over;
// any HTTP answer ends the search. The connection has no deadline when it is returned
// with a 101, and that of the handshake otherwise.
func (s *Server) ask(ctx context.Context, rt *route, ups []*proxy.Upstream, header http.Header, rest, query string) (net.Conn, *proxy.Upstream, *answer, error) {
	var last error = errors.New("no upstream")
	for _, u := range ups {
		conn, a, err := s.askOne(ctx, rt, u, header, rest, query)
		if err == nil {
			if rt.pool != nil && rt.pool.Worked(u) {
				s.log.Info("upstream up", "route", rt.name, "upstream", u.Name)
			}
			return conn, u, a, nil
		}
		last = err
		cause := proxy.Classify(err)
		s.metrics.failures.WithLabelValues(rt.name, string(cause)).Inc()
		if rt.pool != nil && rt.pool.Failed(u, err) {
			s.log.Warn("upstream down", "route", rt.name, "upstream", u.Name, "cause", cause, "err", err)
		} else {
			s.log.Debug("upstream handshake", "route", rt.name, "upstream", u.Name, "cause", cause, "err", err)
		}
		if ctx.Err() != nil || cause == proxy.CauseAnswer {
			break
		}
	}
	return nil, nil, nil, last
}

func (s *Server) askOne(parent context.Context, rt *route, u *proxy.Upstream, header http.Header, rest, query string) (net.Conn, *answer, error) {
	ctx, cancel := context.WithTimeout(parent, rt.handshake)
	defer cancel()
	return open(parent, ctx, rt.dialer, u, header, rest, query, s.metrics.phase)
}

// open performs the opening handshake with one upstream; ctx bounds it and is
// made of parent, the client's. The error is a [*proxy.Error].
func open(parent, ctx context.Context, d *proxy.Dialer, u *proxy.Upstream, header http.Header, rest, query string, phase func(name string, took time.Duration)) (_ net.Conn, _ *answer, err error) {
	start := time.Now()
	conn, err := d.Dial(ctx, u)
	if err != nil {
		return nil, nil, err
	}
	dialed := time.Now()
	phase("dial", dialed.Sub(start))
	if conn, err = d.Handshake(ctx, u, conn, "http/1.1"); err != nil {
		return nil, nil, err
	}
	secured := time.Now()
	if u.TLS {
		phase("tls", secured.Sub(dialed))
	}
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
	if _, err := conn.Write(handshakeRequest(u, header, rest, query)); err != nil {
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
	phase("answer", time.Since(secured))
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
func handshakeRequest(u *proxy.Upstream, header http.Header, rest, query string) []byte {
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
		field(name, header[name])
	}
	return append(b, "\r\n"...)
}

// failed answers a handshake for which no upstream answered as it must.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, rt *route, err error) {
	cause := proxy.Classify(err)
	result := "upstream_" + string(cause)
	switch cause {
	case proxy.CauseCanceled:
		s.refuse(w, r, rt.name, http.StatusBadGateway, "client_left", "the client went away")
	case proxy.CauseTimeout:
		s.refuse(w, r, rt.name, http.StatusGatewayTimeout, result, "the upstream did not answer in time")
	default:
		s.refuse(w, r, rt.name, http.StatusBadGateway, result, "the upstream cannot be reached")
	}
}

// maxRelayBody limits the body of an answer that is not 101.
const maxRelayBody = 64 << 10

// relay passes an upstream's refusal (any answer but 101) on as plain HTTP.
func (s *Server) relay(w http.ResponseWriter, r *http.Request, rt *route, conn net.Conn, a *answer) {
	if !a.relay(w, r, conn, &rt.headers, rt.handshake) {
		s.refuse(w, r, rt.name, http.StatusBadGateway, "upstream_answer", "the upstream's answer is not understood")
		return
	}
	s.metrics.handshakes.WithLabelValues(rt.name, "upstream_status_"+strconv.Itoa(a.status/100)+"xx").Inc()
}

// relay passes an answer that is not 101 on, and reports whether it could.
func (a *answer) relay(w http.ResponseWriter, r *http.Request, conn net.Conn, headers *proxy.HeaderPolicy, limit time.Duration) bool {
	_ = conn.SetDeadline(time.Now().Add(limit))
	resp, err := a.response(conn)
	if err != nil || resp.StatusCode < 200 {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRelayBody+1))
	if err != nil || len(body) > maxRelayBody {
		return false
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
		_, err := client.Write(a.forward(&rt.headers))
		result := "ok"
		if err != nil {
			result = "client_left"
		}
		s.metrics.handshakes.WithLabelValues(rt.name, result).Inc()
		_ = client.SetWriteDeadline(time.Time{})
		return err
	})
}
