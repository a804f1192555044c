package relay

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// Many relays whose clients share a listener: what one turn reads leaves in one
// call, to the right clients and in order, also where the kernel does not cut.
func TestManyClientsAreSentToAtOnce(t *testing.T) {
	for _, cuts := range []bool{true, false} {
		t.Run(fmt.Sprintf("cuts=%v", cuts), func(t *testing.T) {
			loops := NewLoops(1)
			defer loops.Close()
			l, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), NewTable(), loops, 2)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if !cuts {
				for _, s := range l.sockets {
					s.largest.Store(0)
				}
			}
			peer, from := udp(t)
			until := time.Now().Add(time.Hour)
			type call struct {
				client *net.UDPConn
				r      *Relay
			}
			var calls []call
			for i := range 30 {
				client, addr := udp(t)
				r, _ := newRelay(t, l.Egress(Path{addr, l.Addr()}), func(o *Options) { o.Loops = loops })
				if err := r.Bind(0x4000+uint16(i), from, until, until); err != nil {
					t.Fatal(err)
				}
				calls = append(calls, call{client, r})
			}
			const packets = 40 // more than one turn reads of a socket
			for n := range packets {
				for i, c := range calls {
					peer.WriteToUDPAddrPort(fmt.Appendf(nil, "%02d to %02d", n, i), c.r.Relayed())
				}
			}
			for _, c := range calls { // what came before is found too
				start(t, c.r)
			}
			for i, c := range calls {
				for n := range packets {
					want := Frame{0x4000 + uint16(i), fmt.Appendf(nil, "%02d to %02d", n, i)}
					if got := read(t, c.client); got != string(want.bytes()) {
						t.Fatalf("client %d, packet %d: got %q, want %q", i, n, got, want.bytes())
					}
				}
				if got := c.r.Stats().PacketsDown.Load(); got != packets {
					t.Errorf("client %d: %d packets counted, want %d", i, got, packets)
				}
			}
			if got := l.Drops(); got != 0 {
				t.Errorf("drops: got %d, want 0", got)
			}
		})
	}
}

// A descriptor is not given back while somebody uses it, or another socket
// would get what was meant for this one.
func TestASocketIsClosedByItsLastUser(t *testing.T) {
	conn, _ := udp(t)
	s, err := newSocket(conn, false)
	if err != nil {
		t.Fatal(err)
	}
	if !s.enter() {
		t.Fatal("an open socket: enter reports false")
	}
	s.close()
	if s.enter() {
		t.Error("a closed socket: enter reports true")
	}
	if _, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(s.local)); err == nil {
		t.Error("the address is free while the socket is used")
	}
	s.exit()
	if again, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(s.local)); err != nil {
		t.Errorf("the address is not free afterwards: %v", err)
	} else {
		again.Close()
	}
	other, err := net.ListenUDP("udp4", nil) // which may have the number of ours by now
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	to := s.addressOf(s.local, netip.Addr{})
	if failed := s.send(&to, run([]byte("x"))); failed != 1 {
		t.Errorf("send on a closed socket: %d failed, want 1", failed)
	}
	if _, err := s.file(); err != net.ErrClosed {
		t.Errorf("file of a closed socket: %v, want %v", err, net.ErrClosed)
	}
	if err := other.SetReadBuffer(4096); err != nil {
		t.Errorf("another socket, after those who came too late: %v", err)
	}
}

// Senders, bindings that come and go, and relays that end, all at once.
func TestSendersRaceWithTheEnd(t *testing.T) {
	loops := NewLoops(2)
	defer loops.Close()
	table := NewTable()
	l, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), table, loops, 2)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- l.Serve(func(*Listener, Path, []byte) {}) }()
	peer, from := udp(t)
	until := time.Now().Add(time.Hour)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			client, addr := udp(t)
			path := Path{addr, l.Addr()}
			for range 50 {
				conn, relayed := udp(t)
				r, err := New(Options{
					Conn: conn, Egress: l.Egress(path), Loops: loops, Clock: NewClock(), Relayed: relayed,
					Indicate: func(dst []byte, _ netip.AddrPort, p []byte) []byte { return append(dst, p...) },
				})
				if err != nil {
					t.Error(err)
					return
				}
				start(t, r)
				table.Set(path, r)
				var traffic sync.WaitGroup
				traffic.Go(func() {
					for range 20 {
						client.WriteToUDPAddrPort(Frame{0x4000, []byte("up")}.bytes(), l.Addr())
						peer.WriteToUDPAddrPort([]byte("down"), relayed)
						r.Forward(0x4000, []byte("over a stream"))
					}
				})
				traffic.Go(func() {
					for range 10 {
						_ = r.Bind(0x4000, from, until, until)
						r.Revoke(func(netip.AddrPort) bool { return i%2 == 0 })
					}
					table.Delete(path, r)
					r.Close()
				})
				traffic.Wait()
			}
		})
	}
	wg.Wait()
	l.Close()
	l.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
