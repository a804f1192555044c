package edge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
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

const (
	selfSignedLife  = 365 * 24 * time.Hour // clients refuse more than 366 days
	selfSignedRenew = 30 * 24 * time.Hour  // before its end
	selfSignedOrg   = "turngate self-signed"
)

// SelfSigned returns the files of a self-signed certificate (ECDSA P-256) for
// the given DNS names and addresses in dir, which it makes if necessary. One
// that is there is kept, so that an exception a user made in the browser lasts,
// unless it ends within 30 days, does not cover the names, or is broken.
// created tells whether it is a new one.
func SelfSigned(dir string, names []string, addrs []netip.Addr) (pair Pair, created bool, err error) {
	pair = Pair{
		Cert: filepath.Join(dir, "selfsigned-cert.pem"),
		Key:  filepath.Join(dir, "selfsigned-key.pem"),
	}
	template, err := selfSignedTemplate(names, addrs)
	if err != nil {
		return pair, false, err
	}
	if have, err := loadPair(pair); err == nil && covers(have.leaf(), template) {
		return pair, false, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return pair, false, fmt.Errorf("directory of the self-signed certificate: %w", err)
	}
	certPEM, keyPEM, err := makeSelfSigned(template)
	if err != nil {
		return pair, false, err
	}
	// Two renames are not one: a crash between them leaves a pair that does not
	// match, and the next start makes a new one.
	if err := writeAtomically(pair.Key, keyPEM); err != nil {
		return pair, false, err
	}
	if err := writeAtomically(pair.Cert, certPEM); err != nil {
		return pair, false, err
	}
	return pair, true, nil
}

// KeepSelfSigned renews the certificate of SelfSigned in time, until ctx ends;
// then it returns nil. Certificates.Watch picks the new one up.
func KeepSelfSigned(ctx context.Context, dir string, names []string, addrs []netip.Addr, log *slog.Logger) error {
	tick := time.NewTicker(12 * time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		switch pair, created, err := SelfSigned(dir, names, addrs); {
		case err != nil:
			log.Warn("self-signed certificate not renewed", "cert", pair.Cert, "err", err)
		case created:
			log.Info("self-signed certificate renewed", "cert", pair.Cert)
		}
	}
}

func selfSignedTemplate(names []string, addrs []netip.Addr) (*x509.Certificate, error) {
	t := &x509.Certificate{
		NotBefore:             time.Now().Add(-time.Hour).Truncate(time.Second), // clients' clocks differ
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, // and no CA: whoever trusts it trusts it for these names only
	}
	t.NotAfter = t.NotBefore.Add(selfSignedLife)
	for _, n := range names {
		if n = strings.ToLower(strings.TrimSuffix(n, ".")); n != "" && !slices.Contains(t.DNSNames, n) {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	for _, a := range addrs {
		ip := net.IP(a.Unmap().WithZone("").AsSlice())
		if a.IsValid() && !slices.ContainsFunc(t.IPAddresses, ip.Equal) {
			t.IPAddresses = append(t.IPAddresses, ip)
		}
	}
	all := append(slices.Clone(t.DNSNames), ipStrings(t.IPAddresses)...)
	if len(all) == 0 {
		return nil, errors.New("self-signed certificate: neither a name nor an address to put in")
	}
	t.Subject = pkix.Name{Organization: []string{selfSignedOrg}}
	if len(all[0]) <= 64 { // the limit of a common name; clients look at the alternative names anyway
		t.Subject.CommonName = all[0]
	}
	return t, nil
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
	return now.After(have.NotBefore) && have.NotAfter.Sub(now) > selfSignedRenew
}

func makeSelfSigned(template *x509.Certificate) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	// A nil SerialNumber makes CreateCertificate draw one.
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("self-signed certificate: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// writeAtomically leaves either the old content or all of the new one, mode 0600.
func writeAtomically(path string, b []byte) (err error) {
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
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func ipStrings(ips []net.IP) []string {
	out := make([]string, len(ips))
	for i, ip := range ips {
		out[i] = ip.String()
	}
	return out
}
