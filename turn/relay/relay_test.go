package relay

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"
)

// sink collects frames for a client.
type sink struct{ frames chan []byte }

func newSink() *sink { return &sink{make(chan []byte, 64)} }

func (s *sink) Send(batch []Frame) {
	for _, f := range batch {
		s.frames <- f.append(nil)
	}
}

func (s *sink) next(t *testing.T) []byte {
	t.Helper()
	select {
	case f := <-s.frames:
		return f
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was sent to the client")
		return nil
	}
}

// discard is a client that takes everything.
type discard struct{}

func (discard) Send([]Frame) {}

// run makes a run of payloads.
func run(payloads ...[]byte) (frames []Frame) {
	for _, p := range payloads {
		frames = append(frames, Frame{Payload: p})
	}
	return frames
}

func udp(t testing.TB) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// newRelay makes a relay on loopback whose Data indications are the peer's
// address and the payload.
func newRelay(t testing.TB, e Egress, change func(*Options)) (*Relay, *Clock) {
	t.Helper()
	conn, addr := udp(t)
	clock := NewClock()
	loops := NewLoops(2)
	t.Cleanup(loops.Close)
	o := Options{
		Conn: conn, Egress: e, Loops: loops, Clock: clock, Relayed: addr,
		Indicate: func(dst []byte, peer netip.AddrPort, p []byte) []byte {
			return append(append(dst, "from "+peer.String()+": "...), p...)
		},
	}
	if change != nil {
		change(&o)
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, clock
}

func start(t *testing.T, r *Relay) {
	t.Helper()
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c *net.UDPConn) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 65536)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestWhatNoMessageCanCarryIsDropped(t *testing.T) {
	out := newSink()
	r, _ := newRelay(t, out, func(o *Options) {
		o.Indicate = func(dst []byte, _ netip.AddrPort, p []byte) []byte {
			if len(p) > 3 {
				return dst
			}
			return append(dst, p...)
		}
	})
	peer := netip.MustParseAddrPort("192.0.2.1:7")
	r.Permit(peer.Addr(), time.Now().Add(time.Hour))
	r.Deliver(peer, run([]byte("long"), []byte("ok")))
	if got := string(out.next(t)); got != "ok" {
		t.Errorf("the client got %q, want %q", got, "ok")
	}
	st := r.Stats()
	if dropped, packets, bytes := st.DroppedDown.Load(), st.PacketsDown.Load(), st.BytesDown.Load(); dropped != 1 || packets != 1 || bytes != 2 {
		t.Errorf("dropped %d, passed %d with %d bytes; want 1, 1 and 2", dropped, packets, bytes)
	}
}

func TestChannelCarriesBothWays(t *testing.T) {
	out := newSink()
	r, clock := newRelay(t, out, nil)
	start(t, r)
	peer, addr := udp(t)
	until := time.Now().Add(time.Hour)
	if r.Forward(0x4000, []byte("early")) {
		t.Error("Forward on a channel that is not bound: got true")
	}
	if err := r.Bind(0x4000, addr, until, until); err != nil {
		t.Fatal(err)
	}
	if !r.Forward(0x4000, []byte("up")) || read(t, peer) != "up" {
		t.Error("the peer did not get what the client sent")
	}
	for _, size := range []int{0, 1, 1200, 2048, 9000} {
		payload := bytes.Repeat([]byte{'x'}, size)
		want := append([]byte{0x40, 0x00, byte(size >> 8), byte(size)}, payload...)
		peer.WriteToUDPAddrPort(payload, r.Relayed())
		if got := out.next(t); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got a frame of %d bytes beginning % x", size, len(got), got[:4])
		}
	}
	clock.Set(until)
	if r.Forward(0x4000, []byte("late")) {
		t.Error("Forward on an expired channel: got true")
	}
}

func TestPeerWithoutChannelComesAsIndication(t *testing.T) {
	out := newSink()
	r, _ := newRelay(t, out, nil)
	start(t, r)
	peer, addr := udp(t)
	r.Permit(addr.Addr(), time.Now().Add(time.Hour))
	peer.WriteToUDPAddrPort([]byte("hello"), r.Relayed())
	if got, want := string(out.next(t)), "from "+addr.String()+": hello"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !r.SendTo(addr, []byte("answer")) || read(t, peer) != "answer" {
		t.Error("the peer did not get what the client sent")
	}
}

func TestNothingPassesWithoutPermission(t *testing.T) {
	r, clock := newRelay(t, discard{}, nil)
	_, addr := udp(t)
	until := time.Now().Add(time.Minute)
	if r.SendTo(addr, []byte("x")) {
		t.Error("SendTo without a permission: got true")
	}
	r.Deliver(addr, run([]byte("x")))
	if got := r.Stats().PacketsDown.Load(); got != 0 {
		t.Errorf("packets to the client: got %d, want 0", got)
	}
	// A channel outlives its permission when only the permission is let go.
	if err := r.Bind(0x4000, addr, until.Add(time.Minute), until); err != nil {
		t.Fatal(err)
	}
	r.Deliver(addr, run([]byte("x")))
	if got := r.Stats().PacketsDown.Load(); got != 1 {
		t.Errorf("packets to the client with a permission: got %d, want 1", got)
	}
	clock.Set(until)
	r.Deliver(addr, run([]byte("x")))
	if got := r.Stats().PacketsDown.Load(); got != 1 {
		t.Errorf("packets to the client after the permission: got %d, want still 1", got)
	}
}

func TestOneChannelOnePeer(t *testing.T) {
	r, clock := newRelay(t, discard{}, nil)
	a, b := netip.MustParseAddrPort("127.0.0.1:1001"), netip.MustParseAddrPort("127.0.0.1:1002")
	until := time.Now().Add(time.Minute)
	if err := r.Bind(0x4000, a, until, until); err != nil {
		t.Fatal(err)
	}
	if err := r.Bind(0x4000, b, until, until); err != ErrChannelTaken {
		t.Errorf("channel to a second peer: got %v, want %v", err, ErrChannelTaken)
	}
	if err := r.Bind(0x4001, a, until, until); err != ErrPeerTaken {
		t.Errorf("peer to a second channel: got %v, want %v", err, ErrPeerTaken)
	}
	clock.Set(until)
	if err := r.Bind(0x4000, b, until.Add(time.Minute), until); err != nil {
		t.Errorf("channel to another peer after it expired: %v", err)
	}
	if _, channels := r.State(); len(channels) != 1 || channels[0].Peer != b {
		t.Errorf("channels: got %v, want one to %v", channels, b)
	}
}

func TestRevokeReachesALiveRelay(t *testing.T) {
	r, _ := newRelay(t, discard{}, nil)
	good, bad := netip.MustParseAddrPort("127.0.0.1:1001"), netip.MustParseAddrPort("127.0.0.2:1001")
	until := time.Now().Add(time.Minute)
	for i, p := range []netip.AddrPort{good, bad} {
		if err := r.Bind(0x4000+uint16(i), p, until, until); err != nil {
			t.Fatal(err)
		}
	}
	r.Revoke(func(a netip.AddrPort) bool { return a.Addr() == good.Addr() })
	if !r.HasChannel(0x4000) || r.HasChannel(0x4001) || r.SendTo(bad, nil) || !r.SendTo(good, nil) {
		t.Error("want the refused peer gone and the other one there")
	}
}

func TestLocalPeersMeetWithoutTheKernel(t *testing.T) {
	out := newSink()
	a, _ := newRelay(t, out, nil)
	b, _ := newRelay(t, discard{}, func(o *Options) {
		o.Local = func(to, from netip.AddrPort, p []Frame) bool {
			if to == a.Relayed() {
				a.Deliver(from, p)
			}
			return to == a.Relayed()
		}
	})
	until := time.Now().Add(time.Minute)
	if err := a.Bind(0x4001, b.Relayed(), until, until); err != nil {
		t.Fatal(err)
	}
	b.Permit(a.Relayed().Addr(), until)
	p := []byte("between us")
	b.SendTo(a.Relayed(), p)
	want := append([]byte{0x40, 0x01, 0, byte(len(p))}, p...)
	if got := out.next(t); !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if string(p) != "between us" {
		t.Error("Deliver changed the sender's buffer")
	}
}

func TestListenerForwardsChannelDataAndHandsOverTheRest(t *testing.T) {
	for _, bind := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		t.Run(bind, func(t *testing.T) {
			table := NewTable()
			loops := NewLoops(2)
			defer loops.Close()
			l, err := Listen(netip.MustParseAddrPort(bind), table, loops, 2)
			if err != nil {
				t.Fatal(err)
			}
			type message struct {
				path Path
				p    string
			}
			control := make(chan message, 8)
			done := make(chan error, 1)
			go func() {
				done <- l.Serve(func(l *Listener, path Path, p []byte) {
					control <- message{path, string(p)}
					l.Send(path, []byte("answer"))
				})
			}()
			defer func() {
				l.Close()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			// 127.0.0.5 is an address of the host too: the answer must come from it.
			to := "127.0.0.1"
			if bind == "0.0.0.0:0" {
				to = "127.0.0.5"
			}
			server := netip.AddrPortFrom(netip.MustParseAddr(to), l.Addr().Port())
			client, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(server))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			client.Write([]byte("\x00\x01 no ChannelData"))
			m := <-control
			want := Path{client.LocalAddr().(*net.UDPAddr).AddrPort(), server}
			if m.path != want || m.p != "\x00\x01 no ChannelData" {
				t.Errorf("control got %+v, want path %+v", m, want)
			}
			if got := read(t, client); got != "answer" { // a connected socket: from this address only
				t.Errorf("answer: got %q", got)
			}
			r, _ := newRelay(t, discard{}, nil)
			peer, addr := udp(t)
			until := time.Now().Add(time.Hour)
			if err := r.Bind(0x4000, addr, until, until); err != nil {
				t.Fatal(err)
			}
			table.Set(m.path, r)
			client.Write([]byte{0x40, 0x00, 0x00, 0x06, 'c', 'u', 't'})                          // announces more than there is
			client.Write([]byte{0x40, 0x00, 0x00, 0x03, 'y', 'e', 's', 'p', 'a', 'd', 'd', 'd'}) // padded
			if got := read(t, peer); got != "yes" {
				t.Errorf("peer: got %q, want %q", got, "yes")
			}
		})
	}
}

// bound returns a table with one relay that has channel 0x4000 bound.
func bound(t testing.TB) (*Table, Path, *Relay) {
	r, _ := newRelay(t, discard{}, nil)
	_, addr := udp(t)
	until := time.Now().Add(time.Hour)
	if err := r.Bind(0x4000, addr, until, until); err != nil {
		t.Fatal(err)
	}
	table := NewTable()
	path := Path{netip.MustParseAddrPort("127.0.0.1:5000"), netip.MustParseAddrPort("127.0.0.1:3478")}
	table.Set(path, r)
	return table, path, r
}
