package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// CheckFiles reads the certificate files that cfg names and reports what
// clients and the server would stumble over; whether a certificate and its key
// can be served is left to who serves them. A file that cannot be read here is
// a warning only: the check may run on another machine or as another user.
func CheckFiles(cfg *Config, env Env) Findings {
	r := &report{file: cfg.file, pos: positions{}}
	for key, o := range cfg.origins {
		if o.File != "" {
			r.pos[key] = o.Line
		}
	}
	r.certificates(cfg, env)
	seen := map[string]bool{}
	authorities := func(key, path string) {
		if path == "" || seen[path] {
			return
		}
		seen[path] = true
		if data := r.read(key, path, env); data != nil && !x509.NewCertPool().AppendCertsFromPEM(data) {
			r.err(key, fmt.Sprintf("%q holds no certificate", path), "name a file with PEM certificates")
		}
	}
	if cfg.TLS.Source() == TLSACME {
		authorities("tls.acme.ca_root", cfg.TLS.ACME.CARoot)
	}
	authorities("upstream.ca", cfg.Upstream.CA)
	for i := range cfg.Signaling {
		authorities(child(element("signaling", i), "ca"), cfg.Signaling[i].Reach.CA)
	}
	for i := range cfg.Logger {
		authorities(child(element("logger", i), "ca"), cfg.Logger[i].Reach.CA)
	}
	r.findings.sort()
	return r.findings
}

// certificates looks at every pair that the server serves itself.
func (r *report) certificates(cfg *Config, env Env) {
	if cfg.TLS.Source() != TLSFiles {
		return
	}
	named := false // one of the certificates is for the domain
	for i, pair := range cfg.TLS.Pairs() {
		leaf := r.certificate(r.listKey("tls.cert", i), r.listKey("tls.key", i), pair, env)
		named = named || leaf == nil || leaf.VerifyHostname(cfg.Domain) == nil
	}
	if cfg.Domain != "" && !named {
		r.warn(r.listKey("tls.cert", 0), fmt.Sprintf("the certificate is not for %q", cfg.Domain), "get one for the domain")
	}
}

// certificate returns the certificate of a pair that can be used, or nil.
func (r *report) certificate(certKey, keyKey string, pair [2]string, env Env) *x509.Certificate {
	cert := r.read(certKey, pair[0], env)
	key := r.read(keyKey, pair[1], env)
	if cert == nil || key == nil {
		return nil
	}
	both, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil
	}
	switch left := time.Until(both.Leaf.NotAfter); {
	case time.Now().Before(both.Leaf.NotBefore):
		r.warn(certKey, "the certificate is valid from "+both.Leaf.NotBefore.UTC().Format(time.DateTime)+" on only", "compare the clock of this host, or wait")
	case left <= 0:
		r.warn(certKey, "the certificate ended on "+both.Leaf.NotAfter.Format(time.DateOnly), "renew it")
	case left < 14*24*time.Hour:
		r.warn(certKey, "the certificate ends on "+both.Leaf.NotAfter.Format(time.DateOnly), "renew it")
	}
	return both.Leaf
}

// read returns the contents of a file, or nil with a warning.
func (r *report) read(key, path string, env Env) []byte {
	data, mode, err := env.readFile(path)
	switch {
	case err != nil:
		r.warn(key, fmt.Sprintf("cannot be read here: %v", err), "the server refuses to start without it")
		return nil
	case !mode.IsRegular():
		r.err(key, fmt.Sprintf("%q is not a regular file", path), "name a PEM file")
		return nil
	}
	return append([]byte{}, data...)
}
