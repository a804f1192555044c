package setup

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// A Service is the program as the host runs it.
type Service interface {
	// State reports whether it starts at boot, and whether it runs.
	State(ctx context.Context) (State, error)
	// Set brings it to a state: running, at boot.
	Set(ctx context.Context, s State) error
	// Reload has it read its files again.
	Reload(ctx context.Context) error
	// Restart ends it, which lets calls end first, and starts it.
	Restart(ctx context.Context) error
	// Why is what it said last, for who wants to know why it does not start.
	Why(ctx context.Context) string
	// How tells a person how to stop it and so on.
	How() string
}

// State is that of a service.
type State struct {
	Enabled bool `json:"enabled"` // starts at boot
	Active  bool `json:"active"`  // runs
}

// HasSystemd reports whether systemd runs the host.
func (h Host) HasSystemd() bool {
	_, err := os.Stat(h.Path("/run/systemd/system"))
	return err == nil && h.Has("systemctl")
}

// Unit finds the file of a unit, "" without one.
func (h Host) Unit(name string) string {
	for _, dir := range []string{"/etc/systemd/system/", "/usr/local/lib/systemd/system/", "/usr/lib/systemd/system/", "/lib/systemd/system/"} {
		if h.Exists(dir + name) {
			return dir + name
		}
	}
	return ""
}

// Systemd is a service with a unit.
type Systemd struct {
	Host Host
	Unit string // "turngate.service"
}

func (s Systemd) run(ctx context.Context, args ...string) (string, error) {
	return s.Host.Run(ctx, "", "systemctl", args...)
}

// State asks systemd. A unit that is not enabled or does not run is no error, though
// systemctl ends with one.
func (s Systemd) State(ctx context.Context) (State, error) {
	enabled, _ := s.run(ctx, "is-enabled", s.Unit)
	active, _ := s.run(ctx, "is-active", s.Unit)
	word := strings.TrimSpace(active)
	return State{strings.HasPrefix(strings.TrimSpace(enabled), "enabled"), word == "active" || word == "reloading" || word == "activating"}, ctx.Err()
}

// Set starts or stops, enables or disables what is not so.
func (s Systemd) Set(ctx context.Context, want State) error {
	have, err := s.State(ctx)
	if err != nil {
		return err
	}
	change := func(have, want bool, on, off string) error {
		verb := off
		if want {
			verb = on
		}
		if have == want {
			return nil
		}
		_, err := s.run(ctx, verb, s.Unit)
		return err
	}
	if !have.Active && want.Active {
		_, _ = s.run(ctx, "reset-failed", s.Unit) // of tries before: they would count
	}
	if err := change(have.Enabled, want.Enabled, "enable", "disable"); err != nil {
		return err
	}
	return change(have.Active, want.Active, "start", "stop")
}

func (s Systemd) Reload(ctx context.Context) error {
	_, err := s.run(ctx, "reload", s.Unit)
	return err
}

func (s Systemd) Restart(ctx context.Context) error {
	_, err := s.run(ctx, "restart", s.Unit)
	return err
}

func (s Systemd) Why(ctx context.Context) string {
	said, _ := s.Host.Run(ctx, "", "journalctl", "--unit="+s.Unit, "--lines=10", "--no-pager", "--output=cat")
	return strings.TrimSpace(said)
}

func (s Systemd) How() string {
	return fmt.Sprintf("systemctl status|stop|restart %s", strings.TrimSuffix(s.Unit, ".service"))
}
