package acme

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// Protocol is the application protocol (ALPN) by which a CA asks for the
// certificate of a tls-alpn-01 challenge (RFC 8737).
const Protocol = acmez.ACMETLS1Protocol

// Certificate returns the certificate that answers the challenge for a server
// name, or nil when none is under way: everybody may ask.
func (m *Manager) Certificate(serverName string) *tls.Certificate {
	c, ok := m.challenge(serverName, acme.ChallengeTypeTLSALPN01)
	if !ok {
		return nil
	}
	cert, err := acmez.TLSALPN01ChallengeCert(c)
	if err != nil {
		m.opts.Log.Warn("challenge not answered", "name", serverName, "err", err)
		return nil
	}
	return cert
}

// ServeHTTP answers http-01 challenges, and sends browsers that came to one of
// our names without TLS to the same address with it. Everything else is 404:
// the Host of a stranger never reaches a Location.
func (m *Manager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := strings.ToLower(hostOf(r.Host))
	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if c, ok := m.challenge(host, acme.ChallengeTypeHTTP01); ok && get && r.URL.Path == c.HTTP01ResourcePath() {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, c.KeyAuthorization)
		return
	}
	if _, ours := m.states[host]; !ours || !get || strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "Not Found\n")
		return
	}
	to := "https://" + host
	if m.opts.SitePort != 443 && m.opts.SitePort != 0 {
		to = "https://" + net.JoinHostPort(host, itoa(m.opts.SitePort))
	}
	// The raw target, so that the query arrives as it was sent.
	target := r.RequestURI
	if !strings.HasPrefix(target, "/") {
		target = "/"
	}
	w.Header().Set("Location", to+target)
	w.WriteHeader(http.StatusMovedPermanently)
}

// challenge returns the challenge that is under way for one of our names.
func (m *Manager) challenge(name, kind string) (acme.Challenge, bool) {
	if _, ours := m.states[strings.ToLower(name)]; !ours { // the map is fixed after New
		return acme.Challenge{}, false
	}
	c, ok := certmagic.GetACMEChallenge(strings.ToLower(name))
	return c.Challenge, ok && c.Type == kind
}

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}
