package main

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/firewall"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/logger"
	"github.com/turngate/turngate/signaling"
)

// firewallOptions translates a configuration into what it needs through firewalls.
// What only this machine knows (resolvers, kernel) is not in it.
func firewallOptions(cfg *config.Config) (firewall.Options, error) {
	o := firewall.Options{
		Layout: cfg.Layout,
		Host:   cfg.Domain,
		Relay:  firewall.Ports{Lo: cfg.TURN.MinPort, Hi: cfg.TURN.MaxPort},
		TRTC:   cfg.UsesTRTC(),
	}
	for _, e := range cfg.ExternalIP {
		o.Addresses = append(o.Addresses, firewall.Address{Public: e.Public, Private: e.Private})
	}
	for _, p := range cfg.TURN.Peers.Ports {
		lo, hi := p.Lo, p.Hi
		if p.Any() {
			lo, hi = 1, 65535
		}
		o.PeerPorts = append(o.PeerPorts, firewall.Ports{Lo: lo, Hi: hi})
	}
	for _, a := range cfg.TURN.Alternates {
		o.Others = append(o.Others, netip.AddrPortFrom(a.Addr, cmp.Or(a.Port, 3478)))
	}
	for _, r := range cfg.TURN.Peers.Allow {
		o.OwnPeers = append(o.OwnPeers, firewall.Peer{Prefix: r.Prefix, Ports: firewall.Ports{Lo: r.Ports.Lo, Hi: r.Ports.Hi}})
	}
	firewallListeners(cfg, &o)
	if cfg.TURN.Offload != "off" {
		o.Notes = append(o.Notes, "where the kernel relays (turn.offload), this host's firewall and its connection table do not see those packets; "+
			"the few that are left to it may then look like the first of their kind: with --relay=open none of them is lost")
	}
	var err error
	o.Upstreams, err = firewallUpstreams(cfg)
	return o, err
}

func firewallListeners(cfg *config.Config, o *firewall.Options) {
	add := func(role, proto string, l config.ListenAddr) {
		if l.Port == 0 {
			o.Notes = append(o.Notes, "a listener of "+role+" on port 0 has another port at each start, which no firewall can know")
			return
		}
		o.Listeners = append(o.Listeners, firewall.Listener{Role: role, Addr: l.Addr, Port: l.Port, Proto: proto})
	}
	for _, l := range cfg.HTTPS.Listen {
		add(firewall.RoleHTTPS, "tcp", l)
	}
	for _, l := range cfg.RouteListeners() {
		add(firewall.RoleRoutes, "tcp", l)
	}
	for _, l := range cfg.TURN.Listen {
		add(firewall.RoleTURN, "udp", l)
		// On an address of [https] TURN over TCP shares its listener.
		if !slices.ContainsFunc(cfg.HTTPS.Listen, func(h config.ListenAddr) bool { return h.String() == l.String() }) {
			add(firewall.RoleTURN, "tcp", l)
		}
	}
	if cfg.TLS.UsesHTTP() {
		add(firewall.RoleACME, "tcp", cfg.TLS.ACME.HTTPListen)
	}
	if m := cfg.Admin.Metrics; !m.IsZero() && m.Port != 0 && !m.Addr.IsLoopback() {
		add(firewall.RoleMetrics, "tcp", m)
	}
}

// upstreamList collects where the host connects to.
type upstreamList struct {
	all []firewall.Upstream
}

// add adds the server of a URL, as it is reached: at a fixed address, or through the
// company's proxy.
func (l *upstreamList) add(purpose string, reach config.Reach, urls ...string) error {
	out, err := outbound(reach)
	if err != nil {
		return err
	}
	for _, text := range urls {
		u, err := proxy.ParseUpstream(text)
		if err != nil {
			return err
		}
		via := out.Through(u)
		n := firewall.Upstream{Host: u.Host, Port: u.Port, Purpose: purpose, Via: via}
		if fixed, ok := reach.Resolve[u.Host]; ok && via == "" {
			n.Host, n.Port = fixed.Addr.String(), cmp.Or(fixed.Port, u.Port)
		}
		l.put(n)
	}
	return nil
}

func (l *upstreamList) put(n firewall.Upstream) {
	if !slices.Contains(l.all, n) {
		l.all = append(l.all, n)
	}
}

// routePurpose is what a route's upstreams are for: a call goes on without watchRTC.
func routePurpose(preset, otherwise string) string {
	switch preset {
	case config.PresetWatchRTC, config.PresetWatchRTCStaging, config.PresetWatchRTCLegacy, config.PresetWatchRTCStagingLegacy:
		return firewall.ForStatistics
	}
	return otherwise
}

func firewallUpstreams(cfg *config.Config) ([]firewall.Upstream, error) {
	l := &upstreamList{}
	reachTRTC := cfg.Upstream.Reach
	for i, r := range cfg.Signaling {
		if r.Preset == config.PresetTRTC && !slices.ContainsFunc(cfg.Signaling[:i], func(s config.Signaling) bool { return s.Preset == config.PresetTRTC }) {
			reachTRTC = r.Reach.Reach
		}
		if err := l.add(routePurpose(r.Preset, firewall.ForSignaling), r.Reach.Reach, texts(config.URLs(r.Upstream))...); err != nil {
			return nil, err
		}
		near := r.Reach.Reach
		near.Proxy, near.NoProxy = config.Secret{}, nil
		for _, h := range []config.Hook{r.Hook.Inbound, r.Hook.Outbound} {
			if h.URL != "" {
				if err := l.add(firewall.ForHook, near, h.URL); err != nil {
					return nil, err
				}
			}
		}
		if r.Mode == config.ModeHeaders {
			for _, t := range r.Targets {
				l.put(namedTarget(t))
			}
		}
	}
	logs := cfg.LogRoutes()
	for _, r := range logs {
		urls := texts(r.Upstream)
		if len(urls) == 0 {
			urls = logger.DefaultUpstreams()
		}
		if err := l.add(routePurpose(r.Preset, firewall.ForLogs), r.Reach, urls...); err != nil {
			return nil, err
		}
	}
	if cfg.UsesTRTC() && (cfg.TRTC.Schedule != "" || cfg.TRTC.Unified != "") {
		urls := texts(cfg.TRTC.ScheduleUpstream)
		if len(urls) == 0 {
			urls = signaling.DefaultSchedulers()
		}
		if err := l.add(firewall.ForScheduler, reachTRTC, urls...); err != nil {
			return nil, err
		}
		if err := l.domains(cfg.TRTC.SignalDomains, reachTRTC); err != nil {
			return nil, err
		}
	}
	if cfg.TLS.Mode == config.TLSACME {
		ca := cmp.Or(cfg.TLS.ACME.CA, config.LetsEncrypt)
		if u, err := url.Parse(ca); err == nil {
			if err := l.add(firewall.ForACME, config.Reach{}, "https://"+u.Host); err != nil {
				return nil, err
			}
		}
	}
	for _, d := range cfg.TURN.Database {
		if host, port, ok := databaseServer(d.Driver, d.DSN.Reveal()); ok {
			l.put(firewall.Upstream{Host: host, Port: port, Purpose: firewall.ForDatabase})
		}
	}
	return l.all, nil
}

// domains are names that the scheduler may answer with.
func (l *upstreamList) domains(patterns []string, reach config.Reach) error {
	out, err := outbound(reach)
	if err != nil {
		return err
	}
	for _, p := range patterns {
		below, wild := strings.CutPrefix(p, "*.")
		if wild {
			below = "a." + below // any name below stands for all
		}
		u, err := proxy.ParseUpstream("https://" + below)
		if err != nil {
			return err
		}
		l.put(firewall.Upstream{Host: p, Port: u.Port, Purpose: firewall.ForUnified, Via: out.Through(u)})
	}
	return nil
}

// namedTarget is a host that a trusted peer may name, "*" with any port among them.
func namedTarget(t string) firewall.Upstream {
	host, port := t, uint16(0)
	if h, p, err := net.SplitHostPort(t); err == nil {
		if n, err := strconv.ParseUint(p, 10, 16); err == nil {
			host, port = h, uint16(n)
		}
	}
	return firewall.Upstream{Host: strings.Trim(host, "[]"), Port: port, Purpose: firewall.ForSignaling}
}

// databaseServer finds the server in a connection string, which may hold a
// password: nothing else of it is looked at. A socket file is no server.
func databaseServer(driver, dsn string) (host string, port uint16, ok bool) {
	ports := map[string]uint16{"postgres": 5432, "redis": 6379}
	port = ports[driver]
	if port == 0 {
		return "", 0, false
	}
	at := ""
	if u, err := url.Parse(dsn); err == nil && u.Host != "" {
		host, at = u.Hostname(), u.Port()
	} else {
		for _, word := range strings.Fields(dsn) {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "host", "hostaddr", "ip":
				host = strings.Trim(value, "'")
			case "port":
				at = strings.Trim(value, "'")
			}
		}
	}
	if n, err := strconv.ParseUint(at, 10, 16); err == nil && n != 0 {
		port = uint16(n)
	}
	addr, err := netip.ParseAddr(host)
	local := host == "" || host == "localhost" || strings.HasPrefix(host, "/") || err == nil && addr.IsLoopback()
	return host, port, !local
}

// ownMachine adds what only this machine knows.
func ownMachine(o *firewall.Options) {
	if len(o.Addresses) == 0 {
		for _, a := range relayAddresses(nil) {
			o.Addresses = append(o.Addresses, firewall.Address{Public: a.External})
		}
	}
	o.Resolvers = resolvers("/etc/resolv.conf")
	o.Kernel = make(map[string]string)
	for _, name := range firewall.KernelNames() {
		if data, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); err == nil {
			o.Kernel[name] = strings.TrimSpace(string(data))
		}
	}
}

// resolvers are the DNS servers of a resolv.conf that stand elsewhere.
func resolvers(path string) []netip.Addr {
	data, _ := os.ReadFile(path)
	var all []netip.Addr
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil && !a.IsLoopback() {
			all = append(all, a)
		}
	}
	return all
}
