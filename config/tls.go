package config

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Where the certificate comes from.
const (
	TLSAuto       = "auto"        // files if named, else installed, ca, self-signed: the first that is there
	TLSFiles      = "files"       // Cert and Key
	TLSInstalled  = "installed"   // what "turngate cert install" put into StateDir
	TLSCA         = "ca"          // issued here, by a certificate authority of this host
	TLSSelfSigned = "self-signed" // made here, kept in StateDir
	TLSACME       = "acme"        // ordered from an ACME server
)

// How an ACME server is shown that a name is ours.
const (
	ChallengeTLS  = "tls-alpn-01" // RFC 8737: on the HTTPS listeners
	ChallengeHTTP = "http-01"     // RFC 8555 section 8.3: on HTTPListen
)

// LetsEncrypt is the ACME directory when none is named.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// TLS names the certificate.
type TLS struct {
	Mode       string   `toml:"mode" reload:"live" one:"auto|files|installed|ca|self-signed|acme"`
	Cert       []string `toml:"cert" reload:"live" single:"ok"`
	Key        []string `toml:"key" reload:"live" single:"ok"` // in the order of Cert
	TicketKeys string   `toml:"ticket_keys" reload:"live"`     // file; empty: keys of this process
	ACME       ACME     `toml:"acme"`
}

// ACME is how certificates are ordered with mode acme.
type ACME struct {
	Email       string     `toml:"email" reload:"live"`
	TermsAgreed bool       `toml:"terms_agreed" reload:"live"`
	CA          string     `toml:"ca" reload:"live"`      // URL of the directory; empty: LetsEncrypt
	CARoot      string     `toml:"ca_root" reload:"live"` // file; empty: the roots of this host
	Names       []string   `toml:"names" reload:"live"`   // beside the domain
	Challenges  []string   `toml:"challenges" reload:"live" one:"tls-alpn-01|http-01"`
	HTTPListen  ListenAddr `toml:"http_listen" reload:"live"`
	Profile     string     `toml:"profile" reload:"live"`
	EABKeyID    string     `toml:"eab_key_id" reload:"live"`
	EABKey      Secret     `toml:"eab_key" reload:"live"` // base64url, as CAs print it
}

// Source is Mode with auto decided as far as the file decides it: TLSAuto is
// left when it depends on what lies in StateDir.
func (t TLS) Source() string {
	if t.Mode == TLSAuto && len(t.Cert) > 0 {
		return TLSFiles
	}
	return t.Mode
}

// Pairs are the certificate files, each with its key.
func (t TLS) Pairs() [][2]string {
	var all [][2]string
	for i := range min(len(t.Cert), len(t.Key)) {
		all = append(all, [2]string{t.Cert[i], t.Key[i]})
	}
	return all
}

// UsesHTTP reports whether the plain HTTP listener for challenges is wanted.
func (t TLS) UsesHTTP() bool {
	return t.Mode == TLSACME && slices.Contains(t.ACME.Challenges, ChallengeHTTP)
}

// ACMENames are the names to order certificates for, the domain first.
func (c *Config) ACMENames() []string {
	var names []string
	for _, n := range append([]string{c.Domain}, c.TLS.ACME.Names...) {
		if n = strings.ToLower(n); n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

func (c *checker) tls() {
	t := c.cfg.TLS
	switch nc, nk := len(t.Cert), len(t.Key); {
	case slices.Contains(t.Cert, ""), slices.Contains(t.Key, ""):
		c.err("tls.cert", "an empty name among several", "name every file, in the same order in cert and key")
	case nc > 0 && nk == 0:
		c.err("tls.key", "a certificate without its key", "name the key file, or leave both empty for a self-signed certificate")
	case nk > 0 && nc == 0:
		c.err("tls.cert", "a key without its certificate", "name the certificate file, or leave both empty for a self-signed certificate")
	case nc != nk:
		c.err("tls.key", fmt.Sprintf("%d certificates and %d keys", nc, nk), "name one key for each certificate, in the same order")
	}
	switch {
	case t.Mode == TLSFiles && len(t.Cert) == 0:
		c.err("tls.mode", `"files" without files`, "name cert and key")
	case t.Mode != TLSFiles && t.Mode != TLSAuto && len(t.Cert) > 0:
		c.warn("tls.cert", fmt.Sprintf("is not used with mode %q", t.Mode), `remove it and the key, or write mode = "files"`)
	}
	if t.Mode == TLSACME {
		c.acme()
		return
	}
	a := t.ACME
	for _, k := range []struct {
		name string
		told bool
	}{{"terms_agreed", a.TermsAgreed}, {"names", len(a.Names) > 0}, {"email", a.Email != ""}, {"ca", a.CA != ""}} {
		if key := child("tls.acme", k.name); k.told && c.set[key] { // one says it for all
			c.warn(key, fmt.Sprintf("no certificate is ordered with mode %q", t.Mode), `write mode = "acme" in [tls]`)
			return
		}
	}
}

// acme checks what an order needs, so that it fails here and not at night.
func (c *checker) acme() {
	a := c.cfg.TLS.ACME
	if !a.TermsAgreed {
		c.err("tls.acme.terms_agreed", "certificates are issued only to who agrees to the terms of service of the CA",
			"read them (Let's Encrypt: https://letsencrypt.org/repository/) and write terms_agreed = true")
	}
	if c.cfg.Domain == "" && len(a.Names) == 0 {
		c.err("domain", "there is no name to order a certificate for", `write domain = "proxy.example.com" at the top of the file`)
	}
	for i, n := range a.Names {
		key := element("tls.acme.names", i)
		switch {
		case strings.HasPrefix(n, "*."):
			c.err(key, fmt.Sprintf("%q needs the challenge dns-01, which turngate does not do", n), "list the names one by one, or fetch the certificate with another client and name its files in cert and key")
		case !isDomain(n):
			c.err(key, fmt.Sprintf("%q is not a domain name", n), `write a name like "turn.example.com"`)
		}
	}
	if a.CA == "" || strings.HasSuffix(urlHost(a.CA), ".letsencrypt.org") {
		for _, n := range c.cfg.ACMENames() {
			if !strings.Contains(n, ".") {
				c.err("domain", fmt.Sprintf("a public CA issues no certificate for %q, which is no name of the Internet", n), "name the directory of your own ACME server in tls.acme.ca, or choose another mode")
				break
			}
		}
	}
	if e := a.Email; e != "" && (strings.Count(e, "@") != 1 || strings.ContainsAny(e, " ,<>:") || strings.HasPrefix(e, "@") || strings.HasSuffix(e, "@")) {
		c.err("tls.acme.email", fmt.Sprintf("%q is not a mail address", e), `write one like "admin@example.com", or leave it empty`)
	}
	if a.CA != "" {
		u, err := url.Parse(a.CA)
		switch {
		case err != nil || u.Host == "":
			c.err("tls.acme.ca", fmt.Sprintf("%q is not a URL", a.CA), fmt.Sprintf("write the directory of the ACME server, like %q", LetsEncrypt))
		case u.Scheme != "https":
			c.err("tls.acme.ca", "is not https: anybody on the way could answer for the CA", "write https://, and name its certificate authority in ca_root if it is a private one")
		}
	}
	if len(a.Challenges) == 0 {
		c.err("tls.acme.challenges", "is empty: nothing would show the CA that the name is yours", `write ["tls-alpn-01"]`)
	}
	if c.cfg.TLS.UsesHTTP() && a.HTTPListen.IsZero() && !c.faulty("tls.acme.http_listen") {
		c.err("tls.acme.http_listen", "is empty, and the challenge http-01 needs it", `write ":80", or leave "http-01" out of challenges`)
	}
	c.reachable(a)
	switch {
	case (a.EABKeyID == "") != a.EABKey.IsEmpty():
		c.err("tls.acme.eab_key", "an external account needs both eab_key_id and eab_key", "write both as the CA gave them, or neither")
	case !isBase64URL(a.EABKey.Reveal()):
		c.err("tls.acme.eab_key", "is not base64url: letters, digits, '-' and '_'", `write it as the CA gave it, without "=" at its end`)
	}
}

// reachable warns when no listener has the port that a CA connects to: it is
// fixed, so something in front has to forward it.
func (c *checker) reachable(a ACME) {
	on := func(list []ListenAddr, port uint16) bool {
		return slices.ContainsFunc(list, func(l ListenAddr) bool { return l.Port == port })
	}
	if a.CA != "" { // a private one may be told other ports
		return
	}
	if slices.Contains(a.Challenges, ChallengeTLS) && !on(c.cfg.HTTPS.Listen, 443) {
		c.warn("https.listen", "the CA connects to port 443 for tls-alpn-01", "listen there, or let port 443 of the name lead here")
	}
	if slices.Contains(a.Challenges, ChallengeHTTP) && a.HTTPListen.Port != 80 {
		c.warn("tls.acme.http_listen", "the CA connects to port 80 for http-01", `write ":80", or let port 80 of the name lead here`)
	}
	for _, e := range c.cfg.ExternalIP {
		if c.cfg.Layout == Intranet && isPrivate(e.Public) {
			c.warn("tls.mode", fmt.Sprintf("Let's Encrypt cannot connect to %s, which is inside your network", e.Public), `name your own ACME server in tls.acme.ca, or see "turngate cert csr" and "turngate cert ca"`)
			break
		}
	}
}

func isBase64URL(s string) bool {
	_, err := base64.RawURLEncoding.DecodeString(s)
	return err == nil
}

func urlHost(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
