package relay

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/turngate/turngate/internal/testnet"
)

// payloads makes datagrams of the sizes, each with its own content.
func payloads(sizes ...int) (all [][]byte) {
	for i, size := range sizes {
		p := make([]byte, size)
		for k := range p {
			p[k] = byte(i*31 + k)
		}
		all = append(all, p)
	}
	return all
}

func repeat(size, n int) []int { return slices.Repeat([]int{size}, n) }

var runs = map[string][]int{
	"one":                        {1000},
	"one size":                   repeat(1000, 30),
	"more than is cut at once":   repeat(300, 150),
	"more than one call carries": repeat(40, 600),
	"a short one at the end":     append(repeat(1200, 10), 7),
	"short ones in between":      {500, 500, 499, 500, 500, 1, 1, 500},
	"rising":                     {1, 2, 3, 4, 5, 6, 7, 8},
	"falling":                    {8, 7, 6, 5, 4, 3, 2, 1},
	"empty ones":                 {0, 0, 5, 0, 5, 5, 0},
	"larger than one send":       {60000, 60000, 60000},
	"larger than a path takes":   {9000, 9000, 100, 100},
}

// A run reaches the peer as the datagrams that it was made of, in order, also
// where the kernel does not cut.
func TestARunArrivesAsItsDatagrams(t *testing.T) {
	for name, sizes := range runs {
		for _, cuts := range []string{"cut by the kernel", "never cut", "refused by the kernel"} {
			for _, channel := range []uint16{0, 0x4123} {
				t.Run(fmt.Sprintf("%s/%s/channel=%x", name, cuts, channel), func(t *testing.T) {
					from, _ := udp(t)
					to, addr := udp(t)
					_ = to.SetReadBuffer(8 << 20)
					s, err := newSocket(from, false)
					if err != nil {
						t.Fatal(err)
					}
					if s.largest.Load() == 0 {
						t.Fatal("this kernel does not cut")
					}
					switch cuts {
					case "never cut":
						s.largest.Store(0)
					case "refused by the kernel": // it cannot make the checksums then
						s.with(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) })
					}
					var frames []Frame
					for _, p := range payloads(sizes...) {
						frames = append(frames, Frame{channel, p})
					}
					dst := s.addressOf(addr, netip.Addr{})
					if failed := s.send(&dst, frames); failed != 0 {
						t.Fatalf("%d frames were not sent", failed)
					}
					for i := range frames {
						if got := read(t, to); got != string(frames[i].append(nil)) {
							t.Fatalf("datagram %d: got %d bytes, want %d", i, len(got), frames[i].size())
						}
					}
				})
			}
		}
	}
}

func TestWhatTheKernelIsAskedToCut(t *testing.T) {
	for _, tt := range []struct {
		sizes   []int
		largest int
		want    []int // datagrams in each message
	}{
		{repeat(1000, 30), maxSegmented, []int{30}},
		{repeat(1000, 30), 0, repeat(1, 30)},
		{repeat(100, 70), maxSegmented, []int{64, 6}},
		{repeat(1200, 60), maxSegmented, []int{54, 6}},
		{[]int{9, 9, 3, 9, 9}, maxSegmented, []int{3, 2}},
		{[]int{1200, 1200, 100, 100}, 1000, []int{1, 1, 2}},
		{[]int{0, 0, 4}, maxSegmented, []int{1, 1, 1}},
		{repeat(10, 300), maxSegmented, []int{64, 64, 64, 64}}, // and more with the next call
	} {
		o := new(outbox)
		o.add(new(address), run(payloads(tt.sizes...)...), tt.largest)
		var got []int
		for _, frames := range o.frames[:o.n] {
			got = append(got, len(frames))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%v with at most %d: messages of %v datagrams, want %v", tt.sizes, tt.largest, got, tt.want)
		}
	}
}

// A refusal is remembered: for what the path does not take whole, or for good.
func TestARefusalToCutIsRemembered(t *testing.T) {
	s := new(socket)
	for _, tt := range []struct {
		size int
		err  unix.Errno
		want int32
		cut  bool
	}{
		{1400, unix.EINVAL, 1399, true},
		{2000, unix.EINVAL, 1399, true}, // said by another path before
		{0, unix.EINVAL, 1399, false},
		{1300, unix.ENETUNREACH, 1399, false},
		{certain, unix.EIO, 0, true},
	} {
		if tt.size == 1400 {
			s.largest.Store(maxSegmented)
		}
		if got := s.uncut(tt.size, tt.err); got != tt.cut || s.largest.Load() != tt.want {
			t.Errorf("%v for %d: got %v and %d, want %v and %d", tt.err, tt.size, got, s.largest.Load(), tt.cut, tt.want)
		}
	}
}

// What a peer sends in one go reaches the client whole and in order, and so
// does what a client sends, over both families.
func TestRunsBothWays(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			network := "udp4"
			if host == "::1" {
				testnet.Need(t, "ipv6")
				network = "udp6"
			}
			open := func() end {
				c, err := net.ListenUDP(network, &net.UDPAddr{IP: net.ParseIP(host)})
				if err != nil {
					t.Fatal(err)
				}
				_ = c.SetReadBuffer(8 << 20)
				return newEnd(t, c)
			}
			client, peer, relayed := open(), open(), open()
			table := NewTable()
			loops := NewLoops(2)
			defer loops.Close()
			l, err := Listen(netip.AddrPortFrom(netip.MustParseAddr(host), 0), table, loops, 2)
			if err != nil {
				t.Fatal(err)
			}
			var controls [][]byte
			served := make(chan error, 1)
			go func() {
				served <- l.Serve(func(_ *Listener, _ Path, p []byte) { controls = append(controls, bytes.Clone(p)) })
			}()
			path := Path{client.local, l.Addr()}
			r, _ := newRelay(t, l.Egress(path), func(o *Options) { o.Conn, o.Relayed = relayed.conn, relayed.local })
			start(t, r)
			until := time.Now().Add(time.Hour)
			if err := r.Bind(0x4001, peer.local, until, until); err != nil {
				t.Fatal(err)
			}
			table.Set(path, r)
			for name, sizes := range runs {
				if slices.Max(sizes) > 50000 || len(sizes) > 200 {
					continue // not what a peer sends at once
				}
				all := payloads(sizes...)
				var up []Frame
				for _, p := range all {
					up = append(up, Frame{0x4001, p})
				}
				to := client.addressOf(l.Addr(), netip.Addr{})
				client.send(&to, up)
				for i, p := range all {
					if got := read(t, peer.conn); got != string(p) {
						t.Fatalf("%s: datagram %d at the peer: got %d bytes, want %d", name, i, len(got), len(p))
					}
				}
				to = peer.addressOf(relayed.local, netip.Addr{})
				peer.send(&to, run(all...))
				for i := range up {
					if got := read(t, client.conn); got != string(up[i].append(nil)) {
						t.Fatalf("%s: datagram %d at the client: got %d bytes, want %d", name, i, len(got), up[i].size())
					}
				}
			}

			// Messages of one size in one read, only some of them ChannelData.
			message := []byte("\x00\x01 message")
			mixed := run(message, Frame{0x4001, []byte("uneven")}.bytes(), message, Frame{0x4001, []byte("number")}.bytes(), Frame{0x4444, []byte("nobody")}.bytes(), message)
			to := client.addressOf(l.Addr(), netip.Addr{})
			client.send(&to, mixed)
			if a, b := read(t, peer.conn), read(t, peer.conn); a != "uneven" || b != "number" {
				t.Errorf("the peer got %q and %q, want uneven and number", a, b)
			}
			l.Close()
			if err := <-served; err != nil {
				t.Error(err)
			}
			if len(controls) != 3 || !bytes.Equal(controls[0], message) {
				t.Errorf("control got %q, want three times %q", controls, message)
			}
		})
	}
}

// end is one end of a conversation: it sends as sockets do, and what it
// receives is looked at one by one.
type end struct {
	*socket
	conn *net.UDPConn
}

func newEnd(t *testing.T, c *net.UDPConn) end {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := newSocket(c, c.LocalAddr().(*net.UDPAddr).IP.To4() == nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	if err := s.with(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 0) }); err != nil {
		t.Fatal(err)
	}
	pc, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return end{s, pc.(*net.UDPConn)}
}

func (f Frame) bytes() []byte { return f.append(nil) }

// Two servers do not share an address by mistake.
func TestAnAddressInUseIsRefused(t *testing.T) {
	loops := NewLoops(2)
	l, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), NewTable(), loops, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, sockets := range []int{1, 2} {
		if other, err := Listen(l.Addr(), NewTable(), loops, sockets); err == nil {
			other.Close()
			t.Errorf("a second listener of %d sockets on %v: no error", sockets, l.Addr())
		}
	}
}

// read64 fills a batch as one read of 64 datagrams of the size would.
func read64(b *batch, from netip.AddrPort, datagram []byte) {
	b.received = b.received[:0]
	joined := b.buffer[:0]
	for range 64 {
		joined = append(joined, datagram...)
	}
	b.received = append(b.received, received{payload: joined, segment: len(datagram), from: from})
}

func TestThePacketPathDoesNotAllocate(t *testing.T) {
	table, path, r := bound(t)
	_, channels := r.State()
	peer := channels[0].Peer
	l := &Listener{local: path.Server, table: table}
	r.o.Indicate = func(dst []byte, _ netip.AddrPort, p []byte) []byte { return append(dst, p...) }
	drop := func(*Listener, Path, []byte) {}
	b := newBatch()
	one, whole, payload := run(make([]byte, 1200)), frame(500, 'x'), make([]byte, 500)
	stranger := netip.MustParseAddrPort("127.0.0.9:9")
	r.Permit(stranger.Addr(), time.Now().Add(time.Hour))
	for name, f := range map[string]func(){
		"one datagram up":            func() { table.Forward(path, 0x4000, one) },
		"one frame of a stream":      func() { r.Forward(0x4000, one[0].Payload) },
		"a read of a listener":       func() { read64(b, path.Client, whole); l.handle(b, drop) },
		"a read of a relay":          func() { read64(b, peer, payload); r.handle(b); b.flush() },
		"a read without permission":  func() { read64(b, path.Client, payload); r.handle(b) },
		"a delivery inside":          func() { r.Deliver(peer, one) },
		"a read for Data indication": func() { read64(b, stranger, payload); r.handle(b); b.flush() },
	} {
		f()                                              // pools and scratch grow once
		if n := testing.AllocsPerRun(200, f); n > 0.05 { // pools are emptied by collections
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
	udpClient := &datagrams{l: l, s: r.socket, to: r.socket.addressOf(peer, netip.Addr{})}
	frames := slices.Repeat([]Frame{{0x4000, make([]byte, 500)}}, 64)
	if n := testing.AllocsPerRun(200, func() { udpClient.Send(frames) }); n > 0.05 {
		t.Errorf("a send to a UDP client: %v allocations, want 0", n)
	}
	r.SetEgress(udpClient)
	if n := testing.AllocsPerRun(200, func() { read64(b, peer, payload); r.handle(b); b.flush() }); n > 0.05 {
		t.Errorf("a read of a relay for a UDP client: %v allocations, want 0", n)
	}
}

// Benchmarks count one operation for each datagram.
func BenchmarkUp(b *testing.B) {
	for _, size := range []int{120, 1200} {
		for _, batched := range []int{1, 64} {
			b.Run(fmt.Sprintf("batch=%d/size=%d", batched, size), func(b *testing.B) {
				table, path, _ := bound(b)
				p := run(slices.Repeat([][]byte{make([]byte, size)}, batched)...)
				b.ReportAllocs()
				for i := 0; i < b.N; i += batched {
					table.Forward(path, 0x4000, p)
				}
			})
		}
	}
}

func BenchmarkDown(b *testing.B) {
	for _, size := range []int{120, 1200} {
		for _, batched := range []int{1, 64} {
			b.Run(fmt.Sprintf("batch=%d/size=%d", batched, size), func(b *testing.B) {
				_, _, r := bound(b)
				_, channels := r.State()
				_, client := udp(b)
				out := &datagrams{l: new(Listener), s: r.socket, to: r.socket.addressOf(client, netip.Addr{})}
				r.SetEgress(out)
				in := newBatch()
				read64(in, channels[0].Peer, make([]byte, size))
				payload := in.received[0].payload[:size*batched]
				b.ReportAllocs()
				for i := 0; i < b.N; i += batched {
					in.received[0].payload = payload
					r.handle(in)
					in.flush()
				}
			})
		}
	}
}
