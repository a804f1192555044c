package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/internal/testnet/pebble"
)

// site is a host that answers challenges for the Manager it has.
type site struct {
	tlsPort, httpPort int
	manager           atomic.Pointer[Manager]

	tlsAnswers, httpAnswers atomic.Int64 // challenges answered
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := new(site)
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		secure.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := secure.Accept()
			if err != nil {
				return
			}
			tc := tls.Server(c, &tls.Config{NextProtos: []string{Protocol}, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
				if cert := s.manager.Load().Certificate(h.ServerName); cert != nil {
					s.tlsAnswers.Add(1)
					return cert, nil
				}
				return nil, errors.New("no challenge")
			}})
			_ = tc.SetDeadline(time.Now().Add(5 * time.Second))
			_ = tc.Handshake()
			tc.Close()
		}
	})
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		s.manager.Load().ServeHTTP(answer, r)
		if answer.Code == http.StatusOK {
			s.httpAnswers.Add(1)
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}))
	t.Cleanup(plain.Close)
	s.tlsPort, s.httpPort = secure.Addr().(*net.TCPAddr).Port, plain.Listener.Addr().(*net.TCPAddr).Port
	return s
}

// running is a Manager that runs until the test ends.
type running struct {
	*Manager
	changed chan struct{}
	log     *testnet.LogBuffer
	stop    func()
}

func run(t *testing.T, s *site, o Options) *running {
	t.Helper()
	r := &running{changed: make(chan struct{}, 100), log: new(testnet.LogBuffer)}
	o.Changed = func() { r.changed <- struct{}{} }
	o.Log = slog.New(slog.NewTextHandler(r.log, nil))
	if o.Retry == nil {
		o.Retry = func(int) time.Duration { return time.Hour }
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.Manager = m
	s.manager.Store(m)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := m.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Logf("log:\n%s", r.log)
		}
	})
	return r
}

// issued waits for a certificate.
func (r *running) issued(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for {
		select {
		case <-r.changed:
			return
		case <-limit:
			t.Fatalf("no certificate within a minute: %+v", r.States())
		case <-tick.C:
			for _, s := range r.States() {
				if s.Failures > 0 && s.Next.After(time.Now().Add(time.Minute)) {
					t.Fatalf("no certificate: %+v", s)
				}
			}
		}
	}
}

// failure waits for the n-th failure in a row.
func (r *running) failure(t *testing.T, n int) State {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			t.Fatalf("no failure within a minute: %+v", r.States())
		case <-tick.C:
			if st := r.States()[0]; st.Failures >= n {
				return st
			}
		}
	}
}

// leaf returns the certificate in the files of a name, verified.
func (r *running) leaf(t *testing.T, name string, roots *x509.CertPool) *x509.Certificate {
	t.Helper()
	cert, key, ok := r.Files(name)
	if !ok {
		t.Fatalf("no usable files for %s", name)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	intermediates := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		intermediates.AddCert(c)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: intermediates}); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return pair.Leaf
}

func order(t *testing.T, s *site, ca *pebble.Server, names ...string) Order {
	return Order{Dir: filepath.Join(t.TempDir(), "acme"), Names: names, CA: ca.Directory, Roots: ca.Roots, Agreed: true, TLSPort: s.tlsPort}
}

func TestACertificateIsOrderedForEachName(t *testing.T) {
	for _, challenge := range []string{"tls-alpn-01", "http-01"} {
		t.Run(challenge, func(t *testing.T) {
			s := newSite(t)
			ca := pebble.Start(t, pebble.Options{TLSPort: s.tlsPort, HTTPPort: s.httpPort})
			o := order(t, s, ca, "proxy.example.com", "turn.example.com")
			if challenge == "http-01" {
				o.TLSPort, o.HTTPPort = 0, s.httpPort
			}
			r := run(t, s, Options{Order: o})
			r.issued(t)
			r.issued(t)
			roots := ca.Issuer(t)
			for _, name := range o.Names {
				r.leaf(t, name, roots)
				_, key, _ := r.Files(name)
				if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("key of %s: %v %v, want mode 0600", name, info, err)
				}
			}
			if tls, http := s.tlsAnswers.Load() > 0, s.httpAnswers.Load() > 0; tls != (challenge == "tls-alpn-01") || http != (challenge == "http-01") {
				t.Errorf("answered over TLS %v, over HTTP %v", tls, http)
			}
			// Another start orders nothing.
			r.stop()
			again := run(t, s, Options{Order: o})
			if again.Renew(); len(again.missing()) > 0 {
				t.Errorf("after a restart %v is missing", again.missing())
			}
		})
	}
}

func (r *running) missing() (names []string) {
	for _, s := range r.States() {
		if s.NotAfter.IsZero() {
			names = append(names, s.Name)
		}
	}
	return names
}

func TestACertificateIsRenewedInTime(t *testing.T) {
	s := newSite(t)
	// Pebble's renewal information may ask to wait until a twentieth of the life is left: two
	// seconds are enough for a machine that is busy.
	ca := pebble.Start(t, pebble.Options{TLSPort: s.tlsPort, Life: 45 * time.Second})
	r := run(t, s, Options{Order: order(t, s, ca, "proxy.example.com"), Interval: 50 * time.Millisecond})
	r.issued(t)
	first := r.leaf(t, "proxy.example.com", ca.Issuer(t))
	r.issued(t)
	second := r.leaf(t, "proxy.example.com", ca.Issuer(t))
	if first.SerialNumber.Cmp(second.SerialNumber) == 0 {
		t.Error("the same certificate twice")
	}
	if time.Now().After(first.NotAfter) {
		t.Error("renewed after the end of the one before")
	}
	if n := strings.Count(ca.Log(), "There are now 1 accounts"); strings.Count(ca.Log(), "There are now 2 accounts") > 0 {
		t.Errorf("a second account was made (%d)", n)
	}
}

func TestACAThatIsDownAndComesBack(t *testing.T) {
	s := newSite(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: s.tlsPort})
	ca.Stop(t)
	r := run(t, s, Options{Order: order(t, s, ca, "proxy.example.com"), Retry: func(int) time.Duration { return 20 * time.Millisecond }})
	st := r.failure(t, 2)
	if !strings.Contains(st.Error, "cannot be reached") || !strings.Contains(st.Error, "refused") || !strings.Contains(st.Fix, "open TCP") || st.Next.IsZero() {
		t.Errorf("state %+v, want the cause and what to do", st)
	}
	ca.Run(t)
	r.issued(t)
	r.leaf(t, "proxy.example.com", ca.Issuer(t))
	if st := r.States()[0]; st.Failures != 0 || st.Error != "" || st.NotAfter.IsZero() {
		t.Errorf("state after success %+v", st)
	}
	if log := r.log.String(); !strings.Contains(log, "certificate not issued, what is served stays") || !strings.Contains(log, "certificate issued") {
		t.Errorf("log:\n%s", log)
	}
}

func TestWhatTheCARefusesIsExplained(t *testing.T) {
	s := newSite(t)
	closed := newSite(t)
	for _, c := range []struct {
		name     string
		ca       pebble.Options
		order    func(*Order)
		err, fix string
	}{
		{"nobody answers", pebble.Options{TLSPort: 1}, nil, "the CA says", "must lead to this host"},
		{"another server answers", pebble.Options{TLSPort: closed.tlsPort}, nil, "the CA says", "must lead to this host"},
		{"a name that is blocked", pebble.Options{TLSPort: s.tlsPort, Blocked: []string{"proxy.example.com"}}, nil, "rejectedIdentifier", "issues no certificate for proxy.example.com"},
		{"no external account", pebble.Options{TLSPort: s.tlsPort, EAB: map[string]string{"kid": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}}, nil, "externalAccountRequired", "eab_key_id"},
		{"an authority that is not trusted", pebble.Options{TLSPort: s.tlsPort}, func(o *Order) { o.Roots = nil }, "is not trusted", "tls.acme.ca_root"},
		{"a name that does not resolve", pebble.Options{TLSPort: s.tlsPort}, func(o *Order) { o.CA = "https://acme.invalid/dir" }, "cannot be resolved", "DNS server"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ca := pebble.Start(t, c.ca)
			o := order(t, s, ca, "proxy.example.com")
			if c.order != nil {
				c.order(&o)
			}
			closed.manager.Store(&Manager{})
			st := run(t, s, Options{Order: o}).failure(t, 1)
			if !strings.Contains(st.Error, c.err) || !strings.Contains(st.Fix, c.fix) {
				t.Errorf("got %q; %q, want %q; %q", st.Error, st.Fix, c.err, c.fix)
			}
		})
	}
	t.Run("an external account", func(t *testing.T) {
		key := "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
		ca := pebble.Start(t, pebble.Options{TLSPort: s.tlsPort, EAB: map[string]string{"kid": key}})
		o := order(t, s, ca, "proxy.example.com")
		o.EABKeyID, o.EABKey, o.Email = "kid", key, "admin@example.com"
		run(t, s, Options{Order: o}).issued(t)
	})
}

// Half a pair, as a crash leaves it, is ordered again.
func TestBrokenFilesAreReplaced(t *testing.T) {
	s := newSite(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: s.tlsPort})
	o := order(t, s, ca, "proxy.example.com")
	r := run(t, s, Options{Order: o})
	r.issued(t)
	r.stop()
	for _, broken := range []func(cert, key string) error{
		func(cert, _ string) error { return os.WriteFile(cert, []byte("-----BEGIN CERT"), 0o600) },
		func(_, key string) error { return os.Truncate(key, 0) },
		func(_, key string) error { return os.Remove(key) },
	} {
		cert, key, ok := r.Files("proxy.example.com")
		if !ok {
			t.Fatal("no files")
		}
		if err := broken(cert, key); err != nil {
			t.Fatal(err)
		}
		r = run(t, s, Options{Order: o})
		r.issued(t)
		r.leaf(t, "proxy.example.com", ca.Issuer(t))
		r.stop()
	}
}

func TestOrdersThatCannotWork(t *testing.T) {
	good := Order{Dir: "x", Names: []string{"a.test"}, CA: "https://ca.test/dir", Agreed: true, TLSPort: 443}
	for name, change := range map[string]func(*Order){
		"terms not agreed to": func(o *Order) { o.Agreed = false },
		"no name":             func(o *Order) { o.Names = nil },
		"no CA":               func(o *Order) { o.CA = "" },
		"no challenge":        func(o *Order) { o.TLSPort = 0 },
		"roots that are none": func(o *Order) { o.Roots = []byte("x") },
	} {
		o := good
		change(&o)
		if _, err := New(Options{Order: o}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	m, err := New(Options{Order: good})
	if err != nil {
		t.Fatal(err)
	}
	other := good
	other.Names = []string{"b.test"}
	if !m.Serves(good) || m.Serves(other) {
		t.Error("Serves does not tell orders apart")
	}
}

func TestPlainHTTPTellsStrangersNothing(t *testing.T) {
	m, err := New(Options{Order: Order{Dir: t.TempDir(), Names: []string{"a.test"}, CA: "https://ca.test/dir", Agreed: true, TLSPort: 443, HTTPPort: 80}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, host, target string
		status               int
		location             string
	}{
		{"GET", "a.test", "/", 301, "https://a.test/"},
		{"GET", "A.TEST:80", "/ws/?userSig=%2Fx&y=a%20b", 301, "https://a.test/ws/?userSig=%2Fx&y=a%20b"},
		{"HEAD", "a.test", "//evil.test/%0d%0aX: y", 301, "https://a.test//evil.test/%0d%0aX: y"},
		{"POST", "a.test", "/logger/", 404, ""},
		{"GET", "evil.test", "/", 404, ""},
		{"GET", "a.test@evil.test", "/", 404, ""},
		{"GET", "", "/", 404, ""},
		{"GET", "a.test", "/.well-known/acme-challenge/token", 404, ""},
		{"GET", "evil.test", "/.well-known/acme-challenge/token", 404, ""},
	} {
		r := httptest.NewRequest(c.method, "/", nil)
		r.Host, r.RequestURI, r.URL.Path = c.host, c.target, strings.Split(c.target, "?")[0]
		w := httptest.NewRecorder()
		m.ServeHTTP(w, r)
		if got := w.Header().Get("Location"); w.Code != c.status || got != c.location {
			t.Errorf("%s %s %s: got %d %q, want %d %q", c.method, c.host, c.target, w.Code, got, c.status, c.location)
		}
	}
	if m.Certificate("a.test") != nil || m.Certificate("evil.test") != nil || m.Certificate("") != nil {
		t.Error("a certificate for a challenge that nobody set")
	}
}

func TestRetriesStayBelowTheLimitsOfCAs(t *testing.T) {
	var first time.Duration
	inFirstHour := 1
	for n := 1; ; n++ {
		if first += RetryAfter(n); first >= time.Hour {
			break
		}
		inFirstHour++
	}
	if inFirstHour > 5 {
		t.Errorf("%d attempts in the first hour, and Let's Encrypt allows five failures", inFirstHour)
	}
	if got := RetryAfter(1000); got != time.Hour {
		t.Errorf("after a thousand failures: %v, want an hour", got)
	}
}

func TestErrorsWithoutACA(t *testing.T) {
	o := Order{CA: "https://ca.test/dir", Dir: "/state/acme"}
	for want, err := range map[string]error{
		"writable":      fmt.Errorf("x: %w", os.ErrPermission),
		"tried again":   io.ErrUnexpectedEOF,
		"open TCP":      &net.OpError{Op: "dial", Err: errors.New("no route to host")},
		"open TCP from": context.DeadlineExceeded,
	} {
		if f := explain("a.test", o, err); !strings.Contains(f.Fix, want) || f.What == "" {
			t.Errorf("%v: got %+v, want %q", err, f, want)
		}
	}
}
