package turn

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/turngate/turngate/turn/allocator"
	"github.com/turngate/turngate/turn/relay"
	"github.com/turngate/turngate/turn/wire"
)

// leg is one relayed transport address of an allocation, with its permissions
// and channels. An allocation has one, or one of each address family
// (ADDITIONAL-ADDRESS-FAMILY, RFC 8656 section 7.2); each can be released by
// itself, and the allocation ends with its last.
type leg struct {
	ses   *session
	relay *relay.Relay
	port  uint16                // of the relay socket
	alloc *allocator.Allocation // set by start
	gone  atomic.Bool           // it has begun to end
	freed atomic.Bool           // its port can be had again

	expires atomic.Pointer[time.Time]
	kernel  inKernel
}

// addLeg gives a session that has not started an open relay socket, which the
// leg owns from here on.
func (ses *session) addLeg(conn *net.UDPConn, external netip.Addr) error {
	port := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	ids := newTransactionIDs()
	l := &leg{ses: ses, port: port}
	var err error
	l.relay, err = relay.New(relay.Options{
		Conn:   conn,
		Egress: ses.at.Load().from.egress(),
		Loops:  ses.s.loops,
		Clock:  ses.s.clock,
		Indicate: func(dst []byte, peer netip.AddrPort, p []byte) []byte {
			return wire.AppendDataIndication(dst, ids.next(), peer, p)
		},
		Local:   ses.s.deliver,
		Relayed: netip.AddrPortFrom(external, port),
	})
	if err != nil {
		return err
	}
	ses.legs = append(ses.legs, l)
	return nil
}

func (l *leg) v6() bool { return l.relay.Relayed().Addr().Is6() }

// start gives the leg to the allocator, which owns its end from here on. When
// it fails the relay socket is closed, and the port is free.
func (l *leg) start(lifetime time.Duration) error {
	l.lives(time.Now().Add(lifetime))
	alloc, err := l.ses.s.allocator.Allocate(l.relay, l.relay.Relayed(), lifetime, l.ended)
	if err != nil {
		l.gone.Store(true)
		l.ses.s.ports.of(l.v6()).Return(l.port)
		l.freed.Store(true)
		return err
	}
	l.alloc = alloc
	return nil
}

// lives says until when the leg lives if it is not refreshed.
func (l *leg) lives(until time.Time) { l.expires.Store(&until) }

// ended is called by the allocator when the leg is gone.
func (l *leg) ended() {
	if l.gone.Swap(true) {
		return
	}
	s := l.ses.s
	l.sync()
	s.relays.delete(l.relay)
	s.ports.of(l.v6()).Return(l.port) // before anybody can see that the allocation is gone
	l.freed.Store(true)
	for _, other := range l.ses.legs { // which may be ending at this moment
		if !other.freed.Load() {
			return
		}
	}
	l.ses.ended()
}

// live returns the legs that have not ended.
func (ses *session) live() []*leg {
	live := make([]*leg, 0, len(ses.legs))
	for _, l := range ses.legs {
		if !l.gone.Load() {
			live = append(live, l)
		}
	}
	return live
}

// leg returns the live leg of a family, or nil.
func (ses *session) leg(v6 bool) *leg {
	for _, l := range ses.legs {
		if l.v6() == v6 && !l.gone.Load() {
			return l
		}
	}
	return nil
}

// relayed returns the relayed transport addresses, also those that have ended.
func (ses *session) relayed() []netip.AddrPort {
	all := make([]netip.AddrPort, 0, len(ses.legs))
	for _, l := range ses.legs {
		all = append(all, l.relay.Relayed())
	}
	return all
}

// forward sends the payloads of ChannelData messages of one channel to their
// peer.
func (ses *session) forward(channel uint16, payloads []relay.Frame) bool {
	return ses.legs[0].relay.ForwardRun(channel, payloads)
}

// counts returns how many permissions and channels the allocation holds.
func (ses *session) counts() (permits, channels int) {
	for _, l := range ses.legs {
		p, c := l.relay.Counts()
		permits, channels = permits+p, channels+c
	}
	return permits, channels
}

// traffic sums what the legs carried.
func (ses *session) traffic() (sum carried) {
	sum.add(ses)
	return sum
}
