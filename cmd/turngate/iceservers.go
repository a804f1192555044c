package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/internal/proxy"
)

// iceAPI answers whoever shows a token with iceServers for RTCPeerConnection:
// our URLs with a time-limited credential. It is made for each plan; its limits
// stay.
type iceAPI struct {
	path    string
	cfg     *config.Config
	site    site
	tokens  [][sha256.Size]byte
	origins *proxy.Origins // nil: no page of another origin
	trust   proxy.Trust
	limits  *iceLimits
	stopped func() bool
}

// iceLimits are what outlives a reload.
type iceLimits struct {
	rate    *limit.KeyedRate[netip.Prefix]
	answers *prometheus.CounterVec
}

const (
	iceBurst = 2       // seconds of the rate
	iceKeys  = 1 << 14 // addresses remembered
)

func newICELimits() *iceLimits {
	return &iceLimits{
		rate: limit.NewKeyedRate[netip.Prefix](0, 0, iceKeys),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_api_requests_total", Help: "Requests for iceServers, by status of the answer.",
		}, []string{"code"}),
	}
}

// newICE returns what serves turn.api, nil when that is off.
func (a *app) newICE(cfg *config.Config) (*iceAPI, error) {
	api := cfg.TURN.API
	if api.Path == "" {
		return nil, nil
	}
	st, err := newSite(cfg, "")
	if err != nil {
		return nil, fmt.Errorf("turn.api needs the domain: %w", err)
	}
	h := &iceAPI{
		path: api.Path, cfg: cfg, site: st,
		trust: proxy.Trust(cfg.HTTPS.TrustedProxies), limits: a.iceLimits, stopped: a.draining.Load,
	}
	for _, t := range api.Tokens {
		h.tokens = append(h.tokens, sha256.Sum256([]byte(t.Reveal())))
	}
	if len(api.Origins) > 0 {
		origins, err := proxy.ParseOrigins(api.Origins)
		if err != nil {
			return nil, fmt.Errorf("turn.api.origins: %w", err)
		}
		h.origins = &origins
	}
	return h, nil
}

// serve answers one request. The budget comes first, so that tokens cannot be
// tried fast; the origin comes before the token, so that a page that may not
// call learns nothing.
func (h *iceAPI) serve(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Cache-Control", "no-store")
	head.Add("Vary", "Origin")
	source := limit.Source(h.trust.Client(r))
	origin := r.Header.Values("Origin")
	foreign := len(origin) > 0
	switch {
	case !h.limits.rate.Allow(source):
		wait := math.Ceil(h.limits.rate.RetryAfter(source).Seconds())
		head.Set("Retry-After", strconv.Itoa(max(1, int(wait))))
		h.refuse(w, http.StatusTooManyRequests)
		return
	case foreign && (h.origins == nil || !h.origins.Allow(origin)):
		h.refuse(w, http.StatusForbidden)
		return
	case foreign:
		head.Set("Access-Control-Allow-Origin", origin[0])
		head.Set("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate")
	}
	switch r.Method {
	case http.MethodGet, http.MethodPost:
		h.hand(w, r)
	case http.MethodOptions:
		head.Set("Allow", iceMethods)
		if foreign { // Fetch standard, CORS preflight
			head.Set("Access-Control-Allow-Methods", "GET, POST")
			head.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			head.Set("Access-Control-Max-Age", "600")
		}
		h.count(http.StatusNoContent)
		w.WriteHeader(http.StatusNoContent)
	default:
		head.Set("Allow", iceMethods)
		h.refuse(w, http.StatusMethodNotAllowed)
	}
}

const iceMethods = "GET, POST, OPTIONS"

// hand gives a credential to whoever shows a token.
func (h *iceAPI) hand(w http.ResponseWriter, r *http.Request) {
	fields := r.Header.Values("Authorization")
	if len(fields) != 1 || !h.knows(fields[0]) {
		challenge := `Bearer realm="turngate"` // RFC 6750 section 3
		if len(fields) > 0 {
			challenge += `, error="invalid_token"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		h.refuse(w, http.StatusUnauthorized)
		return
	}
	if h.stopped() {
		w.Header().Set("Retry-After", "5")
		h.refuse(w, http.StatusServiceUnavailable)
		return
	}
	user, ok := userOf(r)
	if !ok {
		h.refuse(w, http.StatusBadRequest)
		return
	}
	ttl := time.Duration(h.cfg.TURN.API.TTL)
	cred, err := timeLimited(h.cfg, user, ttl, time.Now())
	if err != nil {
		h.refuse(w, http.StatusBadRequest)
		return
	}
	type server struct {
		URLs       []string `json:"urls"`
		Username   string   `json:"username"`
		Credential string   `json:"credential"`
	}
	answer := struct {
		ICEServers []server `json:"iceServers"`
		TTL        int64    `json:"ttl"` // seconds
	}{[]server{{h.site.relays(), cred.username, cred.password}}, int64(ttl / time.Second)}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	h.count(http.StatusOK)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(answer) // the client is gone
}

// knows compares a token with all of ours in constant time.
func (h *iceAPI) knows(authorization string) bool {
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	known := 0
	for i := range h.tokens {
		known |= subtle.ConstantTimeCompare(sum[:], h.tokens[i][:])
	}
	return known == 1
}

// userOf returns the user that a request names, "client" when it names none.
func userOf(r *http.Request) (string, bool) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(query["user"]) > 1 {
		return "", false
	}
	if user := query.Get("user"); user != "" {
		return user, true
	}
	return "client", true
}

func (h *iceAPI) refuse(w http.ResponseWriter, status int) {
	h.count(status)
	plain(w, status)
}

func (h *iceAPI) count(status int) { h.limits.answers.WithLabelValues(strconv.Itoa(status)).Inc() }
