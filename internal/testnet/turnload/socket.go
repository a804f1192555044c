package main

import "net/netip"

// datagram is one received datagram; it is valid until the next read.
type datagram struct {
	data []byte
	from netip.AddrPort
	to   netip.Addr // our address, where a socket stands for many
	at   int64      // when the kernel had it, Unix nanoseconds
}

// socketOptions say how a socket is opened.
type socketOptions struct {
	namespace string         // network namespace; empty: our own
	bind      netip.AddrPort // an unspecified address makes a socket for many
	gro       bool
}
