package main

import (
	"hash/maphash"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/internal/proxy"
)

// httpLimits bound what one client address, and one user of it, may ask. They
// live as long as the process: a reload changes the bounds and forgets nobody.
//
// Memory is bounded against invented users: rates remember the most recent
// keys only, and a slot is held by an open WebSocket, of which there are only
// as many as connections. A user who was forgotten starts afresh, within the
// limits of the address.
type httpLimits struct {
	requests       *limit.KeyedRate[netip.Prefix]
	userRequests   *limit.KeyedRate[userKey]
	handshakes     *limit.KeyedRate[netip.Prefix]
	userHandshakes *limit.KeyedRate[userKey]
	sockets        *limit.KeyedCap[netip.Prefix]
	userSockets    *limit.KeyedCap[userKey]

	seed maphash.Seed // of user hashes: random, so that nobody can choose one
	hits *prometheus.CounterVec
	log  *slog.Logger

	mu   sync.Mutex // guards said
	said map[string]saidOf
}

// userKey is a user of an address, without the name.
type userKey struct {
	source netip.Prefix
	user   uint64
}

// saidOf is when a limit was last logged, and how often it held since.
type saidOf struct {
	at    time.Time
	since int
}

// The limits, named as their keys in the configuration.
const (
	limitRequests       = "https.limits.requests_per_second"
	limitUserRequests   = "https.limits.requests_per_second_per_user"
	limitHandshakes     = "https.limits.handshakes_per_second"
	limitUserHandshakes = "https.limits.handshakes_per_minute_per_user"
	limitSockets        = "https.max_connections_per_address"
	limitUserSockets    = "https.limits.websockets_per_user"
)

const (
	limitedSources = 1 << 14 // addresses remembered, some MB
	limitedUsers   = 1 << 15
	maxUserLength  = 256 // bytes of a user's name that count

	socketWait = 5 * time.Second // Retry-After where a socket must end first
)

func newHTTPLimits(log *slog.Logger) *httpLimits {
	l := &httpLimits{
		requests:       limit.NewKeyedRate[netip.Prefix](0, 0, limitedSources),
		userRequests:   limit.NewKeyedRate[userKey](0, 0, limitedUsers),
		handshakes:     limit.NewKeyedRate[netip.Prefix](0, 0, limitedSources),
		userHandshakes: limit.NewKeyedRate[userKey](0, 0, limitedUsers),
		sockets:        limit.NewKeyedCap[netip.Prefix](0),
		userSockets:    limit.NewKeyedCap[userKey](0),
		seed:           maphash.MakeSeed(),
		log:            log,
		said:           make(map[string]saidOf),
		hits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_https_limit_hits_total", Help: "Requests refused with 429, by the limit that held, named as its key in the configuration.",
		}, []string{"limit"}),
	}
	for _, name := range []string{limitRequests, limitUserRequests, limitHandshakes, limitUserHandshakes, limitSockets, limitUserSockets} {
		l.hits.WithLabelValues(name)
	}
	return l
}

// set changes the bounds; what is counted stays counted.
func (l *httpLimits) set(h config.HTTPS) {
	n := h.Limits
	l.requests.SetLimit(float64(n.RequestsPerSecond), 2*n.RequestsPerSecond)
	l.userRequests.SetLimit(float64(n.RequestsPerSecondPerUser), 2*n.RequestsPerSecondPerUser)
	// After an outage everybody behind an address comes back at once.
	l.handshakes.SetLimit(float64(n.HandshakesPerSecond), max(n.HandshakesPerSecond, h.MaxConnectionsPerAddress))
	l.userHandshakes.SetLimit(float64(n.HandshakesPerMinutePerUser)/60, n.HandshakesPerMinutePerUser)
	l.sockets.SetMax(h.MaxConnectionsPerAddress)
	l.userSockets.SetMax(n.WebSocketsPerUser)
}

// caller is who a request counts for.
type caller struct {
	client netip.Addr
	source netip.Prefix
	user   userKey
	named  bool // there is a user
}

// caller finds out who asks. The user is the userId and sdkAppId of the TRTC
// query, or the user of a request for iceServers; a name that stands twice
// counts as its first value, since inventing users gains nothing.
func (l *httpLimits) caller(client netip.Addr, query string) caller {
	c := caller{client: client, source: limit.Source(client)}
	user, n := proxy.QueryValue(query, "userId")
	if n == 0 {
		user, n = proxy.QueryValue(query, "user")
	}
	if n == 0 || user == "" {
		return c
	}
	app, _ := proxy.QueryValue(query, "sdkAppId")
	var h maphash.Hash
	h.SetSeed(l.seed)
	h.WriteString(app[:min(len(app), maxUserLength)])
	h.WriteByte(0)
	h.WriteString(user[:min(len(user), maxUserLength)])
	c.user, c.named = userKey{c.source, h.Sum64()}, true
	return c
}

// refusal is a limit that holds, and how long it will.
type refusal struct {
	limit string
	wait  time.Duration
}

// request counts a request; nil: it may pass.
func (l *httpLimits) request(c caller) *refusal {
	switch {
	case !l.requests.Allow(c.source):
		return l.refuse(c, limitRequests, l.requests.RetryAfter(c.source))
	case c.named && !l.userRequests.Allow(c.user):
		return l.refuse(c, limitUserRequests, l.userRequests.RetryAfter(c.user))
	}
	return nil
}

// handshake counts a WebSocket handshake and takes the slots of the WebSocket;
// release gives them back, once.
func (l *httpLimits) handshake(c caller) (release func(), no *refusal) {
	switch {
	case c.named && !l.userHandshakes.Allow(c.user): // first: one user's retries are not the address's
		return nil, l.refuse(c, limitUserHandshakes, l.userHandshakes.RetryAfter(c.user))
	case !l.handshakes.Allow(c.source):
		return nil, l.refuse(c, limitHandshakes, l.handshakes.RetryAfter(c.source))
	case !l.sockets.Acquire(c.source):
		return nil, l.refuse(c, limitSockets, socketWait)
	case !c.named:
		return func() { l.sockets.Release(c.source) }, nil
	case !l.userSockets.Acquire(c.user):
		l.sockets.Release(c.source)
		return nil, l.refuse(c, limitUserSockets, socketWait)
	}
	return func() { l.sockets.Release(c.source); l.userSockets.Release(c.user) }, nil
}

// refuse counts a refusal, and says so in the log once a minute for each limit.
func (l *httpLimits) refuse(c caller, name string, wait time.Duration) *refusal {
	l.hits.WithLabelValues(name).Inc()
	l.mu.Lock()
	said, now := l.said[name], time.Now()
	since := said.since + 1
	silent := now.Sub(said.at) < time.Minute
	if silent {
		l.said[name] = saidOf{said.at, since}
	} else {
		l.said[name] = saidOf{at: now}
	}
	l.mu.Unlock()
	if !silent {
		l.log.Warn("limit holds", "limit", name, "client", c.client, "refused", since)
	}
	return &refusal{name, wait}
}

// answer is the 429. No page may read it (see the logger room): the SDK keeps
// its report and comes again.
func (no *refusal) answer(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(no.wait.Seconds())))))
	h.Set("Cache-Control", "no-store")
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		h.Set("Connection", "close") // nobody reads the body
	}
	proxy.TraceOf(r.Context()).End("limit " + strings.TrimPrefix(no.limit, "https."))
	plain(w, http.StatusTooManyRequests)
}
