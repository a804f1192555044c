package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/admin"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/signaling/entry"
	"github.com/turngate/turngate/signaling/inspect"
)

// wsProxy is the program WsProxy: one plain HTTP listener, and connections that go
// where the headers x-wsproxy-* of the proxy in front say.
type wsProxy struct {
	listen   string // host:port; empty host: every address
	poolSize int    // requests at once to one hook
	trust    []netip.Prefix
	targets  []string // empty: all but loopback of others, link-local and metadata
	ca       string
	metrics  string // listener for Prometheus; empty: none
	max      config.Size
	drain    time.Duration
	level    slog.Level
}

// closeToHome are the peers that are listened to by default: the proxy that sets
// the headers stands beside this host, and its clients do not.
var closeToHome = []string{"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"}

// wsProxyEnv reads the variables of the original.
func wsProxyEnv(getenv func(string) string) (port uint16, poolSize int, err error) {
	port, poolSize = 4000, inspect.DefaultConcurrency
	if s := getenv("WSPROXY_PORT"); s != "" {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n == 0 {
			return 0, 0, fmt.Errorf("WSPROXY_PORT is %q: want a port from 1 to 65535", s)
		}
		port = uint16(n)
	}
	if s := getenv("WSPROXY_WEBHOOK_POOL_SIZE"); s != "" {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil || n == 0 || n > maxPoolSize {
			return 0, 0, fmt.Errorf("WSPROXY_WEBHOOK_POOL_SIZE is %q: want a number from 1 to %d", s, maxPoolSize)
		}
		poolSize = int(n)
	}
	return port, poolSize, nil
}

const maxPoolSize = 100_000

func newWsProxyCommand(io streams) *cobra.Command {
	var trust []string
	max := "64MiB"
	p := &wsProxy{}
	cmd := &cobra.Command{
		Use:   "wsproxy",
		Short: "Run in the place of WsProxy: WebSockets with hooks, told by x-wsproxy-* headers",
		Long: `Takes the place of WsProxy (larshesel/ws_proxy): a plain HTTP listener whose
WebSockets go where the headers x-wsproxy-* say, with a web hook that decides
about each message. It reads the same variables:

  WSPROXY_PORT               port to listen on, all addresses (4000)
  WSPROXY_WEBHOOK_POOL_SIZE  requests to one hook at once (100)

Only the proxy in front may set the headers: peers outside --trust get 403. The
default trusts loopback and private addresses; name the proxy's own address where
clients have such addresses too. Without --target every upstream and hook may be
named but link-local and metadata addresses, and loopback only by a peer on this
host. With it, only those listed.

SIGTERM closes the WebSockets with code 1012 and ends; a second signal ends at
once. The same is there as a route of "turngate serve": preset = "wsproxy".`,
		Args: usageArgs(cobra.NoArgs),
	}
	flags := cmd.Flags()
	flags.StringVar(&p.listen, "listen", "", "address to listen on, instead of every one at WSPROXY_PORT")
	flags.StringSliceVar(&trust, "trust", closeToHome, "prefixes of the peers whose headers count")
	flags.StringSliceVar(&p.targets, "target", nil, `upstreams and hooks that may be named: "app.example.com", "*.example.com", "192.0.2.0/24:8080", "*"`)
	flags.StringVar(&p.ca, "ca", "", "file with further CA certificates (PEM) of upstreams and hooks")
	flags.StringVar(&p.metrics, "metrics", "", `listener for Prometheus, like "127.0.0.1:9641"`)
	flags.StringVar(&max, "max-frame-size", max, "the most that x-wsproxy-maxframesize may ask for, and the limit of upstreams' messages")
	flags.DurationVar(&p.drain, "drain", 10*time.Second, "how long after SIGTERM WebSockets are closed, one after the other")
	flags.TextVar(&p.level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		port, poolSize, err := wsProxyEnv(os.Getenv)
		if err != nil {
			return usageError{err}
		}
		p.poolSize = poolSize
		if p.listen == "" {
			p.listen = net.JoinHostPort("", strconv.Itoa(int(port)))
		}
		for _, s := range trust {
			prefix, err := parseSource(s)
			if err != nil {
				return usageError{fmt.Errorf("--trust: %w", err)}
			}
			p.trust = append(p.trust, prefix)
		}
		if err := inspect.ParseTargets(p.targets); err != nil {
			return usageError{fmt.Errorf("--target: %w", err)}
		}
		if err := p.max.UnmarshalText([]byte(max)); err != nil || p.max == 0 {
			return usageError{fmt.Errorf(`--max-frame-size %q: want a size like "64MiB"`, max)}
		}
		if p.drain < 0 {
			return usageError{errors.New("--drain: want zero or more")}
		}
		return p.run(cmd.Context(), io)
	}
	return cmd
}

// server makes the one route.
func (p *wsProxy) server(log *slog.Logger) (*inspect.Server, error) {
	dialer, err := proxy.NewDialer(proxy.DialOptions{CAFile: p.ca})
	if err != nil {
		return nil, err
	}
	by := &inspect.ByHeaders{Trusted: p.trust, Targets: p.targets, Concurrency: p.poolSize}
	if len(p.targets) == 0 {
		by.Targets, by.LocalTargets = []string{"*"}, true
	}
	return inspect.New(inspect.Options{Log: log, Routes: []inspect.Route{{
		Route:      entry.Route{Path: "/", Dialer: dialer, Headers: proxy.HeaderPolicy{KeepCredentials: true}},
		HookDialer: dialer,
		Settings:   inspect.Settings{MaxMessage: int64(p.max), MaxUpstreamMessage: int64(p.max)},
		ByHeaders:  by,
	}}})
}

// run serves until a signal.
func (p *wsProxy) run(ctx context.Context, io streams) error {
	if ctx == nil {
		ctx = context.Background()
	}
	log := newLog(io.err, config.Log{Level: p.level, Format: "auto"}, new(slog.LevelVar))
	adoptLibraries(log)
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", p.listen)
	if err != nil {
		return explainListen("", "tcp", p.listen, err)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	p.announce(io.out, ln.Addr())
	now := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- p.serve(ctx, now, ln, log) }()
	stopping := false
	for {
		select {
		case err := <-done:
			return err
		case <-signals:
			if stopping {
				close(now)
				signal.Stop(signals)
			}
			stopping = true
			stop()
		}
	}
}

func (p *wsProxy) announce(out io.Writer, at net.Addr) {
	targets := "all but link-local and metadata addresses, loopback for peers on this host"
	if len(p.targets) > 0 {
		targets = strings.Join(p.targets, " ")
	}
	fmt.Fprintf(out, "turngate %s wsproxy\nlistens on  %s\ntrusts      %s\ntargets     %s\n", fullVersion(), at, joinPrefixes(p.trust), targets)
}

func joinPrefixes(list []netip.Prefix) string {
	var all []string
	for _, p := range list {
		all = append(all, p.String())
	}
	if len(all) == 0 {
		return "nobody"
	}
	return strings.Join(all, " ")
}

// serve takes over the listener and returns when ctx has ended and every connection
// is closed; now ends the drain.
func (p *wsProxy) serve(ctx context.Context, now <-chan struct{}, ln net.Listener, log *slog.Logger) error {
	defer ln.Close()
	s, err := p.server(log)
	if err != nil {
		return err
	}
	defer s.Close()
	if p.metrics != "" {
		registry := admin.NewRegistry(fullVersion())
		registry.MustRegister(s.Collectors()...)
		m, err := listenMetrics(p.metrics, registry)
		if err != nil {
			return explainListen("", "tcp", p.metrics, err)
		}
		defer m.server.Close()
		go func() { _ = m.server.Serve(m) }() // ends with Close
	}
	web := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       75 * time.Second,
		MaxHeaderBytes:    64 << 10, // cookies and tokens of an application behind a proxy
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),

		DisableGeneralOptionsHandler: true,
	}
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	log.Info("draining", "sessions", s.Count(), "limit", p.drain)
	fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.drain+5*time.Second)
	defer cancel()
	go func() {
		select {
		case <-now:
			cancel()
		case <-fresh.Done():
		}
	}()
	ln.Close()
	if err := s.Drain(fresh, p.drain); err != nil {
		log.Warn("sessions were cut", "err", err)
	}
	web.Close()
	<-served
	log.Info("stopped")
	return nil
}
