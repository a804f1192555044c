//go:build !linux

package relay

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// A socket sends and receives one datagram at a time. Answers leave from the
// address that the system's routing picks.
type socket struct {
	conn     *net.UDPConn
	local    netip.AddrPort
	v6       bool
	overruns overruns
}

func newSocket(conn *net.UDPConn, v6 bool) (*socket, error) {
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return &socket{conn: conn, local: netip.AddrPortFrom(local.Addr().Unmap(), local.Port()), v6: v6}, nil
}

func (s *socket) close() { s.conn.Close() }

func (s *socket) file() (*os.File, error) { return s.conn.File() }

func (s *socket) askDestination() error { return nil }

type inbox struct{ buffer []byte }

func newBatch() *batch { return &batch{inbox: inbox{make([]byte, 1<<16)}} }

func (b *batch) reuse() {}

func (b *batch) sendAll() {
	for _, w := range b.waiting {
		w.to.Send(b.frames[w.from:w.end])
	}
}

// receive reads until the socket is closed and gives every datagram to handle,
// which must not keep it.
func (s *socket) receive(handle func(*batch)) {
	b := newBatch()
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(b.buffer)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // what stays must not spin
			time.Sleep(time.Millisecond)
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		b.received = append(b.received[:0], received{payload: b.buffer[:n], from: from})
		handle(b)
		b.flush()
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
