package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/edge"
	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/relay"
)

// door is one TCP listener.
type door struct {
	*edge.Listener
	name  string // the address as configured
	https bool
}

// use is what a TCP listener is for.
type use int

const (
	forTURN   use = iota
	forHTTPS      // TURN too
	forRoutes     // that name it
)

// opened are the sockets that a plan needs and the app does not have yet.
type opened struct {
	doors   map[string]*door
	sockets map[string][]*relay.Listener
	side    map[string]*sideListener
	access  *accessTarget // nil: as before
}

func (o *opened) close() {
	if o.access != nil && o.access.target != nil {
		o.access.target.Close()
	}
	for _, m := range o.side {
		m.Close()
	}
	for _, d := range o.doors {
		d.Close()
	}
	for _, all := range o.sockets {
		for _, l := range all {
			l.Close()
		}
	}
}

// openSockets opens what is new in a plan, all or nothing.
func (a *app) openSockets(p *plan) (*opened, error) {
	next := &opened{make(map[string]*door), make(map[string][]*relay.Listener), make(map[string]*sideListener), nil}
	var errs []error
	for addr, use := range p.tcp() {
		https := use != forTURN
		if d := a.doors[addr]; d != nil && d.https == https {
			continue
		}
		l, err := edge.Listen(context.Background(), addr, a.doorOptions(p.cfg, p.tickets, use))
		if err != nil {
			errs = append(errs, explainListen(stands(p.cfg, tcpKey(p.cfg, addr)), "tcp", addr, err))
			continue
		}
		next.doors[addr] = &door{l, addr, https}
	}
	for _, addr := range p.cfg.TURN.Listen {
		if a.sockets[addr.String()] != nil {
			continue
		}
		all, err := a.openUDP(addr)
		if err != nil {
			errs = append(errs, explainListen(stands(p.cfg, "turn.listen"), "udp", addr.String(), err))
			continue
		}
		next.sockets[addr.String()] = all
	}
	for name, side := range a.sides(p) {
		if a.side[name] != nil {
			continue
		}
		l, err := side.listen(side.addr)
		if err != nil {
			errs = append(errs, explainListen(stands(p.cfg, side.key), "tcp", side.addr, err))
			continue
		}
		next.side[name] = l
	}
	var err error
	if next.access, err = a.openAccess(p); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		next.close()
		return nil, err
	}
	return next, nil
}

// tcp returns the TCP addresses of a plan, and what they are for.
func (p *plan) tcp() map[string]use {
	all := make(map[string]use)
	for _, addr := range p.cfg.TURN.Listen {
		all[addr.String()] = forTURN
	}
	for _, addr := range p.cfg.HTTPS.Listen {
		all[addr.String()] = forHTTPS
	}
	for _, addr := range p.cfg.RouteListeners() {
		all[addr.String()] = forRoutes
	}
	return all
}

// openUDP opens the sockets of a configured address: one of each family for a
// wildcard, so that answers can leave from the address that was asked.
func (a *app) openUDP(addr config.ListenAddr) ([]*relay.Listener, error) {
	if !addr.Wildcard() {
		l, err := a.turn.OpenUDP(netip.AddrPortFrom(addr.Addr, addr.Port))
		if err != nil {
			return nil, err
		}
		return []*relay.Listener{l}, nil
	}
	l4, err := a.turn.OpenUDP(netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port))
	if err != nil {
		return nil, err
	}
	l6, err := a.turn.OpenUDP(netip.AddrPortFrom(netip.IPv6Unspecified(), l4.Addr().Port()))
	switch {
	case err == nil:
		return []*relay.Listener{l4, l6}, nil
	case noIPv6(err):
		return []*relay.Listener{l4}, nil
	}
	l4.Close()
	return nil, err
}

func (a *app) swapDoors(p *plan, next map[string]*door) {
	want := p.tcp()
	for addr, d := range a.doors {
		use, keep := want[addr]
		if !keep || d.https != (use != forTURN) {
			d.Close()
			delete(a.doors, addr)
			continue
		}
		if err := d.Update(a.doorOptions(p.cfg, p.tickets, use)); err != nil {
			a.log.Error("listener not updated", "listen", addr, "err", err)
		}
	}
	for addr, d := range next {
		a.doors[addr] = d
		a.serveDoor(d)
	}
}

func (a *app) swapSockets(p *plan, next map[string][]*relay.Listener) {
	want := make(map[string]bool)
	for _, addr := range p.cfg.TURN.Listen {
		want[addr.String()] = true
	}
	for addr, all := range a.sockets {
		if want[addr] {
			continue
		}
		for _, l := range all {
			a.turn.RetireUDP(l.Addr())
		}
		delete(a.sockets, addr)
	}
	for addr, all := range next {
		a.sockets[addr] = all
		for _, l := range all {
			if err := a.turn.ServeUDP(l); err != nil {
				a.log.Error("listener not served", "listen", addr, "err", err)
			}
		}
	}
}

// side is a plain HTTP listener that a plan wants.
type side struct {
	key    string // of the configuration
	addr   string
	listen func(addr string) (*sideListener, error)
}

// sides returns the plain HTTP listeners of a plan, named by what they are for
// and where.
func (a *app) sides(p *plan) map[string]side {
	all := make(map[string]side)
	if addr := p.cfg.Admin.Metrics.String(); addr != "" {
		all["metrics "+addr] = side{"admin.metrics", addr, func(addr string) (*sideListener, error) { return listenMetrics(addr, a.registry) }}
	}
	if addr := p.cfg.Admin.Status.String(); addr != "" {
		all["status "+addr] = side{"admin.status", addr, a.listenStatus}
	}
	if p.cfg.TLS.UsesHTTP() {
		addr := p.cfg.TLS.ACME.HTTPListen.String()
		all["challenges "+addr] = side{"tls.acme.http_listen", addr, a.listenPlain}
	}
	return all
}

func (a *app) swapSides(p *plan, next map[string]*sideListener) {
	want := a.sides(p)
	for name, l := range a.side {
		if _, keep := want[name]; !keep {
			l.server.Close()
			l.Close()
			delete(a.side, name)
		}
	}
	for name, l := range next {
		a.side[name] = l
		a.serveSide(l)
	}
}

// serveSide serves a plain HTTP listener once the app runs.
func (a *app) serveSide(l *sideListener) {
	if a.ctx != nil {
		a.wg.Go(func() {
			if err := l.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				a.log.Error("listener ended", "listen", l.Addr(), "err", err)
			}
		})
	}
}

// serveDoor serves a listener once the app runs.
func (a *app) serveDoor(d *door) {
	if a.ctx == nil {
		return
	}
	a.wg.Go(func() {
		if err := d.Serve(a.ctx); err != nil {
			a.log.Error("listener ended", "listen", d.Addr(), "err", err)
		}
	})
	if d.https {
		a.wg.Go(func() { _ = a.http.Serve(namedListener{d.HTTP(), d.name}) }) // ends with the door
	}
}

// namedListener is a listener with the name that routes know it by.
type namedListener struct {
	net.Listener
	name string
}

// context is that of its requests.
func (n namedListener) context() context.Context {
	return proxy.WithListener(context.Background(), n.name)
}

func (a *app) doorOptions(cfg *config.Config, tickets edge.TicketKeys, use use) edge.Options {
	o := edge.Options{
		Certificates: a.certs,
		Challenge:    a.challenge,
		TicketKeys:   tickets,
		HTTP:         use != forTURN,
		TURN:         a.serveTURN,
		ProxyFrom:    cfg.TURN.ProxyProtocol,
		Caps:         a.turnCaps,
		Timeouts:     edge.Timeouts{Prove: time.Duration(cfg.TURN.Limits.FirstMessage)},
		Metrics:      a.edgeMetrics,
		Log:          a.log,
	}
	if use == forRoutes {
		o.TURN = nil
	}
	if o.HTTP {
		o.ProxyFrom = cfg.HTTPS.ProxyProtocol
		o.Caps = a.httpsCaps
		o.Shared = cfg.HTTPS.TrustedProxies
		o.Timeouts.Prove = time.Duration(cfg.HTTPS.HandshakeTimeout)
	}
	return o
}

func (a *app) serveTURN(conn net.Conn, info edge.ConnInfo) {
	transport := turn.TCP
	if info.Transport == "tls" {
		transport = turn.TLS
	}
	a.turn.ServeConn(conn, transport)
}

// listening returns the bound TCP addresses: none of them is a peer. The UDP
// ones the TURN server knows itself.
func (a *app) listening() []netip.AddrPort {
	p := a.plan.Load()
	if p == nil {
		return nil
	}
	var all []netip.AddrPort
	for addr := range p.tcp() {
		if ap, err := netip.ParseAddrPort(addr); err == nil {
			all = append(all, ap)
			continue
		}
		if l := parseListen(addr); !l.IsZero() {
			all = append(all, netip.AddrPortFrom(netip.IPv4Unspecified(), l.Port))
		}
	}
	return all
}

// parseListen reads back what a ListenAddr printed.
func parseListen(s string) (l config.ListenAddr) {
	_ = l.UnmarshalText([]byte(s))
	return l
}

func (a *app) closeSides() {
	a.reloadMu.Lock()
	defer a.reloadMu.Unlock()
	for _, l := range a.side {
		l.server.Close()
		l.Close()
	}
}

// tcpKey is the key that asks for a TCP listener.
func tcpKey(cfg *config.Config, addr string) string {
	in := func(list []config.ListenAddr) bool {
		return slices.ContainsFunc(list, func(l config.ListenAddr) bool { return l.String() == addr })
	}
	for i, r := range cfg.Signaling {
		if in(r.Listen) {
			return fmt.Sprintf("signaling[%d].listen", i)
		}
	}
	for i, r := range cfg.Logger {
		if in(r.Listen) {
			return fmt.Sprintf("logger[%d].listen", i)
		}
	}
	if in(cfg.HTTPS.Listen) {
		return "https.listen"
	}
	return "turn.listen"
}

// stands is the place of a key in the file, and its name, for the beginning of a message.
func stands(cfg *config.Config, key string) string {
	if o := cfg.Origin(key); o.File != "" {
		return fmt.Sprintf("%s:%d: %s: ", o.File, o.Line, key)
	}
	return key + ": "
}

// explainListen adds the place that asks for a listener, and what an operator can
// do.
func explainListen(place, network, addr string, err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err // without the address, which is said here
	}
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%slisten %s %s: %w; no interface of this host has the address (see: ip address)", place, network, addr, err)
	case isPermission(err):
		return fmt.Errorf("%slisten %s %s: %w; run as root, grant CAP_NET_BIND_SERVICE, or choose a port above 1023", place, network, addr, err)
	case isInUse(err):
		return fmt.Errorf("%slisten %s %s: %w; another program has the port (see: ss -lnp 'sport = :%s')", place, network, addr, err, port(addr))
	}
	return fmt.Errorf("%slisten %s %s: %w", place, network, addr, err)
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}
