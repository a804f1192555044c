package config

import (
	"bytes"
	"strings"
	"testing"
)

func TestUpstreamsAsTextsAndTables(t *testing.T) {
	text := `[[signaling]]
path = "/ws"
balance = "query:userId"
clients = ["203.0.113.0/24", "2001:db8::1"]
silent = ["clients", "limit"]
add_headers = { X-Q-DomId = "4711", X-Key = "env:KEY", X-Odd = "plain:env:x" }
upstream = [
  "wss://a.example.com/x",
  { url = "https://10.0.0.1", weight = 30, sni = "b.example.com", host = "b.example.com:8443" },
  { url = "https://10.0.0.1", backup = true, sni = "c.example.com" },
  { url = "https://d.example.com", weight = 0 },
]
[[signaling]]
path = "/list"
[[signaling.upstream]]
url = "https://e.example.com"
weight = 1
[[signaling.upstream]]
url = "https://f.example.com"
`
	env := machine(map[string]string{"KEY": "a key of ours"}, nil)
	cfg, findings := LoadBytes("t.toml", []byte(text), env)
	if len(findings) > 0 {
		t.Fatalf("findings:\n%v", findings)
	}
	r := cfg.Signaling[0]
	if got := literal(plainOf(r.Upstream)); !strings.HasPrefix(got, `["https://a.example.com/x", `) || !strings.HasSuffix(got, `, { host = "b.example.com:8443", sni = "b.example.com", url = "https://10.0.0.1", weight = 30 }, { backup = true, sni = "c.example.com", url = "https://10.0.0.1" }, { url = "https://d.example.com", weight = 0 }]`) {
		t.Errorf("upstreams %s", got)
	}
	if l := cfg.Signaling[1].Upstream; len(l) != 2 || l[0].Weight != 1 || l[1].Weight != MaxWeight {
		t.Errorf("a list of tables: %v", l)
	}
	if v := r.AddHeaders["X-Key"]; v.Reveal() != "a key of ours" || v.plain() != "env:KEY" || v.String() != masked {
		t.Errorf("X-Key: %q, shown as %q and %v", v.Reveal(), v.plain(), v)
	}
	if v := r.AddHeaders["X-Odd"]; v.Reveal() != "env:x" {
		t.Errorf("X-Odd: %q, want env:x", v.Reveal())
	}
	var b bytes.Buffer
	if err := cfg.WriteTOML(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "a key of ours") {
		t.Error("the shown file has the secret in it")
	}
	again, findings := LoadBytes("shown.toml", b.Bytes(), env)
	if again == nil || findings.HasErrors() {
		t.Fatalf("the shown file does not load:\n%v", findings)
	}
	if changes := Changes(cfg, again); len(changes) > 0 {
		t.Errorf("the shown file means something else: %v", changes)
	}
	if got := URLs(r.Upstream); len(got) != 3 || got[2].String() != "https://10.0.0.1" {
		t.Errorf("URLs: %v, want three, that of the backup last", got)
	}
}

func plainOf(list []Target) []any {
	var out []any
	for _, t := range list {
		out = append(out, t.plain())
	}
	return out
}

func TestAQratorRouteIsTwoLines(t *testing.T) {
	cfg, findings := LoadBytes("t.toml", []byte("logger = []\n[[signaling]]\npreset = \"qrator\"\nupstream = [\"https://a.example.com\", \"https://b.example.com\"]\n"), machine(nil, nil))
	for _, f := range findings {
		if f.Severity == Error || strings.HasPrefix(f.Key, "signaling") {
			t.Errorf("finding: %v", f)
		}
	}
	r := cfg.Signaling[0]
	if r.Path != "/" || r.Answer != "qrator" || r.Balance != "client_ip" || r.XFF != "append" || r.Identify || len(r.AddHeaders) != 2 {
		t.Errorf("got %+v", r)
	}
}

func TestUpstreamFindings(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{`upstream = [{ weight = 3 }]`, `signaling[0].upstream[0]: has no url`},
		{`upstream = [{ url = "https://a", wieght = 3 }]`, `signaling[0].upstream[0].wieght: `},
		{`upstream = [{ url = "https://a", weight = 101 }]`, `signaling[0].upstream[0].weight: 101 is more than 100`},
		{`upstream = [{ url = "https://a", weight = -1 }]`, `signaling[0].upstream[0].weight: -1 is out of range`},
		{`upstream = [{ url = "https://a", weight = "3" }]`, `signaling[0].upstream[0].weight: is a string`},
		{`upstream = [{ url = "http://127.0.0.1", sni = "a.example" }]`, `signaling[0].upstream[0].sni: there is no TLS`},
		{`upstream = [{ url = "https://a", sni = "192.0.2.1" }]`, `signaling[0].upstream[0].sni: "192.0.2.1" is not a host name`},
		{`upstream = [{ url = "https://a", host = "a/b" }]`, `signaling[0].upstream[0].host: "a/b" is not a host`},
		{`upstream = ["https://a", { url = "wss://A" }]`, `signaling[0].upstream[1]: https://a stands in the list twice`},
		{`upstream = [{ url = "https://a", weight = 0 }]`, `warning: signaling[0].upstream: every upstream has weight 0`},
		{`upstream = [["https://a"]]`, `signaling[0].upstream[0]: is a list`},
		{"upstream = [\"https://a\"]\nbalance = \"ip\"", `signaling[0].balance: "ip" is not known`},
		{"upstream = [\"https://a\"]\nbalance = \"query:\"", `signaling[0].balance: names no parameter`},
		{"upstream = [\"https://a\"]\nhealth_check = \"ping\"", `signaling[0].health_check: "ping" is not known`},
		{"upstream = [\"https://a\"]\nhealth_rise = 0", `signaling[0].health_rise: must be more than zero`},
		{"upstream = [\"https://a\"]\nhealth_interval = \"0s\"", `signaling[0].health_interval: must be more than zero`},
		{"upstream = [\"https://a\"]\nhealth_check = \"websocket\"\nhealth_path = \"x\"", `signaling[0].health_path: "x" does not begin with a slash`},
		{"upstream = [\"https://a\"]\nhealth_path = \"/x\"", `warning: signaling[0].health_path: counts only`},
		{"upstream = [\"https://a\"]\nsilent = [\"all\"]", `signaling[0].silent[0]: "all" is not known`},
		{"upstream = [\"https://a\"]\nclients = [\"all\"]", `signaling[0].clients[0]: "all" is not an address`},
		{"upstream = [\"https://a\"]\nadd_headers = { Host = \"x\" }", `signaling[0].add_headers.Host: Host is written by turngate`},
		{"upstream = [\"https://a\"]\nadd_headers = { \"A B\" = \"x\" }", `is not the name of a header`},
		{"upstream = [\"https://a\"]\nadd_headers = { A = \"{ip}\" }", `signaling[0].add_headers.A: has braces`},
		{"upstream = [\"https://a\"]\nadd_headers = { A = \"1\", a = \"2\" }", `signaling[0].add_headers.a: a is there twice`},
		{"upstream = [\"https://a\"]\nadd_headers = { A = \"x\\ny\" }", `signaling[0].add_headers.A: has a control character`},
		{"upstream = [\"https://a\"]\nmode = \"inspect\"\nanswer = \"qrator\"", `signaling[0].answer: does not count on a route with mode = "inspect"`},
	} {
		_, findings := LoadBytes("t.toml", []byte("[[signaling]]\npath = \"/ws\"\n"+tt.line+"\n"), machine(nil, nil))
		found := false
		for _, f := range findings {
			found = found || strings.Contains(f.String(), tt.want) && f.Line >= 3
		}
		if !found {
			t.Errorf("%s:\ngot %v\nwant %s", tt.line, findings, tt.want)
		}
	}
}

// The SDK's HTTPS requests go by the url alone: that is said, and no reason not to start.
func TestNamesOfWatchRTCUpstreams(t *testing.T) {
	const route = "[[signaling]]\npreset = \"watchrtc\"\nupstream = [{ url = \"https://192.0.2.1\", sni = \"a.example.com\" }, { url = \"https://192.0.2.1\", sni = \"b.example.com\" }]\n"
	const want = "warning: signaling[0].upstream[1]: sni and host do not hold for the SDK's HTTPS requests"
	cfg, findings := LoadBytes("t.toml", []byte("logger = []\n"+route), machine(nil, nil))
	if cfg == nil || !strings.Contains(findings.Error(), want) {
		t.Errorf("findings: %v, want %s", findings, want)
	}
	if routes := cfg.LogRoutes(); len(routes) != 1 || len(routes[0].Upstream) != 1 {
		t.Errorf("routes of reports: %+v, want one with one upstream", routes)
	}
	_, findings = LoadBytes("t.toml", []byte(route+"[[logger]]\npreset = \"watchrtc\"\n"), machine(nil, nil))
	if strings.Contains(findings.Error(), "sni and host") {
		t.Errorf("a route with reports of its own: %v", findings)
	}
}
