// Package relay is the data plane of the TURN server: sockets, lookup tables
// and the pumps between clients and peers. It knows no STUN and no pion; what
// may be relayed is decided elsewhere and told to it with Permit and Bind.
//
// The way of a datagram:
//
//	client ─ Listener (UDP) ── Table.Forward ──┐
//	client ─ stream frames ─── Relay.Forward ──┴─► relay socket ─► peer
//	client ◄─ Egress ◄──────── Relay      ◄─────── relay socket ◄─ peer
//
// Frames travel in batches: what one read of a socket returned of one sender
// goes on as one send, which the kernel cuts into datagrams.
package relay

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Egress carries frames to one client. Send may be called by several
// goroutines at once, never blocks on the client, and does not keep the
// frames.
type Egress interface {
	Send(frames []Frame)
}

// Options of a Relay.
type Options struct {
	// Conn is the relay socket. The Relay takes it over.
	Conn *net.UDPConn
	// Egress leads to the client.
	Egress Egress
	// Loops read the socket.
	Loops *Loops
	// Clock is the server's coarse clock.
	Clock *Clock
	// Indicate appends the message that carries a payload from a peer
	// without a channel to the client, or nothing when no message can.
	Indicate func(dst []byte, peer netip.AddrPort, payload []byte) []byte
	// Local delivers to a relay of this very server, without the way through
	// the kernel: it works behind a NAT that knows no hairpin. It reports
	// false when the datagrams have to leave. It is asked for each run of them
	// and must not keep the payloads. May be nil.
	Local func(to, from netip.AddrPort, payloads []Frame) bool
	// Relayed is the relayed transport address as the client knows it.
	Relayed netip.AddrPort
}

// Relay is one relayed transport address: our socket towards the peers and
// the permissions and channels of the allocation that it belongs to.
//
// Permit, Bind and Close may be called by several goroutines, Forward and
// SendTo too. Start is called once.
type Relay struct {
	o      Options
	socket *socket

	closed atomic.Bool

	starting sync.Mutex // guards leave
	leave    func()     // of the loops; nil while nothing is read

	dfMu sync.Mutex // held while the socket sets DF

	mu       sync.Mutex // serialises writers of the tables below
	permits  atomic.Pointer[map[netip.Addr]*permission]
	channels atomic.Pointer[map[uint16]*binding]
	peers    atomic.Pointer[map[netip.AddrPort]*binding]

	next    atomic.Pointer[Relay] // of the same client
	egress  atomic.Pointer[Egress]
	budgets atomic.Pointer[budgets] // nil: no bound
	stats   Stats
}

// A permission lets one address talk to the client (RFC 8656 section 9).
type permission struct {
	until atomic.Int64 // Clock time; past means expired
}

// A binding ties a channel number to a peer (RFC 8656 section 12).
type binding struct {
	channel uint16
	peer    netip.AddrPort
	address address // of the peer
	until   atomic.Int64
}

// Reasons for which Bind refuses (RFC 8656 section 12.2).
var (
	ErrChannelTaken = errors.New("channel is bound to another peer")
	ErrPeerTaken    = errors.New("peer is bound to another channel")
)

// New makes a relay of an open socket. Nothing is read until Start. On an error
// the socket is still the caller's.
func New(o Options) (*Relay, error) {
	socket, err := newSocket(o.Conn, o.Relayed.Addr().Is6())
	if err != nil {
		return nil, err
	}
	o.Conn = nil
	r := &Relay{o: o, socket: socket}
	r.permits.Store(&map[netip.Addr]*permission{})
	r.channels.Store(&map[uint16]*binding{})
	r.peers.Store(&map[netip.AddrPort]*binding{})
	r.egress.Store(&o.Egress)
	_ = socket.setDontFragment(false) // else the kernel's guess counts
	return r, nil
}

// Relayed returns the relayed transport address as the client knows it.
func (r *Relay) Relayed() netip.AddrPort { return r.o.Relayed }

// Local returns what the relay socket is bound to.
func (r *Relay) Local() netip.AddrPort { return r.socket.local }

// File returns a duplicate of the relay socket, for a hand-over of the
// allocation, or net.ErrClosed.
func (r *Relay) File() (*os.File, error) { return r.socket.file() }

// Stats returns the live counters.
func (r *Relay) Stats() *Stats { return &r.stats }

// Overruns returns how many datagrams of peers the kernel dropped because we
// did not read in time. It asks the kernel.
func (r *Relay) Overruns() uint64 { return r.socket.overruns.count(r.socket) }

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
		p.until.Store(r.o.Clock.at(until))
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
	p.until.Store(r.o.Clock.at(until))
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
		b.until.Store(r.o.Clock.at(until))
		return nil
	}
	b := &binding{channel: channel, peer: peer, address: r.socket.addressOf(peer, netip.Addr{})}
	b.until.Store(r.o.Clock.at(until))
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
	b := takeSingle(p)
	defer b.done()
	return r.ForwardRun(channel, b.frames[:])
}

// ForwardRun is Forward for the payloads of several messages of one channel,
// which leave together. It may change the slice.
func (r *Relay) ForwardRun(channel uint16, payloads []Frame) bool {
	b := (*r.channels.Load())[channel]
	if b == nil || b.until.Load() <= r.o.Clock.now() {
		if next := r.next.Load(); next != nil {
			return next.ForwardRun(channel, payloads)
		}
		r.stats.DroppedUp.Add(uint64(len(payloads)))
		return false
	}
	r.toPeer(b.peer, &b.address, payloads)
	return true
}

// SendTo sends p to a peer that has a permission, with or without a channel.
// It reports false when it has none.
func (r *Relay) SendTo(peer netip.AddrPort, p []byte) bool {
	if !r.permitted(peer.Addr()) {
		r.stats.DroppedUp.Add(1)
		return false
	}
	to := r.socket.addressOf(peer, netip.Addr{})
	b := takeSingle(p)
	defer b.done()
	r.toPeer(peer, &to, b.frames[:])
	return true
}

// single is a run of one frame that is not on the stack.
type single struct{ frames [1]Frame }

var singles = sync.Pool{New: func() any { return new(single) }}

func takeSingle(p []byte) *single {
	b := singles.Get().(*single)
	b.frames[0].Payload = p
	return b
}

func (b *single) done() {
	b.frames[0].Payload = nil
	singles.Put(b)
}

// toPeer sends datagrams. A full socket or an unreachable peer is the
// network's loss, not an error: UDP promises nothing else.
func (r *Relay) toPeer(peer netip.AddrPort, to *address, payloads []Frame) {
	if payloads = r.affordUp(payloads); len(payloads) == 0 {
		return
	}
	bytes := 0
	for i := range payloads {
		bytes += len(payloads[i].Payload)
	}
	r.stats.PacketsUp.Add(uint64(len(payloads)))
	r.stats.BytesUp.Add(uint64(bytes))
	if r.o.Local != nil && r.o.Local(peer, r.o.Relayed, payloads) {
		return
	}
	if failed := r.socket.send(to, payloads); failed > 0 {
		r.stats.FailedUp.Add(uint64(failed))
	}
}

func (r *Relay) permitted(peer netip.Addr) bool {
	p := (*r.permits.Load())[peer]
	return p != nil && p.until.Load() > r.o.Clock.now()
}

// judge says whether datagrams of a peer go to the client, and on which
// channel; 0 is a Data indication (RFC 8656 section 11.3 and 12.7). A binding
// renews its permission only when it is refreshed, so the permission may have
// expired before it.
func (r *Relay) judge(from netip.AddrPort) (channel uint16, ok bool) {
	if !r.permitted(from.Addr()) {
		return 0, false
	}
	if b := (*r.peers.Load())[from]; b != nil && b.until.Load() > r.o.Clock.now() {
		return b.channel, true
	}
	return 0, true
}

// A delivery collects what goes to a client at once.
type delivery struct {
	frames      []Frame
	indications []byte
	payload     uint64
}

var deliveries = sync.Pool{New: func() any { return new(delivery) }}

func (d *delivery) clear() { d.frames, d.indications, d.payload = d.frames[:0], d.indications[:0], 0 }

// add frames one datagram of a peer that may reach the client.
func (d *delivery) add(r *Relay, channel uint16, from netip.AddrPort, datagram []byte) {
	if !r.affordDown(len(datagram)) {
		return
	}
	size := len(datagram)
	if channel == 0 {
		begin := len(d.indications)
		d.indications = r.o.Indicate(d.indications, from, datagram)
		if len(d.indications) == begin {
			r.stats.DroppedDown.Add(1)
			return
		}
		datagram = d.indications[begin:len(d.indications):len(d.indications)]
	}
	d.payload += uint64(size)
	d.frames = append(d.frames, Frame{channel, datagram})
}

// Deliver hands datagrams from another relay of this server to the client, by
// the same rules as if they had come through the socket. It does not keep them.
func (r *Relay) Deliver(from netip.AddrPort, datagrams []Frame) {
	channel, ok := r.judge(from)
	if !ok {
		r.stats.DroppedDown.Add(uint64(len(datagrams)))
		return
	}
	d := deliveries.Get().(*delivery)
	for i := range datagrams {
		d.add(r, channel, from, datagrams[i].Payload)
	}
	if len(d.frames) > 0 {
		r.stats.PacketsDown.Add(uint64(len(d.frames)))
		r.stats.BytesDown.Add(d.payload)
		(*r.egress.Load()).Send(d.frames)
	}
	d.clear()
	deliveries.Put(d)
}

// Start has the relay socket read until Close: what its permissions let
// through goes to the client.
func (r *Relay) Start() (err error) {
	r.starting.Lock()
	defer r.starting.Unlock()
	if !r.closed.Load() {
		r.leave, err = r.o.Loops.watch(r.socket, r.handle)
	}
	return err
}

// handle sends what one read of the socket returned to the client.
func (r *Relay) handle(b *batch) {
	begin, payload := len(b.frames), b.payload
	for i := range b.received {
		d := &b.received[i]
		channel, ok := r.judge(d.from)
		for datagram, rest := d.cut(d.payload); ; datagram, rest = d.cut(rest) {
			if ok {
				b.add(r, channel, d.from, datagram)
			} else {
				r.stats.DroppedDown.Add(1)
			}
			if len(rest) == 0 {
				break
			}
		}
	}
	if n := len(b.frames) - begin; n > 0 {
		r.stats.PacketsDown.Add(uint64(n))
		r.stats.BytesDown.Add(b.payload - payload)
		b.toClient(*r.egress.Load(), begin)
	}
}

// Close closes the relay socket. It may be called more than once.
func (r *Relay) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	r.starting.Lock()
	if r.leave != nil {
		r.leave()
	}
	r.starting.Unlock()
	r.Revoke(func(netip.AddrPort) bool { return false })
	r.Overruns()
	r.socket.close()
	return nil
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
			permits = append(permits, PermitState{a, r.o.Clock.time(until)})
		}
	}
	for _, b := range *r.channels.Load() {
		if until := b.until.Load(); until > now {
			channels = append(channels, ChannelState{b.channel, b.peer, r.o.Clock.time(until)})
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
