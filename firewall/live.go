package firewall

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Live is a host's firewall as it was when it was read.
type Live struct {
	Own       Own
	Firewalld *Firewalld // nil: not in use
	chains    []*chain
	nft       bool // the programs that can be used
	iptables  bool
	only      string   // the backend that was chosen; empty: all
	notes     []string // what could not be seen
}

// Backends are the firewalls that can be chosen.
func Backends() []string { return []string{kindFirewalld, kindNFT, kindIPTables} }

// Read reads the firewall of a host: that of one backend, or all that are in use
// if backend is "". It needs root.
func Read(ctx context.Context, sys System, backend string) (*Live, error) {
	if backend != "" && !slices.Contains(Backends(), backend) {
		return nil, fmt.Errorf("backend %q is none of %s", backend, strings.Join(Backends(), ", "))
	}
	l := &Live{only: backend, nft: sys.Has("nft"), iptables: sys.Has("iptables")}
	switch {
	case backend == kindNFT && !l.nft:
		return nil, fmt.Errorf("the program nft is not installed")
	case backend == kindIPTables && !l.iptables:
		return nil, fmt.Errorf("the program iptables is not installed")
	}
	if backend == "" || backend == kindFirewalld {
		var err error
		if l.Firewalld, err = readFirewalld(ctx, sys); err != nil {
			return nil, err
		}
		if backend != "" && l.Firewalld == nil {
			return nil, fmt.Errorf("firewalld is not installed, or neither running nor enabled")
		}
		if l.Firewalld != nil {
			l.Own = l.Firewalld.own
		}
	}
	if err := l.readChains(ctx, sys); err != nil {
		return nil, err
	}
	l.findOwn()
	return l, nil
}

func (l *Live) readChains(ctx context.Context, sys System) error {
	var foreign []*chain // iptables' chains as nft sees them
	if l.nft {
		out, err := sys.Run(ctx, "", "nft", "-j", "list", "ruleset")
		if err != nil {
			return err
		}
		all, err := parseNFT([]byte(out))
		if err != nil {
			return err
		}
		// The texts of our own rules as nft prints them, to compare and to put back.
		for _, c := range all {
			if isIPTables(c) {
				foreign = append(foreign, c)
				continue
			}
			l.chains = append(l.chains, c)
			if !c.holdsOurs() {
				continue
			}
			listing, err := sys.Run(ctx, "", "nft", "-s", "list", "chain", c.family, c.table, c.name)
			if err != nil {
				return err
			}
			c.retell(listing)
		}
	}
	if !l.iptables {
		if len(foreign) > 0 {
			l.notes = append(l.notes, "rules of iptables are loaded, but the program iptables is not installed: they were not looked at")
		}
		return nil
	}
	tables := []string{"filter"}
	if !l.nft {
		tables = append(tables, "raw")
	}
	for _, f := range []struct{ family, program string }{{"ip", "iptables"}, {"ip6", "ip6tables"}} {
		if !sys.Has(f.program) {
			l.notes = append(l.notes, f.program+" is not installed: what it would filter was not looked at")
			continue
		}
		for _, table := range tables {
			out, err := sys.Run(ctx, "", f.program, "-t", table, "-S")
			if err != nil {
				if f.family == "ip6" { // a kernel without IPv6 filters none
					continue
				}
				return err
			}
			l.chains = append(l.chains, parseIPTables(f.family, table, out)...)
		}
		names := "/proc/net/" + strings.ReplaceAll(f.program, "tables", "_tables") + "_names"
		if version, err := sys.Run(ctx, "", f.program, "-V"); err == nil && strings.Contains(version, "nf_tables") && strings.Contains(sys.readFile(names), "filter") {
			l.notes = append(l.notes, "rules of "+f.program+"-legacy are loaded beside those of "+f.program+" and count too: they were not looked at")
		}
	}
	return nil
}

// isIPTables reports whether a chain of nft belongs to iptables.
func isIPTables(c *chain) bool {
	return (c.family == "ip" || c.family == "ip6") && slices.Contains([]string{"filter", "raw", "mangle", "nat", "security"}, c.table) &&
		(c.name == strings.ToUpper(c.name) || !c.base && strings.ContainsAny(c.name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") || strings.HasPrefix(c.name, "ufw"))
}

// isFirewalld reports whether firewalld made a chain: its own tables of nft, or the
// chains of iptables when that is its backend.
func (l *Live) isFirewalld(c *chain) bool {
	return c.kind == kindNFT && strings.HasPrefix(c.table, "firewalld") ||
		c.kind == kindIPTables && l.find(c.kind, c.family, c.table, "INPUT_ZONES") != nil
}

// holdsOurs reports whether rules of ours fill a chain, other than a jump.
func (c *chain) holdsOurs() bool {
	return slices.ContainsFunc(c.rules, func(r rule) bool { return r.ours && r.do != jump })
}

// retell gives rules the words of nft's own listing.
func (c *chain) retell(listing string) {
	var lines []string
	for line := range strings.Lines(listing) {
		line = strings.TrimSpace(line)
		if line == "" || line == "}" || strings.HasSuffix(line, "{") || strings.HasPrefix(line, "type ") {
			continue
		}
		lines = append(lines, line)
	}
	if len(lines) != len(c.rules) {
		return
	}
	for i := range c.rules {
		c.rules[i].text = lines[i]
	}
}

func (l *Live) find(kind, family, table, name string) *chain {
	i := slices.IndexFunc(l.chains, func(c *chain) bool {
		return c.kind == kind && c.family == family && c.table == table && c.name == name
	})
	if i < 0 {
		return nil
	}
	return l.chains[i]
}

func (l *Live) lookup(in *chain) func(string) *chain {
	return func(name string) *chain { return l.find(in.kind, in.family, in.table, name) }
}

// findOwn collects our chains.
func (l *Live) findOwn() {
	names := []string{chainIn, chainOut, iptablesIn, iptablesOut, iptablesRaw, iptablesRaw + "-OUT"}
	for _, c := range l.chains {
		if c.kind == kindNFT && c.table == notrackTable && c.family == "inet" {
			p := Place{Kind: c.kind, Family: c.family, Table: c.table, Chain: c.name, Hook: fmt.Sprintf("type filter hook %s priority %d", c.hook, c.priority)}
			l.Own.Places = append(l.Own.Places, p.with(c))
			continue
		}
		if !slices.Contains(names, c.name) || c.base {
			continue
		}
		p := Place{Kind: c.kind, Family: c.family, Table: c.table, Chain: c.name, Before: -1}.with(c)
		for _, from := range l.chains {
			if from.kind == c.kind && from.family == c.family && from.table == c.table {
				n := 0
				for _, r := range from.rules {
					if r.ours && r.to == c.name {
						p.Base = from.name
						if n < from.foreign() {
							p.Before = n
						}
						break
					}
					if !r.ours {
						n++
					}
				}
			}
		}
		if p.Base == "" { // it lost its jump: somebody flushed the chain it was in
			p.Base = l.baseFor(c)
		}
		l.Own.Places = append(l.Own.Places, p)
	}
}

// baseFor guesses where the jump to a chain of ours was.
func (l *Live) baseFor(own *chain) string {
	hook := "input"
	switch own.name {
	case chainOut, iptablesOut, iptablesRaw + "-OUT":
		hook = "output"
	case iptablesRaw:
		hook = "prerouting"
	}
	for _, c := range l.chains {
		if c.base && c.kind == own.kind && c.family == own.family && c.table == own.table && c.hook == hook {
			return c.name
		}
	}
	return hook
}

func (c *chain) foreign() int {
	n := 0
	for _, r := range c.rules {
		if !r.ours {
			n++
		}
	}
	return n
}

func (p Place) with(c *chain) Place {
	for _, r := range c.rules {
		p.Rules = append(p.Rules, r.text)
	}
	return p
}

// filters are the base chains that packets of a class pass and that belong to a
// backend we may change, or to one we may not.
func (l *Live) filters(hook string, v6 bool, ours bool) []*chain {
	var all []*chain
	for _, c := range l.chains {
		mine := !l.isFirewalld(c) && (l.only == "" || l.only == c.kind)
		if c.base && c.hook == hook && c.takes(v6) && c.table != notrackTable && mine == ours {
			all = append(all, c)
		}
	}
	return all
}

// RelayNeeded reports whether the relay range must be open inbound on this host, and
// why or why not.
func (l *Live) RelayNeeded(p *Plan) (bool, string) {
	switch {
	case p.NoTrack:
		return true, "without connection tracking answers cannot be told from other packets"
	case p.RelayIn == RelayOpen:
		return true, "asked for"
	case p.RelayIn == RelayClosed:
		return false, "asked for"
	}
	for _, o := range p.RelayRange {
		for _, pk := range o.packets("established") {
			for _, c := range slices.Concat(l.filters("input", pk.v6, true), l.filters("input", pk.v6, false)) {
				// Our own rules would hide it.
				if out := run(c, l.lookup(c), pk, false); !out.passed {
					return true, fmt.Sprintf("%s does not know connections: answers of media servers are dropped by %s", c, out.by)
				}
			}
		}
	}
	return false, "the first packet always leaves from here, and a stateful firewall lets the answers in"
}

// Want is what should be ours on this host for a plan: nothing where nothing is
// filtered.
func (l *Live) Want(p *Plan) Own {
	in := slices.Clone(p.In)
	if open, _ := l.RelayNeeded(p); open {
		in = append(in, p.RelayRange...)
	}
	var want Own
	if l.Firewalld != nil {
		want = l.Firewalld.want(p, in)
	}
	for _, c := range l.chains {
		mine := !l.isFirewalld(c) && (l.only == "" || l.only == c.kind)
		if !c.base || !mine || c.table == notrackTable {
			continue
		}
		var place Place
		var ok bool
		switch {
		case c.hook == "input":
			place, ok = l.place(c, in, chainIn, iptablesIn)
		case c.hook == "output":
			place, ok = l.place(c, p.Out, chainOut, iptablesOut)
		}
		if ok {
			want.Places = append(want.Places, place)
		}
	}
	want.Places = append(want.Places, p.notrackPlaces(l.nft)...)
	return want
}

// place says what must stand in a base chain, and reports whether anything must.
func (l *Live) place(c *chain, all []Opening, nftName, iptablesName string) (Place, bool) {
	p := Place{Kind: c.kind, Family: c.family, Table: c.table, Base: c.name, Chain: nftName, Before: -1}
	if c.kind == kindIPTables {
		p.Chain = iptablesName
	}
	at, needed := len(c.rules), false
	for _, o := range all {
		takes := false
		for _, pk := range o.packets("new") {
			if !c.takes(pk.v6) {
				continue
			}
			takes = true
			out := run(c, l.lookup(c), pk, false)
			if !out.passed {
				needed = true
				at = min(at, out.at)
			}
			for _, r := range out.risks {
				if !r.choosy {
					needed = true
					at = min(at, r.at)
				}
			}
		}
		switch {
		case !takes:
		case c.kind == kindIPTables:
			p.Rules = append(p.Rules, o.forFamily(c.family).iptablesRule())
		default:
			p.Rules = append(p.Rules, o.forFamily(c.family).nftRule())
		}
	}
	if at < len(c.rules) {
		p.Before = 0
		for _, r := range c.rules[:at] {
			if !r.ours {
				p.Before++
			}
		}
	}
	// What stands well stays where it is.
	if have := l.Own.place(p.id()); have != nil && have.Base == p.Base && l.standsWell(c, all) {
		p.Before = have.Before
	}
	return p, needed
}

func (o Own) place(id string) *Place {
	for i := range o.Places {
		if o.Places[i].id() == id {
			return &o.Places[i]
		}
	}
	return nil
}

// standsWell reports whether our jump in a chain comes before all that would
// drop what it accepts.
func (l *Live) standsWell(c *chain, all []Opening) bool {
	for _, o := range all {
		for _, pk := range o.packets("new") {
			if !c.takes(pk.v6) {
				continue
			}
			out := run(c, l.lookup(c), pk, true)
			if !out.passed || slices.ContainsFunc(out.risks, func(r risk) bool { return !r.choosy }) {
				return false
			}
		}
	}
	return true
}

// forFamily leaves out what a chain of one family knows anyway.
func (o Opening) forFamily(family string) Opening {
	if family != "inet" {
		if o.V4 != o.V6 && !o.From.IsValid() && !o.Addr.IsValid() {
			o.V4, o.V6 = true, true
		}
	}
	return o
}
