package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/internal/poller"
)

// ConnInfo says who is at the other end of a connection.
type ConnInfo struct {
	Transport  string         // "tls" or "tcp"
	Remote     netip.AddrPort // the client, as the PROXY header says if there was one
	Local      netip.AddrPort // where the client connected to, likewise
	Proxy      netip.AddrPort // the balancer that sent the PROXY header; zero without one
	ServerName string         // SNI; empty without
}

// OnClose has f called once when a connection that the edge handed over is
// closed, at once if it is already, and reports whether nc is such a connection;
// f is not called if not. There is one f for each connection, the last one given.
func OnClose(nc net.Conn, f func()) bool {
	if over, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = over.NetConn()
	}
	c, ok := nc.(*conn)
	if !ok {
		return false
	}
	c.mu.Lock()
	closed := c.closed
	c.ended = f
	c.mu.Unlock()
	if closed {
		f()
	}
	return true
}

// conn is an accepted TCP connection. It lies under the *tls.Conn that HTTP
// gets, so that closing that one gives the slots back, and it is what TURN over
// plain TCP gets.
//
// Like any net.Conn it may be written and closed by one goroutine while another
// one reads; two readers at once must not be.
type conn struct {
	net.Conn
	info    ConnInfo // fixed once handed over
	counter *listenCounters

	// set is what held at accept; nil once handed over, so that a connection
	// that lives for days does not hold an old configuration.
	set *settings

	// head holds bytes that were read to learn what they are: they are the
	// first that Read returns.
	head []byte

	pushedOut atomic.Pointer[reason] // see makeRoom; nil: was not

	mu     sync.Mutex // guards the fields below
	slots  slots
	state  connState
	kind   kind // when handedOver
	closed bool
	ended  func() // see OnClose; nil: nobody waits
}

type connState int

const (
	refused    connState = iota // over a cap: counts as nothing
	sorting                     // half open
	handedOver                  // open
)

func newConn(nc net.Conn, set *settings) *conn {
	return &conn{
		Conn:    poller.Quick(nc),
		set:     set,
		counter: set.counter,
		info: ConnInfo{
			Transport: "tcp",
			Remote:    addrPort(nc.RemoteAddr()),
			Local:     addrPort(nc.LocalAddr()),
		},
		slots: slots{caps: set.Caps},
	}
}

// admit takes the slots that c needs to be sorted, or says why there is none.
// A listed balancer is not a source: its clients are, once their address is known.
func (c *conn) admit() reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	if why := c.slots.takeTotals(c.makeRoom); why != "" {
		return why
	}
	if !c.behindProxy() {
		if why := c.takeSource(); why != "" {
			return why
		}
	}
	c.state = sorting
	c.counter.halfOpen.Inc()
	return ""
}

// makeRoom ends c, which has not proved itself, in favour of a newer one. It only
// closes the socket: the goroutine that sorts c finds out.
func (c *conn) makeRoom(why reason) {
	c.pushedOut.Store(&why)
	c.Conn.Close()
}

// admitSource takes the slots of the source that the PROXY header named.
func (c *conn) admitSource() reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return shuttingDown
	}
	return c.takeSource()
}

// takeSource takes the slots of the client's source, unless many stand behind it.
func (c *conn) takeSource() reason {
	if c.shared() {
		return ""
	}
	return c.slots.takeSource(c.info.Remote.Addr())
}

// shared reports whether many clients stand behind the client's address.
func (c *conn) shared() bool {
	from := c.info.Remote.Addr()
	return slices.ContainsFunc(c.set.Shared, func(p netip.Prefix) bool { return p.Contains(from) })
}

// mayShakeHands counts a TLS handshake.
func (c *conn) mayShakeHands() bool {
	return c.shared() || c.set.Caps.handshakes.Allow(limit.Source(c.info.Remote.Addr()))
}

// handOver turns a half-open connection into an open one of kind k.
// It reports false when c was closed meanwhile.
func (c *conn) handOver(k kind) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.slots.proved()
	c.state, c.kind, c.set = handedOver, k, nil
	c.counter.halfOpen.Dec()
	c.counter.open[k].Inc()
	return true
}

// reject closes c, before it was handed over, and counts why.
func (c *conn) reject(why reason) {
	if pushed := c.pushedOut.Load(); pushed != nil {
		why = *pushed
	}
	if log := c.set.Log; log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("connection rejected", "client", c.info.Remote, "listen", c.info.Local, "reason", string(why))
	}
	c.counter.rejected[why].Inc()
	c.Close()
}

// Close closes the socket and then gives its slots back.
func (c *conn) Close() error {
	err := c.Conn.Close()
	if ended := c.giveBack(); ended != nil {
		ended()
	}
	return err
}

// giveBack ends the accounting of c, once, and returns what OnClose left.
func (c *conn) giveBack() (ended func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.slots.release()
	switch c.state {
	case sorting:
		c.counter.halfOpen.Dec()
	case handedOver:
		c.counter.open[c.kind].Dec()
	}
	return c.ended
}

func (c *conn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		if c.head = c.head[n:]; len(c.head) == 0 {
			c.head = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// RemoteAddr returns the client's address, as the PROXY header says if there
// was one.
func (c *conn) RemoteAddr() net.Addr { return c.addr(c.info.Remote, c.Conn.RemoteAddr) }

// LocalAddr returns the address the client connected to, likewise.
func (c *conn) LocalAddr() net.Addr { return c.addr(c.info.Local, c.Conn.LocalAddr) }

func (c *conn) addr(told netip.AddrPort, own func() net.Addr) net.Addr {
	if !c.info.Proxy.IsValid() {
		return own()
	}
	return net.TCPAddrFromAddrPort(told)
}

// CloseWrite ends our direction of the connection and leaves the other open.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SyscallConn gives access to the socket, for options and for waiting without a
// buffer. Whoever reads through it misses what Read still has to replay: the
// first eight bytes of TURN over plain TCP, nothing under TLS.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// Rebase puts c on another connection than the one below it, as poller.Base says.
func (c *conn) Rebase(replace func(below net.Conn) (net.Conn, error)) error {
	below, err := replace(c.Conn)
	if err == nil {
		c.Conn = below
	}
	return err
}

// WriteBuffers writes all of b with one system call where the socket can
// (net.Buffers does so only on the net package's own types).
func (c *conn) WriteBuffers(b *net.Buffers) (int64, error) { return b.WriteTo(c.Conn) }

// tlsConn is a TLS connection some of whose first bytes were read to learn what
// they are. Its ConnectionState method is what net/http fills Request.TLS from.
type tlsConn struct {
	*tls.Conn
	head []byte
}

func (c *tlsConn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		if c.head = c.head[n:]; len(c.head) == 0 {
			c.head = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// addrPort returns a as a value, IPv4-mapped addresses as IPv4, without a zone,
// which no prefix holds, and the zero value for what is no TCP address.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
