package pki

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Problem is something wrong with a certificate, for who has to mend it.
type Problem struct {
	What, Fix string
	Warning   bool // it can be served all the same
	// Unanchored is about a chain that ends with an issuer who is unknown here: a
	// missing intermediate, or a company's root that only its clients trust.
	Unanchored bool
}

func (p Problem) String() string {
	if p.Warning {
		return "warning: " + p.What + "; " + p.Fix
	}
	return p.What + "; " + p.Fix
}

// examination collects what is wrong.
type examination struct {
	problems []Problem
	now      time.Time
}

func (e *examination) err(fix, what string, args ...any) {
	e.problems = append(e.problems, Problem{What: fmt.Sprintf(what, args...), Fix: fix})
}

func (e *examination) warn(fix, what string, args ...any) {
	e.problems = append(e.problems, Problem{What: fmt.Sprintf(what, args...), Fix: fix, Warning: true})
}

// Examine finds, among the certificates that a CA sent, the one for one of the
// keys, puts its chain in order, and says everything that clients would
// stumble over. roots are authorities besides those this host trusts. The
// chain is what to serve, the server's own certificate first.
func Examine(certs []*x509.Certificate, keys []crypto.Signer, want Subject, roots []*x509.Certificate, now time.Time) (chain []*x509.Certificate, key crypto.Signer, problems []Problem) {
	e := &examination{now: now}
	leaf, key := e.leaf(certs, keys, want)
	if leaf == nil {
		return nil, nil, e.problems
	}
	e.server(leaf, want)
	chain = e.chain(leaf, certs)
	e.anchor(chain, roots)
	for i, c := range chain {
		e.dates(c, i == 0)
	}
	if n := len(chain); n > 2 && isRoot(chain[n-1]) {
		chain = chain[:n-1] // clients have it or do not trust it
	}
	return chain, key, e.problems
}

// leaf finds the certificate that belongs to a key.
func (e *examination) leaf(certs []*x509.Certificate, keys []crypto.Signer, want Subject) (*x509.Certificate, crypto.Signer) {
	for _, key := range keys {
		public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok {
			continue
		}
		for _, c := range certs {
			if public.Equal(c.PublicKey) {
				return c, key
			}
		}
	}
	switch i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return !c.IsCA }); {
	case len(certs) == 0:
		e.err("name the file that the CA sent", "there is no certificate in it")
	case len(keys) == 0:
		e.err(`begin with "turngate cert csr", or name the key with --key`, "there is no key for it: no request was made here")
	case i < 0:
		e.err("ask for the certificate of "+want.String(), "there are certificates of authorities only, and none of a server")
	default:
		e.err(`name the key that it was issued for with --key, or send the CA what "turngate cert csr" prints now`,
			"the certificate for %s does not match the key: it was issued for another one", strings.Join(namesOf(certs[i]), ", "))
	}
	return nil, nil
}

// server looks at the server's own certificate.
func (e *examination) server(leaf *x509.Certificate, want Subject) {
	if leaf.IsCA {
		e.err("ask for the certificate of a server", "it is the certificate of an authority (CA:TRUE): browsers refuse it as a server's")
	}
	named := len(leaf.DNSNames)+len(leaf.IPAddresses) > 0
	for _, n := range want.names() {
		switch {
		case leaf.VerifyHostname(n) == nil:
		case !named && strings.EqualFold(leaf.Subject.CommonName, n):
			e.err("have the CA issue it with the alternative names of the request", "%s stands only in the common name, which browsers do not read", n)
		default:
			e.err("have the CA issue it with the alternative names of the request (subjectAltName)", "it is not for %s, but for %s", n, listOf(namesOf(leaf)))
		}
	}
	for _, ip := range want.addrs() {
		if leaf.VerifyHostname(ip.String()) != nil {
			e.warn("let clients use the name", "it is not for the address %s", ip)
		}
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		e.err(`have the CA use a template for web servers (extended key usage "server authentication")`, "it may not be used by a server")
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		e.err(`have the CA add the key usage "digital signature"`, "its key may not sign, which TLS 1.3 and ECDHE need")
	}
	if key, ok := leaf.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		e.err("make a request with a larger key", "its RSA key has %d bits, and browsers want 2048", key.N.BitLen())
	}
	switch leaf.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.MD5WithRSA:
		e.err("have the CA sign with SHA-256", "it is signed with %s, which browsers refuse", leaf.SignatureAlgorithm)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life > 825*24*time.Hour {
		e.warn("have it issued for a year", "it is valid for %d days, and Apple's devices refuse more than 825", int(life.Hours()/24))
	}
}

// chain follows the issuers from leaf as far as they are there.
func (e *examination) chain(leaf *x509.Certificate, certs []*x509.Certificate) []*x509.Certificate {
	chain := []*x509.Certificate{leaf}
	for last := leaf; !isRoot(last) && len(chain) <= 10; last = chain[len(chain)-1] {
		i := slices.IndexFunc(certs, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, last.RawIssuer) && !slices.ContainsFunc(chain, c.Equal) &&
				(len(last.AuthorityKeyId) == 0 || len(c.SubjectKeyId) == 0 || bytes.Equal(last.AuthorityKeyId, c.SubjectKeyId))
		})
		if i < 0 {
			break
		}
		if err := last.CheckSignatureFrom(certs[i]); err != nil {
			var constraint x509.ConstraintViolationError
			if errors.As(err, &constraint) {
				e.err("get the right certificate of the CA", "%q is not allowed to issue certificates (it is not the certificate of an authority)", subject(certs[i]))
			} else {
				e.err("get the certificate of the CA that issued it", "%q did not issue %q, though it has the name of the issuer: %v", subject(certs[i]), subject(last), err)
			}
			break
		}
		chain = append(chain, certs[i])
	}
	for _, c := range certs {
		if !slices.ContainsFunc(chain, c.Equal) {
			e.warn("it is left out", "%q is not part of the chain", subject(c))
		}
	}
	return chain
}

// anchor checks that the chain leads to somebody whom clients can trust, and
// that nobody in it issued more than he may.
func (e *examination) anchor(chain, roots []*x509.Certificate) {
	last := chain[len(chain)-1]
	pool, err := x509.SystemCertPool()
	if err != nil || pool == nil {
		pool = x509.NewCertPool()
	}
	for _, r := range roots {
		pool.AddCert(r)
	}
	middle := x509.NewCertPool()
	for _, c := range chain[1:] {
		middle.AddCert(c)
	}
	o := x509.VerifyOptions{Roots: pool, Intermediates: middle, CurrentTime: within(chain[0], e.now)}
	_, err = chain[0].Verify(o)
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		if !isRoot(last) {
			e.err(fmt.Sprintf("add the certificate of %q to the file, as the CA offers it; if it is the root itself, name it with --ca", last.Issuer.String()),
				"the chain is not complete: who issued %q is not in the file, and not known to this host", subject(last))
			e.problems[len(e.problems)-1].Unanchored = true
			return
		}
		o.Roots = x509.NewCertPool()
		o.Roots.AddCert(last)
		_, err = chain[0].Verify(o)
	}
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
	case !errors.As(err, &invalid):
		e.err("ask the CA", "clients will not accept the chain: %v", err)
	case invalid.Reason == x509.Expired, invalid.Reason == x509.IncompatibleUsage:
		// said where each certificate is looked at
	case invalid.Reason == x509.CANotAuthorizedForThisName:
		e.err("have another CA issue it, or for a name that this one may", "the CA is not allowed to issue for these names (name constraints): %v", err)
	case invalid.Reason == x509.TooManyIntermediates:
		e.err("have another CA issue it", "a CA in the chain is not allowed to have another one below it: %v", err)
	case invalid.Reason == x509.NotAuthorizedToSign:
		e.err("get the right certificate of the CA", "a certificate in the chain may not issue others: %v", err)
	default:
		e.err("ask the CA", "clients will not accept the chain: %v", err)
	}
}

// dates checks the life of one certificate of the chain.
func (e *examination) dates(c *x509.Certificate, leaf bool) {
	what, fix := fmt.Sprintf("the CA's certificate %q", subject(c)), "get the present one from the CA"
	if leaf {
		what, fix = "it", "have it issued again"
	}
	switch {
	case e.now.After(c.NotAfter):
		e.err(fix, "%s ended on %s", what, c.NotAfter.Format(time.DateOnly))
	case e.now.Before(c.NotBefore):
		e.err("check the clock of this host, or wait", "%s is valid from %s only", what, c.NotBefore.Format(time.DateTime))
	case leaf && c.NotAfter.Sub(e.now) < 14*24*time.Hour:
		e.warn("have it issued again soon", "it ends on %s", c.NotAfter.Format(time.DateOnly))
	}
}

// within is the time in the life of a certificate that is nearest to now: its
// dates are one problem, and its chain another.
func within(c *x509.Certificate, now time.Time) time.Time {
	switch {
	case now.Before(c.NotBefore):
		return c.NotBefore
	case now.After(c.NotAfter):
		return c.NotAfter
	}
	return now
}

func isRoot(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

func subject(c *x509.Certificate) string { return c.Subject.String() }

func namesOf(c *x509.Certificate) []string {
	out := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	return out
}

func listOf(names []string) string {
	if len(names) == 0 {
		return "no name at all"
	}
	return strings.Join(names, ", ")
}
