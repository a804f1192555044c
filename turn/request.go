package turn

import (
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/turngate/turngate/turn/relay"
	"github.com/turngate/turngate/turn/wire"
)

// Transport is how a client reaches the server.
type Transport string

// The transports (RFC 8656 section 3.1).
const (
	UDP Transport = "udp"
	TCP Transport = "tcp"
	TLS Transport = "tls"
)

// fiveTuple identifies an allocation (RFC 8656 section 3.2).
type fiveTuple struct {
	transport      Transport
	client, server netip.AddrPort
	// away tells the sessions whose connection is lost from each other and from
	// whoever has the five-tuple now; 0 for a client that is there.
	away uint64
}

// client is the way back to whom a message came from.
type client interface {
	// answer sends one control message. The message is not kept.
	answer(p []byte)
	// egress is the way for relayed data.
	egress() relay.Egress
	// opened and closed tell that the client has an allocation, and no
	// longer has one. The server's lock is held.
	opened(ses *session)
	closed()
	// accepting reports whether new allocations may come this way. The
	// server's lock is held.
	accepting() bool
}

// request is one STUN request on its way through the server.
type request struct {
	set     *settings
	msg     *wire.Message
	tuple   fiveTuple
	from    client
	session *session // of the five-tuple, nil when there is none
	resumed *session // of the ticket of a Refresh, if the five-tuple has none
	realm   string
	now     time.Time
	raw     []byte // the message; borrowed like msg
	looked  looked // answers that the request has waited for

	// Set by authentication. Without a key an answer carries no integrity.
	user      string
	key       wire.Key
	algorithm wire.Algorithm
}

// handle processes one STUN message. It reports whether p was one: what is not
// STUN is dropped on UDP and ends a stream.
//
// A panic ends the message and nothing else: it is counted and logged, and
// everybody's calls go on.
func (s *Server) handle(tuple fiveTuple, from client, p []byte) bool {
	return s.process(tuple, from, p, looked{})
}

// process is handle for a request that databases have been asked about before.
func (s *Server) process(tuple fiveTuple, from client, p []byte, before looked) bool {
	defer s.contain("message")
	if s.bans.holds(tuple.client.Addr(), time.Now()) && s.session(tuple) == nil {
		s.metrics.dropped.WithLabelValues("banned").Inc()
		return false
	}
	var msg wire.Message
	if err := msg.Parse(p); err != nil {
		s.metrics.dropped.WithLabelValues("malformed").Inc()
		return false
	}
	if !msg.FingerprintOK() {
		s.metrics.dropped.WithLabelValues("fingerprint").Inc()
		return true
	}
	r := &request{
		set:     s.settings.Load(),
		msg:     &msg,
		tuple:   tuple,
		from:    from,
		session: s.session(tuple),
		now:     time.Now(),
		raw:     p,
		looked:  before,
	}
	r.realm = r.set.realmAt(tuple.server)
	if r.session == nil {
		r.resumed = s.ticketed(&msg)
	}
	if ses := r.claimed(); ses != nil {
		r.realm = ses.realm
	}
	switch msg.Class {
	case wire.Request:
		s.handleRequest(r)
	case wire.Indication:
		if msg.Method == wire.Send {
			s.handleSend(r)
		}
	default:
		// We send no requests, so nobody has an answer for us.
		s.metrics.dropped.WithLabelValues("response").Inc()
	}
	return true
}

// claimed returns the session that a request is about, its user to be checked.
func (r *request) claimed() *session {
	if r.session != nil {
		return r.session
	}
	return r.resumed
}

// realmAt returns the realm of clients that came in at an address of ours.
func (set *settings) realmAt(server netip.AddrPort) string {
	if set.RealmAt != nil {
		if realm := set.RealmAt(server); realm != "" {
			return realm
		}
	}
	return set.Realm
}

func (s *Server) contain(what string) {
	if p := recover(); p != nil {
		s.metrics.dropped.WithLabelValues("panic").Inc()
		s.settings.Load().Log.Error("panic contained", "in", what, "panic", p, "stack", string(debug.Stack()))
	}
}

func (s *Server) handleRequest(r *request) {
	var serve func(*request)
	switch r.msg.Method {
	case wire.Binding:
		serve = s.handleBinding
	case wire.Allocate:
		serve = s.handleAllocate
	case wire.Refresh:
		serve = s.handleRefresh
	case wire.CreatePermission:
		serve = s.handleCreatePermission
	case wire.ChannelBind:
		serve = s.handleChannelBind
	default:
		s.metrics.dropped.WithLabelValues("method").Inc()
		return
	}
	if r.msg.Method != wire.Binding && !s.authenticate(r) {
		return
	}
	// RFC 8489 section 6.3.1: after authentication.
	if unknown := r.msg.Unknown(understood); unknown != nil {
		b := wire.NewBuilder(r.msg.Method, wire.Failure, r.msg.ID)
		b.AddError(420)
		b.AddUnknown(unknown)
		s.finish(r, b, 420)
		return
	}
	serve(r)
}

// understood reports whether a comprehension-required attribute is known to
// the server in any request. What is not built is not understood:
// CHANGE-REQUEST (RFC 5780), and DONT-FRAGMENT where the system cannot set the
// bit (RFC 8656 section 7.2 step 4).
func understood(t wire.Attr) bool {
	switch t {
	case wire.Username, wire.UserHash, wire.MessageIntegrity, wire.MessageIntegritySHA256, wire.Realm, wire.Nonce,
		wire.PasswordAlgorithm,
		wire.XORMappedAddress, wire.XORPeerAddress, wire.XORRelayedAddress,
		wire.ChannelNumber, wire.Lifetime, wire.DataAttr, wire.EvenPort, wire.RequestedTransport,
		wire.RequestedAddressFamily, wire.ReservationToken, wire.ErrorCode, wire.UnknownAttributes:
		return true
	case wire.DontFragment:
		return relay.CanSetDontFragment
	}
	return false
}

func (s *Server) handleBinding(r *request) {
	b := wire.NewBuilder(wire.Binding, wire.Success, r.msg.ID)
	b.AddAddress(wire.XORMappedAddress, r.tuple.client)
	s.finish(r, b, 0)
}

// challenge refuses a request that is not authenticated, with what the client
// needs to try again. The offer of SHA-256 makes the answer longer, so over
// UDP it goes to requests only that are long enough to pay for it.
func (s *Server) challenge(r *request, code int) {
	b := s.challengeWith(r, code, r.directory() == nil) // the keys in a database are MD5
	if r.tuple.transport == UDP && float64(len(b.Bytes())) > maxReflection*float64(r.msg.Len()) {
		b = s.challengeWith(r, code, false)
	}
	s.finish(r, b, code)
}

// maxReflection is how many times the size of its request an answer to a
// stranger over UDP should be at most. A long realm alone can exceed it.
const maxReflection = 2.3

func (s *Server) challengeWith(r *request, code int, offer bool) *wire.Builder {
	b := wire.NewBuilder(r.msg.Method, wire.Failure, r.msg.ID)
	b.AddError(code)
	b.Add(wire.Realm, []byte(r.realm))
	b.Add(wire.Nonce, s.nonces.make(r.tuple.client, r.now, offer))
	if offer {
		b.Add(wire.PasswordAlgorithms, algorithms)
	}
	return b
}

// refuse answers with an error code.
func (s *Server) refuse(r *request, code int) {
	b := wire.NewBuilder(r.msg.Method, wire.Failure, r.msg.ID)
	b.AddError(code)
	s.finish(r, b, code)
}

// finish completes an answer and sends it: the integrity attribute of the kind
// and with the key of an authenticated request, FINGERPRINT when it had one. It returns
// the answer for a retransmission.
func (s *Server) finish(r *request, b *wire.Builder, code int) []byte {
	if !s.strangers.allow(r) {
		s.metrics.dropped.WithLabelValues("budget").Inc()
		return nil
	}
	switch {
	case r.key == nil:
	case r.msg.HasIntegritySHA256():
		b.IntegritySHA256(r.key)
	default:
		b.Integrity(r.key)
	}
	if r.msg.HasFingerprint() {
		b.Fingerprint()
	}
	s.metrics.answered(r.tuple.transport, r.msg.Method, code)
	r.from.answer(b.Bytes())
	return b.Bytes()
}
