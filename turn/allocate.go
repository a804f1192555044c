package turn

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/turngate/turngate/turn/relay"
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
		if again := ses.retransmission(r); again != nil {
			r.from.answer(again)
			return
		}
		s.refuse(r, 437)
		return
	}
	want, code := parseAllocate(r.msg, r.tuple.transport)
	if code != 0 {
		s.refuse(r, code)
		return
	}
	// 7. REQUESTED-ADDRESS-FAMILY.
	addr, ok := r.set.address(want.v6)
	if !ok {
		s.refuse(r, 440)
		return
	}
	// 10. and 11. Quotas, and no new work while draining.
	if s.draining.Load() {
		s.refuse(r, 508)
		return
	}
	if full := s.reserve(r); full != 0 {
		s.refuse(r, full)
		return
	}
	ses, token, err := s.allocate(r, addr, want)
	if err != nil {
		s.unreserve(r)
		r.set.Log.Debug("allocation refused", "client", r.tuple.client, "err", err)
		s.refuse(r, 508)
		return
	}
	b := wire.NewBuilder(wire.Allocate, wire.Success, r.msg.ID)
	b.AddAddress(wire.XORRelayedAddress, ses.relay.Relayed())
	b.AddUint32(wire.Lifetime, uint32(want.lifetime/time.Second))
	if token != nil {
		b.Add(wire.ReservationToken, token)
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

func (ses *session) retransmission(r *request) []byte {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.user != r.user || ses.request != r.msg.ID {
		return nil
	}
	return ses.answer
}

// allocateRequest is what an Allocate asks for.
type allocateRequest struct {
	lifetime time.Duration
	v6       bool
	even     bool     // EVEN-PORT
	next     bool     // its R bit: reserve the next port
	token    *[8]byte // RESERVATION-TOKEN
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
func (s *Server) reserve(r *request) (code int) {
	l := r.set.Limits
	addr := r.tuple.client.Addr()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed, !r.from.accepting(), l.Allocations > 0 && len(s.sessions) >= l.Allocations:
		return 508
	case l.AllocationsPerUser > 0 && s.perUser[r.user] >= l.AllocationsPerUser,
		l.AllocationsPerAddress > 0 && s.perAddress[addr] >= l.AllocationsPerAddress:
		return 486
	}
	s.perUser[r.user]++
	s.perAddress[addr]++
	return 0
}

func (s *Server) unreserve(r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	drop(s.perUser, r.user)
	drop(s.perAddress, r.tuple.client.Addr())
}

// allocate opens the relay socket and makes the session. token is set when the
// next port has been reserved.
func (s *Server) allocate(r *request, addr Address, want allocateRequest) (ses *session, token []byte, err error) {
	conn, port, err := s.open(addr, want)
	if err != nil {
		return nil, nil, err
	}
	if want.next {
		if token, err = s.hold(addr, port+1); err != nil {
			conn.Close()
			s.ports.Return(port)
			return nil, nil, err
		}
	}
	ses = s.newSession(r.tuple, r.from, conn, addr, want.lifetime)
	ses.user, ses.key, ses.algorithm, ses.realm = r.user, r.key, r.algorithm, r.realm
	if err = s.start(ses, want.lifetime, r.set.Log); err != nil {
		s.ports.Return(port)
		s.release(token)
		return nil, nil, err
	}
	return ses, token, nil
}

// newSession makes the session of an open relay socket, which it owns from
// here on.
func (s *Server) newSession(tuple fiveTuple, from client, conn *net.UDPConn, addr Address, lifetime time.Duration) *session {
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	ses := &session{
		s: s, id: newID(), tuple: tuple, from: from,
		local:   netip.AddrPortFrom(local.Addr().Unmap(), local.Port()),
		created: time.Now(),
		expires: time.Now().Add(lifetime),
	}
	ids := newTransactionIDs()
	ses.relay = relay.New(relay.Options{
		Conn:   conn,
		Egress: from.egress(),
		Clock:  s.clock,
		Indicate: func(dst []byte, peer netip.AddrPort, p []byte) []byte {
			return wire.AppendDataIndication(dst, ids.next(), peer, p)
		},
		Local:   s.deliver,
		Relayed: netip.AddrPortFrom(addr.External, local.Port()),
	})
	return ses
}

// start brings the session to life: the allocator owns its end from here on.
// When it fails the relay socket is closed and nothing is left.
func (s *Server) start(ses *session, lifetime time.Duration, log *slog.Logger) error {
	ses.log = log.With("session", ses.id, "client", ses.tuple.client, "transport", ses.tuple.transport,
		"user", printable(ses.user), "relay", ses.relay.Relayed())
	alloc, err := s.allocator.Allocate(ses.relay, ses.relay.Relayed(), lifetime, ses.ended)
	if err != nil {
		return err
	}
	ses.alloc = alloc
	s.mu.Lock()
	defer s.mu.Unlock()
	if ses.removed.Load() { // the server stops: it has ended already
		return nil
	}
	s.sessions[ses.tuple] = ses
	s.relays.set(ses.relay)
	if ses.tuple.transport == UDP {
		s.table.Set(relay.Path{Client: ses.tuple.client, Server: ses.tuple.server}, ses.relay)
	}
	ses.from.opened(ses)
	s.metrics.opened(ses)
	ses.log.Info("allocation open")
	return nil
}

// portTries bounds how many ports held by other programs one request skips.
const portTries = 16

// open takes a port of the range and binds it. A port that another program
// holds is set aside and another one tried.
func (s *Server) open(addr Address, want allocateRequest) (*net.UDPConn, uint16, error) {
	if want.token != nil {
		return s.redeem(addr, *want.token)
	}
	var last error
	for range portTries {
		port, err := s.take(want)
		if err != nil {
			return nil, 0, errors.Join(err, last)
		}
		conn, err := bind(addr, port)
		if err == nil {
			return conn, port, nil
		}
		last = fmt.Errorf("relay port %d: %w", port, err)
		s.ports.Busy(port)
		if want.next {
			s.ports.Return(port + 1)
		}
	}
	return nil, 0, last
}

func (s *Server) take(want allocateRequest) (uint16, error) {
	switch {
	case want.next:
		return s.ports.TakePair()
	case want.even:
		return s.ports.TakeEven()
	}
	return s.ports.Take()
}

// reservation holds the port behind an even one, with its socket bound so
// that nobody else gets it (RFC 8656 section 7.2).
type reservation struct {
	addr  Address
	port  uint16
	conn  *net.UDPConn
	timer *time.Timer
}

// hold reserves a port that has been taken and returns its token.
func (s *Server) hold(addr Address, port uint16) ([]byte, error) {
	conn, err := bind(addr, port)
	if err != nil {
		s.ports.Busy(port)
		return nil, fmt.Errorf("relay port %d: %w", port, err)
	}
	var token [8]byte
	rand.Read(token[:])
	res := &reservation{addr: addr, port: port, conn: conn}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reservations[token] = res
	res.timer = time.AfterFunc(reservationLifetime, func() { s.release(token[:]) })
	return token[:], nil
}

// redeem takes what a token holds.
func (s *Server) redeem(addr Address, token [8]byte) (*net.UDPConn, uint16, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	res := s.reservations[token]
	if res == nil || res.addr.External.Is6() != addr.External.Is6() {
		return nil, 0, errors.New("no such reservation")
	}
	res.timer.Stop()
	delete(s.reservations, token)
	return res.conn, res.port, nil
}

// release gives back what a token holds, if it still holds something.
func (s *Server) release(token []byte) {
	if token == nil {
		return
	}
	s.mu.Lock()
	res := s.reservations[[8]byte(token)]
	delete(s.reservations, [8]byte(token))
	s.mu.Unlock()
	if res == nil {
		return
	}
	res.timer.Stop()
	res.conn.Close()
	s.ports.Return(res.port)
}
