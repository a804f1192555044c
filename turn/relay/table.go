package relay

import (
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Path is a UDP five-tuple seen from us: the client's transport address and
// the address of ours that it sent to.
type Path struct {
	Client, Server netip.AddrPort
}

// Table finds the relay of a UDP client. It is safe for concurrent use, and
// finding one takes no lock; that there is none is seen with its shard's.
type Table struct {
	shards [shards]shard
	strays atomic.Uint64
}

// shards are so many that each holds few relays: a change copies its map.
const shards = 512

type shard struct {
	mu     sync.Mutex // held by those who change the fields below
	relays atomic.Pointer[map[Path]*Relay]
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
		t.shards[i].relays.Store(&map[Path]*Relay{})
	}
	return t
}

func (t *Table) shard(p Path) *shard {
	// Clients behind one NAT differ in the port, others in the address.
	b := p.Client.Addr().As16()
	h := uint(p.Client.Port()) ^ uint(b[15])<<3 ^ uint(b[14])<<7 ^ uint(b[13])<<11
	return &t.shards[(h^h>>9)%shards]
}

// change replaces the relays of a shard. s.mu is held.
func (s *shard) change(f func(map[Path]*Relay)) {
	next := maps.Clone(*s.relays.Load())
	f(next)
	s.relays.Store(&next)
}

// Set makes r the relay of the path.
func (t *Table) Set(p Path, r *Relay) {
	s := t.shard(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change(func(relays map[Path]*Relay) { relays[p] = r })
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
	defer s.mu.Unlock()
	if (*s.relays.Load())[p] == r {
		s.change(func(relays map[Path]*Relay) { delete(relays, p) })
	}
}

// find returns the relay of a path, or nil.
func (t *Table) find(p Path) *Relay {
	s := t.shard(p)
	if r := (*s.relays.Load())[p]; r != nil {
		return r
	}
	s.mu.Lock()
	arrived := s.expected[p]
	s.mu.Unlock()
	if arrived == nil {
		return nil
	}
	arrived()
	return (*s.relays.Load())[p]
}

// Forward sends the payloads of ChannelData messages of one channel from a UDP
// client to their peer. It neither locks nor allocates and does not keep them.
// It reports false when the five-tuple has no relay or the channel is not
// bound.
func (t *Table) Forward(path Path, channel uint16, payloads []Frame) bool {
	r := t.find(path)
	if r == nil {
		t.strays.Add(uint64(len(payloads)))
		return false
	}
	return r.ForwardRun(channel, payloads)
}
