package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/admin"
)

// remote is a command that asks the running turngate over its socket.
type remote struct {
	streams
	socket string
	json   bool
}

func newRemote(io streams, cmd *cobra.Command) *remote {
	r := &remote{streams: io}
	cmd.Flags().StringVar(&r.socket, "socket", "", "admin socket of the running turngate (default: that of the configuration)")
	cmd.Flags().BoolVar(&r.json, "json", false, "print JSON")
	configFlag(cmd)
	return r
}

// dial finds the socket and connects.
func (r *remote) dial(cmd *cobra.Command) (*admin.Client, error) {
	socket := r.socket
	if socket == "" {
		socket = config.Default().Admin.Socket
		if file := configFile(configPath(cmd, nil)); file != "" {
			cfg, findings := config.Load(file)
			if cfg == nil {
				return nil, fmt.Errorf("the configuration has errors, so the socket is not known; name it with --socket\n%w", findings)
			}
			socket = cfg.Admin.Socket
		}
	}
	return admin.Dial(socket)
}

// ask makes a call and prints the answer: as JSON, or by show.
func (r *remote) ask(cmd *cobra.Command, method, path string, in, out any, show func()) error {
	client, err := r.dial(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
	defer cancel()
	if err := client.Do(ctx, method, path, in, out); err != nil {
		return err
	}
	if r.json {
		enc := json.NewEncoder(r.out)
		enc.SetIndent("", "  ")
		return enc.Encode(out)
	}
	show()
	return nil
}

func newStatusCommand(io streams) *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show what the running turngate does", Args: usageArgs(cobra.NoArgs)}
	r := newRemote(io, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var s Status
		return r.ask(cmd, "GET", admin.PathStatus, nil, &s, func() { showStatus(io, s) })
	}
	return cmd
}

func showStatus(io streams, s Status) {
	w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { fmt.Fprintf(w, "%s\t%v\n", name, value) }
	row("turngate", s.Version)
	row("running", fmt.Sprintf("pid %d, since %s", s.PID, s.Started.Format(time.DateTime)))
	if s.ConfigFile != "" {
		row("file", s.ConfigFile)
	}
	row("layout", s.Layout)
	if s.Draining {
		row("state", "draining")
	}
	for _, l := range s.Listeners {
		row("listens", l)
	}
	for _, c := range s.Certificates {
		days := int(time.Until(c.NotAfter).Hours() / 24)
		row("certificate", fmt.Sprintf("%s, %d days left", strings.Join(c.Names, " "), days))
		if c.Error != "" {
			row("", c.Error)
		}
	}
	row("connections", s.Connections)
	row("websockets", s.WebSockets)
	row("allocations", fmt.Sprintf("%d, %d ports free", s.Allocations, s.FreePorts))
	if !s.LastReload.At.IsZero() {
		outcome := "applied"
		if s.LastReload.Error != "" {
			outcome = "refused: " + s.LastReload.Error
		}
		row("last reload", s.LastReload.At.Format(time.DateTime)+" "+outcome)
	}
	w.Flush()
}

func newSessionsCommand(io streams) *cobra.Command {
	cmd := &cobra.Command{Use: "sessions", Short: "List the live WebSockets and TURN allocations", Args: usageArgs(cobra.NoArgs)}
	r := newRemote(io, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var all []Session
		return r.ask(cmd, "GET", admin.PathSessions, nil, &all, func() {
			w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tKIND\tCLIENT\tUSER / ROUTE\tTO\tAGE\tBYTES UP\tBYTES DOWN")
			for _, s := range all {
				fmt.Fprintf(w, "%s\t%s/%s\t%s\t%q\t%s\t%s\t%d\t%d\n", s.ID, s.Kind, s.Transport, s.Client,
					s.User+s.Route, s.To, time.Since(s.Opened).Round(time.Second), s.BytesUp, s.BytesDown)
			}
			w.Flush()
		})
	}
	return cmd
}

func newKickCommand(io streams) *cobra.Command {
	var k KickRequest
	cmd := &cobra.Command{
		Use:   "kick [ID]",
		Short: "End one session, or those of a user or a client address",
		Args:  usageArgs(cobra.MaximumNArgs(1)),
	}
	r := newRemote(io, cmd)
	cmd.Flags().StringVar(&k.User, "user", "", "end the allocations of this TURN user")
	cmd.Flags().StringVar(&k.Client, "client", "", "end everything of this client address")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			k.ID = args[0]
		}
		if k == (KickRequest{}) {
			return usageError{fmt.Errorf("name a session id, --user or --client")}
		}
		var answer map[string]int
		return r.ask(cmd, "POST", admin.PathKick, k, &answer, func() { fmt.Fprintf(io.out, "ended %d\n", answer["kicked"]) })
	}
	return cmd
}

func newReloadCommand(io streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Apply the changed configuration file; no call ends, and a bad file changes nothing",
		Args:  usageArgs(cobra.NoArgs),
	}
	r := newRemote(io, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var result Reload
		return r.ask(cmd, "POST", admin.PathReload, nil, &result, func() {
			if len(result.Changed) == 0 {
				fmt.Fprintln(io.out, "reloaded; nothing has changed")
				return
			}
			fmt.Fprintf(io.out, "reloaded; changed: %s\n", strings.Join(result.Changed, ", "))
			if len(result.Restart) > 0 {
				fmt.Fprintf(io.out, "applied at the next start only: %s\n", strings.Join(result.Restart, ", "))
			}
		})
	}
	return cmd
}

func newDrainCommand(io streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Take no new work, serve what is live until it ends or the drain limit, then stop",
		Args:  usageArgs(cobra.NoArgs),
	}
	r := newRemote(io, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return r.ask(cmd, "POST", admin.PathDrain, nil, nil, func() { fmt.Fprintln(io.out, "draining") })
	}
	return cmd
}
