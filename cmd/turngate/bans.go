package main

import (
	"fmt"
	"net/http"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/internal/admin"
	"github.com/turngate/turngate/turn"
)

// UnbanRequest names the source whose ban to lift, by an address of it.
type UnbanRequest struct {
	Address string `json:"address"`
}

func (a *app) handleUnban(r *http.Request) (any, error) {
	var u UnbanRequest
	if err := admin.Read(r, &u); err != nil {
		return nil, err
	}
	addr, err := bannedAddress(u.Address)
	if err != nil {
		return nil, &admin.Error{Status: http.StatusBadRequest, Message: err.Error()}
	}
	if !a.turn.Unban(addr) {
		return nil, &admin.Error{Status: http.StatusNotFound, Message: addr.String() + " is not banned"}
	}
	return map[string]string{"unbanned": addr.String()}, nil
}

// bannedAddress reads an address, or a source as the list of bans shows it.
func bannedAddress(s string) (netip.Addr, error) {
	p, err := parseSource(s)
	return p.Addr(), err
}

func newBansCommand(io streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bans",
		Short: "List the addresses that are not answered after too many wrong TURN credentials",
		Args:  usageArgs(cobra.NoArgs),
	}
	r := newRemote(io, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var all []turn.Ban
		return r.ask(cmd, "GET", admin.PathBans, nil, &all, func() {
			if len(all) == 0 {
				fmt.Fprintln(io.out, "nobody is banned")
				return
			}
			w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "SOURCE\tLAST USER\tSINCE\tLEFT")
			for _, b := range all {
				fmt.Fprintf(w, "%s\t%q\t%s\t%s\n", b.Source, b.User, b.Since.Local().Format(time.DateTime),
					time.Until(b.Until).Round(time.Second))
			}
			w.Flush()
		})
	}
	return cmd
}

func newUnbanCommand(io streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "unban ADDRESS",
		Short: "Answer a banned address again",
		Args:  usageArgs(cobra.ExactArgs(1)),
	}
	r := newRemote(io, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := bannedAddress(args[0]); err != nil {
			return usageError{err}
		}
		var answer map[string]string
		return r.ask(cmd, "POST", admin.PathUnban, UnbanRequest{args[0]}, &answer, func() {
			fmt.Fprintf(io.out, "%s is answered again\n", answer["unbanned"])
		})
	}
	return cmd
}
