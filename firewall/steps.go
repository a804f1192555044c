package firewall

import (
	"fmt"
	"slices"
	"strings"
)

// Steps are the commands that make what is ours on a live host into want. Each one
// changes everything of its program or nothing.
func (l *Live) Steps(want Own) []Step {
	var steps []Step
	if script := l.nftScript(want); script != "" {
		steps = append(steps, Step{Name: "nft", Args: []string{"-f", "-"}, Input: script})
	}
	for _, f := range []struct{ family, program string }{{"ip", "iptables-restore"}, {"ip6", "ip6tables-restore"}} {
		if script := l.iptablesScript(f.family, want); script != "" {
			steps = append(steps, Step{Name: f.program, Args: []string{"--noflush"}, Input: script})
		}
	}
	return append(steps, l.firewalldSteps(want)...)
}

// moved reports whether a chain that is there has to be put in place again.
func moved(have []Place, w Place) bool {
	return !slices.ContainsFunc(have, func(h Place) bool { return h.same(w) && h.Before == w.Before })
}

func (l *Live) nftScript(want Own) string {
	var b strings.Builder
	have := l.Own.Places
	for _, h := range have {
		if h.Kind != kindNFT || h.Base == "" {
			continue
		}
		i := slices.IndexFunc(want.Places, func(w Place) bool { return w.id() == h.id() })
		if i >= 0 && !moved(have, want.Places[i]) {
			continue
		}
		for _, r := range l.jumps(h) {
			fmt.Fprintf(&b, "delete rule %s %s %s handle %d\n", h.Family, h.Table, h.Base, r.handle)
		}
		fmt.Fprintf(&b, "flush chain %s %s %s\n", h.Family, h.Table, h.Chain)
		if i < 0 {
			fmt.Fprintf(&b, "delete chain %s %s %s\n", h.Family, h.Table, h.Chain)
		}
	}
	for _, w := range want.Places {
		if w.Kind != kindNFT || w.Base == "" || !moved(have, w) {
			continue
		}
		fmt.Fprintf(&b, "add chain %s %s %s\n", w.Family, w.Table, w.Chain)
		for _, r := range w.Rules {
			fmt.Fprintf(&b, "add rule %s %s %s %s\n", w.Family, w.Table, w.Chain, r)
		}
		at := "add rule %s %s %s"
		if handle := l.handleAt(w); handle != 0 {
			at = "insert rule %s %s %s" + fmt.Sprintf(" handle %d", handle)
		}
		fmt.Fprintf(&b, at+" jump %s comment %q\n", w.Family, w.Table, w.Base, w.Chain, tag)
	}
	own := func(p Place) bool { return p.Kind == kindNFT && p.Base == "" }
	haveTable, wantTable := slices.ContainsFunc(have, own), slices.ContainsFunc(want.Places, own)
	changed := slices.ContainsFunc(want.Places, func(w Place) bool { return own(w) && moved(have, w) })
	if haveTable && (!wantTable || changed) {
		fmt.Fprintf(&b, "delete table inet %s\n", notrackTable)
	}
	if wantTable && changed {
		fmt.Fprintf(&b, "add table inet %s\n", notrackTable)
		for _, w := range want.Places {
			if !own(w) {
				continue
			}
			fmt.Fprintf(&b, "add chain inet %s %s { %s; }\n", w.Table, w.Chain, w.Hook)
			for _, r := range w.Rules {
				fmt.Fprintf(&b, "add rule inet %s %s %s\n", w.Table, w.Chain, r)
			}
		}
	}
	return b.String()
}

func (l *Live) iptablesScript(family string, want Own) string {
	tables := make(map[string]string)
	var order []string
	add := func(table, format string, args ...any) {
		if _, ok := tables[table]; !ok {
			order = append(order, table)
		}
		tables[table] += fmt.Sprintf(format+"\n", args...)
	}
	mine := func(p Place) bool { return p.Kind == kindIPTables && p.Family == family }
	for _, h := range l.Own.Places {
		if !mine(h) {
			continue
		}
		i := slices.IndexFunc(want.Places, func(w Place) bool { return w.id() == h.id() })
		if i >= 0 && !moved(l.Own.Places, want.Places[i]) {
			continue
		}
		for _, r := range l.jumps(h) {
			add(h.Table, "-D %s %s", h.Base, r.text)
		}
		if i < 0 {
			add(h.Table, "-F %s", h.Chain)
			add(h.Table, "-X %s", h.Chain)
		}
	}
	for _, w := range want.Places {
		if !mine(w) || !moved(l.Own.Places, w) {
			continue
		}
		add(w.Table, ":%s - [0:0]", w.Chain) // made, or emptied
		for _, r := range w.Rules {
			add(w.Table, "-A %s %s", w.Chain, r)
		}
		if w.Before < 0 {
			add(w.Table, `-A %s -m comment --comment %s -j %s`, w.Base, tag, w.Chain)
		} else {
			add(w.Table, `-I %s %d -m comment --comment %s -j %s`, w.Base, w.Before+1, tag, w.Chain)
		}
	}
	var b strings.Builder
	for _, table := range order {
		fmt.Fprintf(&b, "*%s\n%sCOMMIT\n", table, tables[table])
	}
	return b.String()
}

// base is the chain that a place is jumped to from.
func (l *Live) base(p Place) *chain {
	return l.find(p.Kind, p.Family, p.Table, p.Base)
}

// jumps are the jumps to a chain of ours.
func (l *Live) jumps(p Place) []rule {
	var all []rule
	if c := l.base(p); c != nil {
		for _, r := range c.rules {
			if r.ours && r.to == p.Chain {
				all = append(all, r)
			}
		}
	}
	return all
}

// handleAt is the handle of the rule that a jump stands before, 0 for the end.
func (l *Live) handleAt(p Place) int {
	c := l.base(p)
	if c == nil || p.Before < 0 {
		return 0
	}
	n := 0
	for _, r := range c.rules {
		if r.ours {
			continue
		}
		if n == p.Before {
			return r.handle
		}
		n++
	}
	return 0
}
