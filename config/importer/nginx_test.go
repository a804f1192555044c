package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// nginxServer imports locations within a server.
func nginxServer(t *testing.T, locations string) *Result {
	t.Helper()
	res, err := one(t, "/etc/nginx/nginx.conf", "http {\nserver {\nlisten 443 ssl;\nserver_name a.example.com;\n"+locations+"\n}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func lost(res *Result) []string {
	var all []string
	for _, r := range res.Remarks {
		if r.Weight == Lost {
			all = append(all, r.What)
		}
	}
	return all
}

// What nginx sends for a path is what turngate sends, or there is a remark.
func TestPathsAreJoinedAsNginxDoes(t *testing.T) {
	for _, tc := range []struct {
		name, location, pass string
		path, upstream       string
		remark               bool
	}{
		{"no URI keeps the path", "/a/", "http://h", "/a/", "http://h/a/", false},
		{"no URI, no slash", "/a", "http://h", "/a", "http://h/a", false},
		{"the root", "/", "http://h", "/", "http://h/", false},
		{"a slash replaces the location", "/a/", "http://h/", "/a/", "http://h/", false},
		{"a path replaces the location", "/a/", "http://h/b/", "/a/", "http://h/b/", false},
		{"both without a slash", "/a", "http://h/b", "/a", "http://h/b", false},
		{"a slash is missing", "/a/", "http://h/b", "/a/", "http://h/b", true},
		{"an exact location", "= /a", "http://h/b", "/a", "http://h/b", true},
		{"a preferred prefix", "^~ /a/", "http://h/", "/a/", "http://h/", false},
		{"a pattern that is a prefix", "~ ^/a/(.*)$", "http://h", "/a/", "http://h/a/", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res := nginxServer(t, "location "+tc.location+" { proxy_pass "+tc.pass+"; }")
			if len(res.Config.Logger) != 1 || len(res.Config.Signaling) != 0 {
				t.Fatalf("routes: got\n%s\n%v", res.TOML, res.Remarks)
			}
			r := res.Config.Logger[0]
			if r.Path != tc.path || r.Upstream[0].String() != tc.upstream {
				t.Errorf("got %s to %s, want %s to %s", r.Path, r.Upstream[0], tc.path, tc.upstream)
			}
			if got := len(res.Remarks) > 0; got != tc.remark {
				t.Errorf("remarks: got %v, want some: %v", res.Remarks, tc.remark)
			}
		})
	}
}

func TestAGuardedLocationIsNotOpened(t *testing.T) {
	for _, guard := range []string{
		"auth_basic x;", "auth_request /auth;", "limit_except GET { deny all; }", "satisfy any;", "allow 192.0.2.1; deny all;",
		"access_by_lua_block { ngx.exit(403) }", "deny nonsense;", "rewrite ^/a/([a-z]+)$ /$1 break;",
	} {
		t.Run(guard, func(t *testing.T) {
			res := nginxServer(t, "location /a/ { proxy_pass http://127.0.0.1:1; "+guard+" }")
			if len(res.Config.Logger)+len(res.Config.Signaling) > 0 || len(lost(res)) == 0 {
				t.Errorf("got\n%s\nlost: %v", res.TOML, lost(res))
			}
		})
	}
	res, err := one(t, "nginx.conf", "http { auth_basic x; server { listen 443 ssl; ssl_verify_client off; location / { proxy_pass http://127.0.0.1:1; } location /open/ { auth_basic off; proxy_pass http://127.0.0.1:2; } } }")
	if err != nil || len(res.Config.Logger) != 1 || res.Config.Logger[0].Path != "/open/" {
		t.Errorf("an inherited guard: got %v\n%s", err, res.TOML)
	}
	res, err = one(t, "nginx.conf", "http { server { listen 443 ssl; ssl_verify_client on; location / { proxy_pass http://127.0.0.1:1; } } }")
	if err != nil || len(res.Config.Logger) != 0 || len(lost(res)) == 0 {
		t.Errorf("client certificates: got %v\n%s", err, res.TOML)
	}
}

func TestAllowAndDenyBecomeExactlyTheirClients(t *testing.T) {
	const ws = "proxy_pass http://127.0.0.1:1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"
	for _, tc := range []struct{ name, rules, in, out string }{
		{"a list", "allow 192.0.2.0/24; deny all;", "192.0.2.0 192.0.2.255", "192.0.1.255 192.0.3.0 2001:db8::1"},
		{"the first that fits counts", "deny 192.0.2.7; allow 192.0.2.0/24; deny all;", "192.0.2.6 192.0.2.8", "192.0.2.7 198.51.100.1"},
		{"all but some", "deny 192.0.2.0/24; deny 2001:db8::/32;", "192.0.1.255 192.0.3.0 ::1 2001:db9::1", "192.0.2.9 2001:db8::9"},
		{"everybody", "allow all;", "192.0.2.1 ::1", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res := nginxServer(t, "location /ws/ { "+ws+tc.rules+" }")
			if len(res.Config.Signaling) != 1 {
				t.Fatalf("got\n%s\n%v", res.TOML, res.Remarks)
			}
			clients := res.Config.Signaling[0].Clients
			may := func(text string) bool {
				a := netip.MustParseAddr(text)
				return len(clients) == 0 || slices.ContainsFunc(clients, func(p netip.Prefix) bool { return p.Contains(a) })
			}
			for _, a := range strings.Fields(tc.in) {
				if !may(a) {
					t.Errorf("%s is kept out by %v", a, clients)
				}
			}
			for _, a := range strings.Fields(tc.out) {
				if may(a) {
					t.Errorf("%s is let in by %v", a, clients)
				}
			}
			if tc.name != "everybody" && len(res.Config.Logger) > 0 {
				t.Error("plain requests are open to everybody")
			}
		})
	}
}

func TestRangesAreSplitIntoExactlyTheirPrefixes(t *testing.T) {
	for _, tc := range []struct{ lo, hi, want string }{
		{"10.0.0.0", "10.255.255.255", "[10.0.0.0/8]"},
		{"0.0.0.0", "255.255.255.255", "[0.0.0.0/0]"},
		{"203.0.113.5", "203.0.113.9", "[203.0.113.5/32 203.0.113.6/31 203.0.113.8/31]"},
		{"255.255.255.254", "255.255.255.255", "[255.255.255.254/31]"},
		{"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "[::/0]"},
		{"2001:db8::1", "2001:db8::2", "[2001:db8::1/128 2001:db8::2/128]"},
	} {
		r := addrRange{netip.MustParseAddr(tc.lo), netip.MustParseAddr(tc.hi)}
		got := r.prefixes()
		if fmt.Sprint(got) != tc.want {
			t.Errorf("%s-%s: got %v, want %s", tc.lo, tc.hi, got, tc.want)
		}
		var back []addrRange
		for _, p := range got {
			back = append(back, rangeOf(p))
		}
		if s := set(back...); len(s) != 1 || s[0] != r {
			t.Errorf("%s-%s: the prefixes are %v", tc.lo, tc.hi, s)
		}
	}
}

func TestIncludesAreFoundAndBounded(t *testing.T) {
	files := map[string]string{
		"/etc/nginx/self.conf": "include self.conf;",
		"/etc/nginx/in.conf":   "location /in/ { proxy_pass http://127.0.0.1:1/; }",
	}
	opts := Options{ReadFile: func(p string) ([]byte, error) {
		if text, ok := files[p]; ok {
			return []byte(text), nil
		}
		return nil, fmt.Errorf("no such file")
	}}
	_, err := Import([]Source{{"/etc/nginx/nginx.conf", []byte("events {}\ninclude self.conf;\n")}}, opts)
	if err == nil || !strings.Contains(err.Error(), "includes itself") {
		t.Errorf("a cycle: got %v", err)
	}
	res, err := Import([]Source{{"/etc/nginx/nginx.conf", []byte("http { server { listen 443 ssl; include in.conf; include gone.conf; include none/*.conf; } }")}}, opts)
	if err != nil || len(res.Config.Logger) != 1 || res.Config.Logger[0].Path != "/in/" {
		t.Fatalf("got %v, %v", res, err)
	}
	if got := lost(res); len(got) != 1 || got[0] != "include" {
		t.Errorf("lost: got %v, want the missing file", got)
	}
}

// Whatever is not carried over is said, also where a part of it was.
func TestNothingOfNginxIsLostInSilence(t *testing.T) {
	for _, tc := range []struct{ name, http, server, want string }{
		{"files beside a nested location", "", "location / { root /srv/www; location /api/ { proxy_pass http://127.0.0.1:9000/; } }", "it serves files"},
		{"a path that variables fix", "", `location /log/ { set $u "a.example.org"; proxy_pass https://$u/; }`, "is put behind that of the upstream"},
		{"proxies that are trusted behind the PROXY header", "set_real_ip_from 192.0.2.0/24; real_ip_header X-Forwarded-For;", "listen 8443 ssl proxy_protocol; location /log/ { proxy_pass https://a.example.org/; }", "from the PROXY header"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res, err := one(t, "nginx.conf", "http { "+tc.http+" server { listen 443 ssl; server_name a.example.com; "+tc.server+" } }")
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range res.Remarks {
				if strings.Contains(r.Why, tc.want) {
					return
				}
			}
			t.Errorf("no remark with %q: %v", tc.want, res.Remarks)
		})
	}
}

func TestAnIncludedFileMayBeginWithAByteOrderMark(t *testing.T) {
	files := map[string]string{"/e/a.conf": "\ufeffserver { listen 443 ssl; server_name a.example.com; location /log/ { proxy_pass https://b.example.com/; } }"}
	res, err := Import([]Source{{Name: "/e/nginx.conf", Data: []byte("http { include a.conf; }")}}, Options{
		ReadFile: func(name string) ([]byte, error) { return []byte(files[name]), nil },
		Glob:     func(pattern string) ([]string, error) { return []string{pattern}, nil },
	})
	if err != nil || len(res.Config.Logger) != 1 || len(lost(res)) > 0 {
		t.Errorf("got %v, want the route of the file", err)
	}
}
