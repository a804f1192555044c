package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// Listener is one UDP address that clients send to: a socket for each core,
// between which the kernel spreads the clients, and each on a loop of its own.
type Listener struct {
	sockets []*socket
	local   netip.AddrPort // what the sockets are bound to; may be unspecified
	table   *Table
	loops   *Loops
	drops   atomic.Uint64

	closed chan struct{}
	mu     sync.Mutex // guards the fields below
	leave  func()     // of the loops; nil while nothing is read
	ended  bool       // closed is
}

// Control is given every datagram that the data plane does not forward. p is
// the listener's buffer and valid during the call only. Datagrams of one
// client come one after the other, those of several clients at once.
type Control func(l *Listener, path Path, p []byte)

// socketBuffer is asked of the kernel for each listening socket; the kernel
// gives what net.core.rmem_max allows.
const socketBuffer = 4 << 20

// Listen opens a listening UDP address with so many sockets; 1 where they
// cannot share it. An unspecified address listens on every address of its
// family, and answers leave from the address that the client had sent to.
func Listen(addr netip.AddrPort, table *Table, loops *Loops, sockets int) (*Listener, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	if !canShare {
		sockets = 1
	}
	if sockets > 1 {
		// Sockets that share an address would share it with those of another
		// server, too.
		alone, err := new(net.ListenConfig).ListenPacket(context.Background(), network, addr.String())
		if err != nil {
			return nil, err
		}
		local := alone.LocalAddr().(*net.UDPAddr).AddrPort()
		addr = netip.AddrPortFrom(addr.Addr(), local.Port())
		alone.Close()
	}
	config := net.ListenConfig{}
	if sockets > 1 {
		config.Control = func(_, _ string, c syscall.RawConn) error {
			var failed error
			if err := c.Control(func(fd uintptr) { failed = shared(fd) }); err != nil {
				return err
			}
			return failed
		}
	}
	l := newListener(table, loops)
	for range max(1, sockets) {
		pc, err := config.ListenPacket(context.Background(), network, addr.String())
		if err == nil {
			err = l.add(pc.(*net.UDPConn))
		}
		if err != nil {
			l.Close()
			return nil, err
		}
	}
	return l, nil
}

// Adopt makes a listener of the sockets that another process or server opened
// with Listen. The files stay the caller's.
func Adopt(files []*os.File, table *Table, loops *Loops) (*Listener, error) {
	l := newListener(table, loops)
	for _, f := range files {
		pc, err := net.FilePacketConn(f)
		if err == nil {
			if conn, ok := pc.(*net.UDPConn); ok {
				err = l.add(conn)
			} else {
				pc.Close()
				err = errors.New("not a UDP socket")
			}
		}
		if err != nil {
			l.Close()
			return nil, err
		}
	}
	if len(l.sockets) == 0 {
		return nil, errors.New("no socket")
	}
	return l, nil
}

func newListener(table *Table, loops *Loops) *Listener {
	return &Listener{table: table, loops: loops, closed: make(chan struct{})}
}

// add takes over a socket.
func (l *Listener) add(conn *net.UDPConn) error {
	_ = conn.SetReadBuffer(socketBuffer)
	_ = conn.SetWriteBuffer(socketBuffer)
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	l.local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	s, err := newSocket(conn, l.local.Addr().Is6())
	if err != nil {
		conn.Close()
		return fmt.Errorf("listen on %v: %w", l.local, err)
	}
	l.sockets = append(l.sockets, s)
	if l.local.Addr().IsUnspecified() {
		if err := s.askDestination(); err != nil {
			return fmt.Errorf("listen on %v: %w", l.local, err)
		}
	}
	return nil
}

// Files returns duplicates of the sockets, for Adopt.
func (l *Listener) Files() ([]*os.File, error) {
	var files []*os.File
	for _, s := range l.sockets {
		f, err := s.file()
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// Addr returns the address the sockets are bound to.
func (l *Listener) Addr() netip.AddrPort { return l.local }

// Drops returns how many datagrams could not be sent to clients.
func (l *Listener) Drops() uint64 { return l.drops.Load() }

// Overruns returns how many datagrams of clients the kernel dropped because we
// did not read in time. It asks the kernel.
func (l *Listener) Overruns() (n uint64) {
	for _, s := range l.sockets {
		n += s.overruns.count(s)
	}
	return n
}

// Serve reads until Close: ChannelData on a bound channel is forwarded,
// everything else goes to control. It returns nil after Close, when control is
// called no more.
func (l *Listener) Serve(control Control) error {
	if err := l.start(control); err != nil {
		return err
	}
	<-l.closed
	l.loops.settled()
	return nil
}

func (l *Listener) start(control Control) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.leave, err = l.loops.watchAll(l.sockets, func(b *batch) { l.handle(b, control) })
	}
	return err
}

// handle sorts what one read of a socket returned. ChannelData of one client
// on one channel is forwarded as one run, in its order with everything else.
func (l *Listener) handle(b *batch, control Control) {
	var run Path
	var channel uint16
	for i := range b.received {
		d := &b.received[i]
		path := Path{Client: d.from, Server: l.local}
		if d.to.IsValid() && l.local.Addr().IsUnspecified() {
			path.Server = netip.AddrPortFrom(d.to, l.local.Port())
		}
		for p, rest := d.cut(d.payload); ; p, rest = d.cut(rest) {
			number, payload, ok := channelData(p)
			if len(b.run) > 0 && (!ok || number != channel || path != run) {
				l.table.Forward(run, channel, b.run)
				b.run = b.run[:0]
			}
			switch {
			case ok:
				run, channel = path, number
				b.run = append(b.run, Frame{Payload: payload})
			case len(p) < headerSize || p[0]&0xC0 != 0x40: // else it announces more than there is
				control(l, path, p)
			}
			if len(rest) == 0 {
				break
			}
		}
	}
	if len(b.run) > 0 {
		l.table.Forward(run, channel, b.run)
		b.run = b.run[:0]
	}
}

// channelData splits a ChannelData message, which may be padded.
func channelData(p []byte) (channel uint16, payload []byte, ok bool) {
	if len(p) < headerSize || p[0]&0xC0 != 0x40 {
		return 0, nil, false
	}
	size := int(binary.BigEndian.Uint16(p[2:]))
	if size > len(p)-headerSize {
		return 0, nil, false
	}
	return binary.BigEndian.Uint16(p), p[headerSize : headerSize+size], true
}

// of returns the socket that a client is answered through. Any would do; it is
// always the same, so that answers keep their order.
func (l *Listener) of(client netip.AddrPort) *socket {
	return l.sockets[int(client.Port())%len(l.sockets)]
}

// addressOf returns where and from where a client is answered.
func (l *Listener) addressOf(s *socket, path Path) address {
	if l.local.Addr().IsUnspecified() {
		return s.addressOf(path.Client, path.Server.Addr())
	}
	return s.addressOf(path.Client, netip.Addr{})
}

// Send answers on a path. A datagram that the kernel does not take is lost.
func (l *Listener) Send(path Path, p []byte) {
	s := l.of(path.Client)
	to := l.addressOf(s, path)
	b := takeSingle(p)
	defer b.done()
	l.lost(s.send(&to, b.frames[:]))
}

// lost counts frames that could not be sent.
func (l *Listener) lost(n int) {
	if n > 0 {
		l.drops.Add(uint64(n))
	}
}

// Egress returns the way to the client of a path.
func (l *Listener) Egress(path Path) Egress {
	s := l.of(path.Client)
	return &datagrams{l: l, s: s, to: l.addressOf(s, path)}
}

// Close ends Serve. Allocations whose clients used the sockets lose their way
// to them. It may be called more than once, and by Control.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	l.ended = true
	l.Overruns()
	if l.leave != nil {
		l.leave()
	}
	for _, s := range l.sockets {
		s.close()
	}
	close(l.closed)
	return nil
}
