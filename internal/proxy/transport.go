package proxy

import (
	"context"
	"net"
	"net/http"
	"net/url"
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
		c, err := d.Dial(ctx, u)
		if err != nil {
			return nil, err
		}
		return d.Handshake(ctx, u, c, protos...)
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
