package pki

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
)

const selfSignedOrg = "turngate self-signed"

// SelfSignedFiles are those that SelfSigned makes.
func SelfSignedFiles(dir string) Files {
	return Files{
		Cert: filepath.Join(dir, "selfsigned-cert.pem"),
		Key:  filepath.Join(dir, "selfsigned-key.pem"),
	}
}

// SelfSigned returns the files of a self-signed certificate for a subject in
// dir, which it makes if necessary. One that is there is kept, so that an
// exception a user made in the browser lasts, unless it ends within 30 days,
// does not cover the names, or is broken. created tells whether it is a new one.
func SelfSigned(dir string, s Subject) (files Files, created bool, err error) {
	files = SelfSignedFiles(dir)
	if len(s.all()) == 0 {
		return files, false, errors.New("self-signed certificate: neither a name nor an address to put in")
	}
	template := serverTemplate(s)
	template.Subject.Organization = []string{selfSignedOrg}
	if have, err := tls.LoadX509KeyPair(files.Cert, files.Key); err == nil && covers(have.Leaf, template) {
		return files, false, nil
	}
	if err := makeDir(dir); err != nil {
		return files, false, fmt.Errorf("directory of the self-signed certificate: %w", err)
	}
	key, err := newKey(ECDSA)
	if err != nil {
		return files, false, err
	}
	// A nil SerialNumber makes CreateCertificate draw one.
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return files, false, fmt.Errorf("self-signed certificate: %w", err)
	}
	keyBytes, err := keyPEM(key)
	if err != nil {
		return files, false, err
	}
	return files, true, writePair(files, certPEM(der), keyBytes)
}

// writePair writes both files, the key first. Two renames are not one: a crash
// between them leaves a pair that does not match, and nobody takes it.
func writePair(f Files, cert, key []byte) error {
	if err := writeAtomically(f.Key, key); err != nil {
		return err
	}
	return writeAtomically(f.Cert, cert)
}
