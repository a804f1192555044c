package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/internal/testnet/browser"
	"github.com/turngate/turngate/internal/testnet/trtccloud"
)

// proxyHost is turngate's name in these tests; the page is app.example.com, so
// that both are the same site for cookies.
const proxyHost = "proxy.example.com"

// stage is turngate between a browser and a fake cloud.
type stage struct {
	gate    *gate
	cloud   *trtccloud.Cloud
	browser *browser.Browser
	host    string // turngate's name with its port, as pages write it
}

// setStage starts all three. The browser reaches turngate only: no other name
// resolves.
func setStage(t *testing.T) *stage {
	t.Helper()
	testnet.Need(t, "chromium") // before anything is started
	cloud := trtccloud.Start(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, cloud.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	var resolve []string
	for _, name := range []string{
		"signaling.rtc.qq.com", "main.rtc.qq.com", "backup.rtc.qq.com", "yun.tim.qq.com", "apisgp.my-imcloud.com",
		"schedule.cloud-rtc.com", "schedule.cloud-rtc.net", "intl-schedule.cloud-rtc.com", "schedule.rtc.qcloud.com",
		"schedule.rtc-web.com", "schedule.rtc-web.io", "schedule.rtc.tencentcloud.com", "schedule-ecdn.rtc.tencentcloud.com",
	} {
		resolve = append(resolve, fmt.Sprintf("%q = %q", name, cloud.Addr()))
	}
	g := startGate(t, fmt.Sprintf(`
[turn.peers]
allow = ["127.0.0.1/32"] # the fake cloud's media server

[upstream]
ca = %q
resolve = { %s }
`, ca, strings.Join(resolve, ", ")))
	return &stage{
		gate:  g,
		cloud: cloud,
		host:  fmt.Sprintf("%s:%d", proxyHost, g.https.Port()),
		browser: browser.Start(t, browser.Options{
			Trust: []*x509.Certificate{gateCertificate(t, g)},
			Hosts: map[string]string{proxyHost: "127.0.0.1"},
		}),
	}
}

func gateCertificate(t *testing.T, g *gate) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(g.certFile())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("%s holds no PEM", g.certFile())
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// turnURLs are turngate's TURN addresses in the forms a page may write them.
func (s *stage) turnURLs() *strings.Replacer {
	return strings.NewReplacer(
		"UDP", fmt.Sprint(s.gate.turnUDP.Port()),
		"TCP", fmt.Sprint(s.gate.turnTCP.Port()),
		"HTTPS", fmt.Sprint(s.gate.https.Port()))
}

func TestBrowsersMeetOverEachTransport(t *testing.T) {
	s := setStage(t)
	for _, tc := range []struct {
		name, urls, protocol string // "" is any
	}{
		{"UDP", "turn:127.0.0.1:UDP", "udp"},
		{"TCP", "turn:127.0.0.1:TCP?transport=tcp", "tcp"},
		{"TLS on the https port", "turns:127.0.0.1:HTTPS?transport=tcp", "tls"},
		{"TLS on the https port by name", "turns:" + proxyHost + ":HTTPS?transport=tcp", "tls"},
		{"plain TCP on the https port", "turn:127.0.0.1:HTTPS?transport=tcp", "tcp"},
		{"all at once", "turn:127.0.0.1:UDP turn:127.0.0.1:TCP?transport=tcp turns:127.0.0.1:HTTPS?transport=tcp turn:127.0.0.1:HTTPS?transport=tcp", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			page := s.browser.Open(t, "page.html")
			server := browser.ICEServer{URLs: strings.Fields(s.turnURLs().Replace(tc.urls)), Username: s.gate.user, Credential: s.gate.password}
			pair, err := page.ConnectPair(ctx, []browser.ICEServer{server}, "relay", browser.PairWant{})
			if err != nil {
				t.Fatal(err)
			}
			for name, side := range map[string]browser.Side{"sender": pair.A, "receiver": pair.B} {
				if side.Local.Type != "relay" || tc.protocol != "" && side.Local.RelayProtocol != tc.protocol {
					t.Errorf("%s uses %+v, want a relay over %q", name, side.Local, tc.protocol)
				}
				for _, line := range side.Gathered {
					if !strings.Contains(line, " typ relay ") {
						t.Errorf("%s gathered %q under the policy relay", name, line)
					}
				}
			}
			if pair.FramesDecoded < 30 || pair.EchoBytes != 256<<10 {
				t.Errorf("%d frames and %d bytes, want at least 30 and %d", pair.FramesDecoded, pair.EchoBytes, 256<<10)
			}
		})
	}
}

func TestBrowserWithAWrongPasswordGetsNoRelay(t *testing.T) {
	s := setStage(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, url := range strings.Fields(s.turnURLs().Replace("turn:127.0.0.1:UDP turns:127.0.0.1:HTTPS?transport=tcp")) {
		side, err := s.browser.Open(t, "page.html").Gather(ctx, []browser.ICEServer{{URLs: []string{url}, Username: s.gate.user, Credential: "wrong"}}, "relay")
		if err != nil {
			t.Fatal(err)
		}
		if len(side.Gathered) > 0 {
			t.Errorf("%s: gathered %q", url, side.Gathered)
		}
		if len(side.Errors) == 0 || side.Errors[0].Code != 401 {
			t.Errorf("%s: errors %+v, want 401", url, side.Errors)
		}
	}
}
