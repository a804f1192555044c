// Package allocator drives pion/turn v3 as what it is good at: the state
// machine of allocations, permissions and channels with their timers.
//
// pion never sees a client's bytes. Each allocation belongs to a virtual
// client, an address in a private prefix, on an in-memory packet connection.
// Requests are written by this package with an internal credential that no
// other process knows, and pion's answer is used as the verdict only. This is
// the one file that another version of pion would touch.
//
// What v3.0.3 does and this relies on: requests are handled one after the
// other in the goroutine that reads the connection, so the next read tells
// that the last request is done, answered or not; the relay connection is
// closed exactly once per deleted allocation, whatever the reason; and the
// goroutine that reads the relay connection holds nothing but its buffer, so
// that it may end without a word.
package allocator

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v3"

	"github.com/turngate/turngate/turn/wire"
)

// Lifetimes that pion gives (RFC 8656 sections 9 and 12).
const (
	PermissionLifetime = 5 * time.Minute
	ChannelLifetime    = 10 * time.Minute
)

// Errors of requests.
var (
	ErrGone    = errors.New("allocation has ended")
	ErrRefused = errors.New("refused by the state machine")
)

const realm = "internal"

// Socket is the relay socket of an allocation.
type Socket interface {
	// Start begins to relay, until Close, and does not wait. It is called once,
	// and not after Close.
	Start() error
	Close() error
}

// Allocator holds the allocations. It is safe for concurrent use.
type Allocator struct {
	server *turn.Server
	conn   *memConn
	user   string
	key    wire.Key

	mu      sync.Mutex // one request at a time, as in pion's read loop
	nonce   []byte
	virtual uint64
	next    *relayConn // what the generator returns for the request under way
}

// New starts an empty allocator. Close it.
func New() (*Allocator, error) {
	a := &Allocator{conn: newMemConn(), user: rand.Text()}
	a.key = wire.LongTermKey(a.user, realm, rand.Text())
	server, err := turn.NewServer(turn.ServerConfig{
		Realm: realm,
		AuthHandler: func(user, _ string, _ net.Addr) ([]byte, bool) {
			return a.key, user == a.user
		},
		ChannelBindTimeout: ChannelLifetime,
		LoggerFactory:      silence{},
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn:            a.conn,
			RelayAddressGenerator: generator{a},
			PermissionHandler:     func(net.Addr, net.IP) bool { return true }, // decided at the edge
		}},
	})
	if err != nil {
		return nil, err
	}
	a.server = server
	<-a.conn.idle // pion reads
	return a, nil
}

// Count returns how many allocations exist.
func (a *Allocator) Count() int { return a.server.AllocationCount() }

// Close ends every allocation.
func (a *Allocator) Close() error { return a.server.Close() }

// Allocation is one allocation. Its methods are safe for concurrent use.
//
// Its time to live is kept here and not by pion: pion deletes an expired
// allocation from a timer's goroutine, and a CreatePermission that its read
// loop handles at that moment makes it stop a timer that is not there yet,
// which ends the process. So pion is always told the longest lifetime, it is
// renewed from here, and every deletion goes through the read loop.
type Allocation struct {
	a      *Allocator
	client *net.UDPAddr
	conn   *relayConn

	timer   *time.Timer
	expires time.Time // guarded by a.mu
}

// pionLifetime is the longest that pion grants, and renewal how often it is
// asked again.
const (
	pionLifetime = time.Hour - time.Second
	renewal      = 30 * time.Minute
)

// Allocate creates an allocation for socket. ended is called once, from any
// goroutine and possibly within a call of Refresh or Close, when the allocation
// is gone for whatever reason; the socket is closed then. It must not call the
// Allocator. When Allocate fails the socket is closed and ended is not called.
func (a *Allocator) Allocate(socket Socket, relayed netip.AddrPort, lifetime time.Duration, ended func()) (*Allocation, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.virtual++
	ip := net.IP{0xfd, 15: 0}
	binary.BigEndian.PutUint64(ip[8:], a.virtual)
	al := &Allocation{
		a:       a,
		client:  &net.UDPAddr{IP: ip, Port: 1},
		conn:    &relayConn{socket: socket, relayed: net.UDPAddrFromAddrPort(relayed), ended: ended},
		expires: time.Now().Add(lifetime),
	}
	a.next = al.conn
	err := a.request(al.client, wire.Allocate, func(b *wire.Builder) {
		b.Add(wire.RequestedTransport, []byte{17, 0, 0, 0})
		addLifetime(b, pionLifetime)
	})
	if err != nil {
		if a.next != nil { // pion did not take it
			a.next = nil
			socket.Close()
		}
		return nil, err
	}
	al.timer = time.AfterFunc(min(lifetime, renewal), al.tick)
	return al, nil
}

// Refresh sets the time to live; 0 ends the allocation.
func (al *Allocation) Refresh(lifetime time.Duration) error {
	al.a.mu.Lock()
	defer al.a.mu.Unlock()
	if lifetime <= 0 {
		return al.end()
	}
	if err := al.renew(); err != nil {
		return err
	}
	al.expires = time.Now().Add(lifetime)
	al.timer.Reset(min(lifetime, renewal))
	return nil
}

// Close ends the allocation. The socket is closed and ended has been called
// when it returns.
func (al *Allocation) Close() error {
	al.a.mu.Lock()
	defer al.a.mu.Unlock()
	return al.end()
}

// tick ends an allocation whose time has come and renews it otherwise.
func (al *Allocation) tick() {
	al.a.mu.Lock()
	defer al.a.mu.Unlock()
	left := time.Until(al.expires)
	if left <= 0 {
		_ = al.end()
		return
	}
	if al.renew() == nil {
		al.timer.Reset(min(left, renewal))
	}
}

func (al *Allocation) renew() error {
	return al.a.request(al.client, wire.Refresh, func(b *wire.Builder) { addLifetime(b, pionLifetime) })
}

func (al *Allocation) end() error {
	al.timer.Stop()
	return al.a.request(al.client, wire.Refresh, func(b *wire.Builder) { addLifetime(b, 0) })
}

// Permit installs or renews the permission for a peer.
func (al *Allocation) Permit(peer netip.Addr) error {
	return al.request(wire.CreatePermission, func(b *wire.Builder) {
		b.AddAddress(wire.XORPeerAddress, netip.AddrPortFrom(peer, 0))
	})
}

// Bind binds or renews a channel and the permission of its peer.
func (al *Allocation) Bind(channel uint16, peer netip.AddrPort) error {
	return al.request(wire.ChannelBind, func(b *wire.Builder) {
		b.AddUint32(wire.ChannelNumber, uint32(channel)<<16)
		b.AddAddress(wire.XORPeerAddress, peer)
	})
}

func (al *Allocation) request(method wire.Method, attrs func(*wire.Builder)) error {
	al.a.mu.Lock()
	defer al.a.mu.Unlock()
	return al.a.request(al.client, method, attrs)
}

func addLifetime(b *wire.Builder, d time.Duration) {
	b.AddUint32(wire.Lifetime, uint32((d+time.Second-1)/time.Second))
}

// request asks pion and returns its verdict. a.mu is held. Silence means that
// the allocation is gone. pion's nonce is fetched when there is none and
// renewed when it has expired.
func (a *Allocator) request(client *net.UDPAddr, method wire.Method, attrs func(*wire.Builder)) error {
	for range 3 {
		id := wire.NewTransactionID()
		b := wire.NewBuilder(method, wire.Request, id)
		attrs(b)
		if a.nonce != nil {
			b.Add(wire.Username, []byte(a.user))
			b.Add(wire.Realm, []byte(realm))
			b.Add(wire.Nonce, a.nonce)
			b.Integrity(a.key)
		}
		answer, err := a.conn.roundTrip(b.Bytes(), client)
		if err != nil {
			return err
		}
		var m wire.Message
		if answer == nil || m.Parse(answer) != nil || m.ID != id {
			return ErrGone
		}
		if m.Class == wire.Success {
			return nil
		}
		nonce, ok := m.Get(wire.Nonce)
		if !ok {
			code, _ := m.Get(wire.ErrorCode)
			return fmt.Errorf("%w: %v with code %x", ErrRefused, method, code)
		}
		a.nonce = append([]byte(nil), nonce...)
	}
	return fmt.Errorf("%w: %v, no nonce was good", ErrRefused, method)
}

// generator hands the socket of the request under way to pion. pion calls it
// in its read loop, while Allocate waits and holds the lock.
type generator struct{ a *Allocator }

func (g generator) Validate() error { return nil }

func (g generator) AllocatePacketConn(string, int) (net.PacketConn, net.Addr, error) {
	c := g.a.next
	if c == nil {
		return nil, nil, ErrRefused
	}
	if err := c.socket.Start(); err != nil {
		return nil, nil, err
	}
	g.a.next = nil
	return c, c.relayed, nil
}

func (g generator) AllocateConn(string, int) (net.Conn, net.Addr, error) {
	return nil, nil, ErrRefused
}

// relayConn is what pion takes for the relay socket.
type relayConn struct {
	net.PacketConn // nil: pion calls nothing but what follows
	socket         Socket
	relayed        *net.UDPAddr
	ended          func()
}

// ReadFrom ends the goroutine in which pion would read: nothing is ever read
// here, and its stack and its buffer are 6 KiB for each allocation. An error
// instead would delete the allocation.
func (c *relayConn) ReadFrom([]byte) (int, net.Addr, error) {
	runtime.Goexit()
	return 0, nil, net.ErrClosed
}

func (c *relayConn) Close() error {
	err := c.socket.Close()
	c.ended()
	return err
}

func (c *relayConn) LocalAddr() net.Addr { return c.relayed }

// silence is pion's log: what it would say about strangers it never sees, and
// about us the verdicts tell.
type silence struct{}

func (silence) NewLogger(string) logging.LeveledLogger { return silence{} }

func (silence) Trace(string)          {}
func (silence) Tracef(string, ...any) {}
func (silence) Debug(string)          {}
func (silence) Debugf(string, ...any) {}
func (silence) Info(string)           {}
func (silence) Infof(string, ...any)  {}
func (silence) Warn(string)           {}
func (silence) Warnf(string, ...any)  {}
func (silence) Error(string)          {}
func (silence) Errorf(string, ...any) {}
