package main

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/edge"
	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/internal/pages"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/signaling"
	"github.com/turngate/turngate/turn"
)

// checks are what outlives a reload: the links that were given out, and how
// often somebody may try one.
type checks struct {
	tickets *pages.Tickets
	rate    *limit.KeyedRate[netip.Prefix]
}

const (
	checkRate  = 1 // tries of a token a second from one address
	checkBurst = 20
	checkKeys  = 1 << 12 // addresses remembered

	// trialLife is how long a credential of the check page makes allocations.
	trialLife = 5 * time.Minute
)

func newChecks() *checks {
	return &checks{pages.NewTickets(), limit.NewKeyedRate[netip.Prefix](checkRate, checkBurst, checkKeys)}
}

// checkPage is the check page of a plan.
type checkPage struct {
	*pages.Check
	path    string
	checks  *checks
	cfg     *config.Config
	origins map[string]string // what a probe says it comes from, by path
}

// newCheckPage returns what serves check.path, nil when that is off.
func (a *app) newCheckPage(p *plan) *checkPage {
	cfg := p.cfg
	if cfg.Check.Path == "" {
		return nil
	}
	c := &checkPage{path: trimSlash(cfg.Check.Path), checks: a.checks, cfg: cfg, origins: make(map[string]string)}
	trust := proxy.Trust(cfg.HTTPS.TrustedProxies)
	routes := checkRoutes(cfg)
	for _, r := range routes {
		if r.Origin != "" {
			path, _, _ := strings.Cut(r.Path, "?")
			c.origins[trimSlash(path)] = r.Origin
		}
	}
	c.Check = pages.NewCheck(pages.CheckOptions{
		Path: c.path, Tickets: a.checks.tickets, Rate: a.checks.rate, Client: trust.Client, Log: a.log,
		Plan: func(r *http.Request) (pages.Plan, error) {
			if a.draining.Load() {
				return pages.Plan{}, pages.ErrDraining
			}
			plan := pages.Plan{
				Version: fullVersion(), Protocol: protocol(r), Client: trust.Client(r).String(), Layout: cfg.Layout,
				Host: r.Host, Certificate: a.shownCertificate(r), Routes: routes, Relays: checkRelays(cfg, r.Host),
			}
			return plan, nil
		},
		Servers: func(_ *http.Request, session string) (pages.Credential, error) {
			cred, err := timeLimited(cfg, turn.TrialUser+session, trialLife, time.Now())
			return pages.Credential{Username: cred.username, Credential: cred.password}, err
		},
	})
	return c
}

// ServeHTTP implements http.Handler.
func (c *checkPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, _, _ := proxy.SplitTarget(proxy.RawTarget(r)) // the front has seen to it
	c.Serve(w, r, strings.TrimPrefix(path, c.path))
}

// protocol is the version of HTTP in the words of ALPN, which browsers use too.
func protocol(r *http.Request) string {
	if r.ProtoMajor == 2 {
		return "h2"
	}
	return strings.ToLower(r.Proto)
}

// checkRoutes lists the routes that a browser can try: every one but those that
// only a trusted proxy may use, and those on listeners of their own, where the page is not.
func checkRoutes(cfg *config.Config) []pages.Route {
	var list []pages.Route
	for _, r := range cfg.Signaling {
		if r.Mode == config.ModeHeaders || len(r.Listen) > 0 {
			continue
		}
		route := pages.Route{Kind: pages.Signaling, Name: r.Path, Path: r.Path, Origin: someOrigin(r.Origins)}
		for _, t := range r.Upstream {
			if t.URL != nil {
				route.Upstreams = append(route.Upstreams, t.URL.Host)
			}
		}
		if len(r.SDKAppIDs) > 0 {
			route.Path += "?sdkAppId=" + strconv.FormatUint(r.SDKAppIDs[0], 10)
		}
		list = append(list, route)
	}
	for _, r := range cfg.Logger {
		if len(r.Listen) > 0 {
			continue
		}
		route := pages.Route{Kind: pages.Logger, Name: r.Path, Path: r.Path, Origin: someOrigin(r.Origins), Upstreams: hosts(r.Upstream)}
		if r.Preset == config.PresetTRTC {
			// As the SDK asks, but with a command that the collector does not know.
			route.Path = below(r.Path, reportPath) + reportQuery(appID(r.SDKAppIDs))
		}
		list = append(list, route)
	}
	if cfg.UsesTRTC() {
		list = append(list, schedulerRoutes(cfg)...)
	}
	return list
}

// schedulerRoutes are those of [trtc]: the scheduler, and what the one-parameter
// mode has below its path.
func schedulerRoutes(cfg *config.Config) (list []pages.Route) {
	id := appID(cfg.TRTC.SDKAppIDs)
	origin := someOrigin(cfg.TRTC.Origins)
	schedulers := hosts(cfg.TRTC.ScheduleUpstream)
	if len(schedulers) == 0 {
		for _, text := range signaling.Schedulers(id) {
			schedulers = append(schedulers, strings.TrimPrefix(text, "https://"))
		}
	}
	for _, r := range []pages.Route{{Name: cfg.TRTC.Schedule}, {Name: cfg.TRTC.Unified, Mode: pages.Unified}} {
		if r.Name != "" {
			r.Kind, r.Path, r.Origin, r.Upstreams, r.AppID = pages.Scheduler, below(r.Name, schedulePath), origin, schedulers, id
			list = append(list, r)
		}
	}
	path := cfg.TRTC.Unified
	if path == "" {
		return list
	}
	if query, ok := unifiedSignal(cfg); ok {
		list = append(list, pages.Route{Kind: pages.Signaling, Mode: pages.Unified, Name: path, Path: below(path, "v2/ws") + query, Origin: origin})
	}
	return append(list, pages.Route{Kind: pages.Logger, Mode: pages.Unified, Name: path, Path: below(path, reportPath) + reportQuery(id), Origin: origin})
}

func below(path, rest string) string { return trimSlash(path) + "/" + rest }

// someOrigin is an origin that a list allows, "" when it allows all.
func someOrigin(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return strings.Replace(list[0], "://*.", "://check.", 1)
}

func hosts(list []*url.URL) []string {
	var out []string
	for _, u := range list {
		out = append(out, u.Host)
	}
	return out
}

// checkRelays are the ways to TURN of a browser that came under a host. Plain TCP
// on an HTTPS port is for SDKs of old, which know no TLS for TURN.
func checkRelays(cfg *config.Config, host string) []pages.Relay {
	name, port := host, uint16(443)
	if h, p, err := net.SplitHostPort(host); err == nil {
		n, _ := strconv.ParseUint(p, 10, 16)
		name, port = h, uint16(n)
	}
	name = strings.Trim(name, "[]")
	var list []pages.Relay
	add := func(scheme, transport string, port uint16, minor bool) {
		r := pages.Relay{Transport: transport, Port: port, Minor: minor}
		if transport == "tls" {
			r.URL = "turns:" + net.JoinHostPort(name, strconv.Itoa(int(port))) + "?transport=tcp"
		} else {
			r.URL = scheme + net.JoinHostPort(name, strconv.Itoa(int(port))) + "?transport=" + transport
		}
		if !slices.ContainsFunc(list, func(have pages.Relay) bool { return have.URL == r.URL }) && len(list) < maxCheckRelays {
			list = append(list, r)
		}
	}
	isHTTPS := func(l config.ListenAddr) bool {
		return slices.ContainsFunc(cfg.HTTPS.Listen, func(h config.ListenAddr) bool { return h == l })
	}
	for _, l := range cfg.TURN.Listen {
		if isHTTPS(l) {
			add("turn:", "udp", port, true)
		} else if l.Port != 0 {
			add("turn:", "udp", l.Port, false)
			add("turn:", "tcp", l.Port, false)
		}
	}
	add("turns:", "tls", port, false)
	add("turn:", "tcp", port, true)
	return list
}

// maxCheckRelays is how many ways are tried at once; each takes two relays.
const maxCheckRelays = 8

// shownCertificate is what this host serves under the name that the browser asked
// for, or the first one.
func (a *app) shownCertificate(r *http.Request) *pages.Certificate {
	state := a.certs.State()
	if len(state) == 0 {
		return nil
	}
	host := hostOnly(r.Host)
	i := max(0, slices.IndexFunc(state, func(c edge.CertState) bool { return slices.Contains(c.Names, host) }))
	c := state[i]
	shown := &pages.Certificate{Names: c.Names, Issuer: c.Issuer, NotAfter: c.NotAfter, SelfSigned: c.SelfSigned}
	for _, c := range state { // which of several fits a client it does not say
		shown.SHA256 = append(shown.SHA256, c.SHA256)
	}
	return shown
}

// probed takes the mark off a request that the check page made on a route, and
// has it tell what becomes of it. Such a request says that it comes from an
// origin that the route takes: whoever has a link may try every route.
func (v *visit) probed(r *http.Request, path string) *http.Request {
	if v.check == nil {
		return r
	}
	probe, query := v.check.checks.tickets.Probe(v.query)
	if probe == nil {
		return r
	}
	v.probe, v.query = probe, query
	if v.trace == nil {
		v.trace = new(proxy.Trace)
		r = r.WithContext(proxy.WithTrace(r.Context(), v.trace))
	} else {
		r = r.WithContext(r.Context())
	}
	r.RequestURI = path + query
	u := *r.URL
	u.RawQuery = strings.TrimPrefix(query, "?")
	r.URL = &u
	if origin := v.check.originOf(path); origin != "" {
		r.Header = r.Header.Clone()
		r.Header.Set("Origin", origin)
	}
	return r
}

// originOf returns the origin that probes of a path come from, "" for their own.
func (c *checkPage) originOf(path string) string {
	for at := trimSlash(path); ; {
		if origin, ok := c.origins[at]; ok {
			return origin
		}
		i := strings.LastIndexByte(at, '/')
		if i < 0 {
			return ""
		}
		at = at[:i]
	}
}

// endProbe tells the check page what became of its request.
func (v *visit) endProbe() {
	if v.probe == nil {
		return
	}
	status := v.status
	if v.taken != nil {
		status = http.StatusSwitchingProtocols
	}
	upstream, result := v.trace.Outcome()
	v.probe.End(pages.Result{Status: status, Outcome: result, Upstream: upstream})
}
