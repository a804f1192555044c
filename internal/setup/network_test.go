package setup

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// network is what a host knows: addresses as "ADDR@INTERFACE", then those that traffic
// leaves from, then what DNS says.
func network(own, out, names string) Network {
	n := Network{Domain: "proxy.example.com"}
	for _, f := range strings.Fields(own) {
		a, i, _ := strings.Cut(f, "@")
		n.Own = append(n.Own, Own{addr(a), i})
	}
	for _, f := range strings.Fields(out) {
		n.Out = append(n.Out, addr(f))
	}
	for _, f := range strings.Fields(names) {
		n.Names = append(n.Names, addr(f))
	}
	return n
}

func TestLayoutAndAddressAreFound(t *testing.T) {
	for _, tc := range []struct {
		name            string
		own, out, names string
		seen            string
		layout          string
		given           []Address
		want            string // layout and addresses
		why, note       string
	}{
		{"a public address on an interface", "14.3.3.3@eth0", "14.3.3.3", "", "", "", nil,
			"external 14.3.3.3", "14.3.3.3 on eth0 is public", ""},
		{"the name leads to one of several public addresses", "14.3.3.3@eth0 14.3.3.4@eth0", "14.3.3.3", "14.3.3.4", "", "", nil,
			"external 14.3.3.4", "proxy.example.com leads to 14.3.3.4 on eth0", "14.3.3.3 (eth0); --external-ip chooses"},
		{"several public addresses and no name: that of the default route", "14.3.3.9@eth1 14.3.3.3@eth0", "14.3.3.3", "", "", "", nil,
			"external 14.3.3.3", "14.3.3.3 on eth0", "14.3.3.9 (eth1)"},
		{"a DMZ host with a leg inside", "10.0.0.4@eth1 14.3.3.3@eth0", "14.3.3.3", "14.3.3.3", "", "", nil,
			"external 14.3.3.3", "leads to 14.3.3.3 on eth0", "10.0.0.4 (eth1)"},
		{"a host inside whose default route goes inside, with a public leg that is named", "10.0.0.4@eth1 14.3.3.3@eth0", "10.0.0.4", "14.3.3.3", "", "", nil,
			"external 14.3.3.3", "leads to", ""},
		{"behind NAT, as DNS says", "10.0.0.4@eth0", "10.0.0.4", "14.3.3.3", "", "", nil,
			"external 14.3.3.3/10.0.0.4", "no interface has: 10.0.0.4 is behind NAT", ""},
		{"behind NAT, as a STUN server says", "10.0.0.4@eth0", "10.0.0.4", "", "14.3.3.3", "", nil,
			"external 14.3.3.3/10.0.0.4", "the Internet sees 14.3.3.3", ""},
		{"private only", "10.0.0.4@eth0", "10.0.0.4", "", "", "", nil, "intranet 10.0.0.4", "10.0.0.4 on eth0 is private", ""},
		{"private, and the name says so", "10.0.0.4@eth0 192.168.7.1@eth1", "10.0.0.4", "192.168.7.1", "", "", nil,
			"intranet 192.168.7.1", "leads to 192.168.7.1 on eth1, which is private", "10.0.0.4 (eth0)"},
		{"private, and the name leads to another private host", "10.0.0.4@eth0", "10.0.0.4", "10.0.0.99", "", "", nil, "intranet 10.0.0.4", "", ""},
		{"carrier NAT is not public", "100.64.3.3@ppp0", "100.64.3.3", "", "", "", nil, "intranet 100.64.3.3", "is private", ""},
		{"no default route", "10.0.0.4@eth0", "", "", "", "", nil, "intranet 10.0.0.4", "", ""},
		{"IPv6 alone", "2001:db8::7@eth0", "2001:db8::7", "", "", "", nil, "external 2001:db8::7", "2001:db8::7 on eth0 is public", ""},
		{"unique local IPv6 alone", "fd00::7@eth0", "fd00::7", "", "", "", nil, "intranet fd00::7", "", ""},
		{"both families, both named", "14.3.3.3@eth0 2001:db8::7@eth0", "14.3.3.3 2001:db8::7", "14.3.3.3 2001:db8::7", "", "", nil,
			"external 14.3.3.3 2001:db8::7", "", ""},
		{"both families, IPv6 not named", "14.3.3.3@eth0 2001:db8::7@eth0", "14.3.3.3 2001:db8::7", "14.3.3.3", "", "", nil,
			"external 14.3.3.3", "", "--external-ip 14.3.3.3,2001:db8::7 takes it in"},
		{"a home network with public IPv6 is inside", "192.168.1.5@eth0 2001:db8::7@eth0", "192.168.1.5 2001:db8::7", "", "", "", nil,
			"intranet 192.168.1.5", "", "IPv6 is left out"},
		{"the layout that is said holds: inside with a public address", "14.3.3.3@eth0", "14.3.3.3", "", "", Intranet, nil,
			"intranet 14.3.3.3", "--layout; 14.3.3.3 on eth0 is public", ""},
		{"inside, though DNS has a public address elsewhere", "10.0.0.4@eth0", "10.0.0.4", "14.3.3.3", "", Intranet, nil, "intranet 10.0.0.4", "--layout", ""},
		{"an address that is said: public", "10.0.0.4@eth0", "10.0.0.4", "", "", "", []Address{{Public: addr("14.3.3.3")}},
			"external 14.3.3.3", "--external-ip 14.3.3.3 is public", ""},
		{"a pair that is said", "10.0.0.4@eth0", "10.0.0.4", "", "", "", []Address{{addr("14.3.3.3"), addr("10.0.0.4")}},
			"external 14.3.3.3/10.0.0.4", "", ""},
		{"an address that is said: private", "10.0.0.4@eth0", "10.0.0.4", "", "", "", []Address{{Public: addr("10.0.0.4")}},
			"intranet 10.0.0.4", "is private", ""},
		{"an address and a layout that are said", "", "", "", "", External, []Address{{Public: addr("10.0.0.4")}}, "external 10.0.0.4", "--external-ip", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := network(tc.own, tc.out, tc.names)
			if tc.seen != "" {
				n.Seen = addr(tc.seen)
			}
			c, err := n.Choose(tc.layout, tc.given)
			if err != nil {
				t.Fatal(err)
			}
			got := c.Layout
			for _, a := range c.Addresses {
				got += " " + a.String()
			}
			if got != tc.want {
				t.Errorf("got %s, want %s (%s)", got, tc.want, c.Why)
			}
			if c.Why == "" || !strings.Contains(c.Why, tc.why) {
				t.Errorf("why: got %q, want %q in it", c.Why, tc.why)
			}
			if notes := strings.Join(c.Notes, "\n"); !strings.Contains(notes, tc.note) || tc.note == "" && tc.why != "" && len(c.Notes) > 1 {
				t.Errorf("notes: got %q, want %q in it", notes, tc.note)
			}
		})
	}
}

func TestWhatCannotBeFoundIsSaid(t *testing.T) {
	if _, err := network("", "", "").Choose("", nil); !errors.Is(err, ErrNoAddress) {
		t.Errorf("no address: got %v", err)
	}
	if _, err := network("10.0.0.4@eth0", "10.0.0.4", "").Choose(External, nil); !errors.Is(err, ErrNoPublic) {
		t.Errorf("2-A without a public address: got %v", err)
	}
}
