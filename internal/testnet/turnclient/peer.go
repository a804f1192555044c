package turnclient

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
)

// Peer is a UDP socket on the far side of the relay.
type Peer struct {
	conn *net.UDPConn
	got  chan Datagram // nil for an echo
	done chan struct{}
}

// Datagram is one received datagram.
type Datagram struct {
	From    netip.AddrPort
	Payload []byte
}

// NewPeer opens a socket on ip, port 0, that keeps what it receives for
// Receive. It is closed with the test.
func NewPeer(t testing.TB, ip string) *Peer {
	t.Helper()
	return newPeer(t, ip, make(chan Datagram, 4096))
}

// NewEcho opens a socket on ip, port 0, that sends everything back. It is
// closed with the test.
func NewEcho(t testing.TB, ip string) *Peer {
	t.Helper()
	return newPeer(t, ip, nil)
}

func newPeer(t testing.TB, ip string, got chan Datagram) *Peer {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)))
	if err != nil {
		t.Fatal(err)
	}
	p := &Peer{conn: conn, got: got, done: make(chan struct{})}
	go p.run()
	t.Cleanup(p.close)
	return p
}

// Addr returns the peer's address.
func (p *Peer) Addr() netip.AddrPort { return addrPortOf(p.conn.LocalAddr()) }

// Send sends a datagram.
func (p *Peer) Send(to netip.AddrPort, payload []byte) error {
	_, err := p.conn.WriteToUDPAddrPort(payload, to)
	return err
}

// Receive returns the next datagram; an echo keeps none.
func (p *Peer) Receive(ctx context.Context) (Datagram, error) {
	select {
	case d := <-p.got:
		return d, nil
	case <-p.done:
		return Datagram{}, net.ErrClosed
	case <-ctx.Done():
		return Datagram{}, ctx.Err()
	}
}

// Pending returns how many datagrams wait for Receive.
func (p *Peer) Pending() int { return len(p.got) }

func (p *Peer) close() {
	p.conn.Close()
	<-p.done
}

func (p *Peer) run() {
	defer close(p.done)
	b := make([]byte, 1<<16)
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of an earlier datagram
		}
		from = unmap(from)
		if p.got == nil {
			p.conn.WriteToUDPAddrPort(b[:n], from) // a lost echo is the network's right
			continue
		}
		select {
		case p.got <- Datagram{from, append([]byte(nil), b[:n]...)}:
		default: // as a full socket buffer does
		}
	}
}
