package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/turngate/turngate/firewall"
)

func firewallApplyCommand(s streams, host firewall.System) *cobra.Command {
	var f firewallFlags
	var within time.Duration
	var now, dryRun, remove bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Open this host's firewall",
		Long: `Shows what it will change, changes the live rules, and takes the change back by
itself unless it is confirmed in time: by an answer here, or by "turngate
firewall confirm" from anywhere. That also happens when this session is lost.
Only what is confirmed outlasts a reboot. Applying twice changes nothing.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case now || remove: // what is removed closes nothing but our own ports
				within = 0
			case within < time.Second:
				return usageError{fmt.Errorf("--confirm-within %s is too short; --now needs no confirmation", within)}
			}
			c := firewall.Change{Backend: f.backend, Within: within, Watch: watchFirewall}
			var p *firewall.Plan
			if !remove {
				var err error
				if p, err = f.plan(s, cmd); err != nil {
					return err
				}
				exe, err := os.Executable()
				if err != nil {
					return err
				}
				c.Boot = append([]string{exe, "firewall", "apply", "--now"}, f.arguments(cmd)...)
			}
			if err := needRoot(); err != nil {
				return err
			}
			return applyFirewall(cmd.Context(), s, host, p, c, dryRun)
		},
	}
	f.add(cmd)
	fl := cmd.Flags()
	fl.DurationVar(&within, "confirm-within", time.Minute, "take the change back after this time without a confirmation")
	fl.BoolVar(&now, "now", false, "keep the change without a confirmation")
	fl.BoolVar(&dryRun, "dry-run", false, "only show what would change")
	fl.BoolVar(&remove, "remove", false, "remove all that is ours, and nothing else")
	return cmd
}

// applyFirewall brings the host to a plan, or to nothing of ours without one.
func applyFirewall(ctx context.Context, s streams, host firewall.System, p *firewall.Plan, c firewall.Change, dryRun bool) error {
	live, err := firewall.Read(ctx, host, c.Backend)
	if err != nil {
		return err
	}
	if p != nil {
		c.Want = live.Want(p)
	}
	steps := live.Steps(c.Want)
	for _, line := range firewall.Diff(live.Own, c.Want) {
		fmt.Fprintln(s.out, line)
	}
	switch {
	case len(steps) == 0 && len(live.Backends()) == 0:
		fmt.Fprintln(s.out, "nothing on this host filters packets: there is nothing to open")
	case len(steps) == 0:
		fmt.Fprintln(s.out, "nothing to change")
	case dryRun:
		for _, step := range steps {
			fmt.Fprintln(s.out, step)
		}
	}
	if dryRun {
		return nil
	}
	if len(steps) == 0 {
		c.Within = 0 // what outlasts a reboot may still be missing
	}
	pending, err := firewall.Apply(ctx, host, c)
	switch {
	case err != nil:
		return err
	case pending != nil:
		return askToKeep(ctx, s, host, *pending)
	case len(steps) > 0:
		fmt.Fprintln(s.out, "done")
	}
	return nil
}

// askToKeep asks on a terminal; elsewhere it says what to do and leaves.
func askToKeep(ctx context.Context, s streams, host firewall.System, p firewall.Pending) error {
	in, isFile := s.in.(*os.File)
	if !isFile || !term.IsTerminal(int(in.Fd())) {
		fmt.Fprintf(s.out, "applied; taken back at %s unless you say: turngate firewall confirm\n", p.Deadline.Format(time.TimeOnly))
		return nil
	}
	fmt.Fprintf(s.out, "Applied. Keep it? It is taken back at %s without an answer [yes/no]: ", p.Deadline.Format(time.TimeOnly))
	answers := make(chan string)
	go func() { // ends with the process: a terminal cannot be made to give up reading
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			answers <- strings.ToLower(strings.TrimSpace(lines.Text()))
		}
	}()
	late := time.After(time.Until(p.Deadline))
	for {
		select {
		case <-late:
			fmt.Fprintln(s.out, "\nno answer: it is taken back")
			return exitError{1}
		case answer := <-answers:
			switch answer {
			case "yes", "y":
				return confirmFirewall(ctx, s, host)
			case "no", "n":
				if err := firewall.RollBack(ctx, host, p.ID); err != nil {
					return err
				}
				fmt.Fprintln(s.out, "taken back")
				return exitError{1}
			}
			fmt.Fprint(s.out, "yes or no: ")
		}
	}
}

func confirmFirewall(ctx context.Context, s streams, host firewall.System) error {
	own, err := firewall.Confirm(ctx, host)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out, "kept")
	if len(own.Places) > 0 && !host.HasSystemd() {
		fmt.Fprintln(s.out, "there is no systemd here: have \"turngate firewall apply --now\" run at boot, or the rules are gone then")
	}
	return nil
}

func firewallConfirmCommand(s streams, host firewall.System) *cobra.Command {
	return &cobra.Command{
		Use:   "confirm",
		Short: "Keep what \"turngate firewall apply\" changed",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot(); err != nil {
				return err
			}
			return confirmFirewall(cmd.Context(), s, host)
		},
	}
}

func firewallRollbackCommand(s streams, host firewall.System) *cobra.Command {
	var watch string
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Take back what was not confirmed yet",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot(); err != nil {
				return err
			}
			if watch != "" {
				return watchPending(cmd.Context(), s, host, watch)
			}
			if err := firewall.RollBack(cmd.Context(), host, ""); err != nil {
				return err
			}
			fmt.Fprintln(s.out, "taken back")
			return nil
		},
	}
	cmd.Flags().StringVar(&watch, "watch", "", "wait for the end of this change's time first")
	_ = cmd.Flags().MarkHidden("watch")
	return cmd
}
