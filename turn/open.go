package turn

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/turn/ports"
)

// portTries bounds how many ports held by other programs one request skips.
// They are set aside, so the next request does not meet them again.
const portTries = 64

// open takes a port of the range and binds it. A port that another program
// holds is set aside and another one tried; what would stop every port is returned
// at once. token is set when the next port
// has been reserved too.
func (s *Server) open(r *request, addr Address, want allocateRequest) (conn *net.UDPConn, token []byte, err error) {
	if want.token != nil {
		conn, err = s.redeem(addr, *want.token)
		return conn, nil, err
	}
	free := s.ports.of(addr.External.Is6())
	for range portTries {
		port, exhausted := take(free, want)
		if exhausted != nil {
			return nil, nil, errors.Join(exhausted, err)
		}
		var next *net.UDPConn
		if conn, next, err = bindPorts(free, addr, port, want.next); err == nil {
			if next != nil {
				token = s.hold(r, addr, port+1, next)
			}
			return conn, token, nil
		}
		if sameForAll(err) {
			break
		}
	}
	return nil, nil, err
}

// sameForAll reports whether a port could not be bound for a reason that every other
// one has as well: there are no descriptors left, or the host has lost the address.
func sameForAll(err error) bool {
	for _, reason := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// giveBack returns a port that could not be bound.
func giveBack(free *ports.Allocator, port uint16, err error) {
	if sameForAll(err) {
		free.Return(port)
	} else {
		free.Busy(port)
	}
}

func take(free *ports.Allocator, want allocateRequest) (uint16, error) {
	switch {
	case want.next:
		return free.TakePair()
	case want.even:
		return free.TakeEven()
	}
	return free.Take()
}

// bindPorts binds a port that has been taken, and the next one if it has been
// taken too. On an error both are given back.
func bindPorts(free *ports.Allocator, addr Address, port uint16, pair bool) (conn, next *net.UDPConn, err error) {
	if conn, err = bind(addr, port); err != nil {
		giveBack(free, port, err)
		if pair {
			free.Return(port + 1)
		}
		return nil, nil, fmt.Errorf("relay port %d: %w", port, err)
	}
	if !pair {
		return conn, nil, nil
	}
	if next, err = bind(addr, port+1); err != nil {
		conn.Close()
		free.Return(port)
		giveBack(free, port+1, err)
		return nil, nil, fmt.Errorf("relay port %d: %w", port+1, err)
	}
	return conn, next, nil
}

// bind opens a relay socket on a port of the range.
func bind(a Address, port uint16) (*net.UDPConn, error) {
	network := "udp4"
	if a.Local.Is6() {
		network = "udp6"
	}
	return net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.Local, port)))
}

// reservation holds the port behind an even one, with its socket bound so
// that nobody else gets it (RFC 8656 section 7.2). It outlives the allocation that
// it was made with, so it counts like one: else a client that makes and ends one
// over and over would take all ports.
type reservation struct {
	addr   Address
	port   uint16
	conn   *net.UDPConn
	timer  *time.Timer
	user   string
	source netip.Prefix
}

// hold keeps a bound port for whoever brings its token.
func (s *Server) hold(r *request, addr Address, port uint16, conn *net.UDPConn) []byte {
	var token [8]byte
	rand.Read(token[:])
	res := &reservation{addr: addr, port: port, conn: conn, user: r.user, source: limit.Source(r.tuple.client.Addr())}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reservations[token] = res
	s.perUser[res.user]++
	s.perSource[res.source]++
	res.timer = time.AfterFunc(reservationLifetime, func() { s.release(token[:]) })
	return token[:]
}

// forgo takes a reservation out of the books, and returns it if it was there.
// s.mu is held.
func (s *Server) forgo(token [8]byte) *reservation {
	res := s.reservations[token]
	if res == nil {
		return nil
	}
	res.timer.Stop()
	delete(s.reservations, token)
	drop(s.perUser, res.user)
	drop(s.perSource, res.source)
	return res
}

// reservedFamily reports whether a token holds an IPv6 port: a request that
// brings one names no family.
func (s *Server) reservedFamily(token [8]byte) (v6 bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	res := s.reservations[token]
	return res != nil && res.addr.External.Is6()
}

// redeem takes what a token holds.
func (s *Server) redeem(addr Address, token [8]byte) (*net.UDPConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	res := s.reservations[token]
	if res == nil || res.addr.External.Is6() != addr.External.Is6() {
		return nil, errors.New("no such reservation")
	}
	s.forgo(token)
	return res.conn, nil
}

// release gives back what a token holds, if it still holds something.
func (s *Server) release(token []byte) {
	if token == nil {
		return
	}
	s.mu.Lock()
	res := s.forgo([8]byte(token))
	s.mu.Unlock()
	if res == nil {
		return
	}
	res.conn.Close()
	s.ports.of(res.addr.External.Is6()).Return(res.port)
}
