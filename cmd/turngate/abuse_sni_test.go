package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/turngate/turngate/internal/testnet"
)

// openssl runs s_client against the gate, with these lines typed in.
func (tg *target) openssl(t *testing.T, typed string, args ...string) string {
	t.Helper()
	testnet.Need(t, "openssl")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, testnet.Program("openssl"),
		append([]string{"s_client", "-connect", tg.addr.String(), "-servername", "localhost"}, args...)...)
	cmd.Stdin = strings.NewReader(typed)
	out, _ := cmd.CombinedOutput() // the exit code says whether the connection ended well
	return string(out)
}

// A client does not get a second handshake inside a connection.
func TestRenegotiationIsRefused(t *testing.T) {
	tg := attacked(t, "", "")
	out := tg.openssl(t, "R\n", "-tls1_2")
	if !strings.Contains(out, "RENEGOTIATING") {
		t.Fatalf("openssl did not ask for it:\n%s", out)
	}
	after := out[strings.Index(out, "RENEGOTIATING"):]
	if !strings.Contains(after, "no renegotiation") && !strings.Contains(after, "alert") {
		t.Errorf("not refused:\n%s", after)
	}
	if strings.Contains(after, "verify return") {
		t.Errorf("a second handshake:\n%s", after)
	}
	tg.control(t)
}

// What a peer of another make gets with what is off: versions, suites, and
// what only old clients offer.
func TestWhatOpenSSLGets(t *testing.T) {
	tg := attacked(t, "", "")
	for _, row := range []struct {
		name string
		args []string
		ok   bool
	}{
		{"TLS 1.3", []string{"-tls1_3"}, true},
		{"TLS 1.2", []string{"-tls1_2"}, true},
		{"TLS 1.1", []string{"-tls1_1", "-cipher", "ALL:@SECLEVEL=0"}, false},
		{"TLS 1.0", []string{"-tls1", "-cipher", "ALL:@SECLEVEL=0"}, false},
		{"no encryption", []string{"-tls1_2", "-cipher", "eNULL:@SECLEVEL=0"}, false},
		{"anonymous", []string{"-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"}, false},
		{"RSA key exchange", []string{"-tls1_2", "-cipher", "kRSA:@SECLEVEL=0"}, false},
		{"finite fields", []string{"-tls1_2", "-cipher", "DHE:@SECLEVEL=0"}, false},
		{"CBC", []string{"-tls1_2", "-cipher", "ECDHE+SHA1:ECDHE+SHA256:@SECLEVEL=0"}, false},
		{"CCM", []string{"-tls1_2", "-cipher", "ECDHE+AESCCM"}, false},
		{"CHACHA20", []string{"-tls1_2", "-cipher", "ECDHE+CHACHA20"}, true},
		{"X25519", []string{"-curves", "X25519"}, true},
		{"P-384", []string{"-curves", "P-384"}, true},
		{"a weak curve", []string{"-tls1_3", "-curves", "X448"}, false},
		{"HTTP/2", []string{"-alpn", "h2"}, true},
		{"the protocol of TURN", []string{"-alpn", "stun.turn"}, true},
		{"unknown protocols", []string{"-alpn", "evil/9,spdy/3"}, false},
	} {
		out := tg.openssl(t, "", row.args...)
		// s_client says "Cipher is (NONE)" when there was no handshake.
		if ok := strings.Contains(out, "Cipher is ") && !strings.Contains(out, "Cipher is (NONE)") && !strings.Contains(out, "alert no application protocol"); ok != row.ok {
			t.Errorf("%s: got %v, want %v:\n%.600s", row.name, ok, row.ok, out)
		}
		if strings.Contains(out, "Compression: ") && !strings.Contains(out, "Compression: NONE") {
			t.Errorf("%s: TLS compression:\n%.600s", row.name, out)
		}
	}
	tg.control(t)
	tg.blameless(t)
}

// Whoever asks for a name that is not ours gets our certificate, so that the
// browser's error page shows whose server this is, and never another one.
func TestForeignServerNames(t *testing.T) { onEveryListener(t, foreignServerNames) }

func foreignServerNames(t *testing.T, attacked func(t testing.TB, https, extra string) *target) {
	tg := attacked(t, "", "")
	for _, name := range []string{"", "evil.example", "localhost.evil.example", "LOCALHOST", strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ".example", "xn--80ak6aa92e.com", "_", "a..b"} {
		cfg := tg.tls.Clone()
		cfg.ServerName, cfg.InsecureSkipVerify, cfg.NextProtos = name, true, []string{"http/1.1"}
		c, err := tls.Dial("tcp", tg.addr.String(), cfg)
		if err != nil {
			t.Errorf("%.40q: %v", name, err)
			continue
		}
		if got := c.ConnectionState().PeerCertificates[0].DNSNames; fmt.Sprint(got) != "[localhost]" {
			t.Errorf("%.40q: a certificate for %v, want ours", name, got)
		}
		c.Close()
	}
	tg.control(t)
}

// WebSockets over HTTP/2 (RFC 8441) are off: browsers then open HTTP/1.1.
func TestExtendedConnectIsNotOffered(t *testing.T) {
	tg := attacked(t, "", "")
	c := tg.dialH2(t)
	for {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		s, ok := f.(*http2.SettingsFrame)
		if !ok || s.IsAck() {
			continue
		}
		if v, ok := s.Value(http2.SettingEnableConnectProtocol); ok && v != 0 {
			t.Error("the server offers extended CONNECT")
		}
		break
	}
	c.open(false, fields(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "localhost", ":path", "/ws/")...)
	if got := c.outcome(); strings.HasPrefix(got, "2") {
		t.Errorf("extended CONNECT: got %s, want a refusal", got)
	}
	tg.control(t)
}
