package importer

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/turngate/turngate/config"
)

func TestAGuardedFrontendIsNotOpened(t *testing.T) {
	for _, guard := range []string{
		"http-request auth realm x unless { http_auth(users) }",
		"http-request deny unless { http_auth(users) }",
		"http-request deny if !{ req.hdr(x-key) -m str abc }",
		"http-request deny unless { src 192.0.2.0/24 -f /etc/list }",
		"http-request deny if { path_beg / }",
		"http-request deny",
	} {
		t.Run(guard, func(t *testing.T) {
			res, err := one(t, "haproxy.cfg", "frontend f\n mode http\n bind :443 ssl crt /a.pem\n "+guard+"\n default_backend b\nbackend b\n server s 127.0.0.1:80\n")
			if err != nil {
				t.Fatal(err)
			}
			if len(res.Config.Signaling)+len(res.Config.Logger) > 0 || len(res.Remarks) == 0 {
				t.Errorf("got\n%s\n%v", res.TOML, res.Remarks)
			}
		})
	}
}

// The first rule that fits counts in HAProxy, the longest path in turngate: each
// path leads where it led.
func TestRulesInOrderBecomeTheirPaths(t *testing.T) {
	res, err := one(t, "haproxy.cfg", `frontend f
  mode http
  bind :443 ssl crt /a.pem
  acl ws hdr(Upgrade) -i websocket
  use_backend early if ws { path_beg /a }
  use_backend b if { path_beg /a/b }
  use_backend never if { path_beg /a/b/c }
  default_backend rest
backend early
  server s 127.0.0.1:1
backend b
  server s 127.0.0.1:2
backend never
  server s 127.0.0.1:3
backend rest
  server s 127.0.0.1:4
`)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range res.Config.Signaling {
		got["ws "+r.Path] = r.Upstream[0].URL.Port()
	}
	for _, r := range res.Config.Logger {
		got[r.Path] = r.Upstream[0].Port()
	}
	for path, want := range map[string]string{"ws /": "4", "/": "4", "ws /a": "1", "/a": "4", "ws /a/b": "1", "/a/b": "2", "ws /a/b/c": "1", "/a/b/c": "2"} {
		if got[path] != want {
			t.Errorf("%s leads to port %q, want %q", path, got[path], want)
		}
	}
	if len(got) != 8 || !strings.Contains(fmt.Sprint(res.Remarks), "use_backend never: an earlier rule") {
		t.Errorf("routes %v, remarks %v", got, res.Remarks)
	}
}

func TestBrokenHAProxyIsReportedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"global\n daemon\nfrontend\n":           "haproxy.cfg:3: frontend has no name",
		"global\n log \"a\n":                    "haproxy.cfg:2: a quote that is not closed",
		"daemon\nglobal\n user x\nfrontend f\n": `haproxy.cfg:1: "daemon" stands before the first section`,
	} {
		if _, err := one(t, "haproxy.cfg", text); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// A backend of HAProxy serves both kinds; the host of the log reports takes one.
func TestTheHostOfLogReportsIsALogger(t *testing.T) {
	res, err := one(t, "haproxy.cfg", `frontend f
  mode http
  bind :443 ssl crt /a.pem
  use_backend sig if { path_beg /ws/ }
  default_backend log
backend sig
  mode http
  server s signaling.rtc.qq.com:443 ssl verify required ca-file /ca.pem
backend log
  mode http
  server l yun.tim.qq.com:443 ssl verify required ca-file /ca.pem
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range res.Config.Signaling {
		if r.Path != "/ws/" {
			t.Errorf("signaling: got %s, want /ws/ alone", r.Path)
		}
	}
	if i := slices.IndexFunc(res.Config.Logger, func(r config.Logger) bool { return r.Path == "/" && r.Preset == config.PresetTRTC }); i < 0 {
		t.Errorf("no route for log reports:\n%s", res.TOML)
	}
}
