package turn

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/turn/relay"
	"github.com/turngate/turngate/turn/wire"
)

// State is a live allocation in a form that another process can go on with.
// It holds the user's key: treat it like a password.
//
// Only UDP clients have one: the connection of a TCP or TLS client ends with
// the process that holds it, and its allocation ends with it.
type State struct {
	Client, Server netip.AddrPort
	User, Realm    string
	Key            wire.Key
	Algorithm      wire.Algorithm // of the key
	Created        time.Time
	Expires        time.Time
	Relays         []RelayState // one, or one of each family
	Ticket         []byte       // of a client that may move (RFC 8016)

	// The last Allocate and its answer, for a retransmission.
	Request wire.TransactionID
	Answer  []byte
}

// RelayState is one relayed transport address of a State.
type RelayState struct {
	External    netip.Addr
	Permissions []relay.PermitState
	Channels    []relay.ChannelState

	// Socket is a duplicate of the relay socket. Whoever holds the State
	// closes it; Restore does.
	Socket *os.File `json:"-"`
}

// Close closes the sockets of a state that is not restored.
func (st *State) Close() {
	for _, r := range st.Relays {
		r.Socket.Close()
	}
}

// Export returns the state of every UDP allocation. The server goes on; close
// it before the states are restored elsewhere, or both read the sockets.
func (s *Server) Export() ([]State, error) {
	var all []State
	for _, ses := range s.snapshot() {
		if ses.at.Load().tuple.transport != UDP {
			continue
		}
		st, err := ses.export()
		if err != nil {
			for _, st := range all {
				st.Close()
			}
			return nil, err
		}
		if len(st.Relays) > 0 { // else it ended just now
			all = append(all, st)
		}
	}
	return all, nil
}

func (ses *session) export() (State, error) {
	at := ses.at.Load()
	st := State{
		Client: at.tuple.client, Server: at.tuple.server, Ticket: at.ticket[:],
		User: ses.user, Realm: ses.realm, Key: ses.key, Algorithm: ses.algorithm,
		Created: ses.created,
	}
	ses.mu.Lock()
	st.Expires, st.Request, st.Answer = time.Now().Add(time.Until(ses.expires)), ses.request, ses.answer
	ses.mu.Unlock()
	for _, l := range ses.live() {
		socket, err := l.relay.File()
		if errors.Is(err, net.ErrClosed) {
			continue
		}
		if err != nil {
			st.Close()
			return State{}, fmt.Errorf("relay %v: %w", l.relay.Relayed(), err)
		}
		r := RelayState{External: l.relay.Relayed().Addr(), Socket: socket}
		r.Permissions, r.Channels = l.relay.State()
		st.Relays = append(st.Relays, r)
	}
	return st, nil
}

// ExportUDP returns duplicates of the sockets of a listener, for AdoptUDP.
func (s *Server) ExportUDP(addr netip.AddrPort) ([]*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.listeners[addr]
	if l == nil {
		return nil, fmt.Errorf("no UDP listener at %v", addr)
	}
	return l.udp.Files()
}

// AdoptUDP makes a listener of the sockets of ExportUDP, for ServeUDP. The
// files stay the caller's.
func (s *Server) AdoptUDP(files []*os.File) (*relay.Listener, error) {
	return relay.Adopt(files, s.table, s.loops)
}

// Restore goes on with an allocation: same client, same relayed addresses, and
// what is left of its lifetime, permissions and channels. Its listener must be
// served already. The sockets of the state are closed in any case.
func (s *Server) Restore(st State) error {
	defer st.Close()
	if err := s.restore(st); err != nil {
		return fmt.Errorf("allocation of %v: %w", st.Client, err)
	}
	return nil
}

func (s *Server) restore(st State) error {
	left := time.Until(st.Expires)
	if left <= 0 {
		return errors.New("expired")
	}
	l := s.listenerOf(st.Server)
	if l == nil {
		return fmt.Errorf("nothing listens on %v", st.Server)
	}
	at := place{
		tuple: fiveTuple{transport: UDP, client: st.Client, server: st.Server},
		from:  &datagramClient{l: l, path: relay.Path{Client: st.Client, Server: st.Server}},
	}
	copy(at.ticket[:], st.Ticket)
	ses := s.newSession(at, left)
	ses.user, ses.key, ses.algorithm = st.User, st.Key, st.Algorithm
	ses.realm, ses.created = st.Realm, st.Created
	ses.request, ses.answer = st.Request, st.Answer
	for _, r := range st.Relays {
		if err := s.adopt(ses, r); err != nil {
			ses.abandon(-1)
			return err
		}
	}
	if len(ses.legs) == 0 {
		return errors.New("no relay socket")
	}
	s.mu.Lock()
	s.perUser[ses.user]++
	s.perSource[limit.Source(st.Client.Addr())]++
	s.mu.Unlock()
	if err := s.start(ses, left, s.settings.Load().Log); err != nil {
		s.mu.Lock()
		drop(s.perUser, ses.user)
		drop(s.perSource, limit.Source(st.Client.Addr()))
		s.mu.Unlock()
		return err
	}
	for i, l := range ses.legs {
		if err := l.reinstall(st.Relays[i]); err != nil {
			ses.end("could not be restored")
			return err
		}
	}
	ses.sync()
	return nil
}

// adopt gives a session that has not started the relay socket of a state.
func (s *Server) adopt(ses *session, r RelayState) error {
	pc, err := net.FilePacketConn(r.Socket)
	if err != nil {
		return err
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		pc.Close()
		return errors.New("relay socket is not UDP")
	}
	port := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	if err := s.ports.of(r.External.Is6()).Claim(port); err != nil {
		conn.Close()
		return err
	}
	if err := ses.addLeg(conn, r.External); err != nil {
		conn.Close()
		s.ports.of(r.External.Is6()).Return(port)
		return err
	}
	return nil
}

// reinstall gives a restored leg its permissions and channels, with the time
// that they had left.
func (l *leg) reinstall(r RelayState) error {
	for _, p := range r.Permissions {
		if err := l.alloc.Permit(p.Peer); err != nil {
			return err
		}
		l.relay.Permit(p.Peer, p.Until)
	}
	for _, c := range r.Channels {
		if err := l.alloc.Bind(c.Channel, c.Peer); err != nil {
			return err
		}
		if err := l.relay.Bind(c.Channel, c.Peer, c.Until, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// listenerOf returns the listener that serves an address.
func (s *Server) listenerOf(server netip.AddrPort) *listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.listeners[server]; l != nil {
		return l
	}
	any := netip.IPv4Unspecified()
	if server.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	return s.listeners[netip.AddrPortFrom(any, server.Port())]
}
