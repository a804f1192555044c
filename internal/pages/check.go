package pages

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/turngate/turngate/internal/limit"
)

// CheckOptions are the options of NewCheck.
type CheckOptions struct {
	Path    string // of the page; its files and API lie below
	Tickets *Tickets
	Rate    *limit.KeyedRate[netip.Prefix] // of guesses at tokens, by address

	Client func(r *http.Request) netip.Addr
	// Plan says what is to be tested by the browser that asks.
	Plan func(r *http.Request) (Plan, error)
	// Servers makes a credential for the relays of the plan.
	Servers func(r *http.Request, session string) (Credential, error)

	Log *slog.Logger
}

// Plan is what the check page tests.
type Plan struct {
	Version     string       `json:"version"`
	Protocol    string       `json:"protocol"` // of HTTP, as it reached us: "h2", "http/1.1"
	Client      string       `json:"client"`   // the address we see
	Host        string       `json:"host"`     // that the browser asked for, with its port
	Layout      string       `json:"layout"`
	Certificate *Certificate `json:"certificate,omitempty"`
	Routes      []Route      `json:"routes"`
	Relays      []Relay      `json:"relays"`
}

// Certificate is what this host serves; what the browser sees may be another
// one, if something in between opens TLS.
type Certificate struct {
	Names      []string  `json:"names"`
	Issuer     string    `json:"issuer"`
	NotAfter   time.Time `json:"notAfter"`
	SelfSigned bool      `json:"selfSigned"`
	SHA256     []string  `json:"sha256"` // of every certificate of this host, in hex
}

// Route is a path that leads to upstreams.
type Route struct {
	Kind      string   `json:"kind"`           // Signaling, Logger or Scheduler
	Mode      string   `json:"mode,omitempty"` // Unified, or empty
	Name      string   `json:"name"`           // its path in the configuration
	Path      string   `json:"path"`           // of a request: with what the request needs in its query
	Upstreams []string `json:"upstreams"`
	Origin    string   `json:"origin,omitempty"` // whose requests the route takes; empty: anybody's
	AppID     uint64   `json:"appId,omitempty"`  // that goes into the form for a scheduler
}

// Kinds and modes of routes.
const (
	Signaling = "signaling"
	Logger    = "logger"
	Scheduler = "schedule"
	Unified   = "unified" // of the one-parameter mode, which some pages use
)

// Relay is one way to the TURN server.
type Relay struct {
	Transport string `json:"transport"` // "udp", "tcp" or "tls"
	Port      uint16 `json:"port"`
	URL       string `json:"url"`
	Minor     bool   `json:"minor,omitempty"` // few clients need it
}

// Credential is a TURN login for one run of the test.
type Credential struct {
	Username   string `json:"username"`
	Credential string `json:"credential"`
}

// maxServers is how many credentials one session gets: one for each run.
const maxServers = 40

// Check is the check page with its API:
//
//	POST PATH/api/begin     Bearer TOKEN     opens a session
//	POST PATH/api/plan      Bearer SESSION   what to test, with a fresh credential
//	POST PATH/api/result    Bearer SESSION   {"n":1}: what became of a probe
//	POST PATH/api/end       Bearer SESSION   what came of it, for our log
//
// It is made for each configuration; its tickets stay.
type Check struct {
	opts  CheckOptions
	files *static
}

// NewCheck returns the page.
func NewCheck(o CheckOptions) *Check {
	return &Check{opts: o, files: newStatic(o.Path, "check.html", "check", "icon", "text")}
}

// Serve answers a request; rest is its path behind that of the page.
func (c *Check) Serve(w http.ResponseWriter, r *http.Request, rest string) {
	guard(w, webSocketSource(r.Host))
	call, isAPI := strings.CutPrefix(rest, "/api/")
	if !isAPI {
		c.files.serve(w, r, rest)
		return
	}
	switch {
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		fail(w, http.StatusMethodNotAllowed, "only POST")
	case foreign(r):
		fail(w, http.StatusForbidden, "foreign")
	default:
		c.call(w, r, call)
	}
}

func (c *Check) call(w http.ResponseWriter, r *http.Request, call string) {
	token, ok := bearer(r)
	if !ok {
		c.unauthorized(w, "unknown")
		return
	}
	if call == "begin" {
		c.begin(w, r, token)
		return
	}
	s := c.opts.Tickets.Session(token)
	if s == nil {
		// Whoever guesses is held up; a session that is known asks as it likes.
		if !c.opts.Rate.Allow(limit.Source(c.opts.Client(r))) {
			tooMany(w)
			return
		}
		c.unauthorized(w, "over")
		return
	}
	switch call {
	case "plan":
		c.plan(w, r, s)
	case "result":
		var in struct {
			N int `json:"n"`
		}
		if err := read(w, r, &in); err != nil {
			fail(w, http.StatusBadRequest, "body")
			return
		}
		answer(w, http.StatusOK, s.result(r.Context(), in.N))
	case "end":
		c.end(w, r, s)
	default:
		fail(w, http.StatusNotFound, "not found")
	}
}

// begin opens the session of a token. The budget comes first, so that tokens
// cannot be tried fast.
func (c *Check) begin(w http.ResponseWriter, r *http.Request, token string) {
	if !c.opts.Rate.Allow(limit.Source(c.opts.Client(r))) {
		tooMany(w)
		return
	}
	s, key, err := c.opts.Tickets.Redeem(token)
	if err != nil {
		c.unauthorized(w, err.Error())
		return
	}
	c.opts.Log.Info("check page opened", "check", s.ID, "client", c.opts.Client(r))
	answer(w, http.StatusOK, struct {
		Session string    `json:"session"`
		Expires time.Time `json:"expires"`
	}{key, s.Expires})
}

// plan answers what to test, with a new credential.
func (c *Check) plan(w http.ResponseWriter, r *http.Request, s *Session) {
	s.mu.Lock()
	s.servers++
	n := s.servers
	s.mu.Unlock()
	if n > maxServers {
		tooMany(w)
		return
	}
	plan, err := c.opts.Plan(r)
	if err == nil {
		var cred Credential
		if cred, err = c.opts.Servers(r, s.ID); err == nil {
			answer(w, http.StatusOK, struct {
				Plan
				Credential
				ID        string    `json:"id"`
				Now       time.Time `json:"now"`
				Parameter string    `json:"parameter"` // marks the probes
				ProbeKey  string    `json:"probeKey"`
			}{plan, cred, s.ID, time.Now().UTC(), ProbeParameter, s.probeKey})
			return
		}
	}
	if errors.Is(err, ErrDraining) {
		w.Header().Set("Retry-After", "5")
		fail(w, http.StatusServiceUnavailable, "draining")
		return
	}
	c.opts.Log.Warn("check page has no plan", "check", s.ID, "err", err)
	fail(w, http.StatusInternalServerError, "plan")
}

// ErrDraining is what CheckOptions.Plan returns while no new work is taken.
var ErrDraining = errors.New("draining")

// verdicts are what the page may come to.
var verdicts = []string{"works", "warnings", "fails"}

// end notes what came of a check, so that whoever is told a report's id finds
// the time and the address in the log.
func (c *Check) end(w http.ResponseWriter, r *http.Request, s *Session) {
	var in struct {
		Verdict string `json:"verdict"`
		Failed  int    `json:"failed"`
		Warned  int    `json:"warned"`
	}
	if err := read(w, r, &in); err != nil || !slices.Contains(verdicts, in.Verdict) {
		fail(w, http.StatusBadRequest, "body")
		return
	}
	s.mu.Lock()
	s.ends++
	n := s.ends
	s.mu.Unlock()
	if n <= maxServers {
		c.opts.Log.Info("check page ended", "check", s.ID, "client", c.opts.Client(r),
			"result", in.Verdict, "failed", in.Failed, "warned", in.Warned)
	}
	answer(w, http.StatusOK, struct{}{})
}

func (c *Check) unauthorized(w http.ResponseWriter, code string) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="turngate check"`)
	fail(w, http.StatusUnauthorized, code)
}

func tooMany(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "10")
	fail(w, http.StatusTooManyRequests, "limit")
}

// bearer reads the token of a request.
func bearer(r *http.Request) (string, bool) {
	fields := r.Header.Values("Authorization")
	if len(fields) != 1 || len(fields[0]) > 256 {
		return "", false
	}
	scheme, token, _ := strings.Cut(fields[0], " ")
	token = strings.TrimSpace(token)
	return token, token != "" && strings.EqualFold(scheme, "Bearer")
}

// foreign reports whether a page of somebody else made the request. It could
// read no answer, as none allows it by CORS; it shall not even cause one.
func foreign(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return true
	}
	origin := r.Header.Values("Origin")
	if len(origin) == 0 {
		return false
	}
	_, host, _ := strings.Cut(origin[0], "://")
	return len(origin) > 1 || !strings.EqualFold(host, r.Host)
}

// webSocketSource is the part of a policy that allows WebSockets to this host,
// for browsers to which 'self' means https alone.
func webSocketSource(host string) string {
	odd := func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(".-:[]", c))
	}
	if host == "" || len(host) > 260 || strings.ContainsFunc(host, odd) {
		return ""
	}
	return " wss://" + host
}
