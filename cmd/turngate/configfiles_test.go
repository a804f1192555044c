package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/turngate/turngate/internal/pki"
)

// What "config check" lets pass, serve must not refuse: both ask the same.
func TestConfigCheckSaysWhyACertificateCannotBeServed(t *testing.T) {
	dir := t.TempDir()
	pair := func(name string) (cert, key string) {
		f, _, err := pki.SelfSigned(filepath.Join(dir, name), pki.Subject{Names: []string{"proxy.example.com"}})
		if err != nil {
			t.Fatal(err)
		}
		return f.Cert, f.Key
	}
	cert, key := pair("a")
	_, other := pair("b")
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	content := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	open := file("open.key", content(key), 0o600)
	if err := os.Chmod(open, 0o644); err != nil { // whatever the umask
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		cert, key string
		want      string // begin of what is printed behind the file's name, "" when all is well
		fix       string // in it
	}{
		{"a pair", cert, key, "", ""},
		{"line ends of Windows", file("crlf.pem", strings.ReplaceAll(content(cert), "\n", "\r\n"), 0o644), key, "", ""},
		{"a byte order mark", file("bom.pem", "\ufeff"+content(cert), 0o644), key, "", ""},
		{"another pair's key", cert, other, ":4: tls.key: " + other + ": does not match", "name the key"},
		{"the two swapped", key, cert, ":3: tls.cert: " + key + ": holds a private key and no certificate", "swapped"},
		{"an encrypted key", cert, file("enc.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\neA==\n-----END ENCRYPTED PRIVATE KEY-----\n", 0o600), ":4: tls.key: ", "openssl pkey -in"},
		{"a key for everybody", cert, open, ":4: tls.key: " + open + ": is a private key that every user", "chmod 0640"},
		{"a request in the certificate's place", file("req.pem", "-----BEGIN CERTIFICATE REQUEST-----\neA==\n-----END CERTIFICATE REQUEST-----\n", 0o644), key, ":3: tls.cert: ", "send it to your CA"},
		{"a bundle of PKCS #7", file("chain.p7b", "-----BEGIN PKCS7-----\neA==\n-----END PKCS7-----\n", 0o644), key, ":3: tls.cert: ", "openssl pkcs7 -print_certs"},
		{"an empty file", file("empty.pem", "", 0o644), key, ":3: tls.cert: ", "-----BEGIN CERTIFICATE-----"},
	} {
		t.Run(c.name, func(t *testing.T) {
			toml := file("turngate.toml", fmt.Sprintf("domain = \"proxy.example.com\"\n[tls]\ncert = %q\nkey = %q\n", c.cert, c.key), 0o600)
			var out, stderr bytes.Buffer
			code := run([]string{"config", "check", toml}, nil, &out, &stderr)
			got := strings.TrimPrefix(out.String(), toml)
			if c.want == "" {
				if code != 0 || strings.Contains(got, "tls.") {
					t.Errorf("exit code %d, want 0 and nothing about tls:\n%s", code, out.String())
				}
				return
			}
			if code != 1 || !strings.HasPrefix(got, c.want) || !strings.Contains(got, c.fix) {
				t.Errorf("exit code %d, want 1 and %q with %q:\n%s", code, c.want, c.fix, out.String())
			}
		})
	}
}

// fullDisk is where nothing can be written to.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestAFileThatCannotBeWrittenToItsEndIsTakenAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "turngate.toml")
	err := writeNew(path, 0o600, func(w io.Writer) error {
		_, err := io.WriteString(w, "half of it")
		return errors.Join(err, syscall.ENOSPC)
	})
	if _, missing := os.Stat(path); !errors.Is(err, syscall.ENOSPC) || !errors.Is(missing, fs.ErrNotExist) {
		t.Errorf("error %v, file %v; want ENOSPC and no file", err, missing)
	}
	if err := writeConfig(path, []byte("all of it"), false); err != nil {
		t.Errorf("the next try: %v", err)
	}
	if err := writeConfig(path, []byte("another"), false); err == nil {
		t.Error("a file that exists was overwritten")
	}
	if got, err := os.ReadFile(path); string(got) != "all of it" {
		t.Errorf("got %q, %v", got, err)
	}
}
