package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/internal/admin"
)

func newStatusCommand(io streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running turngate does",
		Long: `Shows on one page what the running turngate does: version, listeners,
certificates, upstreams, sessions, traffic, limits that held, and the last
warnings of its log. "turngate check" tries whether it works.`,
		Args: usageArgs(cobra.NoArgs),
	}
	r := newRemote(io, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var s Status
		return r.ask(cmd, "GET", admin.PathStatus, nil, &s, func() { showStatus(io, s) })
	}
	return cmd
}

func showStatus(io streams, s Status) {
	w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	row := func(name string, value any) { fmt.Fprintf(w, "%s\t%v\n", name, value) }
	s.showService(row)
	s.showSite(row)
	s.showWork(row)
	s.showTrouble(row)
}

func (s *Status) showService(row func(string, any)) {
	row("turngate", s.Version)
	row("running", fmt.Sprintf("pid %d, since %s (%s)", s.PID, s.Started.Format(time.DateTime), span(time.Since(s.Started))))
	if s.ConfigFile != "" {
		row("file", s.ConfigFile)
	}
	row("layout", s.Layout)
	if s.Draining {
		row("state", "draining")
	}
	if d := s.Drain; d != nil {
		row("", fmt.Sprintf("at most %s more", time.Until(d.Until).Round(time.Second)))
	}
	if !s.LastReload.At.IsZero() {
		outcome := "applied"
		if s.LastReload.Error != "" {
			outcome = "refused: " + s.LastReload.Error
		}
		row("last reload", s.LastReload.At.Format(time.DateTime)+" "+outcome)
	}
}

func (s *Status) showSite(row func(string, any)) {
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
	for _, o := range s.ACME {
		if o.Error != "" {
			row("acme", fmt.Sprintf("%s: %s; %s", o.Name, o.Error, o.Fix))
		}
	}
	for _, u := range s.Upstreams {
		row("upstream", fmt.Sprintf("%s %s %s", u.Route, u.Upstream, u))
	}
}

func (s *Status) showWork(row func(string, any)) {
	f := s.Figures
	row("connections", s.Connections)
	row("websockets", fmt.Sprintf("%d, %s carried", s.WebSockets, amount(f.WebSocketBytes)))
	row("requests", fmt.Sprintf("%.0f, %.0f of them answered with 5xx; %.0f log reports", f.Requests, f.RequestErrors, f.Reports))
	row("allocations", fmt.Sprintf("%d, %.0f made, %d ports free", s.Allocations, f.AllocationsMade, s.FreePorts))
	row("relayed", fmt.Sprintf("%s up, %s down; now %s/s up, %s/s down; %.0f datagrams lost here",
		amount(f.RelayBytesUp), amount(f.RelayBytesDown), amount(s.RelayRates.Up), amount(s.RelayRates.Down), f.RelayDropped))
	row("kernel path", offloadLine(s.Offload))
}

func (s *Status) showTrouble(row func(string, any)) {
	if s.Bans > 0 {
		row("banned", fmt.Sprintf("%d addresses; see: turngate bans", s.Bans))
	}
	f := s.Figures
	if f.AuthFailures+f.PeersRefused > 0 {
		row("refused", fmt.Sprintf("%.0f wrong TURN credentials, %.0f peers", f.AuthFailures, f.PeersRefused))
	}
	for _, limit := range most(f.LimitHits) {
		row("limit held", fmt.Sprintf("%s, %.0f times", limit, f.LimitHits[limit]))
	}
	for _, route := range slices.Sorted(maps.Keys(f.Spools)) {
		row("spool", fmt.Sprintf("%s: %.0f reports (%s) wait on the disk", route, f.Spools[route].Reports, amount(f.Spools[route].Bytes)))
	}
	for i, line := range s.Problems {
		name := ""
		if i == 0 {
			name = "last warnings"
		}
		row(name, problem(line))
	}
}

// problem is a line of the log as a person reads it.
func problem(line json.RawMessage) string {
	var fields map[string]any
	if json.Unmarshal(line, &fields) != nil {
		return string(line)
	}
	var b strings.Builder
	if at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(fields["time"])); err == nil {
		b.WriteString(at.Local().Format(time.DateTime) + " ")
	}
	fmt.Fprintf(&b, "%v: %v", fields["level"], fields["msg"])
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if key != "time" && key != "level" && key != "msg" {
			fmt.Fprintf(&b, " %s=%v", key, fields[key])
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// span is a duration in its two largest units.
func span(d time.Duration) string {
	d = d.Round(time.Second)
	days, hours, minutes := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%dd %dh", days, hours)
	case hours > 0:
		return fmt.Sprintf("%dh %dm", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%dm %ds", minutes, int(d.Seconds())%60)
	}
	return d.String()
}
