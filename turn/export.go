package turn

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

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
	External       netip.Addr
	Created        time.Time
	Expires        time.Time
	Permissions    []relay.PermitState
	Channels       []relay.ChannelState

	// The last Allocate and its answer, for a retransmission.
	Request wire.TransactionID
	Answer  []byte

	// Socket is a duplicate of the relay socket. Whoever holds the State
	// closes it; Restore does.
	Socket *os.File `json:"-"`
}

// Export returns the state of every UDP allocation. The server goes on; close
// it before the states are restored elsewhere, or both read the sockets.
func (s *Server) Export() ([]State, error) {
	var all []State
	for _, ses := range s.snapshot() {
		if ses.tuple.transport != UDP {
			continue
		}
		socket, err := ses.relay.Conn().File()
		if errors.Is(err, net.ErrClosed) {
			continue // it ended just now
		}
		if err != nil {
			for _, st := range all {
				st.Socket.Close()
			}
			return nil, fmt.Errorf("relay %v: %w", ses.relay.Relayed(), err)
		}
		st := State{
			Client: ses.tuple.client, Server: ses.tuple.server,
			User: ses.user, Realm: ses.realm, Key: ses.key, Algorithm: ses.algorithm,
			External: ses.relay.Relayed().Addr(),
			Created:  ses.created,
			Socket:   socket,
		}
		st.Permissions, st.Channels = ses.relay.State()
		ses.mu.Lock()
		st.Expires, st.Request, st.Answer = ses.expires, ses.request, ses.answer
		ses.mu.Unlock()
		all = append(all, st)
	}
	return all, nil
}

// ExportUDP returns a duplicate of a listening socket, for AdoptUDP.
func (s *Server) ExportUDP(addr netip.AddrPort) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.listeners[addr]
	if l == nil {
		return nil, fmt.Errorf("no UDP listener at %v", addr)
	}
	return l.udp.File()
}

// AdoptUDP makes a listener of a socket of ExportUDP, for ServeUDP. The file
// stays the caller's.
func (s *Server) AdoptUDP(f *os.File) (*relay.Listener, error) {
	return relay.Adopt(f, s.table)
}

// Restore goes on with an allocation: same client, same relayed address, and
// what is left of its lifetime, permissions and channels. Its listener must be
// served already. The socket of the state is closed in any case.
func (s *Server) Restore(st State) error {
	defer st.Socket.Close()
	left := time.Until(st.Expires)
	if left <= 0 {
		return fmt.Errorf("allocation of %v: expired", st.Client)
	}
	pc, err := net.FilePacketConn(st.Socket)
	if err != nil {
		return fmt.Errorf("relay socket of %v: %w", st.Client, err)
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		pc.Close()
		return fmt.Errorf("relay socket of %v is not UDP", st.Client)
	}
	if err := s.restore(st, conn, left); err != nil {
		conn.Close()
		return fmt.Errorf("allocation of %v: %w", st.Client, err)
	}
	return nil
}

func (s *Server) restore(st State, conn *net.UDPConn, left time.Duration) error {
	l := s.listenerOf(st.Server)
	if l == nil {
		return fmt.Errorf("nothing listens on %v", st.Server)
	}
	port := uint16(conn.LocalAddr().(*net.UDPAddr).Port)
	if err := s.ports.Claim(port); err != nil {
		return err
	}
	tuple := fiveTuple{UDP, st.Client, st.Server}
	from := &datagramClient{l: l, path: relay.Path{Client: st.Client, Server: st.Server}}
	ses := s.newSession(tuple, from, conn, Address{External: st.External}, left)
	ses.user, ses.key, ses.algorithm = st.User, st.Key, st.Algorithm
	ses.realm, ses.created = st.Realm, st.Created
	ses.request, ses.answer = st.Request, st.Answer
	s.mu.Lock()
	s.perUser[ses.user]++
	s.perAddress[tuple.client.Addr()]++
	s.mu.Unlock()
	if err := s.start(ses, left, s.settings.Load().Log); err != nil {
		s.mu.Lock()
		drop(s.perUser, ses.user)
		drop(s.perAddress, tuple.client.Addr())
		s.mu.Unlock()
		s.ports.Return(port)
		return err
	}
	if err := ses.reinstall(st); err != nil {
		ses.end("could not be restored")
		return err
	}
	return nil
}

// reinstall gives a restored session its permissions and channels, with the
// time that they had left.
func (ses *session) reinstall(st State) error {
	for _, p := range st.Permissions {
		if err := ses.alloc.Permit(p.Peer); err != nil {
			return err
		}
		ses.relay.Permit(p.Peer, p.Until)
	}
	for _, c := range st.Channels {
		if err := ses.alloc.Bind(c.Channel, c.Peer); err != nil {
			return err
		}
		if err := ses.relay.Bind(c.Channel, c.Peer, c.Until, time.Time{}); err != nil {
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
