package turn

import (
	"crypto/rand"
	"encoding/base64"
	"time"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/turn/relay"
	"github.com/turngate/turngate/turn/wire"
)

// A place is where the client of a session is, and the way back to it.
type place struct {
	tuple fiveTuple
	from  client
	// ticket lets the client take its allocation from here to another
	// five-tuple; zero when it did not ask for mobility.
	ticket ticket
	expiry *time.Timer // of a place that nothing is heard from; nil once it is the session's
}

// path is the five-tuple as the data plane has it.
func (p *place) path() relay.Path { return relay.Path{Client: p.tuple.client, Server: p.tuple.server} }

// ticket is the value of a MOBILITY-TICKET (RFC 8016 section 3.1.2): a random
// handle, which says nothing and cannot be changed into another one that is
// good. It is of use only together with the credential of its user. It is
// text, because coturn's client tools keep it in a C string of 32 characters.
type ticket [32]byte

func newTicket() (t ticket) {
	var random [24]byte
	rand.Read(random[:])
	base64.RawURLEncoding.Encode(t[:], random[:])
	return t
}

// moveWithin is how long a client may take from the answer to a ticket until
// it is heard at its new five-tuple. Then the session stays where it was, and
// the ticket that brought the client there is good again.
const moveWithin = 30 * time.Second

// wantsTicket reads the MOBILITY-TICKET of an Allocate: an empty one asks for
// mobility. Where that is not switched on the attribute is not known, and as
// it is comprehension-optional it counts for nothing.
func (set *settings) wantsTicket(m *wire.Message) (wanted bool, code int) {
	value, ok := m.Get(wire.MobilityTicket)
	switch {
	case !ok || !set.Mobility:
		return false, 0
	case len(value) != 0:
		return false, 400
	}
	return true, 0
}

// ticketed returns the session that the ticket of a Refresh stands for, or nil.
func (s *Server) ticketed(m *wire.Message) *session {
	value, ok := m.Get(wire.MobilityTicket)
	if !ok || m.Method != wire.Refresh || m.Class != wire.Request || len(value) != len(ticket{}) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tickets[ticket(value)]
}

// move begins to bring a session to the five-tuple of a request that has
// shown its ticket and its user's credential, or returns the code that refuses
// it (RFC 8016 section 3.2.2). The session is reached at both five-tuples, and
// hears its peers at the old one, until its client is heard at the new one; see
// arrived. It counts against the limits of both addresses meanwhile.
func (s *Server) move(r *request, ses *session) (t ticket, code int) {
	t, code, limited := s.beginMove(r, ses)
	if limited {
		s.limited(r, limitPerAddress)
	}
	return t, code
}

func (s *Server) beginMove(r *request, ses *session) (t ticket, code int, limited bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, next := ses.at.Load(), ses.next.Load()
	switch {
	case ses.removed.Load():
		return t, 437, false
	case next != nil && next.tuple == r.tuple: // the answer was lost
		return next.ticket, 0, false
	case s.sessions[r.tuple] != nil, s.moving[r.tuple] != nil, s.opening[r.tuple]:
		return t, 437, false
	case s.closed, !r.from.accepting():
		return t, 508, false
	}
	source, most := limit.Source(r.tuple.client.Addr()), r.set.Limits.AllocationsPerAddress
	held := s.perSource[source]
	if next != nil && limit.Source(next.tuple.client.Addr()) == source {
		held--
	}
	if most > 0 && source != limit.Source(at.tuple.client.Addr()) && held >= most {
		return t, 486, true
	}
	if next != nil { // it has moved on before it was heard
		s.stay(ses, next)
	}
	next = &place{tuple: r.tuple, from: r.from, ticket: newTicket()}
	s.perSource[source]++
	s.moving[next.tuple] = ses
	s.tickets[next.ticket] = ses
	ses.next.Store(next)
	next.from.opened(ses)
	if next.tuple.transport == UDP {
		s.table.Expect(next.path(), func() { ses.arrived(next.tuple) })
	}
	next.expiry = time.AfterFunc(moveWithin, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if ses.next.Load() == next {
			s.stay(ses, next)
		}
	})
	if at.tuple.away != 0 {
		s.settle(ses, next)
	}
	return next.ticket, 0, false
}

// arrived completes a move when the client is heard at its new five-tuple.
// RFC 8016 waits for data; any request but the ticket's own shows as much,
// and a client that only receives sends nothing else.
func (ses *session) arrived(t fiveTuple) {
	next := ses.next.Load()
	if next == nil || next.tuple != t {
		return
	}
	s := ses.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if ses.next.Load() == next && !ses.removed.Load() {
		s.settle(ses, next)
	}
}

// settle makes the new place the session's. s.mu is held.
func (s *Server) settle(ses *session, next *place) {
	old := ses.at.Load()
	next.expiry.Stop()
	ses.next.Store(nil)
	delete(s.moving, next.tuple)
	delete(s.tickets, old.ticket)
	s.sit(ses, next)
	drop(s.perSource, limit.Source(old.tuple.client.Addr()))
	old.from.closed()
	s.metrics.moves.Inc()
	ses.log.Info("allocation moved", "to", next.tuple.client, "over", next.tuple.transport)
}

// stay gives a move up: the session stays where it was. s.mu is held.
func (s *Server) stay(ses *session, next *place) {
	next.expiry.Stop()
	ses.next.Store(nil)
	delete(s.moving, next.tuple)
	delete(s.tickets, next.ticket)
	if next.tuple.transport == UDP {
		s.table.Expect(next.path(), nil)
	}
	drop(s.perSource, limit.Source(next.tuple.client.Addr()))
	next.from.closed()
}

// sit changes the place of a live session in all books but those of the
// addresses. s.mu is held.
func (s *Server) sit(ses *session, next *place) {
	old := ses.at.Load()
	s.metrics.moved(ses, old.tuple.transport, next.tuple.transport)
	delete(s.sessions, old.tuple)
	s.sessions[next.tuple] = ses
	ses.at.Store(next)
	if next.tuple.transport == UDP {
		s.table.Expect(next.path(), nil)
		s.table.Set(next.path(), ses.legs[0].relay)
	}
	if old.tuple.transport == UDP {
		s.table.Delete(old.path(), ses.legs[0].relay)
	}
	for _, l := range ses.legs {
		l.relay.SetEgress(next.from.egress())
		l.sync()
	}
	s.resource(ses)
}

// lost is called when the connection of a client has ended: the allocation ends
// with it, unless the client has a ticket and may come back with it.
func (ses *session) lost(t fiveTuple, reason string) {
	s := ses.s
	s.mu.Lock()
	at, next := ses.at.Load(), ses.next.Load()
	switch {
	case ses.removed.Load():
	case next != nil && next.tuple == t:
		s.stay(ses, next)
	case at.tuple != t: // it has left
	case at.ticket == ticket{}, s.closed:
		s.mu.Unlock()
		ses.end(reason)
		return
	case next != nil:
		s.settle(ses, next)
	default:
		s.away++
		// The five-tuple may be another client's soon.
		away := &place{tuple: at.tuple, from: nowhere{s}, ticket: at.ticket}
		away.tuple.away = s.away
		s.sit(ses, away)
		at.from.closed()
		ses.log.Info("allocation waits for its client", "reason", reason)
	}
	s.mu.Unlock()
}

// nowhere is the client of a session whose connection is lost.
type nowhere struct{ s *Server }

func (n nowhere) answer([]byte) {}

func (n nowhere) egress() relay.Egress { return n }

// Send implements relay.Egress.
func (n nowhere) Send(frames []relay.Frame) { n.s.unreachable.Add(uint64(len(frames))) }

func (n nowhere) opened(*session) {}

func (n nowhere) closed() {}

func (n nowhere) accepting() bool { return true }
