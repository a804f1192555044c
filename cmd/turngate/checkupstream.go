package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/proxy"
)

// checkedRoute is a route of turngate with the upstreams behind it.
type checkedRoute struct {
	path      string // with a final slash, below it the check asks
	rest      string // what is asked for behind path
	query     string // with its question mark, no secret in it
	origin    string // of the page
	trtc      bool
	upstreams []*proxy.Upstream
	dialer    *proxy.Dialer // towards the upstreams
	wait      time.Duration
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
		c.path, c.origin, c.trtc = r.Path, pageOrigin(cfg, r.Origins), r.Preset == config.PresetTRTC
		c.wait += time.Duration(r.Reach.HandshakeTimeout)
		if c.trtc {
			c.query = fmt.Sprintf("?sdkAppId=%d&userId=turngate-check&userSig=none&keepAlive=0", appID(r.SDKAppIDs))
		}
		routes = append(routes, c)
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
		c.path, c.origin, c.trtc = r.Path, pageOrigin(cfg, r.Origins), r.Preset == config.PresetTRTC
		c.wait += time.Duration(r.Timeout)
		if c.trtc {
			c.rest = "v5/AVQualityReportSvc/C2S"
			c.query = fmt.Sprintf("?random=1&sdkappid=%d&cmdtype=jssdk_log", appID(r.SDKAppIDs))
		}
		routes = append(routes, c)
	}
	return routes, nil
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
	what                             string
	ok, dns, blocked, issuer, tls    doctor.Code
	proxy, answer, through, untested doctor.Code
	ask                              func(ctx context.Context, conn netConn, host, target, origin string) (reply, error)
}

var wssAsks = asks{
	"wss", doctor.WssOK, doctor.WssDNS, doctor.WssBlocked, doctor.WssIssuer, doctor.WssTLS,
	doctor.WssProxy, doctor.WssAnswer, doctor.WssThrough, doctor.WssUntested, askWebSocket,
}

var logAsks = asks{
	"log", doctor.LogOK, doctor.LogDNS, doctor.LogBlocked, doctor.LogIssuer, doctor.LogTLS,
	doctor.LogProxy, doctor.LogAnswer, doctor.LogThrough, doctor.LogUntested, askReport,
}

func askWebSocket(ctx context.Context, conn netConn, host, target, origin string) (reply, error) {
	var key [16]byte
	_, _ = rand.Read(key[:])
	r, err := exchange(ctx, conn, http.MethodGet, host, target, http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-WebSocket-Version": {"13"},
		"Sec-WebSocket-Key": {base64.StdEncoding.EncodeToString(key[:])}, "Origin": {origin},
	}, nil)
	if err == nil && r.status == http.StatusSwitchingProtocols {
		_, _ = conn.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 1000 >> 8, 1000 & 0xff}) // Close 1000
	}
	return r, err
}

func askReport(ctx context.Context, conn netConn, host, target, origin string) (reply, error) {
	return exchange(ctx, conn, http.MethodPost, host, target, http.Header{
		"Origin": {origin}, "Content-Type": {"text/plain;charset=UTF-8"}, "Connection": {"close"},
	}, []byte("{}"))
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
	found := make([]doctor.Finding, len(r.upstreams))
	var through doctor.Finding
	var asked bool
	var wg sync.WaitGroup
	for i, u := range r.upstreams {
		wg.Go(func() { found[i] = a.checkUpstream(ctx, r, u) })
	}
	if site != nil {
		wg.Go(func() { through, asked = a.checkThrough(ctx, r, site) })
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
	if asked && (good > 0 || through.Status == doctor.OK) { // otherwise it says the same again
		found = append(found, through)
	}
	return found
}

// checkUpstream asks one upstream as turngate does.
func (a asks) checkUpstream(ctx context.Context, r checkedRoute, u *proxy.Upstream) doctor.Finding {
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
		return a.unreached(r, u, err)
	}
	defer conn.Close()
	res, err := a.ask(ctx, conn, u.HostHeader(), u.Target(r.rest, r.query), r.origin)
	switch {
	case err != nil:
		return a.unreached(r, u, &proxy.Error{Upstream: u.Name, Phase: "answer", Cause: proxy.Classify(err), Err: err})
	case !serves(res.status):
		return doctor.As(a.answer, "%s: upstream %s answers %d", r.path, u.URI(), res.status)
	}
	return doctor.As(a.ok, "%s: upstream %s answers %d in %s, %s", r.path, u.URI(), res.status, took(began), way)
}

func (a asks) unreached(r checkedRoute, u *proxy.Upstream, err error) doctor.Finding {
	code := a.blocked
	cause := proxy.Classify(err)
	if e, ok := errors.AsType[*proxy.Error](err); ok && e.Phase == "dial" && r.dialer.Through(u) != "" {
		cause = proxy.CauseProxy // whatever the trouble, it is with the proxy, or the proxy's
	}
	switch cause {
	case proxy.CauseDNS:
		code = a.dns
	case proxy.CauseIssuer:
		code = a.issuer
	case proxy.CauseName, proxy.CauseExpired, proxy.CauseTLS:
		code = a.tls
	case proxy.CauseProxy, proxy.CauseProxyAuth:
		code = a.proxy
	case proxy.CauseAnswer:
		code = a.answer
	}
	return doctor.As(code, "%s: upstream %v", r.path, err)
}

// checkThrough asks a route as a page does. The second result is false when the
// site itself does not answer, which is a finding elsewhere.
func (a asks) checkThrough(ctx context.Context, r checkedRoute, site *checkedSite) (doctor.Finding, bool) {
	began := time.Now()
	conn, err := site.open(ctx, "http/1.1")
	if err != nil {
		return doctor.Finding{}, false
	}
	defer conn.Close()
	res, err := a.ask(ctx, conn, site.up.HostHeader(), strings.TrimRight(r.path, "/")+"/"+r.rest+r.query, r.origin)
	switch {
	case err != nil:
		return doctor.As(a.through, "%s: no answer through turngate: %s", r.path, proxy.Classify(err)), true
	case !serves(res.status):
		return doctor.As(a.through, "%s: through turngate the answer is %d%s", r.path, res.status, meaning(res.status)), true
	case res.status == http.StatusForbidden || res.status == http.StatusTooManyRequests:
		return doctor.As(a.through, "%s: through turngate the answer is %d%s", r.path, res.status, meaning(res.status)).At(doctor.Warn), true
	case a.what == "log" && res.header.Get("Access-Control-Allow-Origin") == "":
		return doctor.As(doctor.LogCORS, "%s: the report is answered with %d, and without Access-Control-Allow-Origin", r.path, res.status), true
	case a.what == "log":
		return doctor.As(a.ok, "%s: a report through turngate is answered with %d in %s, readable for the page", r.path, res.status, took(began)), true
	}
	return doctor.As(a.ok, "%s: a handshake through turngate is answered with %d in %s", r.path, res.status, took(began)), true
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
