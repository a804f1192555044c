package config

import (
	"strings"
	"testing"
)

func TestPathsAndListenersOfThePages(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"another path", "[check]\npath = \"/turngate/check/\"", ""},
		{"below a route", "[check]\npath = \"/ws/check\"", ""},
		{"no page", "[check]\npath = \"\"\n[[signaling]]\npath = \"/check\"\nupstream = [\"https://a.example.com/\"]", ""},
		{"a route with its path", "[[signaling]]\npath = \"/check/\"\nupstream = [\"https://a.example.com/\"]", `signaling[0].path: "/check/" is a path of the check page; choose another one, or move the page with check.path`},
		{"a route below it", "[[signaling]]\npath = \"/check/ws\"\nupstream = [\"https://a.example.com/\"]", `"/check/ws" is a path of the check page`},
		{"a route with the same beginning", "[[signaling]]\npath = \"/checked\"\nupstream = [\"https://a.example.com/\"]", ""},
		{"everything", "[check]\npath = \"/\"", `check.path: "/" would be in the way of everything`},
		{"a path of our own", "[check]\npath = \"/healthz\"", `check.path: "/healthz" is a path of turngate itself`},
		{"no path", "[check]\npath = \"check\"", `check.path: "check" does not begin with a slash`},
		{"the status page", "[admin]\nstatus = \"127.0.0.1:9642\"", ""},
		{"the status page on IPv6", "[admin]\nstatus = \"[::1]:9642\"", ""},
		{"the status page for everybody", "[admin]\nstatus = \":9642\"", `admin.status: the page asks for no login`},
		{"the status page for the network", "[admin]\nstatus = \"10.1.2.3:9642\"", `admin.status: the page asks for no login`},
		{"the status page where the metrics are", "[admin]\nmetrics = \"127.0.0.1:9642\"\nstatus = \"127.0.0.1:9642\"", `admin.status: 127.0.0.1:9642 is taken by admin.metrics`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, findings := LoadBytes("x.toml", []byte(c.text), Env{})
			var errors []string
			for _, f := range findings {
				if s := f.String(); strings.Contains(s, "check") || strings.Contains(s, "admin") {
					errors = append(errors, s)
				}
			}
			all := strings.Join(errors, "\n")
			if c.want == "" && all != "" || !strings.Contains(all, c.want) {
				t.Errorf("got\n%s\nwant %q", all, c.want)
			}
		})
	}
}
