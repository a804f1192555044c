package entry

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/turngate/turngate/internal/proxy"
)

// Upgrade returns the header of the handshake with an upstream: what passes, and of the
// client's handshake the fields whose names begin so, whatever Connection says about them.
func (g *Gate) Upgrade(r *http.Request, prefixes ...string) http.Header {
	header := g.Headers.Request(r)
	maps.DeleteFunc(header, func(name string, _ []string) bool { return strings.HasPrefix(name, "Sec-Websocket-") })
	for name, values := range r.Header {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			header[name] = values
		}
	}
	return header
}

// A Course is how the upstreams of one handshake are reached.
type Course struct {
	*proxy.Search               // that gives them
	Dialer        *proxy.Dialer // nil: the gate's
	Header        http.Header   // with the fields of the handshake
	Rest, Query   string        // of the target

	// Named says that the client has named the upstream: what becomes of it is nobody
	// else's matter.
	Named bool
}

// Ask tries the upstreams one after the other. An upstream that does not answer is passed
// over; any HTTP answer ends the search, and so does what is no HTTP. The connection has
// no deadline when it is returned with a 101, and that of the handshake otherwise. The
// upstream that is returned is to be released.
func (s *Server[S]) Ask(ctx context.Context, g *Gate, c Course) (*proxy.Upstream, *Answer, error) {
	if c.Dialer == nil {
		c.Dialer = g.Dialer
	}
	var last error = errors.New("no upstream")
	for u := c.Next(); u != nil; u = c.Next() {
		a, err := s.askOne(ctx, g, c, u)
		if err == nil {
			if !c.Named && u.Worked() {
				s.Log.Info("upstream up", "route", g.Name, "upstream", u.Name)
			}
			return u, a, nil
		}
		u.Release()
		last = err
		cause := proxy.Classify(err)
		s.AttemptFailed(g.Name, cause)
		switch {
		case !c.Named && says(err) && u.Failed(err):
			s.Log.Warn("upstream down", "route", g.Name, "upstream", u.Name, "cause", cause, "err", err)
		case !c.Named && !says(err) && u.Notable():
			s.Log.Warn("upstream refuses a handshake", "route", g.Name, "upstream", u.Name, "cause", cause, "err", err)
		default:
			s.Log.Debug("upstream handshake", "route", g.Name, "upstream", u.Name, "cause", cause, "err", err)
		}
		if ctx.Err() != nil || cause == proxy.CauseAnswer {
			break
		}
	}
	return nil, nil, last
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

func (s *Server[S]) askOne(parent context.Context, g *Gate, c Course, u *proxy.Upstream) (*Answer, error) {
	ctx, cancel := context.WithTimeout(parent, g.Handshake)
	defer cancel()
	trace := proxy.TraceOf(parent)
	trace.Try(u.Name)
	return open(parent, ctx, c.Dialer, &g.Headers, u, c.Header, c.Rest, c.Query, func(name string, took time.Duration) {
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
func open(parent, ctx context.Context, d *proxy.Dialer, policy *proxy.HeaderPolicy, u *proxy.Upstream, header http.Header, rest, query string, phase func(name string, took time.Duration)) (*Answer, error) {
	conn, err := connectTo(ctx, d, u, phase)
	if err != nil {
		return nil, err
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
		return nil, fail("request", err)
	}
	a, err := readAnswer(conn)
	if err == nil && a.Status == http.StatusSwitchingProtocols {
		err = a.check(header["Sec-Websocket-Key"][0], header)
	}
	if err != nil {
		stop()
		return nil, fail("answer", err)
	}
	if !stop() { // the deadline is set, or about to be
		return nil, fail("answer", context.DeadlineExceeded)
	}
	phase("answer", time.Since(asked))
	return a, nil
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

// Failed answers a handshake for which no upstream answered as it must.
func (s *Server[S]) Failed(g *Gate, w http.ResponseWriter, r *http.Request, err error) {
	cause := proxy.Classify(err)
	no := Refusal{http.StatusBadGateway, "upstream_" + string(cause), "the upstream cannot be reached"}
	switch {
	case cause == proxy.CauseCanceled:
		no.Result, no.Text = "client_left", "the client went away"
	case g.Qrator && cause != proxy.CauseAnswer:
		no.Status, no.Text = http.StatusBadRequest, "no upstream answers"
	case cause == proxy.CauseTimeout:
		no.Status, no.Text = http.StatusGatewayTimeout, "the upstream did not answer in time"
	case cause == proxy.CauseDNS:
		no.Text = "the upstream's name has no address"
	}
	s.Refuse(w, r, g.Name, no)
}

// maxRelayBody limits the body of an answer that is not 101.
const maxRelayBody = 64 << 10

// qratorRelay is how long a Qrator route waits for such a body: the client's connection
// is to end within a second, half of which net/http may take to close it.
const qratorRelay = 400 * time.Millisecond

// Relay passes an upstream's refusal (any answer but 101) on as plain HTTP, and closes its
// connection. A Qrator route passes the status on even if the body does not come in time, or
// is too long.
func (s *Server[S]) Relay(g *Gate, w http.ResponseWriter, r *http.Request, a *Answer) {
	defer a.Conn.Close()
	result := "upstream_status_" + strconv.Itoa(a.Status/100) + "xx"
	limit := g.Handshake
	if g.Qrator {
		limit = min(limit, qratorRelay)
	}
	switch {
	case g.silent.Errors:
		s.drop(r, g.Name, result)
	case a.relay(w, r, &g.Headers, limit, g.Qrator):
		s.metrics.handshakes.WithLabelValues(g.Name, result).Inc()
	default:
		s.Refuse(w, r, g.Name, Refusal{http.StatusBadGateway, "upstream_answer", "the upstream's answer is not understood"})
	}
}

// relay passes an answer that is not 101 on, and reports whether it could. With bare the
// status passes without the body when that cannot be had.
func (a *Answer) relay(w http.ResponseWriter, r *http.Request, headers *proxy.HeaderPolicy, limit time.Duration, bare bool) bool {
	_ = a.Conn.SetDeadline(time.Now().Add(limit))
	resp, err := a.response()
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
