package firewall

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// parseNFT reads what "nft -j list ruleset" prints.
func parseNFT(data []byte) ([]*chain, error) {
	var doc struct {
		NFTables []struct {
			Chain *struct {
				Family, Table, Name, Type, Hook, Policy string
				Prio                                    int
			}
			Rule *struct {
				Family, Table, Chain, Comment string
				Handle                        int
				Expr                          []map[string]any
			}
		}
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("rules of nft: %w", err)
	}
	var chains []*chain
	find := func(family, table, name string) *chain {
		i := slices.IndexFunc(chains, func(c *chain) bool { return c.family == family && c.table == table && c.name == name })
		if i < 0 {
			return nil
		}
		return chains[i]
	}
	for _, item := range doc.NFTables {
		if c := item.Chain; c != nil {
			n := &chain{kind: kindNFT, family: c.Family, table: c.Table, name: c.Name, policy: accept}
			if c.Policy == "drop" {
				n.policy = drop
			}
			n.base, n.hook, n.priority = c.Hook != "" && c.Type == "filter", c.Hook, c.Prio
			chains = append(chains, n)
		}
	}
	for _, item := range doc.NFTables {
		if r := item.Rule; r != nil {
			c := find(r.Family, r.Table, r.Chain)
			if c == nil {
				continue
			}
			n := rule{text: nftText(r.Expr), handle: r.Handle, ours: isTag(r.Comment)}
			for _, e := range r.Expr {
				for kind, body := range e {
					nftExpression(&n, kind, body)
				}
			}
			c.rules = append(c.rules, n)
		}
	}
	return chains, nil
}

func isTag(comment string) bool { return comment == tag || strings.HasPrefix(comment, tag+" ") }

// nftExpression adds one expression to a rule.
func nftExpression(r *rule, kind string, body any) {
	switch kind {
	case "accept":
		r.do = accept
	case "drop", "reject":
		r.do = drop
	case "return":
		r.do = giveBack
	case "jump", "goto":
		r.do = jump
		if kind == "goto" {
			r.do = gotoChain
		}
		r.to = text(field(body, "target"))
	case "match":
		r.match = append(r.match, nftMatch(body))
	case "vmap":
		left := field(body, "key")
		set, ok := field(field(body, "data"), "set").([]any)
		if !ok { // a named map
			r.split = []rule{{match: []condition{unknown}, do: drop, text: r.text}}
			return
		}
		r.split = []rule{}
		for _, element := range set {
			pair, _ := element.([]any)
			if len(pair) != 2 {
				continue
			}
			one := rule{text: r.text, match: []condition{nftCompare(left, "==", pair[0])}}
			if m, ok := pair[1].(map[string]any); ok {
				for k, b := range m {
					nftExpression(&one, k, b)
				}
			}
			r.split = append(r.split, one)
		}
	case "limit", "ct count", "meter", "xt", "quota":
		r.match = append(r.match, unknown)
	case "counter", "log", "mangle", "set", "notrack", "flow", "ct helper", "ct timeout", "queue":
	default:
		r.match = append(r.match, unknown)
	}
}

func nftMatch(body any) condition {
	return nftCompare(field(body, "left"), text(field(body, "op")), field(body, "right"))
}

// nftCompare reads one comparison. What it does not know is unknown.
func nftCompare(left any, op string, right any) condition {
	var c condition
	if p := field(left, "payload"); p != nil {
		c = nftPayload(text(field(p, "protocol")), text(field(p, "field")), right)
	} else if key := text(field(field(left, "meta"), "key")); key != "" {
		c = nftMeta(key, right)
	} else if key := text(field(field(left, "ct"), "key")); key == "state" {
		states := texts(right)
		c = condition{func(p packets) answer { return sure(slices.Contains(states, p.state)) }, false}
	}
	if c.judge == nil {
		c = unknown
	}
	if op == "!=" {
		positive := c.judge
		c.judge = func(p packets) answer { return positive(p).not() }
		if payload := field(left, "payload"); payload != nil {
			// "tcp dport != 22" is for TCP only: nft puts the protocol in front.
			protocol := text(field(payload, "protocol"))
			c.judge = func(p packets) answer { return positive(p).not().and(ofProtocol(protocol, p)) }
		}
	}
	return c
}

// ofProtocol judges whether packets have a header.
func ofProtocol(protocol string, p packets) answer {
	switch protocol {
	case "tcp", "udp":
		return sure(p.proto == protocol)
	case "ip":
		return sure(!p.v6)
	case "ip6":
		return sure(p.v6)
	case "th":
		return yes
	}
	return maybe
}

func nftPayload(protocol, name string, right any) condition {
	guard := func(judge func(packets) answer, choosy bool) condition {
		return condition{func(p packets) answer {
			if ofProtocol(protocol, p) == no {
				return no
			}
			return judge(p)
		}, choosy}
	}
	switch {
	case slices.Contains([]string{"tcp", "udp", "th"}, protocol) && (name == "dport" || name == "sport"):
		ports, ok := nftPorts(right)
		return guard(func(p packets) answer {
			have := p.dst
			if name == "sport" {
				have = p.src
			}
			if !ok {
				return maybe
			}
			return amongPorts(have, ports)
		}, name == "sport")
	case slices.Contains([]string{"ip", "ip6"}, protocol) && (name == "saddr" || name == "daddr"):
		prefixes, ok := nftPrefixes(right)
		return guard(func(p packets) answer {
			if !ok {
				return maybe
			}
			far, near := p.from, netip.Prefix{}
			if p.addr.IsValid() {
				near = netip.PrefixFrom(p.addr, p.addr.BitLen())
			}
			if name == "saddr" != p.out {
				return amongPrefixes(far, prefixes)
			}
			return amongPrefixes(near, prefixes)
		}, name == "saddr")
	case protocol == "ip" && name == "protocol", protocol == "ip6" && name == "nexthdr":
		protocols := texts(right)
		return guard(func(p packets) answer { return sure(slices.Contains(protocols, p.proto)) }, false)
	}
	return guard(func(packets) answer { return maybe }, true)
}

func nftMeta(key string, right any) condition {
	switch key {
	case "l4proto":
		protocols := texts(right)
		return condition{func(p packets) answer { return sure(slices.Contains(protocols, p.proto)) }, false}
	case "nfproto":
		families := texts(right)
		return condition{func(p packets) answer {
			if p.v6 {
				return sure(slices.Contains(families, "ipv6"))
			}
			return sure(slices.Contains(families, "ipv4"))
		}, false}
	case "iif", "iifname", "oif", "oifname":
		return interfaces(texts(right))
	}
	return unknown
}

// interfaces judges by the interface: ours is any but loopback.
func interfaces(names []string) condition {
	return condition{func(packets) answer { return sure(!slices.Equal(names, []string{"lo"})).and(maybe) }, false}
}

// elements lists what stands on the right of a comparison.
func elements(right any) []any {
	if set, ok := field(right, "set").([]any); ok {
		return set
	}
	if list, ok := right.([]any); ok {
		return list
	}
	return []any{right}
}

func nftPorts(right any) (all []Ports, ok bool) {
	for _, e := range elements(right) {
		if v := field(field(e, "elem"), "val"); v != nil { // with a comment or a counter
			e = v
		}
		if r, isRange := field(e, "range").([]any); isRange && len(r) == 2 {
			lo, ok1 := port(r[0])
			hi, ok2 := port(r[1])
			if !ok1 || !ok2 {
				return nil, false
			}
			all = append(all, Ports{lo, hi})
			continue
		}
		n, isPort := port(e)
		if !isPort {
			return nil, false
		}
		all = append(all, Ports{n, n})
	}
	return all, true
}

func port(v any) (uint16, bool) {
	switch n := v.(type) {
	case float64:
		return uint16(n), n >= 0 && n <= 65535
	case string:
		u, err := strconv.ParseUint(n, 10, 16)
		return uint16(u), err == nil
	}
	return 0, false
}

func nftPrefixes(right any) (all []netip.Prefix, ok bool) {
	for _, e := range elements(right) {
		if v := field(field(e, "elem"), "val"); v != nil {
			e = v
		}
		s := text(e)
		bits := -1
		if p := field(e, "prefix"); p != nil {
			s = text(field(p, "addr"))
			n, _ := field(p, "len").(float64)
			bits = int(n)
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, false
		}
		if bits < 0 {
			bits = a.BitLen()
		}
		all = append(all, netip.PrefixFrom(a, bits))
	}
	return all, true
}

// field is a member of a JSON object, nil when there is none.
func field(v any, name string) any {
	m, _ := v.(map[string]any)
	return m[name]
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func texts(right any) []string {
	var all []string
	for _, e := range elements(right) {
		switch v := e.(type) {
		case string:
			all = append(all, v)
		case float64:
			all = append(all, strconv.Itoa(int(v)))
		}
	}
	return all
}

// nftText retells a rule for messages.
func nftText(expr []map[string]any) string {
	var words []string
	for _, e := range expr {
		for kind, body := range e {
			switch kind {
			case "match":
				words = append(words, nftLeft(field(body, "left"))+" "+strings.TrimPrefix(strings.TrimPrefix(text(field(body, "op"))+" ", "== "), "in ")+nftRight(field(body, "right")))
			case "vmap":
				words = append(words, nftLeft(field(body, "key"))+" vmap {...}")
			case "jump", "goto":
				words = append(words, kind+" "+text(field(body, "target")))
			case "counter":
			default:
				words = append(words, kind)
			}
		}
	}
	return strings.Join(words, " ")
}

func nftLeft(left any) string {
	if p := field(left, "payload"); p != nil {
		return text(field(p, "protocol")) + " " + text(field(p, "field"))
	}
	for _, kind := range []string{"meta", "ct"} {
		if m := field(left, kind); m != nil {
			return kind + " " + text(field(m, "key"))
		}
	}
	return "..."
}

func nftRight(right any) string {
	var words []string
	for _, e := range elements(right) {
		switch v := e.(type) {
		case string:
			words = append(words, v)
		case float64:
			words = append(words, strconv.Itoa(int(v)))
		default:
			if r, ok := field(e, "range").([]any); ok && len(r) == 2 {
				words = append(words, nftRight(r[0])+"-"+nftRight(r[1]))
			} else if p := field(e, "prefix"); p != nil {
				words = append(words, fmt.Sprintf("%v/%v", field(p, "addr"), field(p, "len")))
			} else {
				words = append(words, "...")
			}
		}
	}
	if len(words) == 1 {
		return words[0]
	}
	return "{ " + strings.Join(words, ", ") + " }"
}
