package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
	tc "github.com/turngate/turngate/internal/testnet/turnclient"
)

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// trust is what a client that trusts the gate's certificate uses.
func (g *gate) trust(t testing.TB) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(g.certFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in " + g.certFile())
	}
	return &tls.Config{RootCAs: roots, ServerName: "localhost"}
}

// get asks the gate and returns status and body.
func (g *gate) get(t testing.TB, path string) (int, string, *http.Response) {
	t.Helper()
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: g.trust(t), ForceAttemptHTTP2: true, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Get("https://" + g.https.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body), res
}

const allowLoopback = `
[turn.peers]
allow = ["127.0.0.1"]
`

func TestTURNOnEveryDoor(t *testing.T) {
	g := startGate(t, allowLoopback)
	peer := tc.NewEcho(t, "127.0.0.1")
	for _, tt := range []struct {
		name, network, addr string
		opts                []tc.Option
	}{
		{"UDP", "udp", g.turnUDP.String(), nil},
		{"TCP", "tcp", g.turnTCP.String(), nil},
		{"plain TCP on the HTTPS port", "tcp", g.https.String(), nil},
		{"TLS on the HTTPS port", "tls", g.https.String(), []tc.Option{tc.TLS(g.trust(t))}},
		{"TLS with ALPN on the HTTPS port", "tls", g.https.String(), []tc.Option{tc.TLS(alpn(g.trust(t), "stun.turn"))}},
		{"TLS on the TURN port", "tls", g.turnTCP.String(), []tc.Option{tc.TLS(g.trust(t))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := deadline(t)
			c, err := tc.Dial(ctx, tt.network, tt.addr, tc.Auth{User: g.user, Password: g.password}, tt.opts...)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Allocate(ctx); err != nil {
				t.Fatal(err)
			}
			if err := c.ChannelBind(ctx, 0x4000, peer.Addr()); err != nil {
				t.Fatal(err)
			}
			if err := c.SendChannel(ctx, 0x4000, []byte("there and back")); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Receive(ctx); err != nil || string(got.Payload) != "there and back" {
				t.Errorf("got %q %v, want what was sent", got.Payload, err)
			}
		})
	}
}

func alpn(c *tls.Config, protocols ...string) *tls.Config {
	c.NextProtos = protocols
	return c
}

func TestHTTPSOnTheSamePort(t *testing.T) {
	g := startGate(t, "")
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/": 404, "/metrics": 404, "/wsx/": 404, "/healthz/x": 404,
		"/ws/": 426, "/ws": 426, "/ws/%2e%2e/": 400,
	} {
		status, _, res := g.get(t, path)
		if status != want {
			t.Errorf("%s: got %d, want %d", path, status, want)
		}
		if res.Proto != "HTTP/2.0" {
			t.Errorf("%s: got %s, want HTTP/2.0", path, res.Proto)
		}
		if got := res.Header.Get("Strict-Transport-Security"); got == "" {
			t.Errorf("%s: no Strict-Transport-Security", path)
		}
	}
}

// Nothing live ends over a reload, whatever the file says.
func TestReloadEndsNoCall(t *testing.T) {
	g := startGate(t, allowLoopback)
	ctx := deadline(t)
	peer := tc.NewEcho(t, "127.0.0.1")
	var clients []*tc.Client
	for _, network := range []string{"udp", "tcp"} {
		c, err := tc.Dial(ctx, network, g.turnUDP.String(), tc.Auth{User: g.user, Password: g.password})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Allocate(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.ChannelBind(ctx, 0x4000, peer.Addr()); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	relays := func(when string) {
		t.Helper()
		for i, c := range clients {
			payload := fmt.Sprint(when, i)
			if err := c.SendChannel(ctx, 0x4000, []byte(payload)); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			if got, err := c.Receive(ctx); err != nil || string(got.Payload) != payload {
				t.Fatalf("%s: got %q %v", when, got.Payload, err)
			}
			if _, err := c.Refresh(ctx, 600); err != nil {
				t.Fatalf("%s: refresh: %v", when, err)
			}
		}
	}
	relays("before")

	// A bad file changes nothing and says what is wrong with it.
	good, err := os.ReadFile(g.file())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.file(), append(good, "\n[turn.limts]\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := g.reload(); err == nil || !strings.Contains(err.Error(), "limits") {
		t.Errorf("reload of a bad file: got %v, want a finding that suggests limits", err)
	}
	if g.status().LastReload.Error == "" {
		t.Error("the refused reload is not in the status")
	}
	relays("after a refused reload")

	// Another password, another listener, another range of ports.
	moved := testnet.FreePort(t)
	text := strings.NewReplacer(
		g.password, "another password",
		fmt.Sprintf("listen = [%q]\nrealm", g.turnUDP), fmt.Sprintf("listen = [\"127.0.0.1:%d\"]\nrealm", moved),
		"min_port = 22000\nmax_port = 22999", "min_port = 23000\nmax_port = 23099",
	).Replace(string(good))
	if err := os.WriteFile(g.file(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	result, err := g.reload()
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Changed) < 4 {
		t.Errorf("changed: got %v, want password, listener and range", result.Changed)
	}
	relays("after the reload")

	c, err := tc.Dial(ctx, "udp", fmt.Sprintf("127.0.0.1:%d", moved), tc.Auth{User: g.user, Password: "another password"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := c.Allocate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if port := a.Relayed[0].Port(); port < 23000 || port > 23099 {
		t.Errorf("relayed port: got %d, want one of the new range", port)
	}
	old, err := tc.Dial(ctx, "udp", fmt.Sprintf("127.0.0.1:%d", moved), tc.Auth{User: g.user, Password: g.password})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if _, err := old.Allocate(ctx); tc.Code(err) != 401 {
		t.Errorf("the old password at the new listener: got %v, want 401", err)
	}
}

func TestDrainServesWhatIsLive(t *testing.T) {
	g := startGate(t, allowLoopback)
	ctx := deadline(t)
	c, err := tc.Dial(ctx, "udp", g.turnUDP.String(), tc.Auth{User: g.user, Password: g.password})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Allocate(ctx); err != nil {
		t.Fatal(err)
	}
	g.stop()
	for status := 0; status != http.StatusServiceUnavailable; {
		status, _, _ = g.get(t, "/readyz")
		if ctx.Err() != nil {
			t.Fatal("readyz never said that the gate drains")
		}
	}
	if _, err := c.Refresh(ctx, 600); err != nil {
		t.Errorf("refresh while draining: %v", err)
	}
	late, err := tc.Dial(ctx, "udp", g.turnUDP.String(), tc.Auth{User: g.user, Password: g.password})
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if _, err := late.Allocate(ctx); tc.Code(err) != 508 {
		t.Errorf("allocate while draining: got %v, want 508", err)
	}
	if _, err := c.Refresh(ctx, 0); err != nil {
		t.Error(err)
	}
	select {
	case err := <-g.served:
		g.served <- err
	case <-ctx.Done():
		t.Error("the drain did not end with the last allocation")
	}
}

func TestTURNOverUDPOnTheHTTPSPort(t *testing.T) {
	g := startGate(t, allowLoopback)
	text, err := os.ReadFile(g.file())
	if err != nil {
		t.Fatal(err)
	}
	both := fmt.Sprintf("listen = [%q, %q]\nrealm", g.turnUDP, g.https)
	text = []byte(strings.Replace(string(text), fmt.Sprintf("listen = [%q]\nrealm", g.turnUDP), both, 1))
	if err := os.WriteFile(g.file(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := g.reload(); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		c, err := tc.Dial(deadline(t), network, g.https.String(), tc.Auth{User: g.user, Password: g.password})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Allocate(deadline(t)); err != nil {
			t.Errorf("%s: %v", network, err)
		}
	}
	if status, _, _ := g.get(t, "/healthz"); status != 200 {
		t.Errorf("/healthz: got %d, want 200", status)
	}
}
