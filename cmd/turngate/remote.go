package main

import (
	"context"
	"fmt"
	"strings"
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
		return writeJSON(r.out, out)
	}
	show()
	return nil
}

// String is the state as a person reads it.
func (u UpstreamState) String() string {
	s := u.State
	if u.State == "down" {
		s += ", " + u.Cause
	}
	if !u.Since.IsZero() {
		s += ", since " + u.Since.Format(time.DateTime)
	}
	if u.Backup {
		s += ", backup"
	}
	return s + fmt.Sprintf(", %d connections", u.Connections)
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
