package turn

import (
	"net/netip"
	"runtime"

	"github.com/turngate/turngate/turn/relay"
)

// listener is one UDP listener with its allocations.
type listener struct {
	s       *Server
	udp     *relay.Listener
	retired bool // takes no new allocation; guarded by s.mu

	sessions int // guarded by s.mu
}

// maxSockets bounds the sockets of one UDP listener, and the loops that read
// relays; there is one for each core up to it.
const maxSockets = 16

// OpenUDP opens a UDP socket for clients without serving it, so that a reload
// can open all that is new before anything changes.
func (s *Server) OpenUDP(addr netip.AddrPort) (*relay.Listener, error) {
	return relay.Listen(addr, s.table, s.loops, min(runtime.GOMAXPROCS(0), maxSockets))
}

// ServeUDP serves a socket of OpenUDP until Close, or until RetireUDP and the
// end of the last allocation made through it. It does not block.
func (s *Server) ServeUDP(udp *relay.Listener) error {
	l := &listener{s: s, udp: udp}
	if err := s.addListener(l); err != nil {
		udp.Close()
		return err
	}
	s.settings.Load().policy.Refresh() // a listener is never a peer
	return nil
}

func (s *Server) addListener(l *listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.listeners[l.udp.Addr()] = l
	s.wg.Go(func() {
		_ = l.udp.Serve(l.control)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.retired, l)
		if s.listeners[l.udp.Addr()] == l {
			return // the server stops, and its books stay as they are
		}
		s.metrics.traffic.ended.addListener(l)
	})
	return nil
}

// RetireUDP takes a listener out of service: its allocations live on, new ones
// are refused, and the socket is closed when the last has ended.
func (s *Server) RetireUDP(addr netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.listeners[addr]
	if l == nil {
		return
	}
	delete(s.listeners, addr)
	l.retired = true
	if l.sessions == 0 {
		l.udp.Close()
		return
	}
	s.retired[l] = struct{}{}
}

// control handles what is not ChannelData on a bound channel.
func (l *listener) control(udp *relay.Listener, path relay.Path, p []byte) {
	from := &datagramClient{l: l, path: path}
	l.s.handle(fiveTuple{transport: UDP, client: path.Client, server: path.Server}, from, p)
}

// datagramClient is a UDP client.
type datagramClient struct {
	l    *listener
	path relay.Path
}

func (c *datagramClient) answer(p []byte) { c.l.udp.Send(c.path, p) }

func (c *datagramClient) egress() relay.Egress { return c.l.udp.Egress(c.path) }

func (c *datagramClient) accepting() bool { return !c.l.retired }

// opened and closed count the allocations of a listener, so that a retired one
// closes with its last.
func (c *datagramClient) opened(*session) { c.l.sessions++ }

func (c *datagramClient) closed() {
	c.l.sessions--
	if c.l.retired && c.l.sessions == 0 {
		c.l.udp.Close()
	}
}
