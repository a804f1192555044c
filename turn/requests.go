package turn

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/turngate/turngate/turn/allocator"
	"github.com/turngate/turngate/turn/peers"
	"github.com/turngate/turngate/turn/wire"
)

// maxPeers bounds the peers of one CreatePermission.
const maxPeers = 32

// owner returns the session a request is about, or answers 437 when the
// five-tuple has none and 441 when it is another user's (RFC 8656 section 5).
func (s *Server) owner(r *request) *session {
	ses := r.claimed()
	switch {
	case ses == nil:
		s.refuse(r, 437)
	case ses.user != r.user:
		s.refuse(r, 441)
	default:
		if r.session != nil && !r.msg.Has(wire.MobilityTicket) {
			ses.arrived(r.tuple)
		}
		return ses
	}
	return nil
}

// verdict answers by what the state machine says.
func (s *Server) verdict(r *request, err error) {
	switch {
	case err == nil:
		s.finish(r, wire.NewBuilder(r.msg.Method, wire.Success, r.msg.ID), 0)
	case errors.Is(err, allocator.ErrGone):
		s.refuse(r, 437)
	default:
		s.refuse(r, 400)
	}
}

// handleRefresh is RFC 8656 section 8.2.
func (s *Server) handleRefresh(r *request) {
	ses := s.owner(r)
	if ses == nil {
		return
	}
	wanted, ok := lifetime(r.msg)
	if !ok {
		s.refuse(r, 400)
		return
	}
	legs := ses.live()
	if family, ok := r.msg.Get(wire.RequestedAddressFamily); ok {
		if len(family) != 4 {
			s.refuse(r, 400)
			return
		}
		l := ses.leg(family[0] == 2)
		if l == nil || family[0] != 1 && family[0] != 2 {
			s.refuse(r, 443)
			return
		}
		legs = []*leg{l}
	}
	if wanted == 0 {
		s.giveUp(r, ses, legs)
		return
	}
	t := ses.at.Load().ticket
	if next := ses.next.Load(); r.resumed != nil || next != nil && next.tuple == r.tuple {
		var code int
		if t, code = s.move(r, ses); code != 0 {
			s.refuse(r, code)
			return
		}
	}
	if err := ses.refresh(legs, r.now, wanted); err != nil {
		s.verdict(r, err)
		return
	}
	b := wire.NewBuilder(wire.Refresh, wire.Success, r.msg.ID)
	b.AddUint32(wire.Lifetime, uint32(wanted/time.Second))
	if t != (ticket{}) && r.msg.Has(wire.MobilityTicket) {
		b.Add(wire.MobilityTicket, t[:])
	}
	s.finish(r, b, 0)
}

// giveUp ends legs of an allocation as their client wants it. What they held is
// free when the client hears of it, so that it may ask for as much elsewhere at
// once. On a listener that goes with its last allocation, as all do in a drain, the
// answer is first.
func (s *Server) giveUp(r *request, ses *session, legs []*leg) {
	b := wire.NewBuilder(wire.Refresh, wire.Success, r.msg.ID)
	b.AddUint32(wire.Lifetime, 0)
	s.mu.Lock()
	stays := r.from.accepting() && !s.draining.Load()
	s.mu.Unlock()
	if !stays {
		s.finish(r, b, 0)
	}
	released := "released by the client"
	ses.reason.CompareAndSwap(nil, &released)
	for _, l := range legs {
		_ = l.alloc.Close()
	}
	if stays {
		s.finish(r, b, 0)
	}
}

func (ses *session) refresh(legs []*leg, now time.Time, lifetime time.Duration) error {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	for _, l := range legs {
		if err := l.alloc.Refresh(lifetime); err != nil {
			return err
		}
		l.lives(now.Add(lifetime))
		l.sync()
	}
	ses.expires = now.Add(lifetime)
	return nil
}

// handleCreatePermission is RFC 8656 section 10.2: all peers or none.
func (s *Server) handleCreatePermission(r *request) {
	ses := s.owner(r)
	if ses == nil {
		return
	}
	var wanted []netip.Addr
	for value := range r.msg.All(wire.XORPeerAddress) {
		peer, ok := r.msg.Address(value)
		if !ok || len(wanted) == maxPeers {
			s.refuse(r, 400)
			return
		}
		v := r.set.policy.CheckPermission(peer)
		if code := s.judge(r, ses, peer, v); code != 0 {
			s.refuse(r, code)
			return
		}
		wanted = append(wanted, v.Peer.Addr())
	}
	if len(wanted) == 0 {
		s.refuse(r, 400)
		return
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if !ses.roomFor(r, wanted...) {
		s.limited(r, limitPermissions)
		s.refuse(r, 508)
		return
	}
	until := r.now.Add(allocator.PermissionLifetime)
	for _, peer := range wanted {
		l := ses.leg(peer.Is6())
		if l == nil { // ended since it was judged
			s.refuse(r, 437)
			return
		}
		if err := l.alloc.Permit(peer); err != nil {
			s.verdict(r, err)
			return
		}
		l.relay.Permit(peer, until)
	}
	ses.judgedBy(r.set)
	ses.sync()
	s.verdict(r, nil)
}

// judgedBy is called when something has been granted by settings: should a reload
// have swapped them meanwhile, it may have looked at the session before.
func (ses *session) judgedBy(set *settings) {
	if now := ses.s.settings.Load(); now != set {
		for _, l := range ses.legs {
			l.relay.Revoke(now.reaches)
		}
	}
}

// roomFor reports whether the peers that have no permission yet fit the limit.
func (ses *session) roomFor(r *request, peers ...netip.Addr) bool {
	missing := make(map[netip.Addr]bool)
	for _, p := range peers {
		if l := ses.leg(p.Is6()); l == nil || !l.relay.HasPermit(p) {
			missing[p] = true
		}
	}
	permits, _ := ses.counts()
	return len(missing) == 0 || permits+len(missing) <= r.set.Limits.Permissions
}

// handleChannelBind is RFC 8656 section 12.2.
func (s *Server) handleChannelBind(r *request) {
	ses := s.owner(r)
	if ses == nil {
		return
	}
	number, ok := r.msg.Get(wire.ChannelNumber)
	if !ok || len(number) != 4 {
		s.refuse(r, 400)
		return
	}
	channel := binary.BigEndian.Uint16(number)
	value, _ := r.msg.Get(wire.XORPeerAddress)
	peer, ok := r.msg.Address(value)
	if !ok || channel < wire.MinChannel || channel > lastChannel(r.msg) {
		s.refuse(r, 400)
		return
	}
	v := r.set.policy.Check(peer)
	if code := s.judge(r, ses, peer, v); code != 0 {
		s.refuse(r, code)
		return
	}
	peer = v.Peer
	if isTrial(ses.user) && s.relays.get(peer) == nil {
		s.metrics.refusedPeers.Inc()
		s.refuse(r, 403)
		return
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	l, other := ses.leg(peer.Addr().Is6()), ses.leg(!peer.Addr().Is6())
	if l == nil { // ended since it was judged
		s.refuse(r, 437)
		return
	}
	if l.relay.CanBind(channel, peer) != nil || other != nil && other.relay.HasChannel(channel) {
		s.refuse(r, 400)
		return
	}
	_, channels := ses.counts()
	if !l.relay.HasChannel(channel) && channels >= r.set.Limits.Channels {
		s.limited(r, limitChannels)
		s.refuse(r, 508)
		return
	}
	if !ses.roomFor(r, peer.Addr()) {
		s.limited(r, limitPermissions)
		s.refuse(r, 508)
		return
	}
	err := l.alloc.Bind(channel, peer)
	if err == nil {
		err = l.relay.Bind(channel, peer, r.now.Add(allocator.ChannelLifetime), r.now.Add(allocator.PermissionLifetime))
		ses.judgedBy(r.set)
		l.sync()
	}
	s.verdict(r, err)
}

// lastChannel returns the highest channel number that a request may bind. It is
// RFC 8656's, but coturn's client tools before 4.16, which operators test with,
// pick any of RFC 5766's at random. They are known by the FINGERPRINT that
// they add to every message and browsers to none; see docs/decisions.
func lastChannel(m *wire.Message) uint16 {
	if m.HasFingerprint() {
		return wire.LegacyMaxChannel
	}
	return wire.MaxChannel
}

// judge returns the code that refuses a peer, or 0. The family of what was
// sent counts (443), then the policy (403), which an operator learns of.
func (s *Server) judge(r *request, ses *session, sent netip.AddrPort, v peers.Verdict) (code int) {
	switch {
	case ses.leg(sent.Addr().Is6()) == nil && !sent.Addr().Is4In6():
		return 443
	case !v.Allowed():
		s.logRefusal(r, v)
		return 403
	case isTrial(ses.user) && !r.set.isExternal(v.Peer.Addr()):
		s.metrics.refusedPeers.Inc()
		return 403
	case ses.leg(v.Peer.Addr().Is6()) == nil:
		return 443 // an IPv4-mapped peer on an IPv6 allocation
	}
	return 0
}

// logRefusal tells the operator why a peer was refused and what would let it
// pass. Clients choose how often this happens, so the lines are sampled.
func (s *Server) logRefusal(r *request, v peers.Verdict) {
	s.metrics.refusedPeers.Inc()
	s.refusals.log(r.set.Log, v.Rule(), "peer refused",
		"client", r.tuple.client, "user", printable(r.user), "peer", v.Peer, "rule", v.Rule(), "remedy", v.Remedy())
}

// handleSend is RFC 8656 section 11.2. A Send indication is not authenticated
// and never answered: the five-tuple alone decides whose it is.
func (s *Server) handleSend(r *request) {
	ses := r.session
	if ses == nil {
		s.metrics.dropped.WithLabelValues("no allocation").Inc()
		return
	}
	ses.arrived(r.tuple)
	value, _ := r.msg.Get(wire.XORPeerAddress)
	peer, ok := r.msg.Address(value)
	data, hasData := r.msg.Get(wire.DataAttr)
	if !ok || !hasData || r.msg.Unknown(understood) != nil {
		s.metrics.dropped.WithLabelValues("malformed").Inc()
		return
	}
	// The permission is for an address, the policy may be for its ports.
	v := r.set.policy.Check(peer)
	if !v.Allowed() {
		s.metrics.dropped.WithLabelValues("peer").Inc()
		return
	}
	l := ses.leg(v.Peer.Addr().Is6())
	switch {
	case l == nil, isTrial(ses.user) && s.relays.get(v.Peer) == nil:
		s.metrics.dropped.WithLabelValues("peer").Inc()
	case r.msg.Has(wire.DontFragment):
		l.relay.SendUnfragmented(v.Peer, data)
	default:
		l.relay.SendTo(v.Peer, data)
	}
}
