package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// binding is a STUN Binding request.
var binding = []byte("\x00\x01\x00\x00\x21\x12\xA4\x42transaction0")

// turnCall is one call of Options.TURN.
type turnCall struct {
	conn net.Conn
	info ConnInfo
}

// world is a Listener on loopback with one http.Server behind it.
type world struct {
	*Listener
	opts  Options
	ca    *testCA
	turn  chan turnCall
	stop  context.CancelFunc
	ended chan error // what Serve returned
}

// start serves opts on loopback (or on ln) until the test ends; change may
// adjust the options first.
func start(t *testing.T, ln net.Listener, change func(*Options)) *world {
	t.Helper()
	ca := newTestCA(t)
	certs, err := LoadCertificates([]Pair{ca.issue(t, "ecdsa", "edge.test")}, CertificateOptions{Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{ca: ca, turn: make(chan turnCall, 200), ended: make(chan error, 1)}
	w.opts = Options{
		Certificates: certs,
		HTTP:         true,
		TURN:         func(c net.Conn, info ConnInfo) { w.turn <- turnCall{c, info} },
		Metrics:      NewMetrics(),
		Caps:         NewCaps(DefaultCaps),
		Log:          discard,
	}
	if change != nil {
		change(&w.opts)
	}
	if ln == nil {
		w.Listener, err = Listen(t.Context(), "127.0.0.1:0", w.opts)
	} else {
		w.Listener, err = Wrap(ln, w.opts)
	}
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler:           http.HandlerFunc(describeRequest),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(discard.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			info, _ := infoOf(c)
			return context.WithValue(ctx, infoKey{}, info)
		},
	}
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { w.ended <- w.Serve(ctx) })
	wg.Go(func() { srv.Serve(w.HTTP()) })
	t.Cleanup(func() {
		w.stop()
		srv.Close()
		wg.Wait()
		close(w.turn)
		for call := range w.turn {
			call.conn.Close()
		}
	})
	return w
}

type infoKey struct{}

func describeRequest(rw http.ResponseWriter, r *http.Request) {
	info := r.Context().Value(infoKey{}).(ConnInfo)
	rw.Header().Set("X-Proto", r.Proto)
	rw.Header().Set("X-Remote", r.RemoteAddr)
	rw.Header().Set("X-Info-Remote", info.Remote.String())
	rw.Header().Set("X-Sni", info.ServerName)
	if r.TLS != nil {
		rw.Header().Set("X-Tls", tls.VersionName(r.TLS.Version))
	}
}

var discard = slog.New(slog.DiscardHandler)

func (w *world) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", w.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute)) // a hanging test shows its line
	return c
}

func (w *world) tlsConfig(protos ...string) *tls.Config {
	return &tls.Config{RootCAs: w.ca.pool, ServerName: "edge.test", NextProtos: protos}
}

func (w *world) dialTLS(t *testing.T, protos ...string) *tls.Conn {
	t.Helper()
	c := tls.Client(w.dial(t), w.tlsConfig(protos...))
	if err := c.Handshake(); err != nil {
		t.Fatalf("handshake with ALPN %q: %v", protos, err)
	}
	return c
}

func (w *world) nextTURN(t *testing.T) turnCall {
	t.Helper()
	select {
	case call := <-w.turn:
		t.Cleanup(func() { call.conn.Close() })
		return call
	case <-time.After(time.Minute):
		t.Fatal("no TURN connection arrived")
		panic("not reached")
	}
}

func (w *world) rejected(why reason) int {
	return int(value(w.settings.Load().counter.rejected[why]))
}

// value reads a counter or a gauge.
func value(m prometheus.Metric) float64 {
	var out dto.Metric
	m.Write(&out)
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

// settled waits until no connection is being sorted any more.
func (w *world) settled(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); w.opts.Caps.HalfOpen() != 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are still being sorted", w.opts.Caps.HalfOpen())
		}
		time.Sleep(time.Millisecond)
	}
}

// wantClosed reads c to its end and returns what came; the peer must close.
func wantClosed(t *testing.T, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection was not closed: %v", err)
	}
	return string(b)
}

// roundTrip sends one HTTP/1.1 request over c.
func roundTrip(t *testing.T, c net.Conn) *http.Response {
	t.Helper()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("response: %v", err)
	}
	res.Body.Close()
	return res
}

func TestTURNArrivesWhole(t *testing.T) {
	w := start(t, nil, nil)
	for _, c := range []struct {
		name, transport string
		dial            func() net.Conn
	}{
		{"plain TCP", "tcp", func() net.Conn { return w.dial(t) }},
		{"TLS with ALPN stun.turn", "tls", func() net.Conn { return w.dialTLS(t, "stun.turn") }},
		{"TLS with ALPN of http beside stun.turn", "tls", func() net.Conn { return w.dialTLS(t, "x", "stun.turn") }},
		{"TLS without ALPN", "tls", func() net.Conn { return w.dialTLS(t) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := c.dial()
			// In two pieces, cut inside the cookie.
			client.Write(binding[:6])
			client.Write(binding[6:])
			call := w.nextTURN(t)
			got := make([]byte, len(binding))
			if _, err := io.ReadFull(call.conn, got); err != nil || !bytes.Equal(got, binding) {
				t.Fatalf("TURN read %q (%v), want %q", got, err, binding)
			}
			if call.info.Transport != c.transport {
				t.Errorf("transport %q, want %q", call.info.Transport, c.transport)
			}
			if got, want := call.info.Remote.String(), client.LocalAddr().String(); got != want {
				t.Errorf("remote %s, want %s", got, want)
			}
			if got, want := call.info.Local.String(), w.Addr().String(); got != want {
				t.Errorf("local %s, want %s", got, want)
			}
			if _, err := call.conn.Write([]byte("answer")); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 6)
			if _, err := io.ReadFull(client, answer); err != nil || string(answer) != "answer" {
				t.Errorf("client read %q (%v), want the answer", answer, err)
			}
		})
	}
}

func TestOneHTTPServerSpeaksEveryVersion(t *testing.T) {
	w := start(t, nil, nil)
	t.Run("h2 by ALPN", func(t *testing.T) {
		tr := &http.Transport{TLSClientConfig: w.tlsConfig(), ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		res, err := (&http.Client{Transport: tr}).Get("https://" + w.Addr().String() + "/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("X-Proto"); got != "HTTP/2.0" {
			t.Errorf("proto %q, want HTTP/2.0", got)
		}
		if got, want := res.Header.Get("X-Info-Remote"), res.Header.Get("X-Remote"); got != want || got == "" {
			t.Errorf("the edge says client %q, net/http %q", got, want)
		}
	})
	for name, protos := range map[string][]string{
		"http/1.1 by ALPN":      {"http/1.1"},
		"http/1.1 without ALPN": nil,
	} {
		t.Run(name, func(t *testing.T) {
			res := roundTrip(t, w.dialTLS(t, protos...))
			for h, want := range map[string]string{"X-Proto": "HTTP/1.1", "X-Tls": "TLS 1.3", "X-Sni": "edge.test"} {
				if got := res.Header.Get(h); got != want {
					t.Errorf("%s: %q, want %q", h, got, want)
				}
			}
		})
	}
}

// A connection that is neither is closed at once, with an answer only for
// somebody who typed http://.
func TestWhatIsNotServedIsClosed(t *testing.T) {
	w := start(t, nil, nil)
	for _, c := range []struct {
		name, send, want string
		why              reason
	}{
		{"plain HTTP gets a 400", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 ", plainHTTP},
		{"plain HTTP with a body on the way gets a 400", "POST / HTTP/1.1\r\nContent-Length: 9000\r\n\r\n" + strings.Repeat("x", 9000), "HTTP/1.1 400 ", plainHTTP},
		{"plain HTTP/2 gets a 400", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 400 ", plainHTTP},
		{"an SSLv2 hello", "\x80\x2e\x01\x00\x02", "", notOurs},
		{"random bytes", "\xff\xfe\xfd", "", notOurs},
		{"STUN of RFC 3489, without cookie", "\x00\x01\x00\x00transaction01234", "", notOurs},
		{"ChannelData first", "\x40\x00\x00\x04data", "", notOurs},
		{"SSH", "SSH-2.0-x\r\n", "", notOurs},
		{"a PROXY header of version 1 from a stranger", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "", unlistedProxyHeader},
		{"a PROXY header of version 2 from a stranger", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", "", unlistedProxyHeader},
		{"a TLS record that is no handshake", "\x17\x03\x03\x00\x05hello", "", notOurs},
		{"TLS garbage gets an alert", "\x16\x03\x01\x00\x05hello", "\x15\x03", badHandshake},
		{"a huge TLS record gets an alert", "\x16\x03\x01\xff\xff\x01\x00", "\x15\x03", badHandshake},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := w.rejected(c.why)
			conn := w.dial(t)
			io.WriteString(conn, c.send)
			got := wantClosed(t, conn)
			if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
				t.Errorf("answer %.60q, want one that begins %q", got, c.want)
			}
			w.settled(t)
			if n := w.rejected(c.why) - before; n != 1 {
				t.Errorf("counted %d times as %q, want once", n, c.why)
			}
		})
	}
}

func TestUnknownALPNGetsTheAlert(t *testing.T) {
	w := start(t, nil, nil)
	err := tls.Client(w.dial(t), w.tlsConfig("evil/9")).Handshake()
	if err == nil || !strings.Contains(err.Error(), "no application protocol") {
		t.Errorf("handshake error %v, want no_application_protocol", err)
	}
}

func TestALPNPrefersH2(t *testing.T) {
	w := start(t, nil, nil)
	c := w.dialTLS(t, "stun.turn", "http/1.1", "h2")
	if got := c.ConnectionState().NegotiatedProtocol; got != "h2" {
		t.Errorf("chose %q, want h2", got)
	}
}

func TestTURNOnlyPort(t *testing.T) {
	w := start(t, nil, func(o *Options) { o.HTTP = false })
	c := w.dial(t)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := wantClosed(t, c); got != "" {
		t.Errorf("plain HTTP got %q, want silence", got)
	}
	secure := w.dialTLS(t)
	io.WriteString(secure, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := wantClosed(t, secure); got != "" {
		t.Errorf("HTTP inside TLS got %q, want silence", got)
	}
	if err := tls.Client(w.dial(t), w.tlsConfig("h2", "http/1.1")).Handshake(); err == nil {
		t.Error("a handshake for HTTP succeeded")
	}
	w.dialTLS(t).Write(binding)
	if got := w.nextTURN(t).info.Transport; got != "tls" {
		t.Errorf("transport %q, want tls", got)
	}
}

func TestPortWithoutTLS(t *testing.T) {
	w := start(t, nil, func(o *Options) { o.HTTP, o.Certificates = false, nil })
	if err := tls.Client(w.dial(t), w.tlsConfig()).Handshake(); err == nil {
		t.Error("a TLS handshake succeeded without a certificate")
	}
	w.dial(t).Write(binding)
	w.nextTURN(t)
}

func TestOnlyIntermediateTLS(t *testing.T) {
	w := start(t, nil, nil)
	allowed := map[uint16]bool{}
	for _, id := range ServerTLS(nil).CipherSuites {
		allowed[id] = true
	}
	try := func(conf *tls.Config) error {
		conf.RootCAs, conf.ServerName = w.ca.pool, "edge.test"
		return tls.Client(w.dial(t), conf).Handshake()
	}
	refused := 0
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if s.SupportedVersions[0] == tls.VersionTLS13 || allowed[s.ID] {
			continue
		}
		refused++
		if err := try(&tls.Config{CipherSuites: []uint16{s.ID}, MaxVersion: tls.VersionTLS12}); err == nil {
			t.Errorf("%s was accepted", s.Name)
		}
	}
	if refused < 10 {
		t.Errorf("only %d weak suites tried: this test has lost its teeth", refused)
	}
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		if err := try(&tls.Config{MinVersion: v, MaxVersion: v}); err == nil {
			t.Errorf("%s was accepted", tls.VersionName(v))
		}
	}
	if err := try(&tls.Config{MaxVersion: tls.VersionTLS12}); err != nil {
		t.Errorf("TLS 1.2 was refused: %v", err)
	}
}

// Tickets outlive an Update: a reload does not make every client handshake anew.
func TestUpdateKeepsTickets(t *testing.T) {
	w := start(t, nil, nil)
	conf := w.tlsConfig("http/1.1")
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	connect := func() bool {
		c := tls.Client(w.dial(t), conf)
		roundTrip(t, c) // the ticket comes after the handshake
		return c.ConnectionState().DidResume
	}
	connect()
	if err := w.Update(w.opts); err != nil {
		t.Fatal(err)
	}
	if !connect() {
		t.Error("the session was not resumed after Update")
	}
}

func TestUpdateHoldsForNewConnectionsOnly(t *testing.T) {
	w := start(t, nil, nil)
	old := w.dialTLS(t, "http/1.1")
	roundTrip(t, old)
	opts := w.opts
	opts.HTTP = false
	if err := w.Update(opts); err != nil {
		t.Fatal(err)
	}
	if err := tls.Client(w.dial(t), w.tlsConfig("http/1.1")).Handshake(); err == nil {
		t.Error("HTTP was still offered after Update took it away")
	}
	roundTrip(t, old)
	if err := w.Update(Options{}); err == nil {
		t.Error("Update took options that serve nothing")
	}
	w.dial(t).Write(binding)
	w.nextTURN(t)
}

// What was handed over outlives the listener; what was not is cut.
func TestEndOfServe(t *testing.T) {
	w := start(t, nil, nil)
	web := w.dialTLS(t, "http/1.1")
	roundTrip(t, web)
	relay := w.dial(t)
	relay.Write(binding)
	call := w.nextTURN(t)
	half := w.dial(t)
	half.Write(clientHello(t)[:20])
	for w.opts.Caps.HalfOpen() != 1 {
		time.Sleep(time.Millisecond)
	}

	w.stop()
	if err := <-w.ended; err != nil {
		t.Errorf("Serve returned %v, want nil", err)
	}
	wantClosed(t, half)
	if n := w.rejected(shuttingDown); n != 1 {
		t.Errorf("%d connections counted as cut, want 1", n)
	}
	roundTrip(t, web)
	call.conn.Write([]byte("still here"))
	if _, err := io.ReadFull(relay, make([]byte, 10)); err != nil {
		t.Errorf("the TURN connection did not survive: %v", err)
	}
	if _, err := net.Dial("tcp", w.Addr().String()); err == nil {
		t.Error("the address still accepts")
	}
	if _, err := w.HTTP().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("HTTP().Accept after the end: %v, want net.ErrClosed", err)
	}
}

// http.Server.Shutdown closes the HTTP side; TURN goes on (a drain).
func TestClosingHTTPLeavesTURN(t *testing.T) {
	w := start(t, nil, nil)
	w.HTTP().Close()
	wantClosed(t, w.dialTLS(t, "http/1.1"))
	w.settled(t)
	if n := w.rejected(nobodyTakes); n != 1 {
		t.Errorf("%d connections counted as not served, want 1", n)
	}
	w.dial(t).Write(binding)
	w.nextTURN(t)
}

func TestCapsPerSource(t *testing.T) {
	w := start(t, nil, func(o *Options) { o.Caps = NewCaps(CapNumbers{ConnsPerSource: 2}) })
	first := w.dialTLS(t, "http/1.1")
	roundTrip(t, first)
	w.dial(t).Write(binding)
	call := w.nextTURN(t)

	wantClosed(t, w.dial(t))
	if n := w.rejected(tooManyConnsOfSource); n != 1 {
		t.Errorf("%d connections counted over the cap, want 1", n)
	}
	// A place that becomes free, by either side, is taken again.
	call.conn.Close()
	again := w.dialTLS(t, "http/1.1")
	roundTrip(t, again)
	first.Close()
	for w.opts.Caps.Open() != 1 { // the server's side of first
		time.Sleep(time.Millisecond)
	}
	roundTrip(t, w.dialTLS(t, "http/1.1"))
	// Lifted while running.
	w.opts.Caps.Set(CapNumbers{})
	roundTrip(t, w.dialTLS(t, "http/1.1"))
}

func TestCapInAll(t *testing.T) {
	w := start(t, nil, func(o *Options) { o.Caps = NewCaps(CapNumbers{Conns: 1}) })
	roundTrip(t, w.dialTLS(t, "http/1.1"))
	wantClosed(t, w.dial(t))
	if n := w.rejected(tooManyConns); n != 1 {
		t.Errorf("%d connections counted over the cap, want 1", n)
	}
}

// 400 handshakes back to back: all slots come back.
func TestNothingIsLeftHeld(t *testing.T) {
	w := start(t, nil, nil)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 50 {
				c, err := net.Dial("tcp", w.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				switch (g + i) % 3 {
				case 0:
					tls.Client(c, w.tlsConfig("http/1.1")).Handshake()
				case 1:
					c.Write([]byte("\x16\x03"))
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	last := w.dialTLS(t, "http/1.1")
	roundTrip(t, last) // all before it have been accepted
	last.Close()
	m := w.settings.Load().counter
	held := func() (all []string) {
		if n := w.opts.Caps.Open(); n != 0 {
			all = append(all, fmt.Sprintf("%d connections", n))
		}
		if got := value(m.halfOpen); got != 0 {
			all = append(all, fmt.Sprintf("half-open gauge %v", got))
		}
		for k, g := range m.open {
			if got := value(g); got != 0 {
				all = append(all, fmt.Sprintf("open %s gauge %v", k, got))
			}
		}
		if keys := w.opts.Caps.connsBySource.Keys(); keys != 0 {
			all = append(all, fmt.Sprintf("%d sources remembered", keys))
		}
		return all
	}
	for end := time.Now().Add(time.Minute); held() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still held: %q", held())
		}
	}
}

// failingListener fails its first accepts the way a process without
// descriptors does.
type failingListener struct {
	net.Listener
	failures int
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", errNoDescriptors)}
	}
	return l.Listener.Accept()
}

var errNoDescriptors = errors.New("too many open files")

func TestAcceptSurvivesErrors(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	w := start(t, &failingListener{ln, 3}, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	roundTrip(t, w.dialTLS(t, "http/1.1"))
	if got := value(w.settings.Load().counter.acceptErrors); got != 3 {
		t.Errorf("%v accept errors counted, want 3", got)
	}
	w.stop()
	<-w.ended
	if got := strings.Count(log.String(), "\n"); got != 2 {
		t.Errorf("%d log lines, want one for the pause and one for its end:\n%s", got, log.String())
	}
}

func TestPanicEndsOneConnectionOnly(t *testing.T) {
	w := start(t, nil, nil)
	bad := w.opts
	bad.Certificates = new(Certificates) // serves nothing: a nil dereference in the handshake
	if err := w.Update(bad); err != nil {
		t.Fatal(err)
	}
	if err := tls.Client(w.dial(t), w.tlsConfig()).Handshake(); err == nil {
		t.Fatal("the handshake succeeded: this test has lost its cause")
	}
	if n := w.rejected(panicked); n != 1 {
		t.Errorf("%d panics counted, want 1", n)
	}
	if err := w.Update(w.opts); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, w.dialTLS(t, "http/1.1"))
}

func TestOptionsThatCannotWork(t *testing.T) {
	for name, o := range map[string]Options{
		"HTTP without a certificate": {HTTP: true},
		"nothing to serve":           {},
		"an invalid proxy prefix":    {TURN: func(net.Conn, ConnInfo) {}, ProxyFrom: make([]netip.Prefix, 1)},
	} {
		if _, err := Listen(t.Context(), "127.0.0.1:0", o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A listener for both families shows an IPv4 client as IPv4: limits, logs and
// X-Forwarded-For must not see two forms of one address.
func TestIPv4ClientOfADualStackListener(t *testing.T) {
	ln, err := listenTCP(t.Context(), ":0")
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, ln, nil)
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(binding)
	info := w.nextTURN(t).info
	if want := c.LocalAddr().String(); info.Remote.String() != want {
		t.Errorf("client %s, want %s", info.Remote, want)
	}
	if got := info.Local.Addr().String(); got != "127.0.0.1" {
		t.Errorf("local address %s, want 127.0.0.1", got)
	}
}

// infoOf returns what the edge knows about a connection that it handed over.
func infoOf(nc net.Conn) (ConnInfo, bool) {
	if over, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = over.NetConn()
	}
	c, ok := nc.(*conn)
	if !ok {
		return ConnInfo{}, false
	}
	return c.info, true
}
