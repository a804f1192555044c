// Package offload relays the datagrams of bound channels in the kernel, before
// a socket sees them: an XDP program swaps ChannelData and plain UDP (RFC 8656
// section 12) by lookups in tables that this package fills, and hands
// everything else up as it came.
//
// The tables hold what user space has decided already. A binding that is not
// in them is relayed by turn/relay, so nothing depends on this package but
// speed.
package offload

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go@v0.22.0 -go-package offload -target bpfel -tags linux -output-stem program -no-global-types -cflags "-O2 -g -Wall -Wextra -Werror -mcpu=v3" program bpf/turn.c

// Engine relays bound channels. Its methods may be called by several
// goroutines at once.
type Engine interface {
	// Add installs a binding or renews the one with its Key, whose counters
	// go on. An error leaves nothing installed: the binding is relayed in
	// user space then.
	Add(Binding) error
	// Remove takes a binding out at once and returns what it had carried.
	Remove(Key) Counters
	// Stats returns what a binding has carried so far.
	Stats(Key) Counters
	// Refresh follows changes of the host: interfaces, their addresses and
	// settings. Call it every few seconds.
	Refresh()
	// Status describes the engine.
	Status() Status
	// Close takes everything out of the kernel. Counters are kept.
	Close() error
}

// Key names a binding: a channel of a five-tuple.
type Key struct {
	Client, Server netip.AddrPort // as they stand in the client's datagrams
	Channel        uint16
}

// Binding is a channel between a UDP client and a UDP peer.
type Binding struct {
	Key
	// Relay is the relayed transport address as it stands in packets, which
	// behind a NAT is not what clients are told. The unspecified address is
	// the one that this host sends to the peer from.
	Relay netip.AddrPort
	Peer  netip.AddrPort
	// Up and Down are until when datagrams pass to the peer and to the
	// client. They end on time even when this process does not run.
	Up, Down time.Time
}

// Counters are what a binding carried; bytes are payload. Up is client to peer.
type Counters struct {
	PacketsUp, BytesUp, PacketsDown, BytesDown uint64
}

// Sub returns what has come since an earlier reading.
func (c Counters) Sub(earlier Counters) Counters {
	return Counters{
		c.PacketsUp - earlier.PacketsUp, c.BytesUp - earlier.BytesUp,
		c.PacketsDown - earlier.PacketsDown, c.BytesDown - earlier.BytesDown,
	}
}

// Mode is how the program is attached to interfaces.
type Mode string

// Modes of an engine. Native runs in the driver, Generic behind it, which
// works with every driver and costs all other traffic of the interface.
const (
	Off     Mode = "off"
	Native  Mode = "native"
	Generic Mode = "generic"
)

// Options of an engine.
type Options struct {
	Mode Mode // Native or Generic
	// Interfaces to attach to. Empty means those that carry Addresses; one of
	// them without support for Mode is then left out.
	Interfaces []string
	// Addresses returns those that datagrams come to: of listeners and
	// relays. The unspecified address means every interface with an address.
	Addresses func() []netip.Addr
	// Bindings is how many bindings there may be at once, default 32768. A
	// thousand take about 0.4 MB of the kernel's memory.
	Bindings int
	Log      *slog.Logger // nil means slog.Default
}

// Status describes an engine.
type Status struct {
	Mode       Mode     `json:"mode"`
	Why        string   `json:"why,omitempty"` // of Off
	Interfaces []string `json:"interfaces,omitempty"`
	Bindings   int      `json:"bindings"`
	// Passed counts datagrams of bindings that went up to user space, by
	// reason.
	Passed map[string]uint64 `json:"passed,omitempty"`
}

// reasons are the names of enum reason in bpf/turn.c.
var reasons = [...]string{"expired", "malformed", "ttl", "length", "neighbour", "route", "headroom"}

// ErrUnsuitable is returned by Add for a binding that the program cannot
// serve, and ErrFull for one too many.
var (
	ErrUnsuitable = errors.New("binding is not for the kernel")
	ErrFull       = errors.New("no room for another binding in the kernel")
	errOff        = errors.New("no kernel packet path")
)

// None is the engine that relays nothing; Why says why there is no other.
type None struct{ Why string }

// Add implements Engine.
func (None) Add(Binding) error { return errOff }

// Remove implements Engine.
func (None) Remove(Key) Counters { return Counters{} }

// Stats implements Engine.
func (None) Stats(Key) Counters { return Counters{} }

// Refresh implements Engine.
func (None) Refresh() {}

// Status implements Engine.
func (n None) Status() Status { return Status{Mode: Off, Why: n.Why} }

// Close implements Engine.
func (None) Close() error { return nil }

// resolved checks a binding and finds the address that its relay sends from.
func (b Binding) resolved() (Binding, error) {
	for _, a := range []*netip.AddrPort{&b.Client, &b.Server, &b.Relay, &b.Peer} {
		*a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		// A link-local address says nothing without its interface.
		if !a.IsValid() || a.Port() == 0 || a.Addr().Zone() != "" || a.Addr().IsLinkLocalUnicast() || a.Addr().IsMulticast() || a.Addr().IsLoopback() {
			return b, fmt.Errorf("%w: address %v", ErrUnsuitable, *a)
		}
	}
	if b.Client.Addr().Is4() != b.Server.Addr().Is4() || b.Relay.Addr().Is4() != b.Peer.Addr().Is4() || b.Channel == 0 || b.Server.Addr().IsUnspecified() {
		return b, ErrUnsuitable
	}
	if b.Relay.Addr().IsUnspecified() {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(b.Peer)) // sends nothing
		if err != nil {
			return b, fmt.Errorf("%w: %v", ErrUnsuitable, err)
		}
		own := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		c.Close()
		if own.IsLinkLocalUnicast() || own.IsLoopback() {
			return b, fmt.Errorf("%w: address %v", ErrUnsuitable, own)
		}
		b.Relay = netip.AddrPortFrom(own, b.Relay.Port())
	}
	return b, nil
}
