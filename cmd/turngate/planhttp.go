package main

import (
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/logger"
	"github.com/turngate/turngate/signaling"
	"github.com/turngate/turngate/signaling/entry"
)

// signalingOptions translates the signaling routes and the TRTC modes. Both
// rooms may share a path: then the WebSocket handshakes stay with signaling,
// and everything else goes on to logger.
func (a *app) signalingOptions(cfg *config.Config, d dialers) (signaling.Options, error) {
	o := signaling.Options{Log: a.log}
	logs := a.logPlaces(cfg)
	for _, r := range cfg.Signaling {
		if r.Mode != config.ModeTunnel {
			continue // see inspectOptions
		}
		route, err := signalingRoute(cfg, r, d)
		if err != nil {
			return o, err
		}
		route.Plain = logs[trimSlash(proxy.RouteName(route.Listen, route.Path))]
		o.Routes = append(o.Routes, route)
	}
	if !cfg.UsesTRTC() || cfg.TRTC.Schedule == "" && cfg.TRTC.Unified == "" {
		return o, nil
	}
	schedule, err := a.schedule(cfg, d)
	o.Schedule = schedule
	return o, err
}

// entryRoute translates what every WebSocket route has.
func entryRoute(cfg *config.Config, r config.Signaling, d dialers) (entry.Route, error) {
	dialer, err := d.get(r.Reach.Reach)
	route := entry.Route{
		Path:             r.Path,
		Listen:           listenerNames(r.Listen),
		Targets:          targets(r.Upstream),
		Balance:          r.Balance,
		Dialer:           dialer,
		HandshakeTimeout: time.Duration(r.Reach.HandshakeTimeout),
		Origins:          r.Origins,
		SDKAppIDs:        r.SDKAppIDs,
		Clients:          r.Clients,
		MaxPerAddress:    r.MaxConnectionsPerAddress,
		Qrator:           r.Answer == "qrator",
		Silent: entry.Silence{
			Clients: slices.Contains(r.Silent, "clients"),
			Limit:   slices.Contains(r.Silent, "limit"),
			Errors:  slices.Contains(r.Silent, "errors"),
		},
	}
	if r.HealthCheck != "off" {
		route.Check = entry.HealthCheck{
			Kind: r.HealthCheck, Interval: time.Duration(r.HealthInterval), Rise: r.HealthRise, Fall: r.HealthFall, Path: r.HealthPath,
		}
	}
	var headersErr error
	route.Headers, headersErr = routeHeaders(cfg, r)
	return route, errors.Join(err, headersErr)
}

func signalingRoute(cfg *config.Config, r config.Signaling, d dialers) (signaling.Route, error) {
	common, err := entryRoute(cfg, r, d)
	route := signaling.Route{Route: common, IdleTimeout: time.Duration(r.IdleTimeout), MaxMessage: int64(r.MaxMessage)}
	if r.MaxMessage == 0 {
		route.MaxMessage = -1 // no limit
	}
	return route, err
}

// routeHeaders translates what a WebSocket route says about header fields.
func routeHeaders(cfg *config.Config, r config.Signaling) (proxy.HeaderPolicy, error) {
	p := headers(cfg, r.XFF, r.KeepCookies, r.KeepUnderscores)
	p.Identify = r.Identify
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(r.AddHeaders)) {
		field, err := proxy.ParseField(name, r.AddHeaders[name].Reveal())
		errs = append(errs, err)
		p.Add = append(p.Add, field)
	}
	return p, errors.Join(errs...)
}

func targets(list []config.Target) []proxy.Target {
	var out []proxy.Target
	for _, t := range list {
		out = append(out, proxy.Target{
			URL: t.URL.String(), Weight: t.Weight, Off: t.Weight == 0, Backup: t.Backup, ServerName: t.SNI, Host: t.Host,
		})
	}
	return out
}

func headers(cfg *config.Config, xff string, credentials, underscores bool) proxy.HeaderPolicy {
	return proxy.HeaderPolicy{
		Trust:           proxy.Trust(cfg.HTTPS.TrustedProxies),
		XFF:             proxy.XFF(xff),
		KeepCredentials: credentials,
		KeepUnderscore:  underscores,
		HideServer:      true,
	}
}

func texts(list []*url.URL) []string {
	var out []string
	for _, u := range list {
		out = append(out, u.String())
	}
	return out
}

// schedule translates the scheduler route and the one-parameter mode. They are
// carried like the first signaling route of the preset.
func (a *app) schedule(cfg *config.Config, d dialers) (*signaling.Schedule, error) {
	like := config.Signaling{Reach: cfg.Upstream, MaxMessage: signaling.TRTCMaxMessage}
	for _, r := range cfg.Signaling {
		if r.Preset == config.PresetTRTC {
			like = r
			break
		}
	}
	route, err := signalingRoute(cfg, like, d)
	if err != nil {
		return nil, err
	}
	route.Origins, route.SDKAppIDs, route.Listen = cfg.TRTC.Origins, cfg.TRTC.SDKAppIDs, nil
	s := &signaling.Schedule{
		Path:          cfg.TRTC.Schedule,
		Unified:       cfg.TRTC.Unified,
		Upstreams:     texts(cfg.TRTC.ScheduleUpstream),
		SignalDomains: cfg.TRTC.SignalDomains,
		Route:         route,
		PublicHost:    publicHost(cfg),
		Policy:        cfg.TRTC.ICETransportPolicy,
		Logs:          lateLogger{a},
	}
	for _, r := range cfg.Logger {
		if r.Preset == config.PresetTRTC && len(r.Listen) == 0 {
			s.LoggerPath = r.Path
			break
		}
	}
	if cfg.TRTC.InjectTURN {
		s.Credentials = func(user string) ([]signaling.ICEServer, error) { return iceServers(cfg, user, time.Now()) }
	}
	return s, nil
}

// iceServers are our TURN servers with a credential for a user of the
// scheduler, good for turn.credential_ttl.
func iceServers(cfg *config.Config, user string, now time.Time) ([]signaling.ICEServer, error) {
	site, err := newSite(cfg, "")
	if err != nil {
		return nil, err
	}
	c, err := timeLimited(cfg, user, time.Duration(cfg.TURN.CredentialTTL), now)
	return []signaling.ICEServer{{URLs: site.relays(), Username: c.username, Credential: c.password}}, err
}

// ownSecret adds the secret of this host to a configuration that has none, so
// that time-limited credentials can be made all the same.
func ownSecret(cfg *config.Config, log *slog.Logger) *config.Config {
	if len(cfg.TURN.Secrets) > 0 {
		return cfg
	}
	secret, err := kept(cfg.StateDir, "turn-secret")
	if err != nil {
		log.Warn("time-limited credentials end with this process", "err", err)
		secret = config.NewPassword()
	}
	with := *cfg
	with.TURN.Secrets = []config.Secret{config.NewSecret(secret)}
	return &with
}

// loggerOptions translates the log routes, and one for the reports of the
// one-parameter mode.
func loggerOptions(cfg *config.Config, d dialers, log *slog.Logger) (logger.Options, error) {
	o := logger.Options{Log: log, SpoolDir: filepath.Join(cfg.StateDir, "spool")}
	unified := config.Logger{Reach: cfg.Upstream.Reach}
	for i := len(cfg.Logger) - 1; i >= 0; i-- { // the first of the preset stays
		if cfg.Logger[i].Preset == config.PresetTRTC {
			unified = cfg.Logger[i]
		}
	}
	routes := cfg.LogRoutes()
	if cfg.UsesTRTC() && cfg.TRTC.Unified != "" {
		unified.Path, unified.Preset, unified.Listen = cfg.TRTC.Unified, config.PresetTRTC, nil
		unified.Origins, unified.SDKAppIDs = cfg.TRTC.Origins, cfg.TRTC.SDKAppIDs
		routes = append(routes, unified)
	}
	alone := cfg.WatchRTCAlone()
	for n, r := range routes {
		dialer, err := d.get(r.Reach)
		if err != nil {
			return o, err
		}
		policy := headers(cfg, r.XFF, r.KeepCookies, false)
		if n -= len(cfg.Logger); n >= 0 && n < len(alone) { // what its [[signaling]] says holds for both
			if policy, err = routeHeaders(cfg, alone[n]); err != nil {
				return o, err
			}
		}
		o.Routes = append(o.Routes, logger.Route{
			Path:       r.Path,
			Listen:     listenerNames(r.Listen),
			Upstreams:  texts(r.Upstream),
			Dialer:     dialer,
			Headers:    policy,
			MaxBody:    int64(r.MaxBody),
			Wait:       time.Duration(r.Timeout),
			Repeatable: r.Preset == config.PresetTRTC,
			KeepCORS:   config.IsWatchRTC(r.Preset),
			Origins:    r.Origins,
			SDKAppIDs:  r.SDKAppIDs,

			Spool:       int64(r.Spool),
			SpoolStatus: r.SpoolStatus,
			SpoolAge:    time.Duration(r.SpoolAge),
		})
	}
	return o, nil
}

// logPlaces are the log routes by name. A WebSocket route of the same name has what asks
// for no WebSocket served by the logger.
func (a *app) logPlaces(cfg *config.Config) map[string]http.Handler {
	all := make(map[string]http.Handler)
	for _, r := range cfg.LogRoutes() {
		all[trimSlash(proxy.RouteName(listenerNames(r.Listen), r.Path))] = lateLogger{a}
	}
	return all
}

// listenerNames are what listeners are called by routes.
func listenerNames(list []config.ListenAddr) []string {
	var all []string
	for _, l := range list {
		all = append(all, l.String())
	}
	return all
}

// lateLogger is the logger of the app, which the signaling room is made before.
type lateLogger struct{ a *app }

func (l lateLogger) ServeHTTP(w http.ResponseWriter, r *http.Request) { l.a.logger.ServeHTTP(w, r) }
