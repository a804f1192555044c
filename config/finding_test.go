package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestAllFindingsOfAFileAreReportedAtOnce(t *testing.T) {
	env := machine(nil, map[string]file{
		"/proc/sys/net/ipv4/ip_local_port_range":     {"32768\t60999\n", 0o644},
		"/proc/sys/net/ipv4/ip_local_reserved_ports": {"\n", 0o644},
	})
	paths, err := filepath.Glob("testdata/bad-*.toml")
	if err != nil || len(paths) < 3 {
		t.Fatalf("files: %v, %v", paths, err)
	}
	for _, path := range paths {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			cfg, findings := LoadBytes(name, []byte(read(t, name)), env)
			if cfg != nil || findings.Err() == nil {
				t.Error("the file was accepted")
			}
			if strings.Contains(findings.Error(), "hunter2") {
				t.Error("a secret leaked")
			}
			golden(t, strings.TrimSuffix(name, ".toml")+".txt", findings.Error()+"\n")
		})
	}
}

func TestOneFindingPerMistake(t *testing.T) {
	ephemeral := machine(nil, map[string]file{"/proc/sys/net/ipv4/ip_local_port_range": {"32768 60999", 0o644}})
	reserved := machine(nil, map[string]file{
		"/proc/sys/net/ipv4/ip_local_port_range":     {"32768 60999", 0o644},
		"/proc/sys/net/ipv4/ip_local_reserved_ports": {"8080,20000-65535", 0o644},
	})
	others := machine(nil, map[string]file{
		"/proc/sys/net/ipv4/ip_local_port_range":     {"32768 60999", 0o644},
		"/proc/sys/net/ipv4/ip_local_reserved_ports": {"8080,9000-9010\n", 0o644},
	})
	for _, tc := range []struct {
		name, text string
		env        Env
		want       string // "" for no finding
	}{
		{"a key set twice", "a = 1\n\ndomain = \"a.example.com\"\ndomain = \"b.example.com\"", Env{}, `f:4:1: domain: is set twice, first on line 3; remove one of the two`},
		{"a table opened twice", "[tls]\n[tls]", Env{}, `f:2:2: tls: is set twice, first on line 1; remove one of the two`},
		{"no closing quote", "domain = \"x", Env{}, `f:1:11: domain: unexpected EOF; expected '"'; correct the TOML syntax here`},
		{"a NUL byte", "\x00", Env{}, "f:1:1: files cannot contain NULL bytes; probably using UTF-16; TOML files must be UTF-8; correct the TOML syntax here"},
		{"a range that overlaps the ephemeral one", "[turn]\nmax_port = 65535", ephemeral,
			`f:2: warning: turn.max_port: the relay range 20000-65535 overlaps the ports of outgoing connections, 32768-60999: some relay ports will be taken; sysctl -w net.ipv4.ip_local_reserved_ports=20000-65535, or use the default range`},
		{"the same range, others reserved", "[turn]\nmax_port = 65535", others,
			`f:2: warning: turn.max_port: the relay range 20000-65535 overlaps the ports of outgoing connections, 32768-60999: some relay ports will be taken; sysctl -w net.ipv4.ip_local_reserved_ports=20000-65535,8080,9000-9010, or use the default range`},
		{"the same range, reserved", "[turn]\nmax_port = 65535", reserved, ""},
		{"the default range", "", ephemeral, ""},
		{"ports swapped", "[turn]\nmin_port = 30000\nmax_port = 20000", Env{}, `f:3: turn.max_port: 20000 is below min_port 30000; swap the two values`},
		{"a range of one port", "[turn]\nmin_port = 20000\nmax_port = 20000", Env{}, ""},
		{"a private address outside", "external_ip = \"10.1.2.3\"", Env{}, `f:1: warning: external_ip: 10.1.2.3 is a private address, in the external layout; write the public address, "public/private" behind NAT, or layout = "intranet"`},
		{"a private address inside", "layout = \"intranet\"\nexternal_ip = \"10.1.2.3\"", Env{}, ""},
		{"an address behind NAT", "external_ip = \"203.0.113.7/10.1.2.3\"", Env{}, ""},
		{"one address of each family", "external_ip = [\"203.0.113.7\", \"2001:db8::7\"]", Env{}, ""},
		{"two pairs of one family", "external_ip = [\"203.0.113.7/10.0.0.1\", \"203.0.113.8/10.0.0.2\"]", Env{}, ""},
		{"loopback for tests", "external_ip = \"127.0.0.1\"\nlayout = \"intranet\"\n[https]\nlisten = [\"127.0.0.1:0\"]\n[turn]\nlisten = [\"127.0.0.1:0\"]", Env{}, `f:1: warning: external_ip: 127.0.0.1 is reached from this host only; write the address that clients reach`},
		{"both families of one port", "[https]\nlisten = [\"192.0.2.1:443\", \"[2001:db8::1]:443\"]", Env{}, ""},
		{"a route shared by WebSockets and reports", "[[signaling]]\npreset = \"watchrtc\"\n[[logger]]\npreset = \"watchrtc\"\n[turn]\nlisten = []", Env{}, ""},
		{"[trtc] without a TRTC route", "signaling = []\nlogger = []\n[trtc]\nunified = \"\"\n[turn]\nlisten = []", Env{}, `f:3: warning: trtc: counts only beside a route with preset "trtc", and there is none; remove the table, or give a route the preset`},
		{"nobody can relay", "signaling = []\nlogger = []", Env{}, `f: warning: turn: there is neither a user nor a secret: nobody can use the relay; add [[turn.user]] with name and password`},
		{"a single [signaling]", "[signaling]\npreset = \"trtc\"", Env{}, `f:1: signaling: is a single table, but there can be several; write [[signaling]]`},
		{"a double [[turn]]", "[[turn]]\nmin_port = 1", Env{}, `f:1: turn: is a list of tables, but there is only one; write [turn]`},
		{"a preset misspelt", "[[signaling]]\npreset = \"watchrct\"\npath=\"/x\"\nupstream=[\"https://x/\"]", Env{}, `f:2: signaling[0].preset: "watchrct" is not a preset; did you mean "watchrtc"?`},
		{"a hook's value", "[[signaling]]\npath = \"/x\"\nupstream = [\"https://a.example.com/\"]\n[signaling.hook.inbound]\nurl = \"ftp://a\"\n[turn]\nlisten = []", Env{},
			`f:5: signaling[0].hook.inbound.url: is not the URL of a hook; write "https://host[:port]/path"`},
		{"a number where a table belongs", "signaling = [1]\n[turn]\nlisten = []", Env{}, `f:1: signaling[0]: is a whole number, not a table; write [[signaling]]`},
		{"a value of a page", "layout = \"" + strings.Repeat("a", 5000) + "\"", Env{},
			`f:1: layout: "` + strings.Repeat("a", 199) + "..." + strings.Repeat("a", 186) + `" is not known; write "external" or "intranet"`},
		{"a key of tokens without quotes", "[turn.api]\ntokens = [\n\"a\",\n0hunter2,\n]", Env{}, `f:4:2: turn.api.tokens: is not valid TOML; put the value in quotes, and a backslash or quote in it behind a backslash`},
		{"a database without quotes", "[[turn.database]]\ndsn = 0hunter2", Env{}, `f:2:8: turn.database: is not valid TOML; put the value in quotes, and a backslash or quote in it behind a backslash`},
		{"a file of keys", "# keys\nAP3yZdr2734Ecs6JpGk9tNc7yEYW28Y=\n", Env{}, `f:2:33: expected value but found '\n' instead; correct the TOML syntax here`},
		{"everybody is a trusted proxy", "[https]\ntrusted_proxies = [\"192.0.2.1\", \"::/0\"]\nproxy_protocol = [\"0.0.0.0/0\"]", Env{},
			"f:2: warning: https.trusted_proxies[1]: ::/0 lets everybody say which address he comes from; list the addresses of what stands in front of this host\n" +
				"f:3: warning: https.proxy_protocol[0]: 0.0.0.0/0 lets everybody say which address he comes from; list the addresses of what stands in front of this host"},
		{"names for an order that no mode makes", "[tls.acme]\nnames = [\"a.example.com\"]\nemail = \"a@example.com\"", Env{}, `f:2: warning: tls.acme.names: no certificate is ordered with mode "auto"; write mode = "acme" in [tls]`},
		{"an account's key that is none", "domain = \"a.example.com\"\n[tls]\nmode = \"acme\"\n[tls.acme]\nterms_agreed = true\neab_key_id = \"k\"\neab_key = \"hunter2=\"", Env{},
			`f:7: tls.acme.eab_key: is not base64url: letters, digits, '-' and '_'; write it as the CA gave it, without "=" at its end`},
		{"a byte order mark", "\ufeffdomain = \"proxy.example.com\"", Env{}, ""},
		{"carriage returns", "domain = \"proxy.example.com\"\r\n[tls]\r\ncert = \"\"\r\n", Env{}, ""},
		{"brackets without end", "a = " + strings.Repeat("[", 100000), Env{}, `f:1: keys or brackets nest deeper than 16; no key of turngate needs that`},
		{"a key without end", "\n" + strings.Repeat("a.", 100000) + "a = 1", Env{}, `f:2: keys or brackets nest deeper than 16; no key of turngate needs that`},
		{"a huge file", strings.Repeat("#", 1<<20), Env{}, `f: is 1 MiB or larger; name the configuration file`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, findings := LoadBytes("f", []byte(tc.text), tc.env)
			if got := findings.Error(); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}
