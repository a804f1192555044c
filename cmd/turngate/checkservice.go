package main

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/admin"
	"github.com/turngate/turngate/internal/doctor"
)

// checkConfiguration turns what the loader found into findings of the check.
func checkConfiguration(file string, cfg *config.Config, findings config.Findings) (found []doctor.Finding) {
	for _, f := range findings {
		code := doctor.ConfigWarnings
		if f.Severity == config.Error {
			code = doctor.ConfigErrors
		}
		if strings.HasPrefix(f.Key, "turn.user") && strings.Contains(f.Key, "password") && code == doctor.ConfigWarnings {
			continue // below
		}
		c := doctor.As(code, "%s:%d: %s: %s", f.File, f.Line, f.Key, f.What)
		if f.Fix != "" {
			c = c.Do("%s", f.Fix)
		}
		found = append(found, c)
	}
	if cfg != nil {
		for _, u := range cfg.TURN.User {
			for _, p := range u.All() {
				if config.WeakPassword(u.Name, p.Reveal()) {
					found = append(found, doctor.As(doctor.CredentialWeak, "the password of the TURN user %q is one that is tried first", u.Name))
				}
			}
		}
	}
	if len(found) == 0 {
		if file == "" {
			file = "no configuration file: defaults"
		}
		found = append(found, doctor.As(doctor.CredentialOK, "%s: no error, no weak password", file))
	}
	return found
}

// checkService is about the running turngate; dialErr is why it could not be asked.
func checkService(st *Status, dialErr error, now time.Time) []doctor.Finding {
	switch {
	case errors.Is(dialErr, admin.ErrNotRunning):
		return []doctor.Finding{doctor.As(doctor.ServiceDown, "%v", dialErr).Do("systemctl start turngate; journalctl -u turngate says why it ended")}
	case errors.Is(dialErr, fs.ErrPermission):
		return []doctor.Finding{doctor.As(doctor.ServiceLocked, "%v", dialErr)}
	case dialErr != nil:
		return []doctor.Finding{doctor.As(doctor.ServiceDown, "%v", dialErr)}
	}
	found := []doctor.Finding{doctor.As(doctor.ServiceOK, "turngate runs as process %d since %s", st.PID, st.Started.Local().Format(time.DateTime))}
	add := func(f doctor.Finding) { found = append(found, f) }
	if st.LastReload.Error != "" {
		add(doctor.As(doctor.ServiceReload, "the reload at %s was refused: %.200s", st.LastReload.At.Local().Format(time.DateTime), st.LastReload.Error))
	}
	if st.Draining {
		add(doctor.As(doctor.ServiceDraining, "turngate is draining"))
	}
	for _, u := range st.Upstreams {
		if u.State == "down" {
			add(doctor.As(doctor.ServiceUpstream, "%s: upstream %s is out since %s: %s", u.Route, u.Upstream, u.Since.Local().Format(time.DateTime), u.Cause))
		}
	}
	for _, c := range st.Certificates {
		if c.Error != "" {
			f := doctor.As(doctor.CertFiles, "%s: %s", c.Cert, c.Error)
			add(f)
		}
	}
	for _, o := range st.ACME {
		if o.Error != "" {
			f := doctor.As(doctor.ServiceRenewal, "%s: %s", o.Name, o.Error)
			if o.Fix != "" {
				f = f.Do("%s", o.Fix)
			}
			add(f)
		}
	}
	if st.Bans > 0 {
		add(doctor.As(doctor.ServiceBans, "%d addresses are not answered after wrong credentials", st.Bans))
	}
	return found
}

func checkVersion(st *Status) []doctor.Finding {
	own := fullVersion()
	if st != nil && st.Version != own {
		return []doctor.Finding{doctor.As(doctor.VersionOld, "%s runs, %s is installed", st.Version, own)}
	}
	return []doctor.Finding{doctor.As(doctor.VersionOK, "turngate %s (%s, %s/%s)", own, runtime.Version(), runtime.GOOS, runtime.GOARCH)}
}

// kernelPathCheck tells about the kernel packet path of a running turngate. It is nil
// as long as none is built in.
var kernelPathCheck func(*config.Config, *Status) []doctor.Finding

func checkKernelPath(cfg *config.Config, st *Status) []doctor.Finding {
	if kernelPathCheck == nil || st == nil {
		return []doctor.Finding{doctor.As(doctor.KernelPathOff, "the kernel packet path is not in use (turn.offload = %q)", cfg.TURN.Offload)}
	}
	return kernelPathCheck(cfg, st)
}

// spoolFinding is about reports that wait.
func spoolFinding(route string, reports, bytes float64) doctor.Finding {
	return doctor.As(doctor.ServiceSpool, "%s: %s reports (%s) wait on the disk", route, fmt.Sprintf("%.0f", reports), amount(bytes))
}

// explainCommand tells about codes.
func newExplainCommand(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "explain [CODE]",
		Short: "Explain a code of \"turngate check\": what it means, what to do, who has to",
		Args:  usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				for _, t := range doctor.Topics() {
					fmt.Fprintf(s.out, "%s  %-4s  %s\n", t.Code, t.Status, t.Title)
				}
				return nil
			}
			t, known := doctor.Lookup(args[0])
			if !known {
				return usageError{fmt.Errorf("there is no code %q; \"turngate explain\" lists them", args[0])}
			}
			return t.WriteTopic(s.out)
		},
	}
}
