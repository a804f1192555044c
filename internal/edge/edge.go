// Package edge is the door to the network: it listens, learns who is calling
// (also behind a balancer that speaks the PROXY protocol), does TLS, and sorts
// what arrives on one TCP port into HTTP and TURN.
//
//	accept ─► caps ─► PROXY header ─► first bytes ─┬─ TLS ─► ALPN ─┬─ h2, http/1.1 ─► HTTP()
//	                 (listed sources)              │               ├─ stun.turn ────► TURN
//	                                               │               └─ none: 8 bytes ─► one of the two
//	                                               ├─ STUN with magic cookie ───────► TURN
//	                                               ├─ plain HTTP ───► a short 400, closed
//	                                               └─ anything else: closed
//
// Nothing is kept for a peer that has not shown what it is within
// Timeouts.Prove, however slowly it sends; how many such peers there may be is
// bounded in all and per source (Caps). What is handed over has no deadline
// any more and belongs to the receiver, who sets its own.
package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Options says what one listening address serves. Update swaps all of it.
type Options struct {
	// Certificates makes the address speak TLS; nil: it does not.
	Certificates *Certificates

	// TicketKeys are those of session tickets, shared with other hosts; nil:
	// of this process.
	TicketKeys TicketKeys

	// Challenge returns the certificate that shows a certificate authority
	// that a server name leads here (RFC 8737), or nil when none is under way;
	// it is asked for clients that offer nothing but acme-tls/1. Such a
	// connection is closed after its handshake. The function may not change
	// from one Update to the next; nil: challenges are not answered.
	Challenge func(serverName string) *tls.Certificate

	// HTTP hands HTTP over TLS to Listener.HTTP. It needs Certificates:
	// HTTP without TLS is answered with a 400 and never served.
	HTTP bool

	// TURN is called with every connection that speaks TURN, over TLS or
	// plain TCP; nil: TURN is not served here. It runs on a goroutine that is
	// the callee's from then on: it may return at once or block for the life
	// of the connection, and Serve does not wait for it. The callee owns conn
	// and must close it. The first message is still to be read from conn.
	TURN func(conn net.Conn, info ConnInfo)

	// ProxyFrom lists the sources that speak the PROXY protocol (version 1
	// or 2). From these a header is required, since a balancer that sends one
	// sends it always, and its absence means a wrong client address in every
	// log and limit. From everybody else a header is nothing but bad first
	// bytes.
	ProxyFrom []netip.Prefix

	// Shared lists sources behind which many clients stand, such as proxies that
	// name them in X-Forwarded-For: they are not counted per source. The clients of
	// a balancer in ProxyFrom are, by the address in its header.
	Shared []netip.Prefix

	Caps     *Caps        // usually one for all listeners; nil: own, DefaultCaps
	Timeouts Timeouts     // zero fields: DefaultTimeouts
	Metrics  *Metrics     // usually one for all listeners; nil: not exported
	Log      *slog.Logger // nil: slog.Default
}

// Timeouts bounds the time before a peer has proved what it is.
type Timeouts struct {
	// Prove is the time from accept until the connection is handed over:
	// PROXY header, TLS handshake and first bytes together.
	Prove time.Duration
	// ProxyHeader is the share of Prove that the PROXY header may take.
	ProxyHeader time.Duration
	// Answer is the time for the 400 to a plain HTTP request, after which the
	// connection is closed whether the peer has read it or not.
	Answer time.Duration
}

// DefaultTimeouts stays below the 15 s in which scanners and operators expect
// a half-open handshake to be cut, and above what a handshake over a poor
// mobile link takes.
var DefaultTimeouts = Timeouts{
	Prove:       10 * time.Second,
	ProxyHeader: 5 * time.Second,
	Answer:      time.Second,
}

// Listener serves one listening address.
type Listener struct {
	addr     string // as given to Listen: the name in metrics and logs
	ln       net.Listener
	http     *httpListener
	settings atomic.Pointer[settings]

	closing sync.Once
	done    chan struct{}  // closed by Close
	sorting sync.WaitGroup // goroutines that have not handed over yet

	mu      sync.Mutex // guards the fields below
	closed  bool
	pending map[*conn]struct{} // connections not handed over yet
}

// settings is what Options come down to; never changed once made.
type settings struct {
	Options
	tls     *tlsSettings // nil: no TLS
	counter *listenCounters
}

// Listen binds addr ("host:port", "[v6]:port", ":port" for both families) and
// prepares the listener. Serve starts accepting; until then the kernel queues.
func Listen(ctx context.Context, addr string, opts Options) (*Listener, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	ln, err := listenTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	return newListener(addr, ln, opts), nil
}

// Wrap is Listen on a socket that somebody else bound, for example systemd.
// The Listener owns ln from then on.
func Wrap(ln net.Listener, opts Options) (*Listener, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	return newListener(ln.Addr().String(), ln, opts), nil
}

func newListener(addr string, ln net.Listener, opts Options) *Listener {
	l := &Listener{
		addr:    addr,
		ln:      ln,
		http:    newHTTPListener(ln.Addr()),
		done:    make(chan struct{}),
		pending: make(map[*conn]struct{}),
	}
	l.settings.Store(opts.settle(addr, nil))
	return l
}

// Update swaps the options for connections accepted from now on; the ones
// already accepted keep what they have. On an error nothing has changed.
func (l *Listener) Update(opts Options) error {
	if err := opts.check(); err != nil {
		return err
	}
	l.settings.Store(opts.settle(l.addr, l.settings.Load()))
	return nil
}

// Addr returns the bound address.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// HTTP returns the listener to give to http.Server.Serve. It yields the bare
// *tls.Conn, handshake done, where ALPN chose a protocol (HTTP/2 needs that),
// and otherwise a connection with a ConnectionState method, from which net/http
// fills Request.TLS all the same.
//
// The connections come without deadlines: the http.Server has to set
// ReadHeaderTimeout and IdleTimeout. When it should log what strangers do at
// Debug only, ErrorLog has to say so.
//
// Closing it, as http.Server.Shutdown does, ends HTTP on this address and
// leaves TURN running. When the Listener ends, its Accept returns net.ErrClosed.
func (l *Listener) HTTP() net.Listener { return l.http }

// Serve accepts connections until ctx ends or Close is called, then returns nil.
// Connections that were still being sorted are cut; those handed over live on.
func (l *Listener) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	err := l.accept()
	l.Close()
	l.sorting.Wait()
	return err
}

// Close unbinds the address and cuts the connections that are still being
// sorted. Those handed over live on. It may be called more than once.
func (l *Listener) Close() error {
	var err error
	l.closing.Do(func() {
		close(l.done)
		err = l.ln.Close()
		l.http.Close()
		l.mu.Lock()
		l.closed = true
		pending := l.pending
		l.pending = nil
		l.mu.Unlock()
		for c := range pending {
			c.Close()
		}
	})
	return err
}

// accept survives what may pass (out of descriptors, out of memory, a peer that
// went away in the queue) and ends with the listener only.
func (l *Listener) accept() error {
	const shortest, longest = 5 * time.Millisecond, time.Second
	var pause time.Duration
	for {
		nc, err := l.ln.Accept()
		set := l.settings.Load()
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			set.counter.acceptErrors.Inc()
			if pause == 0 {
				set.Log.Warn("accept pauses", "listen", l.addr, "err", err)
			}
			pause = min(max(2*pause, shortest), longest)
			select {
			case <-l.done:
				return nil
			case <-time.After(pause):
			}
			continue
		}
		if pause != 0 {
			set.Log.Info("accept goes on", "listen", l.addr)
			pause = 0
		}
		set.counter.accepted.Inc()
		c := newConn(nc, set)
		if why := c.admit(); why != "" {
			c.reject(why)
			continue
		}
		if !l.track(c) {
			c.Close()
			return nil
		}
		l.sorting.Add(1)
		go l.sort(c)
	}
}

// track remembers c so that Close can cut it, and reports false when it is too
// late for that.
func (l *Listener) track(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.pending[c] = struct{}{}
	return true
}

// untrack is the end of track; it reports false when Close has cut c.
func (l *Listener) untrack(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, c)
	return !l.closed
}

func (o Options) check() error {
	switch {
	case o.HTTP && o.Certificates == nil:
		return errors.New("HTTP is served over TLS only, and there is no certificate")
	case !o.HTTP && o.TURN == nil:
		return errors.New("neither HTTP nor TURN to serve")
	}
	for _, p := range o.ProxyFrom {
		if !p.IsValid() {
			return fmt.Errorf("PROXY protocol source %v: not a prefix", p)
		}
	}
	for _, p := range o.Shared {
		if !p.IsValid() {
			return fmt.Errorf("shared source %v: not a prefix", p)
		}
	}
	return nil
}

// settle fills in the defaults. before is what held until now, or nil.
func (o Options) settle(addr string, before *settings) *settings {
	if o.Caps == nil && before != nil {
		o.Caps = before.Caps
	}
	if o.Caps == nil {
		o.Caps = NewCaps(DefaultCaps)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Timeouts = o.Timeouts.orDefault()
	o.ProxyFrom = unmapPrefixes(o.ProxyFrom)
	o.Shared = unmapPrefixes(o.Shared)
	set := &settings{Options: o, counter: o.Metrics.listen(addr)}
	if o.Certificates != nil {
		var last *tlsSettings
		if before != nil {
			last = before.tls
		}
		set.tls = newTLSSettings(o, last)
	}
	return set
}

func (t Timeouts) orDefault() Timeouts {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&t.Prove, DefaultTimeouts.Prove)
	set(&t.ProxyHeader, DefaultTimeouts.ProxyHeader)
	set(&t.Answer, DefaultTimeouts.Answer)
	return t
}

// unmapPrefixes rewrites IPv4-mapped IPv6 prefixes as IPv4, the form in which
// peer addresses are compared.
func unmapPrefixes(in []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, len(in))
	for i, p := range in {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		out[i] = p.Masked()
	}
	return out
}
