package firewall

import "net/netip"

// The rules of a host, whoever wrote them and in whatever language, are read
// into chains of rules whose conditions answer yes, no or maybe for a class of
// packets. "Maybe" is every condition that depends on more than the class says, or
// that is not understood.

type answer int

const (
	no answer = iota
	maybe
	yes
)

func (a answer) and(b answer) answer { return min(a, b) }
func (a answer) not() answer         { return yes - a }

func sure(b bool) answer {
	if b {
		return yes
	}
	return no
}

// packets is a class of packets at a hook.
type packets struct {
	out   bool
	v6    bool
	proto string
	dst   Ports
	src   Ports        // zero: any
	addr  netip.Addr   // of ours; invalid: any
	from  netip.Prefix // invalid: anywhere
	state string       // "new", "established", "untracked"
}

// A condition judges packets. choosy marks those that pick out senders or rates
// (block lists, limits): what they drop is dropped on purpose.
type condition struct {
	judge  func(packets) answer
	choosy bool
}

// unknown is a condition that nobody here understands.
var unknown = condition{func(packets) answer { return maybe }, true}

type verdict int

const (
	goOn verdict = iota // log, count, set a mark
	accept
	drop // or reject
	jump
	gotoChain
	giveBack // return
)

type rule struct {
	text   string // as the host's program prints it, for messages
	handle int    // of nft
	ours   bool   // tagged
	match  []condition
	do     verdict
	to     string // chain, of jump and gotoChain
	// split holds the rules of a verdict map: the first that matches counts.
	split []rule
}

// judge says whether the rule is for packets.
func (r rule) judge(p packets) answer {
	a := yes
	for _, c := range r.match {
		a = a.and(c.judge(p))
	}
	return a
}

func (r rule) choosy(p packets) bool {
	for _, c := range r.match {
		if c.choosy && c.judge(p) == maybe {
			return true
		}
	}
	return false
}

// A chain of rules; a base chain is one that packets enter from a hook.
type chain struct {
	kind   string // "nftables" or "iptables"
	family string // "inet", "ip", "ip6"
	table  string
	name   string
	rules  []rule

	base     bool
	hook     string // "input", "output", "prerouting"
	priority int
	policy   verdict
}

func (c *chain) takes(v6 bool) bool {
	return c.family == "inet" || c.family == "ip6" && v6 || c.family == "ip" && !v6
}

func (c *chain) String() string {
	if c.kind == kindIPTables {
		program := "iptables"
		if c.family == "ip6" {
			program = "ip6tables"
		}
		return program + " chain " + c.name
	}
	return "nft chain " + c.family + " " + c.table + " " + c.name
}

const (
	kindNFT       = "nftables"
	kindIPTables  = "iptables"
	kindFirewalld = "firewalld"
)

// outcome is what a base chain does with a class of packets.
type outcome struct {
	passed bool
	by     string // the rule or policy that decided
	at     int    // index of the top-level rule that decided; len(rules): the policy
	ours   bool   // a rule of ours decided

	risks []risk // rules before that may drop some of them
}

// risk is a rule that may drop some packets.
type risk struct {
	text   string
	at     int // index of the top-level rule
	choosy bool
}

// run sends packets through a base chain. Without ours, rules that carry our
// tag are not there.
func run(c *chain, lookup func(name string) *chain, p packets, withOurs bool) outcome {
	w := walker{lookup: lookup, p: p, ours: withOurs}
	v := w.walk(c, yes, 0)
	if v == goOn {
		w.out.at = len(c.rules)
		v = c.policy
		w.out.by = "its policy"
	}
	w.out.passed = v == accept
	return w.out
}

type walker struct {
	lookup func(string) *chain
	p      packets
	ours   bool
	out    outcome
	top    int
}

// walk returns accept or drop when the packets' fate is sealed, else goOn. how sure it
// is that packets arrive here is part of the question.
func (w *walker) walk(c *chain, arrive answer, depth int) verdict {
	if depth > 32 { // more than any kernel takes
		return goOn
	}
	for i, r := range c.rules {
		if depth == 0 {
			w.top = i
		}
		if r.ours && !w.ours {
			continue
		}
		steps := []rule{r}
		if r.split != nil {
			steps = r.split
		}
		for _, s := range steps {
			m := r.judge(w.p).and(s.judge(w.p))
			if m == no {
				continue
			}
			m = m.and(arrive)
			v := s.do
			if v == jump || v == gotoChain {
				to := w.lookup(s.to)
				if to == nil {
					continue
				}
				v = w.walk(to, m, depth+1)
				if v == accept || v == drop {
					return v
				}
				if s.do == gotoChain && m == yes {
					return goOn
				}
				continue
			}
			switch {
			case v == goOn:
			case v == giveBack && m == yes:
				return goOn
			case v == giveBack:
				arrive = maybe // of what follows in this chain
			case m == yes:
				w.out.by, w.out.at, w.out.ours = r.text, w.top, r.ours
				return v
			case v == drop:
				w.out.risks = append(w.out.risks, risk{r.text, w.top, r.choosy(w.p) || s.choosy(w.p)})
			}
		}
	}
	return goOn
}

// within judges whether all, some or none of ports lie in a range.
func within(have, want Ports) answer {
	switch {
	case have == Ports{}:
		return maybe // any port
	case want.Lo <= have.Lo && have.Hi <= want.Hi:
		return yes
	case have.Hi < want.Lo || want.Hi < have.Lo:
		return no
	}
	return maybe
}

// amongPorts is within for several ranges.
func amongPorts(have Ports, want []Ports) answer {
	a := no
	for _, w := range want {
		a = max(a, within(have, w))
	}
	return a
}

// amongPrefixes judges whether addresses (a prefix; invalid: any) lie in prefixes.
func amongPrefixes(have netip.Prefix, want []netip.Prefix) answer {
	a := no
	for _, w := range want {
		switch {
		case !have.IsValid():
			if w.Bits() == 0 {
				a = yes
			} else {
				a = max(a, maybe)
			}
		case w.Bits() <= have.Bits() && w.Contains(have.Addr()):
			a = yes
		case w.Overlaps(have):
			a = max(a, maybe)
		}
	}
	return a
}

// packetsOf are the classes of packets of an opening, one for each family.
func (o Opening) packets(state string) []packets {
	var all []packets
	for _, v6 := range []bool{false, true} {
		if v6 && !o.V6 || !v6 && !o.V4 {
			continue
		}
		all = append(all, packets{out: o.Out, v6: v6, proto: o.Proto, dst: o.Ports, src: o.Local, addr: o.Addr, from: o.From, state: state})
	}
	return all
}
