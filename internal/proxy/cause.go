package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A Cause is the class of a failure on the way to an upstream, a label for
// metrics and the first word an operator needs.
type Cause string

const (
	CauseDNS         Cause = "dns"         // the name has no address, or DNS did not answer
	CauseRefused     Cause = "refused"     // the host is there, the port is closed
	CauseUnreachable Cause = "unreachable" // no route, or a firewall said no
	CauseTimeout     Cause = "timeout"     // silence: dial, TLS or answer took too long
	CauseReset       Cause = "reset"       // the connection ended before an answer
	CauseIssuer      Cause = "tls_issuer"  // certificate of an unknown issuer
	CauseName        Cause = "tls_name"    // certificate for another name
	CauseExpired     Cause = "tls_expired" // certificate expired or not yet valid
	CauseTLS         Cause = "tls"         // any other failure of TLS
	CauseAnswer      Cause = "answer"      // the answer is not what the protocol asks for
	CauseProxy       Cause = "proxy"       // the company's proxy does not let us through, or cannot reach the upstream
	CauseProxyAuth   Cause = "proxy_auth"  // the company's proxy wants a login, or another one
	CauseLocal       Cause = "local"       // our own host: no descriptors, no ports, policy
	CauseCanceled    Cause = "canceled"    // the client went away
	CauseOther       Cause = "other"
)

// An Error is a failure on the way to one upstream. Its text names upstream, phase,
// cause and, where there is one, the remedy. It holds no query, header or body.
type Error struct {
	Upstream string // host:port
	Phase    string // dial, tls, request, answer
	Cause    Cause
	Err      error
}

func (e *Error) Error() string {
	return e.Upstream + ": " + e.Phase + ": " + detail(e.Cause, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether the right answer to the client is 504 and not 502.
func (e *Error) Timeout() bool { return e.Cause == CauseTimeout }

// detail is the text of an error with its remedy.
func detail(cause Cause, err error) string {
	var pe *proxyError
	if errors.As(err, &pe) {
		return pe.text
	}
	switch cause {
	case CauseIssuer:
		return fmt.Sprintf("certificate issued by '%s', which is not trusted: put that CA's certificate into upstream.ca, if it is the firewall's or the upstream's own", issuer(err))
	case CauseName:
		var he x509.HostnameError
		if errors.As(err, &he) && he.Certificate != nil {
			return fmt.Sprintf("certificate is for %q, not for %q", short(strings.Join(he.Certificate.DNSNames, " ")), he.Host)
		}
	case CauseExpired:
		var ie x509.CertificateInvalidError
		if errors.As(err, &ie) && ie.Cert != nil {
			return fmt.Sprintf("certificate valid from %s to %s only: check the clock of this host, then the upstream",
				ie.Cert.NotBefore.Format(time.RFC3339), ie.Cert.NotAfter.Format(time.RFC3339))
		}
	case CauseUnreachable:
		return fmt.Sprintf("%v: check route and outbound firewall", err)
	}
	return fmt.Sprint(err)
}

// issuer returns the name of who signed the chain that the server sent: behind
// an inspecting firewall that is the firewall's CA.
func issuer(err error) string {
	var certs []*x509.Certificate
	var ve *tls.CertificateVerificationError
	if errors.As(err, &ve) {
		certs = ve.UnverifiedCertificates
	}
	if len(certs) == 0 {
		var ua x509.UnknownAuthorityError
		if !errors.As(err, &ua) || ua.Cert == nil {
			return "unknown"
		}
		certs = []*x509.Certificate{ua.Cert}
	}
	// From the server's own certificate upwards, as far as it sent the chain; it may
	// have sent others too.
	top := certs[0]
	for range certs {
		i := slices.IndexFunc(certs, func(c *x509.Certificate) bool {
			return c != top && bytes.Equal(c.RawSubject, top.RawIssuer)
		})
		if i < 0 {
			break
		}
		top = certs[i]
	}
	if cn := top.Issuer.CommonName; cn != "" {
		return short(printable(cn))
	}
	return short(printable(top.Issuer.String()))
}

func short(s string) string {
	if len(s) > 120 {
		s = s[:120] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

// Classify finds the class of an error.
func Classify(err error) Cause {
	var own *Error
	if errors.As(err, &own) {
		return own.Cause
	}
	var (
		dns     *net.DNSError
		ua      x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		verify  *tls.CertificateVerificationError
		alert   tls.AlertError
		record  tls.RecordHeaderError
		ne      net.Error
		pe      *proxyError
	)
	switch {
	case errors.As(err, &pe):
		return pe.cause
	case errors.As(err, &dns):
		return CauseDNS
	case errors.Is(err, context.Canceled):
		return CauseCanceled
	case errors.As(err, &ua):
		return CauseIssuer
	case errors.As(err, &name):
		return CauseName
	case errors.As(err, &invalid):
		if invalid.Reason == x509.Expired {
			return CauseExpired
		}
		return CauseTLS
	case errors.As(err, &verify), errors.As(err, &alert), errors.As(err, &record):
		return CauseTLS
	case errors.Is(err, syscall.ECONNREFUSED):
		return CauseRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		return CauseUnreachable
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EADDRNOTAVAIL),
		errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return CauseLocal
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT),
		errors.As(err, &ne) && ne.Timeout():
		return CauseTimeout
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return CauseReset
	case strings.HasPrefix(err.Error(), "tls: "):
		return CauseTLS
	}
	return CauseOther
}
