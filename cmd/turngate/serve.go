package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/admin"
)

func newServeCommand(io streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run turngate",
		Long: `Runs turngate until SIGTERM or SIGINT, then takes no new work and serves what is
live until it ends or the drain limit; a second signal ends at once. SIGHUP
reloads the configuration file.

Without a file it starts all the same: with a self-signed certificate and a
random credential, both kept between starts.`,
		Args: usageArgs(cobra.NoArgs),
	}
	configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := serveConfig(io, configPath(cmd, nil))
		if err != nil {
			return err
		}
		return serve(cmd.Context(), io, cfg)
	}
	return cmd
}

// serveConfig loads the configuration to run with, and prints all that is to
// be said about it.
func serveConfig(io streams, path string) (*config.Config, error) {
	if path == "" {
		return fileless()
	}
	cfg, findings := loadWithFiles(path)
	for _, f := range findings {
		fmt.Fprintln(io.err, f)
	}
	if findings.HasErrors() {
		return nil, exitError{1}
	}
	return cfg, nil
}

// serve runs turngate until a signal or the command drain ends it.
func serve(ctx context.Context, io streams, cfg *config.Config) error {
	if ctx == nil {
		ctx = context.Background()
	}
	level := new(slog.LevelVar)
	log := newLog(io.err, cfg.Log, level)
	adoptLibraries(log)
	a, err := newApp(cfg, log, level)
	if err != nil {
		return err
	}
	if err := a.admin.Listen(); err != nil {
		a.close()
		if errors.Is(err, admin.ErrInUse) {
			return fmt.Errorf("%w; stop it first, or give this one another admin.socket", err)
		}
		return fmt.Errorf("admin socket: %w", err)
	}
	fmt.Fprint(io.out, a.banner())

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt, syscall.SIGHUP)
	defer signal.Stop(signals)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	now := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- a.serve(ctx, now) }()
	stopping := false
	for {
		select {
		case err := <-done:
			return err
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				_, _ = a.reload() // logged, and kept for status and metrics
			case !stopping:
				stopping = true
				stop()
			default:
				log.Warn("ended by a second signal")
				close(now)
				signal.Stop(signals)
			}
		}
	}
}

// close gives back what newApp opened, for an app that is not served.
func (a *app) close() {
	for _, d := range a.doors {
		d.Close()
	}
	a.closeSides()
	a.turn.Close()
	a.signaling.Close()
	a.inspect.Close()
}

// banner is what an operator sees at the start: what runs where, what to paste
// into the page, and what to do next.
func (a *app) banner() string {
	p := a.plan.Load()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("turngate", "%s", fullVersion())
	if file := p.cfg.File(); file != "" {
		row("file", "%s", file)
	} else {
		row("file", "none: self-signed certificate and random credential, kept in %s", p.cfg.StateDir)
	}
	row("layout", "%s", p.cfg.Layout)
	for _, l := range a.status().Listeners {
		row("listens", "%s", l)
	}
	for _, r := range p.addresses {
		if r.Local.IsUnspecified() || r.Local == r.External {
			row("relay", "%v, ports %d-%d/udp", r.External, p.cfg.TURN.MinPort, p.cfg.TURN.MaxPort)
		} else {
			row("relay", "%v (here %v), ports %d-%d/udp", r.External, r.Local, p.cfg.TURN.MinPort, p.cfg.TURN.MaxPort)
		}
	}
	for _, c := range a.certs.State() {
		kind := "issued by " + c.Issuer
		if c.SelfSigned {
			kind = "self-signed: browsers do not trust it until told to"
		}
		row("certificate", "%s, until %s, %s", strings.Join(c.Names, " "), c.NotAfter.Format(time.DateOnly), kind)
	}
	if through := p.cfg.Upstream.ProxyHost(); through != "" {
		row("upstreams", "through the proxy %s", through)
	}
	row("admin", "%s", p.cfg.Admin.Socket)
	w.Flush()
	if p.cfg.File() == "" {
		b.WriteString("\n" + a.firstSteps(p))
	}
	return b.String()
}

// firstSteps shows the client snippet of a start without a file, and how to
// make what runs permanent.
func (a *app) firstSteps(p *plan) string {
	site, err := newSite(p.cfg, "")
	if err != nil {
		return ""
	}
	snippet, err := trtcSnippet(site, clientOptions{}, time.Now())
	if err != nil {
		return ""
	}
	return "For the TRTC page (see also: turngate client plain, turngate client trtc --unified):\n\n" + snippet +
		"\nTo see from a browser whether everything works: turngate check-link\n" +
		"To make it permanent: turngate config init turngate.toml, edit the file, then\n" +
		"turngate serve --config turngate.toml.\n\n"
}
