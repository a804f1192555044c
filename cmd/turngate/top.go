package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/turngate/turngate/internal/admin"
)

// view is one look at the running turngate, for top.
type view struct {
	status   Status
	sessions []Session
}

func newTopCommand(s streams) *cobra.Command {
	interval := 2 * time.Second
	count := 0
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the running turngate: traffic, sessions, upstreams",
		Long: `Watches the running turngate until q is pressed: traffic a second, the busiest
sessions, what is wrong. Where the output is no terminal it prints one look, or
--count of them.`,
		Args: usageArgs(cobra.NoArgs),
	}
	r := &remote{streams: s}
	cmd.Flags().StringVar(&r.socket, "socket", "", "admin socket of the running turngate (default: that of the configuration)")
	cmd.Flags().DurationVarP(&interval, "interval", "d", interval, "time between two looks")
	cmd.Flags().IntVarP(&count, "count", "n", 0, "end after this many looks")
	configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if interval < 100*time.Millisecond {
			return usageError{fmt.Errorf("--interval %s is too short", interval)}
		}
		client, err := r.dial(cmd)
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
		defer stop()
		look := func() (v view, err error) {
			if err = client.Do(ctx, "GET", admin.PathStatus, nil, &v.status); err == nil {
				err = client.Do(ctx, "GET", admin.PathSessions+"?sort=rate", nil, &v.sessions)
			}
			return v, err
		}
		if out, ok := s.out.(*os.File); ok && term.IsTerminal(int(out.Fd())) {
			return watch(ctx, s.in, out, look, interval, count)
		}
		return list(ctx, s.out, look, interval, max(1, count))
	}
	return cmd
}

// list prints looks one below the other.
func list(ctx context.Context, out io.Writer, look func() (view, error), interval time.Duration, count int) error {
	var before view
	for i := range count {
		if i > 0 {
			select {
			case <-time.After(interval):
				fmt.Fprintln(out)
			case <-ctx.Done():
				return nil
			}
		}
		now, err := look()
		if err != nil {
			return err
		}
		for _, line := range now.lines(before, 120, 40) {
			fmt.Fprintln(out, line)
		}
		before = now
	}
	return nil
}

// What a terminal is told: ECMA-48, as every terminal of the last decades speaks it.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // another screen, no cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	homeCursor  = "\x1b[H"
	clearRest   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// watch fills the terminal until q, Ctrl-C or the end of ctx, and leaves it as it
// was.
func watch(ctx context.Context, in io.Reader, out *os.File, look func() (view, error), interval time.Duration, count int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		state, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return err
		}
		defer func() { _ = term.Restore(int(f.Fd()), state) }()
		go func() { // ends with the process: a terminal's read cannot be broken off
			key := make([]byte, 1)
			for {
				n, err := f.Read(key)
				if err != nil || n == 1 && (key[0] == 'q' || key[0] == 'Q' || key[0] == 3) {
					cancel()
					return
				}
			}
		}()
	}
	fmt.Fprint(out, enterScreen)
	defer fmt.Fprint(out, leaveScreen)
	var before view
	for i := 1; ; i++ {
		now, err := look()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		width, height, err := term.GetSize(int(out.Fd()))
		if err != nil || width < 20 || height < 5 {
			width, height = 80, 24
		}
		var b strings.Builder
		b.WriteString(homeCursor)
		for n, line := range now.lines(before, width, height) {
			if n > 0 {
				b.WriteString("\r\n")
			}
			b.WriteString(line + clearRest)
		}
		fmt.Fprint(out, b.String()+clearBelow)
		before = now
		if i == count {
			return nil
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return nil
		}
	}
}

// lines are what is seen, cut to the size of the terminal. Rates are since before.
func (v view) lines(before view, width, height int) []string {
	s, f := v.status, v.status.Figures
	rate := func(of func(Figures) float64) string {
		if before.status.Figures.At.IsZero() {
			return "-"
		}
		return amount(perSecond(before.status.Figures, f, of)) + "/s"
	}
	number := func(of func(Figures) float64) string {
		if before.status.Figures.At.IsZero() {
			return "-"
		}
		return fmt.Sprintf("%.1f/s", perSecond(before.status.Figures, f, of))
	}
	state := "serving"
	if s.Draining {
		state = "draining"
	}
	lines := []string{
		fmt.Sprintf("turngate %s  %s  up %s  %s", s.Version, state, span(time.Since(s.Started)), f.At.Local().Format(time.TimeOnly)),
		fmt.Sprintf("relays %d (%d ports free)  wss %d  connections %d  bans %d", s.Allocations, s.FreePorts, s.WebSockets, s.Connections, s.Bans),
		fmt.Sprintf("relayed  up %s %s  down %s %s  lost %s",
			rate(func(f Figures) float64 { return f.RelayBytesUp }), number(func(f Figures) float64 { return f.RelayPacketsUp }),
			rate(func(f Figures) float64 { return f.RelayBytesDown }), number(func(f Figures) float64 { return f.RelayPacketsDown }),
			number(func(f Figures) float64 { return f.RelayDropped })),
		fmt.Sprintf("wss %s  requests %s  reports %s  wrong logins %s",
			rate(func(f Figures) float64 { return f.WebSocketBytes }), number(func(f Figures) float64 { return f.Requests }),
			number(func(f Figures) float64 { return f.Reports }), number(func(f Figures) float64 { return f.AuthFailures })),
	}
	for _, u := range s.Upstreams {
		if u.State == "down" {
			lines = append(lines, fmt.Sprintf("DOWN  %s %s: %s", u.Route, u.Upstream, u.Cause))
		}
	}
	for _, limit := range most(f.LimitHits)[:min(2, len(f.LimitHits))] {
		lines = append(lines, fmt.Sprintf("limit %s held %.0f times", limit, f.LimitHits[limit]))
	}
	if n := len(s.Problems); n > 0 {
		lines = append(lines, problem(s.Problems[n-1]))
	}
	lines = append(lines, "", fmt.Sprintf("%-8s %-8s %-24s %-16s %10s %10s %8s", "ID", "KIND", "CLIENT", "USER / ROUTE", "UP/S", "DOWN/S", "AGE"))
	sessions := slices.Clone(v.sessions)
	more := 0
	if room := max(1, height-len(lines)); len(sessions) > room {
		more = len(sessions) - (room - 1)
		sessions = sessions[:room-1]
	}
	for _, x := range sessions {
		up, down := "-", "-"
		if x.Kind == "turn" {
			up, down = amount(x.RateUp), amount(x.RateDown)
		}
		lines = append(lines, fmt.Sprintf("%-8.8s %-8s %-24.24s %-16.16s %10s %10s %8s", x.ID, x.Kind+"/"+x.Transport, x.Client,
			x.User+x.Route, up, down, span(time.Since(x.Opened))))
	}
	if more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	for i, l := range lines {
		lines[i] = cut(printable(l), width)
	}
	return lines[:min(len(lines), height)]
}

// printable leaves out what a terminal would obey: names are the clients'.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

func cut(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:width])
	}
	return s
}
