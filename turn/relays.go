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

// deliver hands a payload to the relay at to. It reports false when there is
// none.
func (t *relays) deliver(to, from netip.AddrPort, p []byte) bool {
	r := t.get(to)
	if r == nil {
		return false
	}
	r.Deliver(from, p)
	return true
}
