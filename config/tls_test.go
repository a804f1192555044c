package config

import (
	"reflect"
	"strings"
	"testing"
)

func TestWhatIsWrongWithTLS(t *testing.T) {
	const order = "domain = \"proxy.example.com\"\n[tls]\nmode = \"acme\"\n[tls.acme]\nterms_agreed = true\n"
	for _, c := range []struct {
		name, text string
		want       []string // keys, with "warning " before those that are; in order of lines
	}{
		{"an order that works", order, nil},
		{"an order at the staging server", order + `ca = "https://acme-staging-v02.api.letsencrypt.org/directory"`, nil},
		{"both challenges", order + `challenges = ["tls-alpn-01", "http-01"]`, nil},
		{"an own ACME server", "domain = \"proxy\"\n[tls]\nmode = \"acme\"\n[tls.acme]\nterms_agreed = true\nca = \"https://ca.corp/dir\"", nil},
		{"terms not agreed to", "domain = \"a.example.com\"\n[tls]\nmode = \"acme\"", []string{"tls.acme.terms_agreed"}},
		{"no name", "[tls]\nmode = \"acme\"\n[tls.acme]\nterms_agreed = true", []string{"domain"}},
		{"a name of no public CA", "domain = \"proxy\"\n[tls]\nmode = \"acme\"\n[tls.acme]\nterms_agreed = true", []string{"domain"}},
		{"a wildcard", order + `names = ["*.example.com"]`, []string{"tls.acme.names[0]"}},
		{"an address as a name", order + `names = ["192.0.2.1"]`, []string{"tls.acme.names[0]"}},
		{"no mail address", order + `email = "admin"`, []string{"tls.acme.email"}},
		{"a CA that is no URL", order + `ca = "letsencrypt"`, []string{"tls.acme.ca"}},
		{"a CA without TLS", order + `ca = "http://ca.corp/dir"`, []string{"tls.acme.ca"}},
		{"no challenge", order + `challenges = []`, []string{"tls.acme.challenges"}},
		{"an unknown challenge", order + `challenges = ["dns-01"]`, []string{"tls.acme.challenges[0]"}},
		{"half an external account", order + `eab_key_id = "kid"`, []string{"tls.acme.eab_key"}},
		{"a port that the CA does not use", "domain = \"a.example.com\"\n[https]\nlisten = [\":8443\"]\n[tls]\nmode = \"acme\"\n[tls.acme]\nterms_agreed = true", []string{"warning https.listen"}},
		{"another plain port", order + "challenges = [\"http-01\"]\nhttp_listen = \":8080\"", []string{"warning tls.acme.http_listen"}},
		{"the plain port is the TLS port", order + "challenges = [\"http-01\"]\nhttp_listen = \":443\"", []string{"warning tls.acme.http_listen", "tls.acme.http_listen"}},
		{"Let's Encrypt inside", "layout = \"intranet\"\nexternal_ip = \"10.0.0.4\"\n" + order, []string{"warning tls.mode"}},
		{"terms without an order", "[tls.acme]\nterms_agreed = true", []string{"warning tls.acme.terms_agreed"}},
		{"two pairs", "[tls]\ncert = [\"a\", \"b\"]\nkey = [\"c\", \"d\"]", nil},
		{"two certificates and a key", "[tls]\ncert = [\"a\", \"b\"]\nkey = \"c\"", []string{"tls.key"}},
		{"an empty name among several", "[tls]\ncert = [\"a\", \"\"]\nkey = [\"c\", \"d\"]", []string{"tls.cert"}},
		{"files without files", "[tls]\nmode = \"files\"", []string{"tls.mode"}},
		{"files that are not used", "[tls]\nmode = \"ca\"\ncert = \"a\"\nkey = \"b\"", []string{"warning tls.cert"}},
		{"an unknown mode", "[tls]\nmode = \"letsencrypt\"", []string{"tls.mode"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, findings := LoadBytes("f", []byte(c.text), machine(nil, nil))
			var got []string
			for _, f := range findings {
				if f.Fix == "" {
					t.Errorf("no fix: %s", f)
				}
				if f.Severity == Warning {
					got = append(got, "warning "+f.Key)
				} else {
					got = append(got, f.Key)
				}
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", findings, c.want)
			}
		})
	}
}

func TestNamesToOrder(t *testing.T) {
	cfg := mustLoad(t, "domain = \"Proxy.Example.com\"\n[tls.acme]\nnames = [\"turn.example.com\", \"proxy.example.com\", \"TURN.example.com\"]")
	if got := strings.Join(cfg.ACMENames(), " "); got != "proxy.example.com turn.example.com" {
		t.Errorf("got %s, want each name once", got)
	}
}
