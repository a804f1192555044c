package browser_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crypto/x509"

	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/internal/testnet/browser"
	"github.com/turngate/turngate/internal/testnet/trtccloud"
)

// TestPairOverCoturn shows that the harness sees relayed media where a TURN
// server of known quality relays it, on each transport.
func TestPairOverCoturn(t *testing.T) {
	cloud := trtccloud.Start(t) // for its authority
	relay := startCoturn(t, cloud)
	b := browser.Start(t, browser.Options{
		Trust: []*x509.Certificate{cloud.CA()},
		Hosts: map[string]string{"relay.test": "127.0.0.1"},
	})
	for _, tc := range []struct {
		name, url, relayProtocol string
	}{
		{"UDP by address", "turn:127.0.0.1:%[1]d", "udp"},
		{"UDP by name", "turn:relay.test:%[1]d", "udp"},
		{"TCP", "turn:127.0.0.1:%[1]d?transport=tcp", "tcp"},
		{"TLS by address", "turns:127.0.0.1:%[2]d?transport=tcp", "tls"},
		{"TLS by name", "turns:relay.test:%[2]d?transport=tcp", "tls"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			page := b.Open(t, "page.html")
			url := fmt.Sprintf(tc.url, relay.plain.Port(), relay.tls.Port())
			pair, err := page.ConnectPair(ctx, []browser.ICEServer{{URLs: []string{url}, Username: "u", Credential: "p"}}, "relay", browser.PairWant{})
			if err != nil {
				t.Fatal(err)
			}
			for name, side := range map[string]browser.Side{"a": pair.A, "b": pair.B} {
				if side.Local.Type != "relay" || side.Local.RelayProtocol != tc.relayProtocol {
					t.Errorf("%s: local candidate is %+v, want relay over %s", name, side.Local, tc.relayProtocol)
				}
			}
			if pair.FramesDecoded < 30 || pair.EchoBytes != 256<<10 {
				t.Errorf("frames %d, echo %d bytes, want 30 and %d", pair.FramesDecoded, pair.EchoBytes, 256<<10)
			}
		})
	}
}

func TestPairFailsWithoutARelay(t *testing.T) {
	b := browser.Start(t, browser.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	page := b.Open(t, "page.html")
	// A port that was just free: nobody answers there.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	_, err = page.ConnectPair(ctx, []browser.ICEServer{{URLs: []string{"turn:" + addr + "?transport=tcp"}, Username: "u", Credential: "p"}}, "relay", browser.PairWant{})
	if err == nil || !strings.Contains(err.Error(), "no candidate") {
		t.Fatalf("error is %v, want one that says that there is no candidate", err)
	}
}

type coturn struct{ plain, tls netip.AddrPort }

// startCoturn starts a coturn on free ports of loopback, user u, password p.
func startCoturn(t *testing.T, cloud *trtccloud.Cloud) coturn {
	t.Helper()
	testnet.Need(t, "coturn")
	program := testnet.Program("turnserver")
	if program == "" {
		t.Skip("the program turnserver is not installed")
	}
	dir := t.TempDir()
	cert, key := cloud.Issue("relay.test", "127.0.0.1")
	for name, data := range map[string][]byte{"cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := coturn{plain: freePort(t), tls: freePort(t)}
	cmd := exec.Command(program, "-n", "--lt-cred-mech", "--user=u:p", "--realm=test",
		"--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--allow-loopback-peers", "--no-cli",
		"--listening-port="+fmt.Sprint(c.plain.Port()), "--tls-listening-port="+fmt.Sprint(c.tls.Port()),
		"--cert="+filepath.Join(dir, "cert.pem"), "--pkey="+filepath.Join(dir, "key.pem"),
		"--log-file=stdout", "--simple-log", "--pidfile="+filepath.Join(dir, "pid"), "--db="+filepath.Join(dir, "db"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	deadline := time.Now().Add(15 * time.Second)
	for _, addr := range []netip.AddrPort{c.plain, c.tls} {
		for {
			conn, err := net.Dial("tcp", addr.String())
			if err == nil {
				conn.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("coturn does not answer: %v", err)
			}
			time.Sleep(20 * time.Millisecond) // a foreign program; there is no event to wait for
		}
	}
	return c
}

func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}
