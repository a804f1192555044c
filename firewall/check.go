package firewall

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Codes of drifts. They stay what they are.
const (
	DriftClosed  = "closed"  // something that must pass does not
	DriftForeign = "foreign" // a rule of somebody else comes before ours, or is not ours to change
	DriftRelay   = "relay"   // the relay range
	DriftOutside = "out"     // what the host sends is dropped
	DriftStale   = "stale"   // ours, but not planned
	DriftZone    = "zone"    // firewalld's zones
	DriftBoot    = "boot"    // it does not outlast a reboot
	DriftPending = "pending" // a change that waits for its confirmation
	DriftUnseen  = "unseen"  // what could not be looked at
	DriftKernel  = "kernel"  // advice about sysctls
	DriftChoosy  = "choosy"  // a block list or limit that stands before ours, which is fine
)

// A Drift is a difference between a plan and a live host.
type Drift struct {
	Code string `json:"code"`
	// Note marks what is worth knowing but does not keep the plan from holding.
	Note bool   `json:"note,omitempty"`
	What string `json:"what"`
	Fix  string `json:"fix,omitempty"`
}

const applyFix = "turngate firewall apply"

// Judge compares a live host with a plan.
func (l *Live) Judge(p *Plan, sys System) []Drift {
	j := &judge{live: l, plan: p, want: l.Want(p)}
	open, _ := l.RelayNeeded(p)
	in := p.In
	if open {
		in = append(slices.Clone(in), p.RelayRange...)
	}
	for _, o := range in {
		j.opening(o, "input", "new", DriftClosed)
	}
	if !open {
		for _, o := range p.RelayRange {
			j.opening(o, "input", "established", DriftRelay)
		}
	}
	for _, o := range p.Out {
		j.opening(o, "output", "new", DriftOutside)
	}
	j.firewalld()
	j.stale()
	j.boot(sys)
	for _, n := range l.notes {
		j.add(Drift{Code: DriftUnseen, Note: true, What: n})
	}
	for _, a := range p.KernelAdvice() {
		j.add(Drift{Code: DriftKernel, Note: true, What: a.Why, Fix: a.Fix()})
	}
	return bothFamilies(j.all)
}

// bothFamilies makes one of two drifts that differ in the family alone.
func bothFamilies(all []Drift) []Drift {
	const v4, v6 = "over IPv4", "over IPv6"
	var merged []Drift
	for i, d := range all {
		other := d
		switch {
		case strings.Contains(d.What, v4):
			other.What = strings.Replace(d.What, v4, v6, 1)
			if slices.Contains(all[i+1:], other) {
				d.What = strings.Replace(d.What, v4, "over IPv4 and IPv6", 1)
			}
		case strings.Contains(d.What, v6):
			other.What = strings.Replace(d.What, v6, v4, 1)
			if slices.Contains(all[:i], other) {
				continue
			}
		}
		merged = append(merged, d)
	}
	return merged
}

type judge struct {
	live *Live
	plan *Plan
	want Own
	all  []Drift
}

func (j *judge) add(d Drift) {
	if !slices.Contains(j.all, d) {
		j.all = append(j.all, d)
	}
}

// opening sends packets of an opening through every chain they meet.
func (j *judge) opening(o Opening, hook, state, code string) {
	for _, pk := range o.packets(state) {
		what := o.words(pk, state)
		for _, c := range j.live.filters(hook, pk.v6, true) {
			j.chain(c, pk, what, code, applyFix)
		}
		for _, c := range j.live.filters(hook, pk.v6, false) {
			if j.live.isFirewalld(c) {
				continue // judged by its zones
			}
			j.chain(c, pk, what, DriftForeign, "let it through there, or leave out --backend, so that turngate looks after "+c.kind+" too")
		}
		if hook == "input" {
			for _, mine := range []bool{true, false} {
				for _, c := range j.live.filters("prerouting", pk.v6, mine) {
					if !j.live.isFirewalld(c) {
						j.chain(c, pk, what, DriftForeign, "change that rule: turngate leaves chains before routing alone")
					}
				}
			}
		}
	}
}

// words are what a person calls the packets.
func (o Opening) words(pk packets, state string) string {
	family := "IPv4"
	if pk.v6 {
		family = "IPv6"
	}
	s := fmt.Sprintf("%s/%s over %s", o.Ports, o.Proto, family)
	switch {
	case state == "established":
		return fmt.Sprintf("answers of media servers to the relay ports %s/udp over %s", o.Ports, family)
	case o.Out && o.Local != Ports{}:
		return fmt.Sprintf("media from the relay ports %s/udp over %s", o.Local, family)
	case o.Out:
		return "outgoing " + s
	case o.From.IsValid():
		s += " from " + o.From.String()
	}
	return s
}

func (j *judge) chain(c *chain, pk packets, what, code, fix string) {
	out := run(c, j.live.lookup(c), pk, true)
	id := Place{Kind: c.kind, Family: c.family, Table: c.table, Chain: chainFor(c)}.id()
	for _, r := range out.risks {
		if r.choosy {
			j.add(Drift{Code: DriftChoosy, Note: true, What: fmt.Sprintf("%s picks out senders before ours, which stays so: %s", c, r.text)})
			continue
		}
		if out.passed {
			j.add(Drift{Code: DriftForeign, What: fmt.Sprintf("%s: %s drops some of it before ours (%s)", what, c, r.text), Fix: fix})
		}
	}
	if out.passed {
		return
	}
	why := fmt.Sprintf("%s drops it by %s", c, by(out))
	own := j.live.Own.place(id)
	switch {
	case own == nil:
	case len(j.live.jumps(*own)) == 0:
		why += "; our chain " + own.Chain + " is there, but nothing leads into it"
	case out.at < len(c.rules):
		why += ", which stands before ours or beside it"
		if code == DriftClosed {
			code = DriftForeign
		}
	}
	j.add(Drift{Code: code, What: what + ": " + why, Fix: fix})
}

func by(o outcome) string {
	if strings.HasPrefix(o.by, "its ") {
		return o.by
	}
	return "\"" + o.by + "\""
}

// chainFor is the name of our chain beside a base chain.
func chainFor(c *chain) string {
	out := c.hook == "output"
	switch {
	case c.kind == kindNFT && out:
		return chainOut
	case c.kind == kindNFT:
		return chainIn
	case out:
		return iptablesOut
	}
	return iptablesIn
}

// firewalld compares zones.
func (j *judge) firewalld() {
	f := j.live.Firewalld
	if f == nil {
		return
	}
	if !f.Running {
		j.add(Drift{Code: DriftZone, Note: true, What: "firewalld is enabled and not running: its permanent configuration was looked at", Fix: "systemctl start firewalld"})
	}
	for _, z := range slices.Sorted(maps.Keys(j.want.Zones)) {
		have, want := f.own.Zones[z], j.want.Zones[z]
		if _, exists := f.permanent[z]; !exists {
			j.add(Drift{Code: DriftZone, What: "firewalld has no zone " + z, Fix: "choose another one with --zone"})
			continue
		}
		if _, used := f.Active[z]; f.Running && !used && z != f.Default {
			j.add(Drift{Code: DriftZone, What: fmt.Sprintf("zone %s has no interface and no source: what is open there lets nobody in", z),
				Fix: "firewall-cmd --permanent --zone=" + z + " --change-interface=NAME, or choose another one with --zone"})
		}
		if missing := without(want.Permanent, have.Permanent); len(missing) > 0 {
			j.add(Drift{Code: DriftBoot, What: fmt.Sprintf("zone %s, permanent configuration: %s is missing", z, strings.Join(missing, ", ")), Fix: applyFix})
		}
		if missing := without(want.Runtime, have.Runtime); len(missing) > 0 {
			j.add(Drift{Code: DriftClosed, What: fmt.Sprintf("zone %s: %s is missing", z, strings.Join(missing, ", ")), Fix: applyFix})
		}
	}
	for _, name := range services {
		if missing := without(j.want.Services[name], f.own.Services[name]); len(missing) > 0 {
			j.add(Drift{Code: DriftBoot, What: fmt.Sprintf("service %s lacks %s", name, strings.Join(missing, ", ")), Fix: applyFix})
		}
	}
	if len(j.plan.Zones) > 0 {
		for _, z := range slices.Sorted(maps.Keys(f.Active)) {
			if !slices.Contains(j.plan.Zones, z) && f.permanent[z].target != "ACCEPT" {
				j.add(Drift{Code: DriftZone, Note: true, What: fmt.Sprintf("zone %s (%s) is in use and not among the chosen ones: who comes in there is refused", z, strings.Join(f.Active[z], " "))})
			}
		}
	}
}

// stale finds what is ours and not planned any more.
func (j *judge) stale() {
	for _, h := range j.live.Own.Places {
		w := j.want.place(h.id())
		if w == nil {
			j.add(Drift{Code: DriftStale, What: fmt.Sprintf("chain %s of %s %s %s is not needed any more", h.Chain, h.Kind, h.Family, h.Table), Fix: applyFix})
			continue
		}
		for _, r := range without(h.Rules, w.Rules) {
			j.add(Drift{Code: DriftStale, What: fmt.Sprintf("chain %s of %s %s %s has a rule that is not planned: %s", h.Chain, h.Kind, h.Family, h.Table, r), Fix: applyFix})
		}
		for _, r := range without(w.Rules, h.Rules) {
			j.add(Drift{Code: DriftClosed, What: fmt.Sprintf("chain %s of %s %s %s lacks a rule: %s", h.Chain, h.Kind, h.Family, h.Table, r), Fix: applyFix})
		}
	}
	for _, w := range j.want.Places {
		if w.Table == notrackTable || w.Table == "raw" {
			if j.live.Own.place(w.id()) == nil {
				j.add(Drift{Code: DriftRelay, What: "the relay range is in the connection table: our rules of " + w.Kind + " against it are missing", Fix: applyFix})
			}
		}
	}
	f := j.live.Firewalld
	if f == nil {
		return
	}
	for _, z := range slices.Sorted(maps.Keys(f.own.Zones)) {
		have, want := f.own.Zones[z], j.want.Zones[z]
		extra := slices.Concat(without(have.Permanent, want.Permanent), without(have.Runtime, want.Runtime))
		slices.Sort(extra)
		if extra = slices.Compact(extra); len(extra) > 0 {
			j.add(Drift{Code: DriftStale, What: fmt.Sprintf("zone %s: %s is ours and not planned", z, strings.Join(extra, ", ")), Fix: applyFix})
		}
	}
	for _, name := range services {
		if extra := without(f.own.Services[name], j.want.Services[name]); len(extra) > 0 {
			j.add(Drift{Code: DriftStale, What: fmt.Sprintf("service %s has %s, which is not planned", name, strings.Join(extra, ", ")), Fix: applyFix})
		}
	}
}

func (j *judge) boot(sys System) {
	if p, err := sys.pending(); err == nil {
		left := time.Until(p.Deadline).Round(time.Second)
		d := Drift{Code: DriftPending, What: fmt.Sprintf("a change waits for its confirmation, %s left", left), Fix: "turngate firewall confirm"}
		if left < 0 {
			d = Drift{Code: DriftPending, What: fmt.Sprintf("a change was not confirmed in time and nobody took it back, %s ago", cmp.Or((-left).String(), "0s")), Fix: "turngate firewall rollback"}
		}
		j.add(d)
		return
	}
	if len(j.live.Own.Places) > 0 && sys.HasSystemd() && sys.readFile(unitPath) == "" {
		j.add(Drift{Code: DriftBoot, What: "our rules are gone after a reboot", Fix: applyFix})
	}
}
