package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/admin"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/doctor/machine"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/turn"
)

// checkOptions are the flags of the command check.
type checkOptions struct {
	fromClient string
	asJSON     bool
	nagios     bool
	quiet      bool
	local      bool
	warningsOK bool
	timeout    time.Duration
	socket     string
	stun       string
	ca         string

	// With fromClient.
	user, password, token string
	wss, log              string
	schedule              string
	turnPort              uint16
	proxy                 string

	tell func(ctx context.Context, r doctor.Report) // what came of a check with a link
}

// exitUnknown is what monitoring takes for "not known": the check itself could
// not be made.
const exitUnknown = 3

func newCheckCommand(s streams) *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Try every path: name, certificate, upstreams, TURN on each transport, this host",
		Long: `Tries everything that a call needs, and says for each thing that does not work
what it is, what to do and who has to. On the server it reads the
configuration and asks the running turngate; with --from-client it sees what a
client sees, from any machine:

  turngate check --from-client https://proxy.example.com/ --user NAME
  turngate check --from-client "https://proxy.example.com/check#k7Q2..."

The second form takes a link of "turngate check-link", once. It brings a
credential, the routes and the transports of the server, and the server tells
what it saw of each request, so that a firewall on the way is told from trouble
behind the server. A password or token comes from --password and --token, or from the variables
TURNGATE_PASSWORD and TURNGATE_TOKEN, which others on this machine cannot see.

The last lines say in one sentence which path is dead, signaling or media; the
error 5501 of the TRTC SDK means either. Exit codes are those of monitoring
plugins: 0 all is well, 1 warnings, 2 failures, 3 the check could not be made.
With --nagios the figures behind the bar are counts, the paths (0 works, 1 with
warnings, 2 dead), times, loss and the days that the certificate has left. "turngate explain TG-061" explains a
code.`,
	}
	f := cmd.Flags()
	f.StringVar(&o.fromClient, "from-client", "", "look as a client does at the turngate with this URL, or with this link of \"turngate check-link\"")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	f.BoolVar(&o.nagios, "nagios", false, "print one line for Nagios, Icinga or Zabbix; without the tries that the server must refuse, and logs")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print only what is wrong")
	f.BoolVar(&o.local, "local", false, "ask nobody but this host: no upstreams")
	f.BoolVar(&o.warningsOK, "warnings-ok", false, "exit code 0 also with warnings, for keepalived and health checks")
	f.DurationVar(&o.timeout, "timeout", 20*time.Second, "give up after this time")
	f.StringVar(&o.socket, "socket", "", "admin socket of the running turngate (default: that of the configuration)")
	f.StringVar(&o.stun, "stun", "", "STUN server outside, HOST:PORT, to try whether UDP gets out and back (default: turn.alternates)")
	f.StringVar(&o.ca, "ca", "", "file with the CA of the server's certificate, if this machine does not know it")
	f.StringVar(&o.user, "user", "", "TURN user (default: the first of the configuration)")
	f.StringVar(&o.password, "password", "", "its password (default: $TURNGATE_PASSWORD)")
	f.StringVar(&o.token, "token", "", "with --from-client: token of turn.api, to get a credential (default: $TURNGATE_TOKEN)")
	f.StringVar(&o.wss, "wss-path", "/ws/", "with --from-client: path of the WebSocket route, empty for none")
	f.StringVar(&o.log, "log-path", "/logger/", "with --from-client: path of the log route, empty for none")
	f.StringVar(&o.schedule, "schedule-path", "", "with --from-client: path of trtc.schedule, such as /schedule/; empty for none")
	f.Uint16Var(&o.turnPort, "turn-port", 3478, "with --from-client: TURN port, 0 for none")
	f.StringVar(&o.proxy, "proxy", "env", "with --from-client: proxy for HTTPS, as a browser uses it; env for that of the variables, empty for none")
	configFlag(cmd)
	// Monitoring takes 2 for critical: a wrong command line is something else.
	// It shows what stands on standard output.
	unknown := func(err error) error {
		fmt.Fprintln(s.err, "turngate:", err)
		if o.nagios {
			fmt.Fprintln(s.out, "TURNGATE UNKNOWN -", strings.ReplaceAll(err.Error(), "|", "/"))
		}
		return exitError{exitUnknown}
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return unknown(fmt.Errorf("%w; see \"%s --help\"", err, cmd.CommandPath()))
	})
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := usageArgs(cobra.NoArgs)(cmd, args); err != nil {
			return unknown(err)
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.password, o.token = cmp.Or(o.password, os.Getenv("TURNGATE_PASSWORD")), cmp.Or(o.token, os.Getenv("TURNGATE_TOKEN"))
		if (o.asJSON && (o.nagios || o.quiet)) || o.nagios && o.quiet {
			return unknown(errors.New("choose one of --json, --nagios and --quiet"))
		}
		if o.timeout <= 0 {
			return unknown(fmt.Errorf("--timeout %s is no time", o.timeout))
		}
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		report, err := o.report(ctx, s, cmd)
		if err != nil {
			return unknown(err)
		}
		var exit exitError
		if err = o.write(s, report); err != nil && !errors.As(err, &exit) {
			return unknown(err) // nobody has read the report
		}
		return err
	}
	return cmd
}

func (o *checkOptions) report(ctx context.Context, s streams, cmd *cobra.Command) (doctor.Report, error) {
	at := time.Now()
	var subject string
	var checks []doctor.Check
	var err error
	if o.fromClient != "" {
		subject, checks, err = o.clientChecks(ctx)
	} else {
		subject, checks, err = o.serverChecks(ctx, configPath(cmd, nil))
	}
	if err != nil {
		return doctor.Report{}, err
	}
	found := doctor.Run(ctx, o.timeout, checks)
	report := doctor.NewReport(subject, fullVersion(), at, time.Since(at), found)
	if o.tell != nil {
		o.tell(ctx, report)
	}
	return report, nil
}

func (o *checkOptions) write(s streams, r doctor.Report) error {
	var err error
	switch {
	case o.asJSON:
		err = r.WriteJSON(s.out)
	case o.nagios:
		err = r.WriteNagios(s.out)
	default:
		err = r.WriteText(s.out, o.quiet)
	}
	code := r.ExitCode()
	if code == 1 && o.warningsOK {
		code = 0
	}
	if err == nil && code != 0 {
		err = exitError{code}
	}
	return err
}

// serverChecks are the checks on the server itself. A configuration that cannot
// be used is a finding, and what needs none is checked all the same.
func (o *checkOptions) serverChecks(ctx context.Context, file string) (subject string, checks []doctor.Check, err error) {
	ready := func(g doctor.Group, list ...doctor.Finding) doctor.Check {
		return doctor.Check{Name: string(g), Group: g, Run: func(context.Context) []doctor.Finding { return list }}
	}
	cfg, findings := config.Default(), config.Findings(nil)
	if file == "" {
		file, cfg = runningConfig(ctx, cmp.Or(o.socket, cfg.Admin.Socket), cfg)
	}
	if file != "" {
		cfg, findings = loadWithFiles(file)
	}
	checks = append(checks, ready(doctor.Service, checkConfiguration(file, cfg, findings)...))
	if cfg == nil {
		st, dialErr := askStatus(ctx, cmp.Or(o.socket, config.Default().Admin.Socket))
		checks = append(checks, ready(doctor.Service, checkService(st, dialErr, time.Now())...), ready(doctor.Service, checkVersion(st)...))
		return "a configuration with errors: " + file, checks, nil
	}
	st, dialErr := askStatus(ctx, cmp.Or(o.socket, cfg.Admin.Socket))
	checks = append(checks,
		ready(doctor.Service, checkService(st, dialErr, time.Now())...),
		ready(doctor.Service, checkVersion(st)...),
		ready(doctor.Media, checkKernelPath(cfg, st)...),
	)
	checks = append(checks, hostChecks(machine.This(), cfg, st)...)
	site, err := newSite(cfg, "")
	if err != nil {
		return "", nil, err
	}
	paths, err := o.serverPaths(ctx, cfg, site)
	return site.web() + ", on the server itself", append(checks, paths...), err
}

// runningConfig is the file that the running turngate uses, or, when it was started
// without one, the configuration that it made for itself.
func runningConfig(ctx context.Context, socket string, otherwise *config.Config) (file string, cfg *config.Config) {
	st, err := askStatus(ctx, socket)
	if err != nil {
		return "", otherwise
	}
	if st.ConfigFile != "" {
		return st.ConfigFile, nil
	}
	if cfg, err = fileless(); err != nil {
		return "", otherwise
	}
	for _, l := range st.Listeners { // it may have had the choice of another port
		var at config.ListenAddr
		if addr, https := strings.CutPrefix(l, "https tcp "); https && at.UnmarshalText([]byte(addr)) == nil {
			cfg.HTTPS.Listen = []config.ListenAddr{at}
		}
	}
	return "", cfg
}

// askStatus asks the running turngate.
func askStatus(ctx context.Context, socket string) (*Status, error) {
	client, err := admin.Dial(socket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var st Status
	if err := client.Do(ctx, "GET", admin.PathStatus, nil, &st); err != nil {
		return nil, err
	}
	return &st, nil
}

// serverPaths are the checks of what clients use, made from the server.
func (o *checkOptions) serverPaths(ctx context.Context, cfg *config.Config, st site) ([]doctor.Check, error) {
	addresses := relayAddresses(cfg.ExternalIP)
	var checked *checkedSite
	var checks []doctor.Check
	if len(cfg.HTTPS.Listen) > 0 {
		var err error
		if checked, err = o.ownSite(cfg.HTTPS.Listen[0], st, addresses); err != nil {
			return nil, err
		}
		checks = append(checks, doctor.Check{Name: "HTTPS", Group: doctor.Access, Run: checked.checkWeb})
	}
	checks = append(checks, doctor.Check{Name: "name", Group: doctor.Access, Run: func(ctx context.Context) []doctor.Finding {
		return checkName(ctx, cfg.Domain, ourAddresses(addresses), siteWait)
	}})
	if !o.local {
		d := make(dialers)
		var clock sync.Once
		for _, k := range []struct {
			a     asks
			group doctor.Group
			make  func(*config.Config, dialers) ([]checkedRoute, error)
		}{{wssAsks, doctor.Signaling, signalingRoutes}, {logAsks, doctor.Logs, logRoutes}, {scheduleAsks, doctor.Signaling, scheduleRoutes}} {
			routes, err := k.make(cfg, d)
			if err != nil {
				return nil, err
			}
			for i := range routes {
				routes[i].clock = &clock
				if own := routes[i].listen; len(own) > 0 {
					if routes[i].site, err = o.ownSite(own[0], st.at(own), addresses); err != nil {
						return nil, err
					}
				}
			}
			checks = append(checks, doctor.Check{Name: k.a.what, Group: k.group, Run: func(ctx context.Context) []doctor.Finding {
				return k.a.checkRoutes(ctx, routes, checked)
			}})
		}
	}
	t := &checkedTURN{refuses: !o.nagios, wait: turnWait, user: o.user, password: o.password}
	if t.user == "" || t.password == "" {
		if cred, err := chooseCredential(withKeptSecret(cfg), o.user, 0, time.Now()); err == nil {
			t.user, t.password = cred.username, cred.password
		}
	}
	t.stun = o.stunServer(ctx, cfg)
	t.doors = ownDoors(cfg, st, addresses)
	return append(checks, doctor.Check{Name: "TURN", Group: doctor.Media, Run: t.check}), nil
}

// Times for one exchange. Everything runs at once.
const (
	siteWait = 6 * time.Second
	turnWait = 10 * time.Second
)

// ownSite is the site as a listener of it is reached from this host, whatever DNS says.
func (o *checkOptions) ownSite(l config.ListenAddr, st site, addresses []turn.Address) (*checkedSite, error) {
	at := dialAt(l, addresses)
	host := trimBrackets(st.host)
	name := net.JoinHostPort(host, strconv.Itoa(int(st.https)))
	up, err := proxy.ParseUpstream("https://" + name)
	if err != nil {
		return nil, err
	}
	dialer, err := proxy.NewDialer(proxy.DialOptions{Resolve: map[string]string{host: at}})
	if err != nil {
		return nil, err
	}
	s := &checkedSite{host: host, up: up, dialer: dialer, wait: siteWait}
	s.roots, err = rootsWith(o.ca)
	return s, err
}

// rootsWith is the system's roots and those of a file; nil without a file.
func rootsWith(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return roots, nil
}

// dialAt is where a listener of ours is reached from this host: its own address, else
// one of this host that it hands out, else loopback.
func dialAt(l config.ListenAddr, addresses []turn.Address) string {
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	own := hostAddresses()
	for _, a := range slices.Backward(addresses) { // the first one stays
		if own[a.External] {
			addr = a.External
		} else if own[a.Local] {
			addr = a.Local
		}
	}
	if l.Addr.IsValid() && !l.Addr.IsUnspecified() {
		addr = l.Addr
	}
	return netip.AddrPortFrom(addr, l.Port).String()
}

// ourAddresses are those that a name may lead to.
func ourAddresses(addresses []turn.Address) (list []netip.Addr) {
	for a := range hostAddresses() {
		list = append(list, a)
	}
	for _, a := range addresses {
		list = append(list, a.External)
	}
	return list
}

// ownDoors are the ways to the TURN server of this host.
func ownDoors(cfg *config.Config, st site, addresses []turn.Address) (doors []turnDoor) {
	if len(cfg.TURN.Listen) > 0 {
		l := cfg.TURN.Listen[0]
		at := dialAt(l, addresses)
		doors = append(doors,
			turnDoor{fmt.Sprintf("UDP %d", l.Port), "udp", "udp", at, nil},
			turnDoor{fmt.Sprintf("TCP %d", l.Port), "tcp", "tcp", at, nil})
	}
	if len(cfg.HTTPS.Listen) > 0 {
		l := cfg.HTTPS.Listen[0]
		at := dialAt(l, addresses)
		doors = append(doors,
			turnDoor{fmt.Sprintf("TLS %d", l.Port), "tls", "tls", at, turnTLS(trimBrackets(st.host))},
			turnDoor{fmt.Sprintf("plain TCP %d", l.Port), "tcp", "tls", at, nil})
	}
	return doors
}

// stunServer is where to ask for the address that relays have outside.
func (o *checkOptions) stunServer(ctx context.Context, cfg *config.Config) netip.AddrPort {
	if o.stun == "" {
		for _, a := range cfg.TURN.Alternates {
			return netip.AddrPortFrom(a.Addr, cmp.Or(a.Port, 3478))
		}
		return netip.AddrPort{}
	}
	host, port, err := net.SplitHostPort(o.stun)
	if err != nil {
		host, port = o.stun, "3478"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}
	}
	ctx, cancel := context.WithTimeout(ctx, siteWait)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if err != nil || len(addrs) == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), uint16(n))
}

// withKeptSecret is [ownSecret] for a command: it makes nothing.
func withKeptSecret(cfg *config.Config) *config.Config {
	b, err := os.ReadFile(filepath.Join(cfg.StateDir, "turn-secret"))
	secret := strings.TrimSpace(string(b))
	if len(cfg.TURN.Secrets) > 0 || err != nil || secret == "" {
		return cfg
	}
	with := *cfg
	with.TURN.Secrets = []config.Secret{config.NewSecret(secret)}
	return &with
}
