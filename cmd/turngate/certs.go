package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/acme"
	"github.com/turngate/turngate/internal/edge"
	"github.com/turngate/turngate/internal/pki"
	"github.com/turngate/turngate/turn"
)

// certSource is where the certificate of a plan comes from.
type certSource struct {
	mode  string      // of [tls], never auto
	files []edge.Pair // what is served; with acme what is served meanwhile
	acme  *acme.Manager
	keep  func(context.Context) error // renews the files until its context ends; nil: somebody else does
}

// newCertSource finds the certificate of a configuration, and makes what has
// to be made here before anything can be served.
func (a *app) newCertSource(cfg *config.Config, addresses []turn.Address) (*certSource, error) {
	mode, err := certMode(cfg)
	if err != nil {
		return nil, err
	}
	s := &certSource{mode: mode}
	switch mode {
	case config.TLSFiles:
		for _, p := range cfg.TLS.Pairs() {
			s.files = append(s.files, edge.Pair{Cert: p[0], Key: p[1]})
		}
	case config.TLSInstalled:
		s.files = []edge.Pair{edge.Pair(pki.Installed(cfg.StateDir))}
	case config.TLSCA:
		authority, err := a.ownAuthority(cfg)
		if err != nil {
			return nil, err
		}
		err = s.make("server certificate of the own CA", a.log, func() (pki.Files, bool, error) {
			return authority.Server(certSubject(cfg, addresses))
		})
		return s, err
	default:
		err := s.make("self-signed certificate", a.log, func() (pki.Files, bool, error) {
			return pki.SelfSigned(cfg.StateDir, selfSignedSubject(cfg, addresses))
		})
		if err == nil && mode == config.TLSACME {
			s.acme, err = a.newACME(cfg)
		}
		return s, err
	}
	return s, nil
}

// certMode is tls.mode with auto decided by what there is.
func certMode(cfg *config.Config) (string, error) {
	there := func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	}
	installed := there(pki.Installed(cfg.StateDir).Cert)
	switch mode := cfg.TLS.Source(); {
	case mode == config.TLSInstalled && !installed:
		return "", errors.New(`tls.mode = "installed", and nothing is installed; "turngate cert csr" prints a request for your CA, "turngate cert install FILE" takes its answer`)
	case mode != config.TLSAuto:
		return mode, nil
	case installed:
		return config.TLSInstalled, nil
	}
	switch _, err := pki.OpenAuthority(authorityDir(cfg)); {
	case err == nil:
		return config.TLSCA, nil
	case errors.Is(err, fs.ErrNotExist):
		return config.TLSSelfSigned, nil
	default:
		return "", err
	}
}

// make makes the files and remembers how to renew them.
func (s *certSource) make(what string, log *slog.Logger, files func() (pki.Files, bool, error)) error {
	f, _, err := files()
	s.files = []edge.Pair{edge.Pair(f)}
	s.keep = func(ctx context.Context) error {
		return pki.Keep(ctx, what, func() (bool, error) {
			_, created, err := files()
			return created, err
		}, log)
	}
	return err
}

// ownAuthority returns the CA of this host, made when it is configured and not
// there.
func (a *app) ownAuthority(cfg *config.Config) (*pki.Authority, error) {
	authority, err := pki.OpenAuthority(authorityDir(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		authority, err = pki.NewAuthority(authorityDir(cfg), authoritySubject(cfg), nil)
		if err == nil {
			a.log.Info("certificate authority made; see: turngate cert ca", "subject", authority.Cert.Subject.String())
		}
	}
	return authority, err
}

func authorityDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "ca") }

// certSubject is what a certificate that others trust is for: how clients call
// this host.
func certSubject(cfg *config.Config, addresses []turn.Address) pki.Subject {
	var s pki.Subject
	if cfg.Domain != "" {
		s.Names = []string{cfg.Domain}
	}
	if len(cfg.ExternalIP) == 0 && cfg.Domain != "" {
		return s // what address the host has today is nobody's business
	}
	for _, a := range addresses {
		s.Addrs = append(s.Addrs, a.External)
	}
	return s
}

func authoritySubject(cfg *config.Config) pki.Subject {
	return certSubject(cfg, relayAddresses(cfg.ExternalIP))
}

// selfSignedSubject is everything that clients may call this host, since the
// certificate is not trusted before somebody has looked at it anyway.
func selfSignedSubject(cfg *config.Config, addresses []turn.Address) pki.Subject {
	s := pki.Subject{Names: []string{"localhost"}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}}
	if cfg.Domain != "" {
		s.Names = append(s.Names, cfg.Domain)
	}
	for _, a := range addresses {
		s.Addrs = append(s.Addrs, a.External)
	}
	return s
}

// newACME returns the manager that runs when the order is the same: a reload
// does not end an order that is under way.
func (a *app) newACME(cfg *config.Config) (*acme.Manager, error) {
	c := cfg.TLS.ACME
	order := acme.Order{
		Dir:      filepath.Join(cfg.StateDir, "acme"),
		Names:    cfg.ACMENames(),
		CA:       cmp.Or(c.CA, config.LetsEncrypt),
		Email:    c.Email,
		Profile:  c.Profile,
		Agreed:   c.TermsAgreed,
		EABKeyID: c.EABKeyID,
		EABKey:   c.EABKey.Reveal(),
		SitePort: int(firstPort(cfg.HTTPS.Listen)),
	}
	for _, challenge := range c.Challenges {
		switch challenge {
		case config.ChallengeTLS:
			order.TLSPort, order.Host = int(cfg.HTTPS.Listen[0].Port), hostOf(cfg.HTTPS.Listen[0])
		case config.ChallengeHTTP:
			order.HTTPPort = int(c.HTTPListen.Port)
		}
	}
	if c.CARoot != "" {
		roots, err := os.ReadFile(c.CARoot)
		if err != nil {
			return nil, fmt.Errorf("tls.acme.ca_root: %w", err)
		}
		order.Roots = roots
	}
	if p := a.plan.Load(); p != nil && p.tls.acme != nil && p.tls.acme.Serves(order) {
		return p.tls.acme, nil
	}
	return acme.New(acme.Options{Order: order, Changed: func() { ping(a.issued) }, Metrics: a.acmeMetrics, Log: a.log})
}

func hostOf(l config.ListenAddr) string {
	if l.Wildcard() {
		return ""
	}
	return l.Addr.String()
}

// pairs are the files to serve now: what was issued, and while a name has
// nothing, a self-signed certificate too.
func (s *certSource) pairs() []edge.Pair {
	if s.acme == nil {
		return s.files
	}
	var issued []edge.Pair
	for _, st := range s.acme.States() {
		if cert, key, ok := s.acme.Files(st.Name); ok {
			issued = append(issued, edge.Pair{Cert: cert, Key: key})
		}
	}
	if len(s.missing()) > 0 {
		return append(issued, s.files...)
	}
	return issued
}

// missing are the names that nothing was issued for yet.
func (s *certSource) missing() []string {
	var names []string
	if s.acme != nil {
		for _, st := range s.acme.States() {
			if _, _, ok := s.acme.Files(st.Name); !ok {
				names = append(names, st.Name)
			}
		}
	}
	return names
}

// run renews until ctx ends.
func (s *certSource) run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s.acme != nil {
			_ = s.acme.Run(ctx)
		}
	}()
	if s.keep != nil {
		_ = s.keep(ctx)
	}
	<-done
}

// keepCertificates runs the source of the certificate of the plan that runs,
// and serves what it brings, until ctx ends.
func (a *app) keepCertificates(ctx context.Context) {
	for ctx.Err() == nil {
		source := a.plan.Load().tls
		if names := source.missing(); len(names) > 0 {
			a.log.Info("a self-signed certificate is served until one is issued", "names", names, "ca", source.acme.States()[0].CA)
		}
		run, cancel := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			source.run(run)
		}()
		for same := true; same && ctx.Err() == nil; {
			select {
			case <-ctx.Done():
			case <-a.issued:
				a.serveIssued()
			case <-a.replanned:
				now := a.plan.Load().tls
				same = now == source || now.acme != nil && now.acme == source.acme
			}
		}
		cancel()
		<-ended
	}
}

// serveIssued serves what the ACME server issued.
func (a *app) serveIssued() {
	a.reloadMu.Lock()
	defer a.reloadMu.Unlock()
	if err := a.certs.Set(a.plan.Load().tls.pairs()); err != nil {
		a.log.Error("issued certificate not served", "err", err)
	}
}

// challenge returns the certificate for a challenge of the ACME server.
func (a *app) challenge(serverName string) *tls.Certificate {
	p := a.plan.Load()
	if p == nil || p.tls.acme == nil {
		return nil
	}
	return p.tls.acme.Certificate(serverName)
}

// ping wakes whoever waits for c, which has room for one.
func ping(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
