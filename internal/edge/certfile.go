package edge

import (
	"bytes"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"
)

// certificate is a loaded pair; never changed once made.
type certificate struct {
	tls.Certificate
	when  time.Time // when it was loaded
	chain Chain
}

// Chain says whether clients can follow a certificate to somebody they trust.
type Chain string

const (
	ChainComplete   Chain = "complete"    // to an authority that this host trusts
	ChainPrivate    Chain = "private"     // to an authority in the file, whom clients have to be told to trust
	ChainSelfSigned Chain = "self-signed" // the certificate is its own authority
	ChainIncomplete Chain = "incomplete"  // to somebody who is neither in the file nor known here
)

// chainOf follows the chain of a loaded pair. Dates do not matter.
func chainOf(c tls.Certificate) Chain {
	if selfSigned(c.Leaf) {
		return ChainSelfSigned
	}
	o := x509.VerifyOptions{Intermediates: x509.NewCertPool(), CurrentTime: c.Leaf.NotAfter}
	private := x509.NewCertPool()
	for _, der := range c.Certificate[1:] {
		if above, err := x509.ParseCertificate(der); err == nil {
			o.Intermediates.AddCert(above)
			if selfSigned(above) {
				private.AddCert(above)
			}
		}
	}
	if _, err := c.Leaf.Verify(o); err == nil { // the system's roots
		return ChainComplete
	}
	o.Roots = private
	if _, err := c.Leaf.Verify(o); err == nil {
		return ChainPrivate
	}
	return ChainIncomplete
}

func (c *certificate) leaf() *x509.Certificate { return c.Leaf }

// loadPair reads and checks a pair. The error is a *FileError.
func loadPair(p Pair) (*certificate, error) {
	certPEM, err := readFile(p.Cert, false)
	if err != nil {
		return nil, err
	}
	if err := checkCertPEM(p.Cert, certPEM); err != nil {
		return nil, err // before the key: the two may be swapped
	}
	keyPEM, err := readFile(p.Key, true)
	if err != nil {
		return nil, err
	}
	if err := checkKeyPEM(p.Key, keyPEM); err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, explainPair(p, certPEM, keyPEM, err)
	}
	return &certificate{cert, time.Now(), chainOf(cert)}, nil
}

// readFile reads a small regular file and says who may not read it and why.
func readFile(path string, secret bool) ([]byte, error) {
	const maxBytes = 1 << 20
	if path == "" {
		return nil, &FileError{Path: `""`, What: "no file named", Fix: "name the PEM file", Err: fs.ErrNotExist}
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, explainOpen(path, nil, err)
	}
	if !info.Mode().IsRegular() {
		return nil, &FileError{Path: path, What: "is not a file (" + info.Mode().Type().String() + ")", Fix: "name the PEM file itself"}
	}
	if perm := info.Mode().Perm(); secret && perm&0o007 != 0 && runtime.GOOS != "windows" { // modes mean nothing there
		return nil, &FileError{
			Path: path,
			What: fmt.Sprintf("is a private key that every user of this machine can reach (%s)", owner(info)),
			Fix:  fmt.Sprintf("chmod %04o %s", perm&^0o007, path),
			Err:  ErrKeyExposed,
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, explainOpen(path, info, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	switch {
	case err != nil:
		return nil, explainOpen(path, info, err)
	case len(b) > maxBytes:
		return nil, &FileError{Path: path, What: "is larger than 1 MiB", Fix: "name the PEM file"}
	}
	return bytes.TrimPrefix(b, []byte("\ufeff")), nil // editors of Windows begin files so
}

func explainOpen(path string, info fs.FileInfo, err error) error {
	e := &FileError{Path: path, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.What, e.Fix = "does not exist", "check the path and put the file there"
	case errors.Is(err, fs.ErrPermission) && info == nil:
		e.What = fmt.Sprintf("a directory above it may not be entered by %s", whoami())
		e.Fix = "namei -l " + path + " shows which; give that user access to it"
	case errors.Is(err, fs.ErrPermission):
		e.What = fmt.Sprintf("may not be read by %s (%s)", whoami(), owner(info))
		e.Fix = "give that user's group the file, for example: chgrp turngate " + path + " && chmod 0640 " + path
	default:
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err // the path is named already
		}
		e.What, e.Fix = err.Error(), "make the file readable"
	}
	return e
}

func checkCertPEM(path string, b []byte) error {
	certs, keys := countPEM(b)
	switch {
	case certs > 0:
		return nil
	case keys > 0:
		return &FileError{Path: path, What: "holds a private key and no certificate", Fix: "put the certificate chain here; perhaps the two paths are swapped"}
	}
	for block := range blocks(b) {
		switch block.Type {
		case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
			return &FileError{Path: path, What: "is a request for a certificate, not a certificate", Fix: "send it to your CA, and name here what comes back"}
		case "PKCS7":
			return &FileError{Path: path, What: "holds its certificates as PKCS #7", Fix: "openssl pkcs7 -print_certs -in " + path + " -out fullchain.pem"}
		}
	}
	if _, err := x509.ParseCertificates(b); err == nil && len(b) > 0 {
		return &FileError{Path: path, What: "is a certificate in DER form, not PEM", Fix: "openssl x509 -inform der -in " + path + " -out fullchain.pem"}
	}
	return &FileError{Path: path, What: "holds no PEM certificate", Fix: `it must begin with "-----BEGIN CERTIFICATE-----"; a .pfx or .p12 file has to be converted with openssl pkcs12`}
}

func checkKeyPEM(path string, b []byte) error {
	certs, keys := countPEM(b)
	switch {
	case encryptedKey(b):
		return &FileError{Path: path, What: "the private key is encrypted with a passphrase", Fix: "openssl pkey -in " + path + " -out privkey.pem, then chmod 0600 privkey.pem"}
	case keys > 0:
		return nil
	case certs > 0:
		return &FileError{Path: path, What: "holds a certificate and no private key", Fix: "put the private key here; perhaps the two paths are swapped"}
	}
	return &FileError{Path: path, What: "holds no PEM private key", Fix: `it must begin with "-----BEGIN PRIVATE KEY-----" (or EC, RSA); from DER: openssl pkey -inform der -in ` + path}
}

func countPEM(b []byte) (certs, keys int) {
	for block := range blocks(b) {
		switch {
		case block.Type == "CERTIFICATE":
			certs++
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			keys++
		}
	}
	return certs, keys
}

func encryptedKey(b []byte) bool {
	for block := range blocks(b) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return true
		}
	}
	return false
}

func blocks(b []byte) func(func(*pem.Block) bool) {
	return func(yield func(*pem.Block) bool) {
		for {
			var block *pem.Block
			if block, b = pem.Decode(b); block == nil || !yield(block) {
				return
			}
		}
	}
}

// explainPair finds out why two well-formed files make no pair.
func explainPair(p Pair, certPEM, keyPEM []byte, err error) error {
	var chain [][]byte
	for block := range blocks(certPEM) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return &FileError{Path: p.Cert, What: fmt.Sprintf("certificate %d of the file is broken: %v", len(chain)+1, err), Fix: "get the file again from whoever issued it", Err: err}
		}
		chain = append(chain, pem.EncodeToMemory(block))
	}
	for i, one := range chain {
		if i == 0 {
			continue
		}
		if _, err := tls.X509KeyPair(one, keyPEM); err == nil {
			return &FileError{Path: p.Cert, What: fmt.Sprintf("the server's own certificate is number %d of the file", i+1), Fix: "put it first, then the intermediate ones in order"}
		}
	}
	if strings.Contains(err.Error(), "does not match") {
		return &FileError{Path: p.Key, What: "does not match the certificate in " + p.Cert, Fix: "name the key that the certificate was issued for"}
	}
	return &FileError{Path: p.Key, What: strings.TrimPrefix(err.Error(), "tls: "), Fix: "use an ECDSA P-256 or RSA 2048 key", Err: err}
}

// warnings is what an operator should know about a pair that works.
func (c *certificate) warnings(now time.Time) []string {
	var out []string
	warn := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	leaf := c.leaf()
	const day = 24 * time.Hour
	switch left := leaf.NotAfter.Sub(now); {
	case left <= 0:
		warn("it expired on %s: clients refuse it", leaf.NotAfter.Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		warn("it is valid from %s only: clients refuse it until then; is the clock right?", leaf.NotBefore.Format(time.DateTime))
	case left < 14*day && leaf.NotAfter.Sub(leaf.NotBefore) > 28*day:
		warn("it expires on %s", leaf.NotAfter.Format(time.DateOnly))
	}
	if len(names(leaf)) == 0 {
		warn("it names no host (subjectAltName): browsers refuse it")
	}
	if key, ok := leaf.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		warn("its RSA key has %d bits: browsers want 2048", key.N.BitLen())
	}
	if len(c.Certificate.Certificate) == 1 && !selfSigned(leaf) {
		warn("its file holds no intermediate certificate: unless the issuer %q is a root that every client knows, clients refuse it; use fullchain.pem", leaf.Issuer.String())
	}
	return out
}

// names returns the DNS names and addresses of a certificate.
func names(leaf *x509.Certificate) []string {
	out := append([]string{}, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		out = append(out, ip.String())
	}
	return out
}

func selfSigned(leaf *x509.Certificate) bool {
	return bytes.Equal(leaf.RawSubject, leaf.RawIssuer) &&
		leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil
}

// signature tells whether the files of a pair may have changed; a file that
// cannot be looked at is nil.
type signature struct{ cert, key fs.FileInfo }

func stat(p Pair) (s signature) {
	s.cert, _ = os.Stat(p.Cert) // loading says what is wrong
	s.key, _ = os.Stat(p.Key)
	return s
}

func (s signature) same(o signature) bool {
	same := func(a, b fs.FileInfo) bool {
		if a == nil || b == nil {
			return a == nil && b == nil
		}
		return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) &&
			a.Size() == b.Size() && a.Mode() == b.Mode()
	}
	return same(s.cert, o.cert) && same(s.key, o.key)
}
