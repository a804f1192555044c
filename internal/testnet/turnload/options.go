package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
)

// options are one load.
type options struct {
	server    netip.AddrPort
	auth      tc.Auth
	transport string // of the clients: udp, tcp, tls

	up, down    bool // from clients to peers, from peers to clients
	size        int  // bytes of payload
	allocations int
	burst       int     // packets that one flow sends at once
	rate        float64 // packets a second of all flows; 0: search
	duration    time.Duration
	tick        time.Duration

	from, most, within float64 // of the search

	pid   int    // of the server; 0: no CPU, no memory
	cpuOf string // threads whose CPU is counted besides

	clientNS, peerNS   string       // network namespaces
	clientNet, peerNet netip.Prefix // one address for each client or peer; invalid: one socket for each
	peerAddr           netip.Addr   // of the peers without peerNet; invalid: by route
	gso, gro           bool
}

func parseBench(args []string, stderr io.Writer) (o options, asJSON bool, err error) {
	f := flag.NewFlagSet("turnload bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	server := f.String("server", "127.0.0.1:3478", "TURN server, address:port")
	f.StringVar(&o.auth.User, "user", "turn", "user")
	f.StringVar(&o.auth.User, "u", "turn", "the same")
	f.StringVar(&o.auth.Password, "password", "", "password")
	f.StringVar(&o.auth.Password, "w", "", "the same")
	f.StringVar(&o.transport, "transport", "udp", "of the clients: udp, tcp or tls (any certificate is taken)")
	direction := f.String("direction", "up", "up (clients to peers), down, or both at half the rate each")
	f.IntVar(&o.size, "size", 1000, "bytes of payload")
	f.IntVar(&o.allocations, "allocations", 1, "allocations, each with a channel to a peer of its own")
	f.IntVar(&o.burst, "burst", 1, "packets that an allocation sends at once")
	rate := f.String("rate", "30000", "packets a second of all allocations, or \"search\" for the highest without loss")
	f.DurationVar(&o.duration, "duration", 3*time.Second, "how long; of each attempt in a search")
	f.DurationVar(&o.tick, "tick", 100*time.Microsecond, "how often the generator wakes")
	f.Float64Var(&o.from, "from", 20000, "where a search begins")
	f.Float64Var(&o.most, "most", 2e6, "where a search ends")
	f.Float64Var(&o.within, "within", 0.05, "how exact a search is")
	f.IntVar(&o.pid, "pid", 0, "process of the server, for CPU and memory")
	f.StringVar(&o.cpuOf, "cpu-of", "", "further threads to count: process ids, or beginnings of names such as napi/ or ksoftirqd/, separated by commas")
	f.StringVar(&o.clientNS, "ns-client", "", "network namespace of the clients")
	f.StringVar(&o.peerNS, "ns-peer", "", "network namespace of the peers")
	clientNet := f.String("client-net", "auto", "IPv4 prefix that gives every client an address on one shared socket; \"auto\": 127.1.0.0/16 when the server is on loopback; \"none\": a socket each")
	peerNet := f.String("peer-net", "auto", "the same for peers, 127.2.0.0/16")
	peerAddr := f.String("peer-addr", "", "address of the peers without -peer-net; empty: by route")
	f.BoolVar(&o.gso, "gso", false, "send bursts as one message to the kernel (UDP_SEGMENT): cheaper here, and a server that asks for UDP_GRO gets them whole")
	f.BoolVar(&o.gro, "gro", false, "receive with UDP_GRO: cheaper here, and a server that uses UDP_SEGMENT saves the cutting")
	f.BoolVar(&asJSON, "json", false, "print JSON instead of a table")
	if err := f.Parse(args); err != nil {
		return o, false, err
	}
	if f.NArg() > 0 {
		return o, false, fmt.Errorf("%q: no arguments beside flags", f.Arg(0))
	}
	if o.server, err = netip.ParseAddrPort(*server); err != nil {
		return o, false, fmt.Errorf("-server: %w", err)
	}
	if *peerAddr != "" {
		if o.peerAddr, err = netip.ParseAddr(*peerAddr); err != nil {
			return o, false, fmt.Errorf("-peer-addr: %w", err)
		}
	}
	if o.rate, err = parseRate(*rate); err != nil {
		return o, false, err
	}
	if o.clientNet, err = parseNet("-client-net", *clientNet, "127.1.0.0/16", o.server.Addr()); err != nil {
		return o, false, err
	}
	if o.peerNet, err = parseNet("-peer-net", *peerNet, "127.2.0.0/16", o.server.Addr()); err != nil {
		return o, false, err
	}
	o.up, o.down = *direction != "down", *direction != "up"
	if *direction != "up" && *direction != "down" && *direction != "both" {
		return o, false, fmt.Errorf("-direction %q: want up, down or both", *direction)
	}
	return o, asJSON, o.check()
}

func parseRate(s string) (float64, error) {
	if s == "search" {
		return 0, nil
	}
	r, err := strconv.ParseFloat(s, 64)
	if err != nil || !(r > 0) || r > 1e8 {
		return 0, fmt.Errorf("-rate %q: want packets a second, or search", s)
	}
	return r, nil
}

func parseNet(name, s, auto string, server netip.Addr) (netip.Prefix, error) {
	switch {
	case s == "none", s == "auto" && !(server.IsLoopback() && server.Is4()):
		return netip.Prefix{}, nil
	case s == "auto":
		s = auto
	}
	p, err := netip.ParsePrefix(s)
	if err == nil && !p.Addr().Is4() {
		err = errors.New("want IPv4")
	}
	if err != nil {
		return p, fmt.Errorf("%s %q: %w", name, s, err)
	}
	return p.Masked(), nil
}

func (o *options) check() error {
	switch {
	case o.transport != "udp" && o.transport != "tcp" && o.transport != "tls":
		return fmt.Errorf("-transport %q: want udp, tcp or tls", o.transport)
	case o.size < minPayload || o.size > maxPayload:
		return fmt.Errorf("-size %d: want %d to %d", o.size, minPayload, maxPayload)
	case o.allocations < 1 || o.burst < 1 || o.duration <= 0 || o.tick <= 0:
		return errors.New("-allocations, -burst, -duration and -tick must be positive")
	case !(o.from > 0) || !(o.most >= o.from) || !(o.within > 0):
		return errors.New("-from, -most and -within must be positive, and -most not below -from")
	}
	for _, p := range []netip.Prefix{o.clientNet, o.peerNet} {
		if p.IsValid() && o.allocations > 1<<(32-p.Bits())-2 {
			return fmt.Errorf("%v has no %d addresses", p, o.allocations)
		}
	}
	return nil
}

// direction as it was asked for.
func (o *options) direction() string {
	switch {
	case o.up && o.down:
		return "both"
	case o.down:
		return "down"
	}
	return "up"
}

// nth returns the address of a client or peer in a prefix.
func nth(p netip.Prefix, i int) netip.Addr {
	a := p.Addr().As4()
	n := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	n += uint32(i) + 1
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// indexOf is the inverse of nth; negative for what is not in the prefix.
func indexOf(p netip.Prefix, a netip.Addr) int {
	if !p.Contains(a) {
		return -1
	}
	b, x := p.Addr().As4(), a.As4()
	n := 0
	for i := range x {
		n = n<<8 + int(x[i]) - int(b[i])
	}
	return n - 1
}

// pids says which processes -cpu-of names.
func pidsOf(names string, comm func() map[int]string) (pids []int) {
	if names == "" {
		return nil
	}
	all := comm()
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		if n, err := strconv.Atoi(name); err == nil {
			pids = append(pids, n)
			continue
		}
		for pid, c := range all {
			if name != "" && strings.HasPrefix(c, name) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
