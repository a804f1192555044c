package inspect

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/turngate/turngate/internal/proxy"
)

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		name    string
		targets []string
		local   bool
		host    string
		to      string
		want    bool
	}{
		{"everything, a public address", []string{"*"}, false, "app.example.com", "203.0.113.7:443", true},
		{"everything, a private address", []string{"*"}, false, "app", "10.0.0.1:80", true},
		{"everything, loopback", []string{"*"}, false, "localhost", "127.0.0.1:80", false},
		{"everything, loopback of a peer on this host", []string{"*"}, true, "localhost", "127.0.0.1:80", true},
		{"everything, metadata of a peer on this host", []string{"*"}, true, "x", "169.254.169.254:80", false},
		{"loopback that is listed", []string{"*", "127.0.0.1"}, false, "127.0.0.1", "127.0.0.1:80", true},
		{"loopback that is listed with another port", []string{"*", "127.0.0.1:81"}, false, "127.0.0.1", "127.0.0.1:80", false},
		{"IPv6 loopback", []string{"*"}, false, "x", "[::1]:80", false},
		{"mapped loopback", []string{"*"}, false, "x", "[::ffff:127.0.0.1]:80", false},
		{"loopback behind NAT64", []string{"*"}, false, "x", "[64:ff9b::7f00:1]:80", false},
		{"loopback in 6to4", []string{"*"}, false, "x", "[2002:7f00:1::]:80", false},
		{"unspecified", []string{"*"}, false, "x", "0.0.0.0:80", false},
		{"this network", []string{"*"}, false, "x", "0.1.2.3:80", false},
		{"IPv6 unspecified", []string{"*"}, false, "x", "[::]:80", false},
		{"link-local", []string{"*"}, false, "x", "[fe80::1%eth0]:80", false},
		{"multicast", []string{"*"}, false, "x", "224.0.0.1:80", false},
		{"broadcast", []string{"*"}, false, "x", "255.255.255.255:80", false},
		{"metadata that is not link-local", []string{"*"}, false, "x", "100.100.100.200:80", false},
		{"metadata over IPv6", []string{"*"}, false, "x", "[fd00:ec2::254]:80", false},
		{"a name that is listed", []string{"app.example.com"}, false, "app.example.com", "203.0.113.7:443", true},
		{"a name that is not", []string{"app.example.com"}, false, "evil.example.com", "203.0.113.7:443", false},
		{"a name below a domain", []string{"*.example.com"}, false, "a.b.example.com", "203.0.113.7:443", true},
		{"the domain itself", []string{"*.example.com"}, false, "example.com", "203.0.113.7:443", false},
		{"a domain that only ends alike", []string{"*.example.com"}, false, "evilexample.com", "203.0.113.7:443", false},
		{"a listed name that leads to loopback", []string{"app.example.com"}, false, "app.example.com", "127.0.0.1:443", false},
		{"a listed name with its port", []string{"app.example.com:443"}, false, "app.example.com", "203.0.113.7:443", true},
		{"a listed name with another port", []string{"app.example.com:443"}, false, "app.example.com", "203.0.113.7:22", false},
		{"a prefix, whatever the name", []string{"203.0.113.0/24"}, false, "any.example.org", "203.0.113.7:443", true},
		{"outside the prefix", []string{"203.0.113.0/24"}, false, "any.example.org", "198.51.100.7:443", false},
		{"an IPv6 prefix with port", []string{"[2001:db8::/32]:443"}, false, "x", "[2001:db8::7]:443", true},
		{"nothing listed", nil, false, "app.example.com", "203.0.113.7:443", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			list, err := parseTargets(c.targets)
			if err != nil {
				t.Fatal(err)
			}
			got := list.guard(c.local)(c.host, netip.MustParseAddrPort(c.to)) == nil
			if got != c.want {
				t.Errorf("allowed %v, want %v", got, c.want)
			}
		})
	}
	for _, bad := range []string{"", "a b", "http://app", "app:0", "app:x", "[::1", "[::1]x", "*.", "a.*.b", "10.0.0.0/33"} {
		if err := ParseTargets([]string{bad}); err == nil {
			t.Errorf("target %q: accepted", bad)
		}
	}
}

// The name looks harmless; what it resolves to decides, for upstream and hooks.
func TestNamesThatLeadToLoopbackAreRefused(t *testing.T) {
	u := newUpstream(t, websocket.Upgrader{})
	asked := 0
	hook := newHook(t, func(*http.Request, string, http.ResponseWriter) { asked++ })
	rebinding, err := proxy.NewDialer(proxy.DialOptions{Lookup: func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	port := u.Port()
	rt := headersRoute()
	rt.Dialer, rt.HookDialer, rt.ByHeaders.Targets = rebinding, rebinding, []string{"*", "127.0.0.1:" + port}
	h := serve(t, rt)
	rt.ByHeaders.Targets = []string{"*"}
	strict := serve(t, rt)
	if status, text := strict.refused(t, "/", http.Header{"X-Wsproxy-Upstream": {"ws://app.example.com:" + port}}); status != 403 || !strings.Contains(text, "not allowed") {
		t.Errorf("upstream: got %d %q, want 403", status, text)
	}
	for _, literal := range []string{"127.0.0.1", "[::1]", "[::ffff:7f00:1]", "169.254.169.254", "0.0.0.0", "2130706433", "127.1", "0x7f.1", "localhost"} {
		if status, _ := strict.refused(t, "/", http.Header{"X-Wsproxy-Upstream": {"ws://" + literal + ":" + port}}); status != 403 {
			t.Errorf("upstream %s: got %d, want 403", literal, status)
		}
	}
	// The port of the hook is not the listed one.
	_, hookPort, _ := strings.Cut(strings.TrimPrefix(hook, "http://"), ":")
	header := wants(u)
	header.Set("X-Wsproxy-Inboundhook", "http://waf.example.com:"+hookPort)
	c := h.open(t, "/", header)
	c.say("hello")
	c.ends(1011, "hook failed")
	header.Set("X-Wsproxy-Inboundhook", hook)
	if status, text := h.refused(t, "/", header); status != 403 || !strings.Contains(text, "x-wsproxy-inboundhook") {
		t.Errorf("hook by address: got %d %q, want 403 with its name", status, text)
	}
	if asked != 0 {
		t.Errorf("the hook was asked %d times", asked)
	}
}
