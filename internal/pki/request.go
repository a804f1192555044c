package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// pending is the directory of a key whose certificate has been asked for.
func pending(state string) string { return filepath.Join(state, "csr", "key.pem") }

// Installed are the files of what Install accepted.
func Installed(state string) Files {
	return Files{Cert: filepath.Join(state, "installed", "cert.pem"), Key: filepath.Join(state, "installed", "key.pem")}
}

// Request returns a request (PKCS #10, PEM) for a certificate for a subject. Its
// key stays in the state directory; until the answer is installed, every
// request is for the same key, so that it does not matter which one the CA
// answers. fresh makes a new key and so voids the requests before.
func Request(state string, s Subject, kind KeyType, fresh bool) ([]byte, error) {
	if len(s.all()) == 0 {
		return nil, errors.New("neither a name nor an address to ask for")
	}
	path := pending(state)
	key, err := loadKey(path)
	switch {
	case err == nil && !fresh && kind != "" && keyType(key) != kind:
		return nil, fmt.Errorf("a request with an %s key is under way; --new-key gives it up", keyType(key))
	case errors.Is(err, fs.ErrNotExist), fresh:
		if key, err = newPendingKey(path, kind); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: s.commonName()},
		DNSNames:    s.names(),
		IPAddresses: s.addrs(),
	}, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

func newPendingKey(path string, kind KeyType) (crypto.Signer, error) {
	key, err := newKey(kind)
	if err != nil {
		return nil, err
	}
	b, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return key, writeAtomically(path, b)
}
