package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/doctor/turnprobe"
	"github.com/turngate/turngate/internal/setup"
)

// installation is all that a setup will do, found out before anything is changed.
type installation struct {
	choice  setup.Choice
	cfg     *config.Config
	journal *setup.Journal // nil in a dry run
	uid     int            // of the service
	gid     int
	present []byte            // the configuration that somebody has written
	pending map[string][]byte // files that will be there, for what reads them before
	facts   []setupStep       // what was found
	steps   []setupStep
	found   []doctor.Finding // what is wrong, or will be
	orders  bool             // a certificate will be ordered
}

// setupStep is a line of the plan, and what it takes.
type setupStep struct {
	name string
	what []string
	done bool // there is nothing to do
	do   func(ctx context.Context) error
}

func (p *installation) add(s setupStep) { p.steps = append(p.steps, s) }

func (p *installation) problem(f doctor.Finding) { p.found = append(p.found, f) }

// changes reports whether there is anything to do.
func (p *installation) changes() bool {
	return slices.ContainsFunc(p.steps, func(s setupStep) bool { return !s.done })
}

func (p *installation) question() string {
	if p.orders {
		return "Set this host up like this? Yes also agrees to the terms of the CA (Let's Encrypt: https://letsencrypt.org/repository/)."
	}
	return "Set this host up like this?"
}

// write shows the plan.
func (p *installation) write(w io.Writer) {
	for _, s := range slices.Concat(p.facts, p.steps) {
		s.write(w)
	}
}

func (s setupStep) write(w io.Writer) {
	name, already := s.name, ""
	if s.done {
		already = "already: "
	}
	for _, line := range s.what {
		fmt.Fprintf(w, "%-14s %s%s\n", name, already, line)
		name, already = "", ""
	}
}

// plan finds out everything. The error is one that leaves nothing to show; what an
// administrator can mend is in the plan.
func (in *installer) plan(ctx context.Context, journal *setup.Journal) (*installation, error) {
	p := &installation{journal: journal, pending: make(map[string][]byte)}
	var err error
	if p.uid, p.gid, err = in.host.Account(serviceUser); err != nil {
		p.problem(doctor.As(doctor.SetupMissing, "this host has no user %s", serviceUser))
	} else if _, systemd := in.service.(setup.Systemd); systemd && in.host.Unit(unitName) == "" {
		p.problem(doctor.As(doctor.SetupMissing, "systemd has no %s", unitName))
	}
	for _, dir := range []string{configDir, configDir + "/tls", "/var/lib/turngate"} {
		if in.root && !in.host.Exists(dir) && len(p.found) == 0 {
			p.problem(doctor.As(doctor.SetupMissing, "there is no directory %s", dir))
		}
	}
	have, err := in.existing(p)
	if err != nil {
		return nil, err
	}
	network, err := in.look(ctx, in.o.Domain)
	if err != nil {
		return nil, err
	}
	if have == ownFile {
		if !in.ownConfiguration(p) {
			return p, nil
		}
		return p, in.rest(ctx, p, network, certificate{})
	}
	given, err := givenAddresses(in.o.ExternalIP)
	if err != nil {
		return nil, usageError{err}
	}
	if p.choice, err = network.Choose(in.o.Layout, given); err != nil {
		p.problem(doctor.As(doctor.SetupAddress, "%v", err))
		return p, nil
	}
	cert, err := in.chooseCertificate(p)
	if err != nil {
		return nil, err
	}
	if !in.configure(p, cert, have) {
		return p, nil
	}
	return p, in.rest(ctx, p, network, cert)
}

// rest is what follows from a configuration.
func (in *installer) rest(ctx context.Context, p *installation, n setup.Network, c certificate) error {
	in.name(p, n)
	for _, f := range in.clock() {
		if f.Status >= doctor.Warn {
			p.problem(f)
		}
	}
	in.ports(ctx, p)
	in.certify(p, c)
	in.kernel(p)
	if err := in.openFirewall(ctx, p); err != nil {
		return err
	}
	return in.serve(ctx, p)
}

// givenAddresses reads --external-ip.
func givenAddresses(list []string) ([]setup.Address, error) {
	var all []setup.Address
	for _, text := range list {
		var e config.ExternalIP
		if err := e.UnmarshalText([]byte(strings.TrimSpace(text))); err != nil {
			return nil, fmt.Errorf("--external-ip: %w", err)
		}
		all = append(all, setup.Address{Public: e.Public, Private: e.Private})
	}
	return all, nil
}

// lookAround reads this machine and asks DNS, and the STUN server that was named.
func (in *installer) lookAround(ctx context.Context, domain string) (setup.Network, error) {
	n, err := setup.Look(domain)
	if err != nil {
		return n, err
	}
	if domain != "" {
		ask, cancel := context.WithTimeout(ctx, siteWait)
		names, err := net.DefaultResolver.LookupNetIP(ask, "ip", domain)
		cancel()
		if err == nil {
			for _, a := range names {
				n.Names = append(n.Names, a.Unmap())
			}
		}
	}
	if in.o.STUN != "" {
		if n.Seen, err = seenBy(ctx, in.o.STUN); err != nil {
			return n, fmt.Errorf("--stun %s: %w", in.o.STUN, err)
		}
	}
	return n, nil
}

// seenBy asks a STUN server for the address that it sees.
func seenBy(ctx context.Context, server string) (netip.Addr, error) {
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(server, "3478")
	}
	ctx, cancel := context.WithTimeout(ctx, turnWait)
	defer cancel()
	c, err := turnprobe.Dial(ctx, "udp", server, nil)
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	at, err := c.Binding(ctx)
	return at.Addr().Unmap(), err
}

// name says what was found, and whether the name leads here.
func (in *installer) name(p *installation, n setup.Network) {
	titles := map[string]string{config.External: "2-A, in front of the company network", config.Intranet: "2-B, inside the company network"}
	other := map[string]string{config.External: config.Intranet, config.Intranet: config.External}[p.choice.Layout]
	lines := []string{fmt.Sprintf("%s: %s", titles[p.choice.Layout], p.choice.Why)}
	if in.o.Layout == "" && p.present == nil {
		lines = append(lines, fmt.Sprintf("if it is not: --layout %s", other))
	}
	p.facts = append(p.facts, setupStep{name: "layout", what: lines})
	var list []string
	for _, a := range p.choice.Addresses {
		list = append(list, a.String())
	}
	p.facts = append(p.facts, setupStep{name: "address", what: append([]string{strings.Join(list, ", ")}, p.choice.Notes...)})
	if in.o.Domain == "" {
		p.facts = append(p.facts, setupStep{name: "name", what: []string{"none: clients use the address"}})
		return
	}
	var ours []netip.Addr
	for _, o := range n.Own {
		ours = append(ours, o.Addr)
	}
	for _, a := range p.choice.Addresses {
		ours = append(ours, a.Public)
	}
	var names []string
	here := false
	for _, a := range n.Names {
		names = append(names, a.String())
		here = here || slices.Contains(ours, a)
	}
	what := fmt.Sprintf("%s is %s", in.o.Domain, strings.Join(names, ", "))
	switch {
	case len(names) == 0:
		what = in.o.Domain + " is not in DNS yet"
		p.problem(doctor.As(doctor.NameUnknown, "DNS knows no address of %s", in.o.Domain).At(doctor.Warn).
			Do("have an A record entered: %s to %s", in.o.Domain, p.choice.Addresses[0].Public))
	case !here:
		p.problem(doctor.As(doctor.NameElsewhere, "%s, and this host is %s", what, strings.Join(list, ", ")).
			Do("correct the A record to %s, or name the address with --external-ip", p.choice.Addresses[0].Public))
	}
	p.facts = append(p.facts, setupStep{name: "name", what: []string{what}})
}

// ports looks whether somebody else has what turngate will listen on.
func (in *installer) ports(ctx context.Context, p *installation) {
	sockets, err := in.machine.Sockets()
	if err != nil {
		p.problem(doctor.As(doctor.FirewallUnknown, "listening sockets cannot be read: %v", err))
		return
	}
	own := 0
	if st, err := askStatus(ctx, in.host.Path(p.cfg.Admin.Socket)); err == nil {
		own = st.PID
	}
	state, err := in.service.State(ctx)
	if err != nil {
		return
	}
	var list []string
	wanted := slices.SortedFunc(slices.Values(wantedPorts(p.cfg)), func(a, b wanted) int { return int(a.at.Port) - int(b.at.Port) })
	for _, w := range wanted {
		list = append(list, fmt.Sprintf("%d/%s", w.at.Port, w.network))
		i := slices.IndexFunc(sockets, w.holds)
		if i < 0 {
			continue
		}
		name, pid := in.machine.Owner(sockets[i])
		if pid != 0 && pid == own && state.Active {
			continue
		}
		p.problem(in.taken(w, name, pid))
	}
	list = slices.Compact(list)
	what := fmt.Sprintf("%s; relays %d-%d/udp", strings.Join(list, ", "), p.cfg.TURN.MinPort, p.cfg.TURN.MaxPort)
	if !slices.ContainsFunc(p.found, func(f doctor.Finding) bool { return f.Code == doctor.FirewallTaken }) {
		what += "; nobody else has them"
	}
	p.facts = append(p.facts, setupStep{name: "ports", what: []string{what}})
}

// importable are programs whose configuration can be taken over, and where it lies.
var importable = map[string][]string{
	"nginx":      {"/etc/nginx/nginx.conf"},
	"haproxy":    {"/etc/haproxy/haproxy.cfg"},
	"turnserver": {"/etc/turnserver.conf", "/etc/coturn/turnserver.conf"},
}

// taken is about a port that somebody else has.
func (in *installer) taken(w wanted, name string, pid int) doctor.Finding {
	flag := "--port 8443"
	if w.at.Port != in.o.Port {
		flag = "--turn-port 3479"
	}
	if pid == 0 {
		return doctor.As(doctor.FirewallTaken, "%s %s is held by a program that cannot be told", w.network, w.at).
			Do("stop it (ss -lnp 'sport = :%d'), or choose another port: %s", w.at.Port, flag)
	}
	unit := in.machine.Unit(pid)
	who, stop := fmt.Sprintf("process %d", pid), fmt.Sprintf("kill %d", pid)
	if unit != "" {
		who += ", " + unit
		stop = "systemctl disable --now " + strings.TrimSuffix(unit, ".service")
	}
	f := doctor.As(doctor.FirewallTaken, "%s %s is held by %s (%s)", w.network, w.at, name, who)
	for _, file := range importable[name] {
		if in.host.Exists(file) {
			return f.Do("take its configuration over: turngate config import %s --force -o %s; stop it (%s); run setup again; or choose another port: %s", file, defaultConfig, stop, flag)
		}
	}
	return f.Do("stop it (%s), or choose another port: %s", stop, flag)
}

// finish waits for what takes its time, checks, and says what comes next.
func (in *installer) finish(ctx context.Context, p *installation) error {
	if ctx.Err() != nil {
		return nil
	}
	if p.cfg.TLS.Source() == config.TLSACME {
		in.awaitCertificate(ctx, p)
	}
	report, err := in.check(ctx)
	if err != nil {
		return fmt.Errorf("set up, but the check could not be made: %w", err)
	}
	fmt.Fprintln(in.out)
	if err := report.WriteText(in.out, true); err != nil {
		return err
	}
	if report.Status <= doctor.OK {
		fmt.Fprintln(in.out, "turngate check: everything works")
	}
	in.next(ctx, p)
	if report.Status == doctor.Fail {
		return exitError{exitSetUp}
	}
	return nil
}

// checkAll is "turngate check" after a setup.
func (in *installer) checkAll(ctx context.Context) (doctor.Report, error) {
	o := checkOptions{timeout: 20 * time.Second, stun: in.o.STUN}
	if cfg, _ := config.Load(defaultConfig); cfg != nil {
		if mode, err := certMode(cfg); err == nil && mode == config.TLSCA {
			o.ca = setupCA // who trusts it is said below
		}
	}
	at := time.Now()
	subject, checks, err := o.serverChecks(ctx, defaultConfig)
	if err != nil {
		return doctor.Report{}, err
	}
	found := doctor.Run(ctx, o.timeout, checks)
	return doctor.NewReport(subject, fullVersion(), at, time.Since(at), found), nil
}

// answers waits until the turngate of a socket does.
func answers(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond) // another process: there is no event to wait for
	defer tick.Stop()
	for {
		_, err := askStatus(ctx, socket)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}
