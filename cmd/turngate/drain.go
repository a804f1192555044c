package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/admin"
)

// DrainRequest begins the drain, or shortens the one that runs.
type DrainRequest struct {
	// Limit is how long allocations and WebSockets are served at most, like
	// "5m"; empty: as configured.
	Limit config.Duration `json:"limit,omitempty"`
}

// DrainReport is what a drain has left to wait for.
type DrainReport struct {
	Until       time.Time `json:"until"` // what is left then is cut
	WebSockets  int       `json:"websockets"`
	Allocations int       `json:"allocations"`
}

// drainState is what the operator has said about the drain.
type drainState struct {
	mu    sync.Mutex // guards the fields below
	limit time.Duration
	until time.Time          // zero: no drain yet
	cut   context.CancelFunc // ends the drain; nil: no drain yet
	timer *time.Timer
}

// begin is called when the drain begins, with what ends it.
func (d *drainState) begin(limit time.Duration, cut context.CancelFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until, d.cut = time.Now().Add(limit), cut
}

// within sets how long the drain may take from now on; it can only become
// shorter.
func (d *drainState) within(limit time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = limit
	until := time.Now().Add(limit)
	if d.cut == nil || !until.Before(d.until) {
		return
	}
	d.until = until
	if d.timer != nil {
		d.timer.Stop()
	}
	d.timer = time.AfterFunc(limit, d.cut)
}

// limits returns how long WebSockets and allocations are served.
func (d *drainState) limits(cfg config.Drain) (websockets, allocations time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	websockets, allocations = time.Duration(cfg.WebSockets), time.Duration(cfg.TURN)
	if d.limit > 0 {
		return min(websockets, d.limit), d.limit
	}
	return websockets, allocations
}

func (a *app) handleDrain(r *http.Request) (any, error) {
	var d DrainRequest
	if r.ContentLength != 0 {
		if err := admin.Read(r, &d); err != nil {
			return nil, err
		}
	}
	if d.Limit > 0 {
		a.drains.within(time.Duration(d.Limit))
	}
	a.stop()
	return nil, nil
}

// drainReport returns nil while there is no drain.
func (a *app) drainReport() *DrainReport {
	a.drains.mu.Lock()
	until := a.drains.until
	a.drains.mu.Unlock()
	if until.IsZero() {
		return nil
	}
	return &DrainReport{until, a.webSockets(), a.turn.Allocations()}
}

func newDrainCommand(io streams) *cobra.Command {
	var limit time.Duration
	var wait bool
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Take no new work, serve what is live until it ends or the drain limit, then stop",
		Args:  usageArgs(cobra.NoArgs),
	}
	r := newRemote(io, cmd)
	cmd.Flags().DurationVar(&limit, "limit", 0, "how long to serve what is live; as configured without. A second drain can shorten the first")
	cmd.Flags().BoolVar(&wait, "wait", false, "print what is left until turngate has stopped")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if limit < 0 || cmd.Flags().Changed("limit") && limit == 0 {
			return usageError{errors.New("--limit: want more than zero; a second SIGTERM ends everything at once")}
		}
		client, err := r.dial(cmd)
		if err != nil {
			return err
		}
		if err := r.ask(cmd, "POST", admin.PathDrain, DrainRequest{config.Duration(limit)}, nil, func() { fmt.Fprintln(io.out, "draining") }); err != nil {
			return err
		}
		if !wait {
			return nil
		}
		return waitForDrain(cmd.Context(), io, client)
	}
	return cmd
}

// waitForDrain prints what is left whenever that changes, until nobody
// answers any more.
func waitForDrain(ctx context.Context, io streams, client *admin.Client) error {
	const every = 200 * time.Millisecond
	var last DrainReport
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for shown := false; ; {
		var s Status
		ask, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := client.Do(ask, "GET", admin.PathStatus, nil, &s)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded): // it hangs, which is not that it has stopped
			return err
		case err != nil: // the socket goes last
			fmt.Fprintf(io.out, "stopped; %d WebSockets and %d allocations were left\n", last.WebSockets, last.Allocations)
			return nil
		case s.Drain != nil && (!shown || *s.Drain != last):
			last, shown = *s.Drain, true
			fmt.Fprintf(io.out, "%d WebSockets, %d allocations, at most %s more\n",
				last.WebSockets, last.Allocations, time.Until(last.Until).Round(time.Second))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
