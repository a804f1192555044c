package turn

import (
	"net/netip"
	"sync"

	"github.com/turngate/turngate/turn/relay"
)

// relays finds the relays of this server by relayed transport address, for
// two clients that both have to relay.
type relays struct {
	mu     sync.RWMutex
	byAddr map[netip.AddrPort]*relay.Relay
}

func (t *relays) set(r *relay.Relay) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byAddr == nil {
		t.byAddr = make(map[netip.AddrPort]*relay.Relay)
	}
	t.byAddr[r.Relayed()] = r
}

func (t *relays) delete(r *relay.Relay) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byAddr[r.Relayed()] == r {
		delete(t.byAddr, r.Relayed())
	}
}

func (t *relays) get(a netip.AddrPort) *relay.Relay {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byAddr[a]
}

// deliver hands datagrams to the relay at to. It reports false when they have
// to go out, and true for some that went to a relay or must not leave: a
// relayed address that is no relay any more may be any program's.
func (s *Server) deliver(to, from netip.AddrPort, datagrams []relay.Frame) bool {
	set := s.settings.Load()
	if !set.isExternal(to.Addr()) {
		return false
	}
	if r := s.relays.get(to); r != nil {
		r.Deliver(from, datagrams)
		return true
	}
	return !set.policy.Check(to).Allowed()
}

// isExternal reports whether the address is one of our relayed addresses.
func (set *settings) isExternal(a netip.Addr) bool {
	for i := range set.Addresses {
		if set.Addresses[i].External == a {
			return true
		}
	}
	return false
}
