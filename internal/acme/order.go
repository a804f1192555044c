package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// oneOrder is the longest that an order may take: account, validation from
// several places, and issue.
const oneOrder = 10 * time.Minute

// ensure orders the certificate of a name if there is none, and renews it if
// it is due. It reports whether it wrote a new one.
func (m *Manager) ensure(ctx context.Context, name string, w *renewalWindow) (bool, error) {
	leaf, err := m.load(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, m.attempt(ctx, func(ctx context.Context, cfg *certmagic.Config) error {
			return cfg.ObtainCertAsync(ctx, name)
		})
	case err != nil:
		// Half a pair, after a crash or a full disk: certmagic takes files that
		// exist for good ones, so they have to go first.
		m.opts.Log.Warn("stored certificate cannot be used and is ordered again", "name", name, "err", err)
		if err := m.storage.Delete(ctx, certmagic.StorageKeys.CertsSitePrefix(m.issuerKey(), name)); err != nil {
			return false, err
		}
		return m.ensure(ctx, name, w)
	}
	m.ask(ctx, leaf, w)
	if time.Now().Before(w.due(leaf)) {
		return false, nil
	}
	err = m.attempt(ctx, func(ctx context.Context, cfg *certmagic.Config) error {
		return cfg.RenewCertAsync(ctx, name, true)
	})
	if err == nil {
		*w = renewalWindow{}
	}
	return err == nil, err
}

// attempt makes one order. Of certmagic's two ways of ordering, "sync" asks
// questions on standard input, and "async" asks nobody but goes on trying for
// a month by itself. So it is "async", told to stop at the first failure.
func (m *Manager) attempt(ctx context.Context, do func(context.Context, *certmagic.Config) error) error {
	ctx, cancelTimeout := context.WithTimeout(ctx, oneOrder)
	defer cancelTimeout()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return nil, errors.New("not managed") },
		RenewCheckInterval: 24 * time.Hour, // it holds nothing: the files are what counts
		OCSPCheckInterval:  24 * time.Hour,
		Logger:             zapTo(m.opts.Log),
	})
	defer cache.Stop()
	err := do(ctx, m.config(cache, func(failure error) { cancel(failure) }))
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// config makes a certmagic configuration for one order; failed is called with
// the reason when it fails.
func (m *Manager) config(cache *certmagic.Cache, failed func(error)) *certmagic.Config {
	log := zapTo(m.opts.Log)
	cfg := certmagic.New(cache, certmagic.Config{
		Storage: m.storage,
		Logger:  log,
		// Let's Encrypt ended OCSP in 2025, and certificates are served from
		// files, which hold none.
		OCSP: certmagic.OCSPConfig{DisableStapling: true},
		OnEvent: func(_ context.Context, event string, data map[string]any) error {
			if event == "cert_failed" {
				err, _ := data["error"].(error)
				failed(err)
			}
			return nil
		},
	})
	cfg.Issuers = []certmagic.Issuer{m.issuer(cfg)}
	return cfg
}

func (m *Manager) issuer(cfg *certmagic.Config) *certmagic.ACMEIssuer {
	o := m.opts
	template := certmagic.ACMEIssuer{
		CA:      o.CA,
		TestCA:  o.CA, // one attempt is one order at the CA that was named
		Email:   o.Email,
		Agreed:  o.Agreed,
		Profile: o.Profile,
		// Both listeners are ours and open. Certmagic tries to open the port
		// itself, finds it in use, and leaves the answer to us.
		DisableTLSALPNChallenge: o.TLSPort == 0,
		DisableHTTPChallenge:    o.HTTPPort == 0,
		AltTLSALPNPort:          o.TLSPort,
		AltHTTPPort:             o.HTTPPort,
		ListenHost:              o.Host,
		// What strangers ask for is looked up in memory, never on the disk.
		DisableDistributedSolvers: true,
		TrustedRoots:              m.roots,
		Logger:                    zapTo(o.Log),
	}
	if o.EABKeyID != "" {
		template.ExternalAccount = &acme.EAB{KeyID: o.EABKeyID, MACKey: o.EABKey}
	}
	return certmagic.NewACMEIssuer(cfg, template)
}

// issuerKey names the CA in the storage.
func (m *Manager) issuerKey() string {
	return (&certmagic.ACMEIssuer{CA: m.opts.CA}).IssuerKey()
}

func (m *Manager) paths(name string) (cert, key string) {
	keys, issuer := certmagic.StorageKeys, m.issuerKey()
	return m.storage.Filename(keys.SiteCert(issuer, name)), m.storage.Filename(keys.SitePrivateKey(issuer, name))
}

// load reads the certificate of a name. The error is fs.ErrNotExist when there
// is none.
func (m *Manager) load(name string) (*x509.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(m.paths(name))
	if err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}

// renewalWindow is when the CA would like to renew a certificate (RFC 9773).
type renewalWindow struct {
	at    time.Time // zero: the CA did not say
	again time.Time // not to be asked before
}

// due is when to renew: when the CA asks for it, else when a third of the life
// is left, half of a life of days. What the CA asks for counts only while there
// is time for retries.
func (w renewalWindow) due(leaf *x509.Certificate) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	left := life / 3
	if life < 10*24*time.Hour {
		left = life / 2
	}
	due := leaf.NotAfter.Add(-left)
	if w.at.IsZero() {
		return due
	}
	if last := leaf.NotAfter.Add(-life / 20); w.at.After(last) {
		return last
	}
	return w.at
}

// ask asks the CA for the window, not more often than it wants to be asked. No
// answer is no failure: then the life of the certificate decides.
func (m *Manager) ask(ctx context.Context, leaf *x509.Certificate, w *renewalWindow) {
	if time.Now().Before(w.again) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	w.again = time.Now().Add(6 * time.Hour)
	iss := m.issuer(&certmagic.Config{Storage: m.storage, Logger: zapTo(m.opts.Log)})
	info, err := iss.GetRenewalInfo(ctx, certmagic.Certificate{Certificate: tls.Certificate{Leaf: leaf}})
	if err != nil {
		m.opts.Log.Debug("the CA did not say when to renew", "ca", m.opts.CA, "err", err)
		return
	}
	w.at = info.SelectedTime
	if info.RetryAfter != nil && info.RetryAfter.After(time.Now()) {
		w.again = *info.RetryAfter
	}
}
