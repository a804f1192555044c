package proxy

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"
)

// chains verifies what upstreams prove themselves with, and remembers which chains were good
// for which name: the signatures in a chain cost as much as everything else that TLS
// verifies. Who sends a remembered chain must still prove in the same handshake that it has the
// key of its first certificate, so that any other server, and any exchanged
// certificate, is noticed before a byte of a request (decision 45). What is remembered is what
// [x509.Certificate.Verify] found with these roots, this name and these certificates, byte
// for byte, and only as long as all of them are valid. It may be used from many goroutines.
type chains struct {
	roots *x509.CertPool // nil: the system's; not changed

	mu   sync.Mutex // guards good
	good map[chain]period
}

// A chain is the name that was asked for and the certificates that came for it, hashed.
type chain [sha256.Size]byte

// A period is when a chain is good, both ends included.
type period struct{ from, until time.Time }

const (
	maxChains   = 256              // some servers behind one name have a certificate each
	chainMemory = 10 * time.Minute // a distrust that the platform's verifier learns of meanwhile
)

func newChains(roots *x509.CertPool) *chains {
	return &chains{roots: roots, good: make(map[chain]period)}
}

// verify returns the error that crypto/tls would, for the certificates of a server that was asked for
// by name, at a time.
func (c *chains) verify(name string, certs []*x509.Certificate, now time.Time) error {
	key := chainOf(name, certs)
	if c.known(key, now) {
		return nil
	}
	between := x509.NewCertPool()
	for _, cert := range certs[1:] {
		between.AddCert(cert)
	}
	found, err := certs[0].Verify(x509.VerifyOptions{Roots: c.roots, CurrentTime: now, DNSName: name, Intermediates: between})
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: certs, Err: err}
	}
	p := period{now, now.Add(chainMemory)}
	for _, cert := range found[0] {
		if cert.NotAfter.Before(p.until) {
			p.until = cert.NotAfter
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.good) >= maxChains {
		clear(c.good) // the ones in use are back soon
	}
	c.good[key] = p
	return nil
}

func (c *chains) known(key chain, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.good[key]
	return ok && !now.Before(p.from) && !now.After(p.until)
}

func chainOf(name string, certs []*x509.Certificate) (key chain) {
	h := sha256.New()
	asked := sha256.Sum256([]byte(name)) // all of one length
	h.Write(asked[:])
	for _, cert := range certs {
		h.Write(cert.Raw) // DER says where it ends
	}
	h.Sum(key[:0])
	return key
}
