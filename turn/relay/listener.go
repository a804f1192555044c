package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// Listener is one UDP socket that clients send to.
type Listener struct {
	conn  *net.UDPConn
	local netip.AddrPort // what the socket is bound to; may be unspecified
	table *Table
	drops atomic.Uint64

	overruns overruns
}

// Control is given every datagram that the data plane does not forward. p is
// the listener's buffer and valid during the call only.
type Control func(l *Listener, path Path, p []byte)

// socketBuffer is asked of the kernel for each listening socket; the kernel
// gives what net.core.rmem_max allows.
const socketBuffer = 4 << 20

// Listen opens a listening UDP socket. An unspecified address listens on every
// address of its family, and answers leave from the address that the client
// had sent to.
func Listen(addr netip.AddrPort, table *Table) (*Listener, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	pc, err := new(net.ListenConfig).ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, err
	}
	return listener(pc.(*net.UDPConn), table)
}

// Adopt makes a listener of a socket that another process or server opened
// with Listen. The file stays the caller's.
func Adopt(f *os.File, table *Table) (*Listener, error) {
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		pc.Close()
		return nil, errors.New("not a UDP socket")
	}
	return listener(conn, table)
}

func listener(conn *net.UDPConn, table *Table) (*Listener, error) {
	_ = conn.SetReadBuffer(socketBuffer)
	_ = conn.SetWriteBuffer(socketBuffer)
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	if local.Addr().IsUnspecified() {
		if err := askDestination(conn, local.Addr().Is6()); err != nil {
			conn.Close()
			return nil, fmt.Errorf("listen on %v: %w", local, err)
		}
	}
	return &Listener{conn: conn, local: local, table: table, overruns: overruns{conn: conn}}, nil
}

// File returns a duplicate of the socket, for Adopt.
func (l *Listener) File() (*os.File, error) { return l.conn.File() }

// Addr returns the address the socket is bound to.
func (l *Listener) Addr() netip.AddrPort { return l.local }

// Drops returns how many datagrams could not be sent to clients.
func (l *Listener) Drops() uint64 { return l.drops.Load() }

// Overruns returns how many datagrams of clients the kernel dropped because we
// did not read in time. It asks the kernel.
func (l *Listener) Overruns() uint64 { return l.overruns.count() }

// Serve reads until Close: ChannelData on a bound channel is forwarded,
// everything else goes to control. It returns nil after Close; a passing error
// of the socket does not end it.
func (l *Listener) Serve(control Control) error {
	buf := make([]byte, 65536)
	oob := make([]byte, oobSize)
	for {
		n, oobn, _, from, err := l.conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			// ICMP errors for earlier answers land here and are followed by
			// a good read; anything that stays must not spin.
			time.Sleep(time.Millisecond)
			continue
		}
		path := Path{
			Client: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()),
			Server: l.local,
		}
		if l.local.Addr().IsUnspecified() {
			if to, ok := destination(oob[:oobn]); ok {
				path.Server = netip.AddrPortFrom(to, l.local.Port())
			}
		}
		p := buf[:n]
		if n >= headroom && p[0]&0xC0 == 0x40 {
			size := int(binary.BigEndian.Uint16(p[2:]))
			if size <= n-headroom {
				l.table.Forward(path, binary.BigEndian.Uint16(p), p[headroom:headroom+size])
			}
			continue
		}
		control(l, path, p)
	}
}

// Send answers on a path. A datagram that the kernel does not take is lost.
func (l *Listener) Send(path Path, p []byte) {
	var oob []byte
	if l.local.Addr().IsUnspecified() {
		var space [oobSize]byte
		oob = appendSource(space[:0], path.Server.Addr())
	}
	if _, _, err := l.conn.WriteMsgUDPAddrPort(p, oob, path.Client); err != nil {
		l.drops.Add(1)
	}
}

// Egress returns the way to the client of a path.
func (l *Listener) Egress(path Path) Egress { return &datagrams{l, path} }

type datagrams struct {
	l    *Listener
	path Path
}

func (d *datagrams) Send(frames [][]byte) {
	for _, f := range frames {
		d.l.Send(d.path, f)
	}
}

// Close ends Serve. Allocations whose clients used the socket lose their way
// to them.
func (l *Listener) Close() error {
	l.overruns.count()
	return l.conn.Close()
}
