package firewall

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Sample is a host that drops everything by one backend, as distributions set it up.
// It shows the rules of a plan where the live ones cannot be read. It is nil for an
// unknown backend.
func Sample(backend string) *Live {
	l := &Live{only: backend}
	established := rule{text: "ct state established,related accept", handle: 1, do: accept, match: []condition{
		{func(p packets) answer { return sure(p.state == "established") }, false}}}
	base := func(kind, family, name string) *chain {
		return &chain{kind: kind, family: family, table: "filter", name: name, base: true, hook: "input", policy: drop, rules: []rule{established}}
	}
	switch backend {
	case kindNFT:
		l.nft = true
		l.chains = []*chain{base(kindNFT, "inet", "input")}
	case kindIPTables:
		l.iptables = true
		l.chains = []*chain{base(kindIPTables, "ip", "INPUT"), base(kindIPTables, "ip6", "INPUT")}
	case kindFirewalld:
		l.nft = true
		l.Firewalld = &Firewalld{Running: true, Default: "public", Active: map[string][]string{"public": {"eth0"}}}
	default:
		return nil
	}
	return l
}

// Backends are those that filter on a live host, in words; nil when nothing is
// filtered.
func (l *Live) Backends() []string {
	var all []string
	if f := l.Firewalld; f != nil {
		state := "running"
		if !f.Running {
			state = "enabled, not running"
		}
		all = append(all, "firewalld ("+state+")")
	}
	for _, c := range l.chains {
		if !c.base || c.table == notrackTable || l.isFirewalld(c) || c.hook != "input" && c.hook != "output" {
			continue
		}
		if c.policy == drop || len(c.rules) > 0 && c.foreign() > 0 {
			policy := "accept"
			if c.policy == drop {
				policy = "drop"
			}
			all = append(all, fmt.Sprintf("%s (policy %s, %d rules)", c, policy, c.foreign()))
		}
	}
	return all
}

// Description is a plan for a host, ready to be printed.
type Description struct {
	Layout   string    `json:"layout"`
	Backends []string  `json:"backends"`
	In       []Opening `json:"in"`
	Out      []Opening `json:"out"`
	Relay    struct {
		Ports Ports  `json:"ports"`
		Open  bool   `json:"open_inbound"`
		Why   string `json:"why"`
	} `json:"relay"`
	Changes  []string `json:"changes"`  // from what is there, see [Diff]
	Commands []string `json:"commands"` // that make them
	Kernel   []string `json:"kernel,omitempty"`
	Notes    []string `json:"notes,omitempty"`
	Outside  []Row    `json:"outside"` // what other firewalls must pass, as in a request
}

// Describe says what a plan means for a host.
func (p *Plan) Describe(l *Live) Description {
	want := l.Want(p)
	d := Description{Layout: p.Layout, Backends: l.Backends(), In: p.In, Out: p.Out, Changes: Diff(l.Own, want), Notes: slices.Concat(p.Options.Notes, l.notes)}
	d.Relay.Ports = p.Relay
	d.Relay.Open, d.Relay.Why = l.RelayNeeded(p)
	if d.Relay.Open {
		d.In = append(slices.Clone(d.In), p.RelayRange...)
	}
	for _, s := range l.Steps(want) {
		d.Commands = append(d.Commands, s.String())
	}
	for _, a := range p.KernelAdvice() {
		d.Kernel = append(d.Kernel, fmt.Sprintf("%s = %s    # %s", a.Name, a.Value, a.Why))
	}
	if r, err := p.Request("en"); err == nil {
		d.Outside = append(r.In, r.Out...)
	}
	return d
}

// Write prints a description in plain words.
func (d Description) Write(to io.Writer) error {
	b := &strings.Builder{}
	names := map[string]string{External: "2-A: in front of the company network", Intranet: "2-B: inside the company network"}
	fmt.Fprintf(b, "Layout %s (%s)\n", d.Layout, names[d.Layout])
	if len(d.Backends) == 0 {
		fmt.Fprintf(b, "Nothing on this host filters packets.\n")
	}
	for _, name := range d.Backends {
		fmt.Fprintf(b, "Firewall: %s\n", name)
	}
	fmt.Fprintf(b, "\nMust be let in on this host\n")
	w := tabwriter.NewWriter(b, 0, 0, 3, ' ', 0)
	for _, o := range d.In {
		fmt.Fprintf(w, "  %s/%s\t%s\t%s\n", o.Ports, o.Proto, o.where(), o.reason())
	}
	w.Flush()
	state := "stays closed for packets that nobody here asked for"
	if d.Relay.Open {
		state = "must be open"
	}
	fmt.Fprintf(b, "  relay range %s/udp %s: %s\n", d.Relay.Ports, state, d.Relay.Why)
	fmt.Fprintf(b, "\nMust be let through by other firewalls (see \"turngate firewall request\")\n")
	w = tabwriter.NewWriter(b, 0, 0, 3, ' ', 0)
	for _, r := range d.Outside {
		fmt.Fprintf(w, "  %s\t%s\t->\t%s\t%s %s\t%s\n", r.Direction, r.Source, r.Destination, r.Protocol, r.Ports, r.Need)
	}
	w.Flush()
	if len(d.Changes) == 0 {
		fmt.Fprintf(b, "\nNothing has to change on this host.\n")
	} else {
		fmt.Fprintf(b, "\nChanges on this host\n")
		for _, c := range d.Changes {
			fmt.Fprintf(b, "  %s\n", c)
		}
		fmt.Fprintf(b, "\nBy these commands (\"turngate firewall apply\" does it)\n")
		for _, c := range d.Commands {
			fmt.Fprintf(b, "  %s\n", strings.ReplaceAll(c, "\n", "\n  "))
		}
	}
	if len(d.Kernel) > 0 {
		fmt.Fprintf(b, "\nKernel settings to put into /etc/sysctl.d/90-turngate.conf\n")
		for _, k := range d.Kernel {
			fmt.Fprintf(b, "  %s\n", k)
		}
	}
	for _, n := range d.Notes {
		fmt.Fprintf(b, "\nNote: %s\n", n)
	}
	_, err := io.WriteString(to, b.String())
	return err
}

func (o Opening) where() string {
	from := "from anywhere"
	if o.From.IsValid() {
		from = "from " + o.From.String()
	}
	if o.Addr.IsValid() {
		from += " to " + o.Addr.String()
	}
	return from
}

func (o Opening) reason() string {
	role, _, _ := strings.Cut(o.Key, "-")
	switch role {
	case RoleHTTPS:
		return "wss, https, TURN over TLS and TCP"
	case RoleRoutes:
		return "wss and https of routes on a port of their own"
	case RoleTURN:
		return "TURN over " + strings.ToUpper(o.Proto)
	case RoleACME:
		return "certificates by http-01"
	case RoleMetrics:
		return "figures for monitoring"
	}
	return "media to relays"
}
