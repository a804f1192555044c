package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestAStarterFileLoadsAsItIs(t *testing.T) {
	for name, s := range map[string]Starter{
		"starter-empty.toml": {User: "turn", Password: "correct horse battery"},
		"starter-full.toml": {
			Layout: Intranet, Domain: "proxy.example.com", ExternalIP: "10.0.0.4",
			Cert: "/etc/turngate/tls/fullchain.pem", Key: "/etc/turngate/tls/privkey.pem",
			HTTPS: Listen(netip.Addr{}, 8443), TURN: Listen(netip.MustParseAddr("10.0.0.4"), 3478),
			User: `al"ice`, Password: "env:not a variable",
		},
		"starter-setup.toml": {
			Layout: External, Domain: "proxy.example.com", ExternalIP: "203.0.113.7/10.0.0.4,2001:db8::7",
			ACME: &StarterACME{CA: "https://ca.example.com/dir", CARoot: "/etc/turngate/acme-root.pem"},
			User: "turn", Password: "correct horse battery", Proxy: "http://me:you@10.0.0.8:3128", CA: "/etc/turngate/upstream-ca.pem",
		},
	} {
		t.Run(name, func(t *testing.T) {
			text := string(s.TOML())
			golden(t, name, text)
			cfg, findings := LoadBytes("f", []byte(text), machine(nil, nil))
			if len(findings) > 0 {
				t.Fatalf("findings:\n%v", findings)
			}
			if u := cfg.TURN.User[0]; u.Name != s.User || u.Password.Reveal() != s.Password {
				t.Errorf("user: got %q, %q", u.Name, u.Password.Reveal())
			}
			if strings.Join(cfg.TLS.Cert, ",") != s.Cert || cfg.Domain != s.Domain {
				t.Errorf("got %q, %q", cfg.TLS.Cert, cfg.Domain)
			}
		})
	}
	if a, b := NewPassword(), NewPassword(); len(a) < 20 || a == b {
		t.Errorf("passwords: got %q and %q", a, b)
	}
}

func TestCheckFilesFindsWhatTheServerWouldStumbleOver(t *testing.T) {
	cert, key := pair(t, "proxy.example.com", 90*24*time.Hour)
	ended, endedKey := pair(t, "proxy.example.com", -time.Hour)
	files := map[string]file{
		"/c": {cert, 0o644}, "/k": {key, 0o600},
		"/ended": {ended, 0o644}, "/ended-key": {endedKey, 0o600}, "/text": {"x", 0o644},
	}
	for _, tc := range []struct{ name, text, want string }{
		{"a good pair", "domain = \"proxy.example.com\"\n[tls]\ncert = \"/c\"\nkey = \"/k\"\n[upstream]\nca = \"/c\"", ""},
		{"no certificate", "", ""},
		{"files of another machine", "[tls]\ncert = \"/none\"\nkey = \"/k\"", "f:2: warning: tls.cert: cannot be read here: open /none: file does not exist; the server refuses to start without it"},
		{"another name", "domain = \"other.example.com\"\n[tls]\ncert = \"/c\"\nkey = \"/k\"", `f:3: warning: tls.cert: the certificate is not for "other.example.com"; get one for the domain`},
		{"a certificate that ended", "[tls]\ncert = \"/ended\"\nkey = \"/ended-key\"", "f:2: warning: tls.cert: the certificate ended on " + time.Now().Add(-time.Hour).UTC().Format(time.DateOnly) + "; renew it"},
		{"authorities that are none", "[[logger]]\npreset = \"trtc\"\nca = \"/text\"", `f:3: logger[0].ca: "/text" holds no certificate; name a file with PEM certificates`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, findings := LoadBytes("f", []byte(tc.text), machine(nil, files))
			if cfg == nil {
				t.Fatal(findings)
			}
			if got := CheckFiles(cfg, machine(nil, files)).Error(); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

// pair makes a self-signed certificate and its key, in PEM.
func pair(t *testing.T, name string, left time.Duration) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(left),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	var c, p strings.Builder
	pem.Encode(&c, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	pem.Encode(&p, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	return c.String(), p.String()
}
