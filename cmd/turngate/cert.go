package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/acme"
	"github.com/turngate/turngate/internal/admin"
	"github.com/turngate/turngate/internal/edge"
	"github.com/turngate/turngate/internal/pki"
)

func newCertCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Show, request, install and make certificates",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newCertShowCommand(s),
		newCertRenewCommand(s),
		newCertCSRCommand(s),
		newCertInstallCommand(s),
		newCertCACommand(s),
		newTicketKeyCommand(s),
	)
	return cmd
}

// certReport is what "cert show" prints.
type certReport struct {
	Running      bool             `json:"running"` // of the running server, not of the files
	Source       string           `json:"source"`
	Certificates []edge.CertState `json:"certificates"`
	ACME         []acme.State     `json:"acme,omitempty"`
}

func newCertShowCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the certificates that are served, or would be",
		Long: `Shows the certificates that the running turngate serves: names, issuer, days
left, and whether the chain is complete. When none runs, those of the
configuration. Ends with exit code 1 when one has ended or cannot be loaded.`,
		Args: usageArgs(cobra.NoArgs),
	}
	r := newRemote(s, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		report, err := r.certificates(cmd)
		if err != nil {
			return err
		}
		if r.json {
			err = writeJSON(s.out, report)
		} else {
			report.write(s.out, time.Now())
		}
		for _, c := range report.Certificates {
			if err == nil && (c.Error != "" || time.Now().After(c.NotAfter)) {
				err = exitError{1}
			}
		}
		return err
	}
	return cmd
}

// certificates asks the running server, else looks at the files.
func (r *remote) certificates(cmd *cobra.Command) (certReport, error) {
	if client, err := r.dial(cmd); err == nil {
		var st Status
		err := client.Do(cmd.Context(), "GET", admin.PathStatus, nil, &st)
		return certReport{true, st.CertSource, st.Certificates, st.ACME}, err
	} else if r.socket != "" {
		return certReport{}, err
	}
	cfg, err := loadConfig(r.streams, cmd, nil)
	if err != nil {
		return certReport{}, err
	}
	mode, err := certMode(cfg)
	if err != nil {
		return certReport{}, err
	}
	// A look makes nothing: that is left to the service and its user.
	made := map[string]string{
		config.TLSCA:         pki.OwnFiles(authorityDir(cfg)).Cert,
		config.TLSSelfSigned: pki.SelfSignedFiles(cfg.StateDir).Cert,
		config.TLSACME:       pki.SelfSignedFiles(cfg.StateDir).Cert,
	}
	if path := made[mode]; path != "" {
		if _, err := os.Stat(path); err != nil {
			return certReport{Source: mode}, nil
		}
	}
	a := &app{log: slog.New(slog.DiscardHandler), acmeMetrics: acme.NewMetrics(), issued: make(chan struct{}, 1)}
	source, err := a.newCertSource(cfg, relayAddresses(cfg.ExternalIP))
	if err != nil {
		return certReport{}, err
	}
	certs, err := edge.LoadCertificates(source.pairs(), edge.CertificateOptions{Log: a.log})
	if err != nil {
		return certReport{}, err
	}
	report := certReport{Source: source.mode, Certificates: certs.State()}
	if source.acme != nil {
		report.ACME = source.acme.States()
	}
	return report, nil
}

func (c certReport) write(out io.Writer, now time.Time) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	source := "tls.mode " + c.Source
	if !c.Running {
		source += " (turngate does not run: these are the files)"
	}
	row("source", "%s", source)
	if len(c.Certificates) == 0 {
		row("certificate", "none yet: made at the next start")
	}
	for _, s := range c.Certificates {
		row("certificate", "%s", strings.Join(s.Names, " "))
		row("  issuer", "%s", s.Issuer)
		row("  key", "%s", s.Algorithm)
		row("  valid", "%s to %s, %s", s.NotBefore.Format(time.DateOnly), s.NotAfter.Format(time.DateOnly), daysLeft(s.NotAfter, now))
		row("  chain", "%s", explainChain(s.Chain))
		row("  file", "%s", s.Cert)
		for _, warning := range s.Warnings {
			row("  warning", "%s", warning)
		}
		if s.Error != "" {
			row("  error", "%s", s.Error)
		}
	}
	for _, o := range c.ACME {
		switch {
		case o.Error != "":
			row("acme "+o.Name, "failed %d times, next try at %s: %s; %s", o.Failures, o.Next.Format(time.DateTime), o.Error, o.Fix)
		case o.NotAfter.IsZero():
			row("acme "+o.Name, "not issued yet by %s", o.CA)
		case !o.Renewal.IsZero():
			row("acme "+o.Name, "will be renewed on %s", o.Renewal.Format(time.DateOnly))
		}
	}
}

func daysLeft(end, now time.Time) string {
	left := end.Sub(now)
	if left <= 0 {
		return "it has ended"
	}
	return fmt.Sprintf("%d days left", int(left.Hours()/24))
}

func explainChain(c edge.Chain) string {
	switch c {
	case edge.ChainPrivate:
		return "complete, to a private CA that clients have to trust"
	case edge.ChainSelfSigned:
		return "none: self-signed, browsers do not trust it"
	case edge.ChainIncomplete:
		return "incomplete: the issuer is neither in the file nor known to this host"
	}
	return string(c)
}

func newCertRenewCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "renew",
		Short: "Try at once what the ACME server has not issued yet, or what is due",
		Args:  usageArgs(cobra.NoArgs),
	}
	r := newRemote(s, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var names []string
		return r.ask(cmd, "POST", admin.PathRenew, nil, &names, func() {
			fmt.Fprintf(s.out, "trying %s; see: turngate cert show\n", strings.Join(names, ", "))
		})
	}
	return cmd
}

func (a *app) handleRenew(*http.Request) (any, error) {
	source := a.plan.Load().tls
	if source.acme == nil {
		return nil, &admin.Error{Status: http.StatusConflict, Message: fmt.Sprintf("tls.mode is %q: no certificate is ordered", source.mode)}
	}
	source.acme.Renew()
	var names []string
	for _, st := range source.acme.States() {
		names = append(names, st.Name)
	}
	return names, nil
}

// newReloader is the remote of a command that may reload a running turngate.
func newReloader(s streams, cmd *cobra.Command) *remote {
	r := &remote{streams: s}
	cmd.Flags().StringVar(&r.socket, "socket", "", "admin socket of the running turngate (default: that of the configuration)")
	configFlag(cmd)
	return r
}

// reloadRunning makes a running turngate serve what a command has put in
// place, and says what happened.
func (r *remote) reloadRunning(cmd *cobra.Command, cfg *config.Config, mode string) {
	if now, err := certMode(cfg); err != nil || now != mode {
		fmt.Fprintf(r.err, "Not served: tls.mode is %q. To serve it, write mode = %q in [tls] and reload.\n", cmp.Or(now, cfg.TLS.Mode), mode)
		return
	}
	client, err := r.dial(cmd)
	if err != nil {
		fmt.Fprintln(r.err, "It is served from the next start on.")
		return
	}
	var result Reload
	if err := client.Do(cmd.Context(), "POST", admin.PathReload, nil, &result); err != nil {
		fmt.Fprintf(r.err, "turngate runs but did not take it: %v\n", err)
		return
	}
	fmt.Fprintln(r.err, "It is served now; calls go on.")
}

var errProblems = errors.New("nothing was changed")
