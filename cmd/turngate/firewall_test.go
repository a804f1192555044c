package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/firewall"
)

// What a configuration needs through firewalls: the sheets of files that use every
// kind of listener and of upstream.
func TestConfigurationsBecomeFirewallRequests(t *testing.T) {
	for name, text := range map[string]string{
		"external": `
			domain = "proxy.example.com"
			external_ip = ["203.0.113.7/10.0.0.7", "2001:db8::7"]
			[tls]
			mode = "acme"
			[tls.acme]
			terms_agreed = true
			challenges = ["tls-alpn-01", "http-01"]
			[turn]
			listen = [":3478", ":443", "127.0.0.1:5000"]
			alternates = ["203.0.113.8", "203.0.113.9:4000"]
			[admin]
			metrics = "10.0.0.7:9641"
			[[signaling]]
			preset = "trtc"
			[[signaling]]
			preset = "watchrtc"
			[[signaling]]
			path = "/"
			listen = [":8443"]
			upstream = ["https://qrator.example.com/"]`,
		"intranet": `
			layout = "intranet"
			domain = "turn.corp.example"
			external_ip = "10.20.0.5"
			logger = []
			[turn]
			min_port = 20000
			max_port = 65535
			[turn.peers]
			allow = ["10.30.0.0/24:8000"]
			ports = [8000, "8010-8020"]
			[[turn.database]]
			realm = "one"
			driver = "postgres"
			dsn = "host=db.corp.example port=5433 user=turn password=nobody-may-know"
			[[turn.database]]
			realm = "two"
			driver = "redis"
			dsn = "rediss://:nobody-may-know@cache.corp.example/1"
			[[turn.database]]
			realm = "three"
			driver = "postgres"
			dsn = "host=/run/postgresql dbname=turn"
			[upstream]
			proxy = "http://user:nobody-may-know@10.0.0.8:3128"
			no_proxy = [".corp.example"]
			resolve = { "near.corp.example" = "10.0.0.9:8443" }
			[[signaling]]
			path = "/ws/"
			upstream = ["https://signal.example.com/", "https://near.corp.example/", "wss://far.corp.example:9443/"]
			[signaling.hook.inbound]
			url = "https://waf.corp.example:8080/check"
			[[signaling]]
			path = "/any/"
			mode = "headers"
			trusted_peers = ["10.0.0.1"]
			targets = ["*.example.com", "192.0.2.0/24:8080"]`,
		"plain": `
			signaling = []
			logger = []
			[https]
			listen = ["127.0.0.1:8443"]`,
	} {
		t.Run(name, func(t *testing.T) {
			cfg, findings := config.LoadBytes("turngate.toml", []byte(text), config.Env{})
			if cfg == nil {
				t.Fatal(findings)
			}
			o, err := firewallOptions(cfg)
			if err != nil {
				t.Fatal(err)
			}
			p, err := firewall.New(o)
			if err != nil {
				t.Fatal(err)
			}
			r, err := p.Request("en")
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			if err := r.Write(&b, "md"); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(b.String(), "nobody-may-know") {
				t.Error("the sheet holds a secret")
			}
			path := filepath.Join("testdata", "firewall-"+name+".md")
			if *update {
				if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("%s differs; got\n%s", path, b.String())
			}
		})
	}
}

func TestResolversOfThisHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("# a comment\nsearch corp.example\nnameserver 127.0.0.53\nnameserver 10.0.0.53\nnameserver\nnameserver 2001:db8::53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := resolvers(path)
	if want := []netip.Addr{netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("2001:db8::53")}; len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
}
