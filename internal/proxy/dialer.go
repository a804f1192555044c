package proxy

import (
	"context"
	"crypto/fips140"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/turngate/turngate/internal/poller"
)

// DialOptions say how upstreams are reached.
type DialOptions struct {
	Dial time.Duration // DNS and TCP together, and again for the answer of a proxy; zero means 3 s
	TLS  time.Duration // TLS handshake; zero means 5 s

	// Resolve holds fixed addresses instead of DNS: name to "ip" or "ip:port".
	// The name stays what TLS verifies and what Host says.
	Resolve map[string]string

	// CAFile names a PEM file of authorities trusted beside the system's, for
	// networks whose firewall inspects TLS.
	CAFile string

	// Proxy is the company's proxy on the way to upstreams; nil: none. It is asked for a
	// name, or for the fixed address of Resolve, and looks names up itself. Its own name
	// is found like an upstream's.
	Proxy *Outbound

	// Lookup, if set, asks for the addresses of a name instead of the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// A Dialer opens connections to upstreams. It may be used from many goroutines
// and holds no connection itself.
type Dialer struct {
	opt   DialOptions
	dns   *resolver
	good  *chains
	tcp   net.Dialer
	guard Guard // nil: none
}

// A Guard is asked before an address is dialled for a host, and may refuse it. The
// address is the one that is dialled, so an answer of DNS that changes gains nothing;
// it has the port alone where a proxy is given the name.
type Guard func(host string, to netip.AddrPort) error

// Guarded returns a dialer that asks guard, and shares everything else with d.
func (d *Dialer) Guarded(guard Guard) *Dialer {
	g := *d
	g.guard = guard
	return &g
}

// NewDialer checks the options and reads the CA file; it asks no DNS, so that a
// start without a network works.
func NewDialer(opt DialOptions) (*Dialer, error) {
	if opt.Dial == 0 {
		opt.Dial = 3 * time.Second
	}
	if opt.TLS == 0 {
		opt.TLS = 5 * time.Second
	}
	fixed := make(map[string]string, len(opt.Resolve))
	for name, addr := range opt.Resolve {
		if _, err := netip.ParseAddr(addr); err != nil {
			if _, err := netip.ParseAddrPort(addr); err != nil {
				return nil, fmt.Errorf("resolve %q: %q is neither an address nor address:port", name, addr)
			}
		}
		fixed[strings.ToLower(name)] = addr
	}
	opt.Resolve = fixed
	d := &Dialer{
		opt: opt,
		dns: newResolver(opt.Lookup),
		tcp: net.Dialer{KeepAliveConfig: keepAlive, Control: control},
	}
	var roots *x509.CertPool // the system's
	if opt.CAFile != "" {
		pem, err := os.ReadFile(opt.CAFile)
		if err != nil {
			return nil, fmt.Errorf("upstream ca: %v", err)
		}
		if roots, err = x509.SystemCertPool(); err != nil {
			roots = x509.NewCertPool()
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("upstream ca: %s holds no certificate in PEM form", opt.CAFile)
		}
	}
	d.good = newChains(roots)
	return d, nil
}

// keepAlive finds a dead peer in 35 s; TCP_USER_TIMEOUT does while data is under way.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4}

const userTimeout = 30 * time.Second

// fallbackDelay is the pause before the next address is tried beside the ones
// under way (RFC 8305 section 5).
const fallbackDelay = 250 * time.Millisecond

// Dial opens a TCP connection to the upstream: each of its addresses in turn, the next
// one after a failure or a short pause; or a tunnel through the proxy. The error is an [*Error].
func (d *Dialer) Dial(ctx context.Context, u *Upstream) (c net.Conn, err error) {
	if p := d.opt.Proxy.serverFor(u); p != nil {
		c, err = d.tunnel(ctx, p, u)
	} else {
		c, err = d.direct(ctx, u)
	}
	if err != nil {
		cause := Classify(err)
		if cause == CauseCanceled && ctx.Err() == nil {
			cause = CauseTimeout
		}
		return nil, &Error{Upstream: u.Name, Phase: "dial", Cause: cause, Err: err}
	}
	return c, nil
}

// Through returns the name (host:port) of the proxy towards an upstream, "" for none.
func (d *Dialer) Through(u *Upstream) string { return d.opt.Proxy.Through(u) }

func (d *Dialer) direct(ctx context.Context, u *Upstream) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.opt.Dial)
	defer cancel()
	addrs, err := d.addresses(ctx, u.Host, u.Port)
	if err != nil {
		return nil, err
	}
	if addrs, err = d.guarded(u.Host, addrs); err != nil {
		return nil, err
	}
	return d.race(ctx, addrs)
}

// guarded leaves those addresses that the guard allows; with none it fails with
// the guard's own words.
func (d *Dialer) guarded(host string, addrs []string) ([]string, error) {
	if d.guard == nil {
		return addrs, nil
	}
	var allowed []string
	var refused error
	for _, a := range addrs {
		name, port, _ := net.SplitHostPort(a)
		addr, _ := netip.ParseAddr(name) // a name stays the zero Addr
		n, _ := strconv.ParseUint(port, 10, 16)
		if err := d.guard(host, netip.AddrPortFrom(addr.Unmap(), uint16(n))); err == nil {
			allowed = append(allowed, a)
		} else if refused == nil {
			refused = err
		}
	}
	if allowed == nil {
		return nil, refused
	}
	return allowed, nil
}

// addresses returns what to dial, as "ip:port".
func (d *Dialer) addresses(ctx context.Context, host string, port uint16) ([]string, error) {
	p := strconv.Itoa(int(port))
	if fixed, ok := d.opt.Resolve[host]; ok {
		if _, err := netip.ParseAddrPort(fixed); err == nil {
			return []string{fixed}, nil
		}
		return []string{net.JoinHostPort(fixed, p)}, nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{net.JoinHostPort(host, p)}, nil
	}
	ips, err := d.dns.resolve(ctx, host)
	if err != nil {
		var de *net.DNSError
		if !errors.As(err, &de) && ctx.Err() != nil {
			err = &net.DNSError{Err: "no answer in time", Name: host, IsTimeout: true}
		}
		return nil, err
	}
	var addrs []string
	for _, ip := range interleave(ips) {
		addrs = append(addrs, net.JoinHostPort(ip.String(), p))
	}
	return addrs, nil
}

// interleave alternates the address families, beginning with the one DNS put first.
func interleave(ips []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, ip := range ips {
		if ip.Is4() == ips[0].Is4() {
			first = append(first, ip)
		} else {
			second = append(second, ip)
		}
	}
	out := make([]netip.Addr, 0, len(ips))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out
}

// race dials the addresses in order, the next one when the last failed or
// fallbackDelay went by, and returns the first connection. It returns only after
// the losers were closed or left to a goroutine that closes them.
func (d *Dialer) race(ctx context.Context, addrs []string) (net.Conn, error) {
	if len(addrs) == 1 {
		return d.tcp.DialContext(ctx, "tcp", addrs[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the losers
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, len(addrs))
	started, pending := 0, 0
	start := func() {
		addr := addrs[started]
		started, pending = started+1, pending+1
		go func() { // ends by ctx; the channel has room for every result
			c, err := d.tcp.DialContext(ctx, "tcp", addr)
			results <- result{c, err}
		}()
	}
	start()
	timer := time.NewTimer(fallbackDelay)
	defer timer.Stop()
	var first error
	for {
		select {
		case r := <-results:
			pending--
			if r.err == nil {
				go func(n int) { // ends when the last canceled dial has returned
					for range n {
						if late := <-results; late.conn != nil {
							late.conn.Close()
						}
					}
				}(pending)
				return r.conn, nil
			}
			if first == nil {
				first = r.err
			}
			if pending == 0 && (started == len(addrs) || ctx.Err() != nil) {
				return nil, first
			}
			if started < len(addrs) && ctx.Err() == nil {
				start()
				timer.Reset(fallbackDelay)
			}
		case <-timer.C:
			if started < len(addrs) && ctx.Err() == nil {
				start()
				timer.Reset(fallbackDelay)
			}
		}
	}
}

// Handshake puts TLS on a connection when the upstream wants it. The chain is
// verified to the system's roots and the CA file, or was lately; the name is the upstream's. It
// closes the connection when it fails. The error is an [*Error].
//
// No session is resumed: a certificate that was replaced under the same ticket keys would not be
// noticed (decision 30).
func (d *Dialer) Handshake(ctx context.Context, u *Upstream, c net.Conn, protos ...string) (net.Conn, error) {
	if !u.TLS {
		return c, nil
	}
	t, err := d.secure(ctx, c, u.serverName(), protos...)
	if err != nil {
		return nil, &Error{Upstream: u.Name, Phase: "tls", Cause: Classify(err), Err: err}
	}
	return t, nil
}

// upstreamCurves leaves out the post-quantum exchanges that Go would offer first: 0.2 ms of a
// handshake, and a hello of two segments, which some inspecting firewalls drop (decision 30).
var upstreamCurves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}

// secure puts TLS on a connection to a server of the given name, or closes it.
func (d *Dialer) secure(ctx context.Context, c net.Conn, name string, protos ...string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.opt.TLS)
	defer cancel()
	// A session may move to another socket below its TLS later.
	config := &tls.Config{
		ServerName:                  name,
		RootCAs:                     d.good.roots,
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  protos,
		CurvePreferences:            upstreamCurves,
		DynamicRecordSizingDisabled: true,
	}
	if !fips140.Enabled() { // crypto/tls then has rules for chains that nobody else can apply
		config.InsecureSkipVerify = true // VerifyConnection does it, in every handshake
		config.VerifyConnection = func(cs tls.ConnectionState) error {
			return d.good.verify(name, cs.PeerCertificates, time.Now())
		}
	}
	t := tls.Client(&poller.Rebasable{Conn: poller.Quick(c)}, config)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}

// Refresh asks in the background for the addresses of an upstream whose answer is
// older than a few seconds. The number it returns grows when the upstream has
// moved to other addresses altogether: a caller that keeps connections then drops the idle ones.
func (d *Dialer) Refresh(u *Upstream) (moves uint64) {
	if _, fixed := d.opt.Resolve[u.Host]; fixed || u.literal || d.opt.Proxy.serverFor(u) != nil {
		return 0
	}
	return d.dns.refresh(u.Host)
}
