package edge

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Pair names the files of one certificate: the chain, the server's own
// certificate first ("fullchain"), and its private key, both PEM. They may be
// one file.
type Pair struct{ Cert, Key string }

// CertificateOptions are the options of LoadCertificates.
type CertificateOptions struct {
	Interval time.Duration // how often Watch looks at the files; 0: 5 s
	Log      *slog.Logger  // nil: slog.Default
}

// Certificates serves certificates from files and follows the files: whatever
// is on disk is checked first and swapped in then; a pair that cannot be loaded
// leaves the one before in service. Connections are never touched.
//
// All methods may be called from many goroutines at once.
type Certificates struct {
	interval time.Duration
	log      *slog.Logger

	// serving is what handshakes use: in order of preference, never empty,
	// never changed in place.
	serving atomic.Pointer[[]*tls.Certificate]

	mu    sync.Mutex // guards files; held while loading
	files []*certFile
}

// certFile is one pair and what is known about its files.
type certFile struct {
	pair   Pair
	loaded *certificate // what is served
	failed error        // why the files on disk are not what is served; nil: they are
	seen   signature    // the files when last loaded or tried
	moving *signature   // the files when last looked at, if they differed from seen
}

// sameAs reports whether o serves the same certificate from the same files.
func (f *certFile) sameAs(o *certFile) bool {
	return f.pair == o.pair && f.loaded.leaf().Equal(o.loaded.leaf())
}

// CertState is the state of one pair, for status output.
type CertState struct {
	Cert       string    `json:"cert"`
	Key        string    `json:"key"`
	Subject    string    `json:"subject"`
	Issuer     string    `json:"issuer"`
	Names      []string  `json:"names"` // DNS names and addresses
	Algorithm  string    `json:"algorithm"`
	SHA256     string    `json:"sha256"` // of the certificate, in hex
	SelfSigned bool      `json:"self_signed"`
	Chain      Chain     `json:"chain"`
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
	Loaded     time.Time `json:"loaded"`
	Warnings   []string  `json:"warnings,omitempty"` // served all the same
	Error      string    `json:"error,omitempty"`    // the files on disk are unusable, the pair before is served
}

// LoadCertificates loads every pair. The error joins one *FileError for each
// that cannot be used. Where several certificates fit a client, ECDSA goes
// before RSA and then the order of pairs decides.
func LoadCertificates(pairs []Pair, opts CertificateOptions) (*Certificates, error) {
	c := &Certificates{interval: opts.Interval, log: opts.Log}
	if c.interval <= 0 {
		c.interval = 5 * time.Second
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	if err := c.Set(pairs); err != nil {
		return nil, err
	}
	return c, nil
}

// CheckCertificates says what LoadCertificates would say, without keeping
// anything: the warnings of each pair and the joined errors.
func CheckCertificates(pairs []Pair) (warnings map[Pair][]string, err error) {
	files, err := loadAll(pairs)
	warnings = make(map[Pair][]string)
	for _, f := range files {
		if f.loaded != nil {
			warnings[f.pair] = f.loaded.warnings(time.Now())
		}
	}
	return warnings, err
}

// Set replaces the list of pairs and loads all of them afresh, all or nothing:
// on an error (as of LoadCertificates) everything stays as it was, and State
// shows the error beside the pairs it concerns.
func (c *Certificates) Set(pairs []Pair) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	files, err := loadAll(pairs)
	if err != nil {
		for _, now := range c.files {
			for _, f := range files {
				if f.pair == now.pair && f.failed != nil {
					c.fail(now, f.failed)
				}
			}
		}
		return err
	}
	before := c.files
	c.files = files
	c.publish()
	for _, f := range files {
		if !slices.ContainsFunc(before, f.sameAs) {
			c.announce(f)
		}
	}
	return nil
}

// Reload loads the present pairs afresh, all or nothing as Set does.
func (c *Certificates) Reload() error {
	c.mu.Lock()
	pairs := make([]Pair, len(c.files))
	for i, f := range c.files {
		pairs[i] = f.pair
	}
	c.mu.Unlock()
	return c.Set(pairs)
}

func loadAll(pairs []Pair) (files []*certFile, err error) {
	if len(pairs) == 0 {
		return nil, errors.New("no certificate files named")
	}
	var errs []error
	for i, p := range pairs {
		if slices.Contains(pairs[:i], p) {
			errs = append(errs, &FileError{Path: p.Cert, What: "is listed twice", Fix: "remove one of the two"})
			continue
		}
		f := &certFile{pair: p, seen: stat(p)}
		if f.loaded, f.failed = loadPair(p); f.failed != nil {
			errs = append(errs, f.failed)
		}
		files = append(files, f)
	}
	return files, errors.Join(errs...)
}

// Watch follows the files until ctx ends, then returns nil. Each pair is its
// own: a broken one does not keep another from being renewed.
//
// The files are polled, since notification does not work for what certificates
// often lie on or behind (network file systems, bind mounts, chains of symbolic
// links that are switched at the far end).
func (c *Certificates) Watch(ctx context.Context) error {
	tick := time.NewTicker(c.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.poll()
		}
	}
}

// poll loads a changed pair once it has looked the same twice, so that one that
// is just being written is let finish, and a failed pair every time, since what
// was wrong may not show in the files (the mode of a directory, a mount).
func (c *Certificates) poll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := false
	for _, f := range c.files {
		now := stat(f.pair)
		if f.failed == nil && now.same(f.seen) {
			f.moving = nil
			continue
		}
		if f.failed == nil && (f.moving == nil || !now.same(*f.moving)) {
			f.moving = &now
			continue
		}
		f.seen, f.moving = now, nil
		loaded, err := loadPair(f.pair)
		if err != nil {
			c.fail(f, err)
			continue
		}
		f.loaded, f.failed = loaded, nil
		changed = true
		c.announce(f)
	}
	if changed {
		c.publish()
	}
}

// fail records why the files of f cannot be loaded, and says so once.
// The caller holds mu.
func (c *Certificates) fail(f *certFile, err error) {
	if f.failed == nil || f.failed.Error() != err.Error() {
		c.log.Warn("certificate not loaded, the one before is still served",
			"cert", f.pair.Cert, "not_after", f.loaded.leaf().NotAfter, "err", err)
	}
	f.failed = err
}

func (c *Certificates) announce(f *certFile) {
	leaf := f.loaded.leaf()
	c.log.Info("certificate loaded", "cert", f.pair.Cert, "names", names(leaf), "not_after", leaf.NotAfter)
	for _, w := range f.loaded.warnings(time.Now()) {
		c.log.Warn("certificate is served, but", "cert", f.pair.Cert, "warning", w)
	}
}

// publish makes what is loaded what is served. The caller holds mu.
func (c *Certificates) publish() {
	serving := make([]*tls.Certificate, len(c.files))
	for i, f := range c.files {
		serving[i] = &f.loaded.Certificate
	}
	isRSA := func(cert *tls.Certificate) int {
		if _, ok := cert.Leaf.PublicKey.(*ecdsa.PublicKey); ok {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(serving, func(a, b *tls.Certificate) int { return isRSA(a) - isRSA(b) })
	c.serving.Store(&serving)
}

// GetCertificate is for tls.Config: the first certificate that has the name the
// client asks for and whose algorithm the client can verify. For a name that
// none has it is the first the client can verify, so that the browser's error
// page shows whose server this is.
func (c *Certificates) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	serving := *c.serving.Load()
	if len(serving) == 1 {
		return serving[0], nil
	}
	nameless := *hello
	nameless.ServerName = ""
	for _, h := range []*tls.ClientHelloInfo{hello, &nameless} {
		for _, cert := range serving {
			if h.SupportsCertificate(cert) == nil {
				return cert, nil
			}
		}
	}
	return serving[0], nil
}

// State returns the state of every pair, in the order of the pairs.
func (c *Certificates) State() []CertState {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]CertState, len(c.files))
	for i, f := range c.files {
		leaf := f.loaded.leaf()
		out[i] = CertState{
			Cert: f.pair.Cert, Key: f.pair.Key,
			Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(),
			Names:      names(leaf),
			Algorithm:  leaf.PublicKeyAlgorithm.String(),
			SHA256:     fmt.Sprintf("%x", sha256.Sum256(leaf.Raw)),
			SelfSigned: selfSigned(leaf),
			Chain:      f.loaded.chain,
			NotBefore:  leaf.NotBefore, NotAfter: leaf.NotAfter,
			Loaded:   f.loaded.when,
			Warnings: f.loaded.warnings(time.Now()),
		}
		if f.failed != nil {
			out[i].Error = f.failed.Error()
		}
	}
	return out
}

// ErrKeyExposed is the cause of a [FileError] about a private key that every
// user of the machine can reach.
var ErrKeyExposed = errors.New("private key exposed")

// FileError says what is wrong with a certificate or key file and what to do.
type FileError struct {
	Path string
	What string
	Fix  string
	Err  error // the cause, or nil
}

func (e *FileError) Error() string { return fmt.Sprintf("%s: %s; %s", e.Path, e.What, e.Fix) }
func (e *FileError) Unwrap() error { return e.Err }

// Names reports whether a certificate that is served is for host.
func (c *Certificates) Names(host string) bool {
	for _, cert := range *c.serving.Load() {
		if cert.Leaf != nil && cert.Leaf.VerifyHostname(host) == nil {
			return true
		}
	}
	return false
}
