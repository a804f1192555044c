package relay

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// Path is a UDP five-tuple seen from us: the client's transport address and
// the address of ours that it sent to.
type Path struct {
	Client, Server netip.AddrPort
}

// Table finds the relay of a UDP client. It is safe for concurrent use.
type Table struct {
	shards [64]shard
	strays atomic.Uint64
}

type shard struct {
	mu     sync.RWMutex
	relays map[Path]*Relay
	// expected are paths whose clients may turn out to have a relay; see Expect.
	expected map[Path]func()
}

// Strays returns how many ChannelData messages came from clients without a
// relay.
func (t *Table) Strays() uint64 { return t.strays.Load() }

// NewTable returns an empty table.
func NewTable() *Table {
	t := new(Table)
	for i := range t.shards {
		t.shards[i].relays = make(map[Path]*Relay)
	}
	return t
}

func (t *Table) shard(p Path) *shard {
	// Clients behind one NAT differ in the port, others in the address.
	b := p.Client.Addr().As16()
	h := uint(p.Client.Port()) ^ uint(b[15])<<3 ^ uint(b[14])<<7 ^ uint(b[13])<<11
	return &t.shards[(h^h>>6)%uint(len(t.shards))]
}

// Set makes r the relay of the path.
func (t *Table) Set(p Path, r *Relay) {
	s := t.shard(p)
	s.mu.Lock()
	s.relays[p] = r
	s.mu.Unlock()
}

// Expect has arrived called when ChannelData comes on a path without a relay,
// before it is judged: arrived may Set one. nil expects nothing any more.
func (t *Table) Expect(p Path, arrived func()) {
	s := t.shard(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case arrived == nil:
		delete(s.expected, p)
	case s.expected == nil:
		s.expected = map[Path]func(){p: arrived}
	default:
		s.expected[p] = arrived
	}
}

// Delete forgets the path if r is still its relay.
func (t *Table) Delete(p Path, r *Relay) {
	s := t.shard(p)
	s.mu.Lock()
	if s.relays[p] == r {
		delete(s.relays, p)
	}
	s.mu.Unlock()
}

// Forward sends the payload of a ChannelData message from a UDP client to its
// peer. It does not allocate and does not keep p. It reports false when the
// five-tuple has no relay or the channel is not bound.
func (t *Table) Forward(path Path, channel uint16, p []byte) bool {
	s := t.shard(path)
	s.mu.RLock()
	r := s.relays[path]
	s.mu.RUnlock()
	if r == nil {
		if r = t.arrive(path); r == nil {
			t.strays.Add(1)
			return false
		}
	}
	return r.Forward(channel, p)
}

// arrive returns the relay of a path that has got one just because something
// came on it.
func (t *Table) arrive(path Path) *Relay {
	s := t.shard(path)
	s.mu.RLock()
	arrived := s.expected[path]
	s.mu.RUnlock()
	if arrived == nil {
		return nil
	}
	arrived()
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.relays[path]
}
