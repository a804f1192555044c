package config

import (
	"strings"
	"testing"
	"time"
)

func TestUsersDatabasesAndTheAPI(t *testing.T) {
	const token = `tokens = ["0123456789abcdef"]`
	for _, tc := range []struct{ name, text, want string }{
		{"two passwords", "[[turn.user]]\nname = \"u\"\npasswords = [\"first of two\", \"second of two\"]", ""},
		{"one and another", "[[turn.user]]\nname = \"u\"\npassword = \"first of two\"\npasswords = [\"second of two\"]", ""},
		{"no password at all", "[[turn.user]]\nname = \"u\"\npasswords = []",
			`turn.user[0].password: the user has no password; write password = "..."`},
		{"an empty one", "[[turn.user]]\nname = \"u\"\npasswords = [\"\", \"long enough\"]",
			`turn.user[0].passwords[0]: is empty; remove it, or write the password`},
		{"a weak one", "[[turn.user]]\nname = \"u\"\npasswords = [\"u\", \"long enough\"]",
			`warning: turn.user[0].passwords[0]: is weak`},
		{"too many", "[[turn.user]]\nname = \"u\"\npasswords = [\"long enough1\", \"long enough2\", \"long enough3\", \"long enough4\", \"long enough5\"]",
			`turn.user[0].passwords: a user with 5 passwords`},

		{"sqlite", "[[turn.database]]\ndriver = \"sqlite\"\ndsn = \"/var/lib/turn/turndb\"", ""},
		{"postgres", "[[turn.database]]\ndriver = \"postgres\"\ndsn = \"host=db dbname=coturn\"\ntimeout = \"1s\"\ncache = \"10s\"", ""},
		{"redis", "[[turn.database]]\ndriver = \"redis\"\ndsn = \"redis://:pw@db:6379/2\"", ""},
		{"another driver", "[[turn.database]]\ndriver = \"mysql\"\ndsn = \"x=y\"",
			`turn.database[0].driver: "mysql" is not known; write "sqlite", "postgres" or "redis"`},
		{"no driver", "[[turn.database]]\ndsn = \"x=y\"", `turn.database[0].driver: the database has no driver`},
		{"no dsn", "[[turn.database]]\ndriver = \"redis\"", `turn.database[0].dsn: the database has no dsn`},
		{"a dsn that is none", "[[turn.database]]\ndriver = \"postgres\"\ndsn = \"s3cret\"", `turn.database[0].dsn: is not a connection string`},
		{"a path for redis", "[[turn.database]]\ndriver = \"redis\"\ndsn = \"s3cret\"", `turn.database[0].dsn: is not a connection string`},
		{"two for one realm", "[[turn.database]]\ndriver = \"sqlite\"\ndsn = \"a\"\n[[turn.database]]\ndriver = \"sqlite\"\ndsn = \"b\"",
			`turn.database[1]: the realm "turngate" has a database on line 1 already`},
		{"a realm that nobody is told", "[[turn.database]]\ndriver = \"sqlite\"\ndsn = \"a\"\nrealm = \"elsewhere\"",
			`warning: turn.database[0].realm: clients are told the realm "turngate"`},
		{"no time", "[[turn.database]]\ndriver = \"sqlite\"\ndsn = \"a\"\ntimeout = \"0s\"\ncache = \"0s\"",
			`turn.database[0].timeout: must be more than zero`},
		{"too much time", "[[turn.database]]\ndriver = \"sqlite\"\ndsn = \"a\"\ntimeout = \"5m\"", `warning: turn.database[0].timeout: clients give up`},

		{"the API", "[turn.api]\npath = \"/ice\"\n" + token + "\norigins = [\"https://*.example.com\"]", ""},
		{"without a token", "[turn.api]\npath = \"/ice\"", `turn.api.tokens: is empty: nobody can use turn.api.path`},
		{"with a short token", "[turn.api]\npath = \"/ice\"\ntokens = [\"s3cret\"]", `turn.api.tokens[0]: is shorter than 16 characters`},
		{"with a token that no header carries", "[turn.api]\npath = \"/ice\"\ntokens = [\"s3cret s3cret s3cret\"]", `turn.api.tokens[0]: has a character`},
		{"tokens for nothing", "[turn.api]\n" + token, `warning: turn.api.tokens: counts only beside turn.api.path`},
		{"a path of our own", "[turn.api]\npath = \"/healthz\"\n" + token, `turn.api.path: "/healthz" is a path of turngate itself`},
		{"a path below a reserved one", "[turn.api]\npath = \"/.well-known/ice\"\n" + token, `turn.api.path: "/.well-known/ice" is a path of turngate itself`},
		{"the path of a route", "[turn.api]\npath = \"/ws\"\n" + token, `turn.api.path: "/ws" is taken by signaling[0].path`},
		{"no path", "[turn.api]\npath = \"ice\"\n" + token, `turn.api.path: "ice" does not begin with a slash`},
		{"an origin that is none", "[turn.api]\npath = \"/ice\"\n" + token + "\norigins = [\"example.com\"]", `turn.api.origins[0]: "example.com" is not an origin`},
		{"a short time", "[turn.api]\npath = \"/ice\"\n" + token + "\nttl = \"5s\"", `warning: turn.api.ttl: a credential of 5s`},
		{"no time for credentials", "[turn.api]\npath = \"/ice\"\n" + token + "\nttl = \"0s\"", `turn.api.ttl: must be more than zero`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, findings := LoadBytes("f", []byte(tc.text), machine(nil, nil))
			var got []string
			for _, f := range findings {
				got = append(got, f.String())
			}
			text := strings.Join(got, "\n")
			if tc.want == "" && text != "" || !strings.Contains(text, tc.want) {
				t.Errorf("got\n%s\nwant\n%s", text, tc.want)
			}
			if strings.Contains(text, "s3cret") {
				t.Errorf("a finding shows the secret: %s", text)
			}
		})
	}
}

func TestADatabaseTakesRealmAndDirectoryFromElsewhere(t *testing.T) {
	cfg, findings := LoadBytes("/etc/turngate/turngate.toml", []byte(`
domain = "turn.example.com"
[[turn.database]]
driver = "sqlite"
dsn = "turndb"
`), machine(nil, nil))
	if cfg == nil {
		t.Fatal(findings)
	}
	db := cfg.TURN.Database[0]
	if db.Realm != "turn.example.com" || db.DSN.Reveal() != "/etc/turngate/turndb" {
		t.Errorf("got realm %q and file %q, want turn.example.com and a file beside the configuration", db.Realm, db.DSN.Reveal())
	}
	if db.Timeout != Duration(2*time.Second) || db.Cache != Duration(time.Minute) {
		t.Errorf("got %v and %v, want 2s and 1m", db.Timeout, db.Cache)
	}
	if got := cfg.Origin("turn.database[0].realm").Note; got != "turn.realm" {
		t.Errorf("origin of the realm: got %q", got)
	}
	api := cfg.TURN.API
	if api.Path != "" || api.TTL != Duration(time.Hour) || api.Rate != 20 {
		t.Errorf("the API is not off, or has other defaults: %+v", api)
	}
}
