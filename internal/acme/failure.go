package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"github.com/mholt/acmez/v3/acme"
)

// explain says in an operator's words why an order failed and what to do.
func explain(name string, o Order, err error) *Failure {
	f := &Failure{What: err.Error()}
	var problem acme.Problem
	if errors.As(err, &problem) {
		f.What, f.Fix = problemText(problem), problemFix(name, o, problem)
		return f
	}
	host := o.CA
	if u, parseErr := url.Parse(o.CA); parseErr == nil {
		host = u.Host
	}
	var (
		dns     *net.DNSError
		unknown x509.UnknownAuthorityError
		wrong   x509.HostnameError
		alert   *tls.CertificateVerificationError
		op      *net.OpError
	)
	switch {
	case errors.As(err, &dns):
		f.What = fmt.Sprintf("the name of the CA, %s, cannot be resolved here: %v", dns.Name, dns.Err)
		f.Fix = "give this host a DNS server that knows it, or set HTTPS_PROXY for the service"
	case errors.As(err, &unknown), errors.As(err, &wrong), errors.As(err, &alert):
		f.What = fmt.Sprintf("the certificate of %s is not trusted: %v", host, rootCause(err))
		f.Fix = "name the authority of a private ACME server in tls.acme.ca_root; or a firewall inspects TLS to " + host + ": exempt it"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOSPC):
		f.Fix = "make " + o.Dir + " writable for the user of the service, with free space"
	case errors.As(err, &op):
		f.What = fmt.Sprintf("the CA, %s, cannot be reached: %v", host, rootCause(err))
		f.Fix = "open TCP from this host to " + host + ", or set HTTPS_PROXY for the service"
	case errors.Is(err, context.DeadlineExceeded):
		f.What = fmt.Sprintf("the CA, %s, did not finish in time", host)
		f.Fix = "open TCP from this host to " + host + ", or wait: it is tried again"
	default:
		f.Fix = "see the log at level debug; it is tried again"
	}
	return f
}

// rootCause is the innermost error: the way there is known.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

func problemText(p acme.Problem) string {
	kind := strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace)
	text := fmt.Sprintf("the CA says %s: %s", kind, p.Detail)
	for _, sub := range p.Subproblems {
		text += "; " + sub.Detail
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}

func problemFix(name string, o Order, p acme.Problem) string {
	reach := fmt.Sprintf("port 443 of %s must lead to this host (port %d here) from the Internet, without a proxy that ends TLS", name, o.TLSPort)
	if o.TLSPort == 0 {
		reach = fmt.Sprintf("port 80 of %s must lead to this host (port %d here) from the Internet", name, o.HTTPPort)
	}
	switch p.Type {
	case acme.ProblemTypeConnection:
		return "the CA could not connect: " + reach
	case acme.ProblemTypeUnauthorized, acme.ProblemTypeIncorrectResponse, acme.ProblemTypeTLS:
		return "another server answered the CA: check the addresses (A and AAAA) of " + name + " in DNS; " + reach
	case acme.ProblemTypeDNS:
		return "give " + name + " an address (A or AAAA) in the public DNS"
	case acme.ProblemTypeCAA:
		return "the CAA record of " + name + " in DNS forbids this CA: add it there"
	case acme.ProblemTypeRateLimited:
		return "too many orders or failures: wait, it is tried again; try with the staging server of the CA first"
	case acme.ProblemTypeRejectedIdentifier, acme.ProblemTypeUnsupportedIdentifier:
		return "this CA issues no certificate for " + name + ": check the name, or use another CA"
	case acme.ProblemTypeExternalAccountRequired:
		return "get external account keys from the CA and write tls.acme.eab_key_id and eab_key"
	case acme.ProblemTypeInvalidContact, acme.ProblemTypeUnsupportedContact:
		return "correct tls.acme.email"
	case acme.ProblemTypeUserActionRequired:
		return "the CA changed its terms of service: read and accept them at " + p.Instance
	case acme.ProblemTypeServerInternal:
		return "the CA has a problem of its own: wait, it is tried again"
	}
	return "see what the CA says; it is tried again"
}

func itoa(n int) string { return strconv.Itoa(n) }
