package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ParseCertificates reads the certificates of a file that a CA sent: PEM, or
// one or more in DER. The error says what to do with other forms.
func ParseCertificates(name string, b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	other := ""
	for _, block := range blocks(b) {
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%s: certificate %d of the file is broken: %w", name, len(certs)+1, err)
			}
			certs = append(certs, c)
		default:
			other = block.Type
		}
	}
	if len(certs) > 0 {
		return certs, nil
	}
	if certs, err := x509.ParseCertificates(b); err == nil && len(certs) > 0 {
		return certs, nil
	}
	switch {
	case other == "PKCS7" || other == "CMS":
		return nil, fmt.Errorf("%s: is PKCS #7; first: openssl pkcs7 -print_certs -in %[1]s -out chain.pem", name)
	case other == "CERTIFICATE REQUEST" || other == "NEW CERTIFICATE REQUEST":
		return nil, fmt.Errorf("%s: is the request, not the certificate; send it to the CA", name)
	case other != "":
		return nil, fmt.Errorf("%s: holds no certificate but %q", name, other)
	case bytes.HasPrefix(b, []byte{0x30}):
		return nil, fmt.Errorf("%s: is neither PEM nor a certificate in DER form; from .p7b: openssl pkcs7 -inform der -print_certs -in %[1]s -out chain.pem; from .pfx: openssl pkcs12 -in %[1]s -nokeys -out chain.pem", name)
	}
	return nil, fmt.Errorf(`%s: holds no certificate; it must begin with "-----BEGIN CERTIFICATE-----"`, name)
}

// Keys returns the keys that a certificate can be installed for: of the request
// under way, and of what is installed, for one that was issued again.
func Keys(state string) ([]crypto.Signer, error) {
	var keys []crypto.Signer
	for _, path := range []string{pending(state), Installed(state).Key} {
		key, err := loadKey(path)
		switch {
		case err == nil:
			keys = append(keys, key)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return keys, nil
}

// Install puts a chain that was examined in place, and ends the request that
// it answers.
func Install(state string, chain []*x509.Certificate, key crypto.Signer) (Files, error) {
	files := Installed(state)
	certText, keyText, err := Encode(chain, key)
	if err != nil {
		return files, err
	}
	if err := makeDir(filepath.Dir(files.Cert)); err != nil {
		return files, err
	}
	if err := writePair(files, certText, keyText); err != nil {
		return files, err
	}
	if asked, err := loadKey(pending(state)); err == nil && keysEqual(asked, key) {
		return files, os.Remove(pending(state))
	}
	return files, nil
}

// Encode writes a chain and its key as PEM.
func Encode(chain []*x509.Certificate, key crypto.Signer) (cert, keyText []byte, err error) {
	keyText, err = keyPEM(key)
	var ders [][]byte
	for _, c := range chain {
		ders = append(ders, c.Raw)
	}
	return certPEM(ders...), keyText, err
}

func keysEqual(a, b crypto.Signer) bool {
	public, ok := a.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(b.Public())
}
