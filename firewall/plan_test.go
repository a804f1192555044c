package firewall

import (
	"bytes"
	"encoding/csv"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares with a file of testdata, or rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update rewrites it); got\n%s", path, got)
	}
}

// external is a host of layout 2-A behind a NAT, with everything that a plan knows.
func external() Options {
	return Options{
		Layout:    External,
		Host:      "proxy.example.com",
		Addresses: []Address{{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("10.0.0.7")}, {Public: netip.MustParseAddr("2001:db8::7")}},
		Listeners: []Listener{
			{Role: RoleHTTPS, Port: 443, Proto: "tcp"},
			{Role: RoleTURN, Port: 3478, Proto: "udp"},
			{Role: RoleTURN, Port: 3478, Proto: "tcp"},
			{Role: RoleTURN, Port: 443, Proto: "udp"},
			{Role: RoleACME, Port: 80, Proto: "tcp"},
			{Role: RoleMetrics, Addr: netip.MustParseAddr("10.0.0.7"), Port: 9641, Proto: "tcp"},
			{Role: RoleMetrics, Addr: netip.MustParseAddr("127.0.0.1"), Port: 9642, Proto: "tcp"},
		},
		Relay: Ports{20000, 65535},
		TRTC:  true,
		Upstreams: []Upstream{
			{Host: "signaling.rtc.qq.com", Port: 443, Purpose: ForSignaling},
			{Host: "yun.tim.qq.com", Port: 443, Purpose: ForLogs},
			{Host: "schedule.cloud-rtc.com", Port: 443, Purpose: ForScheduler},
			{Host: "*.rtc.qq.com", Port: 443, Purpose: ForUnified},
			{Host: "watchrtc-server.cyara.com", Port: 443, Purpose: ForStatistics},
			{Host: "acme-v02.api.letsencrypt.org", Port: 443, Purpose: ForACME},
		},
		Others:  []netip.AddrPort{netip.MustParseAddrPort("203.0.113.8:3478")},
		Monitor: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")},
		Kernel: map[string]string{
			ctlEphemeral: "32768\t60999", ctlReserved: "8080", ctlReceive: "212992", ctlSend: "8388608", ctlConntrack: "65536", ctlStream: "120",
		},
	}
}

// intranet is a host of layout 2-B that leaves through the company's proxy.
func intranet() Options {
	return Options{
		Layout:    Intranet,
		Host:      "turn.corp.example",
		Addresses: []Address{{Public: netip.MustParseAddr("10.20.0.5")}},
		Listeners: []Listener{
			{Role: RoleHTTPS, Addr: netip.MustParseAddr("10.20.0.5"), Port: 443, Proto: "tcp"},
			{Role: RoleTURN, Port: 3478, Proto: "udp"},
			{Role: RoleTURN, Port: 3478, Proto: "tcp"},
		},
		Relay:     Ports{20000, 29999},
		PeerPorts: []Ports{{8000, 8010}},
		Upstreams: []Upstream{
			{Host: "signaling.rtc.qq.com", Port: 443, Purpose: ForSignaling, Via: "10.0.0.8:3128"},
			{Host: "yun.tim.qq.com", Port: 443, Purpose: ForLogs, Via: "10.0.0.8:3128"},
			{Host: "waf.corp.example", Port: 8443, Purpose: ForHook},
			{Host: "db.corp.example", Port: 5432, Purpose: ForDatabase},
		},
		Resolvers: []netip.Addr{netip.MustParseAddr("10.0.0.53")},
		OwnPeers:  []Peer{{netip.MustParsePrefix("10.30.0.0/24"), Ports{8000, 8000}}},
		Clients:   []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:5::/48")},
	}
}

func layouts() map[string]Options {
	return map[string]Options{"external": external(), "intranet": intranet()}
}

func mustPlan(t *testing.T, o Options) *Plan {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlansOfEveryBackendAndLayout(t *testing.T) {
	for layout, o := range layouts() {
		for _, backend := range Backends() {
			for _, notrack := range []bool{false, true} {
				o.NoTrack = notrack
				name := "plan-" + layout + "-" + backend
				if notrack {
					name += "-notrack"
				}
				t.Run(name, func(t *testing.T) {
					var b bytes.Buffer
					if err := mustPlan(t, o).Describe(Sample(backend)).Write(&b); err != nil {
						t.Fatal(err)
					}
					golden(t, name+".txt", b.String())
				})
			}
		}
	}
}

func TestRequestsOfEveryFormatLayoutAndLanguage(t *testing.T) {
	for layout, o := range layouts() {
		for _, lang := range Languages() {
			for _, format := range Formats() {
				name := "request-" + layout + "-" + lang + "." + format
				t.Run(name, func(t *testing.T) {
					r, err := mustPlan(t, o).Request(lang)
					if err != nil {
						t.Fatal(err)
					}
					var b bytes.Buffer
					if err := r.Write(&b, format); err != nil {
						t.Fatal(err)
					}
					golden(t, name, b.String())
				})
			}
		}
	}
}

func TestARequestIsTheSameTableInEveryFormat(t *testing.T) {
	r, err := mustPlan(t, external()).Request("en")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := r.Write(&b, "csv"); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(b.String(), "\ufeff"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(rows), 1+len(r.In)+len(r.Out); got != want {
		t.Errorf("csv: %d rows, want %d", got, want)
	}
	for _, row := range rows {
		if len(row) != len(columns) {
			t.Errorf("csv: %d cells, want %d: %q", len(row), len(columns), row)
		}
	}
}

func TestARequestHoldsHostileNamesAsText(t *testing.T) {
	o := external()
	o.Host = `<script>alert(1)</script>`
	o.Upstreams = []Upstream{{Host: "=cmd|x", Port: 443, Purpose: ForHook}}
	r, err := mustPlan(t, o).Request("en")
	if err != nil {
		t.Fatal(err)
	}
	for format, bad := range map[string]string{"html": "<script", "csv": ",=cmd", "md": " =cmd|x "} {
		var b bytes.Buffer
		if err := r.Write(&b, format); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), bad) {
			t.Errorf("%s holds %q", format, bad)
		}
	}
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"an unknown layout":                      func(o *Options) { o.Layout = "dmz" },
		"a range from its end":                   func(o *Options) { o.Relay = Ports{300, 200} },
		"an unknown way of the relay range":      func(o *Options) { o.RelayIn = "maybe" },
		"closed and without connection tracking": func(o *Options) { o.RelayIn, o.NoTrack = RelayClosed, true },
	} {
		o := external()
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := mustPlan(t, external()).Request("fr"); err == nil {
		t.Error("an unknown language: no error")
	}
}

func TestKernelAdvice(t *testing.T) {
	tests := []struct {
		name    string
		notrack bool
		kernel  map[string]string
		want    []string
	}{
		{"a range below the ephemeral one needs nothing", false, map[string]string{ctlEphemeral: "32768 60999", ctlReserved: ""}, nil},
		{"an overlap is reserved beside what is reserved", false, map[string]string{ctlEphemeral: "25000 60999", ctlReserved: "8080"},
			[]string{"sysctl -w net.ipv4.ip_local_reserved_ports=8080,20000-29999"}},
		{"an overlap that is reserved in pieces", false, map[string]string{ctlEphemeral: "25000 60999", ctlReserved: "8080,26001-40000,24000-26000"}, nil},
		{"a piece is missing", false, map[string]string{ctlEphemeral: "25000 60999", ctlReserved: "26001-40000,24000-25999"},
			[]string{"sysctl -w net.ipv4.ip_local_reserved_ports=26001-40000,24000-25999,20000-29999"}},
		{"a small connection table", false, map[string]string{ctlConntrack: "1000"}, []string{"sysctl -w net.netfilter.nf_conntrack_max=262144"}},
		{"a small connection table that relays are not in", true, map[string]string{ctlConntrack: "1000", ctlStream: "10"}, nil},
		{"values that cannot be read", false, map[string]string{ctlEphemeral: "?", ctlReceive: "many"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := intranet()
			o.Kernel, o.NoTrack = tt.kernel, tt.notrack
			var got []string
			for _, a := range mustPlan(t, o).KernelAdvice() {
				got = append(got, a.Fix())
			}
			if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
