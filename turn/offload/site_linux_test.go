//go:build amd64 || arm64

package offload

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/turngate/turngate/internal/testnet"
)

// site is a server between a network of clients and one of peers:
//
//	clients ── c0 [server] p0 ── peers
//	.2, ::2      .1, ::1            .2, ::2
//
// with 10.1.0.0/24 and fd01::/64 on the left, 10.2.0.0/24 and fd02::/64 on the
// right. Nothing answers: neighbours are written into the tables.
type site struct {
	*xdp
	server *testnet.Namespace
	reference
}

const (
	clientMAC = "02:00:00:00:00:c1"
	peerMAC   = "02:00:00:00:00:d1"
)

func newSite(t testing.TB) *site {
	t.Helper()
	testnet.Need(t, "xdp")
	s := &site{server: testnet.NewNamespace(t)}
	wire(t, s.server, testnet.NewNamespace(t), testnet.NewNamespace(t))
	s.server.Run(t,
		"ip neighbour replace 10.1.0.2 lladdr "+clientMAC+" dev c0 nud permanent",
		"ip neighbour replace fd01::2 lladdr "+clientMAC+" dev c0 nud permanent",
		"ip neighbour replace 10.1.0.3 lladdr "+clientMAC+" dev c0 nud permanent",
		"ip neighbour replace 10.2.0.2 lladdr "+peerMAC+" dev p0 nud permanent",
		"ip neighbour replace fd02::2 lladdr "+peerMAC+" dev p0 nud permanent")
	s.xdp = open(t, s.server, Options{Mode: Native, Interfaces: []string{"c0", "p0"}})
	s.server.Do(func() {
		c0, _ := net.InterfaceByName("c0")
		p0, _ := net.InterfaceByName("p0")
		toClient := hop{c0.Index, c0.MTU, [6]byte(c0.HardwareAddr), mac(t, clientMAC)}
		toPeer := hop{p0.Index, p0.MTU, [6]byte(p0.HardwareAddr), mac(t, peerMAC)}
		s.hops = map[netip.Addr]hop{
			addr("10.1.0.2"): toClient, addr("fd01::2"): toClient, addr("10.1.0.3"): toClient,
			addr("10.2.0.2"): toPeer, addr("fd02::2"): toPeer,
		}
	})
	s.from("c0")
	return s
}

// wire makes the interfaces of a site.
func wire(t testing.TB, server, clients, peers *testnet.Namespace) {
	testnet.Veth(t, server, "c0", clients, "eth0")
	testnet.Veth(t, server, "p0", peers, "eth0")
	server.Run(t,
		"ip addr add 10.1.0.1/24 dev c0", "ip addr add fd01::1/64 dev c0 nodad",
		"ip addr add 10.2.0.1/24 dev p0", "ip addr add fd02::1/64 dev p0 nodad")
}

// open opens an engine in a namespace.
func open(t testing.TB, in *testnet.Namespace, o Options) *xdp {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	var e Engine
	var err error
	in.Do(func() { e, err = Open(o) })
	if err != nil {
		t.Fatalf("engine: %v", err)
	}
	t.Cleanup(func() { e.Close() })
	return e.(*xdp)
}

// from has the frames that follow come in at an interface.
func (s *site) from(name string) {
	s.server.Do(func() {
		ifi, _ := net.InterfaceByName(name)
		s.in, s.mac = ifi.Index, [6]byte(ifi.HardwareAddr)
	})
}

// bind adds a binding and tells the reference.
func (s *site) bind(t testing.TB, b Binding) {
	t.Helper()
	if b.Up.IsZero() {
		b.Up, b.Down = time.Now().Add(time.Hour), time.Now().Add(time.Hour)
	}
	var err error
	s.server.Do(func() { err = s.Add(b) })
	if err != nil {
		t.Fatalf("add %+v: %v", b, err)
	}
	s.bound = append(s.bound, b)
}

// run gives the program a frame.
func (s *site) run(t testing.TB, frame []byte) (action uint32, out []byte) {
	t.Helper()
	md := struct{ Data, DataEnd, DataMeta, Ingress, Queue, Egress uint32 }{DataEnd: uint32(len(frame)), Ingress: uint32(s.in)}
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: md}
	var err error
	s.server.Do(func() { action, err = s.objects.Turn.Run(&o) })
	if err != nil {
		t.Fatalf("run the program on %d bytes: %v", len(frame), err)
	}
	return action, o.DataOut
}

func addr(s string) netip.Addr   { return netip.MustParseAddr(s) }
func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
func mac(t testing.TB, s string) [6]byte {
	m, err := net.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return [6]byte(m)
}
