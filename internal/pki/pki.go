// Package pki makes keys and certificates on this host, in files below a
// directory: a self-signed certificate, a certificate authority of its own
// with a server certificate, a request for another authority, and what that
// one answered, once it has been examined.
//
// Keys are ECDSA P-256 unless somebody asks for RSA, and only their owner can
// read them. A file is replaced whole or not at all.
package pki

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Files are a certificate with its chain, and its key.
type Files struct{ Cert, Key string }

// Subject is what a server certificate is for.
type Subject struct {
	Names []string // DNS names
	Addrs []netip.Addr
}

// all are the names and addresses in one list, names first.
func (s Subject) all() []string {
	out := s.names()
	for _, ip := range s.addrs() {
		out = append(out, ip.String())
	}
	return out
}

func (s Subject) String() string { return strings.Join(s.all(), ", ") }

// names are the DNS names, each once and in lower case.
func (s Subject) names() []string {
	var out []string
	for _, n := range s.Names {
		if n = strings.ToLower(strings.TrimSuffix(n, ".")); n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func (s Subject) addrs() []net.IP {
	var out []net.IP
	for _, a := range s.Addrs {
		ip := net.IP(a.Unmap().WithZone("").AsSlice())
		if a.IsValid() && !slices.ContainsFunc(out, ip.Equal) {
			out = append(out, ip)
		}
	}
	return out
}

// commonName is the first name if a common name may be as long; clients look
// at the alternative names anyway.
func (s Subject) commonName() string {
	if all := s.all(); len(all) > 0 && len(all[0]) <= 64 {
		return all[0]
	}
	return ""
}

const (
	serverLife  = 365 * 24 * time.Hour // clients refuse more than 366 days
	serverRenew = 30 * 24 * time.Hour  // before its end
)

// serverTemplate is a server certificate that begins now.
func serverTemplate(s Subject) *x509.Certificate {
	t := &x509.Certificate{
		NotBefore:             time.Now().Add(-time.Hour).Truncate(time.Second), // clients' clocks differ
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, // and no CA: whoever trusts it trusts it for these names only
		DNSNames:              s.names(),
		IPAddresses:           s.addrs(),
	}
	t.NotAfter = t.NotBefore.Add(serverLife)
	t.Subject.CommonName = s.commonName()
	return t
}

// covers reports whether have serves as well as one made from want now.
func covers(have, want *x509.Certificate) bool {
	for _, n := range want.DNSNames {
		if !slices.Contains(have.DNSNames, n) {
			return false
		}
	}
	for _, ip := range want.IPAddresses {
		if !slices.ContainsFunc(have.IPAddresses, ip.Equal) {
			return false
		}
	}
	now := time.Now()
	return now.After(have.NotBefore) && have.NotAfter.Sub(now) > serverRenew
}

// Keep calls renew twice a day until ctx ends; then it returns nil. renew says
// whether it made something new, which is logged as what.
func Keep(ctx context.Context, what string, renew func() (created bool, err error), log *slog.Logger) error {
	tick := time.NewTicker(12 * time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		switch created, err := renew(); {
		case err != nil:
			log.Warn(what+" not renewed", "err", err)
		case created:
			log.Info(what + " renewed")
		}
	}
}

// KeyType is a kind of key.
type KeyType string

// Kinds of keys. Some company CAs issue for RSA only.
const (
	ECDSA KeyType = "ecdsa"
	RSA   KeyType = "rsa"
)

func newKey(kind KeyType) (crypto.Signer, error) {
	switch kind {
	case ECDSA, "":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RSA:
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return nil, fmt.Errorf("key type %q: write ecdsa or rsa", kind)
}

func keyType(key crypto.Signer) KeyType {
	if _, ok := key.(*rsa.PrivateKey); ok {
		return RSA
	}
	return ECDSA
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func certPEM(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// ParseKey reads a PEM private key of any usual form.
func ParseKey(b []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return nil, fmt.Errorf("no PEM private key in it")
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, fmt.Errorf("the private key is encrypted with a passphrase: openssl pkey -in FILE -out key.pem")
		}
		var key any
		var err error
		switch block.Type {
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		default:
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		}
		if err != nil {
			return nil, err
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("a key of the type %T does not sign", key)
		}
		return signer, nil
	}
}

func loadKey(path string) (crypto.Signer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := ParseKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// makeDir makes dir for its owner only, who is that of the directory above.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return ownLike(dir, filepath.Dir(dir))
}

// writeAtomically leaves either the old content or all of the new one, mode
// 0600, and the owner of the directory: the service's, when root runs a command.
func writeAtomically(path string, b []byte) error { return replace(path, b, 0o600, filepath.Dir(path)) }

// WriteSecret writes a file that not everybody can read, whole or not at all.
// An existing one keeps its owner and group, and its mode but for what
// everybody may.
func WriteSecret(path string, b []byte) error { return WriteSecretLike(path, b, path) }

// WriteSecretLike is [WriteSecret] with the owner, the group and the mode of another file.
func WriteSecretLike(path string, b []byte, like string) error {
	if info, err := os.Stat(like); err == nil {
		return replace(path, b, info.Mode().Perm()&^0o007, like)
	}
	return writeAtomically(path, b)
}

func replace(path string, b []byte, mode os.FileMode, like string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := ownLike(f.Name(), like); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
