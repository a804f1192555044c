//go:build amd64 || arm64

package offload

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
)

// What an XDP program decides.
const (
	xdpPass     = 2
	xdpTX       = 3
	xdpRedirect = 4
)

// four are bindings over every pair of families.
func four() []Binding {
	c4, c6 := Key{ap("10.1.0.2:40000"), ap("10.1.0.1:3478"), 0x4000}, Key{ap("[fd01::2]:40000"), ap("[fd01::1]:3478"), 0x4001}
	return []Binding{
		{Key: c4, Relay: ap("10.2.0.1:20000"), Peer: ap("10.2.0.2:5000")},
		{Key: Key{c4.Client, c4.Server, 0x4002}, Relay: ap("[fd02::1]:20001"), Peer: ap("[fd02::2]:5000")},
		{Key: c6, Relay: ap("[fd02::1]:20002"), Peer: ap("[fd02::2]:5000")},
		{Key: Key{c6.Client, c6.Server, 0x4FFF}, Relay: ap("10.2.0.1:20003"), Peer: ap("10.2.0.2:5000")},
	}
}

func channelData(channel uint16, payload []byte, padding int) []byte {
	p := binary.BigEndian.AppendUint16(nil, channel)
	p = binary.BigEndian.AppendUint16(p, uint16(len(payload)))
	p = append(p, payload...)
	return append(p, bytes.Repeat([]byte{0xAB}, padding)...)
}

func random(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rand.Uint32())
	}
	return p
}

// up and down are frames of a binding, from its client and from its peer.
func (s *site) up(b Binding, payload []byte) datagram {
	s.from("c0")
	return datagram{from: b.Client, to: b.Server, ttl: 64, tos: 0xb8, id: 0x1234, df: true, payload: payload}
}

func (s *site) down(b Binding, payload []byte) datagram {
	s.from("p0")
	return datagram{from: b.Peer, to: b.Relay, ttl: 64, tos: 0x02, id: 0x4321, payload: payload}
}

func (s *site) frame(d datagram) []byte { return d.put(hop{to: s.mac, from: [6]byte{2, 9}}) }

// relayed runs a frame and compares with the reference, which must relay it.
func (s *site) relayed(t *testing.T, frame []byte) datagram {
	t.Helper()
	want, index, ok := s.relay(frame)
	if !ok {
		t.Fatalf("the reference does not relay %x", frame)
	}
	action, got := s.run(t, frame)
	if wantAction := action4(index, s.in); action != wantAction {
		t.Fatalf("action %d, want %d", action, wantAction)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("frame that leaves\n got %x\nwant %x", got, want)
	}
	d, ok := takeApart(got)
	if !ok {
		t.Fatalf("the frame that leaves is not well-formed: %x", got)
	}
	return d
}

func action4(out, in int) uint32 {
	if out == in {
		return xdpTX
	}
	return xdpRedirect
}

// passes runs a frame that must go up as it came.
func (s *site) passes(t *testing.T, frame []byte) {
	t.Helper()
	action, got := s.run(t, frame)
	if action != xdpPass {
		t.Errorf("action %d, want %d (pass)", action, xdpPass)
	}
	if !bytes.Equal(got, frame) {
		t.Errorf("a frame that passes was changed\n got %x\nwant %x", got, frame)
	}
}

func TestBoundChannelsAreRelayedOverEveryPairOfFamilies(t *testing.T) {
	s := newSite(t)
	for _, b := range four() {
		s.bind(t, b)
	}
	for _, b := range four() {
		for _, size := range []int{0, 1, 2, 3, 4, 5, 17, 160, 999, 1200, 1400} {
			name := fmt.Sprintf("%v to %v, %d bytes", b.Client.Addr(), b.Peer.Addr(), size)
			t.Run(name, func(t *testing.T) {
				payload := random(size)
				before := s.Stats(b.Key)
				got := s.relayed(t, s.frame(s.up(b, channelData(b.Channel, payload, 0))))
				if got.from != b.Relay || got.to != b.Peer || !bytes.Equal(got.payload, payload) || got.ttl != 63 || got.tos != 0xb8 {
					t.Errorf("up: got %+v", got)
				}
				got = s.relayed(t, s.frame(s.down(b, payload)))
				if got.from != b.Server || got.to != b.Client || !bytes.Equal(got.payload, channelData(b.Channel, payload, 0)) {
					t.Errorf("down: got %+v", got)
				}
				n := uint64(size)
				if diff, want := s.Stats(b.Key).Sub(before), (Counters{1, n, 1, n}); diff != want {
					t.Errorf("counted %+v, want %+v", diff, want)
				}
			})
		}
	}
}

func TestPaddingOfChannelDataIsAcceptedAndNotSentOn(t *testing.T) {
	s := newSite(t)
	for _, b := range four() {
		s.bind(t, b)
		for size := range 9 {
			payload := random(size)
			got := s.relayed(t, s.frame(s.up(b, channelData(b.Channel, payload, (4-size%4)%4))))
			if !bytes.Equal(got.payload, payload) {
				t.Errorf("%d bytes: payload %x, want %x", size, got.payload, payload)
			}
		}
	}
}

func TestChecksums(t *testing.T) {
	s := newSite(t)
	for _, b := range four() {
		s.bind(t, b)
	}
	t.Run("a datagram without one goes on without one over IPv4, and gets one for IPv6", func(t *testing.T) {
		for _, b := range four() {
			for _, size := range []int{0, 1, 7, 1000, 1399} {
				up := s.up(b, channelData(b.Channel, random(size), 0))
				up.noSum = b.Client.Addr().Is4()
				if got := s.relayed(t, s.frame(up)); got.noSum != (up.noSum && b.Peer.Addr().Is4()) {
					t.Errorf("%v to %v: without a checksum: %v", b.Client, b.Peer, got.noSum)
				}
				down := s.down(b, random(size))
				down.noSum = b.Peer.Addr().Is4()
				if got := s.relayed(t, s.frame(down)); got.noSum != (down.noSum && b.Client.Addr().Is4()) {
					t.Errorf("%v to %v: without a checksum: %v", b.Peer, b.Client, got.noSum)
				}
			}
		}
	})
	t.Run("one that comes out as zero is sent as all ones", func(t *testing.T) {
		b := four()[0]
		payload := make([]byte, 2)
		// Choose the payload so that everything else sums to its complement.
		probe := datagram{from: b.Relay, to: b.Peer, payload: payload, ttl: 9}
		sum := binary.BigEndian.Uint16(probe.put(hop{})[14+20+6:])
		binary.BigEndian.PutUint16(payload, sum)
		frame := s.frame(s.up(b, channelData(b.Channel, payload, 0)))
		s.relayed(t, frame)
		if _, out := s.run(t, frame); binary.BigEndian.Uint16(out[14+20+6:]) != 0xffff {
			t.Errorf("checksum %x, want ffff", out[14+20+6:14+20+8])
		}
	})
	t.Run("a wrong one goes up where checksums may be unfinished", func(t *testing.T) {
		for _, b := range four() {
			frame := s.frame(s.up(b, channelData(b.Channel, random(100), 0)))
			frame[len(frame)-1] ^= 1
			s.passes(t, frame)
		}
	})
	t.Run("a wrong one stays wrong elsewhere", func(t *testing.T) {
		for index, p := range s.ports {
			w := p.wire
			w.Verify = 0
			if err := s.objects.Ports.Put(uint32(index), &w); err != nil {
				t.Fatal(err)
			}
			defer s.objects.Ports.Put(uint32(index), &p.wire)
		}
		for _, b := range four() {
			good := s.frame(s.up(b, channelData(b.Channel, random(101), 3)))
			s.relayed(t, good) // the sum of what stays is the same without a look at it
			frame := bytes.Clone(good)
			frame[len(frame)-10] ^= 1
			action, out := s.run(t, frame)
			if action != xdpRedirect {
				t.Fatalf("action %d, want %d", action, xdpRedirect)
			}
			if d, ok := takeApart(out); ok {
				t.Errorf("a checksum that was wrong is right now: %+v", d)
			}
		}
	})
}

func TestWhatIsNotBoundChannelTrafficGoesUpUntouched(t *testing.T) {
	s := newSite(t)
	for _, b := range four() {
		s.bind(t, b)
	}
	b4, b6 := four()[0], four()[2]
	good4 := func() []byte { return s.frame(s.up(b4, channelData(b4.Channel, []byte("payload!"), 0))) }
	good6 := func() []byte { return s.frame(s.up(b6, channelData(b6.Channel, []byte("payload!"), 0))) }
	// ip4 changes an IPv4 header and makes its checksum good again.
	ip4 := func(change func(ip []byte)) []byte {
		f := good4()
		change(f[14:])
		f[24], f[25] = 0, 0
		binary.BigEndian.PutUint16(f[24:], ^onesComplement(f[14:34]))
		return f
	}
	udp := func(d datagram) []byte { return s.frame(d) }
	cases := []struct {
		name   string
		frame  func() []byte
		reason string // empty: not even looked up
	}{
		{"a fragment, the first", func() []byte { return ip4(func(ip []byte) { ip[6] = 0x20 }) }, ""},
		{"a fragment, the last", func() []byte { return ip4(func(ip []byte) { ip[7] = 1 }) }, ""},
		{"the reserved flag of IPv4", func() []byte { return ip4(func(ip []byte) { ip[6] |= 0x80 }) }, ""},
		{"IP options", func() []byte {
			f := good4()
			f = slices.Insert(f, 34, 1, 1, 1, 0)
			f[14] = 0x46
			binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
			f[24], f[25] = 0, 0
			binary.BigEndian.PutUint16(f[24:], ^onesComplement(f[14:38]))
			return f
		}, ""},
		{"an IPv4 header that is too short", func() []byte { return ip4(func(ip []byte) { ip[0] = 0x44 }) }, ""},
		{"IP version 5", func() []byte { return ip4(func(ip []byte) { ip[0] = 0x55 }) }, ""},
		{"TCP", func() []byte { return ip4(func(ip []byte) { ip[9] = 6 }) }, ""},
		{"a wrong header checksum", func() []byte { f := good4(); f[25] ^= 1; return f }, "malformed"},
		{"an IP length beyond the frame", func() []byte {
			return ip4(func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+1)) })
		}, "malformed"},
		{"an IP length below the UDP header", func() []byte { return ip4(func(ip []byte) { ip[2], ip[3] = 0, 27 }) }, ""},
		{"a UDP length beyond the IP length", func() []byte { f := good4(); f[39]++; return f }, "malformed"},
		{"a UDP length below the IP length", func() []byte { f := good4(); f[39]--; return f }, "malformed"},
		{"TTL 1", func() []byte { return ip4(func(ip []byte) { ip[8] = 1 }) }, "ttl"},
		{"TTL 0", func() []byte { return ip4(func(ip []byte) { ip[8] = 0 }) }, "ttl"},
		{"hop limit 1", func() []byte { f := good6(); f[21] = 1; return f }, "ttl"},
		{"an IPv6 extension header", func() []byte { f := good6(); f[20] = 0; return f }, ""},
		{"an IPv6 fragment", func() []byte { f := good6(); f[20] = 44; return f }, ""},
		{"IPv6 without a UDP checksum", func() []byte { f := good6(); f[60], f[61] = 0, 0; return f }, "malformed"},
		{"IPv6 of version 4", func() []byte { f := good6(); f[14] = 0x45; return f }, ""},
		{"an IPv6 length of zero", func() []byte { f := good6(); f[18], f[19] = 0, 0; return f }, ""},
		{"a VLAN tag", func() []byte { return slices.Insert(good4(), 12, 0x81, 0, 0, 5) }, ""},
		{"a VLAN tag of another kind", func() []byte { return slices.Insert(good4(), 12, 0x88, 0xa8, 0, 5) }, ""},
		{"ARP", func() []byte { f := good4(); f[12], f[13] = 8, 6; return f }, ""},
		{"a frame for another host", func() []byte { f := good4(); f[5] ^= 1; return f }, "route"},
		{"a broadcast frame", func() []byte { f := good4(); copy(f, bytes.Repeat([]byte{0xff}, 6)); return f }, "route"},
		{"an unbound channel", func() []byte { return udp(s.up(b4, channelData(0x4003, []byte("x"), 0))) }, ""},
		{"a channel of the client's other family", func() []byte { return udp(s.up(b4, channelData(b6.Channel, []byte("x"), 0))) }, ""},
		{"ChannelData from another port", func() []byte {
			d := s.up(b4, channelData(b4.Channel, []byte("x"), 0))
			d.from = netip.AddrPortFrom(d.from.Addr(), 40001)
			return udp(d)
		}, ""},
		{"ChannelData to another address of ours", func() []byte {
			d := s.up(b4, channelData(b4.Channel, []byte("x"), 0))
			d.to = ap("10.2.0.1:3478")
			return udp(d)
		}, ""},
		{"a length beyond the datagram", func() []byte {
			p := channelData(b4.Channel, []byte("four"), 0)
			p[3] = 5
			return udp(s.up(b4, p))
		}, "malformed"},
		{"a length far beyond the datagram", func() []byte {
			p := channelData(b4.Channel, []byte("four"), 0)
			p[2], p[3] = 0xff, 0xff
			return udp(s.up(b4, p))
		}, "malformed"},
		{"more behind the data than padding", func() []byte { return udp(s.up(b4, channelData(b4.Channel, []byte("four"), 4))) }, "malformed"},
		{"padding that is too short", func() []byte { return udp(s.up(b4, channelData(b4.Channel, []byte("x"), 2))) }, "malformed"},
		{"a STUN message", func() []byte {
			return udp(s.up(b4, append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)))
		}, ""},
		{"three bytes", func() []byte { return udp(s.up(b4, []byte{0x40, 0, 0})) }, ""},
		{"an empty datagram of the client", func() []byte { return udp(s.up(b4, nil)) }, ""},
		{"another peer", func() []byte {
			d := s.down(b4, []byte("x"))
			d.from = ap("10.2.0.3:5000")
			return udp(d)
		}, ""},
		{"another port of the peer", func() []byte {
			d := s.down(b4, []byte("x"))
			d.from = ap("10.2.0.2:5001")
			return udp(d)
		}, ""},
		{"another relay", func() []byte {
			d := s.down(b4, []byte("x"))
			d.to = ap("10.2.0.1:20009")
			return udp(d)
		}, ""},
		{"more than fits the next hop", func() []byte { return udp(s.down(b4, random(1500-28-3))) }, "length"},
		{"more than fits the next hop over IPv6", func() []byte {
			b := four()[1]
			return udp(s.up(b, channelData(b.Channel, random(1500-48+1), 0)))
		}, "length"},
		{"more than the program adds up", func() []byte { return udp(s.up(b4, channelData(b4.Channel, random(2045), 0))) }, "length"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := s.Status().Passed
			s.passes(t, c.frame())
			for reason, n := range s.Status().Passed {
				want := before[reason]
				if reason == c.reason {
					want++
				}
				if n != want {
					t.Errorf("passed for %q: %d, want %d", reason, n, want)
				}
			}
		})
	}
	t.Run("every truncation", func(t *testing.T) {
		for _, b := range four() {
			for _, whole := range [][]byte{s.frame(s.up(b, channelData(b.Channel, []byte("payload"), 1))), s.frame(s.down(b, []byte("payload")))} {
				s.in = int(s.index(whole))
				for n := 14; n < len(whole); n++ {
					s.passes(t, whole[:n])
				}
			}
		}
	})
	t.Run("the largest that fits is relayed, and padding of the frame does not count", func(t *testing.T) {
		s.relayed(t, udp(s.down(b4, random(1500-28-4))))
		s.relayed(t, append(udp(s.down(b4, []byte("short"))), make([]byte, 13)...))
		s.relayed(t, append(udp(s.up(b6, channelData(b6.Channel, nil, 0))), make([]byte, 46)...))
	})
}

// index returns the interface that a frame is for, by its address.
func (s *site) index(frame []byte) int {
	for i, p := range s.ports {
		if [6]byte(frame[:6]) == p.wire.MAC {
			return i
		}
	}
	return 0
}

func TestTheWayOut(t *testing.T) {
	s := newSite(t)
	b := four()[0]
	up := func(b Binding) []byte { return s.frame(s.up(b, channelData(b.Channel, []byte("x"), 0))) }
	t.Run("back through the same interface", func(t *testing.T) {
		same := Binding{Key: Key{ap("10.1.0.2:40001"), ap("10.1.0.1:3478"), 0x4000}, Relay: ap("10.1.0.1:21000"), Peer: ap("10.1.0.3:5000")}
		s.bind(t, same)
		s.relayed(t, up(same))
	})
	t.Run("a neighbour that is not known yet", func(t *testing.T) {
		far := Binding{Key: Key{b.Client, b.Server, 0x4010}, Relay: ap("10.2.0.1:21001"), Peer: ap("10.2.0.77:5000")}
		s.bind(t, far)
		s.bound = nil
		s.passes(t, up(far))
		if got := s.Status().Passed["neighbour"]; got != 1 {
			t.Errorf("passed for the neighbour: %d, want 1", got)
		}
	})
	t.Run("no route, an address of ours, a blackhole, an interface that is not ours", func(t *testing.T) {
		testnet.Veth(t, s.server, "d0", testnet.NewNamespace(t), "eth0")
		s.server.Run(t, "ip route add blackhole 203.0.113.0/24", "ip addr add 10.3.0.1/24 dev d0",
			"ip neighbour replace 10.3.0.2 lladdr "+peerMAC+" dev d0 nud permanent")
		for i, peer := range []string{"198.51.100.1:5000", "10.1.0.1:5000", "203.0.113.9:5000", "10.3.0.2:5000"} {
			b := Binding{Key: Key{b.Client, b.Server, 0x4020 + uint16(i)}, Relay: ap("10.2.0.1:21002"), Peer: ap(peer)}
			s.bind(t, b)
			before := s.Status().Passed["route"]
			s.passes(t, up(b))
			if got := s.Status().Passed["route"] - before; got != 1 {
				t.Errorf("%s: passed for the route: %d, want 1", peer, got)
			}
		}
	})
	t.Run("through a gateway, with the MTU of the route", func(t *testing.T) {
		s.server.Run(t, "ip route add 192.0.2.0/24 via 10.2.0.2 mtu lock 1280", "ip -6 route add 2001:db8::/32 via fd02::2 mtu lock 1300")
		h := s.hops[addr("10.2.0.2")]
		h.mtu = 1280
		s.hops[addr("192.0.2.1")] = h
		h.mtu = 1300
		s.hops[addr("2001:db8::1")] = h
		for i, peer := range []string{"192.0.2.1:5000", "[2001:db8::1]:5000"} {
			b := Binding{Key: Key{b.Client, b.Server, 0x4030 + uint16(i)}, Relay: ap("10.2.0.1:21003"), Peer: ap(peer)}
			most := 1280 - 28
			if b.Peer.Addr().Is6() {
				b.Relay, most = ap("[fd02::1]:21003"), 1300-48
			}
			s.bind(t, b)
			s.relayed(t, s.frame(s.up(b, channelData(b.Channel, random(most), 0))))
			s.passes(t, s.frame(s.up(b, channelData(b.Channel, random(most+1), 0))))
		}
	})
	t.Run("by a rule for the relay's address", func(t *testing.T) {
		s.server.Run(t, "ip rule add from 10.2.0.1 lookup 99", "ip route add 198.18.0.0/15 via 10.1.0.3 table 99")
		s.hops[addr("198.18.0.1")] = s.hops[addr("10.1.0.3")]
		b := Binding{Key: Key{b.Client, b.Server, 0x4040}, Relay: ap("10.2.0.1:21004"), Peer: ap("198.18.0.1:5000")}
		s.bind(t, b)
		s.relayed(t, up(b))
	})
	t.Run("a relay without an address sends from the one that the route has", func(t *testing.T) {
		b := Binding{Key: Key{b.Client, b.Server, 0x4050}, Relay: ap("0.0.0.0:21005"), Peer: ap("10.2.0.2:5009")}
		s.bind(t, b)
		s.bound[len(s.bound)-1].Relay = ap("10.2.0.1:21005")
		b.Relay = ap("10.2.0.1:21005")
		s.relayed(t, up(b))
		s.relayed(t, s.frame(s.down(b, []byte("x"))))
	})
}

func TestBindingsEndWithTheirTime(t *testing.T) {
	s := newSite(t)
	b := four()[0]
	up := func() []byte { return s.frame(s.up(b, channelData(b.Channel, []byte("x"), 0))) }
	down := func() []byte { return s.frame(s.down(b, []byte("x"))) }
	hour, past := time.Now().Add(time.Hour), time.Now().Add(-time.Second)

	b.Up, b.Down = hour, past // the permission has ended before the channel
	s.bind(t, b)
	s.relayed(t, up())
	s.passes(t, down())
	if got := s.Status().Passed["expired"]; got != 1 {
		t.Errorf("passed for expiry: %d, want 1", got)
	}
	b.Down = hour // renewed
	s.bind(t, b)
	s.relayed(t, down())

	b.Up, b.Down = past, past
	s.bind(t, b)
	s.passes(t, up())
	s.passes(t, down())
	if got := s.Stats(b.Key); got != (Counters{1, 1, 1, 1}) {
		t.Errorf("counters after renewals %+v, want one of each", got)
	}

	b.Up, b.Down = hour, hour
	s.bind(t, b)
	s.relayed(t, up())
	if got := s.Remove(b.Key); got != (Counters{2, 2, 1, 1}) {
		t.Errorf("counters at the end %+v", got)
	}
	s.passes(t, up())
	s.passes(t, down())
	if got := s.Stats(b.Key); got != (Counters{}) {
		t.Errorf("counters of what is removed %+v, want none", got)
	}
}

func TestBindingsReplaceEachOther(t *testing.T) {
	s := newSite(t)
	b := four()[0]
	s.bind(t, b)
	other := b
	other.Peer = ap("10.2.0.2:6000")
	s.bind(t, other) // the channel was free again
	s.bound = []Binding{other}
	s.relayed(t, s.frame(s.up(b, channelData(b.Channel, []byte("x"), 0))))
	s.passes(t, s.frame(s.down(b, []byte("x"))))
	s.bind(t, b) // and back, with counters that go on
	s.bound = []Binding{b}
	s.relayed(t, s.frame(s.down(b, []byte("xy"))))
	if got, want := s.Stats(b.Key), (Counters{1, 1, 1, 2}); got != want {
		t.Errorf("counters of a channel with another peer: %+v, want %+v", got, want)
	}
	s.bind(t, other)
	moved := other
	moved.Client = ap("10.1.0.3:40000")
	s.bind(t, moved) // while its old five-tuple is still there
	s.Remove(other.Key)
	s.bound = []Binding{moved}
	s.relayed(t, s.frame(s.down(moved, []byte("x"))))
	s.passes(t, s.frame(s.up(other, channelData(b.Channel, []byte("x"), 0))))
	if got := s.Status().Bindings; got != 1 {
		t.Errorf("%d bindings, want 1", got)
	}
}

func TestATableThatIsFullRefuses(t *testing.T) {
	s := newSite(t)
	s.free = s.free[:1]
	first, second := four()[0], four()[1]
	s.bind(t, first)
	second.Up, second.Down = time.Now().Add(time.Hour), time.Now().Add(time.Hour)
	if err := s.Add(second); !errors.Is(err, ErrFull) {
		t.Errorf("second binding: %v, want %v", err, ErrFull)
	}
	s.Remove(first.Key)
	if err := s.Add(second); err != nil {
		t.Errorf("second binding after the first has gone: %v", err)
	}
	if got := s.Stats(second.Key); got != (Counters{}) {
		t.Errorf("it begins with the counters of the first: %+v", got)
	}
}

func TestUnsuitableBindingsAreRefused(t *testing.T) {
	s := newSite(t)
	good := four()[0]
	cases := map[string]func(*Binding){
		"a link-local client":      func(b *Binding) { b.Client, b.Server = ap("[fe80::2]:1"), ap("[fd01::1]:3478") },
		"a loopback peer":          func(b *Binding) { b.Peer = ap("127.0.0.1:5000") },
		"a multicast peer":         func(b *Binding) { b.Peer = ap("224.0.0.5:5000") },
		"families that differ":     func(b *Binding) { b.Peer = ap("[fd02::2]:5000") },
		"no server address":        func(b *Binding) { b.Server = ap("0.0.0.0:3478") },
		"no port":                  func(b *Binding) { b.Peer = ap("10.2.0.2:0") },
		"no channel":               func(b *Binding) { b.Channel = 0 },
		"no address":               func(b *Binding) { b.Client = netip.AddrPort{} },
		"a peer without a route":   func(b *Binding) { b.Relay, b.Peer = ap("0.0.0.0:1"), ap("198.51.100.1:1") },
		"a peer on this very host": func(b *Binding) { b.Relay, b.Peer = ap("0.0.0.0:1"), ap("127.0.0.2:1") },
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		b := good
		cases[name](&b)
		var err error
		s.server.Do(func() { err = s.Add(b) })
		if !errors.Is(err, ErrUnsuitable) {
			t.Errorf("%s: %v, want %v", name, err, ErrUnsuitable)
		}
	}
}
