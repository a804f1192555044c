// Package pebble runs Let's Encrypt's ACME server for tests, Pebble, which
// does everything that the real one does and validates on ports that a test
// chooses.
package pebble

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/turngate/turngate/internal/testnet"
)

// Options say what a Server does.
type Options struct {
	TLSPort, HTTPPort int               // where challenges are validated
	Life              time.Duration     // of certificates; 0: 90 days
	EAB               map[string]string // external accounts that it requires: id and key
	Blocked           []string          // names that it refuses
}

// Server is an ACME server on loopback. Every DNS name has the address
// 127.0.0.1 for it.
type Server struct {
	Directory string // URL
	Roots     []byte // PEM: whom its own certificate can be verified with
	RootFile  string // the same in a file

	config     string
	dns        string
	management string
	client     *http.Client
	cmd        *exec.Cmd
	output     *testnet.LogBuffer
}

// Start runs a Server until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	testnet.Need(t, "pebble")
	ca := testnet.NewCA(t, "authority of the ACME server")
	dir := t.TempDir()
	cert, key := writePair(t, dir, ca.Issue(t, "localhost"))
	s := &Server{
		Roots: ca.PEM, RootFile: filepath.Join(dir, "root.pem"), config: filepath.Join(dir, "pebble.json"),
		dns: serveDNS(t), output: new(testnet.LogBuffer),
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM)
	s.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	api, management := testnet.FreePort(t), testnet.FreePort(t)
	s.Directory = fmt.Sprintf("https://localhost:%d/dir", api)
	s.management = fmt.Sprintf("https://localhost:%d", management)
	life := o.Life
	if life == 0 {
		life = 90 * 24 * time.Hour
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress":           fmt.Sprintf("127.0.0.1:%d", api),
		"managementListenAddress": fmt.Sprintf("127.0.0.1:%d", management),
		"certificate":             cert, "privateKey": key,
		"httpPort": o.HTTPPort, "tlsPort": o.TLSPort,
		"externalAccountBindingRequired": o.EAB != nil,
		"externalAccountMACKeys":         o.EAB,
		"domainBlocklist":                o.Blocked,
		"keyAlgorithm":                   "ecdsa",
		"retryAfter":                     map[string]int{"authz": 1, "order": 1},
		"profiles":                       map[string]any{"default": map[string]any{"description": "test", "validityPeriod": int(life.Seconds())}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{s.config: config, s.RootFile: ca.PEM} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.Run(t)
	t.Cleanup(func() {
		s.Stop(t)
		if t.Failed() {
			t.Logf("pebble:\n%s", s.output)
		}
	})
	return s
}

// Run starts the program again after Stop. It remembers no account.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	s.cmd = exec.Command(testnet.Program("pebble"), "-config", s.config, "-dnsserver", s.dns)
	s.cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_CHAIN_LENGTH=1")
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for { // it answers a moment after its start
		if _, err := s.get(ctx, s.Directory); err == nil {
			return
		} else if ctx.Err() != nil {
			t.Fatalf("pebble does not answer: %v\n%s", err, s.output)
		}
	}
}

// Stop ends the program.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Issuer returns whom certificates of this run can be verified with.
func (s *Server) Issuer(t testing.TB) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if b := s.IssuerPEM(t); !pool.AppendCertsFromPEM(b) {
		t.Fatalf("no root in %q", b)
	}
	return pool
}

// IssuerPEM is the same as a file has it.
func (s *Server) IssuerPEM(t testing.TB) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b, err := s.get(ctx, s.management+"/roots/0")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Log is what the program wrote.
func (s *Server) Log() string { return s.output.String() }

func (s *Server) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

// serveDNS answers every question for an address with 127.0.0.1, over TCP, as
// Pebble asks.
func serveDNS(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				for answer(c) == nil {
				}
			})
		}
	})
	return l.Addr().String()
}

// answer reads one question and answers it.
func answer(c net.Conn) error {
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return err
	}
	question := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, question); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return err
	}
	reply := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
	for _, q := range m.Questions {
		if q.Type == dnsmessage.TypeA {
			reply.Answers = append(reply.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			})
		}
	}
	b, err := reply.Pack()
	if err != nil {
		return err
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

func writePair(t testing.TB, dir string, c tls.Certificate) (cert, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var chain bytes.Buffer
	for _, b := range c.Certificate {
		_ = pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: b})
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, content := range map[string][]byte{
		cert: chain.Bytes(), key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
