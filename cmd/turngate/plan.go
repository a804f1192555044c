package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/edge"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/logger"
	"github.com/turngate/turngate/signaling"
	"github.com/turngate/turngate/signaling/inspect"
	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/peers"
	"github.com/turngate/turngate/turn/relay"
)

// plan is a configuration made ready to run: in the words of each room, and
// checked by each room. Making one touches nothing that runs.
type plan struct {
	cfg       *config.Config
	addresses []turn.Address
	tls       *certSource
	tickets   edge.TicketKeys // nil: of this process
	turn      turn.Options
	signaling signaling.Options
	inspect   inspect.Options
	logger    logger.Options
	databases []database
	ice       *iceAPI      // nil: not served
	check     *checkPage   // nil: not served
	access    *slog.Logger // nil: no access log
}

// newPlan translates a configuration and lets every room check its part.
// credentials makes time-limited credentials, asked at run time; logs serves
// the log reports of the one-parameter mode.
func (a *app) newPlan(cfg *config.Config) (*plan, error) {
	cfg = ownSecret(cfg, a.log)
	p := &plan{cfg: cfg, addresses: relayAddresses(cfg.ExternalIP)}
	var err error
	if p.tls, err = a.newCertSource(cfg, p.addresses); err != nil {
		return nil, err
	}
	if cfg.TLS.TicketKeys != "" {
		if p.tickets, err = edge.ReadTicketKeys(cfg.TLS.TicketKeys); err != nil {
			return nil, err
		}
	}
	if _, err := edge.CheckCertificates(p.tls.files); err != nil {
		return nil, err
	}
	if p.turn, err = turnOptions(cfg, p.addresses, a.log); err != nil {
		return nil, err
	}
	p.turn.Listeners = a.listening
	if p.databases, p.turn.Databases, err = a.databases(cfg); err != nil {
		return nil, err
	}
	if p.ice, err = a.newICE(cfg); err != nil {
		return nil, err
	}
	p.check = a.newCheckPage(p)
	if cfg.Log.Access != "" {
		p.access = newAccessLog(a.accessLog)
	}
	dialers := make(dialers)
	p.logger, err = loggerOptions(cfg, dialers, a.log)
	if err != nil {
		return nil, err
	}
	p.signaling, err = a.signalingOptions(cfg, dialers)
	p.signaling.Access = p.access
	if err != nil {
		return nil, err
	}
	if p.inspect, err = a.inspectOptions(cfg, dialers); err != nil {
		return nil, err
	}
	p.inspect.Access = p.access
	// The rooms' own checks, on servers that serve nothing.
	_, signalingErr := signaling.New(p.signaling)
	_, inspectErr := inspect.New(p.inspect)
	_, loggerErr := logger.New(p.logger)
	return p, errors.Join(signalingErr, inspectErr, loggerErr)
}

func turnOptions(cfg *config.Config, addresses []turn.Address, log *slog.Logger) (turn.Options, error) {
	t := cfg.TURN
	o := turn.Options{
		Realm:        t.Realm,
		StrictExpiry: t.StrictExpiry,
		Mobility:     t.Mobility,
		Addresses:    addresses,
		MinPort:      t.MinPort,
		MaxPort:      t.MaxPort,
		RelayToRelay: t.Peers.RelayToRelay,
		Limits: turn.Limits{
			Allocations:           t.Limits.Allocations,
			AllocationsPerUser:    t.Limits.AllocationsPerUser,
			AllocationsPerAddress: t.Limits.AllocationsPerAddress,
			Permissions:           t.Limits.PermissionsPerAllocation,
			Channels:              t.Limits.ChannelsPerAllocation,
			FirstMessage:          time.Duration(t.Limits.FirstMessage),

			UnauthenticatedAnswers: t.Limits.UnauthenticatedAnswers,
			AuthFailures:           t.Limits.AuthFailures,
			Ban:                    time.Duration(t.Limits.Ban),

			BytesPerSecondPerAllocation: int64(t.Limits.BytesPerSecondPerAllocation),
			BytesPerSecondPerUser:       int64(t.Limits.BytesPerSecondPerUser),
			BytesPerSecond:              int64(t.Limits.BytesPerSecondTotal),
		},
		Egress: relay.StreamLimits{Age: time.Duration(t.Egress.Queue), Bytes: int(t.Egress.Bytes)},
		Log:    log,
	}
	for _, u := range t.User {
		user := turn.User{Name: u.Name}
		for _, p := range u.All() {
			user.Passwords = append(user.Passwords, p.Reveal())
		}
		o.Users = append(o.Users, user)
	}
	if len(t.Realms) > 0 {
		o.RealmAt = realmsAt(t)
	}
	for _, a := range t.Alternates {
		port := a.Port
		if port == 0 {
			port = 3478
		}
		o.Alternates = append(o.Alternates, netip.AddrPortFrom(a.Addr, port))
	}
	for _, s := range t.Secrets {
		o.Secrets = append(o.Secrets, s.Reveal())
	}
	for _, p := range t.Peers.Ports {
		o.PeerPorts = append(o.PeerPorts, peers.PortRange{Lo: p.Lo, Hi: p.Hi})
	}
	var err error
	if o.Allow, err = peerRules("turn.peers.allow", t.Peers.Allow); err != nil {
		return o, err
	}
	o.Deny, err = peerRules("turn.peers.deny", t.Peers.Deny)
	return o, err
}

// realmsAt finds the realm of the listener that an address of ours belongs to:
// the one with that very address, or the wildcard of its port.
func realmsAt(t config.TURN) func(netip.AddrPort) string {
	exact, wild := make(map[netip.AddrPort]string), make(map[uint16]string)
	for at, realm := range t.Realms {
		if l := parseListen(at); l.Wildcard() {
			wild[l.Port] = realm
		} else {
			exact[netip.AddrPortFrom(l.Addr, l.Port)] = realm
		}
	}
	return func(server netip.AddrPort) string {
		if realm, ok := exact[server]; ok {
			return realm
		}
		return wild[server.Port()]
	}
}

func peerRules(key string, in []config.PeerRule) ([]peers.Rule, error) {
	var out []peers.Rule
	for _, r := range in {
		rule, err := peers.ParseRule(r.String())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		out = append(out, rule)
	}
	return out, nil
}

// dialers shares the dialers of routes that reach their upstreams alike, and
// with them the addresses that a dialer remembers.
type dialers map[string]*proxy.Dialer

func (d dialers) get(u config.Reach) (*proxy.Dialer, error) {
	o := proxy.DialOptions{
		Dial:    time.Duration(u.DialTimeout),
		TLS:     time.Duration(u.TLSTimeout),
		Resolve: make(map[string]string, len(u.Resolve)),
		CAFile:  u.CA,
	}
	for name, addr := range u.Resolve {
		o.Resolve[name] = addr.String()
	}
	through := u.Proxy.Reveal()
	key := fmt.Sprintf("%v %v %q %v %q %q", o.Dial, o.TLS, o.CAFile, o.Resolve, through, u.NoProxy) // maps print sorted
	if have := d[key]; have != nil {
		return have, nil
	}
	var err error
	if o.Proxy, err = outbound(u); err != nil {
		return nil, err
	}
	made, err := proxy.NewDialer(o)
	d[key] = made
	return made, err
}

// outbound is the way to upstreams through the company's proxy, nil for none.
func outbound(u config.Reach) (o *proxy.Outbound, err error) {
	switch through := u.Proxy.Reveal(); through {
	case "":
	case config.ProxyFromEnv:
		o, err = proxy.NewOutboundFromEnv(os.Getenv, u.NoProxy)
	default:
		o, err = proxy.NewOutbound(through, u.NoProxy)
	}
	if err != nil {
		return nil, fmt.Errorf("upstream.proxy: %w", err)
	}
	return o, nil
}

// publicHost is what clients call us, with the port unless it is 443, or ""
// when only the client knows.
func publicHost(cfg *config.Config) string {
	if cfg.Domain == "" || len(cfg.HTTPS.Listen) == 0 {
		return ""
	}
	if port := cfg.HTTPS.Listen[0].Port; port != 443 && port != 0 {
		return net.JoinHostPort(cfg.Domain, fmt.Sprint(port))
	}
	return cfg.Domain
}
