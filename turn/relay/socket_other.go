//go:build !linux

package relay

import (
	"errors"
	"net"
	"net/netip"
)

// Without the destination of each datagram, answers leave from the address
// that the system's routing picks.
const oobSize = 0

func askDestination(*net.UDPConn, bool) error { return nil }

func destination([]byte) (netip.Addr, bool) { return netip.Addr{}, false }

func appendSource([]byte, netip.Addr) []byte { return nil }

// A full buffer is all there is to tell that a datagram was cut.
func truncated(_, n, room int) bool { return n == room }

// CanSetDontFragment says whether datagrams can be kept from being fragmented
// (RFC 8656 section 14).
const CanSetDontFragment = false

func setDontFragment(*net.UDPConn, bool, bool) error { return errors.ErrUnsupported }
