package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/internal/edge"
	"github.com/turngate/turngate/internal/pki"
)

func newTicketKeyCommand(s streams) *cobra.Command {
	keep := 3
	cmd := &cobra.Command{
		Use:   "ticket-key FILE",
		Short: "Put a new key of session tickets in front of a file",
		Long: `Puts a new random key in front of the file of tls.ticket_keys, or begins the file.
The first key encrypts the tickets of new sessions, all of them decrypt, so that
sessions of the last days can still be resumed. Copy the file to the hosts that
share it; a running turngate notices.

Who has the keys can read recorded TLS 1.2 sessions that were resumed with them:
rotate every day, and keep no old copies.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if keep < 1 {
				return usageError{errors.New("--keep: at least the new key stays")}
			}
			keys, err := edge.ReadTicketKeys(args[0])
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			var fresh [32]byte
			_, _ = rand.Read(fresh[:]) // never fails
			keys = append(edge.TicketKeys{fresh}, keys...)
			keys = keys[:min(keep, len(keys))]
			if err := pki.WriteSecret(args[0], keys.Text()); err != nil {
				return err
			}
			fmt.Fprintf(s.err, "%s: a new key in front, %d in all\n", args[0], len(keys))
			return nil
		},
	}
	cmd.Flags().IntVar(&keep, "keep", keep, "how many keys stay, the new one included")
	return cmd
}

// watchTicketKeys follows the file of ticket keys until ctx ends.
func (a *app) watchTicketKeys(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		text := ""
		if err := a.followTicketKeys(); err != nil {
			text = err.Error()
		}
		if text != last && text != "" {
			a.log.Warn("ticket keys not loaded, the ones before are still used", "err", text)
		}
		last = text
	}
}

// followTicketKeys uses the keys of the file if they have changed.
func (a *app) followTicketKeys() error {
	a.reloadMu.Lock()
	defer a.reloadMu.Unlock()
	p := a.plan.Load()
	if p.cfg.TLS.TicketKeys == "" {
		return nil
	}
	keys, err := edge.ReadTicketKeys(p.cfg.TLS.TicketKeys)
	if err != nil || slices.Equal(keys, a.tickets) {
		return err
	}
	a.tickets = keys
	a.log.Info("ticket keys loaded", "keys", len(keys))
	uses := p.tcp()
	for addr, d := range a.doors {
		if err := d.Update(a.doorOptions(p.cfg, keys, uses[addr])); err != nil {
			a.log.Error("listener not updated", "listen", addr, "err", err)
		}
	}
	return nil
}
