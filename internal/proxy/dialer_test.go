package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/turngate/turngate/internal/testnet"
)

func mustUpstream(t *testing.T, s string) *Upstream {
	t.Helper()
	u, err := ParseUpstream(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func connect(t *testing.T, d *Dialer, u *Upstream) (net.Conn, error) {
	t.Helper()
	c, err := d.Dial(t.Context(), u)
	if err != nil {
		return nil, err
	}
	return d.Handshake(t.Context(), u, c, "http/1.1")
}

func TestDialerVerifiesTheUpstream(t *testing.T) {
	ca := testnet.NewCA(t, "Example Root")
	other := testnet.NewCA(t, "Corp Inspection CA")
	srv := testnet.NewUpstream(t, ca.Issue(t, "signal.example.com"), http.NotFoundHandler())
	d, err := NewDialer(DialOptions{CAFile: ca.File(t), Resolve: map[string]string{"Signal.example.com": srv.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	u := mustUpstream(t, "wss://signal.example.com/")
	c, err := connect(t, d, u)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if got := srv.ServerNames(); len(got) != 1 || got[0] != "signal.example.com" {
		t.Errorf("SNI %q, want signal.example.com", got)
	}
	for _, tt := range []struct {
		name  string
		cert  tls.Certificate
		cause Cause
		text  string
	}{
		{"an unknown issuer is named", other.Issue(t, "signal.example.com"), CauseIssuer, `issued by 'Corp Inspection CA', which is not trusted: put that CA's certificate into upstream.ca`},
		{"a wrong name is named", ca.Issue(t, "other.example.com"), CauseName, `"other.example.com"`},
		{"an expired certificate is refused", ca.IssueUntil(t, time.Now().Add(-time.Minute), "signal.example.com"), CauseExpired, "clock"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv.SetCertificate(tt.cert)
			d, err := NewDialer(d.opt) // without the session of the good certificate
			if err != nil {
				t.Fatal(err)
			}
			_, err = connect(t, d, u)
			var own *Error
			if !errors.As(err, &own) || own.Cause != tt.cause || own.Phase != "tls" {
				t.Fatalf("error %#v, want cause %s in phase tls", err, tt.cause)
			}
			if !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), "signal.example.com:443") {
				t.Errorf("error %q, want it to hold %s", err, tt.text)
			}
		})
	}
	if n := srv.Requests.Load(); n != 0 {
		t.Errorf("%d requests reached the upstream, want 0", n)
	}
}

func TestDialerNamesTheCause(t *testing.T) {
	closed := testnet.ClosedAddress(t)
	silent := testnet.RawUpstream(t, nil, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	hangup := testnet.RawUpstream(t, nil, func(c net.Conn) {})
	plain := testnet.RawUpstream(t, nil, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	opt := DialOptions{Lookup: func(context.Context, string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "gone.example.com", IsNotFound: true}
	}, Resolve: map[string]string{"closed.example.com": closed, "silent.example.com": silent.Addr, "hangup.example.com": hangup.Addr, "plain.example.com": plain.Addr}}
	for _, tt := range []struct {
		host  string
		phase string
		cause Cause
	}{
		{"gone.example.com", "dial", CauseDNS},
		{"closed.example.com", "dial", CauseRefused},
		{"silent.example.com", "tls", CauseTimeout},
		{"hangup.example.com", "tls", CauseReset},
		{"plain.example.com", "tls", CauseTLS},
	} {
		if opt.TLS = time.Minute; tt.cause == CauseTimeout {
			opt.TLS = 50 * time.Millisecond
		}
		d, err := NewDialer(opt)
		if err != nil {
			t.Fatal(err)
		}
		_, err = connect(t, d, mustUpstream(t, "https://"+tt.host))
		var own *Error
		if !errors.As(err, &own) || own.Cause != tt.cause || own.Phase != tt.phase {
			t.Errorf("%s: error %v (%+v), want %s in phase %s", tt.host, err, own, tt.cause, tt.phase)
		}
	}
}

func TestDialerTriesEveryAddress(t *testing.T) {
	srv := testnet.RawUpstream(t, nil, func(c net.Conn) {})
	// 127.0.0.2 and .3 refuse: the fake listens on 127.0.0.1 alone.
	d, err := NewDialer(DialOptions{Lookup: func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3"), netip.MustParseAddr("127.0.0.1")}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Dial(t.Context(), mustUpstream(t, "http://x.example.com:"+srv.Port()))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.RemoteAddr().String(); got != srv.Addr {
		t.Errorf("connected to %s, want %s", got, srv.Addr)
	}
	c.Close()
}

func TestADialThatIsGivenUpWaitsForNoFurtherAddress(t *testing.T) {
	d, err := NewDialer(DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		c, err := d.race(ctx, []string{"127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"})
		if err == nil {
			c.Close()
			t.Error("got a connection, want an error")
		}
		if took := time.Since(began); took != 0 { // the clock stands still while anybody works
			t.Errorf("waited %v, want not at all", took)
		}
	})
}

func TestNewDialerRefusesNonsense(t *testing.T) {
	for _, opt := range []DialOptions{
		{Resolve: map[string]string{"a": "b.example.com"}},
		{CAFile: "/does/not/exist"},
	} {
		if _, err := NewDialer(opt); err == nil {
			t.Errorf("NewDialer(%+v): no error", opt)
		}
	}
}

func TestResolver(t *testing.T) {
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	synctest.Test(t, func(t *testing.T) {
		var answer atomic.Pointer[netip.Addr]
		var asked atomic.Int64
		var hang atomic.Bool
		r := newResolver(func(ctx context.Context, _ string) ([]netip.Addr, error) {
			asked.Add(1)
			if hang.Load() {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			if a := answer.Load(); a != nil {
				return []netip.Addr{*a}, nil
			}
			return nil, &net.DNSError{Err: "server misbehaving"}
		})
		want := func(a netip.Addr) {
			t.Helper()
			got, err := r.resolve(t.Context(), "x")
			if err != nil || len(got) != 1 || got[0] != a {
				t.Errorf("resolve: %v, %v, want %v", got, err, a)
			}
		}
		if _, err := r.resolve(t.Context(), "x"); err == nil {
			t.Error("resolve without DNS and without an old answer: no error")
		}
		answer.Store(&one)
		time.Sleep(dnsRetry) // as soon as DNS is back
		want(one)
		n := asked.Load()
		want(one)
		if asked.Load() != n {
			t.Error("a fresh answer was asked for again")
		}
		answer.Store(&two)
		time.Sleep(dnsFresh)
		want(two)
		answer.Store(nil)
		time.Sleep(time.Hour)
		want(two) // DNS is down
		hang.Store(true)
		time.Sleep(time.Minute)
		before := time.Now()
		want(two) // DNS is silent
		if waited := time.Since(before); waited > dnsPatience {
			t.Errorf("waited %v for a silent DNS with an old answer at hand, want at most %v", waited, dnsPatience)
		}
		time.Sleep(2 * dnsStale)
		if _, err := r.resolve(t.Context(), "x"); err == nil {
			t.Error("an answer older than a day still serves")
		}
		synctest.Wait()
	})
}

func TestResolverSeesAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer atomic.Pointer[[]netip.Addr]
		set := func(s ...string) {
			var as []netip.Addr
			for _, a := range s {
				as = append(as, netip.MustParseAddr(a))
			}
			answer.Store(&as)
		}
		r := newResolver(func(context.Context, string) ([]netip.Addr, error) { return *answer.Load(), nil })
		moves := func() uint64 {
			r.refresh("x")
			synctest.Wait()
			time.Sleep(dnsFresh)
			return r.refresh("x")
		}
		set("192.0.2.1", "192.0.2.2")
		base := moves()
		set("192.0.2.2", "192.0.2.3")
		if got := moves(); got != base {
			t.Errorf("a rotating pool counts %d moves, want %d", got, base)
		}
		set("198.51.100.1")
		if got := moves(); got != base+1 {
			t.Errorf("a new set of addresses counts %d moves, want %d", got, base+1)
		}
		synctest.Wait()
	})
}

func TestResolverForgets(t *testing.T) {
	r := newResolver(func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{netip.IPv6Loopback()}, nil })
	for i := range 2 * dnsMaxNames {
		if _, err := r.resolve(t.Context(), strings.Repeat("x", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.names); n > dnsMaxNames {
		t.Errorf("%d names remembered, want at most %d", n, dnsMaxNames)
	}
}

func TestParseUpstream(t *testing.T) {
	for _, tt := range []struct{ in, name, host, path string }{
		{"https://yun.tim.qq.com/", "yun.tim.qq.com:443", "yun.tim.qq.com", "/"},
		{"wss://Signal.Example.com", "signal.example.com:443", "signal.example.com", ""},
		{"ws://127.0.0.1:8080/a/b", "127.0.0.1:8080", "127.0.0.1:8080", "/a/b"},
		{"http://[::1]", "[::1]:80", "[::1]", ""},
	} {
		u, err := ParseUpstream(tt.in)
		if err != nil {
			t.Errorf("ParseUpstream(%q): %v", tt.in, err)
			continue
		}
		if u.Name != tt.name || u.HostHeader() != tt.host || u.Path != tt.path {
			t.Errorf("ParseUpstream(%q) = %s, Host %s, path %q, want %s, %s, %q", tt.in, u.Name, u.HostHeader(), u.Path, tt.name, tt.host, tt.path)
		}
	}
	for _, bad := range []string{"", "example.com", "ftp://x", "https://", "https://u:secret@x", "https://x/?a", "https://x#f", "https://x:0", "https://x:70000", "https://a b", "https://x/../y", "https://x\x00"} {
		_, err := ParseUpstream(bad)
		if err == nil {
			t.Errorf("ParseUpstream(%q): no error", bad)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("ParseUpstream(%q): error %q shows the password", bad, err)
		}
	}
}

func TestGuardSeesTheAddressThatIsDialled(t *testing.T) {
	refused := errors.New("refused by the guard")
	answers := []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1"), netip.MustParseAddr("127.0.0.2")}
	d, err := NewDialer(DialOptions{Lookup: func(context.Context, string) ([]netip.Addr, error) { return answers, nil }})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		guard Guard
		want  error
	}{
		{"every address refused", func(string, netip.AddrPort) error { return refused }, refused},
		{"a mapped address is asked for as IPv4", func(host string, to netip.AddrPort) error {
			if host != "app.example.com" || !to.Addr().Is4() || to.Port() != 1 {
				t.Errorf("asked for %s at %v, want app.example.com at an IPv4 address, port 1", host, to)
			}
			return refused
		}, refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := ParseUpstream("http://app.example.com:1")
			if err != nil {
				t.Fatal(err)
			}
			conn, err := d.Guarded(c.guard).Dial(t.Context(), u)
			if conn != nil {
				conn.Close()
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestGuardIsAskedBeforeAProxyToo(t *testing.T) {
	refused := errors.New("refused by the guard")
	p := testnet.NewConnectProxy(t, nil, "", func(string) string { return "" })
	d := mustDialer(t, DialOptions{Proxy: mustOutbound(t, "http://"+p.Addr)})
	_, err := d.Guarded(func(host string, to netip.AddrPort) error {
		if host != "app.example.com" || to.IsValid() {
			t.Errorf("asked for %s at %v, want app.example.com at no address: the proxy finds it", host, to)
		}
		return refused
	}).Dial(t.Context(), mustUpstream(t, "http://app.example.com"))
	if !errors.Is(err, refused) || len(p.Targets()) > 0 {
		t.Errorf("got %v, and the proxy was asked for %q", err, p.Targets())
	}
}
