package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// CheckFiles reads the certificate files that cfg names and reports what the
// server would stumble over. A file that cannot be read here is a warning
// only: the check may run on another machine or as another user.
func CheckFiles(cfg *Config, env Env) Findings {
	r := &report{file: cfg.file, pos: positions{}}
	for key, o := range cfg.origins {
		if o.File != "" {
			r.pos[key] = o.Line
		}
	}
	r.certificate(cfg, env)
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

func (r *report) certificate(cfg *Config, env Env) {
	if cfg.TLS.Cert == "" || cfg.TLS.Key == "" {
		return
	}
	cert := r.read("tls.cert", cfg.TLS.Cert, env)
	key := r.read("tls.key", cfg.TLS.Key, env)
	if key != nil {
		if _, mode, _ := env.readFile(cfg.TLS.Key); mode.Perm()&0o004 != 0 {
			r.warn("tls.key", "everybody on this machine can read the key", "chmod 0600 "+cfg.TLS.Key)
		}
	}
	if cert == nil || key == nil {
		return
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		r.err("tls.cert", fmt.Sprintf("certificate and key cannot be used together: %v", err), "name the PEM files of one pair")
		return
	}
	switch left := time.Until(pair.Leaf.NotAfter); {
	case left <= 0:
		r.warn("tls.cert", "the certificate ended on "+pair.Leaf.NotAfter.Format(time.DateOnly), "renew it")
	case left < 14*24*time.Hour:
		r.warn("tls.cert", "the certificate ends on "+pair.Leaf.NotAfter.Format(time.DateOnly), "renew it")
	}
	if cfg.Domain != "" && pair.Leaf.VerifyHostname(cfg.Domain) != nil {
		r.warn("tls.cert", fmt.Sprintf("the certificate is not for %q", cfg.Domain), "get one for the domain")
	}
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
