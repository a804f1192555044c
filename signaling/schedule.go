package signaling

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/signaling/entry"
)

// Schedule configures the two TRTC modes in which the SDK asks the scheduler.
//
// With scheduleProxy 'HOST/schedule' the SDK posts to Path + "api/v1/config". The
// answer is rewritten so that the signaling domains become "HOST/schedule/<domain>",
// which is served here, log reports go to LoggerPath, and the client receives our
// TURN servers.
//
// With unifiedProxy 'HOST/u' the SDK uses Unified for the scheduler ("api/v1/..."),
// for signaling ("v2/ws", or nothing for v4, with the wanted host as signalDomain)
// and for log reports ("v5/...").
type Schedule struct {
	Path    string // "/schedule/"; "" switches the mode off
	Unified string // "/u/"; "" switches the mode off

	// Upstreams are the schedulers for every sdkAppId. Without them the SDK's own are
	// used: Mainland or, below 1,400,000,000, International, whose nil means the
	// names in the SDK.
	Upstreams     []string
	Mainland      []string
	International []string

	// SignalDomains are the only hosts that a client may name as its signaling host:
	// "*.rtc.qq.com" or a full name, always on port 443.
	SignalDomains []string

	// Route says how the WebSockets and requests of both modes are carried: dialer, headers,
	// timeouts, allow-lists. Path and Plain are ignored. Upstreams serve a one-parameter
	// client that names no signalDomain and whose scheduler answer we have not seen.
	Route Route

	// PublicHost is our "host[:port]" in rewritten answers; "" means the Host of the request.
	PublicHost string
	// LoggerPath is the path of the log route for clients of Path; "" leaves loggerDomain as it
	// is. Clients of Unified get Unified.
	LoggerPath string
	// Credentials returns our TURN servers with a time-limited credential for a user,
	// called once for each good answer. The user holds only [A-Za-z0-9_.@-]. nil leaves the
	// scheduler's ICE servers.
	Credentials func(user string) ([]ICEServer, error)
	// Policy is the iceTransportPolicy to announce, "relay" or "all"; "" leaves it.
	Policy string

	// Logs serves the log reports of Unified. It receives the request unchanged, so it
	// needs a route at the path Unified.
	Logs http.Handler

	// Timeout bounds the wait for one scheduler; zero means 4 s.
	Timeout time.Duration
}

// The schedulers that the SDKs ask by themselves, v5 first, then v4.
var (
	defaultMainland      = []string{"https://schedule.cloud-rtc.com", "https://schedule.cloud-rtc.net", "https://schedule.rtc.qcloud.com"}
	defaultInternational = []string{"https://schedule.rtc-web.com", "https://schedule.rtc-web.io", "https://intl-schedule.cloud-rtc.com", "https://schedule.rtc.tencentcloud.com"}
)

// DefaultSchedulers are the URLs of the schedulers that are asked when none is
// configured: for all sdkAppIds.
func DefaultSchedulers() []string { return slices.Concat(defaultMainland, defaultInternational) }

// Schedulers are the ones that are asked for an application when none is configured.
func Schedulers(sdkAppID uint64) []string {
	if proxy.International(sdkAppID) {
		return slices.Clone(defaultInternational)
	}
	return slices.Clone(defaultMainland)
}

const (
	maxScheduleRequest = 64 << 10
	maxSubRequest      = 256 << 10
	maxScheduleAnswer  = 1 << 20
	scheduleReadTime   = 10 * time.Second
	scheduleWriteTime  = 30 * time.Second
)

// scheduler serves one of the two paths.
type scheduler struct {
	path          string // no final slash
	unified       bool
	rt            *route
	mainland      *proxy.Pool
	international *proxy.Pool
	domains       proxy.HostList
	client        *proxy.Client
	opt           *Schedule
}

func (s *Server) addSchedule(t *entry.Table, o *Schedule) error {
	if o.Path == "" && o.Unified == "" {
		return errors.New("schedule: neither path nor unified is set")
	}
	if o.PublicHost != "" && !proxy.ValidHost(o.PublicHost) {
		return fmt.Errorf("schedule: public host %q: want host[:port]", o.PublicHost)
	}
	opt := *o
	if opt.Timeout == 0 {
		opt.Timeout = 4 * time.Second
	}
	mainland, international := opt.Mainland, opt.International
	if mainland == nil {
		mainland = defaultMainland
	}
	if international == nil {
		international = defaultInternational
	}
	if opt.Upstreams != nil {
		mainland, international = opt.Upstreams, opt.Upstreams
	}
	base := scheduler{opt: &opt}
	var err error
	if base.mainland, err = proxy.NewPool(mainland); err != nil {
		return fmt.Errorf("schedule: %w", err)
	}
	if base.international, err = proxy.NewPool(international); err != nil {
		return fmt.Errorf("schedule: %w", err)
	}
	if base.domains, err = proxy.ParseHostList(opt.SignalDomains); err != nil {
		return fmt.Errorf("schedule: %w", err)
	}
	for _, path := range []string{opt.Path, opt.Unified} {
		if path == "" {
			continue
		}
		h := base
		h.path, h.unified = strings.TrimRight(path, "/"), path == opt.Unified
		route := opt.Route
		route.Path = path
		if h.rt, err = newRoute(&route); err == nil {
			err = t.AddHidden(h.rt.Gate, func(w http.ResponseWriter, r *http.Request, at entry.Target) { h.serve(s, w, r, at) })
		}
		if err != nil {
			return fmt.Errorf("schedule %s: %w", path, err)
		}
		h.client = proxy.NewClient(h.rt.Dialer)
		t.Closed = append(t.Closed, h.client.CloseIdle)
	}
	return nil
}

func (h *scheduler) serve(s *Server, w http.ResponseWriter, r *http.Request, at entry.Target) {
	sub := "/" + strings.TrimLeft(at.Rest, "/")
	first, behind, _ := strings.Cut(sub[1:], "/")
	if behind != "" || strings.HasSuffix(sub, "/") && first != "" {
		behind = "/" + behind
	}
	switch {
	case entry.AsksUpgrade(r) && (first == "api" || first == "v5"): // requests and reports; a tunnel is neither
		s.Refuse(w, r, h.path, entry.Refusal{Status: http.StatusBadRequest, Result: "upgrade", Text: "this path does not upgrade"})
	case strings.Contains(first, "."): // "<domain>/v2/ws" and "<domain>/v4/sub"
		at.Rest = behind
		h.signal(s, w, r, first, at)
	case strings.HasPrefix(sub, "/api/"):
		h.schedule(s, w, r, sub, at.Query)
	case h.unified && strings.HasPrefix(sub, "/v5/") && h.opt.Logs != nil:
		h.opt.Logs.ServeHTTP(w, r)
	case h.unified && (entry.AsksUpgrade(r) || strings.HasPrefix(sub, "/v2/") || strings.HasPrefix(sub, "/v4/") || sub == "/"):
		h.signal(s, w, r, "", at)
	default:
		s.Refuse(w, r, h.path, entry.Refusal{Status: http.StatusNotFound, Result: "not_found", Text: "not found"})
	}
}

// signal serves a request for a signaling host: a WebSocket, or the quick start's POST to
// /v4/sub. domain is "" when the path does not name the host.
func (h *scheduler) signal(s *Server, w http.ResponseWriter, r *http.Request, domain string, at entry.Target) {
	if !entry.AsksUpgrade(r) && !strings.HasPrefix("/"+strings.TrimLeft(at.Rest, "/"), "/v4/") {
		s.Refuse(w, r, h.path, *entry.CheckHandshake(r))
		return
	}
	ups, ok := h.signalHosts(s, domain, at.Query)
	if !ok {
		s.Refuse(w, r, h.path, entry.Refusal{Status: http.StatusForbidden, Result: "forbidden_domain", Text: "this signaling domain is not served here"})
		return
	}
	if entry.AsksUpgrade(r) {
		s.connect(h.rt, w, r, proxy.Listed(ups), at)
		return
	}
	h.sub(s, w, r, ups, at.Rest, at.Query)
}

// signalHosts returns the hosts to dial, in order: the one the path or the query
// names, if the allow-list has it; for a client that names none, those of the last
// scheduler answer for its sdkAppId, or the configured ones.
func (h *scheduler) signalHosts(s *Server, domain, query string) ([]*proxy.Upstream, bool) {
	if domain == "" && h.unified {
		value, n := proxy.QueryValue(query, "signalDomain")
		if n > 1 || n == 1 && value == "" {
			return nil, false
		}
		domain = value
	}
	if domain == "" {
		id, _ := proxy.AppID(query)
		var ups []*proxy.Upstream
		for _, d := range s.hints.get(id) {
			if host, ok := h.domains.Host(d); ok { // the list may have changed since
				if u, err := proxy.ParseUpstream("https://" + host); err == nil {
					ups = append(ups, u)
				}
			}
		}
		if ups == nil && h.rt.Pool != nil {
			ups = h.rt.Pool.Candidates()
		}
		return ups, ups != nil
	}
	host, ok := h.domains.Host(domain)
	if !ok {
		return nil, false
	}
	u, err := proxy.ParseUpstream("https://" + host)
	return []*proxy.Upstream{u}, err == nil
}

// schedule forwards a request to the scheduler and rewrites its answer.
func (h *scheduler) schedule(s *Server, w http.ResponseWriter, r *http.Request, sub, query string) {
	body, ok := h.accept(s, w, r, maxScheduleRequest)
	if !ok {
		return
	}
	form, ok := readForm(r, query, body)
	if !ok {
		s.deny(w, r, http.StatusBadRequest, "bad_form", "the form is not understood")
		return
	}
	if !h.rt.AppIDs.Allow(form.appID, form.appIDok) {
		s.deny(w, r, http.StatusForbidden, "forbidden_app", "this sdkAppId is not served here")
		return
	}
	pool := h.mainland
	if proxy.International(form.appID) {
		pool = h.international
	}
	resp, answer, err := h.ask(s, r, pool, pool.Candidates(), sub, query, body)
	if err != nil {
		s.noAnswer(w, r, err)
		return
	}
	result := "passed"
	if resp.StatusCode == http.StatusOK && r.Method != http.MethodHead && r.Method != http.MethodOptions {
		if plain, ok := decoded(resp, answer); ok {
			rw := h.rewriteFor(s, r, sub, form.user)
			out, domains, changed := rw.apply(plain)
			h.remember(s, form.appID, domains)
			if changed {
				answer, result = out, "rewritten"
				for _, name := range []string{"Content-Encoding", "Content-Md5", "Digest", "Repr-Digest", "Etag", "Last-Modified"} {
					resp.Header.Del(name)
				}
				resp.Header.Set("Cache-Control", "no-store") // it holds a credential
			}
		}
	}
	s.metrics.schedules.WithLabelValues(result).Inc()
	h.answer(w, resp, answer)
}

// sub forwards the POST of the SDK's quick start to a signaling host.
func (h *scheduler) sub(s *Server, w http.ResponseWriter, r *http.Request, ups []*proxy.Upstream, rest, query string) {
	body, ok := h.accept(s, w, r, maxSubRequest)
	if !ok {
		return
	}
	if id, ok := proxy.AppID(query); !h.rt.AppIDs.Allow(id, ok) {
		s.deny(w, r, http.StatusForbidden, "forbidden_app", "this sdkAppId is not served here")
		return
	}
	resp, answer, err := h.ask(s, r, nil, ups, rest, query, body)
	if err != nil {
		s.noAnswer(w, r, err)
		return
	}
	s.metrics.schedules.WithLabelValues("sub").Inc()
	h.answer(w, resp, answer)
}

// accept checks method, origin and size of a request and reads its body.
func (h *scheduler) accept(s *Server, w http.ResponseWriter, r *http.Request, limit int64) (body []byte, ok bool) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions:
	default:
		w.Header().Set("Allow", "GET, HEAD, POST, OPTIONS")
		s.deny(w, r, http.StatusMethodNotAllowed, "bad_method", "method not allowed")
		return nil, false
	}
	if !h.rt.Origins.Allow(r.Header["Origin"]) {
		s.deny(w, r, http.StatusForbidden, "forbidden_origin", "this Origin is not served here")
		return nil, false
	}
	if r.ContentLength > limit {
		s.deny(w, r, http.StatusRequestEntityTooLarge, "too_big", "the request is too big")
		return nil, false
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(scheduleReadTime))
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		s.deny(w, r, http.StatusRequestTimeout, "bad_body", "the request's body did not arrive")
		return nil, false
	}
	_ = rc.SetReadDeadline(time.Time{})
	if int64(len(body)) > limit {
		s.deny(w, r, http.StatusRequestEntityTooLarge, "too_big", "the request is too big")
		return nil, false
	}
	return body, true
}

// ask sends a request to the upstreams in order until one gives an answer below 500, and
// returns the answer with its body read. If all fail it is the last 5xx, or the error.
func (h *scheduler) ask(s *Server, r *http.Request, pool *proxy.Pool, ups []*proxy.Upstream, rest, query string, body []byte) (*http.Response, []byte, error) {
	header := h.rt.Headers.Request(r)
	header.Set("Accept-Encoding", "identity")
	var bad *http.Response
	var badBody []byte
	var last error = errors.New("no upstream")
	for _, u := range ups {
		resp, answer, err := h.askOne(r, u, u.Target(rest, query), header, body)
		if err == nil && resp.StatusCode < 500 {
			if pool != nil && pool.Worked(u) {
				s.log.Info("upstream up", "route", h.path, "upstream", u.Name)
			}
			return resp, answer, nil
		}
		if err == nil {
			bad, badBody = resp, answer
			err = &proxy.Error{Upstream: u.Name, Phase: "answer", Cause: proxy.CauseAnswer, Err: fmt.Errorf("status %d", resp.StatusCode)}
		}
		last = err
		cause := proxy.Classify(err)
		s.AttemptFailed(h.path, cause)
		if pool != nil && pool.Failed(u, err) {
			s.log.Warn("upstream down", "route", h.path, "upstream", u.Name, "cause", cause, "err", err)
		}
		if r.Context().Err() != nil {
			break
		}
	}
	if bad != nil {
		return bad, badBody, nil
	}
	return nil, nil, last
}

func (h *scheduler) askOne(r *http.Request, u *proxy.Upstream, target string, header http.Header, body []byte) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(r.Context(), h.opt.Timeout)
	defer cancel()
	req := (&http.Request{
		Method: r.Method, URL: u.URL(target), Host: u.HostHeader(), Header: header.Clone(),
		ContentLength: int64(len(body)), Body: http.NoBody,
	}).WithContext(ctx)
	if len(body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
	trace := proxy.TraceOf(r.Context())
	trace.Try(u.Name)
	resp, err := h.client.RoundTrip(u, req, trace.Phase)
	if err != nil {
		return nil, nil, upstreamError(u, "request", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxScheduleAnswer+1))
	switch {
	case err != nil:
		return nil, nil, upstreamError(u, "answer", err)
	case len(answer) > maxScheduleAnswer:
		return nil, nil, &proxy.Error{Upstream: u.Name, Phase: "answer", Cause: proxy.CauseAnswer, Err: errors.New("the answer is too big")}
	case resp.StatusCode < 200:
		return nil, nil, &proxy.Error{Upstream: u.Name, Phase: "answer", Cause: proxy.CauseAnswer, Err: fmt.Errorf("status %d", resp.StatusCode)}
	}
	return resp, answer, nil
}

func upstreamError(u *proxy.Upstream, phase string, err error) error {
	var own *proxy.Error
	if errors.As(err, &own) {
		return own
	}
	return &proxy.Error{Upstream: u.Name, Phase: phase, Cause: proxy.Classify(err), Err: err}
}

// answer writes an upstream's answer to the client.
func (h *scheduler) answer(w http.ResponseWriter, resp *http.Response, body []byte) {
	dst := w.Header()
	h.rt.Headers.Response(dst, resp.Header)
	dst.Del("Content-Length") // the server writes the length of what we send
	if resp.StatusCode >= 500 || proxy.Redirects(resp.StatusCode) {
		proxy.DropCORS(dst)
	}
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(scheduleWriteTime))
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(body)
	_ = rc.SetWriteDeadline(time.Time{})
}

// deny answers with an error of our own: without Access-Control-Allow-Origin, so that
// the SDK takes it for the failure it is.
func (s *Server) deny(w http.ResponseWriter, r *http.Request, status int, result, text string) {
	s.metrics.schedules.WithLabelValues(result).Inc()
	proxy.TraceOf(r.Context()).End(result)
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if r.ProtoMajor == 1 && status != http.StatusBadGateway && status != http.StatusGatewayTimeout {
		h.Set("Connection", "close")
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, text+"\n")
	}
}

func (s *Server) noAnswer(w http.ResponseWriter, r *http.Request, err error) {
	cause := proxy.Classify(err)
	if cause == proxy.CauseTimeout {
		s.deny(w, r, http.StatusGatewayTimeout, "upstream_timeout", "the upstream did not answer in time")
		return
	}
	s.deny(w, r, http.StatusBadGateway, "upstream_"+string(cause), "the upstream cannot be reached")
}

// rewriteFor says what the answer shall say for this request.
func (h *scheduler) rewriteFor(s *Server, r *http.Request, sub, user string) *rewrite {
	rw := &rewrite{policy: h.opt.Policy, insert: sub == "/api/v1/config"}
	host := h.opt.PublicHost
	if host == "" && proxy.ValidHost(r.Host) {
		host = r.Host
	}
	switch {
	case host == "":
	case h.unified: // the SDK keeps to the proxy by itself and names the domain in signalDomain
		rw.loggerDomain = "https://" + host + h.path
	default:
		rw.domainPrefix = host + h.path + "/"
		if h.opt.LoggerPath != "" {
			rw.loggerDomain = "https://" + host + strings.TrimRight(h.opt.LoggerPath, "/")
		}
	}
	if h.opt.Credentials != nil && rw.insert {
		servers, err := h.opt.Credentials(cleanUser(user))
		if err != nil {
			s.log.Error("credential for a client", "route", h.path, "err", err)
			servers = nil
		}
		rw.iceServers = servers
	}
	return rw
}

// remember keeps the domains of an answer for clients that will not name one, and says once
// which of them the allow-list lacks.
func (h *scheduler) remember(s *Server, appID uint64, domains []string) {
	var known []string
	for _, d := range domains[:min(len(domains), 4)] {
		name, _, _ := strings.Cut(d, "/")
		if host, ok := h.domains.Host(name); ok {
			known = append(known, host)
		} else if len(name) < 256 && s.hints.firstRefusal(name) {
			s.log.Warn("scheduler names a domain outside signal_domains: add it if it is the vendor's", "route", h.path, "domain", name)
		}
	}
	if known != nil && appID != 0 {
		s.hints.put(appID, known)
	}
}

// decoded returns the body of an answer without the compression that was not asked for.
func decoded(resp *http.Response, body []byte) ([]byte, bool) {
	switch ce := resp.Header.Get("Content-Encoding"); strings.ToLower(ce) {
	case "", "identity":
		return body, true
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, false
		}
		plain, err := io.ReadAll(io.LimitReader(z, maxScheduleAnswer+1))
		return plain, err == nil && len(plain) <= maxScheduleAnswer
	}
	return nil, false
}

// form is what we need of a scheduler request.
type form struct {
	appID   uint64
	appIDok bool // the sdkAppId is there at most once in each place, and everywhere the same
	user    string
}

// readForm finds sdkAppId and userId in the query and in a body that is a form or a JSON object. ok is false for a
// body that claims to be a form and is none, or does not say clearly what it is.
func readForm(r *http.Request, query string, body []byte) (f form, ok bool) {
	f.appID, f.appIDok = proxy.AppID(query)
	f.user, _ = proxy.QueryValue(query, "userId")
	_, seen := proxy.QueryValue(query, "sdkAppId")
	take := func(name, value string) {
		switch {
		case strings.EqualFold(name, "sdkAppId"):
			id, ok := proxy.ParseAppID(strings.TrimSpace(value))
			if seen++; seen > 1 && id != f.appID {
				f.appIDok = false
			} else if seen == 1 {
				f.appIDok = ok
			}
			f.appID = id
		case strings.EqualFold(name, "userId"):
			f.user = value
		}
	}
	kinds := r.Header["Content-Type"]
	if len(body) == 0 || len(kinds) == 0 {
		return f, true
	}
	mediaType, params, err := mime.ParseMediaType(kinds[0])
	if err != nil || len(kinds) > 1 { // the scheduler might read a form in it, of another application
		return f, false
	}
	switch mediaType {
	case "multipart/form-data":
		mr := multipart.NewReader(bytes.NewReader(body), params["boundary"])
		for range 64 {
			p, err := mr.NextRawPart()
			if err == io.EOF {
				return f, true
			}
			if err != nil {
				return f, false
			}
			value, err := io.ReadAll(p)
			if err != nil {
				return f, false
			}
			take(p.FormName(), string(value))
		}
		return f, false
	case "application/x-www-form-urlencoded":
		values, err := url.ParseQuery(string(body))
		if err != nil {
			return f, false
		}
		for name, list := range values {
			for _, v := range list {
				take(name, v)
			}
		}
	case "application/json":
		if o, err := parseObject(body); err == nil {
			for i, name := range o.keys {
				take(name, strings.Trim(string(o.values[i]), `"`))
			}
		}
	}
	return f, true
}

// cleanUser makes a user id fit for the user name of a credential.
func cleanUser(user string) string {
	const most = 64
	if len(user) > most {
		user = user[:most]
	}
	return strings.Map(func(c rune) rune {
		if c < 0x80 && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_.@-", c)) {
			return c
		}
		return '_'
	}, user)
}

// domainHints remembers what the scheduler said, in bounded memory.
type domainHints struct {
	mu      sync.Mutex // guards the fields below
	byApp   map[uint64][]string
	refused map[string]bool
}

const maxHints = 1024

func (d *domainHints) get(appID uint64) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.byApp[appID]
}

func (d *domainHints) put(appID uint64, domains []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byApp == nil {
		d.byApp = make(map[uint64][]string)
	}
	if _, known := d.byApp[appID]; !known && len(d.byApp) >= maxHints {
		for id := range d.byApp {
			delete(d.byApp, id)
			break
		}
	}
	if !slices.Equal(d.byApp[appID], domains) {
		d.byApp[appID] = domains
	}
}

// firstRefusal reports whether a domain is refused for the first time.
func (d *domainHints) firstRefusal(host string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused[host] || len(d.refused) >= maxHints {
		return false
	}
	if d.refused == nil {
		d.refused = make(map[string]bool)
	}
	d.refused[host] = true
	return true
}
