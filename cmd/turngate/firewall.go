package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/firewall"
)

// firewallFlags are the flags that a plan has beside the configuration.
type firewallFlags struct {
	backend string
	zones   []string
	clients []string
	monitor []string
	relay   string
	notrack bool
	json    bool
}

func newFirewallCommand(s streams) *cobra.Command { return firewallCommand(s, firewall.Host()) }

// firewallCommand takes the host, so that tests know what it is.
func firewallCommand(s streams, host firewall.System) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "firewall",
		Short: "Open this host's firewall, check it, and ask others to open theirs",
		Long: `Finds out from the configuration what must pass this host's firewall (firewalld,
nftables or iptables) and those of the company, in both layouts. Whatever is put
into this host's firewall is tagged, so that it can be found and removed, and
nothing else is touched.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		firewallPlanCommand(s, host),
		firewallApplyCommand(s, host),
		firewallConfirmCommand(s, host),
		firewallRollbackCommand(s, host),
		firewallCheckCommand(s, host),
		firewallRequestCommand(s),
	)
	return cmd
}

func (f *firewallFlags) add(cmd *cobra.Command) {
	configFlag(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.backend, "backend", "", strings.Join(firewall.Backends(), ", ")+" (default: whatever filters on this host)")
	fl.StringSliceVar(&f.zones, "zone", nil, "zones of firewalld (default: those in use)")
	f.addSources(cmd)
	fl.StringVar(&f.relay, "relay", firewall.RelayAuto, `the relay range inbound: "open", "closed", or "auto": open where the firewall knows no connections`)
	choices(cmd, "backend", firewall.Backends()...)
	choices(cmd, "relay", firewall.RelayAuto, firewall.RelayOpen, firewall.RelayClosed)
	fl.BoolVar(&f.notrack, "notrack", false, "keep the relay range out of the connection table, for thousands of relays")
}

func (f *firewallFlags) addSources(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.clients, "from", nil, "prefixes that clients come from (default: anywhere)")
	cmd.Flags().StringSliceVar(&f.monitor, "monitor", nil, "prefixes that may reach the listener for metrics (default: none)")
}

// arguments are the flags as they were given, to repeat them at boot.
func (f *firewallFlags) arguments(cmd *cobra.Command) []string {
	var all []string
	if path := configPath(cmd, nil); path != "" {
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		all = append(all, "--config="+path)
	}
	for _, l := range []struct {
		name   string
		values []string
	}{{"backend", []string{f.backend}}, {"relay", []string{f.relay}}, {"zone", f.zones}, {"from", f.clients}, {"monitor", f.monitor}} {
		if !cmd.Flags().Changed(l.name) {
			continue
		}
		for _, v := range l.values {
			all = append(all, "--"+l.name+"="+v)
		}
	}
	if f.notrack {
		all = append(all, "--notrack")
	}
	return all
}

// plan makes the plan of a command line.
func (f *firewallFlags) plan(s streams, cmd *cobra.Command) (*firewall.Plan, error) {
	cfg, err := loadConfig(s, cmd, nil)
	if err != nil {
		return nil, err
	}
	o, err := firewallOptions(cfg)
	if err != nil {
		return nil, err
	}
	ownMachine(&o)
	o.Zones, o.RelayIn, o.NoTrack = f.zones, f.relay, f.notrack
	if o.Clients, err = prefixList("from", f.clients); err != nil {
		return nil, err
	}
	if o.Monitor, err = prefixList("monitor", f.monitor); err != nil {
		return nil, err
	}
	p, err := firewall.New(o)
	if err != nil {
		return nil, usageError{err}
	}
	return p, nil
}

func prefixList(flag string, list []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
		}
		if err != nil {
			return nil, usageError{fmt.Errorf("--%s %q is no prefix like 10.0.0.0/8", flag, s)}
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

// needRoot says that a firewall is shown to nobody else.
func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("only root may read and change the firewall of this host; run it with sudo")
	}
	return nil
}

func firewallPlanCommand(s streams, host firewall.System) *cobra.Command {
	var f firewallFlags
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Say what must be open, in and out, and how it would be opened here",
		Long: `Says what must be open in and out, and the commands that open this host's
firewall. Nothing is changed. Who is not root is shown the commands for a host
that drops everything, by the backend that is named.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := f.plan(s, cmd)
			if err != nil {
				return err
			}
			live, err := f.liveOrSample(cmd.Context(), s, host)
			if err != nil {
				return err
			}
			d := p.Describe(live)
			if !f.json {
				return d.Write(s.out)
			}
			return writeJSON(s.out, d)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return cmd
}

// liveOrSample reads the host, or takes a sample where it may not be read.
func (f *firewallFlags) liveOrSample(ctx context.Context, s streams, host firewall.System) (*firewall.Live, error) {
	err := needRoot()
	if err == nil {
		var live *firewall.Live
		if live, err = firewall.Read(ctx, host, f.backend); err == nil {
			return live, nil
		}
	}
	backend := f.backend
	if backend == "" {
		backend = "nftables"
	}
	sample := firewall.Sample(backend)
	if sample == nil {
		return nil, usageError{err}
	}
	fmt.Fprintf(s.err, "turngate: %v\nturngate: so this is for a host that drops everything by %s\n", err, backend)
	return sample, nil
}

func firewallCheckCommand(s streams, host firewall.System) *cobra.Command {
	var f firewallFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Compare this host's live rules with the plan",
		Long: `Compares the live rules with the plan and names each difference with its remedy.
Give it the flags that "apply" was given. Exit code 0: as planned, notes apart;
1: something differs; 2: it could not be found out.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := f.plan(s, cmd)
			if err == nil {
				err = needRoot()
			}
			var live *firewall.Live
			if err == nil {
				live, err = firewall.Read(cmd.Context(), host, f.backend)
			}
			if err != nil {
				var exit exitError
				if !errors.As(err, &exit) { // what that is about has been said
					fmt.Fprintln(s.err, "turngate:", err)
				}
				return exitError{2}
			}
			return reportDrift(s, live.Judge(p, host), live.Backends(), f.json)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return cmd
}

func reportDrift(s streams, drifts []firewall.Drift, backends []string, asJSON bool) error {
	ok := true
	for _, d := range drifts {
		ok = ok && d.Note
	}
	if asJSON {
		if err := writeJSON(s.out, struct {
			OK       bool             `json:"ok"`
			Backends []string         `json:"backends"`
			Drifts   []firewall.Drift `json:"drifts"`
		}{ok, append([]string{}, backends...), append([]firewall.Drift{}, drifts...)}); err != nil {
			return err
		}
	} else {
		for _, d := range drifts {
			kind := "DRIFT"
			if d.Note {
				kind = "note"
			}
			fmt.Fprintf(s.out, "%-5s  %-8s  %s\n", kind, d.Code, d.What)
			if d.Fix != "" {
				fmt.Fprintf(s.out, "                 -> %s\n", d.Fix)
			}
		}
		switch {
		case ok && len(backends) == 0:
			fmt.Fprintln(s.out, "ok: nothing on this host filters packets")
		case ok:
			fmt.Fprintln(s.out, "ok: the firewall of this host is as planned")
		}
	}
	if !ok {
		return exitError{1}
	}
	return nil
}

func firewallRequestCommand(s streams) *cobra.Command {
	var f firewallFlags
	var format, lang, file string
	cmd := &cobra.Command{
		Use:   "request",
		Short: "Write the sheet for those who look after the company's firewalls",
		Long: `Writes what must pass the company's firewalls: direction, source, destination,
port, protocol, reason, and what need not be opened. As Markdown, CSV, or a page
that prints well. Nothing in it is secret.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format == "" {
				format = strings.TrimPrefix(filepath.Ext(file), ".")
			}
			if format == "" {
				format = "md"
			}
			p, err := f.plan(s, cmd)
			if err != nil {
				return err
			}
			r, err := p.Request(lang)
			if err != nil {
				return usageError{err}
			}
			var text strings.Builder
			if err := r.Write(&text, format); err != nil {
				return usageError{err}
			}
			if file == "" {
				_, err := io.WriteString(s.out, text.String())
				return err
			}
			err = writeNew(file, 0o644, func(w io.Writer) error { _, err := io.WriteString(w, text.String()); return err })
			if errors.Is(err, fs.ErrExist) {
				err = os.WriteFile(file, []byte(text.String()), 0o644)
			}
			return err
		},
	}
	configFlag(cmd)
	f.addSources(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.relay, "relay", firewall.RelayAuto, `the relay range inbound: "open" asks for it too`)
	fl.StringVar(&format, "format", "", strings.Join(firewall.Formats(), ", ")+" (default: by the name of the file, else md)")
	fl.StringVar(&lang, "lang", "en", strings.Join(firewall.Languages(), " or "))
	fl.StringVarP(&file, "output", "o", "", "file to write (default: standard output)")
	choices(cmd, "relay", firewall.RelayAuto, firewall.RelayOpen)
	choices(cmd, "format", firewall.Formats()...)
	choices(cmd, "lang", firewall.Languages()...)
	return cmd
}
