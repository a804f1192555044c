package firewall

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Place is a chain of ours in a firewall, and where it is jumped to from.
type Place struct {
	Kind   string   `json:"kind"` // "nftables" or "iptables"
	Family string   `json:"family"`
	Table  string   `json:"table"`
	Base   string   `json:"base,omitempty"` // chain with the jump; empty: the chain is a base chain itself
	Before int      `json:"before"`         // the jump stands before this rule, those of ours not counted; -1: last
	Chain  string   `json:"chain"`
	Hook   string   `json:"hook,omitempty"` // of a base chain, in words of nft
	Rules  []string `json:"rules"`          // as the host's program prints them
}

func (p Place) id() string { return p.Kind + " " + p.Family + " " + p.Table + " " + p.Chain }

// same reports whether a chain needs no change. Where exactly the jump stands does
// not count: a judge says whether it stands well.
func (p Place) same(o Place) bool {
	return p.id() == o.id() && p.Base == o.Base && p.Hook == o.Hook && slices.Equal(p.Rules, o.Rules)
}

// Own is everything of ours in a host's firewall. The zero value is nothing.
type Own struct {
	Places []Place         `json:"places,omitempty"`
	Zones  map[string]Zone `json:"zones,omitempty"` // of firewalld
	// Services are the ports of our services in firewalld.
	Services map[string][]string `json:"services,omitempty"`
}

// IsEmpty reports whether nothing of ours is there.
func (o Own) IsEmpty() bool {
	return len(o.Places) == 0 && len(o.Zones) == 0 && len(o.Services) == 0
}

// Equal reports whether two hosts need no change to have the same of ours.
func (o Own) Equal(p Own) bool { return slices.Equal(o.Lines(), p.Lines()) }

// Lines retells what is ours, a line each, in a fixed order.
func (o Own) Lines() []string {
	var lines []string
	places := slices.SortedFunc(slices.Values(o.Places), func(a, b Place) int { return cmp.Compare(a.id(), b.id()) })
	for _, p := range places {
		at := "in " + p.Base
		if p.Base == "" {
			at = p.Hook
		}
		head := fmt.Sprintf("%s %s %s", p.Kind, p.Family, p.Table)
		lines = append(lines, fmt.Sprintf("%s: chain %s (%s)", head, p.Chain, at))
		for _, r := range p.Rules {
			lines = append(lines, fmt.Sprintf("%s %s: %s", head, p.Chain, r))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Services)) {
		for _, p := range o.Services[name] {
			lines = append(lines, "firewalld service "+name+": "+p)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.Zones)) {
		z := o.Zones[name]
		for _, item := range z.Permanent {
			lines = append(lines, "firewalld zone "+name+", permanent: "+item)
		}
		for _, item := range z.Runtime {
			lines = append(lines, "firewalld zone "+name+", now: "+item)
		}
	}
	return lines
}

// Diff retells the way from one to the other: lines with "-" go, lines with "+" come.
func Diff(from, to Own) []string {
	a, b := from.Lines(), to.Lines()
	var lines []string
	for _, l := range a {
		if !slices.Contains(b, l) {
			lines = append(lines, "- "+l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			lines = append(lines, "+ "+l)
		}
	}
	return lines
}

// Chains of ours.
const (
	chainIn  = "turngate"
	chainOut = "turngate_out"

	iptablesIn  = "TURNGATE"
	iptablesOut = "TURNGATE-OUT"

	notrackTable = "turngate" // of nft, family inet
	iptablesRaw  = "TURNGATE-RAW"
)

// nftRule is the rule of an opening in words of nft, as nft prints it.
func (o Opening) nftRule() string {
	var words []string
	family := "ip"
	if !o.V4 {
		family = "ip6"
	}
	if o.From.IsValid() {
		words = append(words, family, "saddr", strings.TrimSuffix(strings.TrimSuffix(o.From.String(), hostBits(o.From)), "/"))
	}
	if o.Addr.IsValid() {
		words = append(words, family, "daddr", o.Addr.String())
	}
	if !o.From.IsValid() && !o.Addr.IsValid() && o.V4 != o.V6 {
		nfproto := "ipv4"
		if o.V6 {
			nfproto = "ipv6"
		}
		words = append(words, "meta nfproto", nfproto)
	}
	if o.Local != (Ports{}) {
		words = append(words, o.Proto, "sport", o.Local.String())
	}
	if o.Ports != (Ports{1, 65535}) {
		words = append(words, o.Proto, "dport", o.Ports.String())
	}
	return strings.Join(words, " ") + fmt.Sprintf(" accept comment %q", o.Tag())
}

// hostBits is the length that nft does not print.
func hostBits(p interface {
	Bits() int
	IsSingleIP() bool
}) string {
	if p.IsSingleIP() {
		return fmt.Sprint(p.Bits())
	}
	return "none"
}

// iptablesRule is the rule of an opening in words of iptables, as "iptables -S" prints
// it behind the name of the chain.
func (o Opening) iptablesRule() string {
	var words []string
	if o.From.IsValid() {
		words = append(words, "-s", o.From.String())
	}
	if o.Addr.IsValid() {
		words = append(words, "-d", fmt.Sprintf("%s/%d", o.Addr, o.Addr.BitLen()))
	}
	words = append(words, "-p", o.Proto, "-m", o.Proto)
	ports := func(p Ports) string { return strings.ReplaceAll(p.String(), "-", ":") }
	if o.Local != (Ports{}) {
		words = append(words, "--sport", ports(o.Local))
	}
	if o.Ports != (Ports{1, 65535}) {
		words = append(words, "--dport", ports(o.Ports))
	}
	words = append(words, "-m", "comment", "--comment", fmt.Sprintf("%q", o.Tag()), "-j", "ACCEPT")
	return strings.Join(words, " ")
}

// notrackPlaces keep the relay range out of the connection table. They can stand
// in a table of their own: they decide about no packet.
func (p *Plan) notrackPlaces(nft bool) []Place {
	if !p.NoTrack {
		return nil
	}
	in, out := fmt.Sprintf("udp dport %s notrack comment %q", p.Relay, tag+" relay"), fmt.Sprintf("udp sport %s notrack comment %q", p.Relay, tag+" relay")
	if nft {
		return []Place{
			{Kind: kindNFT, Family: "inet", Table: notrackTable, Chain: "notrack_in", Hook: "type filter hook prerouting priority -300", Rules: []string{in}},
			{Kind: kindNFT, Family: "inet", Table: notrackTable, Chain: "notrack_out", Hook: "type filter hook output priority -300", Rules: []string{out}},
		}
	}
	ports := strings.ReplaceAll(p.Relay.String(), "-", ":")
	var all []Place
	for _, family := range []string{"ip", "ip6"} {
		all = append(all,
			Place{Kind: kindIPTables, Family: family, Table: "raw", Base: "PREROUTING", Chain: iptablesRaw,
				Rules: []string{fmt.Sprintf("-p udp -m udp --dport %s -m comment --comment %q -j CT --notrack", ports, tag+" relay")}},
			Place{Kind: kindIPTables, Family: family, Table: "raw", Base: "OUTPUT", Chain: iptablesRaw + "-OUT",
				Rules: []string{fmt.Sprintf("-p udp -m udp --sport %s -m comment --comment %q -j CT --notrack", ports, tag+" relay")}})
	}
	return all
}
