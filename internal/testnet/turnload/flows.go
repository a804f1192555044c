package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
)

// flow is one allocation with one channel to one peer.
type flow struct {
	channel uint16
	client  netip.Addr // on a shared socket
	peer    netip.AddrPort
	relayed netip.AddrPort
	toRelay *route  // of the peer
	toTURN  *route  // of the client over UDP
	stream  *stream // of the client over TCP and TLS

	talk atomic.Pointer[control] // where answers go while somebody asks
}

// load is a set of allocations at one server and the sockets of both sides.
type load struct {
	o       options
	flows   []*flow
	clients []*socket // over UDP
	peers   []*socket

	mu           sync.Mutex // guards reading: a step, or the pump between steps
	fromClients  *receiver
	fromPeers    *receiver
	idle         int // readings of what only answers are expected at
	up, down     tally
	steps        uint32
	stop         chan struct{}
	background   sync.WaitGroup
	streamBroken atomic.Pointer[error]
}

// channelOf gives neighbours different channels, so that a mix-up shows.
func channelOf(i int) uint16 { return 0x4000 + uint16(i%0xfff) }

// newLoad opens the sockets, allocates and binds. The allocations live until
// close, also without a step.
func newLoad(ctx context.Context, o options) (l *load, err error) {
	// The loop makes no garbage worth collecting, and a collection beside it
	// takes its core; beyond the limit there is one all the same.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	l = &load{o: o, stop: make(chan struct{})}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for i := range o.allocations {
		l.flows = append(l.flows, &flow{channel: channelOf(i)})
	}
	if o.transport == "udp" {
		if l.clients, err = l.open(o.clientNS, o.clientNet, netip.Addr{}); err != nil {
			return l, fmt.Errorf("clients: %w", err)
		}
		if l.fromClients, err = newReceiver(l.clients); err != nil {
			return l, err
		}
		for i, f := range l.flows {
			f.client = l.source(o.clientNet, i)
			f.toTURN = newRoute(l.clients[i%len(l.clients)], f.client, o.server)
		}
	}
	peerAddr := o.peerAddr
	if !o.peerNet.IsValid() && !peerAddr.IsValid() {
		if peerAddr, err = localFor(o.peerNS, o.server); err != nil {
			return l, fmt.Errorf("address of the peers: %w", err)
		}
	}
	if l.peers, err = l.open(o.peerNS, o.peerNet, peerAddr); err != nil {
		return l, fmt.Errorf("peers: %w", err)
	}
	if l.fromPeers, err = newReceiver(l.peers); err != nil {
		return l, err
	}
	for i, f := range l.flows {
		s := l.peers[i%len(l.peers)]
		f.peer = s.local
		if o.peerNet.IsValid() {
			f.peer = netip.AddrPortFrom(nth(o.peerNet, i), s.local.Port())
		}
	}
	l.background.Go(l.pump)
	if err := l.each(ctx, l.allocate); err != nil {
		return l, err
	}
	l.background.Go(l.refresh)
	return l, nil
}

// open opens one socket for all flows when there is a prefix, otherwise one for each.
func (l *load) open(namespace string, prefix netip.Prefix, local netip.Addr) (sockets []*socket, err error) {
	at, n := netip.IPv4Unspecified(), 1
	if !prefix.IsValid() {
		if at, n = local, len(l.flows); !local.IsValid() {
			if at, err = localFor(namespace, l.o.server); err != nil {
				return nil, err
			}
		}
	}
	for i := range n {
		owner := i
		if prefix.IsValid() {
			owner = -1
		}
		s, err := openSocket(socketOptions{namespace: namespace, bind: netip.AddrPortFrom(at, 0), gro: l.o.gro}, owner)
		if err != nil {
			return sockets, err
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

func (l *load) source(prefix netip.Prefix, i int) netip.Addr {
	if !prefix.IsValid() {
		return netip.Addr{}
	}
	return nth(prefix, i)
}

// localFor returns the address that a namespace uses towards an address.
func localFor(namespace string, to netip.AddrPort) (a netip.Addr, err error) {
	err = inNamespace(namespace, func() error {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer c.Close()
		a = c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		return nil
	})
	return a, err
}

// each runs f for every flow, some at once, and returns the first error.
func (l *load) each(ctx context.Context, f func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(32, len(l.flows)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(l.flows) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := f(ctx, i); err != nil {
					cancel(fmt.Errorf("allocation %d: %w", i, err))
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (l *load) allocate(ctx context.Context, i int) error {
	f := l.flows[i]
	if l.o.transport != "udp" {
		s, err := l.dial(ctx, i)
		if err != nil {
			return err
		}
		f.stream = s
	}
	return l.ask(ctx, i, func(ctx context.Context, c *tc.Client) error {
		a, err := c.Allocate(ctx)
		if err != nil {
			return fmt.Errorf("allocate: %w", err)
		}
		f.relayed = a.Relayed[0]
		f.toRelay = newRoute(l.peers[i%len(l.peers)], l.source(l.o.peerNet, i), f.relayed)
		if err := c.ChannelBind(ctx, f.channel, f.peer); err != nil {
			return fmt.Errorf("bind a channel to %v: %w", f.peer, err)
		}
		return nil
	})
}

// ask lets a TURN client talk over the flow's own socket or connection.
func (l *load) ask(ctx context.Context, i int, f func(context.Context, *tc.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	fl := l.flows[i]
	conn := newControl(fl, l.o.server)
	fl.talk.Store(conn)
	defer fl.talk.Store(nil)
	c := tc.New(conn, false, l.o.auth, tc.Queue(1))
	defer c.Close()
	return f(ctx, c)
}

// refresh keeps allocations and channels alive (RFC 8656: a permission lasts 5
// minutes, a channel and an allocation 10).
func (l *load) refresh() {
	t := time.NewTicker(4 * time.Minute)
	defer t.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l.background.Go(func() { <-l.stop; cancel() })
	for {
		select {
		case <-l.stop:
			return
		case <-t.C:
		}
		_ = l.each(ctx, func(ctx context.Context, i int) error { // what fails is seen as loss
			return l.ask(ctx, i, func(ctx context.Context, c *tc.Client) error {
				if _, err := c.Refresh(ctx, 600); err != nil {
					return err
				}
				return c.ChannelBind(ctx, l.flows[i].channel, l.flows[i].peer)
			})
		})
	}
}

// close gives the allocations back and closes all.
func (l *load) close() {
	if l.fromPeers != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_ = l.each(ctx, func(ctx context.Context, i int) error { // they expire otherwise
			if !l.flows[i].relayed.IsValid() || l.o.transport != "udp" {
				return nil // a closed connection ends its allocation
			}
			return l.ask(ctx, i, func(ctx context.Context, c *tc.Client) error {
				_, err := c.Refresh(ctx, 0)
				return err
			})
		})
		cancel()
	}
	close(l.stop)
	for _, f := range l.flows {
		if f.stream != nil {
			f.stream.conn.Close()
		}
	}
	l.background.Wait()
	for _, r := range []*receiver{l.fromClients, l.fromPeers} {
		if r != nil {
			r.close()
		}
	}
	for _, s := range append(l.clients, l.peers...) {
		s.close()
	}
}

// pump reads while no step does: answers to requests must come through.
func (l *load) pump() {
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-t.C:
		}
		l.mu.Lock()
		l.idle = 63 // all
		l.drain()
		l.mu.Unlock()
	}
}

// drain reads what has arrived. The side that nothing but answers to requests
// can come to is only looked at now and then. The caller holds mu.
func (l *load) drain() {
	l.idle++
	if l.fromClients != nil && (l.o.down || l.idle%64 == 0) {
		l.down.mu.Lock()
		l.fromClients.drain(l.atClient)
		l.down.mu.Unlock()
	}
	if l.o.up || l.idle%64 == 0 {
		l.up.mu.Lock()
		l.fromPeers.drain(l.atPeer)
		l.up.mu.Unlock()
	}
}

func (l *load) atPeer(s *socket, d *datagram) {
	l.up.count(d.data, l.o.size, d.at, func(i int) bool {
		f := l.flows[i]
		return d.from.Port() == f.relayed.Port() && (s.flow < 0 && d.to == f.peer.Addr() || s.flow == i)
	})
}

func (l *load) atClient(s *socket, d *datagram) {
	channel, payload, ok := channelData(d.data)
	if !ok {
		if i := s.flow; i >= 0 {
			l.flows[i].answer(d.data)
		} else if i := indexOf(l.o.clientNet, d.to); i >= 0 && i < len(l.flows) {
			l.flows[i].answer(d.data)
		}
		return
	}
	l.down.count(payload, l.o.size, d.at, func(i int) bool {
		f := l.flows[i]
		return channel == f.channel && (s.flow < 0 && d.to == f.client || s.flow == i)
	})
}

// channelData splits a ChannelData message, padded or not (RFC 8656 section 12.5).
func channelData(b []byte) (channel uint16, payload []byte, ok bool) {
	if len(b) < 4 || b[0]>>6 != 1 {
		return 0, nil, false
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n > len(b)-4 || len(b)-4-n > 3 {
		return 0, nil, true // counted as misdirected
	}
	return binary.BigEndian.Uint16(b), b[4 : 4+n], true
}

// control is the way of STUN messages beside the load, as a net.Conn of datagrams.
type control struct {
	flow   *flow
	server netip.AddrPort
	inbox  chan []byte
	done   chan struct{}
	once   sync.Once
}

func newControl(f *flow, server netip.AddrPort) *control {
	return &control{flow: f, server: server, inbox: make(chan []byte, 16), done: make(chan struct{})}
}

func (f *flow) answer(b []byte) {
	if c := f.talk.Load(); c != nil {
		select {
		case c.inbox <- append([]byte(nil), b...):
		default: // asked for again
		}
	}
}

func (c *control) Read(b []byte) (int, error) {
	select {
	case m := <-c.inbox:
		return copy(b, m), nil
	case <-c.done:
		return 0, net.ErrClosed
	}
}

func (c *control) Write(b []byte) (int, error) {
	if c.flow.stream != nil {
		return c.flow.stream.conn.Write(b)
	}
	return len(b), c.flow.toTURN.writeTo(b)
}

func (c *control) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

func (c *control) LocalAddr() net.Addr              { return &net.UDPAddr{} }
func (c *control) RemoteAddr() net.Addr             { return net.UDPAddrFromAddrPort(c.server) }
func (c *control) SetDeadline(time.Time) error      { return nil }
func (c *control) SetReadDeadline(time.Time) error  { return nil }
func (c *control) SetWriteDeadline(time.Time) error { return nil }
