package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// An Outbound is the way out of a network whose hosts reach the Internet through
// the company's proxy only: which proxy serves an upstream, if any. It is fixed after
// New and used by many goroutines.
//
// HTTP proxies are asked with CONNECT, also for upstreams without TLS, because a
// WebSocket needs a tunnel. SOCKS is version 5. A login is Basic, or user and password
// of SOCKS; it is sent with the first request.
type Outbound struct {
	secure, plain *proxyServer // for upstreams with and without TLS; nil: direct
	bypass        bypassList
}

// NewOutbound reads the URL of a proxy: http://, https://, socks5:// (names are
// looked up here) or socks5h:// (by the proxy), user and password if it wants them,
// host and port. noProxy lists upstreams that are reached directly, as NO_PROXY does:
// names, .suffixes, addresses, prefixes and "*", each with a port if wanted. No error
// holds the URL, which may hold a password.
func NewOutbound(proxyURL string, noProxy []string) (*Outbound, error) {
	p, err := parseProxy(proxyURL)
	if err != nil {
		return nil, err
	}
	b, err := parseBypass(noProxy)
	return &Outbound{p, p, b}, err
}

// NewOutboundFromEnv reads the variables that curl and other programs know, in capital
// or small letters: HTTPS_PROXY for upstreams with TLS, HTTP_PROXY for those
// without, ALL_PROXY for either without its own, and NO_PROXY, whose elements count beside
// noProxy. A proxy without a scheme is http://. As in Go's own programs this host itself
// (localhost, loopback addresses) is reached directly. Without a variable the
// result is nil: everything is reached directly.
func NewOutboundFromEnv(getenv func(string) string, noProxy []string) (*Outbound, error) {
	o := &Outbound{}
	var err error
	if o.secure, err = proxyFromEnv(getenv, "HTTPS_PROXY"); err != nil {
		return nil, err
	}
	if o.plain, err = proxyFromEnv(getenv, "HTTP_PROXY"); err != nil {
		return nil, err
	}
	if o.secure == nil && o.plain == nil {
		return nil, nil
	}
	_, list := either(getenv, "NO_PROXY")
	fromEnv, _ := parseBypass(strings.Split(list, ",")) // what is not understood there is for other programs
	b, err := parseBypass(append([]string{"localhost", "127.0.0.0/8", "::1"}, noProxy...))
	b.merge(fromEnv)
	o.bypass = b
	return o, err
}

func proxyFromEnv(getenv func(string) string, name string) (*proxyServer, error) {
	name, text := either(getenv, name)
	if text == "" {
		name, text = either(getenv, "ALL_PROXY")
	}
	if text == "" {
		return nil, nil
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	p, err := parseProxy(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// either returns a variable by its name in capitals or in small letters.
func either(getenv func(string) string, name string) (used, value string) {
	if v := getenv(name); v != "" {
		return name, v
	}
	small := strings.ToLower(name)
	return small, getenv(small)
}

// serverFor returns the proxy towards an upstream, nil for none. A nil Outbound is no proxy.
func (o *Outbound) serverFor(u *Upstream) *proxyServer {
	switch {
	case o == nil, o.bypass.match(u.Host, u.Port):
		return nil
	case u.TLS:
		return o.secure
	}
	return o.plain
}

// Through returns the name (host:port) of the proxy towards an upstream, "" for none.
func (o *Outbound) Through(u *Upstream) string {
	if p := o.serverFor(u); p != nil {
		return p.name
	}
	return ""
}

// proxyServer is one proxy.
type proxyServer struct {
	name       string // host:port
	host       string
	port       uint16
	kind       string // the URL's scheme
	user, pass string
	login      bool // there is a user
}

// kinds are the schemes of a proxy's URL with their default ports.
var kinds = map[string]uint16{"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

func parseProxy(s string) (*proxyServer, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("proxy: not a URL; special characters in user and password are written as %XX")
	}
	p := &proxyServer{kind: u.Scheme, host: strings.ToLower(u.Hostname()), port: kinds[u.Scheme]}
	if p.port == 0 {
		return nil, errors.New("proxy: want http://, https://, socks5:// or socks5h://")
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
		return nil, errors.New("proxy: only scheme, user, password, host and port may stand in the URL; special characters in user and password are written as %XX")
	}
	if _, err := netip.ParseAddr(p.host); err != nil && !validUpstreamName(p.host) {
		return nil, errors.New("proxy: the URL has no host name or address")
	}
	if port := u.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return nil, errors.New("proxy: the port is not 1 to 65535")
		}
		p.port = uint16(n)
	}
	if u.User != nil {
		p.login, p.user = true, u.User.Username()
		p.pass, _ = u.User.Password()
		if p.socks() && (len(p.user) > 255 || len(p.pass) > 255 || p.user == "") {
			return nil, errors.New("proxy: SOCKS takes a user and a password of 1 to 255 bytes")
		}
		if !p.socks() && strings.Contains(p.user, ":") {
			return nil, errors.New("proxy: Basic takes no user with a colon")
		}
	}
	p.name = net.JoinHostPort(p.host, strconv.Itoa(int(p.port)))
	return p, nil
}

func (p *proxyServer) socks() bool { return strings.HasPrefix(p.kind, "socks") }

// tunnel opens a connection to an upstream through a proxy: the connection to the
// proxy may take opt.Dial, TLS with it opt.TLS, its answer opt.Dial again, since the proxy
// does there what we do elsewhere.
func (d *Dialer) tunnel(ctx context.Context, p *proxyServer, u *Upstream) (net.Conn, error) {
	targets, err := d.targets(ctx, p, u)
	if err != nil {
		return nil, err
	}
	if targets, err = d.guarded(u.Host, targets); err != nil {
		return nil, err
	}
	var last error
	for _, target := range targets {
		c, err := d.tunnelTo(ctx, p, target)
		if err == nil {
			return c, nil
		}
		last = err
		var pe *proxyError
		if !errors.As(err, &pe) || !pe.target || ctx.Err() != nil {
			break // not the address's fault: another one changes nothing
		}
	}
	return nil, last
}

// maxTargets bounds how many addresses of a name a SOCKS proxy is asked for.
const maxTargets = 4

// targets returns what the proxy is asked for, as host:port: the name, unless it is fixed
// or to be looked up here.
func (d *Dialer) targets(ctx context.Context, p *proxyServer, u *Upstream) ([]string, error) {
	if _, fixed := d.opt.Resolve[u.Host]; !fixed && p.kind != "socks5" {
		return []string{u.Name}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.opt.Dial)
	defer cancel()
	targets, err := d.addresses(ctx, u.Host, u.Port)
	if err != nil {
		return nil, &proxyError{cause: Classify(err), text: fmt.Sprintf("%v: write socks5h:// and the proxy looks the name up", err), err: err}
	}
	return targets[:min(len(targets), maxTargets)], nil
}

func (d *Dialer) tunnelTo(ctx context.Context, p *proxyServer, target string) (net.Conn, error) {
	c, err := d.reach(ctx, p)
	if err != nil {
		return nil, err
	}
	var tunnel net.Conn
	err = within(ctx, d.opt.Dial, c, func() (err error) {
		if p.socks() {
			tunnel, err = c, p.socksConnect(c, target)
		} else {
			tunnel, err = p.httpConnect(c, target)
		}
		return err
	})
	if err != nil {
		c.Close()
		var pe *proxyError
		if errors.As(err, &pe) {
			return nil, err
		}
		return nil, p.fault(err, "answer")
	}
	return tunnel, nil
}

// reach connects to the proxy itself.
func (d *Dialer) reach(ctx context.Context, p *proxyServer) (net.Conn, error) {
	dial, cancel := context.WithTimeout(ctx, d.opt.Dial)
	defer cancel()
	addrs, err := d.addresses(dial, p.host, p.port)
	if err != nil {
		return nil, p.fault(err, "")
	}
	c, err := d.race(dial, addrs)
	if err != nil {
		if ctx.Err() == nil && dial.Err() != nil {
			err = context.DeadlineExceeded
		}
		return nil, p.fault(err, "connection")
	}
	if p.kind != "https" {
		return c, nil
	}
	t, err := d.secure(ctx, c, p.host, "http/1.1")
	if err != nil {
		return nil, p.fault(err, "TLS")
	}
	return t, nil
}

// within runs an exchange on a connection that ends with ctx or after limit, whatever
// the peer does, and leaves no deadline behind.
func within(ctx context.Context, limit time.Duration, c net.Conn, exchange func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err := exchange()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil && ctx.Err() != nil && !errors.As(err, new(*proxyError)) {
		err = ctx.Err()
	}
	return err
}

// A proxyError is what a proxy, or the way to it, has against a connection. Its text
// names the proxy and the remedy, and holds no user and no password.
type proxyError struct {
	cause  Cause
	text   string
	target bool // the proxy works, the target is the trouble
	err    error
}

func (e *proxyError) Error() string { return e.text }
func (e *proxyError) Unwrap() error { return e.err }

// fault makes an error of the way to the proxy; doing is what failed, if err does not say so.
func (p *proxyServer) fault(err error, doing string) error {
	cause := Classify(err)
	text := detail(cause, err)
	switch {
	case cause == CauseTimeout && doing != "":
		text = "no " + doing + " in time"
	case cause == CauseReset:
		text = "it ends the connection without an answer"
	case doing == "TLS" && cause == CauseTLS:
		text = "TLS: " + text + ": write http:// if the proxy speaks no TLS itself"
	case doing == "TLS":
		text = "TLS: " + text
	}
	return &proxyError{cause: cause, text: "proxy " + p.name + ": " + text, err: err}
}

// refusal makes an error of the proxy's answer.
func (p *proxyServer) refusal(cause Cause, target bool, format string, args ...any) error {
	return &proxyError{cause: cause, target: target, text: "proxy " + p.name + ": " + fmt.Sprintf(format, args...)}
}
