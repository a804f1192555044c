package main

import (
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/admin"
)

// reloadState is what the last reload came to.
type reloadState struct {
	mu  sync.Mutex
	at  time.Time // zero: none yet
	err error
}

// Reload is the outcome of a reload, for status output.
type Reload struct {
	At      time.Time `json:"at,omitzero"`
	Error   string    `json:"error,omitempty"`
	Changed []string  `json:"changed,omitempty"` // keys, secrets without their value
	Restart []string  `json:"restart,omitempty"` // of those, what only a restart applies
}

// reload reads the configuration file again and runs what it says, or changes
// nothing and returns why. No live connection or allocation ends.
func (a *app) reload() (Reload, error) {
	a.reloadMu.Lock()
	defer a.reloadMu.Unlock()
	if a.draining.Load() {
		return Reload{}, errors.New("turngate is stopping")
	}
	notify(admin.NotifyReloading(), a.log)
	a.accessLog.Reopen() // also where the file has errors: logrotate does not know of them
	result, err := a.reloadLocked()
	status := "serving"
	if err != nil {
		status = "serving; the last reload changed nothing"
		a.log.Error("reload refused, nothing has changed", "err", err)
	} else {
		a.log.Info("reloaded", "changed", result.Changed, "restart", result.Restart)
	}
	notify(admin.NotifyReady(status), a.log)
	a.reloads.set(err)
	return result, err
}

func (a *app) reloadLocked() (Reload, error) {
	old := a.plan.Load()
	file := old.cfg.File()
	if file == "" {
		// Started without a file: only the certificates can have changed.
		return Reload{At: time.Now()}, a.certs.Reload()
	}
	cfg, findings := loadWithFiles(file)
	if err := findings.Err(); err != nil {
		return Reload{}, err
	}
	for _, f := range findings.Warnings() {
		a.log.Warn("configuration", "finding", f.String())
	}
	p, err := a.newPlan(cfg)
	if err != nil {
		return Reload{}, err
	}
	if err := a.turn.Check(p.turn); err != nil {
		return Reload{}, err
	}
	next, err := a.openSockets(p)
	if err != nil {
		return Reload{}, err
	}
	a.swap(p, next)
	result := Reload{At: time.Now()}
	for _, c := range config.Changes(old.cfg, p.cfg) { // both with the secret of this host
		result.Changed = append(result.Changed, c.Key)
		if c.Reload == config.Restart {
			result.Restart = append(result.Restart, c.Key)
		}
	}
	return result, nil
}

func (r *reloadState) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at, r.err = time.Now(), err
}

func (r *reloadState) last() Reload {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := Reload{At: r.at}
	if r.err != nil {
		last.Error = r.err.Error()
	}
	return last
}

// collector shows whether the last reload was good.
func (r *reloadState) collector() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "turngate_reload_ok", Help: "1 if the last reload was applied or there was none, 0 if it was refused.",
	}, func() float64 {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.err != nil {
			return 0
		}
		return 1
	})
}

// refused turns a failed reload into the answer of the admin socket.
func refused(err error) error {
	var findings config.Findings
	if !errors.As(err, &findings) {
		return admin.Refused(err.Error(), nil)
	}
	var list []admin.Finding
	for _, f := range findings {
		list = append(list, admin.Finding{
			Severity: f.Severity.String(), File: f.File, Line: f.Line, Key: f.Key, What: f.What, Fix: f.Fix,
		})
	}
	return admin.Refused("the configuration file has errors; nothing has changed", list)
}
