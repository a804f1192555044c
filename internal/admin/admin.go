// Package admin is how the operator talks to a running turngate: HTTP with JSON
// over a unix socket that only its user (and, if wanted, one group) can open.
//
// The program registers what it can do with Handle; metrics and profiles come
// by themselves:
//
//	GET  /v1/status       what runs since when, listeners, certificates, counts
//	GET  /v1/sessions     live sessions; ?user= client= kind= transport= sort=
//	POST /v1/kick         ends one
//	POST /v1/reload       loads the configuration file; 422 with the findings
//	POST /v1/drain        no new work, ends when the last session has
//	GET  /v1/bans         sources that are not answered
//	POST /v1/unban        lifts one
//	POST /v1/check-link   makes a one-time link to the check page
//	GET  /v1/log          the last lines of the log
//	GET  /metrics         Prometheus
//	GET  /debug/pprof/    profiles
//
// The command line reaches it through Client. The package also tells systemd
// how the service is (systemd.go).
package admin

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The paths the command line uses.
const (
	PathStatus   = "/v1/status"
	PathSessions = "/v1/sessions"
	PathKick     = "/v1/kick"
	PathReload   = "/v1/reload"
	PathDrain    = "/v1/drain"
	PathBans     = "/v1/bans"
	PathUnban    = "/v1/unban"
	PathRenew    = "/v1/renew"
	PathCheck    = "/v1/check-link"
	PathLog      = "/v1/log"
	PathMetrics  = "/metrics"
	PathPprof    = "/debug/pprof/"
)

// Options are the options of New.
type Options struct {
	// Socket is the path of the unix socket. Its directory is made if it does
	// not exist.
	Socket string
	// Mode of the socket; 0 means 0600, or 0660 when Group is set. Whoever may
	// write to the socket may end every call.
	Mode fs.FileMode
	// Group is the name of a group that gets the socket; "" leaves it alone.
	Group string

	Gatherer prometheus.Gatherer // what /metrics shows; nil: nothing there
	Log      *slog.Logger        // nil: slog.Default
}

// Server serves the socket.
type Server struct {
	opts Options
	mux  *http.ServeMux // our own paths: nothing is proxied here
	ln   net.Listener   // nil until Listen
}

// New returns a server with /metrics and /debug/pprof/ on it.
func New(opts Options) *Server {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	s := &Server{opts: opts, mux: http.NewServeMux()}
	if opts.Gatherer != nil {
		s.Handle("GET "+PathMetrics, MetricsHandler(opts.Gatherer))
	}
	s.mux.HandleFunc(PathPprof, pprof.Index)
	s.mux.HandleFunc(PathPprof+"cmdline", pprof.Cmdline)
	s.mux.HandleFunc(PathPprof+"profile", pprof.Profile)
	s.mux.HandleFunc(PathPprof+"symbol", pprof.Symbol)
	s.mux.HandleFunc(PathPprof+"trace", pprof.Trace)
	s.mux.Handle("/", JSON(func(r *http.Request) (any, error) {
		return nil, &Error{Status: http.StatusNotFound, Message: "no such thing: " + r.Method + " " + r.URL.Path}
	}))
	return s
}

// Handle registers a handler; pattern is one of http.ServeMux ("POST /v1/kick").
// It is to be called before Serve.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Listen binds the socket. A socket that a dead process left is replaced; one
// that somebody serves, or a file that is no socket, is left alone and is an
// error (ErrInUse for the former).
func (s *Server) Listen() error {
	if s.ln != nil {
		return nil
	}
	ln, err := listenUnix(s.opts)
	if err != nil {
		return err
	}
	s.ln = ln
	return nil
}

// Serve serves the socket until ctx ends, then lets running requests finish for
// a moment, removes the socket and returns nil. It calls Listen if nobody has.
// A Server serves once.
func (s *Server) Serve(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	const grace = 2 * time.Second
	srv := &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
		// Handlers that wait (a drain, a profile) end with the server.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		srv.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close unbinds a socket that was bound with Listen and is not served.
func (s *Server) Close() error {
	if s.ln == nil {
		return nil
	}
	return s.ln.Close()
}
