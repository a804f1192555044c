package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/poller"
	"github.com/turngate/turngate/internal/proxy"
)

// newHTTP makes the one server behind every HTTPS listener.
func (a *app) newHTTP(cfg *config.Config) {
	a.http = &http.Server{
		Handler:           http.HandlerFunc(a.serveHTTP),
		BaseContext:       func(l net.Listener) context.Context { return l.(namedListener).context() },
		ReadHeaderTimeout: time.Duration(cfg.HTTPS.HeaderTimeout),
		IdleTimeout:       75 * time.Second,
		MaxHeaderBytes:    32 << 10,
		// What strangers send is not our error.
		ErrorLog:                     slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		DisableGeneralOptionsHandler: true,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: 100},
	}
}

func (a *app) serveHTTP(w http.ResponseWriter, r *http.Request) {
	poller.DeepStack() // for a handshake with an upstream
	// RFC 6797: two years, as browsers advise. It says nothing to a client
	// that does not trust the certificate.
	w.Header().Set("Strict-Transport-Security", "max-age=63072000")
	if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
		// There may have been a Content-Length too, which net/http does not tell.
		// Then what follows is not to be read as a request (RFC 9112 section 6.1).
		w.Header().Set("Connection", "close")
	}
	(*a.handler.Load()).ServeHTTP(w, r)
	if r.ProtoMajor == 2 {
		// What is left of the answer waits for the client's flow control, which
		// TCP's own time limits do not cover.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(lastBytes))
	}
	if r.ContentLength != 0 { // not of a hijacked connection: a handshake has no body
		// net/http reads the rest of a body that nobody wanted, and would wait for
		// it without end.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(unreadBody))
	}
}

// maxFields is the number of header fields of a request; a browser sends some
// twenty. MaxHeaderBytes alone would let thousands of short ones pass.
const maxFields = 200

func fieldCount(h http.Header) (n int) {
	for _, values := range h {
		n += len(values)
	}
	return n
}

// plainLength reports whether there is at most one Content-Length, of digits
// only. Over HTTP/2 net/http takes the first one, or 0 for what is no number.
func plainLength(values []string) bool {
	if len(values) == 0 {
		return true
	}
	notDigit := func(c rune) bool { return c < '0' || c > '9' }
	return len(values) == 1 && values[0] != "" && !strings.ContainsFunc(values[0], notDigit)
}

// lastBytes is the time for what net/http has buffered of an answer, some KiB.
const lastBytes = 15 * time.Second

// unreadBody is the time for the rest of a body behind an answer.
const unreadBody = 2 * time.Second

// newFront makes the front of a plan with its routes. Paths are matched on the raw
// target and never redirected; http.ServeMux does, and browsers then lose the
// report or the socket.
func (a *app) newFront(p *plan) *front {
	f := &front{
		names: newSiteNames(p.cfg), trust: proxy.Trust(p.cfg.HTTPS.TrustedProxies),
		limits: a.httpLimits, metrics: a.httpMetrics, certs: a.certs, access: p.access,
	}
	serve := func(at []string, pl place) {
		if pl.name == "" {
			pl.name = pl.path
		}
		if err := f.router.Add(at, pl.path, pl); err != nil { // the configuration was checked
			a.log.Error("route not served", "path", pl.path, "err", err)
		}
	}
	add := func(pl place) { serve(nil, pl) }
	taken := make(map[string]bool)
	route := func(at []string, path string, handler http.Handler) {
		name := proxy.RouteName(at, path)
		taken[trimSlash(name)] = true
		serve(at, place{path: path, name: name, handler: handler})
	}
	for _, r := range p.signaling.Routes {
		route(r.Listen, r.Path, a.signaling)
	}
	for _, r := range p.inspect.Routes {
		route(r.Listen, r.Path, a.inspect)
	}
	if s := p.signaling.Schedule; s != nil {
		for _, path := range []string{s.Path, s.Unified} {
			if path != "" {
				route(nil, path, a.signaling)
			}
		}
	}
	for _, r := range p.logger.Routes {
		if !taken[trimSlash(proxy.RouteName(r.Listen, r.Path))] { // else it is reached through signaling
			route(r.Listen, r.Path, a.logger)
		}
	}
	if p.ice != nil {
		add(place{path: p.ice.path, handler: http.HandlerFunc(p.ice.serve), exact: true})
	}
	if f.check = p.check; f.check != nil {
		add(place{path: f.check.path, handler: f.check})
	}
	everywhere := func(pl place) {
		add(pl)
		if own := f.router.Listeners(); len(own) > 0 {
			serve(own, pl)
		}
	}
	everywhere(place{path: "/healthz", handler: http.HandlerFunc(healthz), exact: true, anybody: true})
	everywhere(place{path: "/readyz", handler: http.HandlerFunc(a.readyz), exact: true, anybody: true})
	return f
}

func plain(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, http.StatusText(status)+"\n")
}

// healthz says that the process answers.
func healthz(w http.ResponseWriter, r *http.Request) { get(w, r, http.StatusOK) }

// readyz says whether a balancer should send new clients here.
func (a *app) readyz(w http.ResponseWriter, r *http.Request) {
	if a.draining.Load() {
		get(w, r, http.StatusServiceUnavailable)
		return
	}
	get(w, r, http.StatusOK)
}

func get(w http.ResponseWriter, r *http.Request, status int) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		status = http.StatusMethodNotAllowed
	}
	plain(w, status)
}
