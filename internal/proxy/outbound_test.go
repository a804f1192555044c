package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/turngate/turngate/internal/testnet"
)

// noLookup is a resolver that fails the test: DNS is the proxy's there.
func noLookup(t *testing.T) func(context.Context, string) ([]netip.Addr, error) {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		t.Errorf("DNS was asked for %s", host)
		return nil, io.EOF
	}
}

func mustOutbound(t *testing.T, url string, noProxy ...string) *Outbound {
	t.Helper()
	o, err := NewOutbound(url, noProxy)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func mustDialer(t *testing.T, opt DialOptions) *Dialer {
	t.Helper()
	d, err := NewDialer(opt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDialerGoesThroughTheProxy(t *testing.T) {
	ca := testnet.NewCA(t, "Example Root")
	srv := testnet.NewUpstream(t, ca.Issue(t, "signal.example.com"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto)
	}))
	route := func(string) string { return srv.Addr }
	cert := ca.Issue(t, "127.0.0.1")
	const login = "corp user:p@ss:word"
	user := "corp%20user:p%40ss%3Aword@"
	fixed := map[string]string{"signal.example.com": "192.0.2.7:8443"}
	here := func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("192.0.2.8")}, nil
	}
	for _, tc := range []struct {
		name    string
		scheme  string
		user    string
		proxy   *testnet.OutboundProxy
		resolve map[string]string
		lookup  func(context.Context, string) ([]netip.Addr, error)
		target  string
	}{
		{"http without a login", "http", "", testnet.NewConnectProxy(t, nil, "", route), nil, noLookup(t), "signal.example.com:443"},
		{"http with a login", "http", user, testnet.NewConnectProxy(t, nil, login, route), nil, noLookup(t), "signal.example.com:443"},
		{"https with a login", "https", user, testnet.NewConnectProxy(t, &cert, login, route), nil, noLookup(t), "signal.example.com:443"},
		{"http with a fixed address", "http", "", testnet.NewConnectProxy(t, nil, "", route), fixed, noLookup(t), "192.0.2.7:8443"},
		{"socks5h with a login", "socks5h", user, testnet.NewSOCKSProxy(t, login, route), nil, noLookup(t), "signal.example.com:443"},
		{"socks5h with a fixed address", "socks5h", "", testnet.NewSOCKSProxy(t, "", route), fixed, noLookup(t), "192.0.2.7:8443"},
		{"socks5, where names are looked up here", "socks5", "", testnet.NewSOCKSProxy(t, "", route), nil, here, "192.0.2.8:443"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := mustDialer(t, DialOptions{
				CAFile: ca.File(t), Resolve: tc.resolve, Lookup: tc.lookup,
				Proxy: mustOutbound(t, tc.scheme+"://"+tc.user+tc.proxy.Addr),
			})
			client := NewClient(d)
			defer client.CloseIdle()
			u := mustUpstream(t, "https://signal.example.com/")
			for range 2 { // the second request on the kept connection
				resp, err := client.RoundTrip(u, (&http.Request{Method: "GET", URL: u.URL("/x"), Host: u.HostHeader(), Header: http.Header{}}).WithContext(t.Context()), nil)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(body) != "HTTP/2.0" {
					t.Errorf("the upstream was spoken to in %s, want HTTP/2.0", body)
				}
			}
			if got := tc.proxy.Targets(); !slices.Equal(got, []string{tc.target}) {
				t.Errorf("the proxy was asked for %q, want %q once", got, tc.target)
			}
		})
	}
	for _, name := range srv.ServerNames() {
		if name != "signal.example.com" {
			t.Errorf("SNI %q, want signal.example.com whatever the way", name)
		}
	}
}

func TestWhatIsReachedWithoutTheProxy(t *testing.T) {
	srv := testnet.PlainUpstream(t, http.NotFoundHandler())
	p := testnet.NewConnectProxy(t, nil, "", func(string) string { return srv.Addr })
	d := mustDialer(t, DialOptions{
		Resolve: map[string]string{"inner.example.com": srv.Addr, "outer.example.com": srv.Addr},
		Proxy:   mustOutbound(t, "http://"+p.Addr, "inner.example.com"),
	})
	for _, host := range []string{"inner.example.com", "outer.example.com"} {
		c, err := d.Dial(t.Context(), mustUpstream(t, "http://"+host))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if got := p.Targets(); !slices.Equal(got, []string{srv.Addr}) {
		t.Errorf("the proxy was asked for %q, want the fixed address of outer.example.com alone", got)
	}
}

// Every way in which a proxy can fail has a cause and a text that names the proxy and
// what to do, and never the password.
func TestProxyErrorsNameCauseAndRemedy(t *testing.T) {
	ca := testnet.NewCA(t, "Corp Inspection CA")
	cert := ca.Issue(t, "127.0.0.1")
	closed := testnet.ClosedAddress(t)
	says := func(text string) string {
		return testnet.RawUpstream(t, nil, func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, text)
		}).Addr
	}
	replies := func(steps ...string) string { // to each message of a SOCKS client
		return testnet.RawUpstream(t, nil, func(c net.Conn) {
			b := make([]byte, 1024)
			for _, s := range steps {
				if _, err := c.Read(b); err != nil {
					return
				}
				_, _ = io.WriteString(c, s)
			}
		}).Addr
	}
	drip := func(text string) string { // never ends, never says nothing for long
		return testnet.RawUpstream(t, nil, func(c net.Conn) {
			for _, err := io.WriteString(c, text); err == nil; _, err = io.WriteString(c, "x") {
				time.Sleep(10 * time.Millisecond)
			}
		}).Addr
	}
	flood := func(line string) string {
		return testnet.RawUpstream(t, nil, func(c net.Conn) {
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for block := strings.Repeat(line, 1+4096/len(line)); err == nil; {
				_, err = io.WriteString(c, block)
			}
		}).Addr
	}
	silent := testnet.RawUpstream(t, nil, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }).Addr
	hangup := testnet.RawUpstream(t, nil, func(net.Conn) {}).Addr
	untrusted := testnet.NewConnectProxy(t, &cert, "", func(string) string { return "" }).Addr
	refuse := func(string) string { return "" }
	const u = "user:hunter2@"
	ok := "\x05\x00"
	bound := "\x00\x01\x00\x00\x00\x00\x00\x00"
	for _, tc := range []struct {
		name, url string
		cause     Cause
		want      string // in the text
	}{
		{"nobody listens", "http://" + u + closed, CauseRefused, "connection refused"},
		{"the proxy has no address", "http://" + u + "gone.corp:3128", CauseDNS, "proxy gone.corp:3128"},
		{"silence", "http://" + u + silent, CauseTimeout, "no answer in time"},
		{"silence of SOCKS", "socks5h://" + u + silent, CauseTimeout, "no answer in time"},
		{"silence of TLS", "https://" + u + silent, CauseTimeout, "in time"},
		{"an answer that drips", "http://" + u + drip("HTTP/1.1 200 OK\r\nX: "), CauseTimeout, "no answer in time"},
		{"one header without end", "http://" + u + flood("x"), CauseAnswer, "longer than 16384 bytes"},
		{"headers without end", "http://" + u + flood("X: y\r\n"), CauseAnswer, "longer than 16384 bytes"},
		{"informational answers without end", "http://" + u + says(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100)), CauseAnswer, "not HTTP"},
		{"an end before the answer", "http://" + u + hangup, CauseReset, "it ends the connection without an answer"},
		{"garbage", "http://" + u + says("SSH-2.0-OpenSSH_9.2\r\n"), CauseAnswer, "is this the port of an HTTP proxy"},
		{"SOCKS where HTTP is expected", "http://" + u + says("\x05\xff\x00\x00\r\n"), CauseAnswer, "socks5://"},
		{"HTTP where SOCKS is expected", "socks5h://" + u + says("HTTP/1.1 400 Bad Request\r\n\r\n"), CauseTimeout, "no answer in time"},
		{"HTTP in answer to SOCKS", "socks5h://" + u + replies("HTTP/1.1 400 Bad Request\r\n\r\n"), CauseAnswer, "is this the port of an HTTP proxy (http://)?"},
		{"plain HTTP where TLS is expected", "https://" + u + replies("HTTP/1.1 400 Bad Request\r\n\r\n"), CauseTLS, "write http:// if the proxy speaks no TLS itself"},
		{"a certificate of the proxy that is not trusted", "https://" + u + untrusted, CauseIssuer, "certificate issued by 'Corp Inspection CA', which is not trusted"},

		{"407 without a login", "http://" + says("HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"a, b\"\r\n\r\n"), CauseProxyAuth, "it wants a login: write http://user:password@127.0.0.1:"},
		{"407 with a login", "http://" + u + says("HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=x\r\n\r\n"), CauseProxyAuth, "does not accept this user and password"},
		{"407 that offers other schemes", "http://" + u + says("HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n"), CauseProxyAuth, "it wants Negotiate or NTLM, only Basic is spoken"},
		{"407 that offers them in one line", "http://" + u + says("HTTP/1.1 407 x\r\nProxy-Authenticate: Digest realm=\"x\", qop=\"auth\", Kerberos abc==\r\n\r\n"), CauseProxyAuth, "it wants Digest or Kerberos,"},
		{"407 that offers nothing", "http://" + says("HTTP/1.1 407 x\r\n\r\n"), CauseProxyAuth, "it wants a login"},
		{"403", "http://" + u + says("HTTP/1.1 403 Filtered \x1b[31m\r\n\r\n"), CauseProxy, "it refuses signal.example.com:443 with 403 Filtered ?[31m: have that name and port allowed there"},
		{"502", "http://" + u + says("HTTP/1.1 502 Bad Gateway\r\n\r\n"), CauseProxy, "it cannot reach signal.example.com:443"},
		{"504", "http://" + u + says("HTTP/1.0 504 Gateway Timeout\r\n\r\n"), CauseTimeout, "it gets no answer from signal.example.com:443"},
		{"a redirect to a login page", "http://" + u + says("HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n"), CauseProxy, "a login in the browser first"},
		{"500", "http://" + u + says("HTTP/1.1 500 Oops\r\n\r\n"), CauseProxy, "with 500 Oops"},

		{"SOCKS without a login", "socks5h://" + testnet.NewSOCKSProxy(t, "a:b", refuse).Addr, CauseProxyAuth, "it wants a login: write socks5h://user:password@"},
		{"SOCKS with a wrong login", "socks5h://" + u + testnet.NewSOCKSProxy(t, "a:b", refuse).Addr, CauseProxyAuth, "does not accept this user and password"},
		{"SOCKS that hangs up at the login", "socks5h://" + u + replies("\x05\x02"), CauseProxyAuth, "ended the connection at the login"},
		{"SOCKS with another method", "socks5h://" + u + replies("\x05\x01"), CauseAnswer, "method 1"},
		{"SOCKS reply 1", "socks5h://" + u + replies(ok, "\x05\x01"+bound), CauseProxy, "general failure (reply 1)"},
		{"SOCKS reply 2", "socks5h://" + u + replies(ok, "\x05\x02"+bound), CauseProxy, "not allowed by ruleset (reply 2): have that name and port allowed there"},
		{"SOCKS reply 3", "socks5h://" + u + replies(ok, "\x05\x03"+bound), CauseUnreachable, "network unreachable (reply 3)"},
		{"SOCKS reply 4", "socks5h://" + u + replies(ok, "\x05\x04"+bound), CauseUnreachable, "host unreachable (reply 4)"},
		{"SOCKS reply 5", "socks5h://" + u + replies(ok, "\x05\x05"+bound), CauseRefused, "connection refused (reply 5)"},
		{"SOCKS reply 6", "socks5h://" + u + replies(ok, "\x05\x06"+bound), CauseTimeout, "TTL expired (reply 6)"},
		{"SOCKS reply 7", "socks5h://" + u + replies(ok, "\x05\x07"+bound), CauseProxy, "command not supported (reply 7)"},
		{"SOCKS reply 8", "socks5h://" + u + replies(ok, "\x05\x08"+bound), CauseProxy, "address type not supported (reply 8)"},
		{"SOCKS reply 99", "socks5h://" + u + replies(ok, "\x05\x63"+bound), CauseProxy, "reply 99"},
		{"SOCKS with an unknown address type", "socks5h://" + u + replies(ok, "\x05\x00\x00\x09"), CauseAnswer, "type 9"},
		{"SOCKS that ends within the reply", "socks5h://" + u + replies(ok, "\x05\x00\x00\x01\x00"), CauseReset, "it ends the connection without an answer"},
		{"socks5 where names are not found here", "socks5://" + u + replies(ok), CauseDNS, "write socks5h://"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			patience := time.Minute
			if tc.cause == CauseTimeout {
				patience = 300 * time.Millisecond
			}
			d := mustDialer(t, DialOptions{
				Dial: patience, TLS: patience,
				Proxy: mustOutbound(t, tc.url),
				Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
					return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
				},
			})
			c, err := d.Dial(t.Context(), mustUpstream(t, "wss://signal.example.com"))
			if err == nil {
				c.Close()
				t.Fatal("no error")
			}
			var own *Error
			if !errors.As(err, &own) || own.Cause != tc.cause || own.Phase != "dial" {
				t.Errorf("error %+v, want cause %s in phase dial", own, tc.cause)
			}
			if !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "signal.example.com:443: dial: ") {
				t.Errorf("error %q, want it to hold %q", err, tc.want)
			}
			if strings.Contains(fmt.Sprintf("%+v %#v", err, own.Err), "hunter2") {
				t.Errorf("error %+v holds the password", err)
			}
		})
	}
}

// What the far side says before we do is not lost behind the proxy's answer.
func TestBytesBehindTheAnswerOfTheProxyArrive(t *testing.T) {
	for scheme, answer := range map[string][]string{
		"http":    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nearly"},
		"socks5h": {"\x05\x00", "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00early"},
	} {
		srv := testnet.RawUpstream(t, nil, func(c net.Conn) {
			b := make([]byte, 1024)
			for _, a := range answer {
				_, _ = c.Read(b)
				_, _ = io.WriteString(c, a)
			}
			_, _ = io.WriteString(c, " and late")
			closeWriteOf(c)
			_, _ = io.Copy(io.Discard, c)
		})
		d := mustDialer(t, DialOptions{Proxy: mustOutbound(t, scheme+"://"+srv.Addr)})
		c, err := d.Dial(t.Context(), mustUpstream(t, "http://a.example.com"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != "early and late" {
			t.Errorf("%s: read %q, %v, want all of it", scheme, got, err)
		}
		if _, ok := c.(interface{ CloseWrite() error }); !ok {
			t.Errorf("%s: the end of a stream cannot be passed on", scheme)
		}
		c.Close()
	}
}

func closeWriteOf(c net.Conn) { _ = c.(interface{ CloseWrite() error }).CloseWrite() }

// A tunnel has no deadline left from its making, and a canceled dial ends at once.
func TestTunnelsAreNotCutByTheirMaking(t *testing.T) {
	stop := make(chan struct{})
	echo := testnet.RawUpstream(t, nil, func(c net.Conn) { _, _ = io.Copy(c, c) })
	p := testnet.NewConnectProxy(t, nil, "", func(string) string { return echo.Addr })
	d := mustDialer(t, DialOptions{Proxy: mustOutbound(t, "http://"+p.Addr)})
	ctx, cancel := context.WithCancel(t.Context())
	c, err := d.Dial(ctx, mustUpstream(t, "http://a.example.com"))
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Errorf("write after the dial's context ended: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("read after the dial's context ended: %v", err)
	}

	asked := make(chan struct{})
	silent := testnet.RawUpstream(t, nil, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		close(asked)
		<-stop
	})
	defer close(stop)
	d = mustDialer(t, DialOptions{Dial: time.Hour, Proxy: mustOutbound(t, "http://"+silent.Addr)})
	ctx, cancel = context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := d.Dial(ctx, mustUpstream(t, "http://a.example.com")); Classify(err) != CauseCanceled {
		t.Errorf("a canceled dial gives %v", err)
	}
}

// A name with several addresses is asked for one by one, as without a proxy; what is the
// proxy's own trouble is not.
func TestSOCKSTriesTheAddressesOfAName(t *testing.T) {
	srv := testnet.PlainUpstream(t, http.NotFoundHandler())
	p := testnet.NewSOCKSProxy(t, "", func(target string) string {
		if target == "192.0.2.3:80" {
			return srv.Addr
		}
		return ""
	})
	lookup := func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.3")}, nil
	}
	d := mustDialer(t, DialOptions{Lookup: lookup, Proxy: mustOutbound(t, "socks5://"+p.Addr)})
	c, err := d.Dial(t.Context(), mustUpstream(t, "http://a.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if got, want := p.Targets(), []string{"192.0.2.1:80", "[2001:db8::1]:80", "192.0.2.3:80"}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
}

func TestOutboundFromTheEnvironment(t *testing.T) {
	secure, plain := mustUpstream(t, "https://a.example.com"), mustUpstream(t, "http://a.example.com")
	for _, tc := range []struct {
		name          string
		env           map[string]string
		noProxy       []string
		secure, plain string
	}{
		{"nothing is set", nil, nil, "", ""},
		{"HTTPS_PROXY is for TLS alone", map[string]string{"HTTPS_PROXY": "http://p:1"}, nil, "p:1", ""},
		{"small letters and no scheme", map[string]string{"https_proxy": "p:1", "http_proxy": "q:2"}, nil, "p:1", "q:2"},
		{"ALL_PROXY fills what is missing", map[string]string{"HTTP_PROXY": "http://p:1", "all_proxy": "socks5h://s"}, nil, "s:1080", "p:1"},
		{"NO_PROXY", map[string]string{"ALL_PROXY": "http://p:1", "no_proxy": "b.example.com, .example.com,,"}, nil, "", ""},
		{"our own list", map[string]string{"ALL_PROXY": "http://p:1", "NO_PROXY": "b.example.com"}, []string{"a.example.com:80"}, "p:1", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, err := NewOutboundFromEnv(func(name string) string { return tc.env[name] }, tc.noProxy)
			if err != nil {
				t.Fatal(err)
			}
			if got := o.Through(secure); got != tc.secure {
				t.Errorf("with TLS through %q, want %q", got, tc.secure)
			}
			if got := o.Through(plain); got != tc.plain {
				t.Errorf("without TLS through %q, want %q", got, tc.plain)
			}
			if got := o.Through(mustUpstream(t, "https://127.0.0.1:1")); got != "" {
				t.Errorf("this host through %q", got)
			}
		})
	}
}

func TestNewOutboundRefusesNonsense(t *testing.T) {
	for _, s := range []string{
		"", "p:3128", "ftp://p", "http://", "http://p/path", "http://p?x", "http://u:hunter2#@p", "http://u:hunter2@p:0", "http://u:hunter2@p:x",
		"http://u:hunter2/x@p", "http://a%3Ahunter2:x@p", "socks5://:hunter2@p", "http://u:hunter2@a b", "http://[::1",
		"socks5://u:" + strings.Repeat("hunter2", 40) + "@p",
	} {
		_, err := NewOutbound(s, nil)
		if err == nil {
			t.Errorf("NewOutbound(%q): no error", s)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("NewOutbound(%q): the error %q holds the password", s, err)
		}
	}
	for _, s := range []string{"10.0.0.0/33", "a b", "a:0", "a:b", "https://a", "*a*"} {
		if _, err := NewOutbound("http://p", []string{s}); err == nil {
			t.Errorf("no_proxy %q: no error", s)
		}
	}
}

// The words of no_proxy mean what they mean in Go's own client, but for this host:
// whoever names a proxy gets it for loopback too.
func TestBypassAgreesWithTheLibrary(t *testing.T) {
	hosts := []string{"example.com", "a.example.com", "b.a.example.com", "badexample.com", "example.org", "192.0.2.7", "192.0.2.200", "198.51.100.1", "[2001:db8::7]", "[2001:db9::1]"}
	entries := []string{"example.com", ".example.com", "*.example.com", "EXAMPLE.com", "example.com:443", ".example.com:8443", "a.example.com", "192.0.2.7", "192.0.2.0/25",
		"192.0.2.7:443", "2001:db8::/32", "2001:db8::7", "[2001:db8::7]:443", "*", "com", " example.org "}
	for range 3000 {
		var list []string
		for range 1 + rand.N(3) {
			list = append(list, entries[rand.N(len(entries))])
		}
		host, port := hosts[rand.N(len(hosts))], []int{443, 8443}[rand.N(2)]
		o := mustOutbound(t, "http://p:1", list...)
		theirs, err := (&httpproxy.Config{HTTPSProxy: "http://p:1", NoProxy: strings.Join(list, ",")}).ProxyFunc()(&url.URL{Scheme: "https", Host: host + ":" + strconv.Itoa(port)})
		if err != nil {
			t.Fatal(err)
		}
		direct := o.Through(mustUpstream(t, "https://"+host+":"+strconv.Itoa(port))) == ""
		if want := theirs == nil; direct != want {
			t.Fatalf("no_proxy %q, %s:%d: direct %v, want %v", list, host, port, direct, want)
		}
	}
}

// TestRealProxies goes through programs that others wrote.
func TestRealProxies(t *testing.T) {
	ca := testnet.NewCA(t, "Example Root")
	srv := testnet.NewUpstream(t, ca.Issue(t, "127.0.0.1"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") }))
	get := func(t *testing.T, proxyURL string) (string, error) {
		t.Helper()
		client := NewClient(mustDialer(t, DialOptions{CAFile: ca.File(t), Proxy: mustOutbound(t, proxyURL)}))
		defer client.CloseIdle()
		u := mustUpstream(t, "https://"+srv.Addr)
		resp, err := client.RoundTrip(u, (&http.Request{Method: "GET", URL: u.URL("/"), Host: u.HostHeader(), Header: http.Header{}}).WithContext(t.Context()), nil)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	check := func(t *testing.T, scheme, addr string) {
		t.Helper()
		if body, err := get(t, scheme+"://corp:s3cret@"+addr); err != nil || body != "hello" {
			t.Errorf("with the login: %q, %v", body, err)
		}
		for _, login := range []string{"", "corp:wrong@"} {
			_, err := get(t, scheme+"://"+login+addr)
			if Classify(err) != CauseProxyAuth {
				t.Errorf("with the login %q: %v, want cause %s", login, err, CauseProxyAuth)
			}
		}
	}
	t.Run("tinyproxy", func(t *testing.T) {
		testnet.Need(t, "tinyproxy")
		addr := freeAddr(t)
		_, port, _ := net.SplitHostPort(addr)
		conf := filepath.Join(t.TempDir(), "tinyproxy.conf")
		text := fmt.Sprintf("Port %s\nListen 127.0.0.1\nTimeout 60\nMaxClients 10\nBasicAuth corp s3cret\n", port)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, addr, testnet.Program("tinyproxy"), "-d", "-c", conf)
		check(t, "http", addr)
	})
	t.Run("microsocks", func(t *testing.T) {
		testnet.Need(t, "microsocks")
		addr := freeAddr(t)
		_, port, _ := net.SplitHostPort(addr)
		run(t, addr, testnet.Program("microsocks"), "-i", "127.0.0.1", "-p", port, "-u", "corp", "-P", "s3cret")
		check(t, "socks5h", addr)
		check(t, "socks5", addr)
	})
}

func freeAddr(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", testnet.FreePort(t))
}

// run starts a program that ends with the test, and waits until it listens.
func run(t *testing.T, addr, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { defer close(exited); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
	})
	for range 6000 {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-exited:
			t.Fatalf("%s ended", program)
		case <-time.After(10 * time.Millisecond): // a foreign process tells nobody
		}
	}
	t.Fatalf("%s does not listen", program)
}
