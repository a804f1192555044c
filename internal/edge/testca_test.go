package edge

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// testCA issues certificates into files.
type testCA struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
	n    int
}

func newTestCA(t testing.TB) *testCA {
	t.Helper()
	ca := &testCA{dir: t.TempDir(), key: newKey(t, "ecdsa"), pool: x509.NewCertPool()}
	tmpl := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "test root"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(48 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, ca.key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	ca.pool.AddCert(ca.cert)
	return ca
}

func newKey(t testing.TB, alg string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		t.Fatalf("no such algorithm: %s", alg)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue writes a chain and a key for names, valid for a day.
func (ca *testCA) issue(t testing.TB, alg string, names ...string) Pair {
	t.Helper()
	ca.n++
	base := filepath.Join(ca.dir, alg+"-"+names[0]+"-"+string(rune('a'+ca.n)))
	p := Pair{base + ".crt", base + ".key"}
	certPEM, keyPEM := ca.make(t, alg, time.Now().Add(24*time.Hour), names...)
	writeFile(t, p.Cert, certPEM, 0o644)
	writeFile(t, p.Key, keyPEM, 0o600)
	return p
}

// make returns chain and key as PEM.
func (ca *testCA) make(t testing.TB, alg string, notAfter time.Time, names ...string) (certPEM, keyPEM []byte) {
	t.Helper()
	key := newKey(t, alg)
	tmpl := &x509.Certificate{
		Subject:   pkix.Name{CommonName: names[0]},
		DNSNames:  names,
		NotBefore: time.Now().Add(-100 * 24 * time.Hour),
		NotAfter:  notAfter,
		KeyUsage:  x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM = append(toPEM("CERTIFICATE", der), toPEM("CERTIFICATE", ca.cert.Raw)...)
	return certPEM, toPEM("PRIVATE KEY", keyDER)
}

func toPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func writeFile(t testing.TB, path string, b []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, b, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

// clientHello returns the first flight of a TLS client.
func clientHello(t testing.TB) []byte {
	t.Helper()
	a, b := net.Pipe()
	ended := make(chan struct{})
	go func() {
		tls.Client(a, &tls.Config{ServerName: "edge.test"}).Handshake()
		close(ended)
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(b, head); err != nil {
		t.Fatal(err)
	}
	rest := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(b, rest); err != nil {
		t.Fatal(err)
	}
	b.Close()
	a.Close()
	<-ended
	return append(head, rest...)
}
