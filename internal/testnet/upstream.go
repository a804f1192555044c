package testnet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A CA signs certificates for fake servers of one test.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	PEM  []byte
}

// NewCA makes an authority with the given common name.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &CA{cert: cert, key: key, PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// File writes the authority's certificate to a file of the test and returns its path.
func (ca *CA) File(t testing.TB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(name, ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Issue signs a server certificate for the names, valid for a day.
func (ca *CA) Issue(t testing.TB, names ...string) tls.Certificate {
	t.Helper()
	return ca.IssueUntil(t, time.Now().Add(24*time.Hour), names...)
}

// IssueUntil signs a server certificate that ends at a time, possibly in the past.
func (ca *CA) IssueUntil(t testing.TB, notAfter time.Time, names ...string) tls.Certificate {
	t.Helper()
	return ca.IssueBetween(t, earlier(notAfter.Add(-48*time.Hour), time.Now().Add(-time.Hour)), notAfter, names...)
}

// IssueBetween signs a server certificate that begins and ends at a time.
func (ca *CA) IssueBetween(t testing.TB, notBefore, notAfter time.Time, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "fake upstream"},
		NotBefore:    notBefore,
		NotAfter:     notAfter,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: key}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// An Upstream is a fake server behind a proxy under test, with TLS unless made
// by [PlainUpstream]. It counts what reached it.
type Upstream struct {
	Addr string // ip:port of loopback

	Conns    atomic.Int64 // TCP connections accepted
	Requests atomic.Int64 // HTTP requests read (handler upstreams only)

	cert    atomic.Pointer[tls.Certificate]
	version atomic.Uint32 // of TLS, the highest; zero: Go's
	mu      sync.Mutex
	names   []string // SNI in order
	open    map[net.Conn]bool
}

// SetCertificate changes the certificate for new connections.
func (u *Upstream) SetCertificate(c tls.Certificate) { u.cert.Store(&c) }

// SetVersion changes the highest version of TLS for new connections.
func (u *Upstream) SetVersion(v uint16) { u.version.Store(uint32(v)) }

// Port returns the port of Addr.
func (u *Upstream) Port() string {
	_, p, _ := net.SplitHostPort(u.Addr)
	return p
}

// ServerNames returns the SNI values seen, in order.
func (u *Upstream) ServerNames() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.names...)
}

// CloseConnections resets every open TCP connection.
func (u *Upstream) CloseConnections() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.open {
		if tc, ok := c.(*net.TCPConn); ok {
			_ = tc.SetLinger(0)
		}
		c.Close()
	}
}

// NewUpstream serves h over TLS (HTTP/1.1 and h2) until the test ends.
func NewUpstream(t testing.TB, cert tls.Certificate, h http.Handler) *Upstream {
	t.Helper()
	u := &Upstream{}
	ln := u.listen(t)
	u.SetCertificate(cert)
	srv := u.server(h)
	srv.TLSConfig = u.tlsConfig("h2", "http/1.1")
	u.run(t, func() { _ = srv.ServeTLS(ln, "", "") }, srv.Close)
	return u
}

// PlainUpstream serves h over plain HTTP/1.1 until the test ends.
func PlainUpstream(t testing.TB, h http.Handler) *Upstream {
	t.Helper()
	u := &Upstream{}
	ln := u.listen(t)
	srv := u.server(h)
	u.run(t, func() { _ = srv.Serve(ln) }, srv.Close)
	return u
}

// RawUpstream runs handle on each accepted connection, behind TLS when cert is
// not nil, and closes it afterwards. The test ends only after every handler did; their
// connections are closed under them.
func RawUpstream(t testing.TB, cert *tls.Certificate, handle func(net.Conn)) *Upstream {
	t.Helper()
	u := &Upstream{}
	ln := u.listen(t)
	if cert != nil {
		u.SetCertificate(*cert)
		ln = tls.NewListener(ln, u.tlsConfig("http/1.1"))
	}
	var wg sync.WaitGroup
	u.run(t, func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				break
			}
			wg.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
		wg.Wait()
	}, ln.Close)
	return u
}

func (u *Upstream) server(h http.Handler) *http.Server {
	return &http.Server{
		ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u.Requests.Add(1)
			h.ServeHTTP(w, r)
		}),
	}
}

func (u *Upstream) tlsConfig(protos ...string) *tls.Config {
	config := &tls.Config{
		NextProtos: protos,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			u.mu.Lock()
			u.names = append(u.names, h.ServerName)
			u.mu.Unlock()
			return u.cert.Load(), nil
		},
	}
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		v := u.version.Load()
		if v == 0 {
			return nil, nil
		}
		c := config.Clone()
		c.MaxVersion = uint16(v)
		return c, nil
	}
	return config
}

func (u *Upstream) listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.Addr = ln.Addr().String()
	u.open = make(map[net.Conn]bool)
	return &countingListener{ln, u}
}

func (u *Upstream) run(t testing.TB, serve func(), stop func() error) {
	done := make(chan struct{})
	go func() { defer close(done); serve() }()
	t.Cleanup(func() {
		_ = stop()
		u.CloseConnections()
		<-done
	})
}

type countingListener struct {
	net.Listener
	u *Upstream
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.u.Conns.Add(1)
	l.u.mu.Lock()
	l.u.open[c] = true
	l.u.mu.Unlock()
	return &countedConn{c.(*net.TCPConn), l.u}, nil
}

type countedConn struct {
	*net.TCPConn
	u *Upstream
}

func (c *countedConn) Close() error {
	c.u.mu.Lock()
	delete(c.u.open, c.TCPConn)
	c.u.mu.Unlock()
	return c.TCPConn.Close()
}

// AcceptKey returns the Sec-WebSocket-Accept value for a key (RFC 6455 section 4.2.2).
func AcceptKey(key string) string {
	h := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(h[:])
}
