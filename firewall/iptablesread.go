package firewall

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// parseIPTables reads what "iptables -S" (family "ip") or "ip6tables -S" prints
// of one table.
func parseIPTables(family, table, listing string) []*chain {
	var chains []*chain
	find := func(name string) *chain {
		i := slices.IndexFunc(chains, func(c *chain) bool { return c.name == name })
		if i >= 0 {
			return chains[i]
		}
		chains = append(chains, &chain{kind: kindIPTables, family: family, table: table, name: name, policy: accept})
		return chains[len(chains)-1]
	}
	for line := range strings.Lines(listing) {
		line = strings.TrimSpace(line)
		words := shellWords(line)
		if len(words) < 2 {
			continue
		}
		c := find(words[1])
		switch words[0] {
		case "-P":
			c.base = true
			c.hook = strings.ToLower(words[1])
			if len(words) > 2 && words[2] == "DROP" {
				c.policy = drop
			}
		case "-A":
			c.rules = append(c.rules, iptablesRule(line, words[2:], func(name string) { find(name) }))
		}
	}
	return chains
}

func iptablesRule(line string, words []string, declare func(string)) rule {
	_, text, _ := strings.Cut(strings.TrimPrefix(line, "-A "), " ")
	r := rule{text: text}
	negate := false
	for i := 0; i < len(words); i++ {
		word := words[i]
		if word == "!" {
			negate = true
			continue
		}
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		c := condition{}
		takes := true // the option has a value
		switch word {
		case "-p":
			c = condition{func(p packets) answer { return sure(p.proto == value || value == "all") }, false}
		case "-m":
			// The name of a module; its options follow.
			if !slices.Contains([]string{"tcp", "udp", "conntrack", "state", "multiport", "comment"}, value) {
				c = unknown
			}
		case "-s", "-d":
			c = iptablesAddress(word == "-s", value)
		case "-i", "-o":
			c = interfaces([]string{value})
		case "--dport", "--dports", "--sport", "--sports":
			c = iptablesPorts(word, value)
		case "--ctstate", "--state":
			states := strings.Split(strings.ToLower(value), ",")
			c = condition{func(p packets) answer { return sure(slices.Contains(states, p.state)) }, false}
		case "--comment":
			r.ours = isTag(value)
		case "-j", "-g":
			r.do, r.to = iptablesVerdict(word, value)
			if r.to != "" {
				declare(r.to)
			}
		default:
			takes = false
			if strings.HasPrefix(word, "-") && r.do == goOn && r.to == "" {
				c = unknown // an option of a module; those behind the target say nothing here
			}
		}
		if takes {
			i++
		}
		if c.judge != nil {
			if negate {
				positive := c.judge
				c.judge = func(p packets) answer { return positive(p).not() }
			}
			r.match = append(r.match, c)
		}
		if takes {
			negate = false
		}
	}
	return r
}

var builtinTargets = []string{"LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "CT", "NOTRACK", "TRACE", "SET", "CLASSIFY", "DSCP", "TOS",
	"TCPMSS", "AUDIT", "SECMARK", "CONNSECMARK", "CHECKSUM", "RATEEST", "HL", "TTL", "NFQUEUE", "QUEUE"}

func iptablesVerdict(word, target string) (verdict, string) {
	switch {
	case target == "ACCEPT":
		return accept, ""
	case target == "DROP" || target == "REJECT" || target == "TARPIT":
		return drop, ""
	case target == "RETURN":
		return giveBack, ""
	case slices.Contains(builtinTargets, target):
		return goOn, ""
	case word == "-g":
		return gotoChain, target
	}
	return jump, target
}

func iptablesAddress(source bool, value string) condition {
	prefix, err := netip.ParsePrefix(value)
	if err != nil {
		a, err := netip.ParseAddr(value)
		if err != nil {
			return unknown
		}
		prefix = netip.PrefixFrom(a, a.BitLen())
	}
	return condition{func(p packets) answer {
		near := netip.Prefix{}
		if p.addr.IsValid() {
			near = netip.PrefixFrom(p.addr, p.addr.BitLen())
		}
		if source != p.out {
			return amongPrefixes(p.from, []netip.Prefix{prefix})
		}
		return amongPrefixes(near, []netip.Prefix{prefix})
	}, source}
}

func iptablesPorts(word, value string) condition {
	var all []Ports
	for _, part := range strings.Split(value, ",") {
		lo, hi, isRange := strings.Cut(part, ":")
		if !isRange {
			hi = lo
		}
		l, err1 := strconv.ParseUint(lo, 10, 16)
		h, err2 := strconv.ParseUint(hi, 10, 16)
		if err1 != nil || err2 != nil {
			return unknown
		}
		all = append(all, Ports{uint16(l), uint16(h)})
	}
	return condition{func(p packets) answer {
		if strings.HasPrefix(word, "--s") {
			return amongPorts(p.src, all)
		}
		return amongPorts(p.dst, all)
	}, strings.HasPrefix(word, "--s")}
}

// shellWords splits as iptables quotes: with double quotes and backslashes.
func shellWords(line string) []string {
	var words []string
	var b strings.Builder
	in, quoted := false, false
	for i := 0; i < len(line); i++ {
		switch ch := line[i]; {
		case ch == '"':
			quoted, in = !quoted, true
		case ch == '\\' && i+1 < len(line):
			i++
			b.WriteByte(line[i])
			in = true
		case ch == ' ' && !quoted:
			if in {
				words = append(words, b.String())
				b.Reset()
			}
			in = false
		default:
			b.WriteByte(ch)
			in = true
		}
	}
	if in {
		words = append(words, b.String())
	}
	return words
}
