package edge

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestPairsThatCannotBeUsed(t *testing.T) {
	ca := newTestCA(t)
	good := ca.issue(t, "ecdsa", "good.test")
	other := ca.issue(t, "ecdsa", "other.test")
	certPEM, keyPEM := read(t, good.Cert), read(t, good.Key)
	leafPEM, rootPEM := splitChain(t, certPEM)
	file := func(name string, b []byte, mode os.FileMode) string {
		p := filepath.Join(t.TempDir(), name)
		writeFile(t, p, b, mode)
		return p
	}
	der := leafDER(t, certPEM)
	for _, c := range []struct {
		name string
		pair Pair
		path string // of the error
		want string // in the error
	}{
		{"no certificate file", Pair{"/nowhere/cert.pem", good.Key}, "/nowhere/cert.pem", "does not exist"},
		{"no key file", Pair{good.Cert, "/nowhere/key.pem"}, "/nowhere/key.pem", "does not exist"},
		{"no name", Pair{"", good.Key}, `""`, "no file named"},
		{"a directory", Pair{t.TempDir(), good.Key}, "", "is not a file"},
		{"a device", Pair{"/dev/zero", good.Key}, "/dev/zero", "is not a file"},
		{"a key that everybody can read", Pair{good.Cert, file("open.key", keyPEM, 0o644)}, "", "chmod 0640"},
		{"not PEM", Pair{file("text.crt", []byte("hello"), 0o644), good.Key}, "", "no PEM certificate"},
		{"an empty file", Pair{file("empty.crt", nil, 0o644), good.Key}, "", "no PEM certificate"},
		{"DER", Pair{file("der.crt", der, 0o644), good.Key}, "", "openssl x509 -inform der"},
		{"key not PEM", Pair{good.Cert, file("text.key", []byte("hello"), 0o600)}, "", "no PEM private key"},
		{"cert and key swapped", Pair{good.Key, good.Cert}, "", "private key"},
		{"certificate in the place of the key", Pair{good.Cert, file("cert.key", certPEM, 0o600)}, "", "paths are swapped"},
		{"an encrypted key", Pair{good.Cert, file("enc.key", toPEM("ENCRYPTED PRIVATE KEY", []byte("x")), 0o600)}, "", "passphrase"},
		{"another certificate's key", Pair{good.Cert, other.Key}, other.Key, "does not match the certificate in " + good.Cert},
		{"the chain in the wrong order", Pair{file("wrong.crt", append(rootPEM, leafPEM...), 0o644), good.Key}, "", "own certificate is number 2"},
		{"a broken certificate", Pair{file("broken.crt", toPEM("CERTIFICATE", der[:len(der)-3]), 0o644), good.Key}, "", "certificate 1 of the file is broken"},
		{"a broken key", Pair{good.Cert, file("broken.key", toPEM("PRIVATE KEY", []byte("x")), 0o600)}, "", "failed to parse private key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := LoadCertificates([]Pair{c.pair}, CertificateOptions{Log: discard})
			var fe *FileError
			if !errors.As(err, &fe) {
				t.Fatalf("error %v, want a *FileError", err)
			}
			if c.path != "" && fe.Path != c.path {
				t.Errorf("the error names %s, want %s", fe.Path, c.path)
			}
			if !strings.Contains(err.Error(), c.want) || fe.Fix == "" {
				t.Errorf("error %q with fix %q, want %q in it and a fix", err, fe.Fix, c.want)
			}
			if strings.Contains(err.Error(), string(bytes.TrimSpace(keyPEM))) {
				t.Error("the error shows the key")
			}
		})
	}
	t.Run("every bad pair is reported at once", func(t *testing.T) {
		_, err := LoadCertificates([]Pair{{"/a", "/b"}, good, {good.Cert, other.Key}, good}, CertificateOptions{})
		for _, want := range []string{"/a: does not exist", "does not match", "listed twice"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q in it", err, want)
			}
		}
	})
	t.Run("no pair at all", func(t *testing.T) {
		if _, err := LoadCertificates(nil, CertificateOptions{}); err == nil {
			t.Error("no error")
		}
	})
}

func TestUnreadableFileNamesOwnerAndMode(t *testing.T) {
	if os.Geteuid() == 0 {
		// Root reads everything: ask the explanation itself.
		path := filepath.Join(t.TempDir(), "key.pem")
		writeFile(t, path, nil, 0o600)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		got := explainOpen(path, info, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}).Error()
		if want := "may not be read by user root (owner root:root, mode 0600)"; !strings.Contains(got, want) {
			t.Errorf("error %q, want %q in it", got, want)
		}
		return
	}
	ca := newTestCA(t)
	p := ca.issue(t, "ecdsa", "a.test")
	os.Chmod(p.Key, 0)
	_, err := LoadCertificates([]Pair{p}, CertificateOptions{})
	if err == nil || !strings.Contains(err.Error(), "mode 0000") || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("error %v, want one that names the mode", err)
	}
}

func TestWarningsDoNotKeepFromServing(t *testing.T) {
	ca := newTestCA(t)
	for _, c := range []struct {
		name, want string
		notAfter   time.Duration
		chain      bool
	}{
		{"expired", "it expired on", -time.Hour, true},
		{"about to expire", "it expires on", 72 * time.Hour, true},
		{"without its intermediate", "no intermediate certificate", 60 * 24 * time.Hour, false},
		{"nothing to say", "", 60 * 24 * time.Hour, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			certPEM, keyPEM := ca.make(t, "ecdsa", time.Now().Add(c.notAfter), "a.test")
			if !c.chain {
				certPEM, _ = splitChain(t, certPEM)
			}
			p := Pair{filepath.Join(t.TempDir(), "c"), filepath.Join(t.TempDir(), "k")}
			writeFile(t, p.Cert, certPEM, 0o644)
			writeFile(t, p.Key, keyPEM, 0o640) // the group may read a key
			certs, err := LoadCertificates([]Pair{p}, CertificateOptions{Log: discard})
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(certs.State()[0].Warnings, "; ")
			if !strings.Contains(got, c.want) || c.want == "" && got != "" {
				t.Errorf("warnings %q, want %q", got, c.want)
			}
			checked, err := CheckCertificates([]Pair{p})
			if err != nil || strings.Join(checked[p], "; ") != got {
				t.Errorf("CheckCertificates says %q (%v), State says %q", checked[p], err, got)
			}
		})
	}
}

func TestGetCertificateChooses(t *testing.T) {
	ca := newTestCA(t)
	// RSA is listed first everywhere: the preference is not the order.
	certs, err := LoadCertificates([]Pair{
		ca.issue(t, "rsa", "both.test"),
		ca.issue(t, "rsa", "old.test"),
		ca.issue(t, "ecdsa", "both.test", "*.wild.test"),
	}, CertificateOptions{Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, nil, func(o *Options) { o.Certificates = certs })
	w.ca = ca
	ecdsaOnly := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	rsaOnly := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for _, c := range []struct {
		name, sni string
		suites    []uint16 // TLS 1.2 with these
		want      string   // name in the certificate
		wantECDSA bool
	}{
		{"ECDSA where both fit", "both.test", nil, "both.test", true},
		{"RSA for a client that knows no ECDSA", "both.test", rsaOnly, "both.test", false},
		{"ECDSA for one that knows nothing else", "both.test", ecdsaOnly, "both.test", true},
		{"by name", "old.test", nil, "old.test", false},
		{"by wildcard", "x.wild.test", nil, "*.wild.test", true},
		{"the preferred one without SNI", "", nil, "both.test", true},
		{"the preferred one for an unknown name", "unknown.test", nil, "both.test", true},
		{"one the client can verify for an unknown name", "unknown.test", rsaOnly, "both.test", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := &tls.Config{ServerName: c.sni, InsecureSkipVerify: true, CipherSuites: c.suites}
			if c.suites != nil {
				conf.MaxVersion = tls.VersionTLS12
			}
			conn := tls.Client(w.dial(t), conf)
			if err := conn.Handshake(); err != nil {
				t.Fatal(err)
			}
			leaf := conn.ConnectionState().PeerCertificates[0]
			_, isECDSA := leaf.PublicKey.(*ecdsa.PublicKey)
			if isECDSA != c.wantECDSA || !strings.Contains(strings.Join(leaf.DNSNames, " "), c.want) {
				t.Errorf("got a certificate for %v, ECDSA %v; want %s, %v", leaf.DNSNames, isECDSA, c.want, c.wantECDSA)
			}
		})
	}
}

// serial returns the number of the certificate that a new connection gets.
func (w *world) serial(t *testing.T) string {
	t.Helper()
	return w.dialTLS(t, "http/1.1").ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestSwapUnderLiveConnections(t *testing.T) {
	w := start(t, nil, nil)
	certs := w.opts.Certificates
	p := certs.files[0].pair
	live := w.dialTLS(t, "http/1.1")
	roundTrip(t, live)
	first := w.serial(t)

	newCert, newKey := w.ca.make(t, "ecdsa", time.Now().Add(24*time.Hour), "edge.test")
	writeFile(t, p.Cert, newCert, 0o644)
	if err := certs.Reload(); err == nil || !strings.Contains(err.Error(), "does not match") {
		t.Errorf("Reload of half a change: %v, want that the key does not match", err)
	}
	if got := w.serial(t); got != first {
		t.Error("half a change was served")
	}
	if got := certs.State()[0].Error; !strings.Contains(got, "does not match") {
		t.Errorf("state says %q, want the error of the reload", got)
	}
	if got := gauges(t, CertificateMetrics(certs))["turngate_certificate_load_failed"]; got != 1 {
		t.Errorf("load_failed = %v, want 1", got)
	}

	writeFile(t, p.Key, newKey, 0o600)
	if err := certs.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := w.serial(t); got == first {
		t.Error("the new certificate is not served after Reload")
	}
	if got := certs.State()[0]; got.Error != "" || got.Names[0] != "edge.test" {
		t.Errorf("state %+v, want the new certificate without an error", got)
	}
	m := gauges(t, CertificateMetrics(certs))
	if m["turngate_certificate_load_failed"] != 0 || m["turngate_certificate_not_after_seconds"] != float64(certs.State()[0].NotAfter.Unix()) {
		t.Errorf("metrics %v do not show the new certificate", m)
	}
	roundTrip(t, live)
}

func TestSetIsAllOrNothing(t *testing.T) {
	ca := newTestCA(t)
	a, b := ca.issue(t, "ecdsa", "a.test"), ca.issue(t, "ecdsa", "b.test")
	certs, err := LoadCertificates([]Pair{a}, CertificateOptions{Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	if err := certs.Set([]Pair{b, {"/nowhere", "/nowhere"}}); err == nil {
		t.Fatal("no error")
	}
	if got := certs.State(); len(got) != 1 || got[0].Cert != a.Cert {
		t.Errorf("after a failed Set: %+v, want the list before", got)
	}
	if err := certs.Set([]Pair{a, b}); err != nil {
		t.Fatal(err)
	}
	if got := certs.State(); len(got) != 2 {
		t.Errorf("%d pairs after Set, want 2", len(got))
	}
}

func TestWatchFollowsTheFiles(t *testing.T) {
	ca := newTestCA(t)
	p := ca.issue(t, "ecdsa", "a.test")
	fresh, broken := ca.issue(t, "ecdsa", "fresh.test"), []byte("-----BEGIN CERT")
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		const interval = 5 * time.Second
		certs, err := LoadCertificates([]Pair{p}, CertificateOptions{Interval: interval, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- certs.Watch(ctx) }()
		polls := func(n int) {
			time.Sleep(time.Duration(n) * interval)
			synctest.Wait()
		}
		served := func() string { return certs.State()[0].Names[0] }
		count := func(msg string) int { return strings.Count(log.String(), msg) }
		polls(3)
		if n := count("certificate loaded"); n != 1 {
			t.Errorf("loaded %d times though nothing changed, want once", n)
		}

		good := read(t, p.Cert)
		replace(t, p.Cert, broken, 0o644)
		polls(5)
		if got := served(); got != "a.test" {
			t.Errorf("serves %s after a broken file, want a.test", got)
		}
		if certs.State()[0].Error == "" {
			t.Error("state shows no error for a broken file")
		}
		if n := count("certificate not loaded"); n != 1 {
			t.Errorf("warned %d times about one broken file, want once:\n%s", n, log.String())
		}

		replace(t, p.Cert, good, 0o644)
		polls(2)
		if got := certs.State()[0].Error; got != "" {
			t.Errorf("state still shows %q after the repair", got)
		}

		replace(t, p.Key, read(t, fresh.Key), 0o600)
		polls(1) // seen, and let finish
		replace(t, p.Cert, read(t, fresh.Cert), 0o644)
		polls(2)
		if got := served(); got != "fresh.test" {
			t.Errorf("serves %s, want the new certificate", got)
		}
		if n := count("certificate not loaded"); n != 1 {
			t.Errorf("warned about a pair that was just being replaced:\n%s", log.String())
		}

		os.Remove(p.Key)
		polls(2)
		if got := served(); got != "fresh.test" || !strings.Contains(certs.State()[0].Error, "does not exist") {
			t.Errorf("after the key was removed: serves %s, error %q", got, certs.State()[0].Error)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch returned %v, want nil", err)
		}
	})
}

// The way certbot and Kubernetes switch: a symbolic link.
func TestWatchFollowsLinks(t *testing.T) {
	ca := newTestCA(t)
	a, b := ca.issue(t, "ecdsa", "a.test"), ca.issue(t, "ecdsa", "b.test")
	dir := t.TempDir()
	p := Pair{filepath.Join(dir, "cert"), filepath.Join(dir, "key")}
	link := func(to Pair) {
		for at, to := range map[string]string{p.Cert: to.Cert, p.Key: to.Key} {
			os.Remove(at)
			if err := os.Symlink(to, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	link(a)
	certs, err := LoadCertificates([]Pair{p}, CertificateOptions{Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	link(b)
	certs.poll()
	certs.poll()
	if got := certs.State()[0].Names[0]; got != "b.test" {
		t.Errorf("serves %s, want b.test", got)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// replace swaps a file the way careful programs do; a new inode makes the
// change visible whatever the clock's grain.
func replace(t *testing.T, path string, b []byte, mode os.FileMode) {
	t.Helper()
	writeFile(t, path+".new", b, mode)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func splitChain(t *testing.T, chain []byte) (leaf, rest []byte) {
	t.Helper()
	end := []byte("-----END CERTIFICATE-----\n")
	i := bytes.Index(chain, end) + len(end)
	return bytes.Clone(chain[:i]), bytes.Clone(chain[i:])
}

func leafDER(t *testing.T, chain []byte) []byte {
	t.Helper()
	for block := range blocks(chain) {
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			t.Fatal(err)
		}
		return block.Bytes
	}
	t.Fatal("no certificate")
	return nil
}

func gauges(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	if err := reg.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, f := range families {
		out[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
	}
	return out
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
