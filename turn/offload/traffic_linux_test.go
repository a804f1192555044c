//go:build amd64 || arm64

package offload

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
)

// ends are the sockets of a binding's client and peer.
type ends struct{ client, peer *net.UDPConn }

func (s *site) ends(t *testing.T, b Binding, clients, peers *testnet.Namespace) ends {
	t.Helper()
	listen := func(in *testnet.Namespace, at netip.AddrPort) *net.UDPConn {
		var c *net.UDPConn
		var err error
		in.Do(func() { c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	return ends{listen(clients, b.Client), listen(peers, b.Peer)}
}

// expect reads one datagram.
func expect(t *testing.T, c *net.UDPConn, want []byte, from netip.AddrPort) {
	t.Helper()
	buf := make([]byte, 2048)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, src, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatalf("nothing came from %v: %v", from, err)
	}
	src = netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
	if src != from || !bytes.Equal(buf[:n], want) {
		t.Fatalf("got %q from %v, want %q from %v", buf[:n], src, want, from)
	}
}

// The server has no socket at all here: what arrives has passed the program,
// and the sums that the receivers' kernels check are right.
func TestTrafficBetweenNamespaces(t *testing.T) {
	for _, mode := range []Mode{Native, Generic} {
		t.Run(string(mode), func(t *testing.T) {
			testnet.Need(t, "xdp")
			s := &site{server: testnet.NewNamespace(t)}
			clients, peers := testnet.NewNamespace(t), testnet.NewNamespace(t)
			wire(t, s.server, clients, peers)
			clients.Run(t, "ip addr add 10.1.0.2/24 dev eth0", "ip addr add fd01::2/64 dev eth0 nodad")
			peers.Run(t, "ip addr add 10.2.0.2/24 dev eth0", "ip addr add fd02::2/64 dev eth0 nodad")
			for dev, far := range map[string]*testnet.Namespace{"c0": clients, "p0": peers} {
				var ifi *net.Interface
				far.Do(func() { ifi, _ = net.InterfaceByName("eth0") })
				net := map[string]string{"c0": "1", "p0": "2"}[dev]
				s.server.Run(t, "ip neighbour replace 10."+net+".0.2 lladdr "+ifi.HardwareAddr.String()+" dev "+dev,
					"ip neighbour replace fd0"+net+"::2 lladdr "+ifi.HardwareAddr.String()+" dev "+dev)
			}
			var err error
			s.server.Do(func() {
				lo, _ := net.InterfaceByName("lo")
				_, err = xdpFeatures(lo.Index)
			})
			if mode == Native && errors.Is(err, errNoFeatures) {
				testnet.Lacks(t, "xdp", err.Error()) // so that nothing is sent from one interface to another
			}
			s.xdp = open(t, s.server, Options{Mode: mode, Addresses: at(netip.IPv4Unspecified())})
			if got := s.Status(); got.Mode != mode || strings.Join(got.Interfaces, " ") != "c0 p0" {
				t.Fatalf("status %+v, want %s on c0 and p0", got, mode)
			}
			for i, b := range four() {
				b.Client = netip.AddrPortFrom(b.Client.Addr(), uint16(40000+i)) // a socket each
				b.Peer = netip.AddrPortFrom(b.Peer.Addr(), uint16(5000+i))
				s.bind(t, b)
				e := s.ends(t, b, clients, peers)
				for _, size := range []int{0, 1, 2, 3, 4, 100, 1201, 1400} {
					payload := random(size)
					padding := 0
					if size%2 == 0 {
						padding = (4 - size%4) % 4
					}
					if _, err := e.client.WriteToUDPAddrPort(channelData(b.Channel, payload, padding), b.Server); err != nil {
						t.Fatal(err)
					}
					expect(t, e.peer, payload, b.Relay)
					if _, err := e.peer.WriteToUDPAddrPort(payload, b.Relay); err != nil {
						t.Fatal(err)
					}
					expect(t, e.client, channelData(b.Channel, payload, 0), b.Server)
				}
				if got := s.Stats(b.Key); got.PacketsUp != 8 || got.PacketsDown != 8 || got.BytesUp != 2711 || got.BytesDown != 2711 {
					t.Errorf("%v: counted %+v, want 8 packets and 2711 bytes each", b.Key, got)
				}
			}
		})
	}
}

func TestAttaching(t *testing.T) {
	testnet.Need(t, "xdp")
	server := testnet.NewNamespace(t)
	wire(t, server, testnet.NewNamespace(t), testnet.NewNamespace(t))
	try := func(o Options) (e Engine, err error) {
		o.Log = slog.New(slog.DiscardHandler)
		server.Do(func() { e, err = Open(o) })
		if err == nil {
			t.Cleanup(func() { e.Close() })
		}
		return e, err
	}
	refused := func(o Options, want string) {
		t.Helper()
		if _, err := try(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want something with %q", o, err, want)
		}
	}
	refused(Options{Mode: Native, Interfaces: []string{"nothere0"}}, "interface nothere0: not on this host")
	refused(Options{Mode: Native, Interfaces: []string{"lo"}}, "interface lo: ")
	refused(Options{Mode: Native, Addresses: at(addr("127.0.0.1"))}, "no Ethernet interface carries")

	first, err := try(Options{Mode: Native, Addresses: at(addr("10.1.0.1"))})
	if err != nil {
		t.Fatal(err)
	}
	if got := first.Status().Interfaces; len(got) != 1 || got[0] != "c0" {
		t.Errorf("attached to %v, want c0", got)
	}
	refused(Options{Mode: Native, Interfaces: []string{"c0"}}, "interface c0: another XDP program is attached")
	if err := first.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := first.Add(four()[0]); err == nil {
		t.Error("a closed engine takes a binding")
	}

	second, err := try(Options{Mode: Native, Addresses: at(addr("10.1.0.1"), addr("10.2.0.1"))})
	if err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	// Interfaces come, go, and change their address.
	server.Run(t, "ip link del p0", "ip link set c0 down", "ip link set c0 address 02:00:00:00:00:77", "ip link set c0 up")
	server.Do(second.Refresh)
	if got := strings.Join(second.Status().Interfaces, " "); got != "c0" {
		t.Errorf("attached to %q, want c0", got)
	}
	for _, p := range second.(*xdp).ports {
		if p.wire.MAC != mac(t, "02:00:00:00:00:77") {
			t.Errorf("hardware address %x, want the new one", p.wire.MAC)
		}
	}
	testnet.Veth(t, server, "p1", testnet.NewNamespace(t), "eth0")
	server.Run(t, "ip addr add 10.2.0.1/24 dev p1")
	server.Do(second.Refresh)
	if got := strings.Join(second.Status().Interfaces, " "); got != "c0 p1" {
		t.Errorf("attached to %q, want c0 and p1", got)
	}
}

// A frame for an interface that cannot take it would be lost without a trace.
func TestAnInterfaceThatTakesNoFramesIsNotSentAny(t *testing.T) {
	testnet.Need(t, "xdp")
	server, clients, peers := testnet.NewNamespace(t), testnet.NewNamespace(t), testnet.NewNamespace(t)
	wire(t, server, clients, peers)
	peers.Run(t, "ethtool -K eth0 gro off")
	var p0 *net.Interface
	var features uint64
	var err error
	server.Do(func() {
		p0, _ = net.InterfaceByName("p0")
		features, err = xdpFeatures(p0.Index)
	})
	if errors.Is(err, errNoFeatures) {
		testnet.Lacks(t, "xdp", err.Error())
	}
	if err != nil || features&featureTransmit != 0 {
		t.Fatalf("features %b, %v: the test expects that p0 cannot transmit", features, err)
	}
	x := open(t, server, Options{Mode: Native, Interfaces: []string{"c0", "p0"}})
	out := func() uint8 {
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.ports[p0.Index].wire.Out
	}
	if got := out(); got != 0 {
		t.Errorf("frames may leave p0 %b, want not at all", got)
	}
	peers.Run(t, "ethtool -K eth0 gro on")
	server.Do(x.Refresh)
	if got := out(); got != outReturn|outRedirect {
		t.Errorf("frames may leave p0 %b, want both ways", got)
	}
}

func at(all ...netip.Addr) func() []netip.Addr { return func() []netip.Addr { return all } }
