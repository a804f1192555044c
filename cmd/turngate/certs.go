package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/acme"
	"github.com/turngate/turngate/internal/edge"
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
	s := &certSource{mode: cfg.TLS.Source()}
	if s.mode == config.TLSFiles {
		for _, p := range cfg.TLS.Pairs() {
			s.files = append(s.files, edge.Pair{Cert: p[0], Key: p[1]})
		}
		return s, nil
	}
	names, addrs := selfSignedNames(cfg, addresses)
	pair, _, err := edge.SelfSigned(cfg.StateDir, names, addrs)
	if err != nil {
		return nil, err
	}
	s.files = []edge.Pair{pair}
	s.keep = func(ctx context.Context) error {
		return edge.KeepSelfSigned(ctx, cfg.StateDir, names, addrs, a.log)
	}
	if s.mode != config.TLSACME {
		s.mode = config.TLSSelfSigned
		return s, nil
	}
	s.acme, err = a.newACME(cfg)
	return s, err
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
