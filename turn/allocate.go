package turn

import (
	"encoding/binary"
	"log/slog"
	"net"
	"time"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/turn/wire"
)

// Lifetimes of allocations (RFC 8656 section 3.2 and 7.2).
const (
	defaultLifetime = 10 * time.Minute
	maxLifetime     = time.Hour

	reservationLifetime = 30 * time.Second // RFC 8656 section 7.2, at least that
)

// protocolUDP and protocolTCP are IANA protocol numbers in REQUESTED-TRANSPORT.
const (
	protocolUDP = 17
	protocolTCP = 6
)

// handleAllocate is RFC 8656 section 7.2; the numbers are those of its steps.
// Step 1, authentication, has been done.
func (s *Server) handleAllocate(r *request) {
	// 2. The five-tuple is in use: a retransmission gets the same answer.
	if ses := r.session; ses != nil {
		if again, ok := ses.retransmission(r); ok {
			if again != nil { // else it is being made, for a request that waited for a database
				r.from.answer(again)
			}
			return
		}
		s.refuse(r, 437)
		return
	}
	want, code := parseAllocate(r.msg, r.tuple.transport)
	if code == 0 {
		want.mobile, code = r.set.wantsTicket(r.msg)
	}
	if code != 0 {
		s.refuse(r, code)
		return
	}
	if isTrial(r.user) {
		want.lifetime = defaultLifetime
	}
	// 10. and 11. Quotas, and no new work while draining.
	if s.draining.Load() {
		s.refuseAllocate(r, 508)
		return
	}
	switch full := s.reserve(r, want); full {
	case 0:
	case codeRepeated: // while it is being served; the next one gets the answer
		s.metrics.dropped.WithLabelValues("retransmission").Inc()
		return
	default:
		s.refuseAllocate(r, full)
		return
	}
	ses, token, missing, code := s.allocate(r, want)
	if code != 0 {
		s.unreserve(r)
		if want.token != nil { // no other server has it
			s.refuse(r, code)
			return
		}
		s.refuseAllocate(r, code)
		return
	}
	b := wire.NewBuilder(wire.Allocate, wire.Success, r.msg.ID)
	for _, a := range ses.relayed() {
		b.AddAddress(wire.XORRelayedAddress, a)
	}
	if missing != 0 {
		b.AddAddressError(!ses.legs[0].v6(), missing)
	}
	b.AddUint32(wire.Lifetime, uint32(want.lifetime/time.Second))
	if token != nil {
		b.Add(wire.ReservationToken, token)
	}
	if want.mobile {
		ticket := ses.at.Load().ticket
		b.Add(wire.MobilityTicket, ticket[:])
	}
	b.AddAddress(wire.XORMappedAddress, r.tuple.client)
	ses.remember(r.msg.ID, s.finish(r, b, 0))
}

// remember keeps the answer of the Allocate for its retransmissions.
func (ses *session) remember(id wire.TransactionID, answer []byte) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	ses.request, ses.answer = id, answer
}

// retransmission reports whether the request is the one that made the
// allocation, and returns the answer to it.
func (ses *session) retransmission(r *request) (answer []byte, ok bool) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.user != r.user || ses.request != r.msg.ID {
		return nil, false
	}
	return ses.answer, true
}

// allocateRequest is what an Allocate asks for.
type allocateRequest struct {
	lifetime time.Duration
	v6       bool
	both     bool     // ADDITIONAL-ADDRESS-FAMILY: IPv4 and IPv6
	even     bool     // EVEN-PORT
	next     bool     // its R bit: reserve the next port
	token    *[8]byte // RESERVATION-TOKEN
	mobile   bool     // an empty MOBILITY-TICKET
}

// reservation returns the token of the request, zero without one.
func (want *allocateRequest) reservation() (token [8]byte) {
	if want.token != nil {
		token = *want.token
	}
	return token
}

// parseAllocate checks the attributes of an Allocate and returns the error
// code of the first fault, or 0.
func parseAllocate(m *wire.Message, transport Transport) (want allocateRequest, code int) {
	// 3. REQUESTED-TRANSPORT.
	protocol, ok := m.Get(wire.RequestedTransport)
	if !ok || len(protocol) != 4 {
		return want, 400
	}
	switch {
	case protocol[0] == protocolUDP:
	case protocol[0] == protocolTCP && transport == UDP:
		return want, 400 // RFC 6062 section 5.1
	default:
		return want, 442
	}
	// 5. and 6. RESERVATION-TOKEN and EVEN-PORT exclude each other.
	if token, ok := m.Get(wire.ReservationToken); ok {
		if len(token) != 8 || m.Has(wire.EvenPort) || m.Has(wire.RequestedAddressFamily) {
			return want, 400
		}
		t := [8]byte(token)
		want.token = &t
	}
	if even, ok := m.Get(wire.EvenPort); ok {
		if len(even) != 1 {
			return want, 400
		}
		want.even, want.next = true, even[0]&0x80 != 0
	}
	// 7. REQUESTED-ADDRESS-FAMILY.
	if family, ok := m.Get(wire.RequestedAddressFamily); ok {
		if len(family) != 4 {
			return want, 400
		}
		switch family[0] {
		case 1:
		case 2:
			want.v6 = true
		default:
			return want, 440
		}
	}
	// 8. ADDITIONAL-ADDRESS-FAMILY asks for IPv6 beside IPv4.
	family, ok := m.Get(wire.AdditionalAddressFamily)
	if !ok {
		family, ok = m.Get(wire.DraftAdditionalFamily)
	}
	if ok {
		if len(family) != 4 || family[0] != 2 || want.next || m.Has(wire.RequestedAddressFamily) || m.Has(wire.ReservationToken) {
			return want, 400
		}
		want.both = true
	}
	want.lifetime, ok = lifetime(m)
	if !ok {
		return want, 400
	}
	if want.lifetime == 0 {
		want.lifetime = defaultLifetime
	}
	return want, 0
}

// lifetime reads LIFETIME and brings it into the bounds of RFC 8656 section
// 7.2. Zero is returned as zero: a Refresh means it.
func lifetime(m *wire.Message) (time.Duration, bool) {
	value, ok := m.Get(wire.Lifetime)
	if !ok {
		return defaultLifetime, true
	}
	if len(value) != 4 {
		return 0, false
	}
	seconds := time.Duration(binary.BigEndian.Uint32(value)) * time.Second
	if seconds == 0 {
		return 0, true
	}
	return min(max(seconds, defaultLifetime), maxLifetime), true
}

// address returns the relayed address of a family.
func (set *settings) address(v6 bool) (Address, bool) {
	for _, a := range set.Addresses {
		if a.External.Is6() == v6 {
			return a, true
		}
	}
	return Address{}, false
}

// reserve counts an allocation against the quotas, or returns the code of the
// one that is used up.
func (s *Server) reserve(r *request, want allocateRequest) (code int) {
	code, over := s.tryReserve(r, want)
	if over >= 0 {
		s.limited(r, over)
	}
	return code
}

// tryReserve also returns the limit that refuses, or a negative one.
func (s *Server) tryReserve(r *request, want allocateRequest) (code int, over limitName) {
	l := r.set.Limits
	source := limit.Source(r.tuple.client.Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	all, ofUser, ofSource := len(s.sessions)+len(s.reservations), s.perUser[r.user], s.perSource[source]
	if res := s.reservations[want.reservation()]; res != nil { // its place becomes the allocation's
		all--
		if res.user == r.user {
			ofUser--
		}
		if res.source == source {
			ofSource--
		}
	}
	switch {
	case s.sessions[r.tuple] != nil, s.moving[r.tuple] != nil, s.opening[r.tuple]:
		return codeRepeated, -1
	case s.closed, !r.from.accepting():
		return 508, -1
	case l.Allocations > 0 && all >= l.Allocations:
		return 508, limitAllocations
	case l.AllocationsPerUser > 0 && ofUser >= l.AllocationsPerUser:
		return 486, limitPerUser
	case isTrial(r.user) && ofUser >= trialAllocations:
		return 486, limitPerUser
	case l.AllocationsPerAddress > 0 && ofSource >= l.AllocationsPerAddress:
		return 486, limitPerAddress
	}
	s.perUser[r.user]++
	s.perSource[source]++
	s.opening[r.tuple] = true
	return 0, -1
}

// codeRepeated is returned for an Allocate whose five-tuple is just getting its
// allocation, or has got it since the request came. Requests that wait for a
// database are handled beside the listener, which may receive them again.
const codeRepeated = -1

func (s *Server) unreserve(r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.opening, r.tuple)
	drop(s.perUser, r.user)
	drop(s.perSource, limit.Source(r.tuple.client.Addr()))
}

// allocate opens the relay sockets and makes the session. token is set when
// the next port has been reserved, missing is the reason why one of two
// families could not be had, and code is that of a refusal.
func (s *Server) allocate(r *request, want allocateRequest) (ses *session, token []byte, missing, code int) {
	at := place{tuple: r.tuple, from: r.from}
	if want.mobile {
		at.ticket = newTicket()
	}
	ses = s.newSession(at, want.lifetime)
	ses.user, ses.key, ses.algorithm, ses.realm = r.user, r.key, r.algorithm, r.realm
	ses.request = r.msg.ID // its answer comes later
	families := []bool{want.v6}
	switch {
	case want.both:
		families = []bool{false, true}
	case want.token != nil:
		families[0] = s.reservedFamily(*want.token)
	}
	for _, v6 := range families {
		if failed := s.openLeg(r, ses, v6, want, &token); failed != 0 {
			missing = failed
		}
	}
	if len(ses.legs) == 0 {
		return nil, nil, 0, missing
	}
	if err := s.start(ses, want.lifetime, r.set.Log); err != nil {
		s.release(token)
		s.cannotOpen(r, err)
		return nil, nil, 0, 508
	}
	return ses, token, missing, 0
}

// openLeg opens the relay socket of a family, or returns why not: 440 or 508.
func (s *Server) openLeg(r *request, ses *session, v6 bool, want allocateRequest, token *[]byte) (code int) {
	addr, ok := r.set.address(v6)
	if !ok {
		return 440
	}
	conn, reserved, err := s.open(r, addr, want)
	if err != nil {
		switch {
		case want.token != nil:
		case sameForAll(err):
			s.cannotOpen(r, err)
		default:
			s.limited(r, limitPorts)
		}
		r.set.Log.Debug("allocation refused", "client", r.tuple.client, "err", err)
		return 508
	}
	*token = reserved
	if err := ses.addLeg(conn, addr.External); err != nil {
		conn.Close()
		s.ports.of(v6).Return(conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		s.cannotOpen(r, err)
		return 508
	}
	return 0
}

// cannotOpen tells the operator why there is no relay although there are ports.
func (s *Server) cannotOpen(r *request, err error) {
	s.refusals.log(r.set.Log, "relay socket", "relay socket cannot be opened", "client", r.tuple.client, "err", err)
}

// newSession makes a session without a leg.
func (s *Server) newSession(at place, lifetime time.Duration) *session {
	ses := &session{
		s: s, id: newID(),
		created: time.Now(),
		expires: time.Now().Add(lifetime),
	}
	ses.at.Store(&at)
	return ses
}

// start brings the session to life: the allocator owns the end of its legs
// from here on. When it fails nothing is left.
func (s *Server) start(ses *session, lifetime time.Duration, log *slog.Logger) error {
	at := ses.at.Load()
	ses.log = log.With("session", ses.id, "client", at.tuple.client, "transport", at.tuple.transport,
		"user", printable(ses.user), "relay", ses.relayed())
	for i, l := range ses.legs {
		if err := l.start(lifetime); err != nil {
			ses.abandon(i)
			return err
		}
	}
	if len(ses.legs) == 2 {
		ses.legs[0].relay.SetNext(ses.legs[1].relay)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.opening, at.tuple)
	if ses.removed.Load() { // the server stops: it has ended already
		return nil
	}
	s.sessions[at.tuple] = ses
	if at.ticket != (ticket{}) {
		s.tickets[at.ticket] = ses
	}
	for _, l := range ses.live() {
		s.relays.set(l.relay)
		if l.gone.Load() { // it ended meanwhile
			s.relays.delete(l.relay)
		}
	}
	if at.tuple.transport == UDP {
		s.table.Set(at.path(), ses.legs[0].relay)
	}
	at.from.opened(ses)
	s.metrics.opened(ses)
	s.joined(ses)
	ses.log.Info("allocation open")
	return nil
}

// abandon undoes a start that failed at leg n: the legs before it are ended,
// those behind it were never started.
func (ses *session) abandon(n int) {
	ses.removed.Store(true) // it was never there: nothing is logged or counted
	for i, l := range ses.legs {
		switch {
		case i < n:
			_ = l.alloc.Close()
		case i > n:
			l.relay.Close()
			ses.s.ports.of(l.v6()).Return(l.port)
		}
	}
}
