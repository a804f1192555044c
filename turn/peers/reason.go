package peers

import (
	"fmt"
	"net/netip"
)

// reason is why a peer was refused, or, with allow set, an operator's rule
// that lets it pass.
type reason struct {
	name  string
	kind  kind
	rule  Rule // kindRule only
	allow bool // kindRule only
}

type kind uint8

const (
	kindNever kind = iota // no rule of the operator changes it
	kindTable
	kindOwn
	kindRule
	kindPorts
)

var (
	byNoAddress = &reason{name: "not an address"}
	byPortZero  = &reason{name: "port 0"}
	byListener  = &reason{name: "own listener"}
	byPorts     = &reason{name: "port outside the allowed peer ports", kind: kindPorts}
	byOwn       = &reason{name: "own address", kind: kindOwn}
	byBroadcast = &reason{name: "broadcast or anycast address of an own subnet", kind: kindOwn}
)

func (r *reason) remedy(peer netip.AddrPort) string {
	switch r.kind {
	case kindTable, kindOwn:
		return fmt.Sprintf("if this peer is meant, add %q to turn.peers.allow", peer.Addr())
	case kindPorts:
		return fmt.Sprintf("if this peer is meant, add %q to turn.peers.allow", peer)
	case kindRule:
		return fmt.Sprintf("if this peer is meant, take %q out of %s, or add %q to turn.peers.allow",
			r.rule, r.rule.origin("turn.peers.deny"), peer.Addr())
	default:
		return "none: no peer has such an address"
	}
}

// ruleReason names an operator's rule once, so that a check formats nothing.
func ruleReason(r Rule, allow bool) *reason {
	name := "deny " + r.String() + " from " + r.origin("turn.peers.deny")
	if allow {
		name = "allow " + r.String() + " from " + r.origin("turn.peers.allow")
	}
	return &reason{name: name, kind: kindRule, rule: r, allow: allow}
}
