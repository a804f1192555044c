// Package peers decides which addresses a TURN client may reach through the
// relay.
//
// A relay in a DMZ stands on the inside of the packet filter, so a peer
// address that a client names is a request to send a datagram from there. The
// policy refuses, before anything else is asked, what no media peer on the
// Internet has: loopback, private, link-local, documentation and multicast
// addresses, every IPv6 form that carries an IPv4 address, and the server
// itself. The operator's rules stand above that table.
//
// An address is judged in this order; the first that applies decides.
//
//  1. Own listeners. A port this process listens on, at any address that
//     leads to this host, is never a peer, whatever the operator's rules say:
//     the relay would talk to itself.
//  2. The operator's rules, allow and deny together. The longest prefix
//     decides; between equal prefixes the smaller port range; between equal
//     rules deny. So deny "0.0.0.0/0" with allow "203.0.113.0/24" leaves one
//     network open, and allow "10.0.0.0/8" with deny "10.1.2.3" closes one
//     host. An allow rule reaches above the rest of this list.
//  3. Relayed addresses of this server that are in use, if RelayToRelay is
//     set: two clients of the same server that both have to relay.
//  4. The built-in table (see [Table]).
//  5. The host's own addresses and the broadcast addresses of its subnets.
//  6. What is left is the Internet: allowed, on the ports of Options.Ports.
//
// IPv4-mapped addresses are IPv4 addresses here and in what Check returns.
// The other carriers of IPv4 (NAT64, 6to4, Teredo, IPv4-compatible,
// IPv4-translated) are refused by the table; if an operator allows one of
// them, the IPv4 address inside is judged as well, and both must pass.
package peers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options configure a Policy. The zero value refuses the built-in table and
// the addresses of this host's interfaces.
type Options struct {
	Allow, Deny []Rule

	// Ports limits the ports of peers that no allow rule names.
	// Empty means every port.
	Ports []PortRange

	// Own returns the addresses of this host, each with the length of its
	// subnet, and those that lead to it from outside (an external address
	// in front of a NAT, as a single-address prefix). Nil means
	// [InterfaceAddrs]; a caller with external addresses appends to that.
	// It is called by New and Refresh only.
	Own func() []netip.Prefix

	// Listeners returns every address this process listens on; an
	// unspecified address counts as all of them. The port alone matters:
	// it is refused at every address that leads to this host, so that
	// neither a NAT nor a second interface is a way around. May be nil. It
	// is called by New and Refresh only.
	Listeners func() []netip.AddrPort

	// RelayToRelay lets a client reach the relayed address of another
	// client of this server. IsRelay must then report whether an address
	// is a relayed address in use, as clients know it. It is called from
	// Check, at once from several goroutines, for own addresses only.
	RelayToRelay bool
	IsRelay      func(netip.AddrPort) bool

	// RelayPorts is the range relayed addresses come from. CheckPermission
	// accepts own addresses in it; zero means any port.
	RelayPorts PortRange
}

// Policy answers whether a peer may be reached. Its methods may be called at
// once; Check neither locks nor allocates.
type Policy struct {
	opts Options // fixed after New
	snap atomic.Pointer[snapshot]

	mu  sync.Mutex // one Refresh at a time; guards the fields below
	own []netip.Prefix
	lis []uint16
}

// New checks the options, reads the host's addresses once and starts nothing;
// see Run for keeping them fresh.
func New(o Options) (*Policy, error) {
	if o.RelayToRelay && o.IsRelay == nil {
		return nil, fmt.Errorf("relay to relay without a way to tell relayed addresses")
	}
	for _, r := range slices.Concat(o.Allow, o.Deny) {
		if err := r.check(); err != nil {
			return nil, err
		}
	}
	for _, r := range append(slices.Clone(o.Ports), o.RelayPorts) {
		if r.Lo > r.Hi {
			return nil, fmt.Errorf("port range %v: the first port is above the last", r)
		}
	}
	o.Allow, o.Deny, o.Ports = slices.Clone(o.Allow), slices.Clone(o.Deny), slices.Clone(o.Ports)
	if o.Own == nil {
		o.Own = InterfaceAddrs
	}
	p := &Policy{opts: o}
	p.Refresh()
	return p, nil
}

// Refresh reads the host's addresses and listeners again and reports whether
// they changed. Checks under way finish with what they began with.
func (p *Policy) Refresh() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	own, lis := ownPrefixes(p.opts.Own()), listenerPorts(p.opts.Listeners)
	if p.snap.Load() != nil && slices.Equal(own, p.own) && slices.Equal(lis, p.lis) {
		return false
	}
	p.own, p.lis = own, lis
	p.snap.Store(compile(&p.opts, own, lis))
	return true
}

// Run calls Refresh every interval until ctx ends. An interval of some seconds
// is right: an address that a host gains is refused that much later.
func (p *Policy) Run(ctx context.Context, interval time.Duration) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			p.Refresh()
		}
	}
}

// Check judges one destination of a datagram, and the peer of a ChannelBind.
// It neither locks nor allocates. Port 0 is refused.
func (p *Policy) Check(peer netip.AddrPort) Verdict {
	v := Verdict{Peer: canonical(peer)}
	v.by = p.snap.Load().judge(v.Peer, p.isLiveRelay)
	return v
}

// CheckPermission judges a peer of a CreatePermission request. A permission is
// for the address (RFC 8656 section 9), so it passes when any port of the
// address could be reached; each datagram is checked again with its own port.
// The port the client sent counts in two cases: an own listener is refused,
// and so is an own address outside RelayPorts. Port 0 stands for any port.
func (p *Policy) CheckPermission(peer netip.AddrPort) Verdict {
	v := Verdict{Peer: canonical(peer)}
	s, port := p.snap.Load(), peer.Port()
	asked := netip.AddrPortFrom(v.Peer.Addr(), max(port, 1))
	relay := func(a netip.AddrPort) bool {
		return p.opts.RelayToRelay && (port == 0 || a.Port() == port && p.opts.RelayPorts.Contains(port))
	}
	v.by = s.judge(asked, relay)
	if v.by == nil || v.by == byListener && port != 0 || v.by == byNoAddress {
		return v
	}
	for _, c := range s.portEdges(v.Peer.Addr()) {
		if s.judge(netip.AddrPortFrom(v.Peer.Addr(), c), relay) == nil {
			v.by = nil
			return v
		}
	}
	return v
}

// CheckAddr is CheckPermission for an address without a port.
func (p *Policy) CheckAddr(addr netip.Addr) Verdict {
	return p.CheckPermission(netip.AddrPortFrom(addr, 0))
}

func (p *Policy) isLiveRelay(a netip.AddrPort) bool {
	return p.opts.RelayToRelay && p.opts.IsRelay(a)
}

// Verdict is the answer for one peer.
type Verdict struct {
	// Peer is the address to use from here on: IPv4-mapped became IPv4, a
	// zone is gone.
	Peer netip.AddrPort

	by *reason // nil: allowed
}

// Allowed reports whether the peer may be reached.
func (v Verdict) Allowed() bool { return v.by == nil }

// Rule names what refused the peer, such as "private 10.0.0.0/8 (RFC 1918)"
// or "deny 203.0.113.0/24 from turn.peers.deny"; it is empty for an allowed
// peer. The string is ready made.
func (v Verdict) Rule() string {
	if v.by == nil {
		return ""
	}
	return v.by.name
}

// Remedy tells the operator what to do if the peer was meant; it is empty for
// an allowed peer.
func (v Verdict) Remedy() string {
	if v.by == nil {
		return ""
	}
	return v.by.remedy(v.Peer)
}

// canonical returns the form of an address that the policy knows it by.
func canonical(peer netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(peer.Addr().Unmap().WithZone(""), peer.Port())
}
