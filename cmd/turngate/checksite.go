package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/proxy"
)

// checkedSite is a turngate as its clients see it over HTTPS.
type checkedSite struct {
	host   string // name or address that clients use, without brackets
	up     *proxy.Upstream
	dialer *proxy.Dialer
	roots  *x509.CertPool // nil: the system's
	client bool           // looked at from a client, not from the server itself
	wait   time.Duration  // for one exchange

	// served are the certificates that the server itself says it has, SHA-256 in hex;
	// nil when nobody asked it.
	served []string
}

// open connects with TLS. The certificate is not verified: that is a check of
// its own, and the others shall find out what they can.
func (s *checkedSite) open(ctx context.Context, protocols ...string) (*tls.Conn, error) {
	c, err := s.dialer.Dial(ctx, s.up)
	if err != nil {
		return nil, err
	}
	t := tls.Client(c, s.tls(protocols...))
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, &proxy.Error{Upstream: s.up.Name, Phase: "tls", Cause: proxy.Classify(err), Err: err}
	}
	return t, nil
}

func (s *checkedSite) tls(protocols ...string) *tls.Config {
	return &tls.Config{ServerName: s.host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: protocols}
}

// checkWeb looks at port 443: TLS, certificate, HTTP.
func (s *checkedSite) checkWeb(ctx context.Context) []doctor.Finding {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	began := time.Now()
	conn, err := s.open(ctx, "http/1.1")
	if err != nil {
		return []doctor.Finding{s.closed(err)}
	}
	defer conn.Close()
	state := conn.ConnectionState()
	found := s.certificate(state.PeerCertificates, time.Now())
	res, err := exchange(ctx, conn, "GET", s.up.HostHeader(), "/healthz", nil, nil)
	switch {
	case err != nil:
		return append(found, doctor.As(doctor.WebForeign, "%s speaks TLS and no HTTP: %v", s.up.Name, proxy.Classify(err)))
	case res.status != http.StatusOK && res.status != http.StatusServiceUnavailable || len(res.body) > 64:
		return append(found, doctor.As(doctor.WebForeign, "%s answers /healthz with %d: not turngate's answer", s.up.Name, res.status))
	}
	if off := ahead(res.header, time.Now()); s.client && s.served == nil && off.Abs() > maxDateError {
		found = append(found, clockOff(off, "the server's").At(doctor.Warn))
	}
	return append(found, doctor.As(doctor.WebOK, "%s answers TLS (%s) and HTTP in %s", s.up.Name, tls.VersionName(state.Version), took(began)).
		With("https_time", time.Since(began).Seconds(), "s"))
}

// closed is the finding about a port that cannot be used.
func (s *checkedSite) closed(err error) doctor.Finding {
	switch cause := proxy.Classify(err); cause {
	case proxy.CauseRefused:
		return doctor.As(doctor.WebRefused, "%s: connection refused", s.up.Name)
	case proxy.CauseTimeout, proxy.CauseUnreachable:
		return doctor.As(doctor.WebSilent, "%s does not answer (%s)", s.up.Name, cause)
	case proxy.CauseDNS:
		return doctor.As(doctor.WebSilent, "%s was not tried: the name has no address", s.up.Name).At(doctor.Skip)
	case proxy.CauseProxy, proxy.CauseProxyAuth, proxy.CauseAnswer:
		return doctor.As(doctor.WebProxy, "%v", err)
	default:
		return doctor.As(doctor.WebNoTLS, "%v", err)
	}
}

// certificate judges what the server shows.
func (s *checkedSite) certificate(chain []*x509.Certificate, now time.Time) []doctor.Finding {
	if len(chain) == 0 {
		return nil
	}
	leaf := chain[0]
	issuer := nameOf(leaf)
	var found []doctor.Finding
	switch {
	case now.After(leaf.NotAfter):
		found = append(found, doctor.As(doctor.CertEnded, "the certificate ended on %s", leaf.NotAfter.Format(time.DateOnly)))
	case now.Before(leaf.NotBefore):
		found = append(found, doctor.As(doctor.CertEnded, "the certificate begins on %s only", leaf.NotBefore.Format(time.DateOnly)))
	case leaf.NotAfter.Sub(now) < endsSoon(leaf):
		f := doctor.As(doctor.CertEndsSoon, "the certificate ends on %s: %s", leaf.NotAfter.Format(time.DateOnly), daysLeft(leaf.NotAfter, now))
		if leaf.NotAfter.Sub(now) < endsSoon(leaf)/4 {
			f = f.At(doctor.Fail)
		}
		found = append(found, f)
	}
	if err := leaf.VerifyHostname(s.host); err != nil {
		names := slices.Clone(leaf.DNSNames)
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		found = append(found, doctor.As(doctor.CertWrongName, "clients use %s, the certificate is for %s", s.host, strings.Join(names[:min(len(names), 5)], ", ")))
	}
	if f, bad := s.trust(chain, issuer, now); bad {
		found = append(found, f)
	}
	if key, ok := leaf.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		found = append(found, doctor.As(doctor.CertWeak, "the RSA key of the certificate has %d bits", key.N.BitLen()))
	}
	if a := leaf.SignatureAlgorithm; a == x509.SHA1WithRSA || a == x509.ECDSAWithSHA1 || a == x509.MD5WithRSA {
		found = append(found, doctor.As(doctor.CertWeak, "the certificate is signed with %s", a))
	}
	if len(found) == 0 {
		found = append(found, doctor.As(doctor.CertOK, "certificate for %s by %s, %s, %s, chain complete", s.host, issuer, keyType(leaf), daysLeft(leaf.NotAfter, now)))
	}
	found[0] = found[0].With("cert_days", math.Floor(leaf.NotAfter.Sub(now).Hours()/24), "")
	return found
}

// endsSoon is when an end is near: 30 days, or a third of a short life, which is
// when ACME renews.
func endsSoon(c *x509.Certificate) time.Duration {
	return min(30*24*time.Hour, c.NotAfter.Sub(c.NotBefore)/3)
}

// trust judges the chain.
func (s *checkedSite) trust(chain []*x509.Certificate, issuer string, now time.Time) (doctor.Finding, bool) {
	leaf := chain[0]
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	// Dates are judged elsewhere.
	at := min(max(now.Unix(), leaf.NotBefore.Unix()), leaf.NotAfter.Unix())
	_, err := leaf.Verify(x509.VerifyOptions{Roots: s.roots, Intermediates: between, CurrentTime: time.Unix(at, 0)})
	inspector := inspectedBy(leaf)
	switch {
	case inspector != "" && s.client:
		f := doctor.As(doctor.CertInspected, "the certificate shown here is issued by %s: %s opens TLS on the way", issuer, inspector)
		if err == nil {
			f = f.At(doctor.Warn)
		}
		return f, true
	case s.served != nil && !slices.Contains(s.served, fmt.Sprintf("%x", sha256.Sum256(leaf.Raw))):
		// A balancer before the server does so too, with a good certificate.
		f := doctor.As(doctor.CertInspected, "the certificate shown here, issued by %s, is none of the server's own: something on the way opens TLS", issuer)
		if err == nil {
			f = f.At(doctor.Warn)
		}
		return f, true
	case err == nil:
		return doctor.Finding{}, false
	case isSelfSigned(leaf):
		return doctor.As(doctor.CertUntrusted, "the certificate is self-signed: browsers refuse it without a word to the page"), true
	case len(chain) == 1 && !s.client:
		return doctor.As(doctor.CertIncomplete, "the certificate is issued by %s, which is neither sent along nor known to this host", issuer), true
	case !s.client:
		return doctor.As(doctor.CertUntrusted, "the certificate is issued by %s, which this host does not trust: clients must", issuer).At(doctor.Warn), true
	}
	return doctor.As(doctor.CertUntrusted, "the certificate is issued by %s, which this machine does not trust: a private CA, or a firewall that opens TLS", issuer), true
}

// inspectors are names in the issuers of firewalls that open TLS.
var inspectors = []string{"Fortinet", "FortiGate", "Palo Alto", "Zscaler", "Blue Coat", "BlueCoat", "Symantec Web", "Check Point", "Sophos", "Umbrella",
	"Netskope", "Forcepoint", "Websense", "McAfee Web", "SonicWall", "WatchGuard", "Barracuda", "Untangle", "Sangfor", "Hillstone", "QAX", "Topsec",
	"Kaspersky", "ESET SSL", "Avast", "Bitdefender", "mitmproxy", "Squid", "Cato Networks", "iboss", "Smoothwall", "Lightspeed"}

func inspectedBy(c *x509.Certificate) string {
	name := strings.ToLower(c.Issuer.String())
	for _, i := range inspectors {
		if strings.Contains(name, strings.ToLower(i)) {
			return i
		}
	}
	return ""
}

func isSelfSigned(c *x509.Certificate) bool {
	return string(c.RawIssuer) == string(c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// nameOf is how the issuer of a certificate calls itself.
func nameOf(c *x509.Certificate) string {
	name := c.Issuer.CommonName
	if name == "" {
		name = c.Issuer.String()
	}
	if len(name) > 100 {
		name = name[:100] + "..."
	}
	return fmt.Sprintf("%q", name)
}

func keyType(c *x509.Certificate) string {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	}
	return c.PublicKeyAlgorithm.String()
}

// checkName looks the name up as this machine does, and compares it with where it
// should lead; nothing to compare with is fine.
func checkName(ctx context.Context, host string, ours []netip.Addr, wait time.Duration) []doctor.Finding {
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return []doctor.Finding{doctor.As(doctor.NameNone, "clients use an address, not a name")}
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
			return []doctor.Finding{doctor.As(doctor.NameUnknown, "DNS knows no address of %s", host)}
		}
		return []doctor.Finding{doctor.As(doctor.NameNoAnswer, "DNS does not answer for %s", host)}
	}
	var list []string
	here := len(ours) == 0
	for _, a := range addrs {
		list = append(list, a.Unmap().String())
		here = here || slices.Contains(ours, a.Unmap())
	}
	text := strings.Join(list, ", ")
	if !here {
		return []doctor.Finding{doctor.As(doctor.NameElsewhere, "%s is %s, and this host is neither (nor external_ip)", host, text)}
	}
	return []doctor.Finding{doctor.As(doctor.NameOK, "%s is %s", host, text)}
}

// reply is what an HTTP server answered.
type reply struct {
	status int
	header http.Header
	body   string // its first bytes
}

// exchange sends one HTTP/1.1 request and reads the head of the answer and a little of its
// body. It ends with ctx.
func exchange(ctx context.Context, conn net.Conn, method, host, target string, header http.Header, body []byte) (reply, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: turngate-check\r\n", method, target, host)
	for name, values := range header {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	if method == http.MethodPost {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(conn, b.String()+string(body)); err != nil {
		return reply{}, silence(ctx, err)
	}
	req := &http.Request{Method: method}
	res, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return reply{}, silence(ctx, err)
	}
	r := reply{status: res.StatusCode, header: res.Header}
	if res.StatusCode != http.StatusSwitchingProtocols {
		first, _ := io.ReadAll(io.LimitReader(res.Body, 256))
		r.body = string(first)
	}
	return r, nil
}

// silence names the end of our own patience.
func silence(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.DeadlineExceeded
	}
	return err
}

func took(since time.Time) string { return fmt.Sprintf("%d ms", time.Since(since).Milliseconds()) }
