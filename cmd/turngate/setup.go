package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/firewall"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/doctor/machine"
	"github.com/turngate/turngate/internal/setup"
)

// What setup reads and writes on a host.
const (
	setupDir       = "/var/lib/turngate-setup" // the journal; root's, not the service's
	packagedConfig = "/usr/share/turngate/turngate.toml"
	configDir      = "/etc/turngate"
	passwordFile   = configDir + "/turn.password"
	requestSheet   = configDir + "/firewall-request.md"
	setupCert      = configDir + "/tls/fullchain.pem"
	setupKey       = configDir + "/tls/privkey.pem"
	setupCSR       = configDir + "/tls/request.pem"
	setupCA        = configDir + "/turngate-ca.pem"
	setupACMERoot  = configDir + "/acme-root.pem"
	setupUpstream  = configDir + "/upstream-ca.pem"
	kernelFile     = "/etc/sysctl.d/61-turngate.conf"
	unitName       = "turngate.service"
	serviceUser    = "turngate"
)

// setupOptions are the flags of the command setup. Those that are exported are kept in
// the journal: what is not said another time stays as it was.
type setupOptions struct {
	Domain     string   `json:"domain,omitempty"`
	Layout     string   `json:"layout,omitempty"`
	ExternalIP []string `json:"external_ip,omitempty"`
	Cert       string   `json:"cert,omitempty"`
	Key        string   `json:"key,omitempty"`
	ACME       string   `json:"acme,omitempty"` // directory; empty: Let's Encrypt
	ACMERoot   string   `json:"acme_root,omitempty"`
	Email      string   `json:"email,omitempty"`
	OwnCA      bool     `json:"own_ca,omitempty"`
	Proxy      string   `json:"proxy,omitempty"`
	CA         string   `json:"ca,omitempty"`
	Port       uint16   `json:"port,omitempty"`
	TURNPort   uint16   `json:"turn_port,omitempty"`
	STUN       string   `json:"stun,omitempty"`
	Agreed     bool     `json:"agreed,omitempty"` // to the terms of the CA

	replace bool
	dryRun  bool
	undo    bool
	yes     bool
	given   func(flag string) bool // on the command line
}

// exitSetUp means that the host is set up, and that something does not work yet.
const exitSetUp = 3

// installer is one setup: the host, and how it is looked at. Tests put their own host
// in its place.
type installer struct {
	streams
	o       setupOptions
	host    setup.Host
	machine machine.Machine
	root    bool // who runs it may do what it takes
	look    func(ctx context.Context, domain string) (setup.Network, error)
	service setup.Service
	ask     func(question string) bool // nil: nobody is there to answer
	check   func(ctx context.Context) (doctor.Report, error)
	ready   func(ctx context.Context, socket string) error
	clock   func() []doctor.Finding
}

func newSetupCommand(s streams) *cobra.Command {
	var o setupOptions
	cmd := &cobra.Command{
		Use:   "setup [DOMAIN]",
		Short: "Make this host a running turngate, or take that back",
		Long: `Finds out where this host stands and which address clients reach, writes the
configuration with a random credential, gets a certificate, opens this host's
firewall, sets what the kernel needs, starts the service, and checks every path.
It shows all that first and asks once, on a terminal.

DOMAIN is the name clients use; without one, or with an address, they use the
address.

The certificate is that of --cert and --key; else a host in front of the company
network (2-A) has Let's Encrypt issue one, and a host inside (2-B) makes a request for
the company's CA and serves, until the answer is installed, a certificate of a CA of
its own.

Every change is noted before it is made. A failure or Ctrl-C takes all of it back;
--undo does later. Run again, it changes what differs and leaves the rest. A
configuration that somebody wrote is never overwritten without --replace.

Exit code 0: set up, and the check found no failure; 3: set up, and the check found
one; 1: not set up, and nothing is changed; 2: a command line that makes no sense.`,
		Example: `  sudo turngate setup proxy.example.com
  sudo turngate setup proxy.corp.example --cert proxy.pem --key proxy.key --upstream-proxy http://10.0.0.8:3128
  sudo turngate setup --undo`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
	}
	f := cmd.Flags()
	f.StringVar(&o.Layout, "layout", "", `"external" (2-A, in front of the company network) or "intranet" (2-B, inside); default: found`)
	choices(cmd, "layout", "external", "intranet")
	f.StringSliceVar(&o.ExternalIP, "external-ip", nil, `address that clients and media servers reach, "public/private" behind NAT; one for IPv4, one for IPv6 (default: found)`)
	f.StringVar(&o.Cert, "cert", "", "certificate with its chain, PEM; it is copied")
	f.StringVar(&o.Key, "key", "", "its key, PEM; it is copied")
	f.BoolVar(&o.OwnCA, "own-ca", false, "order nothing: a request for your CA, and meanwhile a certificate of a CA of this host, as in 2-B")
	f.StringVar(&o.ACME, "acme", "", "directory URL of the ACME server that issues the certificate (default: Let's Encrypt)")
	f.StringVar(&o.ACMERoot, "acme-root", "", "PEM file that the ACME server's own certificate is verified with")
	f.StringVar(&o.Email, "email", "", "address that the ACME server may write to")
	f.StringVar(&o.Proxy, "upstream-proxy", "", "the company's proxy for signaling and logs: http://user:pass@host:3128, socks5://host:1080")
	f.StringVar(&o.CA, "upstream-ca", "", "PEM file with the CA of a firewall that opens TLS on the way out; it is copied")
	f.Uint16Var(&o.Port, "port", 443, "port for wss, https and TURN over TLS")
	f.Uint16Var(&o.TURNPort, "turn-port", 3478, "port for TURN over UDP and TCP")
	f.StringVar(&o.STUN, "stun", "", "STUN server outside, HOST:PORT, that tells the public address of a host behind NAT; nobody is asked by default")
	f.BoolVar(&o.replace, "replace", false, "write a new configuration in the place of somebody's own, which is kept beside it")
	f.BoolVar(&o.dryRun, "dry-run", false, "only show what would be done")
	f.BoolVar(&o.undo, "undo", false, "put back everything as it was before setup")
	f.BoolVarP(&o.yes, "yes", "y", false, "ask nothing; agrees to the terms of the ACME server")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		o.given = cmd.Flags().Changed
		if err := o.arguments(args); err != nil {
			return usageError{err}
		}
		in, err := newInstaller(s, o)
		if err != nil {
			return err
		}
		if o.undo {
			return in.takeBack(ctx)
		}
		return in.run(ctx)
	}
	return cmd
}

// nameLike tells a name from what else is pasted in its place; the configuration
// is checked in full later.
func nameLike(s string) bool {
	return strings.Contains(s, ".") && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("/:?#@*_'\"\\[]%", r)
	})
}

// hostIn is the host of a URL, or of HOST:PORT.
func hostIn(s string) string {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	if i := strings.IndexAny(s, "/?#"); i >= 0 {
		s = s[:i]
	}
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	return strings.TrimSuffix(s, ".")
}

// arguments makes sense of a command line.
func (o *setupOptions) arguments(args []string) error {
	if o.undo {
		if len(args) > 0 {
			return errors.New("--undo takes no DOMAIN")
		}
		return nil
	}
	if len(args) > 0 {
		if args[0] == "" {
			return errors.New("DOMAIN is empty; leave it out if clients use the address")
		}
		o.Domain = strings.ToLower(strings.TrimSuffix(args[0], "."))
	}
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(o.Domain, "["), "]")); err == nil {
		if addr.Zone() != "" {
			return fmt.Errorf("%q counts on one link of this host only; name an address that clients reach", addr)
		}
		if len(o.ExternalIP) > 0 {
			return fmt.Errorf("%s is an address, and --external-ip names one too: say one of them", addr)
		}
		o.Domain, o.ExternalIP = "", []string{addr.String()}
	}
	if o.Domain != "" && !nameLike(o.Domain) {
		if host := hostIn(o.Domain); host != o.Domain && nameLike(host) {
			return fmt.Errorf("%q is not a name like proxy.example.com; write %s, and a port with --port", o.Domain, host)
		}
		if strings.ContainsFunc(o.Domain, func(r rune) bool { return r > 0x7f }) {
			return fmt.Errorf("%q is not a name like proxy.example.com; write xn--... for it, as DNS has it", o.Domain)
		}
		return fmt.Errorf("%q is not a name like proxy.example.com", o.Domain)
	}
	layout, known := map[string]string{"": "", "external": config.External, "2-a": config.External, "a": config.External,
		"intranet": config.Intranet, "2-b": config.Intranet, "b": config.Intranet}[strings.ToLower(o.Layout)]
	switch {
	case !known:
		return fmt.Errorf("--layout %q is neither external (2-A) nor intranet (2-B)", o.Layout)
	case (o.Cert == "") != (o.Key == ""):
		return errors.New("--cert and --key belong together")
	case o.Cert != "" && (o.OwnCA || o.ACME != ""):
		return errors.New("--cert says where the certificate comes from: --own-ca and --acme do so too")
	case o.OwnCA && o.ACME != "":
		return errors.New("--own-ca orders nothing, --acme does: say one of them")
	case o.ACME != "" && o.Domain == "":
		return errors.New("--acme orders a certificate for DOMAIN: name it")
	case o.Port == 0 || o.TURNPort == 0:
		return errors.New("a port is from 1 to 65535")
	case o.Port == o.TURNPort:
		return fmt.Errorf("--port and --turn-port are both %d: TURN is served on the first anyway", o.Port)
	}
	o.Layout = layout
	return nil
}

func newInstaller(s streams, o setupOptions) (*installer, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	sys := firewall.Host()
	in := &installer{
		streams: s, o: o,
		host:    setup.Host{Run: sys.Run, Has: sys.Has, Account: account},
		machine: machine.This(),
		root:    os.Geteuid() == 0,
		ready:   answers,
		clock:   checkClock,
	}
	in.look = in.lookAround
	in.check = in.checkAll
	if in.host.HasSystemd() {
		in.service = setup.Systemd{Host: in.host, Unit: unitName}
	} else {
		in.service = setup.Background{
			Host: in.host, Name: serviceUser, Binary: exe, Args: []string{"serve", "--config", defaultConfig},
			Ready: func(ctx context.Context) error { return in.ready(ctx, config.Default().Admin.Socket) },
			Drain: func(ctx context.Context) error { return endCalls(ctx, config.Default().Admin.Socket, time.Minute) },
		}
	}
	if file, ok := s.in.(*os.File); ok && term.IsTerminal(int(file.Fd())) && !o.yes {
		in.ask = func(question string) bool { return askYes(s.in, s.out, question) }
	}
	return in, nil
}

// account finds a user and the group of the same name.
func account(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, 0, err
	}
	uid, err = strconv.Atoi(u.Uid)
	if err == nil {
		gid, err = strconv.Atoi(g.Gid)
	}
	return uid, gid, err
}

// askYes asks one question; an empty answer is yes.
func askYes(in io.Reader, out io.Writer, question string) bool {
	fmt.Fprintf(out, "\n%s [Y/n]: ", question)
	lines := bufio.NewScanner(in)
	if !lines.Scan() {
		fmt.Fprintln(out)
		return false
	}
	switch strings.ToLower(strings.TrimSpace(lines.Text())) {
	case "", "y", "yes":
		return true
	}
	return false
}

// report prints findings, and returns the end of the command if one is a failure.
func (in *installer) report(found ...doctor.Finding) error {
	for _, f := range found {
		fmt.Fprintln(in.err, f)
	}
	if doctor.Worst(found) == doctor.Fail {
		return exitError{1}
	}
	return nil
}

// run finds out, shows, asks, does, and checks.
func (in *installer) run(ctx context.Context) error {
	if !in.root && !in.o.dryRun {
		return in.report(doctor.As(doctor.SetupNotRoot, "only root can set up a host"))
	}
	var journal *setup.Journal
	if in.root {
		var err error
		if journal, err = in.openJournal(); err != nil {
			return in.report(journalFinding(err))
		}
		defer journal.Close()
	}
	if journal != nil && journal.Unfinished() && !in.o.dryRun {
		fmt.Fprintln(in.out, "A setup before this one was cut short: what it had changed is put back first.")
		if err := journal.RollBack(ctx); err != nil {
			return in.report(doctor.As(doctor.SetupStep, "putting back: %v", err))
		}
	}
	p, err := in.plan(ctx, journal)
	if err != nil && ctx.Err() != nil {
		return in.report(doctor.As(doctor.SetupStep, "interrupted, and nothing was changed").Do("run setup again when you like"))
	}
	if err != nil {
		return err
	}
	p.write(in.out)
	if err := in.report(p.found...); err != nil {
		fmt.Fprintln(in.err, "turngate: nothing was changed")
		return err
	}
	if in.o.dryRun {
		fmt.Fprintln(in.out, "\nNothing was changed (--dry-run).")
		return nil
	}
	if in.ask != nil && p.changes() && !in.ask(p.question()) {
		fmt.Fprintln(in.err, "turngate: nothing was changed")
		return exitError{1}
	}
	if err := in.install(ctx, journal, p); err != nil {
		return err
	}
	return in.finish(ctx, p)
}
