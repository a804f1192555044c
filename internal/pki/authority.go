package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// authorityLife is how long clients can trust an authority before a new one
// has to be handed out.
const authorityLife = 10 * 365 * 24 * time.Hour

// Authority is a certificate authority of this host. Name constraints (RFC
// 5280 section 4.2.1.10) bound it to the names it was made for: whoever steals
// its key can impersonate this host and no other to those who trust it.
type Authority struct {
	Cert *x509.Certificate
	dir  string
	key  crypto.Signer
}

func authorityFiles(dir string) Files {
	return Files{Cert: filepath.Join(dir, "ca-cert.pem"), Key: filepath.Join(dir, "ca-key.pem")}
}

// OpenAuthority returns the authority in dir. Without one the error is
// fs.ErrNotExist.
func OpenAuthority(dir string) (*Authority, error) {
	f := authorityFiles(dir)
	if _, err := os.Stat(f.Cert); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate authority of this host: %w; put the files back, or move %s away and make a new one", err, dir)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("%s: is not the certificate of an authority", f.Cert)
	}
	return &Authority{pair.Leaf, dir, key}, nil
}

// NewAuthority makes an authority for a subject, and for other names and
// networks, in dir. One that is there must have been moved away.
func NewAuthority(dir string, s Subject, permit []string) (*Authority, error) {
	f := authorityFiles(dir)
	if _, err := os.Lstat(f.Cert); err == nil {
		return nil, fmt.Errorf("%s exists already", f.Cert)
	}
	if len(s.all()) == 0 {
		return nil, errors.New("neither a name nor an address to issue certificates for")
	}
	t := &x509.Certificate{
		Subject: pkix.Name{
			Organization: []string{"turngate"},
			CommonName:   "turngate CA " + time.Now().Format(time.DateOnly) + " for " + s.commonName(),
		},
		NotBefore:                   time.Now().Add(-time.Hour).Truncate(time.Second),
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         s.names(),
	}
	if len(t.Subject.CommonName) > 64 {
		t.Subject.CommonName = "turngate CA " + time.Now().Format(time.DateOnly)
	}
	t.NotAfter = t.NotBefore.Add(authorityLife)
	for _, ip := range s.addrs() {
		bits := 8 * len(ip)
		t.PermittedIPRanges = append(t.PermittedIPRanges, &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)})
	}
	for _, p := range permit {
		if err := permitToo(t, p); err != nil {
			return nil, err
		}
	}
	constrain(t)
	key, err := newKey(ECDSA)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	keyBytes, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	if err := writePair(f, certPEM(der), keyBytes); err != nil {
		return nil, err
	}
	return OpenAuthority(dir)
}

// permitToo adds a name, with all below it, an address or a prefix.
func permitToo(t *x509.Certificate, p string) error {
	if addr, err := netip.ParseAddr(p); err == nil {
		p = netip.PrefixFrom(addr, addr.BitLen()).String()
	}
	if prefix, err := netip.ParsePrefix(p); err == nil {
		prefix = prefix.Masked()
		t.PermittedIPRanges = append(t.PermittedIPRanges, &net.IPNet{
			IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
		})
		return nil
	}
	name := strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(p, "*"), "."))
	if name == "" || strings.ContainsAny(name, "/: @*") {
		return fmt.Errorf("%q is neither a name nor an address or a prefix", p)
	}
	if !slices.Contains(t.PermittedDNSDomains, name) {
		t.PermittedDNSDomains = append(t.PermittedDNSDomains, name)
	}
	return nil
}

// constrain shuts what nothing was permitted of: a kind without a constraint
// would be free.
func constrain(t *x509.Certificate) {
	if len(t.PermittedDNSDomains) == 0 {
		t.PermittedDNSDomains = []string{"invalid"} // RFC 2606: nobody's
	}
	any4 := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	any6 := &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	four := slices.ContainsFunc(t.PermittedIPRanges, func(n *net.IPNet) bool { return len(n.IP) == 4 })
	six := slices.ContainsFunc(t.PermittedIPRanges, func(n *net.IPNet) bool { return len(n.IP) == 16 })
	if !four {
		t.ExcludedIPRanges = append(t.ExcludedIPRanges, any4)
	}
	if !six {
		t.ExcludedIPRanges = append(t.ExcludedIPRanges, any6)
	}
}

// PEM is the certificate to hand out.
func (a *Authority) PEM() []byte { return certPEM(a.Cert.Raw) }

// Fingerprint is the SHA-256 of the certificate, as browsers and openssl show it.
func (a *Authority) Fingerprint() string {
	sum := sha256.Sum256(a.Cert.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":")
}

// Permits are the names, with all below them, and networks it may issue for.
func (a *Authority) Permits() []string {
	out := slices.Clone(a.Cert.PermittedDNSDomains)
	for _, n := range a.Cert.PermittedIPRanges {
		out = append(out, n.String())
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "invalid" })
}

// MayIssue reports whether a certificate for a subject would be accepted by who trusts
// the authority.
func (a *Authority) MayIssue(s Subject) bool {
	der, err := x509.CreateCertificate(rand.Reader, serverTemplate(s), a.Cert, a.key.Public(), a.key)
	return err == nil && a.accepts(der) == nil
}

// OwnFiles are those of the server certificate of the authority in dir.
func OwnFiles(dir string) Files {
	return Files{Cert: filepath.Join(dir, "server-cert.pem"), Key: filepath.Join(dir, "server-key.pem")}
}

// Server returns the files of a server certificate for a subject. One that is
// there is kept unless it ends within 30 days, does not cover the names, is of
// another authority, or is broken.
func (a *Authority) Server(s Subject) (files Files, created bool, err error) {
	files = OwnFiles(a.dir)
	template := serverTemplate(s)
	have, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err == nil && covers(have.Leaf, template) && bytes.Equal(have.Leaf.AuthorityKeyId, a.Cert.SubjectKeyId) {
		return files, false, nil
	}
	if now := time.Now(); now.After(a.Cert.NotAfter) {
		return files, false, fmt.Errorf("the certificate authority of this host ended on %s; make a new one (turngate cert ca --new) and hand it out", a.Cert.NotAfter.Format(time.DateOnly))
	}
	if template.NotAfter.After(a.Cert.NotAfter) {
		template.NotAfter = a.Cert.NotAfter
	}
	key, err := newKey(ECDSA)
	if err != nil {
		return files, false, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, key.Public(), a.key)
	if err != nil {
		return files, false, fmt.Errorf("server certificate: %w", err)
	}
	if err := a.accepts(der); err != nil {
		return files, false, fmt.Errorf("the certificate authority of this host may issue for %s only, not for %s: make a new one (turngate cert ca --new) and hand it out",
			strings.Join(a.Permits(), ", "), s)
	}
	keyBytes, err := keyPEM(key)
	if err != nil {
		return files, false, err
	}
	return files, true, writePair(files, certPEM(der, a.Cert.Raw), keyBytes)
}

// accepts reports whether who trusts the authority accepts a certificate of it.
func (a *Authority) accepts(der []byte) error {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.Cert)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots})
	return err
}

// Retire moves the authority in dir aside, where nothing uses it any more, and
// returns where to. Without one it returns "".
func Retire(dir string) (string, error) {
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	to := dir + "-until-" + time.Now().Format("20060102-150405")
	return to, os.Rename(dir, to)
}

// blocks lists the PEM blocks of b.
func blocks(b []byte) (all []*pem.Block) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return all
		}
		all = append(all, block)
	}
}
