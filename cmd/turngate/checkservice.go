package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/admin"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/turn/offload"
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
		if f.Key == "turn.max_port" && code == doctor.ConfigWarnings && strings.Contains(f.What, "overlaps") {
			continue // a check of the host
		}
		c := doctor.As(code, "%s", f.Said())
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
		what, _, _ := strings.Cut(dialErr.Error(), ": start it")
		return []doctor.Finding{doctor.As(doctor.ServiceDown, "%s", what)}
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
	for _, route := range slices.Sorted(maps.Keys(st.Figures.Spools)) {
		spool := st.Figures.Spools[route]
		add(doctor.As(doctor.ServiceSpool, "%s: %.0f reports (%s) wait on the disk", route, spool.Reports, amount(spool.Bytes)))
	}
	if st.Bans > 0 {
		add(doctor.As(doctor.ServiceBans, "%d addresses are not answered after wrong credentials", st.Bans))
	}
	return found
}

// checkVersion compares what runs with what is installed, and this build with the
// advisories that it knows.
func checkVersion(st *Status) (found []doctor.Finding) {
	var deps []*debug.Module
	if info, ok := debug.ReadBuildInfo(); ok {
		deps = info.Deps
	}
	known := ""
	for _, a := range doctor.Known(deps, doctor.Advisories) {
		if a.Contained != "" {
			known += fmt.Sprintf("; %s is kept away: %s", a.ID, a.Contained)
			continue
		}
		found = append(found, doctor.As(doctor.VersionHole, "%s in %s: %s", a.ID, a.Module, a.About))
	}
	own := fullVersion()
	if st != nil && st.Version != own {
		return append(found, doctor.As(doctor.VersionOld, "%s runs, %s is installed", st.Version, own))
	}
	return append(found, doctor.As(doctor.VersionOK, "turngate %s (%s, %s/%s)%s", own, runtime.Version(), runtime.GOOS, runtime.GOARCH, known))
}

// checkKernelPath is about the kernel packet path of the running turngate.
func checkKernelPath(cfg *config.Config, st *Status) []doctor.Finding {
	switch wanted := cfg.TURN.Offload; {
	case st == nil:
		return []doctor.Finding{doctor.As(doctor.KernelPathOff, "whether the kernel packet path is in use cannot be told")}
	case st.Offload.Mode != offload.Off:
		return []doctor.Finding{doctor.As(doctor.KernelPathOK, "the kernel packet path is %s", offloadLine(st.Offload))}
	case wanted == "native" || wanted == "generic":
		return []doctor.Finding{doctor.As(doctor.KernelPathFailed, "turn.offload is %q, and the kernel packet path is not in use: %s", wanted, st.Offload.Why)}
	default:
		return []doctor.Finding{doctor.As(doctor.KernelPathOff, "the kernel packet path is not in use: %s", st.Offload.Why)}
	}
}

// newExplainCommand tells about codes.
func newExplainCommand(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "explain [CODE]",
		Short: "Explain a code of \"turngate check\": what it means, what to do, who has to",
		Args:  usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) (codes []string, _ cobra.ShellCompDirective) {
			if len(args) == 0 {
				for _, t := range doctor.Topics() {
					codes = append(codes, fmt.Sprintf("%s\t%s", t.Code, t.Title))
				}
			}
			return codes, cobra.ShellCompDirectiveNoFileComp
		},
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
