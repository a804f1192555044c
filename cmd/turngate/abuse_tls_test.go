package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TLS 1.2 and 1.3 with forward secrecy and AEAD are spoken, nothing else.
func TestTLSPolicy(t *testing.T) {
	tg := attacked(t, "", "")
	dial := func(change func(c *tls.Config)) error {
		cfg := tg.tls.Clone()
		cfg.NextProtos = []string{"http/1.1"}
		change(cfg)
		c, err := tls.Dial("tcp", tg.addr.String(), cfg)
		if err == nil {
			c.Close()
		}
		return err
	}
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		err := dial(func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version })
		if (err == nil) != ok {
			t.Errorf("%s: got %v, want success %v", tls.VersionName(version), err, ok)
		}
	}
	good := 0
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if suite.SupportedVersions[0] == tls.VersionTLS13 {
			continue
		}
		modern := strings.Contains(suite.Name, "ECDHE") && (strings.Contains(suite.Name, "GCM") || strings.Contains(suite.Name, "POLY1305"))
		err := dial(func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{suite.ID} })
		if err == nil && !modern {
			t.Errorf("%s is spoken", suite.Name)
		}
		if err == nil {
			good++
		}
	}
	if good < 3 {
		t.Errorf("%d good suites are spoken, want the three for the key of the certificate", good)
	}
	err := dial(func(c *tls.Config) { c.NextProtos = []string{"evil/9"} })
	if err == nil || !strings.Contains(err.Error(), "no application protocol") {
		t.Errorf("unknown ALPN: got %v, want the alert no_application_protocol", err)
	}
	tg.control(t)
}

// Every answer of a route, whether it is ours or an upstream's that says otherwise, tells
// browsers to come by HTTPS only.
func TestEveryAnswerSaysHTTPSOnly(t *testing.T) {
	tg := attacked(t, "", "")
	tg.answerWith(t, func(c net.Conn, e *forwarded) bool {
		io.WriteString(c, "HTTP/1.1 403 No\r\nStrict-Transport-Security: max-age=0\r\nContent-Length: 0\r\n\r\n")
		return true
	})
	requests := allPaths()
	for _, line := range []string{"GET /healthz", "GET /nowhere", "GET /ws/", "GET /logger/%2e%2e", "TRACE /logger/", "GET /schedule/x"} {
		requests[line] = line + " HTTP/1.1\r\nHost: localhost\r\n\r\n"
	}
	requests["a report too large"] = "POST /logger/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
	for what, request := range requests {
		a := tg.dial(t)
		a.send(request)
		status, h, _ := a.response()
		if got := h["Strict-Transport-Security"]; len(got) != 1 || got[0] != "max-age=63072000" {
			t.Errorf("%s: %d with %q, want our own two years", what, status, got)
		}
	}
	tg.blameless(t)
}

// Whatever comes instead of a ClientHello is closed or refused soon, and told
// nothing of the inside.
func TestFirstBytes(t *testing.T) {
	tg := attacked(t, "handshake_timeout = \"4s\"", "")
	var wg sync.WaitGroup
	for _, row := range []struct{ name, bytes, want string }{
		{"plain HTTP", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 400 "},
		{"plain HTTP to the upstream", "POST /logger/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 400 "},
		{"a plain WebSocket", upgradeRequest("/ws/"), "HTTP/1.1 400 "},
		{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 400 "},
		{"an endless plain head", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 1<<20), "HTTP/1.1 400 "},
		{"CONNECT", "CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"garbage", "\xde\xad\xbe\xef\xde\xad\xbe\xef", ""},
		{"NULs", strings.Repeat("\x00", 100), ""},
		{"SSLv2", "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80\x02\x00\x80\x03\x00\x80", ""},
		{"SSLv3", "\x16\x03\x00\x00\x2d\x01\x00\x00\x29\x03\x00" + strings.Repeat("r", 32) + "\x00\x00\x02\x00\x0a\x01\x00", ""},
		{"a record of 64 KiB", "\x16\x03\x01\xff\xff" + strings.Repeat("x", 70000), ""},
		{"an empty record", "\x16\x03\x01\x00\x00", ""},
		{"empty records", strings.Repeat("\x16\x03\x01\x00\x00", 1000), ""},
		{"an alert first", "\x15\x03\x01\x00\x02\x02\x28", ""},
		{"application data first", "\x17\x03\x03\x00\x05hello", ""},
		{"a ServerHello first", "\x16\x03\x03\x00\x04\x02\x00\x00\x00", ""},
		{"a ClientHello of 16 MiB", "\x16\x03\x01\x40\x00\x01\xff\xff\xff" + strings.Repeat("x", 70000), ""},
		{"SSH", "SSH-2.0-OpenSSH_9.6\r\n", ""},
		{"SMTP", "EHLO localhost\r\n", "HTTP/1.1 400 "},
		{"a PROXY header of nobody's", "PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\nGET / HTTP/1.1\r\n\r\n", ""},
		{"a PROXY header 2 of nobody's", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + strings.Repeat("\x01", 12), ""},
		{"STUN without cookie", "\x00\x01\x00\x00\x00\x00\x00\x00" + strings.Repeat("\x00", 12), ""},
	} {
		wg.Go(func() {
			c, err := net.Dial("tcp", tg.addr.String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Minute))
			go io.WriteString(c, row.bytes)
			got, err := io.ReadAll(c)
			if isTimeout(err) {
				t.Errorf("%s: still open after a minute", row.name)
			}
			if row.want == "" && strings.Contains(string(got), "HTTP") || !strings.HasPrefix(string(got), row.want) {
				t.Errorf("%s: got %q, want %q", row.name, got, row.want)
			}
		})
	}
	tg.control(t)
	wg.Wait()
	tg.control(t)
	tg.blameless(t)
}

// Handshakes back to back shut nobody out and leave nothing behind.
func TestHandshakeFlood(t *testing.T) {
	tg := attacked(t, "", "")
	tg.costs(t, 16<<10, 8<<10, func(held func()) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 100 {
					if c, err := tg.tryDial(); err == nil {
						c.NetConn().Close()
					}
				}
			})
		}
		tg.control(t)
		wg.Wait()
	})
	// The same without looking at what the server says.
	tg.costs(t, 24<<10, 8<<10, func(held func()) {
		var open []net.Conn
		for range 300 {
			nc, err := net.Dial("tcp", tg.addr.String())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(nc, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+strings.Repeat("r", 32))
			open = append(open, nc)
		}
		tg.control(t)
		held()
		for _, nc := range open {
			nc.Close()
		}
	})
}

// A new certificate is served after a reload, a broken one never; an open
// WebSocket notices neither.
func TestCertificateReload(t *testing.T) {
	rec := newRecorder(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(c tls.Certificate) {
		t.Helper()
		key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		var chain []byte
		for _, der := range c.Certificate {
			chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		for name, content := range map[string][]byte{certFile: chain, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})} {
			if err := os.WriteFile(name, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(rec.ca.Issue(t, "localhost", "first.test"))
	g := startGateWith(t, "", "", fmt.Sprintf("\n[tls]\ncert = %q\nkey = %q\n", certFile, keyFile)+rec.config(t, rec.Addr))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(rec.ca.PEM)
	tg := &target{gate: g, recorder: rec, addr: g.https, tls: &tls.Config{RootCAs: roots, ServerName: "localhost"}}
	served := func() string {
		t.Helper()
		a := tg.dial(t)
		defer a.NetConn().Close()
		return strings.Join(a.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].DNSNames, " ")
	}
	ws := tg.upgrade(t, "/ws/")
	step := func(what, want string) {
		t.Helper()
		if got := served(); got != want {
			t.Errorf("%s: served %q, want %q", what, got, want)
		}
		if !ws.echoes("still here") {
			t.Fatalf("%s: the WebSocket is gone", what)
		}
	}
	step("at the start", "localhost first.test")

	write(rec.ca.Issue(t, "localhost", "second.test"))
	if _, err := tg.reload(); err != nil {
		t.Errorf("reload: %v", err)
	}
	step("after a reload", "localhost second.test")

	for name, broken := range map[string]func(){
		"garbage": func() { os.WriteFile(certFile, []byte("-----BEGIN CERTIFICATE-----\ngarbage"), 0o600) },
		"nothing": func() { os.WriteFile(certFile, nil, 0o600) },
		"no file": func() { os.Remove(certFile) },
		"another key": func() {
			write(rec.ca.Issue(t, "localhost", "third.test"))
			key, _ := os.ReadFile(keyFile)
			write(rec.ca.Issue(t, "localhost", "fourth.test"))
			os.WriteFile(keyFile, key, 0o600)
		},
	} {
		broken()
		if _, err := tg.reload(); err == nil {
			t.Errorf("%s: the reload succeeded", name)
		}
		step("after a reload of "+name, "localhost second.test")
	}
	write(rec.ca.Issue(t, "localhost", "fifth.test"))
	if _, err := tg.reload(); err != nil {
		t.Errorf("reload: %v", err)
	}
	step("after the last reload", "localhost fifth.test")
	tg.control(t)
	tg.blameless(t)
}
