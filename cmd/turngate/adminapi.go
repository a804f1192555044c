package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/turngate/turngate/internal/acme"
	"github.com/turngate/turngate/internal/admin"
	"github.com/turngate/turngate/internal/edge"
	"github.com/turngate/turngate/signaling/entry"
	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/offload"
)

// Status is what runs, as the admin socket tells it.
type Status struct {
	Version      string           `json:"version"`
	PID          int              `json:"pid"`
	Started      time.Time        `json:"started"`
	ConfigFile   string           `json:"config_file,omitempty"`
	Layout       string           `json:"layout"`
	Draining     bool             `json:"draining"`
	Drain        *DrainReport     `json:"drain,omitempty"`
	LastReload   Reload           `json:"last_reload"`
	Listeners    []string         `json:"listeners"`
	Certificates []edge.CertState `json:"certificates"`
	CertSource   string           `json:"certificate_source"` // tls.mode, never auto
	ACME         []acme.State     `json:"acme,omitempty"`     // orders, by name
	Connections  int              `json:"connections"`        // TCP, on every listener
	WebSockets   int              `json:"websockets"`
	Allocations  int              `json:"allocations"`
	FreePorts    int              `json:"free_ports"`
	Bans         int              `json:"bans"`
	Offload      offload.Status   `json:"offload"`             // the kernel packet path
	Upstreams    []UpstreamState  `json:"upstreams,omitempty"` // of WebSocket routes
	RelayRates   RelayRates       `json:"relay_rates"`
	Figures      Figures          `json:"figures"`

	// Problems are the last warnings and errors of the log, as JSON.
	Problems []json.RawMessage `json:"problems,omitempty"`
}

// RelayRates are bytes a second through all relays, the mean of the last seconds.
type RelayRates struct {
	Up   float64 `json:"up"` // from clients to peers
	Down float64 `json:"down"`
}

// shownProblems is how many lines of the log a status has.
const shownProblems = 5

// UpstreamState is what is known about an upstream.
type UpstreamState struct {
	Route       string    `json:"route"`
	Upstream    string    `json:"upstream"`
	State       string    `json:"state"` // "up", "down", or "off" for weight 0
	Backup      bool      `json:"backup,omitempty"`
	Weight      int       `json:"weight"`
	Check       string    `json:"check,omitempty"` // kind of the active checks
	Since       time.Time `json:"since,omitzero"`  // of the last change
	Cause       string    `json:"cause,omitempty"` // why it is down
	Connections int       `json:"connections"`
}

// KickRequest names what to end; the first field that is set counts.
type KickRequest struct {
	ID     string `json:"id,omitempty"`
	User   string `json:"user,omitempty"`
	Client string `json:"client,omitempty"` // an address
}

// newAdmin makes the admin socket with everything an operator can ask.
func (a *app) newAdmin(socket string) *admin.Server {
	s := admin.New(admin.Options{Socket: socket, Gatherer: a.registry, Log: a.log})
	s.Handle("GET "+admin.PathStatus, admin.JSON(func(*http.Request) (any, error) { return a.status(), nil }))
	s.Handle("GET "+admin.PathSessions, admin.JSON(a.handleSessions))
	s.Handle("POST "+admin.PathKick, admin.JSON(func(r *http.Request) (any, error) {
		var k KickRequest
		if err := admin.Read(r, &k); err != nil {
			return nil, err
		}
		return a.kick(k)
	}))
	s.Handle("POST "+admin.PathReload, admin.JSON(func(*http.Request) (any, error) {
		result, err := a.reload()
		if err != nil {
			return nil, refused(err)
		}
		return result, nil
	}))
	s.Handle("POST "+admin.PathDrain, admin.JSON(a.handleDrain))
	s.Handle("POST "+admin.PathRenew, admin.JSON(a.handleRenew))
	s.Handle("GET "+admin.PathBans, admin.JSON(func(*http.Request) (any, error) { return a.turn.Bans(), nil }))
	s.Handle("POST "+admin.PathCheck, admin.JSON(a.handleCheckLink))
	s.Handle("GET "+admin.PathLog, admin.JSON(a.handleLog))
	s.Handle("POST "+admin.PathUnban, admin.JSON(a.handleUnban))
	return s
}

func (a *app) status() Status {
	p := a.plan.Load()
	s := Status{
		Version:      fullVersion(),
		PID:          os.Getpid(),
		Started:      a.started,
		ConfigFile:   p.cfg.File(),
		Layout:       p.cfg.Layout,
		Draining:     a.draining.Load(),
		Drain:        a.drainReport(),
		LastReload:   a.reloads.last(),
		Certificates: a.certs.State(),
		CertSource:   p.tls.mode,
		Connections:  a.httpsCaps.Open() + a.turnCaps.Open(),
		WebSockets:   a.webSockets(),
		Allocations:  a.turn.Allocations(),
		FreePorts:    a.turn.FreePorts(),
		Bans:         len(a.turn.Bans()),
		Offload:      a.turn.Offload(),
		Upstreams:    upstreamStates(append(a.signaling.Upstreams(), a.inspect.Upstreams()...)),
		Figures:      a.figures(),
		Problems:     a.recent.last(slog.LevelWarn, shownProblems),
	}
	for _, t := range a.turn.Sessions() {
		s.RelayRates.Up += t.RateUp
		s.RelayRates.Down += t.RateDown
	}
	if p.tls.acme != nil {
		s.ACME = p.tls.acme.States()
	}
	a.reloadMu.Lock()
	defer a.reloadMu.Unlock()
	for _, d := range a.doors {
		kind := "turn"
		if d.https {
			kind = "https"
		}
		s.Listeners = append(s.Listeners, kind+" tcp "+d.Addr().String())
	}
	for _, all := range a.sockets {
		for _, l := range all {
			s.Listeners = append(s.Listeners, "turn udp "+l.Addr().String())
		}
	}
	slices.Sort(s.Listeners)
	return s
}

func upstreamStates(list []entry.UpstreamInfo) []UpstreamState {
	var out []UpstreamState
	for _, u := range list {
		s := UpstreamState{
			Route: u.Route, Upstream: u.Upstream, State: "up", Backup: u.Backup, Weight: u.Weight, Check: u.Checked,
			Since: u.Since, Cause: string(u.Cause), Connections: u.Connections,
		}
		switch {
		case u.Weight == 0:
			s.State = "off"
		case !u.Up:
			s.State = "down"
		}
		out = append(out, s)
	}
	return out
}

func (a *app) kick(k KickRequest) (any, error) {
	var addr netip.Addr
	if k.ID == "" && k.User == "" {
		var err error
		if addr, err = netip.ParseAddr(k.Client); err != nil {
			return nil, &admin.Error{Status: http.StatusBadRequest, Message: "name a session id, a user or a client address"}
		}
	}
	n := a.turn.Kick(func(s turn.Session) bool {
		switch {
		case k.ID != "":
			return s.ID == k.ID
		case k.User != "":
			return s.User == k.User
		}
		return s.Client.Addr() == addr
	})
	for _, s := range a.signaling.Sessions() {
		if k.ID != "" && wssID(s.ID) == k.ID || addr.IsValid() && s.Client == addr {
			if a.signaling.Kick(s.ID) {
				n++
			}
		}
	}
	for _, s := range a.inspect.Sessions() {
		if k.ID != "" && inspectedID(s.ID) == k.ID || addr.IsValid() && s.Client == addr {
			if a.inspect.Kick(s.ID) {
				n++
			}
		}
	}
	if n == 0 && k.ID != "" {
		return nil, &admin.Error{Status: http.StatusNotFound, Message: "no session has the id " + strings.ToValidUTF8(k.ID, "?")}
	}
	return map[string]int{"kicked": n}, nil
}

// stop asks serve to drain and end.
func (a *app) stop() { a.stopOnce.Do(func() { close(a.stopped) }) }

// untilStopped returns a context that also ends with stop.
func (a *app) untilStopped(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-a.stopped:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
