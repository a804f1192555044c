package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
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
	return e.Upstream + ": " + e.Phase + ": " + e.detail()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether the right answer to the client is 504 and not 502.
func (e *Error) Timeout() bool { return e.Cause == CauseTimeout }

func (e *Error) detail() string {
	switch e.Cause {
	case CauseIssuer:
		return fmt.Sprintf("certificate of unknown issuer %q: if this names a TLS-inspecting firewall, give its CA file as upstream ca", issuer(e.Err))
	case CauseName:
		var he x509.HostnameError
		if errors.As(e.Err, &he) && he.Certificate != nil {
			return fmt.Sprintf("certificate is for %q, not for %q", short(strings.Join(he.Certificate.DNSNames, " ")), he.Host)
		}
	case CauseExpired:
		var ie x509.CertificateInvalidError
		if errors.As(e.Err, &ie) && ie.Cert != nil {
			return fmt.Sprintf("certificate valid from %s to %s only: check the clock of this host, then the upstream",
				ie.Cert.NotBefore.Format(time.RFC3339), ie.Cert.NotAfter.Format(time.RFC3339))
		}
	case CauseUnreachable:
		return fmt.Sprintf("%v: check route and outbound firewall", e.Err)
	}
	return fmt.Sprint(e.Err)
}

// issuer returns the name of who signed the last certificate the server sent: behind
// an inspecting firewall that is the firewall's CA.
func issuer(err error) string {
	certs := []*x509.Certificate(nil)
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
	n := certs[len(certs)-1].Issuer
	if n.CommonName != "" {
		return short(n.CommonName)
	}
	return short(n.String())
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
	)
	switch {
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
