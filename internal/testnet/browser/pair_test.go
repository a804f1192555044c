package browser_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/internal/testnet/browser"
	"github.com/turngate/turngate/internal/testnet/trtccloud"
)

// TestPairOverCoturn shows that the harness sees relayed media where a TURN
// server of known quality relays it, on each transport.
func TestPairOverCoturn(t *testing.T) {
	cloud := trtccloud.Start(t) // for its authority
	cert, key := cloud.Issue("relay.test", "127.0.0.1")
	relay := browser.StartCoturn(t, cert, key)
	b := browser.Start(t, browser.Options{
		Trust: []*x509.Certificate{cloud.CA()},
		Hosts: map[string]string{
			"relay.test":  "127.0.0.1",
			"mapped.test": relay.TLS.String(),
		},
	})
	ports := strings.NewReplacer("PLAIN", fmt.Sprint(relay.Plain.Port()), "TLS", fmt.Sprint(relay.TLS.Port()))
	for _, tc := range []struct {
		name, url, relayProtocol string
	}{
		{"UDP by address", "turn:127.0.0.1:PLAIN", "udp"},
		{"UDP by name", "turn:relay.test:PLAIN", "udp"},
		{"TCP", "turn:127.0.0.1:PLAIN?transport=tcp", "tcp"},
		{"TLS by address", "turns:127.0.0.1:TLS?transport=tcp", "tls"},
		{"TLS by name", "turns:relay.test:TLS?transport=tcp", "tls"},
		{"UDP by a name whose TCP port is mapped", "turn:mapped.test:PLAIN", "udp"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			page := b.Open(t, "page.html")
			url := ports.Replace(tc.url)
			pair, err := page.ConnectPair(ctx, []browser.ICEServer{{URLs: []string{url}, Username: relay.User, Credential: relay.Password}}, "relay", browser.PairWant{})
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
	addr := testnet.ClosedAddress(t)
	_, err := page.ConnectPair(ctx, []browser.ICEServer{{URLs: []string{"turn:" + addr + "?transport=tcp"}, Username: "u", Credential: "p"}}, "relay", browser.PairWant{})
	if err == nil || !strings.Contains(err.Error(), "no candidate") {
		t.Fatalf("error is %v, want one that says that there is no candidate", err)
	}
}
