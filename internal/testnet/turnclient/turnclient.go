// Package turnclient is a STUN and TURN client for tests (RFC 8489, RFC 8656).
//
// It is written from the RFCs with nothing but the standard library, so that it
// is a witness independent of the codec it examines, and it can be wrong on
// purpose: a [Builder] writes any message byte by byte, with lengths that lie,
// attributes in any order and behind the integrity, broken fingerprints.
//
// A [Client] sorts what the server sends into answers, relayed data and the
// rest. Its operations end with their context; without a deadline in it they
// wait for ever, so give them one.
package turnclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Auth is a long-term credential. The zero value sends requests unsigned.
type Auth struct {
	User, Password string

	// SHA256 signs with MESSAGE-INTEGRITY-SHA256 and the SHA-256 password
	// algorithm, if the server offers it; UserHash hides the user name.
	SHA256   bool
	UserHash bool
}

// Option changes how Dial connects or how the client behaves.
type Option func(*options)

type options struct {
	tls         *tls.Config
	local       netip.AddrPort
	fingerprint bool
	retransmit  time.Duration
	readBuffer  int
	queue       int
}

// defaults are the options that nobody set.
func defaults() options { return options{retransmit: 3 * time.Second, queue: 4096} }

// TLS sets the configuration for the network "tls".
func TLS(c *tls.Config) Option { return func(o *options) { o.tls = c } }

// Local binds the client's own address.
func Local(a netip.AddrPort) Option { return func(o *options) { o.local = a } }

// Fingerprint adds FINGERPRINT to the requests of Do.
func Fingerprint() Option { return func(o *options) { o.fingerprint = true } }

// Retransmit sets how often a request over UDP is repeated until it is
// answered; zero never repeats. The default is 3 s: a machine that stops for a
// moment must not make two requests of one, where a test counts them.
func Retransmit(every time.Duration) Option { return func(o *options) { o.retransmit = every } }

// ReadBuffer sets the size of the kernel's receive buffer, to play a slow reader.
func ReadBuffer(bytes int) Option { return func(o *options) { o.readBuffer = bytes } }

// Queue sets how many datagrams wait for Receive, and messages for Stray; more
// are dropped. The default is 4096, which is much memory for many clients.
func Queue(n int) Option { return func(o *options) { o.queue = n } }

// Client is one connection (or one UDP socket) to a server.
// Its methods may be called at once.
type Client struct {
	conn   net.Conn
	stream bool
	opts   options
	buf    []byte // of the receive loop

	mu      sync.Mutex // guards the fields below
	auth    Auth
	realm   string
	nonce   []byte
	offered []byte // value of PASSWORD-ALGORITHMS
	sha256  bool   // agreed
	waiting map[TransactionID]chan *Message
	err     error // why the receive loop ended

	writeMu sync.Mutex // keeps frames whole

	data  chan Data
	stray chan *Message
	done  chan struct{} // closed when the receive loop has ended
}

// Data is one datagram from a peer.
type Data struct {
	Peer    netip.AddrPort // of a Data indication
	Channel uint16         // of a ChannelData message; 0 in an indication
	Payload []byte
}

// Dial connects to a server. The network is "udp", "tcp" or "tls".
func Dial(ctx context.Context, network, addr string, auth Auth, opts ...Option) (*Client, error) {
	o := defaults()
	for _, f := range opts {
		f(&o)
	}
	conn, err := dial(ctx, network, addr, o)
	if err != nil {
		return nil, err
	}
	return newClient(conn, network != "udp", auth, o), nil
}

// New is a client over a connection of the caller, which belongs to the client
// from here on. stream tells a byte stream from datagrams.
func New(conn net.Conn, stream bool, auth Auth, opts ...Option) *Client {
	o := defaults()
	for _, f := range opts {
		f(&o)
	}
	return newClient(conn, stream, auth, o)
}

func newClient(conn net.Conn, stream bool, auth Auth, o options) *Client {
	c := &Client{
		conn: conn, stream: stream, auth: auth, opts: o,
		waiting: map[TransactionID]chan *Message{},
		data:    make(chan Data, o.queue),
		stray:   make(chan *Message, o.queue),
		done:    make(chan struct{}),
	}
	go c.receive()
	return c
}

func dial(ctx context.Context, network, addr string, o options) (net.Conn, error) {
	var d net.Dialer
	lower := network
	switch network {
	case "udp":
		if o.local.IsValid() {
			d.LocalAddr = net.UDPAddrFromAddrPort(o.local)
		}
	case "tcp", "tls":
		lower = "tcp"
		if o.local.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(o.local)
		}
	default:
		return nil, fmt.Errorf("network %q: want udp, tcp or tls", network)
	}
	conn, err := d.DialContext(ctx, lower, addr)
	if err != nil {
		return nil, err
	}
	if b, ok := conn.(interface{ SetReadBuffer(int) error }); ok && o.readBuffer > 0 {
		if err := b.SetReadBuffer(o.readBuffer); err != nil {
			conn.Close()
			return nil, err
		}
	}
	if network != "tls" {
		return conn, nil
	}
	t := tls.Client(conn, o.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return t, nil
}

// Raw returns the connection. Reading from it competes with the client.
func (c *Client) Raw() net.Conn { return c.conn }

// LocalAddr returns the client's own address.
func (c *Client) LocalAddr() netip.AddrPort { return addrPortOf(c.conn.LocalAddr()) }

// RemoteAddr returns the server's address.
func (c *Client) RemoteAddr() netip.AddrPort { return addrPortOf(c.conn.RemoteAddr()) }

// Done is closed when the server has closed the connection or Close was called.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the client no longer receives; nil while it does.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and waits for the receive loop.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Receive returns the next datagram from a peer, by either way.
func (c *Client) Receive(ctx context.Context) (Data, error) {
	select {
	case d := <-c.data:
		return d, nil
	default:
	}
	select {
	case d := <-c.data:
		return d, nil
	case <-c.done:
		return Data{}, c.ended()
	case <-ctx.Done():
		return Data{}, ctx.Err()
	}
}

// Stray returns the next message that was neither an awaited answer nor a
// Data indication.
func (c *Client) Stray(ctx context.Context) (*Message, error) {
	select {
	case m := <-c.stray:
		return m, nil
	case <-c.done:
		return nil, c.ended()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Client) ended() error {
	if err := c.Err(); err != nil {
		return fmt.Errorf("connection ended: %w", err)
	}
	return net.ErrClosed
}

// Realm and nonce of the last challenge; a test may forge them.
func (c *Client) Challenge() (realm string, nonce []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.realm, c.nonce
}

// SetChallenge replaces realm and nonce.
func (c *Client) SetChallenge(realm string, nonce []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.realm, c.nonce = realm, nonce
}

// SetAuth replaces the credential for the requests to come.
func (c *Client) SetAuth(a Auth) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.auth = a
}

func (c *Client) receive() {
	defer close(c.done)
	var err error
	for err == nil {
		var frame []byte
		switch frame, err = c.readFrame(); {
		case err == nil:
			c.dispatch(frame)
		case c.lost(err):
			err = nil
		}
	}
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
}

// lost reports whether an error only tells of an earlier datagram that found
// nobody.
func (c *Client) lost(err error) bool {
	return !c.stream && errors.Is(err, syscall.ECONNREFUSED)
}

func (c *Client) dispatch(frame []byte) {
	if ch, payload, ok := parseChannelData(frame); ok {
		c.deliver(Data{Channel: ch, Payload: payload})
		return
	}
	m, err := Parse(frame)
	if err != nil {
		m = &Message{Raw: frame} // a test can see that it came
	}
	if m.Method() == MethodData && m.Class() == ClassIndication && err == nil {
		peer, _ := m.XORAddress(AttrXORPeerAddress)
		payload, _ := m.Get(AttrData)
		c.deliver(Data{Peer: peer, Payload: payload})
		return
	}
	c.mu.Lock()
	answer, ok := c.waiting[m.TransactionID]
	delete(c.waiting, m.TransactionID)
	c.mu.Unlock()
	if ok {
		answer <- m
		return
	}
	select {
	case c.stray <- m:
	default: // nobody looks
	}
}

func (c *Client) deliver(d Data) {
	select {
	case c.data <- d:
	default: // as a full socket buffer does
	}
}

// SendRaw sends bytes as they are: one datagram over UDP, a piece of the stream
// otherwise, without padding.
func (c *Client) SendRaw(ctx context.Context, b []byte) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	deadline, _ := ctx.Deadline() // the zero time is none
	if err := c.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	return err
}

// RoundTrip sends one message as it is and waits for the answer with the same
// transaction id. An error response is an answer, not an error.
func (c *Client) RoundTrip(ctx context.Context, raw []byte) (*Message, error) {
	if len(raw) < headerSize {
		return nil, errors.New("a message without a transaction id has no answer")
	}
	id := TransactionID(raw[8:20])
	answer := make(chan *Message, 1)
	c.mu.Lock()
	c.waiting[id] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
	}()
	var again <-chan time.Time
	if !c.stream && c.opts.retransmit > 0 {
		t := time.NewTicker(c.opts.retransmit)
		defer t.Stop()
		again = t.C
	}
	for {
		if err := c.SendRaw(ctx, raw); err != nil && !c.lost(err) {
			return nil, err
		}
		select {
		case m := <-answer:
			return m, nil
		case <-again:
		case <-c.done:
			return nil, c.ended()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Before sends raw and then a Binding request, and returns what the server
// answered in between: nothing if it met raw with silence. A server that
// answers the messages of one client in order needs no waiting time to show it.
// The answer is nil and the error says so if a stream was closed instead.
func (c *Client) Before(ctx context.Context, raw []byte) ([]*Message, error) {
	for len(c.stray) > 0 {
		<-c.stray
	}
	if err := c.SendRaw(ctx, raw); err != nil {
		return nil, err
	}
	if _, err := c.RoundTrip(ctx, NewBuilder(MethodBinding, ClassRequest).Bytes()); err != nil {
		return nil, err
	}
	var out []*Message
	for len(c.stray) > 0 {
		out = append(out, <-c.stray)
	}
	return out, nil
}

func addrPortOf(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return unmap(a.AddrPort())
	case *net.TCPAddr:
		return unmap(a.AddrPort())
	}
	return netip.AddrPort{}
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
