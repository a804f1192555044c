package edge

import (
	"net/netip"

	"github.com/turngate/turngate/internal/limit"
)

// CapNumbers are the bounds on connections; 0 means no bound. Sources are
// counted as limit.Source says: an IPv4 address, an IPv6 /64.
type CapNumbers struct {
	Conns             int // open connections in all
	ConnsPerSource    int // open connections of one source
	HalfOpen          int // connections in all whose peer has not proved itself; a newer one takes the oldest one's place
	HalfOpenPerSource int // the same of one source

	HandshakesPerSource int // TLS handshakes a second of one source
	HandshakeBurst      int // how many may come at once; less than HandshakesPerSource means that
}

// DefaultCaps lets a company of thousands behind one address in, also when all
// of them come back at once after an outage, and keeps one address from taking
// everything. HalfOpen bounds the memory of stalled handshakes to some 100 MB.
var DefaultCaps = CapNumbers{
	Conns:             50_000,
	ConnsPerSource:    2_000,
	HalfOpen:          4_000,
	HalfOpenPerSource: 1_000,
}

// Caps counts the connections of any number of Listeners against CapNumbers.
type Caps struct {
	conns         *limit.Cap
	connsBySource *limit.KeyedCap[netip.Prefix]
	halfOpen      *waiting
	handshakes    *limit.KeyedRate[netip.Prefix]
}

// rememberedSources bounds the memory of handshakes to some MB.
const rememberedSources = 1 << 14

// NewCaps returns Caps with the given bounds.
func NewCaps(n CapNumbers) *Caps {
	c := &Caps{
		conns:         limit.NewCap(n.Conns),
		connsBySource: limit.NewKeyedCap[netip.Prefix](n.ConnsPerSource),
		halfOpen:      newWaiting(n.HalfOpen, n.HalfOpenPerSource),
		handshakes:    limit.NewKeyedRate[netip.Prefix](0, 0, rememberedSources),
	}
	c.setRate(n)
	return c
}

func (c *Caps) setRate(n CapNumbers) {
	c.handshakes.SetLimit(float64(n.HandshakesPerSource), max(n.HandshakesPerSource, n.HandshakeBurst))
}

// Set changes the bounds. Connections above a lowered bound live on.
func (c *Caps) Set(n CapNumbers) {
	c.conns.SetMax(n.Conns)
	c.connsBySource.SetMax(n.ConnsPerSource)
	c.halfOpen.set(n.HalfOpen, n.HalfOpenPerSource)
	c.setRate(n)
}

// Open returns how many connections are open, HalfOpen how many of them have
// not proved themselves yet.
func (c *Caps) Open() int     { return c.conns.Held() }
func (c *Caps) HalfOpen() int { return c.halfOpen.count() }

// slots is what one connection holds of its Caps. Not for concurrent use.
type slots struct {
	caps     *Caps
	source   netip.Prefix
	conn     bool    // a slot of the total
	bySource bool    // one of connsBySource
	place    *waiter // among those who have not proved themselves
}

// takeTotals takes a slot of each total, before the source is known for sure. out is
// called if the connection has to make room for a newer one before it has proved
// itself.
func (s *slots) takeTotals(out func(why reason)) reason {
	if s.conn = s.caps.conns.Acquire(); !s.conn {
		return tooManyConns
	}
	s.place = &waiter{out: out}
	s.caps.halfOpen.enter(s.place)
	return ""
}

// takeSource takes the slots of the source addr.
func (s *slots) takeSource(addr netip.Addr) reason {
	s.source = limit.Source(addr)
	if s.bySource = s.caps.connsBySource.Acquire(s.source); !s.bySource {
		return tooManyConnsOfSource
	}
	s.caps.halfOpen.countSource(s.place, s.source)
	return ""
}

// proved gives the place among the half-open ones up.
func (s *slots) proved() {
	if s.place != nil {
		s.caps.halfOpen.leave(s.place)
		s.place = nil
	}
}

// release gives everything back. It may be called more than once.
func (s *slots) release() {
	s.proved()
	if s.conn {
		s.caps.conns.Release()
		s.conn = false
	}
	if s.bySource {
		s.caps.connsBySource.Release(s.source)
		s.bySource = false
	}
}
