package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/edge"
)

// cert runs a command of "turngate cert" for the gate.
func (g *gate) cert(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return g.command(t, append([]string{"cert", args[0], "--config", g.file()}, args[1:]...)...)
}

// company is the CA of a company: a root and an issuing CA below it.
type company struct {
	root, issuing       *x509.Certificate
	rootKey, issuingKey crypto.Signer
}

func newCompany(t *testing.T) *company {
	t.Helper()
	c := new(company)
	make := func(name string, by *x509.Certificate, byKey crypto.Signer) (*x509.Certificate, crypto.Signer) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tmpl := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign,
		}
		if by == nil {
			by, byKey = tmpl, key
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, by, key.Public(), byKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	c.root, c.rootKey = make("Company Root", nil, nil)
	c.issuing, c.issuingKey = make("Company Issuing CA", c.root, c.rootKey)
	return c
}

// answer signs a request as it is and writes the answer into a file.
func (c *company) answer(t *testing.T, request string, above ...*x509.Certificate) string {
	t.Helper()
	block, _ := pem.Decode([]byte(request))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		t.Fatalf("no request in %q", request)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := csr.CheckSignature(); err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: csr.Subject, DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.issuing, csr.PublicKey, c.issuingKey)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "answer.pem")
	var b bytes.Buffer
	for _, der := range append([][]byte{der}, raw(above)...) {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func raw(certs []*x509.Certificate) (out [][]byte) {
	for _, c := range certs {
		out = append(out, c.Raw)
	}
	return out
}

func pool(certs ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// A company's CA: request, answer, and the running server serves it.
func TestCertificateOfACompany(t *testing.T) {
	tg := attacked(t, "", "")
	ws := tg.upgrade(t, "/ws/")
	co := newCompany(t)
	code, request, said := tg.cert(t, "csr", "--name", "proxy.corp.example")
	if code != 0 || !strings.Contains(said, "turngate cert install") {
		t.Fatalf("csr: %d %s", code, said)
	}
	key := filepath.Join(tg.dir, "state", "csr", "key.pem")
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key of the request: %v %v, want mode 0600", info, err)
	}
	if _, _, said := tg.cert(t, "csr", "--key-type", "rsa"); !strings.Contains(said, "--new-key") {
		t.Errorf("another kind of key: %s", said)
	}

	answer := co.answer(t, request, co.issuing)
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"without the intermediate", []string{co.answer(t, request)}, "the chain is not complete"},
		{"the request itself", []string{pemFile(t, request)}, "is the request"},
		{"another key", []string{answer, "--key", newKeyFile(t)}, "does not match the key"},
		{"no file", []string{"/none"}, "no such file"},
	} {
		code, _, said := tg.cert(t, append([]string{"install"}, c.args...)...)
		if code != 1 || !strings.Contains(said, c.want) {
			t.Errorf("%s: %d %s, want %q", c.name, code, said, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(tg.dir, "state", "installed")); err == nil {
		t.Error("something was installed though all was refused")
	}

	root := pemFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: co.root.Raw})))
	code, out, said := tg.cert(t, "install", answer, "--ca", root)
	if code != 0 || !strings.Contains(out, "installed; 2 certificates") || !strings.Contains(said, "It is served now") {
		t.Fatalf("install: %d %s %s", code, out, said)
	}
	tg.serves(t, "proxy.corp.example", pool(co.root))
	if !ws.echoes("still here") {
		t.Error("the WebSocket is gone")
	}
	if _, err := os.Stat(key); err == nil {
		t.Error("the request is still under way")
	}
	code, out, _ = tg.cert(t, "show")
	for _, want := range []string{"tls.mode installed", "proxy.corp.example", "CN=Company Issuing CA", "364 days left", "incomplete"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("show: %d\n%s\nwant %q", code, out, want)
		}
	}

	// The next one, a year later: another key, picked up without a reload.
	_, again, _ := tg.cert(t, "csr", "--name", "proxy.corp.example", "--key-type", "rsa")
	if code, _, said := tg.cert(t, "install", co.answer(t, again, co.issuing, co.root)); code != 0 {
		t.Fatalf("the next one: %s", said)
	}
	if leaf := tg.serves(t, "proxy.corp.example", pool(co.root)); leaf.PublicKeyAlgorithm != x509.RSA {
		t.Errorf("serves a key of the kind %v, want RSA", leaf.PublicKeyAlgorithm)
	}
	if !ws.echoes("still here") {
		t.Error("the WebSocket is gone")
	}
}

func pemFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func newKeyFile(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
}

// A CA of this host: one command, and who trusts what it prints trusts the server.
func TestCertificateAuthorityOfThisHost(t *testing.T) {
	g := startGate(t, "")
	code, out, said := g.cert(t, "ca")
	if code != 0 || !strings.Contains(said, "It is served now") || !strings.Contains(said, "certutil -addstore") || !strings.Contains(said, "ImportEnterpriseRoots") {
		t.Fatalf("ca: %d %s", code, said)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(out)) {
		t.Fatalf("no certificate in %q", out)
	}
	tg := &target{gate: g, addr: g.https}
	first := tg.serves(t, "127.0.0.1", roots)
	if _, again, _ := g.cert(t, "ca"); again != out {
		t.Error("a second call made another authority")
	}
	if leaf := tg.serves(t, "127.0.0.1", roots); leaf.SerialNumber.Cmp(first.SerialNumber) != 0 {
		t.Error("a second call issued another certificate")
	}
	if code, _, said := g.cert(t, "ca", "--permit", "example.com"); code != 2 || !strings.Contains(said, "--new") {
		t.Errorf("--permit for one that is there: %d %s", code, said)
	}
	code, show, _ := g.cert(t, "show", "--json")
	var report certReport
	if err := json.Unmarshal([]byte(show), &report); err != nil || code != 0 {
		t.Fatal(code, err)
	}
	if report.Source != "ca" || !report.Running || report.Certificates[0].Chain != edge.ChainPrivate || len(report.Certificates[0].Warnings) > 0 {
		t.Errorf("show: %+v", report)
	}
	_, fresh, _ := g.cert(t, "ca", "--new", "--permit", "lab.example")
	if fresh == out {
		t.Error("--new made none")
	}
	other := x509.NewCertPool()
	other.AppendCertsFromPEM([]byte(fresh))
	tg.serves(t, "127.0.0.1", other)
	if code, _, said := g.cert(t, "renew"); code != 1 || !strings.Contains(said, "no certificate is ordered") {
		t.Errorf("renew: %d %s", code, said)
	}
}

// Hosts that share ticket keys resume each other's sessions, also after a
// rotation; others do not.
func TestSessionsAreResumedOnAnotherHost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tickets")
	rotate := func() {
		t.Helper()
		var out bytes.Buffer
		if code := run([]string{"cert", "ticket-key", file}, nil, &out, &out); code != 0 {
			t.Fatal(out.String())
		}
	}
	rotate()
	rec := newRecorder(t)
	cert := rec.ca.Issue(t, "localhost")
	dir := t.TempDir()
	keyDER, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host := func(tickets string) *gate {
		return startGate(t, "\n[tls]\ncert = \""+dir+"/cert.pem\"\nkey = \""+dir+"/key.pem\"\n"+tickets)
	}
	shared := "ticket_keys = \"" + file + "\"\n"
	a, b, alone := host(shared), host(shared), host("")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(rec.ca.PEM)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			// visit reports whether the session was resumed.
			cache := tls.NewLRUClientSessionCache(10)
			visit := func(g *gate) bool {
				t.Helper()
				client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
					RootCAs: roots, ServerName: "localhost", ClientSessionCache: cache, MinVersion: version, MaxVersion: version,
				}}}
				res, err := client.Get("https://" + g.https.String() + "/healthz")
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				return res.TLS.DidResume
			}
			for i, step := range []struct {
				at   *gate
				want bool
			}{{a, false}, {a, true}, {b, true}, {a, true}, {alone, false}, {alone, true}, {a, false}} {
				if got := visit(step.at); got != step.want {
					t.Errorf("visit %d: resumed %v, want %v", i, got, step.want)
				}
			}
			rotate()
			for _, g := range []*gate{b, a} {
				if err := g.followTicketKeys(); err != nil {
					t.Fatal(err)
				}
				if !visit(g) {
					t.Error("not resumed after a rotation")
				}
			}
			for range 3 {
				rotate()
			}
			if _, err := a.reload(); err != nil {
				t.Fatal(err)
			}
			if visit(a) {
				t.Error("resumed with a key that is gone")
			}
			if err := b.followTicketKeys(); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("a broken file changes nothing", func(t *testing.T) {
		before := a.tickets
		for _, content := range []string{"", "# nothing\n", "secret\n", "c2hvcnQ=\n"} {
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			err := a.followTicketKeys()
			if err == nil || !strings.Contains(err.Error(), "turngate cert ticket-key") || strings.Contains(err.Error(), "c2hvcnQ") {
				t.Errorf("%q: %v", content, err)
			}
			if _, err := a.reload(); err == nil {
				t.Errorf("%q: the reload succeeded", content)
			}
		}
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := a.followTicketKeys(); err == nil || !strings.Contains(err.Error(), "chmod 0640") {
			t.Errorf("a file that everybody can read: %v", err)
		}
		if &before[0] != &a.tickets[0] {
			t.Error("other keys are used")
		}
	})
}
