package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/pages"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/signaling"
)

// checkedRoute is a route of turngate with the upstreams behind it.
type checkedRoute struct {
	path      string // with a final slash, below it the check asks
	listen    []config.ListenAddr
	site      *checkedSite // that has the listeners of the route; nil: the one of all
	rest      string       // what is asked for behind path
	query     string       // with its question mark, no secret in it
	origin    string       // of the page
	trtc      bool
	appID     uint64 // in the form for a scheduler
	upstreams []*proxy.Upstream
	dialer    *proxy.Dialer // towards the upstreams
	wait      time.Duration

	// told says what the server saw of the request through it; nil without a link.
	told  func(ctx context.Context) (pages.Result, error)
	clock *sync.Once // of the finding that our clock is wrong; nil: do not compare
}

// signalingRoutes are the routes with fixed upstreams.
func signalingRoutes(cfg *config.Config, d dialers) ([]checkedRoute, error) {
	var routes []checkedRoute
	for _, r := range cfg.Signaling {
		if len(r.Upstream) == 0 {
			continue
		}
		c, err := newCheckedRoute(cfg, r.Reach.Reach, d, targets(r.Upstream))
		if err != nil {
			return nil, err
		}
		c.path, c.listen, c.origin, c.trtc = r.Path, r.Listen, pageOrigin(cfg, r.Origins), r.Preset == config.PresetTRTC
		c.wait += time.Duration(r.Reach.HandshakeTimeout)
		if c.trtc {
			c.query = signalQuery(appID(r.SDKAppIDs))
		}
		routes = append(routes, c)
	}
	if query, ok := unifiedSignal(cfg); ok && cfg.UsesTRTC() && cfg.TRTC.Unified != "" {
		routes = append(routes, unifiedRoute(cfg, "v2/ws", query))
	}
	return routes, nil
}

// logRoutes are the routes of [[logger]].
func logRoutes(cfg *config.Config, d dialers) ([]checkedRoute, error) {
	var routes []checkedRoute
	for _, r := range cfg.Logger {
		to := texts(r.Upstream)
		if len(to) == 0 && r.Preset == config.PresetTRTC {
			to = []string{"https://yun.tim.qq.com"} // where appID's reports go
		}
		c, err := newCheckedRoute(cfg, r.Reach, d, proxy.Targets(to...))
		if err != nil {
			return nil, err
		}
		c.path, c.listen, c.origin, c.trtc = r.Path, r.Listen, pageOrigin(cfg, r.Origins), r.Preset == config.PresetTRTC
		c.wait += time.Duration(r.Timeout)
		if c.trtc {
			c.rest, c.query = reportPath, reportQuery(appID(r.SDKAppIDs))
		}
		routes = append(routes, c)
	}
	if cfg.UsesTRTC() && cfg.TRTC.Unified != "" {
		routes = append(routes, unifiedRoute(cfg, reportPath, reportQuery(appID(cfg.TRTC.SDKAppIDs))))
	}
	return routes, nil
}

// unifiedRoute is one of the things that trtc.unified serves; its upstreams are
// those of other routes.
func unifiedRoute(cfg *config.Config, rest, query string) checkedRoute {
	return checkedRoute{
		path: cfg.TRTC.Unified, rest: rest, query: query, origin: pageOrigin(cfg, cfg.TRTC.Origins), trtc: true,
		wait: time.Duration(cfg.Upstream.DialTimeout+cfg.Upstream.TLSTimeout+cfg.Upstream.HandshakeTimeout) + siteWait,
	}
}

// Where the SDK asks below the path of a log route and of a scheduler.
const (
	reportPath   = "v5/AVQualityReportSvc/C2S"
	schedulePath = "api/v1/config"
)

func reportQuery(id uint64) string {
	return fmt.Sprintf("?random=1&sdkappid=%d&cmdtype=jssdk_log", id)
}

func signalQuery(id uint64) string {
	return fmt.Sprintf("?sdkAppId=%d&userId=turngate-check&userSig=none&keepAlive=0", id)
}

// unifiedSignal is the query of a WebSocket of the one-parameter mode, for the
// upstream of the first TRTC route; false if there is none that a client may name.
func unifiedSignal(cfg *config.Config) (query string, ok bool) {
	domains, err := proxy.ParseHostList(cfg.TRTC.SignalDomains)
	if err != nil {
		return "", false
	}
	for _, r := range cfg.Signaling {
		if r.Preset != config.PresetTRTC {
			continue
		}
		for _, t := range r.Upstream {
			if t.URL != nil && t.URL.Port() == "" && t.URL.Scheme == "https" {
				if host, ok := domains.Host(t.URL.Host); ok {
					return signalQuery(appID(cfg.TRTC.SDKAppIDs)) + "&signalDomain=" + url.QueryEscape(host), true
				}
			}
		}
	}
	return "", false
}

// scheduleRoutes are trtc.schedule and the scheduler of trtc.unified. The
// schedulers themselves are asked once.
func scheduleRoutes(cfg *config.Config, d dialers) ([]checkedRoute, error) {
	if !cfg.UsesTRTC() {
		return nil, nil
	}
	id := appID(cfg.TRTC.SDKAppIDs)
	to := texts(cfg.TRTC.ScheduleUpstream)
	if len(to) == 0 {
		to = signaling.Schedulers(id)
	}
	reach := cfg.Upstream
	if r := firstTRTC(cfg); r != nil {
		reach = r.Reach
	}
	var routes []checkedRoute
	for _, path := range []string{cfg.TRTC.Schedule, cfg.TRTC.Unified} {
		if path == "" {
			continue
		}
		var c checkedRoute
		var err error
		if len(routes) == 0 {
			c, err = newCheckedRoute(cfg, reach.Reach, d, proxy.Targets(to...))
		}
		if err != nil {
			return nil, err
		}
		c.path, c.rest, c.origin, c.trtc = path, schedulePath, pageOrigin(cfg, cfg.TRTC.Origins), true
		c.wait += scheduleWait
		c.appID = id
		routes = append(routes, c)
	}
	return routes, nil
}

// scheduleWait is the patience with a scheduler: turngate asks several in turn.
const scheduleWait = 12 * time.Second

// firstTRTC is the route that carries the scheduler's modes too.
func firstTRTC(cfg *config.Config) *config.Signaling {
	for i := range cfg.Signaling {
		if cfg.Signaling[i].Preset == config.PresetTRTC {
			return &cfg.Signaling[i]
		}
	}
	return nil
}

func newCheckedRoute(cfg *config.Config, reach config.Reach, d dialers, to []proxy.Target) (checkedRoute, error) {
	c := checkedRoute{wait: time.Duration(reach.DialTimeout + reach.TLSTimeout)}
	var err error
	if c.dialer, err = d.get(reach); err != nil {
		return c, err
	}
	pool, err := proxy.MakePool(proxy.PoolOptions{Targets: to})
	if err != nil {
		return c, err
	}
	for _, u := range pool.Upstreams() {
		if !u.Off {
			c.upstreams = append(c.upstreams, u)
		}
	}
	return c, nil
}

// appID is an application that a route lets through.
func appID(allowed []uint64) uint64 {
	if len(allowed) > 0 {
		return allowed[0]
	}
	return 1400000000
}

// pageOrigin is the origin of a page that a route lets through.
func pageOrigin(cfg *config.Config, allowed []string) string {
	for _, o := range allowed {
		if !strings.Contains(o, "*") {
			return o
		}
	}
	if cfg.Domain != "" {
		return "https://" + cfg.Domain
	}
	return "https://localhost"
}

// asks is how a kind of route is asked, and what its codes are.
type asks struct {
	what                             string // in names of measures too
	ok, dns, blocked, issuer, tls    doctor.Code
	proxy, answer, through, untested doctor.Code
	cors                             doctor.Code // when a page cannot read the answer; none for a WebSocket
	notHere, notBack                 doctor.Code // what a link tells
	ask                              func(ctx context.Context, conn netConn, host, target string, r checkedRoute) (reply, error)
}

var wssAsks = asks{
	"signaling", doctor.WssOK, doctor.WssDNS, doctor.WssBlocked, doctor.WssIssuer, doctor.WssTLS,
	doctor.WssProxy, doctor.WssAnswer, doctor.WssThrough, doctor.WssUntested, "", doctor.WssNotHere, doctor.WssNotBack, askWebSocket,
}

var logAsks = asks{
	"logs", doctor.LogOK, doctor.LogDNS, doctor.LogBlocked, doctor.LogIssuer, doctor.LogTLS,
	doctor.LogProxy, doctor.LogAnswer, doctor.LogThrough, doctor.LogUntested, doctor.LogCORS, doctor.LogNotHere, doctor.LogNotBack, askReport,
}

var scheduleAsks = asks{
	"schedule", doctor.ScheduleOK, doctor.ScheduleDNS, doctor.ScheduleBlocked, doctor.ScheduleIssuer, doctor.ScheduleTLS,
	doctor.ScheduleProxy, doctor.ScheduleAnswer, doctor.ScheduleThrough, doctor.ScheduleUntested, doctor.ScheduleCORS, doctor.ScheduleThrough, doctor.ScheduleThrough, askSchedule,
}

func askWebSocket(ctx context.Context, conn netConn, host, target string, from checkedRoute) (reply, error) {
	var key [16]byte
	_, _ = rand.Read(key[:])
	r, err := exchange(ctx, conn, http.MethodGet, host, target, http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-WebSocket-Version": {"13"},
		"Sec-WebSocket-Key": {base64.StdEncoding.EncodeToString(key[:])}, "Origin": {from.origin},
	}, nil)
	if err == nil && r.status == http.StatusSwitchingProtocols {
		_, _ = conn.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 1000 >> 8, 1000 & 0xff}) // Close 1000
	}
	return r, err
}

func askReport(ctx context.Context, conn netConn, host, target string, from checkedRoute) (reply, error) {
	return exchange(ctx, conn, http.MethodPost, host, target, http.Header{
		"Origin": {from.origin}, "Content-Type": {"text/plain;charset=UTF-8"}, "Connection": {"close"},
	}, []byte("{}"))
}

// askSchedule posts the form of the SDK, without a login.
func askSchedule(ctx context.Context, conn netConn, host, target string, from checkedRoute) (reply, error) {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for _, field := range [][2]string{{"userId", "turngate-check"}, {"sdkAppId", strconv.FormatUint(from.appID, 10)}, {"userSig", "none"}} {
		_ = form.WriteField(field[0], field[1]) // into memory
	}
	_ = form.Close()
	return exchange(ctx, conn, http.MethodPost, host, target, http.Header{
		"Origin": {from.origin}, "Content-Type": {form.FormDataContentType()}, "Connection": {"close"},
	}, body.Bytes())
}

// serves reports whether an answer shows that what should answer does. It asks
// without a login, so an answer of the class 4xx is one.
func serves(status int) bool {
	return status == http.StatusSwitchingProtocols || status >= 200 && status < 500 && status != http.StatusNotFound && status != http.StatusMisdirectedRequest
}

// checkRoutes asks every upstream directly, and every route through the site.
// With a site of nil, or one that does not answer, only the upstreams.
func (a asks) checkRoutes(ctx context.Context, routes []checkedRoute, site *checkedSite) []doctor.Finding {
	if len(routes) == 0 {
		return []doctor.Finding{doctor.As(a.untested, "no route with a fixed upstream")}
	}
	var mu sync.Mutex
	var found []doctor.Finding
	var wg sync.WaitGroup
	for _, r := range routes {
		wg.Go(func() {
			list := a.checkRoute(ctx, r, site)
			mu.Lock()
			defer mu.Unlock()
			found = append(found, list...)
		})
	}
	wg.Wait()
	return found
}

func (a asks) checkRoute(ctx context.Context, r checkedRoute, site *checkedSite) []doctor.Finding {
	ctx, cancel := context.WithTimeout(ctx, r.wait)
	defer cancel()
	site = cmp.Or(r.site, site)
	found := make([]doctor.Finding, len(r.upstreams))
	dates := make([]time.Duration, len(r.upstreams))
	var through passage
	var wg sync.WaitGroup
	for i, u := range r.upstreams {
		wg.Go(func() { found[i], dates[i] = a.checkUpstream(ctx, r, u) })
	}
	if site != nil {
		wg.Go(func() { through = a.checkThrough(ctx, r, site) })
	}
	wg.Wait()
	good := 0
	for _, f := range found {
		if f.Status == doctor.OK {
			good++
		}
	}
	if good > 0 { // the others carry the clients
		for i, f := range found {
			if f.Status == doctor.Fail {
				found[i] = f.At(doctor.Warn)
			}
		}
	}
	// A route whose upstreams are dead says the same again.
	if ownTrouble := len(r.upstreams) == 0 && !through.gateway; through.asked && (good > 0 || through.found.Status == doctor.OK || ownTrouble) {
		found = append(found, through.found)
	}
	for _, off := range dates {
		if r.clock != nil && off.Abs() > maxDateError {
			r.clock.Do(func() { found = append(found, clockOff(off, "the upstream's")) })
		}
	}
	return found
}

// maxDateError is how far our clock may be from a Date field, which is whole
// seconds old when it arrives.
const maxDateError = time.Minute

func clockOff(off time.Duration, whose string) doctor.Finding {
	way := "ahead of"
	if off < 0 {
		way = "behind"
	}
	return doctor.As(doctor.ClockOff, "the clock of this machine is %s %s %s", off.Abs().Round(time.Second), way, whose)
}

// ahead is how much our clock is ahead of the Date field of an answer, zero
// without one.
func ahead(header http.Header, now time.Time) time.Duration {
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0
	}
	return now.Sub(date)
}

// checkUpstream asks one upstream as turngate does. The second result is how much
// our clock is ahead of the upstream's.
func (a asks) checkUpstream(ctx context.Context, r checkedRoute, u *proxy.Upstream) (doctor.Finding, time.Duration) {
	began := time.Now()
	way := "directly"
	if p := r.dialer.Through(u); p != "" {
		way = "through the proxy " + p
	}
	conn, err := r.dialer.Dial(ctx, u)
	if err == nil {
		conn, err = r.dialer.Handshake(ctx, u, conn, "http/1.1")
	}
	if err != nil {
		return a.unreached(r, u, err), 0
	}
	defer conn.Close()
	res, err := a.ask(ctx, conn, u.HostHeader(), u.Target(r.rest, r.query), r)
	if err != nil {
		return a.unreached(r, u, &proxy.Error{Upstream: u.Name, Phase: "answer", Cause: proxy.Classify(err), Err: err}), 0
	}
	off := ahead(res.header, time.Now())
	if !serves(res.status) {
		return doctor.As(a.answer, "%s: upstream %s answers %d", r.path, u.URI(), res.status), off
	}
	return doctor.As(a.ok, "%s: upstream %s answers %d in %s, %s", r.path, u.URI(), res.status, took(began), way).
		With(a.what+"_time", time.Since(began).Seconds(), "s"), off
}

func (a asks) unreached(r checkedRoute, u *proxy.Upstream, err error) doctor.Finding {
	code := a.blocked
	cause := proxy.Classify(err)
	if e, ok := errors.AsType[*proxy.Error](err); ok && e.Phase == "dial" && r.dialer.Through(u) != "" {
		cause = proxy.CauseProxy // whatever the trouble, it is with the proxy, or the proxy's
	}
	if known := a.code(cause); known != "" {
		code = known
	}
	return doctor.As(code, "%s: upstream %v", r.path, err)
}

// code is what a cause is called; "" for the unlucky rest, which is blocked.
func (a asks) code(cause proxy.Cause) doctor.Code {
	switch cause {
	case proxy.CauseDNS:
		return a.dns
	case proxy.CauseIssuer:
		return a.issuer
	case proxy.CauseName, proxy.CauseExpired, proxy.CauseTLS:
		return a.tls
	case proxy.CauseProxy, proxy.CauseProxyAuth:
		return a.proxy
	case proxy.CauseAnswer:
		return a.answer
	}
	return ""
}

// passage is what became of a request through turngate.
type passage struct {
	found   doctor.Finding
	asked   bool // false when the site itself does not answer, which is a finding elsewhere
	gateway bool // turngate says that it does not reach the upstream
}

// checkThrough asks a route as a page does.
func (a asks) checkThrough(ctx context.Context, r checkedRoute, site *checkedSite) passage {
	began := time.Now()
	conn, err := site.open(ctx, "http/1.1")
	if err != nil {
		return passage{}
	}
	defer conn.Close()
	target := "/" + strings.Trim(r.path, "/") + "/" + r.rest + r.query
	if strings.Trim(r.path, "/") == "" {
		target = "/" + r.rest + r.query
	}
	res, err := a.ask(ctx, conn, site.up.HostHeader(), target, r)
	p := passage{asked: true, gateway: err == nil && (res.status == http.StatusBadGateway || res.status == http.StatusGatewayTimeout)}
	by := ""
	if r.told != nil {
		if told, toldErr := r.told(ctx); toldErr == nil {
			if f, bad := a.judge(r, told, err); bad {
				p.found = f
				return p
			}
			by = " by " + told.Upstream
		}
	}
	where := strings.TrimRight(r.path, "/") + "/"
	switch {
	case err != nil:
		p.found = doctor.As(a.through, "%s: no answer through turngate: %s", where, proxy.Classify(err))
	case !serves(res.status):
		p.found = doctor.As(a.through, "%s: through turngate the answer is %d%s", where, res.status, meaning(res.status))
	case by == "" && (res.status == http.StatusForbidden || res.status == http.StatusTooManyRequests):
		p.found = doctor.As(a.through, "%s: through turngate the answer is %d%s", where, res.status, meaning(res.status)).At(doctor.Warn)
	case a.cors != "" && res.header.Get("Access-Control-Allow-Origin") == "":
		p.found = doctor.As(a.cors, "%s: a request through turngate is answered%s with %d, and without Access-Control-Allow-Origin", where, by, res.status)
	case a.cors != "":
		p.found = doctor.As(a.ok, "%s: a request through turngate is answered%s with %d in %s, readable for the page", where, by, res.status, took(began))
	default:
		p.found = doctor.As(a.ok, "%s: a handshake through turngate is answered%s with %d in %s", where, by, res.status, took(began))
	}
	if p.found.Status == doctor.OK && site.client {
		p.found = p.found.With(a.what+"_time", time.Since(began).Seconds(), "s")
	}
	return p
}

// judge says what is wrong with a request of which the server tells; err is what
// became of it here. Whether something stands between client and server, or
// behind the server, is all in the difference.
func (a asks) judge(r checkedRoute, told pages.Result, err error) (doctor.Finding, bool) {
	switch cause, behind := strings.CutPrefix(told.Outcome, "upstream_"); {
	case !told.Arrived && err != nil:
		return doctor.As(a.notHere, "%s: the request does not reach the server, though others do", r.path), true
	case !told.Arrived: // somebody else answered in its place
		return doctor.As(a.notHere, "%s: something on the way answers in the server's place", r.path), true
	case !told.Ended:
		return doctor.As(a.blocked, "%s: the server waits for its upstream %s", r.path, told.Upstream), true
	case behind:
		code := cmp.Or(a.code(proxy.Cause(cause)), a.blocked)
		return doctor.As(code, "%s: the server does not reach its upstream %s: %s", r.path, told.Upstream, cause), true
	case told.Outcome == "spooled":
		return doctor.As(doctor.ServiceSpool, "%s: the log upstream %s is away; the server keeps the report on its disk", r.path, told.Upstream), true
	case told.Outcome != "":
		return doctor.As(a.through, "%s: the server refuses the request: %s", r.path, told.Outcome), true
	case err != nil:
		return doctor.As(a.notBack, "%s: %s answered, and the answer does not come back here", r.path, told.Upstream), true
	}
	return doctor.Finding{}, false
}

// meaning explains statuses that turngate gives itself.
func meaning(status int) string {
	switch status {
	case http.StatusForbidden:
		return ": the route's origins, clients or sdk_app_ids"
	case http.StatusNotFound:
		return ": there is no such route"
	case http.StatusMisdirectedRequest:
		return ": the name is none of its own (https.names)"
	case http.StatusTooManyRequests:
		return ": a limit"
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return ": it does not reach the upstream"
	}
	return ""
}
