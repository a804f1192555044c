package proxy

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// NewTransport returns a transport that keeps connections to upstreams and dials through d:
// HTTP/1.1 and h2, no compression of its own, no redirects, no proxy from the
// environment. The host of a request's URL must be the Name of an [Upstream].
func NewTransport(d *Dialer) *http.Transport {
	dial := func(ctx context.Context, scheme, addr string, protos ...string) (net.Conn, error) {
		u, err := ParseUpstream(scheme + "://" + addr)
		if err != nil {
			return nil, err
		}
		began := time.Now()
		c, err := d.Dial(ctx, u)
		if err != nil {
			return nil, err
		}
		t := &timed{Conn: c, dial: time.Since(began)}
		began = time.Now()
		if c, err = d.Handshake(ctx, u, t, protos...); u.TLS {
			t.tls = time.Since(began)
		}
		return c, err
	}
	return &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return dial(ctx, "http", addr)
		},
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return dial(ctx, "https", addr, "h2", "http/1.1")
		},
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 32 << 10,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
}

// timed is a connection that knows how long it took to open.
type timed struct {
	net.Conn
	dial, tls time.Duration
}

// openedIn returns what is known about a connection of a transport of ours.
func openedIn(c net.Conn) *timed {
	for {
		if t, ok := c.(*timed); ok {
			return t
		}
		over, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = over.NetConn()
	}
}

// A Client sends requests to upstreams over kept connections. When DNS moves an
// upstream to other addresses, its kept connections would stay where it was: the
// client then begins a new pool of them. It may be used from many goroutines.
type Client struct {
	dialer    *Dialer
	transport atomic.Pointer[http.Transport]
	moves     sync.Map // name of an upstream to the moves seen, uint64
}

// NewClient returns a client that dials through d.
func NewClient(d *Dialer) *Client {
	c := &Client{dialer: d}
	c.transport.Store(NewTransport(d))
	return c
}

// RoundTrip sends a request to u; its URL must come from [Upstream.URL]. A
// request without User-Agent stays without: that field is the client's to send.
// Its header must not be in use elsewhere.
//
// phase, if not nil, is told how long each part took that the request waited for: "dial" and
// "tls" of a new connection, "answer" from then to the head of the answer. It is called on the
// caller's goroutine.
func (c *Client) RoundTrip(u *Upstream, req *http.Request, phase func(name string, took time.Duration)) (*http.Response, error) {
	var asked time.Time
	if phase != nil {
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			GotConn: func(got httptrace.GotConnInfo) {
				asked = time.Now()
				t := openedIn(got.Conn)
				if got.Reused || t == nil {
					return
				}
				phase("dial", t.dial)
				if u.TLS {
					phase("tls", t.tls)
				}
			},
		}))
	}
	resp, err := c.roundTrip(u, req)
	if err == nil && phase != nil {
		phase("answer", time.Since(asked))
	}
	return resp, err
}

func (c *Client) roundTrip(u *Upstream, req *http.Request) (*http.Response, error) {
	if _, named := req.Header["User-Agent"]; !named {
		req.Header["User-Agent"] = nil // otherwise net/http writes its own
	}
	moves := c.dialer.Refresh(u)
	seen, _ := c.moves.LoadOrStore(u.Name, moves)
	if moves != seen && c.moves.CompareAndSwap(u.Name, seen, moves) {
		c.transport.Swap(NewTransport(c.dialer)).CloseIdleConnections()
	}
	return c.transport.Load().RoundTrip(req)
}

// CloseIdle closes the connections that carry no request.
func (c *Client) CloseIdle() { c.transport.Load().CloseIdleConnections() }

// URL returns the URL to give to a transport of [NewTransport] for a target made by
// [Upstream.Target]. The target goes on the wire byte for byte.
func (u *Upstream) URL(target string) *url.URL {
	scheme := "http"
	if u.TLS {
		scheme = "https"
	}
	// Opaque is written as it is; RequestURI would read a leading "//" as an
	// authority, and Join never makes one.
	return &url.URL{Scheme: scheme, Host: u.Name, Opaque: target}
}
