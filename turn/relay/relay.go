// Package relay is the data plane of the TURN server: sockets, lookup tables
// and the pumps between clients and peers. It knows no STUN and no pion; what
// may be relayed is decided elsewhere and told to it with Permit and Bind.
//
// The way of a datagram:
//
//	client ─ Listener (UDP) ── Table.Forward ──┐
//	client ─ stream frames ─── Relay.Forward ──┴─► relay socket ─► peer
//	client ◄─ Egress ◄──────── Relay.Pump ◄─────── relay socket ◄─ peer
//
// Frames travel in batches so that a faster form of the sockets needs no other
// interface.
package relay

import (
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Egress carries frames to one client. Send may be called by several
// goroutines at once, never blocks on the client, and does not keep the
// frames. A frame is one STUN or ChannelData message without padding.
type Egress interface {
	Send(frames [][]byte)
}

// Options of a Relay.
type Options struct {
	// Conn is the relay socket. The Relay owns it and closes it.
	Conn *net.UDPConn
	// Egress leads to the client.
	Egress Egress
	// Clock is the server's coarse clock.
	Clock *Clock
	// Indicate appends the message that carries a payload from a peer
	// without a channel to the client.
	Indicate func(dst []byte, peer netip.AddrPort, payload []byte) []byte
	// Local delivers to a relay of this very server, without the way through
	// the kernel: it works behind a NAT that knows no hairpin. It reports
	// false when the datagram has to leave. It is asked for each datagram and
	// must not keep the payload. May be nil.
	Local func(to, from netip.AddrPort, payload []byte) bool
	// Relayed is the relayed transport address as the client knows it.
	Relayed netip.AddrPort
}

// Relay is one relayed transport address: our socket towards the peers and
// the permissions and channels of the allocation that it belongs to.
//
// Permit, Bind and Close may be called by several goroutines, Forward and
// SendTo too. Pump runs once.
type Relay struct {
	o Options

	closed atomic.Bool
	done   chan struct{}

	dfMu sync.Mutex // held while the socket sets DF

	mu       sync.Mutex // serialises writers of the tables below
	permits  atomic.Pointer[map[netip.Addr]*permission]
	channels atomic.Pointer[map[uint16]*binding]
	peers    atomic.Pointer[map[netip.AddrPort]*binding]

	next    atomic.Pointer[Relay] // of the same client
	egress  atomic.Pointer[Egress]
	budgets atomic.Pointer[budgets] // nil: no bound
	stats   Stats

	overruns overruns
}

// A permission lets one address talk to the client (RFC 8656 section 9).
type permission struct {
	until atomic.Int64 // Clock time; past means expired
}

// A binding ties a channel number to a peer (RFC 8656 section 12).
type binding struct {
	channel uint16
	peer    netip.AddrPort
	until   atomic.Int64
}

// Reasons for which Bind refuses (RFC 8656 section 12.2).
var (
	ErrChannelTaken = errors.New("channel is bound to another peer")
	ErrPeerTaken    = errors.New("peer is bound to another channel")
)

// headroom is what a payload from a peer leaves free before itself, so that a
// ChannelData header is written in place.
const headroom = 4

// New makes a relay of an open socket. Nothing runs until Pump.
func New(o Options) *Relay {
	r := &Relay{o: o, done: make(chan struct{}), overruns: overruns{conn: o.Conn}}
	r.permits.Store(&map[netip.Addr]*permission{})
	r.channels.Store(&map[uint16]*binding{})
	r.peers.Store(&map[netip.AddrPort]*binding{})
	r.egress.Store(&o.Egress)
	_ = setDontFragment(o.Conn, o.Relayed.Addr().Is6(), false) // else the kernel's guess counts
	return r
}

// Relayed returns the relayed transport address as the client knows it.
func (r *Relay) Relayed() netip.AddrPort { return r.o.Relayed }

// Conn returns the relay socket, for a hand-over of the allocation.
func (r *Relay) Conn() *net.UDPConn { return r.o.Conn }

// Stats returns the live counters.
func (r *Relay) Stats() *Stats { return &r.stats }

// Overruns returns how many datagrams of peers the kernel dropped because we
// did not read in time. It asks the kernel.
func (r *Relay) Overruns() uint64 { return r.overruns.count() }

// SetEgress changes the way to the client, who is somewhere else now.
func (r *Relay) SetEgress(e Egress) { r.egress.Store(&e) }

// SetNext makes Forward ask another relay of the same client about channels
// that are not bound here: an allocation may have an address of each family.
func (r *Relay) SetNext(next *Relay) { r.next.Store(next) }

// Permit installs or renews the permission for a peer address.
func (r *Relay) Permit(peer netip.Addr, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := *r.permits.Load()
	if p := old[peer]; p != nil {
		p.until.Store(until.UnixNano())
		return
	}
	now := r.o.Clock.now()
	next := make(map[netip.Addr]*permission, len(old)+1)
	for a, p := range old {
		if p.until.Load() > now {
			next[a] = p
		}
	}
	p := new(permission)
	p.until.Store(until.UnixNano())
	next[peer] = p
	r.permits.Store(&next)
}

// Bind binds or renews a channel and renews the peer's permission until
// permitted, if that is not zero.
func (r *Relay) Bind(channel uint16, peer netip.AddrPort, until, permitted time.Time) error {
	if err := r.CanBind(channel, peer); err != nil {
		return err
	}
	if !permitted.IsZero() {
		r.Permit(peer.Addr(), permitted)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := (*r.channels.Load())[channel]; b != nil && b.peer == peer {
		b.until.Store(until.UnixNano())
		return nil
	}
	b := &binding{channel: channel, peer: peer}
	b.until.Store(until.UnixNano())
	now := r.o.Clock.now()
	channels := maps.Clone(*r.channels.Load())
	maps.DeleteFunc(channels, func(_ uint16, b *binding) bool { return b.until.Load() <= now })
	channels[channel] = b
	r.storeBindings(channels)
	return nil
}

// CanBind reports why a channel cannot be bound to the peer now.
func (r *Relay) CanBind(channel uint16, peer netip.AddrPort) error {
	now := r.o.Clock.now()
	if b := (*r.channels.Load())[channel]; b != nil && b.peer != peer && b.until.Load() > now {
		return ErrChannelTaken
	}
	if b := (*r.peers.Load())[peer]; b != nil && b.channel != channel && b.until.Load() > now {
		return ErrPeerTaken
	}
	return nil
}

// storeBindings publishes the channels and the same bindings by peer.
// r.mu is held.
func (r *Relay) storeBindings(channels map[uint16]*binding) {
	peers := make(map[netip.AddrPort]*binding, len(channels))
	for _, b := range channels {
		peers[b.peer] = b
	}
	r.channels.Store(&channels)
	r.peers.Store(&peers)
}

// Revoke removes every permission and channel whose peer allowed refuses,
// which is how a new peer policy reaches a live allocation.
func (r *Relay) Revoke(allowed func(netip.AddrPort) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	permits := maps.Clone(*r.permits.Load())
	maps.DeleteFunc(permits, func(a netip.Addr, _ *permission) bool { return !allowed(netip.AddrPortFrom(a, 0)) })
	channels := maps.Clone(*r.channels.Load())
	maps.DeleteFunc(channels, func(_ uint16, b *binding) bool { return !allowed(b.peer) })
	r.permits.Store(&permits)
	r.storeBindings(channels)
}

// Forward sends the payload of one ChannelData message to its peer. It
// neither allocates nor locks, and does not keep p. It reports false when the
// channel is not bound.
func (r *Relay) Forward(channel uint16, p []byte) bool {
	b := (*r.channels.Load())[channel]
	if b == nil || b.until.Load() <= r.o.Clock.now() {
		if next := r.next.Load(); next != nil {
			return next.Forward(channel, p)
		}
		r.stats.DroppedUp.Add(1)
		return false
	}
	r.toPeer(b.peer, p)
	return true
}

// SendTo sends p to a peer that has a permission, with or without a channel.
// It reports false when it has none.
func (r *Relay) SendTo(peer netip.AddrPort, p []byte) bool {
	if !r.permitted(peer.Addr()) {
		r.stats.DroppedUp.Add(1)
		return false
	}
	r.toPeer(peer, p)
	return true
}

// toPeer writes one datagram. A full socket or an unreachable peer is the
// network's loss, not an error: UDP promises nothing else.
func (r *Relay) toPeer(peer netip.AddrPort, p []byte) {
	if !r.affordUp(len(p)) {
		return
	}
	r.stats.PacketsUp.Add(1)
	r.stats.BytesUp.Add(uint64(len(p)))
	if r.o.Local != nil && r.o.Local(peer, r.o.Relayed, p) {
		return
	}
	if _, err := r.o.Conn.WriteToUDPAddrPort(p, peer); err != nil {
		r.stats.FailedUp.Add(1)
	}
}

func (r *Relay) permitted(peer netip.Addr) bool {
	p := (*r.permits.Load())[peer]
	return p != nil && p.until.Load() > r.o.Clock.now()
}

// Deliver hands a payload from another relay of this server to the client, by
// the same rules as if it had come through the socket. It does not keep p.
func (r *Relay) Deliver(from netip.AddrPort, p []byte) {
	frame := frames.Get().(*[]byte)
	*frame = append(append((*frame)[:0], 0, 0, 0, 0), p...)
	r.fromPeer(from, *frame)
	frames.Put(frame)
}

// frames holds buffers for what cannot be framed where it lies.
var frames = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

// fromPeer frames and sends one payload, which stands at frame[headroom:].
func (r *Relay) fromPeer(from netip.AddrPort, frame []byte) {
	payload := frame[headroom:]
	now := r.o.Clock.now()
	b := (*r.peers.Load())[from]
	switch {
	case b != nil && b.until.Load() > now:
		// RFC 8656 section 12.7. A binding renews its permission only when
		// it is refreshed, so the permission may have expired before it.
		if !r.permitted(from.Addr()) {
			r.stats.DroppedDown.Add(1)
			return
		}
		binary.BigEndian.PutUint16(frame, b.channel)
		binary.BigEndian.PutUint16(frame[2:], uint16(len(payload)))
		r.toClient(frame, len(payload))
	case r.permitted(from.Addr()):
		indication := frames.Get().(*[]byte)
		*indication = r.o.Indicate((*indication)[:0], from, payload)
		r.toClient(*indication, len(payload))
		frames.Put(indication)
	default:
		r.stats.DroppedDown.Add(1)
	}
}

func (r *Relay) toClient(frame []byte, payload int) {
	if !r.affordDown(payload) {
		return
	}
	r.stats.PacketsDown.Add(1)
	r.stats.BytesDown.Add(uint64(payload))
	batch := batches.Get().(*[1][]byte)
	batch[0] = frame
	(*r.egress.Load()).Send(batch[:])
	batch[0] = nil
	batches.Put(batch)
}

var batches = sync.Pool{New: func() any { return new([1][]byte) }}

// Pump reads the relay socket until Close and sends to the client what its
// permissions let through. It returns nil after Close.
func (r *Relay) Pump() error {
	defer close(r.done)
	// Most datagrams fit an Ethernet frame; the first larger one costs
	// itself and makes the buffer as large as UDP allows.
	buf := make([]byte, headroom+2048)
	for {
		n, _, flags, from, err := r.o.Conn.ReadMsgUDPAddrPort(buf[headroom:], nil)
		switch {
		case r.closed.Load() || errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			// Errors that peers caused end nothing, and one that stays must
			// not spin.
			r.stats.FailedDown.Add(1)
			time.Sleep(time.Millisecond)
			continue
		case truncated(flags, n, len(buf)-headroom):
			r.stats.DroppedDown.Add(1)
			buf = make([]byte, headroom+65536)
			continue
		}
		r.fromPeer(netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), buf[:headroom+n])
	}
}

// Close closes the relay socket and lets Pump return. It may be called more
// than once.
func (r *Relay) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	r.Revoke(func(netip.AddrPort) bool { return false })
	r.overruns.count()
	return r.o.Conn.Close()
}

// State of the tables, for a hand-over of the allocation.
type (
	// PermitState is one permission.
	PermitState struct {
		Peer  netip.Addr
		Until time.Time
	}
	// ChannelState is one channel binding.
	ChannelState struct {
		Channel uint16
		Peer    netip.AddrPort
		Until   time.Time
	}
)

// State returns the live permissions and channels.
func (r *Relay) State() (permits []PermitState, channels []ChannelState) {
	now := r.o.Clock.now()
	for a, p := range *r.permits.Load() {
		if until := p.until.Load(); until > now {
			permits = append(permits, PermitState{a, time.Unix(0, until)})
		}
	}
	for _, b := range *r.channels.Load() {
		if until := b.until.Load(); until > now {
			channels = append(channels, ChannelState{b.channel, b.peer, time.Unix(0, until)})
		}
	}
	return permits, channels
}

// HasPermit reports whether the address has a live permission.
func (r *Relay) HasPermit(peer netip.Addr) bool { return r.permitted(peer) }

// HasChannel reports whether the channel is bound.
func (r *Relay) HasChannel(channel uint16) bool {
	b := (*r.channels.Load())[channel]
	return b != nil && b.until.Load() > r.o.Clock.now()
}

// Counts returns how many permissions and channels are live.
func (r *Relay) Counts() (permits, channels int) {
	p, c := r.State()
	return len(p), len(c)
}
