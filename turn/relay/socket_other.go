//go:build !linux

package relay

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A socket sends and receives one datagram at a time. Answers leave from the
// address that the system's routing picks.
type socket struct {
	conn     *net.UDPConn
	v6       bool
	overruns overruns
}

func newSocket(conn *net.UDPConn, v6 bool) (*socket, error) {
	return &socket{conn: conn, v6: v6}, nil
}

func (s *socket) askDestination() error { return nil }

type inbox struct{ buffer []byte }

func newBatch() *batch { return &batch{inbox: inbox{make([]byte, 1<<16)}} }

// receive reads until the socket is closed and gives every datagram to handle,
// which must not keep it. It returns nil after Close.
func (s *socket) receive(handle func(*batch)) error {
	b := newBatch()
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(b.buffer)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil: // what stays must not spin
			time.Sleep(time.Millisecond)
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		b.received = append(b.received[:0], received{payload: b.buffer[:n], from: from})
		handle(b)
		b.clear()
	}
}

type address struct{ to netip.AddrPort }

func (s *socket) addressOf(to netip.AddrPort, _ netip.Addr) address { return address{to} }

var wholes = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

// send sends frames to one address and returns how many the system did not
// take.
func (s *socket) send(to *address, frames []Frame) (failed int) {
	whole := wholes.Get().(*[]byte)
	defer wholes.Put(whole)
	for _, f := range frames {
		*whole = f.append((*whole)[:0])
		if _, err := s.conn.WriteToUDPAddrPort(*whole, to.to); err != nil {
			failed++
		}
	}
	return failed
}

// CanSetDontFragment says whether datagrams can be kept from being fragmented
// (RFC 8656 section 14).
const CanSetDontFragment = false

func (s *socket) setDontFragment(bool) error { return errors.ErrUnsupported }

func shared(uintptr) error { return errors.ErrUnsupported }

const canShare = false
