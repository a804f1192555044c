package main

import (
	"net"
	"net/netip"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/turn"
)

// relayAddresses returns what TURN hands out and what its relay sockets are
// bound to, at most one of each family. Without a configured address it is
// the one that this host's traffic leaves from.
func relayAddresses(configured []config.ExternalIP) []turn.Address {
	own := hostAddresses()
	var all []turn.Address
	add := func(a turn.Address) {
		for _, have := range all {
			if have.External.Is4() == a.External.Is4() {
				return
			}
		}
		all = append(all, a)
	}
	for _, e := range configured {
		add(turn.Address{External: e.Public, Local: localFor(e, own)})
	}
	if len(configured) == 0 {
		for _, a := range discover() {
			add(turn.Address{External: a, Local: a})
		}
	}
	return all
}

// localFor returns the address that relay sockets of an external address are
// bound to: its private half, itself when this host has it, and otherwise any,
// for a host behind a NAT whose pair nobody wrote down.
func localFor(e config.ExternalIP, own map[netip.Addr]bool) netip.Addr {
	switch {
	case e.Private.IsValid():
		return e.Private
	case own[e.Public] || e.Public.IsLoopback():
		return e.Public
	case e.Public.Is4():
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// hostAddresses returns the addresses of this host's interfaces.
func hostAddresses() map[netip.Addr]bool {
	own := make(map[netip.Addr]bool)
	addrs, _ := net.InterfaceAddrs() // none is an answer too
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own[p.Addr().Unmap()] = true
		}
	}
	return own
}

// discover finds the addresses that this host's traffic to the Internet leaves
// from, IPv4 first; loopback when there is no other.
func discover() []netip.Addr {
	var found []netip.Addr
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} { // documentation addresses: nothing is sent
		c, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		a := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		c.Close()
		if a.IsGlobalUnicast() {
			found = append(found, a)
		}
	}
	if len(found) > 0 {
		return found
	}
	for a := range hostAddresses() {
		if a.Is4() && a.IsGlobalUnicast() {
			return []netip.Addr{a}
		}
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
}
