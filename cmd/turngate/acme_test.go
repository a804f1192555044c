package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/internal/testnet/pebble"
)

// serves waits until the gate shows a certificate for name that roots accept.
func (tg *target) serves(t *testing.T, name string, roots *x509.CertPool) *x509.Certificate {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		c, err := tls.Dial("tcp", tg.https.String(), &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{"http/1.1"}})
		if err == nil {
			defer c.Close()
			return c.ConnectionState().PeerCertificates[0]
		}
		last = err
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v; log:\n%s", name, last, tg.logs)
		case <-tick.C:
		}
	}
}

// A reload turns ordering on and off; the certificate comes through the port
// that everything else uses, and an open WebSocket notices nothing.
func TestACMEOverReloads(t *testing.T) {
	tg := attacked(t, "", "")
	plainPort := testnet.FreePort(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: int(tg.https.Port()), HTTPPort: int(plainPort)})
	selfSigned := tg.tls.RootCAs
	ws := tg.upgrade(t, "/ws/")
	rest := tg.recorder.config(t, tg.recorder.Addr)
	reload := func(table string) {
		t.Helper()
		tg.writeConfig(t, "", "", table+rest)
		if _, err := tg.reload(); err != nil {
			t.Fatal(err)
		}
		if !ws.echoes("still here") {
			t.Fatal("the WebSocket is gone")
		}
	}
	ordering := fmt.Sprintf(`
[tls]
mode = "acme"
[tls.acme]
terms_agreed = true
ca = %q
ca_root = %q
names = ["proxy.example.com", "turn.example.com"]
challenges = ["tls-alpn-01", "http-01"]
http_listen = "127.0.0.1:%d"
`, ca.Directory, ca.RootFile, plainPort)

	reload(ordering)
	if tg.logs.line("a self-signed certificate is served until one is issued") == "" {
		t.Error("the log does not say what is served meanwhile")
	}
	roots := ca.Issuer(t)
	first := tg.serves(t, "proxy.example.com", roots)
	tg.serves(t, "turn.example.com", roots)
	if got := tg.status().Certificates; len(got) != 2 {
		t.Errorf("%d certificates are served, want those of the two names and no other", len(got))
	}
	if code, out, _ := tg.command(t, "status"); code != 0 || strings.Count(out, "example.com, 8") != 2 {
		t.Errorf("status:\n%s", out)
	}

	t.Run("plain HTTP", func(t *testing.T) {
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		for host, want := range map[string]string{"proxy.example.com": fmt.Sprintf("301 https://proxy.example.com:%d/x?y=%%20", tg.https.Port()), "evil.example.com": "404 "} {
			req, _ := http.NewRequest("GET", fmt.Sprintf("http://127.0.0.1:%d/x?y=%%20", plainPort), nil)
			req.Host = host
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if got := fmt.Sprint(res.StatusCode, " ", res.Header.Get("Location")); got != want {
				t.Errorf("%s: got %q, want %q", host, got, want)
			}
		}
		// Whoever opens connections and says nothing shuts nobody else out for long.
		var open []net.Conn
		for range 3 * plainConnsPerSource {
			if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", plainPort)); err == nil {
				defer c.Close()
				open = append(open, c)
			}
		}
		all, want := len(open), 2*plainConnsPerSource
		for range 3 { // a machine that stops for a moment lets a read be too late
			open = slices.DeleteFunc(open, func(c net.Conn) bool {
				_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
				_, err := c.Read(make([]byte, 1))
				return err != nil && !isTimeout(err)
			})
			if all-len(open) >= want {
				break
			}
		}
		if closed := all - len(open); closed < want {
			t.Errorf("%d of %d silent connections were closed at once, want %d", closed, all, want)
		}
	})
	t.Run("nobody gets a challenge certificate without a challenge", func(t *testing.T) {
		for _, name := range []string{"proxy.example.com", "evil.example.com", ""} {
			c, err := tls.Dial("tcp", tg.https.String(), &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"acme-tls/1"}})
			if err == nil {
				c.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "no application protocol") {
				t.Errorf("%q: got %v, want the alert no_application_protocol", name, err)
			}
		}
	})

	reload("\n[tls]\nmode = \"self-signed\"\n")
	tg.serves(t, "localhost", selfSigned)
	eventually(t, func() string {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", plainPort)); err == nil {
			c.Close()
			return "the plain HTTP listener is still open"
		}
		return ""
	})
	reload(ordering)
	if again := tg.serves(t, "proxy.example.com", roots); again.SerialNumber.Cmp(first.SerialNumber) != 0 {
		t.Error("another certificate was ordered though there was one")
	}
	tg.blameless(t)
}

// A start without the CA serves what there is, and the certificate comes when
// the CA does.
func TestACMEStartsWithoutTheCA(t *testing.T) {
	rec := newRecorder(t)
	g := startGateWith(t, "", "", `
[tls]
mode = "acme"
[tls.acme]
terms_agreed = true
ca = "https://127.0.0.1:1/dir"
names = ["proxy.example.com"]
`+rec.config(t, rec.Addr))
	status, _, _ := g.get(t, "/healthz")
	if status != 200 {
		t.Errorf("got %d while there is no certificate, want 200", status)
	}
	for g.logs.line("certificate not issued") == "" {
		select {
		case <-deadline(t).Done():
			t.Fatal("the failure is not logged")
		case <-time.After(20 * time.Millisecond):
		}
	}
	line := g.logs.line("certificate not issued")
	for _, want := range []string{"cannot be reached", "open TCP", `"attempt":1`} {
		if !strings.Contains(line, want) {
			t.Errorf("log line %s, want %q in it", line, want)
		}
	}
}
