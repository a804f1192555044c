// Package turn is the TURN server (RFC 8656) of turngate: what reaches it over
// UDP, TCP and TLS is framed, parsed, authenticated and judged here, before
// the state machine behind it (turn/allocator) hears of it in words of ours,
// and the packets themselves never pass it (turn/relay).
package turn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/turngate/turngate/turn/allocator"
	"github.com/turngate/turngate/turn/offload"
	"github.com/turngate/turngate/turn/peers"
	"github.com/turngate/turngate/turn/relay"
)

// Options configure a Server. All of them can be changed by Reconfigure; what
// a live allocation was given stays with it.
type Options struct {
	// Realm of the long-term credentials (RFC 8489 section 9.2). Required.
	Realm string
	// RealmAt returns the realm of clients that came in at an address of ours,
	// or "" for Realm. Nil means one realm everywhere.
	RealmAt func(server netip.AddrPort) string
	// Users with fixed passwords.
	Users []User
	// Secrets for time-limited credentials: the user name is "expiry:id",
	// the password the base64 of HMAC-SHA1(secret, name). Several are valid
	// at once, so that a secret can be rotated.
	Secrets []string
	// Databases hold further users and secrets, at most one for each realm.
	Databases []Database
	// StrictExpiry asks the expiry of a time-limited credential at every
	// request and not at Allocate only. Calls then end when it expires.
	StrictExpiry bool

	// Addresses are the relayed addresses, at most one of each family.
	Addresses []Address
	// MinPort and MaxPort are the range of relayed ports, both included.
	MinPort, MaxPort uint16

	// Allow, Deny and PeerPorts are the operator's peer policy, RelayToRelay
	// lets two clients of this server reach each other; see package peers.
	Allow, Deny  []peers.Rule
	PeerPorts    []peers.PortRange
	RelayToRelay bool
	// Listeners returns the addresses that this process listens on, UDP and
	// TCP, beside those the Server opened itself. They are never peers. May
	// be nil.
	Listeners func() []netip.AddrPort

	// Alternates are other servers, which clients are sent to while this one
	// drains or is full.
	Alternates []netip.AddrPort

	// Mobility lets clients that ask for it take their allocation to another
	// address (RFC 8016). Tickets that are out stay good when it is switched off.
	Mobility bool

	Limits Limits
	Egress relay.StreamLimits

	// Offload relays bound channels of UDP clients in the kernel. The caller
	// owns it, and closes one that was replaced: nothing is lost by that. Nil
	// means that all is relayed in user space.
	Offload offload.Engine

	Log *slog.Logger // nil means slog.Default
}

// User is a user of the long-term credential mechanism.
type User struct {
	Name string
	// Passwords that are valid, several while one is being changed.
	Passwords []string
}

// Address is one relayed address.
type Address struct {
	// External is what clients are told.
	External netip.Addr
	// Local is what relay sockets are bound to. The unspecified address lets
	// the system choose for each datagram.
	Local netip.Addr
}

// Limits bound what clients can make the server hold. Zero means the default
// where one is given, and no limit otherwise.
type Limits struct {
	Allocations           int // in all
	AllocationsPerUser    int
	AllocationsPerAddress int           // per client address, of IPv6 per /64
	Permissions           int           // per allocation, default 128
	Channels              int           // per allocation, default 256
	FirstMessage          time.Duration // for a stream's first message, default 10 s
	// UnauthenticatedAnswers is how many answers a second one source prefix
	// gets over UDP without having proved its address; 0 is no limit.
	UnauthenticatedAnswers int
	Unproven               time.Duration // for a stream to get an allocation, default 30 s

	// AuthFailures is how many wrong credentials a minute ban their source,
	// and Ban for how long; 0 failures are no limit. See bans.go.
	AuthFailures int
	Ban          time.Duration // default 10 min

	// Payload bytes a second, each direction on its own; 0 is no limit.
	BytesPerSecondPerAllocation int64
	BytesPerSecondPerUser       int64
	BytesPerSecond              int64 // in all
}

func (l Limits) orDefault() Limits {
	if l.Permissions <= 0 {
		l.Permissions = 128
	}
	if l.Channels <= 0 {
		l.Channels = 256
	}
	if l.FirstMessage <= 0 {
		l.FirstMessage = 10 * time.Second
	}
	if l.Unproven <= 0 {
		l.Unproven = 30 * time.Second
	}
	if l.Ban <= 0 {
		l.Ban = 10 * time.Minute
	}
	return l
}

// Server is a TURN server. Its methods are safe for concurrent use.
type Server struct {
	allocator *allocator.Allocator
	ports     portSet
	table     *relay.Table // by client
	relays    relays       // by relayed transport address
	clock     *relay.Clock
	loops     *relay.Loops
	nonces    nonces
	metrics   *metrics
	refusals  sampler
	strangers strangers
	bans      *bans
	bandwidth *bandwidth
	hits      limitHits
	draining  atomic.Bool
	turns     atomic.Uint64 // of the alternates

	unreachable atomic.Uint64 // frames for clients that are away
	kernel      kernelCarried

	settings atomic.Pointer[settings]

	mu           sync.Mutex // guards the fields below
	sessions     map[fiveTuple]*session
	perUser      map[string]int       // allocations and reservations
	perSource    map[netip.Prefix]int // the same
	reservations map[[8]byte]*reservation
	opening      map[fiveTuple]bool     // of Allocates that are being served
	moving       map[fiveTuple]*session // that sessions are being moved to
	tickets      map[ticket]*session
	away         uint64                       // numbers the sessions without a connection
	listeners    map[netip.AddrPort]*listener // retired ones are not in it
	retired      map[*listener]struct{}
	streams      map[*stream]struct{}
	changed      chan struct{} // closed and renewed when a session ends
	closed       bool
	wg           sync.WaitGroup // listeners, streams, directories that are stopped
}

// settings are what Reconfigure swaps.
type settings struct {
	Options
	policy      *peers.Policy
	directories map[string]*directory // by realm
	started     time.Time
}

// ErrClosed is returned by a server that has been closed.
var ErrClosed = errors.New("TURN server is closed")

// New checks the options and makes a server that serves nothing yet: see
// ListenUDP, ServeConn and Serve. Close it.
func New(o Options) (*Server, error) {
	alloc, err := allocator.New()
	if err != nil {
		return nil, err
	}
	s := &Server{
		allocator:    alloc,
		table:        relay.NewTable(),
		clock:        relay.NewClock(),
		loops:        relay.NewLoops(min(runtime.GOMAXPROCS(0), maxSockets)),
		refusals:     newSampler(),
		strangers:    newStrangers(),
		bans:         newBans(),
		sessions:     make(map[fiveTuple]*session),
		perUser:      make(map[string]int),
		perSource:    make(map[netip.Prefix]int),
		reservations: make(map[[8]byte]*reservation),
		opening:      make(map[fiveTuple]bool),
		moving:       make(map[fiveTuple]*session),
		tickets:      make(map[ticket]*session),
		listeners:    make(map[netip.AddrPort]*listener),
		retired:      make(map[*listener]struct{}),
		streams:      make(map[*stream]struct{}),
		changed:      make(chan struct{}),
	}
	s.bandwidth = newBandwidth(&s.hits)
	rand.Read(s.nonces.key[:])
	s.metrics = newMetrics(s)
	if err := s.Reconfigure(o); err != nil {
		alloc.Close()
		return nil, err
	}
	return s, nil
}

// Reconfigure swaps the options. On an error nothing has changed. Allocations
// live on with their relayed address, port and user; peers that the new policy
// refuses lose their permission at once.
func (s *Server) Reconfigure(o Options) error {
	next, err := s.prepare(o)
	if err != nil {
		return err
	}
	if err := s.ports.resize(o.MinPort, o.MaxPort); err != nil {
		return err
	}
	s.strangers.set(o.Limits.UnauthenticatedAnswers)
	s.bans.set(next.Limits.AuthFailures, next.Limits.Ban)
	s.bandwidth.set(next.Limits)
	var before map[string]*directory
	if old := s.settings.Swap(next); old != nil {
		before = old.directories
	}
	s.swapDirectories(before, next.directories)
	for _, ses := range s.snapshot() {
		for _, l := range ses.legs {
			l.relay.Revoke(next.reaches)
		}
		s.bandwidth.apply(ses)
		ses.sync()
	}
	return nil
}

// Check reports what Reconfigure would, and changes nothing.
func (s *Server) Check(o Options) error {
	_, err := s.prepare(o)
	return err
}

func (s *Server) prepare(o Options) (*settings, error) {
	if o.Realm == "" {
		return nil, errors.New("a realm is required")
	}
	if len(o.Addresses) == 0 {
		return nil, errors.New("no relayed address")
	}
	for _, a := range o.Addresses {
		if a.External.Is4() != a.Local.Is4() {
			return nil, fmt.Errorf("relayed address %v and local address %v differ in family", a.External, a.Local)
		}
	}
	if o.MinPort == 0 || o.MinPort > o.MaxPort {
		return nil, fmt.Errorf("relay ports %d to %d: not a range", o.MinPort, o.MaxPort)
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Limits = o.Limits.orDefault()
	policy, err := peers.New(peers.Options{
		Allow: o.Allow, Deny: o.Deny, Ports: o.PeerPorts,
		Own: func() []netip.Prefix {
			own := peers.InterfaceAddrs()
			for _, a := range o.Addresses {
				own = append(own, netip.PrefixFrom(a.External, a.External.BitLen()))
			}
			return own
		},
		Listeners: func() []netip.AddrPort {
			all := s.listening()
			if o.Listeners != nil {
				all = append(all, o.Listeners()...)
			}
			return all
		},
		RelayToRelay: o.RelayToRelay,
		IsRelay:      func(a netip.AddrPort) bool { return s.relays.get(a) != nil },
		RelayPorts:   peers.PortRange{Lo: o.MinPort, Hi: o.MaxPort},
	})
	if err != nil {
		return nil, err
	}
	directories, err := s.newDirectories(o)
	if err != nil {
		return nil, err
	}
	return &settings{Options: o, policy: policy, directories: directories, started: time.Now()}, nil
}

// reaches reports whether a permission or channel may go on under the policy;
// a permission comes with port 0.
func (set *settings) reaches(peer netip.AddrPort) bool {
	if peer.Port() == 0 {
		return set.policy.CheckAddr(peer.Addr()).Allowed()
	}
	return set.policy.Check(peer).Allowed()
}

// ownAddressesEvery is how soon an address that the host gains is refused as
// a peer.
const ownAddressesEvery = 5 * time.Second

// Serve keeps the server's clock until ctx ends, then ends every allocation
// and connection and returns when all is closed.
func (s *Server) Serve(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.clock.Run(ctx) })
	wg.Go(func() { s.watch(ctx) })
	wg.Go(func() {
		ticker := time.NewTicker(ownAddressesEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				s.settings.Load().policy.Refresh()
			case <-ctx.Done():
				return
			}
		}
	})
	wg.Wait()
	return s.Close()
}

// Close ends every allocation and connection and returns when all is closed.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for _, l := range s.listeners {
		l.udp.Close()
	}
	for l := range s.retired {
		l.udp.Close()
	}
	for st := range s.streams {
		st.conn.Close()
	}
	for _, r := range s.reservations {
		r.timer.Stop()
		r.conn.Close()
	}
	s.mu.Unlock()
	s.stopDirectories()
	for _, ses := range s.snapshot() {
		ses.end("server stopped")
	}
	s.wg.Wait()
	s.loops.Close()
	return s.allocator.Close()
}

// Drain refuses new allocations and returns when the last one has ended or ctx
// has. It reports how many are left.
func (s *Server) Drain(ctx context.Context) int {
	s.draining.Store(true)
	for {
		s.mu.Lock()
		left, changed := len(s.sessions), s.changed
		s.mu.Unlock()
		if left == 0 {
			return 0
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return left
		}
	}
}

// Allocations returns how many allocations are live.
func (s *Server) Allocations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// FreePorts returns how many relayed ports can be had, of all address families
// that have an address.
func (s *Server) FreePorts() (free int) {
	set := s.settings.Load()
	for _, v6 := range []bool{false, true} {
		if _, ok := set.address(v6); ok {
			free += s.ports.of(v6).Stats().Free
		}
	}
	return free
}

// listening returns the addresses of the UDP listeners.
func (s *Server) listening() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]netip.AddrPort, 0, len(s.listeners))
	for a := range s.listeners {
		all = append(all, a)
	}
	return all
}

// snapshot returns the live sessions.
func (s *Server) snapshot() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*session, 0, len(s.sessions))
	for _, ses := range s.sessions {
		all = append(all, ses)
	}
	return all
}
