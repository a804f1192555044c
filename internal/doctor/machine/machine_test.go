package machine

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func files(m map[string]string) Machine {
	root := fstest.MapFS{}
	for name, text := range m {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return New(root)
}

func TestWhatLinuxTells(t *testing.T) {
	m := files(map[string]string{
		"proc/sys/net/ipv4/ip_local_port_range":     "32768\t60999\n",
		"proc/sys/net/ipv4/ip_local_reserved_ports": "8080,20000-29999\n",
		"proc/sys/net/netfilter/nf_conntrack_count": "90\n",
		"proc/sys/net/netfilter/nf_conntrack_max":   "100\n",
		"proc/7/limits":           "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 4096                 files\n",
		"proc/net/snmp":           "Tcp: A B\nTcp: 1 2\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\nUdp: 1 2 3 4 55\n",
		"proc/net/tcp":            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:0DF1 00000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 4711 1 0 100 0 0 10 0\n   1: 0100007F:0DF1 0100007F:9999 01 00000000:00000000 00:00000000 00000000   998        0 4712 1 0 100 0 0 10 0\n",
		"proc/net/udp6":           "  sl  local\n   9: 00000000000000000000000000000000:0D96 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000   998        0 4713 2 0 12\n",
		"sys/fs/selinux/enforce":  "1",
		"var/log/audit/audit.log": "type=AVC msg=audit(1): avc:  denied  { name_bind } for pid=1 comm=\"nginx\"\ntype=AVC msg=audit(2): avc:  denied  { name_bind } for pid=2 comm=\"turngate\" src=443\n",
	})
	if r, err := m.Ephemeral(); err != nil || r != (Range{32768, 60999}) {
		t.Errorf("ephemeral: %v %v", r, err)
	}
	if r, err := m.Reserved(); err != nil || cmp.Diff([]Range{{8080, 8080}, {20000, 29999}}, r) != "" {
		t.Errorf("reserved: %v %v", r, err)
	}
	if n, limit, err := m.Conntrack(); err != nil || n != 90 || limit != 100 {
		t.Errorf("conntrack: %d %d %v", n, limit, err)
	}
	if have, limit, err := m.OpenFiles(7); err != nil || have != -1 || limit != 1024 {
		t.Errorf("open files: %d %d %v", have, limit, err)
	}
	if n, err := m.UDPBufferErrors(); err != nil || n != 55 {
		t.Errorf("UDP drops: %d %v", n, err)
	}
	sockets, err := m.Sockets()
	want := []Socket{
		{Network: "tcp", Local: netip.MustParseAddrPort("127.0.0.1:3569"), inode: "4711"},
		{Network: "udp", Local: netip.MustParseAddrPort("[::]:3478"), Drops: 12, inode: "4713"},
	}
	if diff := cmp.Diff(want, sockets, cmp.AllowUnexported(Socket{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" || err != nil {
		t.Errorf("sockets (-want +got):\n%s%v", diff, err)
	}
	if on, denied, err := m.SELinux("turngate"); !on || err != nil || len(denied) != 1 || !strings.Contains(denied[0], "src=443") {
		t.Errorf("SELinux: %v %q %v", on, denied, err)
	}
}

func TestAMachineThatTellsNothing(t *testing.T) {
	m := files(nil)
	if _, err := m.Sockets(); err == nil {
		t.Error("sockets: no error")
	}
	if _, _, err := m.Conntrack(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("conntrack: %v, want ErrNotExist", err)
	}
	if on, denied, err := m.SELinux("turngate"); on || denied != nil || err != nil {
		t.Errorf("SELinux: %v %v %v, want off", on, denied, err)
	}
	if _, err := m.Ephemeral(); err == nil {
		t.Error("ephemeral: no error")
	}
}

func TestUncovered(t *testing.T) {
	for _, tt := range []struct {
		name string
		by   []Range
		want Range
		open bool
	}{
		{"nothing reserved", nil, Range{100, 200}, true},
		{"all", []Range{{50, 250}}, Range{}, false},
		{"in two parts, the second first", []Range{{150, 200}, {100, 149}}, Range{}, false},
		{"a gap", []Range{{100, 140}, {150, 200}}, Range{141, 200}, true},
		{"up to the last port", []Range{{100, 65535}}, Range{}, false},
	} {
		if got, open := Uncovered(Range{100, 200}, tt.by); got != tt.want || open != tt.open {
			t.Errorf("%s: got %v %v, want %v %v", tt.name, got, open, tt.want, tt.open)
		}
	}
}
