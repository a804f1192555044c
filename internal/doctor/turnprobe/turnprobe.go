// Package turnprobe is the small TURN client of the self-test (RFC 8489, RFC
// 8656): it allocates, sends and receives, and says what went wrong. It is written with
// nothing but the standard library, so that it judges a server's messages
// independently of the codec that wrote them, and runs on any system.
//
// A Client belongs to one test. Its operations end with their context, and at
// the latest after a few retransmissions.
package turnprobe

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

// Refused is an error response of the server.
type Refused struct {
	Code   int    // of ERROR-CODE
	Reason string // printable ASCII, at most 80 bytes
}

func (r *Refused) Error() string {
	if r.Reason == "" {
		return fmt.Sprintf("error %d", r.Code)
	}
	return fmt.Sprintf("error %d (%s)", r.Code, r.Reason)
}

// Code returns the code of a [Refused], 0 for any other error.
func Code(err error) int {
	if r, ok := errors.AsType[*Refused](err); ok {
		return r.Code
	}
	return 0
}

// ErrSilence means that nothing came back in time: over UDP the sign of a
// firewall that drops.
var ErrSilence = errors.New("no answer")

// ErrForged means that an answer does not carry the proof of the password.
var ErrForged = errors.New("the answer is not signed with the password")

// Client is one connection, or one UDP socket, to a server. Its methods may be
// called from several goroutines.
type Client struct {
	conn   net.Conn
	stream bool

	writeMu sync.Mutex // keeps frames whole

	mu       sync.Mutex // guards the fields below
	user     string
	password string
	realm    string
	nonce    []byte
	waiting  map[[12]byte]chan message
	channels map[uint16]netip.AddrPort
	refused  error // an ICMP error about an earlier datagram
	err      error // why the receive loop ended

	allocated bool
	data      chan Datagram
	done      chan struct{} // closed when the receive loop has ended
}

// Datagram is what a peer sent.
type Datagram struct {
	From    netip.AddrPort
	Payload []byte
	At      time.Time
}

// Allocation is what a server granted.
type Allocation struct {
	Relayed netip.AddrPort
	Mapped  netip.AddrPort // this client as the server sees it
}

// Dial connects over "udp", "tcp" or "tls" (TCP with TLS of the given
// configuration). Close is to be called.
func Dial(ctx context.Context, network, addr string, t *tls.Config) (*Client, error) {
	lower := network
	if network == "tls" {
		lower = "tcp"
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, lower, addr)
	if err != nil {
		return nil, err
	}
	if network == "tls" {
		secured := tls.Client(conn, t)
		if err := secured.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("TLS: %w", err)
		}
		conn = secured
	}
	return New(conn, network != "udp"), nil
}

// New makes a client of a connection, which is the client's from now on.
func New(conn net.Conn, stream bool) *Client {
	c := &Client{
		conn: conn, stream: stream,
		waiting:  make(map[[12]byte]chan message),
		channels: make(map[uint16]netip.AddrPort),
		data:     make(chan Datagram, 256),
		done:     make(chan struct{}),
	}
	go c.receive()
	return c
}

// Login sets the credential for what follows.
func (c *Client) Login(user, password string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.user, c.password = user, password
}

// Close gives an allocation back, as far as that goes at once, and ends the
// connection.
func (c *Client) Close() {
	c.mu.Lock()
	held := c.allocated
	c.mu.Unlock()
	if held {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, _ = c.request(ctx, methodRefresh, attr{attrLifetime, make([]byte, 4)})
		cancel()
	}
	c.conn.Close()
	<-c.done
}

// Binding asks for the address that the server sees, without a credential.
func (c *Client) Binding(ctx context.Context) (netip.AddrPort, error) {
	m, err := c.roundTrip(ctx, newMessage(methodBinding, classRequest))
	if err != nil {
		return netip.AddrPort{}, err
	}
	if err := m.refusal(); err != nil {
		return netip.AddrPort{}, err
	}
	mapped, ok := m.address(attrXORMappedAddress)
	if !ok {
		return mapped, errors.New("the answer to Binding has no address")
	}
	return mapped, nil
}

// Allocate asks for a relayed address of IPv4, or of the server's choice.
func (c *Client) Allocate(ctx context.Context) (Allocation, error) {
	m, err := c.request(ctx, methodAllocate, attr{attrRequestedTransport, []byte{17, 0, 0, 0}})
	if err != nil {
		return Allocation{}, err
	}
	c.mu.Lock()
	c.allocated = true
	c.mu.Unlock()
	var a Allocation
	var relayed bool
	a.Relayed, relayed = m.address(attrXORRelayedAddress)
	a.Mapped, _ = m.address(attrXORMappedAddress)
	if !relayed {
		return a, errors.New("the answer to Allocate has no relayed address")
	}
	return a, nil
}

// Permit asks for the permission to exchange datagrams with a peer.
func (c *Client) Permit(ctx context.Context, peer netip.AddrPort) error {
	_, err := c.requestFor(ctx, methodCreatePermission, peer)
	return err
}

// Bind binds a channel (0x4000 to 0x4fff) to a peer.
func (c *Client) Bind(ctx context.Context, channel uint16, peer netip.AddrPort) error {
	_, err := c.requestFor(ctx, methodChannelBind, peer, attr{attrChannelNumber, []byte{byte(channel >> 8), byte(channel), 0, 0}})
	if err == nil {
		c.mu.Lock()
		c.channels[channel] = peer
		c.mu.Unlock()
	}
	return err
}

// SendChannel sends a datagram through a bound channel.
func (c *Client) SendChannel(channel uint16, payload []byte) error {
	return c.write(channelData(channel, payload, c.stream))
}

// Send sends a datagram to a peer with a permission.
func (c *Client) Send(peer netip.AddrPort, payload []byte) error {
	m := newMessage(methodSend, classIndication)
	m.add(attr{attrXORPeerAddress, m.xorAddress(peer)}, attr{attrData, payload})
	return c.write(m.bytes())
}

// Receive returns the next datagram of a peer.
func (c *Client) Receive(ctx context.Context) (Datagram, error) {
	select {
	case d := <-c.data:
		return d, nil
	case <-c.done:
		return Datagram{}, c.ended()
	case <-ctx.Done():
		return Datagram{}, ErrSilence
	}
}

// requestFor is request with a peer address.
func (c *Client) requestFor(ctx context.Context, method uint16, peer netip.AddrPort, attrs ...attr) (message, error) {
	return c.do(ctx, method, func(m *message) {
		m.add(attr{attrXORPeerAddress, m.xorAddress(peer)})
		m.add(attrs...)
	})
}

func (c *Client) request(ctx context.Context, method uint16, attrs ...attr) (message, error) {
	return c.do(ctx, method, func(m *message) { m.add(attrs...) })
}

// do sends a request with the credential: it learns realm and nonce from one 401
// and answers a stale nonce (RFC 8489 section 9.2).
func (c *Client) do(ctx context.Context, method uint16, build func(*message)) (message, error) {
	for try := 0; ; try++ {
		m := newMessage(method, classRequest)
		build(&m)
		key := c.sign(&m)
		answer, err := c.roundTrip(ctx, m)
		if err != nil {
			return answer, err
		}
		err = answer.refusal()
		code := Code(err)
		if again := code == 401 && key == nil || code == 438; again && try < 3 && c.learn(answer) {
			continue
		}
		if err == nil && key != nil && !answer.signedWith(key) {
			err = ErrForged
		}
		return answer, err
	}
}

// sign adds the credential and returns its key, nil before the first challenge.
func (c *Client) sign(m *message) (key []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nonce == nil || c.user == "" {
		return nil
	}
	m.add(attr{attrUsername, []byte(c.user)}, attr{attrRealm, []byte(c.realm)}, attr{attrNonce, c.nonce})
	key = longTermKey(c.user, c.realm, c.password)
	m.sign(key)
	return key
}

// learn takes the challenge and reports whether there is something to try
// again with.
func (c *Client) learn(m message) bool {
	realm, hasRealm := m.get(attrRealm)
	nonce, hasNonce := m.get(attrNonce)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !hasRealm || !hasNonce || c.user == "" {
		return false
	}
	c.realm, c.nonce = string(realm), nonce
	return true
}

// Over UDP a request is sent again after these pauses (RFC 8489 section 6.2.1
// with a shorter end: a self-test does not wait 40 seconds).
var pauses = []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 1500 * time.Millisecond}

// streamWait bounds the wait for an answer over TCP.
const streamWait = 4 * time.Second

func (c *Client) roundTrip(ctx context.Context, m message) (message, error) {
	answer := make(chan message, 1)
	c.mu.Lock()
	c.waiting[m.id] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, m.id)
		c.mu.Unlock()
	}()
	waits := pauses
	if c.stream {
		waits = []time.Duration{streamWait}
	}
	raw := m.bytes()
	for _, wait := range waits {
		// What an earlier datagram met may be told to this one.
		if err := c.write(raw); err != nil && (c.stream || !errors.Is(err, syscall.ECONNREFUSED)) {
			return message{}, err
		}
		timer := time.NewTimer(wait)
		select {
		case m := <-answer:
			timer.Stop()
			return m, nil
		case <-timer.C:
		case <-c.done:
			timer.Stop()
			return message{}, c.ended()
		case <-ctx.Done():
			timer.Stop()
			return message{}, ErrSilence
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused != nil {
		return message{}, c.refused
	}
	return message{}, ErrSilence
}

func (c *Client) write(b []byte) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	_ = c.conn.SetWriteDeadline(time.Now().Add(streamWait))
	_, err := c.conn.Write(b)
	return err
}

func (c *Client) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return fmt.Errorf("the connection ended: %w", c.err)
	}
	return net.ErrClosed
}

func (c *Client) receive() {
	defer close(c.done)
	r := newFrames(c.conn, c.stream)
	for {
		frame, err := r.next()
		if err != nil && !c.stream && errors.Is(err, syscall.ECONNREFUSED) {
			c.mu.Lock()
			c.refused = err
			c.mu.Unlock()
			continue
		}
		if err != nil {
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			return
		}
		c.dispatch(frame)
	}
}

func (c *Client) dispatch(frame []byte) {
	if channel, payload, ok := parseChannelData(frame); ok {
		c.mu.Lock()
		peer, bound := c.channels[channel]
		c.mu.Unlock()
		if bound {
			c.deliver(peer, payload)
		}
		return
	}
	m, err := parse(frame)
	if err != nil {
		return
	}
	if m.method == methodData && m.class == classIndication {
		peer, _ := m.address(attrXORPeerAddress)
		payload, _ := m.get(attrData)
		c.deliver(peer, payload)
		return
	}
	c.mu.Lock()
	answer := c.waiting[m.id]
	delete(c.waiting, m.id)
	c.mu.Unlock()
	if answer != nil {
		answer <- m
	}
}

func (c *Client) deliver(from netip.AddrPort, payload []byte) {
	select {
	case c.data <- Datagram{from, payload, time.Now()}:
	default: // as a full socket buffer does
	}
}
