package peers

import (
	"net/netip"
	"slices"
)

// Entry is one row of the built-in table.
type Entry struct {
	Prefix netip.Prefix
	Name   string // what the addresses are for
	Source string // the document that says so
}

// String returns the row as a log line names it: "private 10.0.0.0/8 (RFC 1918)".
func (e Entry) String() string {
	return e.Name + " " + e.Prefix.String() + " (" + e.Source + ")"
}

// Table returns the addresses that are refused unless an operator's rule
// allows them, IPv4 first. Rows overlap; the longest prefix names the refusal.
// The caller owns the slice.
//
// It is our own table and not the predicates of net/netip: those say no to
// 0.1.2.3, 100.64.0.1, 198.18.0.1, 240.0.0.1 and every carrier of an IPv4
// address.
func Table() []Entry { return slices.Clone(table) }

var table = []Entry{
	row("0.0.0.0/8", "this network", "RFC 1122"),
	row("10.0.0.0/8", "private", "RFC 1918"),
	row("100.64.0.0/10", "shared", "RFC 6598"),
	row("100.100.100.200/32", "cloud metadata", "Alibaba Cloud"),
	row("127.0.0.0/8", "loopback", "RFC 1122"),
	row("168.63.129.16/32", "cloud platform", "Azure"), // outside every special range, yet host-local
	row("169.254.0.0/16", "link-local", "RFC 3927"),
	row("169.254.169.254/32", "cloud metadata", "RFC 3927"),
	row("172.16.0.0/12", "private", "RFC 1918"),
	row("192.0.0.0/24", "protocol assignments", "RFC 6890"),
	row("192.0.2.0/24", "documentation", "RFC 5737"),
	row("192.88.99.0/24", "6to4 relay anycast", "RFC 7526"),
	row("192.168.0.0/16", "private", "RFC 1918"),
	row("198.18.0.0/15", "benchmarking", "RFC 2544"),
	row("198.51.100.0/24", "documentation", "RFC 5737"),
	row("203.0.113.0/24", "documentation", "RFC 5737"),
	row("224.0.0.0/4", "multicast", "RFC 5771"),
	row("240.0.0.0/4", "reserved", "RFC 1112"),
	row("255.255.255.255/32", "limited broadcast", "RFC 919"),

	// Global unicast is 2000::/3 so far; nothing outside it is on the Internet.
	row("::/3", "not global unicast", "RFC 4291"),
	row("4000::/2", "not global unicast", "RFC 4291"),
	row("8000::/1", "not global unicast", "RFC 4291"),
	row("::/128", "unspecified", "RFC 4291"),
	row("::1/128", "loopback", "RFC 4291"),
	row("::/96", "IPv4-compatible", "RFC 4291"),
	row("::ffff:0:0/96", "IPv4-mapped", "RFC 4291"),
	row("::ffff:0:0:0/96", "IPv4-translated", "RFC 2765"),
	row("64:ff9b::/96", "NAT64", "RFC 6052"),
	row("64:ff9b:1::/48", "local-use NAT64", "RFC 8215"),
	row("100::/64", "discard-only", "RFC 6666"),
	row("100:0:0:1::/64", "dummy", "RFC 9780"),
	row("2001::/23", "protocol assignments", "RFC 2928"),
	row("2001::/32", "Teredo", "RFC 4380"),
	row("2001:db8::/32", "documentation", "RFC 3849"),
	row("2002::/16", "6to4", "RFC 3056"),
	row("3fff::/20", "documentation", "RFC 9637"),
	row("5f00::/16", "segment routing SIDs", "RFC 9602"),
	row("fc00::/7", "unique local", "RFC 4193"),
	row("fe80::/10", "link-local", "RFC 4291"),
	row("fec0::/10", "site-local", "RFC 3879"),
	row("ff00::/8", "multicast", "RFC 4291"),
}

// tableReasons stands beside table, row by row.
var tableReasons = func() []*reason {
	rs := make([]*reason, len(table))
	for i, e := range table {
		rs[i] = &reason{name: e.String(), kind: kindTable}
	}
	return rs
}()

func row(prefix, name, source string) Entry {
	return Entry{netip.MustParsePrefix(prefix), name, source}
}
