// Package acme orders certificates from an ACME server (RFC 8555) and renews
// them in time. The protocol is certmagic's; what is ours is when to ask, what
// to say when it fails, and that nothing outlives [Manager.Run].
//
// A certificate is a pair of files below Options.Dir, one for each name, that
// whoever serves certificates may watch. A failure changes no file: what was
// good stays until something better is there.
package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// Order says what to order, where, and how to prove the names. Two equal
// Orders are served by the same Manager.
type Order struct {
	Dir   string   // accounts, keys and certificates; made if necessary
	Names []string // lower case DNS names; each gets a certificate of its own

	CA      string // URL of the directory
	Roots   []byte // PEM of the authorities of the directory's certificate; nil: those of the system
	Email   string // may be empty
	Profile string // of the CA; empty: its default

	// Agreed says that the operator agrees to the CA's terms of service.
	// Nothing is ordered without.
	Agreed bool

	EABKeyID, EABKey string // external account; both or neither

	// The challenges that may be used, and the port of the listener on this
	// host that answers them ([Manager.Certificate], [Manager.ServeHTTP]).
	// 0: not used. Host is the address of the listeners, empty for all.
	TLSPort, HTTPPort int
	Host              string

	// SitePort is the port of https that browsers are sent to; 0: 443.
	SitePort int
}

// Options are an Order and what stands around it.
type Options struct {
	Order

	// Changed is called after a certificate was written, from a goroutine of
	// Run, and must return soon. May be nil.
	Changed func()

	Interval time.Duration           // how often to look whether one is due; 0: 10 min
	Retry    func(int) time.Duration // the pause after so many failures in a row; nil: RetryAfter
	Metrics  *Metrics                // nil: not exported
	Log      *slog.Logger            // nil: slog.Default
}

// RetryAfter is the pause after n failures in a row. A CA counts failed
// validations (Let's Encrypt: five an hour for a name), so it grows soon.
func RetryAfter(n int) time.Duration {
	pauses := []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute}
	if n <= len(pauses) {
		return pauses[max(n, 1)-1]
	}
	return time.Hour
}

// Manager keeps the certificates of an Order. All methods may be called from
// many goroutines at once; Run once only.
type Manager struct {
	opts    Options
	roots   *x509.CertPool // nil: the system's
	storage *certmagic.FileStorage

	mu     sync.Mutex // guards the fields below
	states map[string]*State
	wake   chan struct{} // closed and replaced by Renew
}

// State is what is known about one name.
type State struct {
	Name     string    `json:"name"`
	CA       string    `json:"ca"`
	NotAfter time.Time `json:"not_after,omitzero"` // of the certificate there is; zero: none yet
	Renewal  time.Time `json:"renewal,omitzero"`   // when it will be renewed
	Tried    time.Time `json:"tried,omitzero"`     // the last order; zero: none by this process
	Next     time.Time `json:"next,omitzero"`      // the next attempt, after a failure
	Failures int       `json:"failures,omitempty"` // in a row
	Error    string    `json:"error,omitempty"`    // of the last one
	Fix      string    `json:"fix,omitempty"`      // what to do about it
}

// New checks an Order; it neither starts nor asks anything.
func New(o Options) (*Manager, error) {
	switch {
	case !o.Agreed:
		return nil, errors.New("the terms of service of the CA are not agreed to")
	case len(o.Names) == 0:
		return nil, errors.New("no name to order a certificate for")
	case o.CA == "":
		return nil, errors.New("no ACME server named")
	case o.TLSPort == 0 && o.HTTPPort == 0:
		return nil, errors.New("no challenge that could be answered")
	}
	m := &Manager{
		opts:    o,
		storage: &certmagic.FileStorage{Path: o.Dir},
		states:  make(map[string]*State),
		wake:    make(chan struct{}),
	}
	if o.Roots != nil {
		m.roots = x509.NewCertPool()
		if !m.roots.AppendCertsFromPEM(o.Roots) {
			return nil, errors.New("the file of the ACME server's authority holds no PEM certificate")
		}
	}
	if m.opts.Interval <= 0 {
		m.opts.Interval = 10 * time.Minute
	}
	if m.opts.Retry == nil {
		m.opts.Retry = RetryAfter
	}
	if m.opts.Metrics == nil {
		m.opts.Metrics = NewMetrics()
	}
	if m.opts.Log == nil {
		m.opts.Log = slog.Default()
	}
	for _, n := range o.Names {
		m.states[n] = &State{Name: n, CA: o.CA}
		if leaf, err := m.load(n); err == nil {
			m.states[n].NotAfter = leaf.NotAfter
		}
	}
	return m, nil
}

// Serves reports whether the Manager was made for an equal Order.
func (m *Manager) Serves(o Order) bool { return reflect.DeepEqual(m.opts.Order, o) }

// Run orders and renews until ctx ends, then returns nil. An order under way
// is given up.
func (m *Manager) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, name := range m.opts.Names {
		wg.Go(func() { m.keep(ctx, name) })
	}
	wg.Wait()
	for _, name := range m.opts.Names {
		m.opts.Metrics.Failures.DeleteLabelValues(name)
	}
	return nil
}

// Renew makes Run try at once what is missing, due or failed.
func (m *Manager) Renew() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.wake)
	m.wake = make(chan struct{})
}

// Files returns the certificate and key of a name, and whether they are there
// and can be used.
func (m *Manager) Files(name string) (cert, key string, ok bool) {
	cert, key = m.paths(name)
	_, err := m.load(name)
	return cert, key, err == nil
}

// States returns the state of every name, in the order of the names.
func (m *Manager) States() []State {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []State
	for _, n := range m.opts.Names {
		out = append(out, *m.states[n])
	}
	return out
}

// keep keeps the certificate of one name.
func (m *Manager) keep(ctx context.Context, name string) {
	failures := 0
	var window renewalWindow
	for {
		m.mu.Lock()
		wake := m.wake
		m.mu.Unlock()
		pause := m.opts.Interval
		wrote, err := m.ensure(ctx, name, &window)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			pause = m.opts.Retry(failures)
			m.failed(name, err, failures, pause)
		default:
			failures = 0
			m.good(name, wrote, window)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-wake:
			timer.Stop()
			window = renewalWindow{}
		case <-timer.C:
		}
	}
}

func (m *Manager) good(name string, wrote bool, w renewalWindow) {
	leaf, err := m.load(name)
	if err != nil {
		return // written a moment ago: somebody else changes the files
	}
	m.update(name, func(s *State) {
		s.NotAfter, s.Renewal = leaf.NotAfter, w.due(leaf)
		s.Failures, s.Error, s.Fix, s.Next = 0, "", "", time.Time{}
		if wrote {
			s.Tried = time.Now()
		}
	})
	m.opts.Metrics.Failures.WithLabelValues(name).Set(0)
	if !wrote {
		return
	}
	m.opts.Metrics.Orders.WithLabelValues("ok").Inc()
	m.opts.Log.Info("certificate issued", "name", name, "issuer", leaf.Issuer.String(), "not_after", leaf.NotAfter)
	if m.opts.Changed != nil {
		m.opts.Changed()
	}
}

func (m *Manager) failed(name string, err error, failures int, pause time.Duration) {
	f := explain(name, m.opts.Order, err)
	m.update(name, func(s *State) {
		s.Tried, s.Next = time.Now(), time.Now().Add(pause)
		s.Failures, s.Error, s.Fix = failures, f.What, f.Fix
	})
	m.opts.Metrics.Orders.WithLabelValues("failed").Inc()
	m.opts.Metrics.Failures.WithLabelValues(name).Set(float64(failures))
	m.opts.Log.Warn("certificate not issued, what is served stays", "name", name, "ca", m.opts.CA,
		"err", f.What, "fix", f.Fix, "attempt", failures, "next", time.Now().Add(pause))
}

func (m *Manager) update(name string, change func(*State)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m.states[name])
}

// Failure is why an order failed, for the operator.
type Failure struct {
	What string // in the CA's words where it said something
	Fix  string // what to do
}
