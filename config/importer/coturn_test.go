package importer

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Every option that turnserver(1) of coturn 4.6 documents is known: none of them
// is taken for a misspelt one.
func TestEveryOptionOfCoturnIsKnown(t *testing.T) {
	data, err := os.ReadFile("testdata/coturn-options.txt")
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(data))
	if len(names) < 105 {
		t.Fatalf("got %d options only", len(names))
	}
	for _, n := range names {
		if _, ok := coturnOptions[n]; !ok {
			t.Errorf("%s is not known", n)
		}
	}
}

// No remark and no error shows a password, whatever is wrong with its line.
func TestRemarksShowNoSecret(t *testing.T) {
	const secret = "geheimgeheim"
	for _, text := range []string{
		"user=" + secret, "user=a:0x" + secret + "00000000000000000000", "user=a:" + secret + "\nuser=a:" + secret + "2",
		"cli-password=" + secret, "mysql-userdb=\"password=" + secret + "\"", "psql-userdb=" + secret, "pkey-pwd=" + secret,
		"static-auth-secret=" + secret + "\nuser=a:" + secret, "use-auth-secret\nstatic-auth-secret=" + secret + "\x01", "usr=a:" + secret,
	} {
		res, err := one(t, "turnserver.conf", "listening-port=3478\n"+text+"\n")
		if shown := fmt.Sprint(res.Remarks, err); strings.Contains(shown, secret) || err != nil {
			t.Errorf("%s: %s", text, shown)
		}
	}
}

func TestAHostileFileIsBounded(t *testing.T) {
	var users, routes, backends strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&users, "user=u%d:p\n", i)
		fmt.Fprintf(&routes, "location /%d/ { proxy_pass http://h%d; proxy_set_header Upgrade $http_upgrade; }\n", i, i)
		fmt.Fprintf(&backends, "use_backend b if { path_beg /%d }\n", i)
	}
	for name, text := range map[string]string{
		"turnserver.conf": users.String(),
		"nginx.conf":      "server { listen 443 ssl; " + routes.String() + "}",
		"haproxy.cfg":     "frontend f\nmode http\nbind :443 ssl\n" + backends.String() + "backend b\nserver s 127.0.0.1:1\n",
	} {
		res, err := one(t, name, text)
		if err != nil || len(res.TOML) > 1<<20 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
