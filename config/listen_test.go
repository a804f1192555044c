package config

import (
	"slices"
	"strings"
	"testing"
)

func TestListenersOfRoutes(t *testing.T) {
	ws := func(more string) string {
		return "[[signaling]]\npath = \"/ws\"\nupstream = [\"https://a.example\"]\n" + more + "\n"
	}
	logs := func(more string) string {
		return "[[logger]]\npath = \"/ws\"\nupstream = [\"https://b.example\"]\n" + more + "\n"
	}
	const none = "logger = []\n"
	for _, tt := range []struct{ name, text, want string }{
		{"one path on two listeners", none + ws(`listen = [":8443"]`) + ws(`listen = [":9443"]`) + ws(""), ""},
		{"two routes of one listener", none + ws(`listen = [":8443"]`) + strings.Replace(ws(`listen = [":8443"]`), "/ws", "/x", 1), ""},
		{"one path twice on a listener", none + ws(`listen = [":8443"]`) + ws(`listen = [":9443", ":8443"]`), `signaling[1].path: "/ws" is taken by signaling[0].path`},
		{"a path of ours", none + strings.Replace(ws(`listen = [":8443"]`), "/ws", "/healthz/x", 1), `"/healthz/x" is a path of turngate itself`},
		{"the page's path, where the page is not", none + strings.Replace(ws(`listen = [":8443"]`), "/ws", "/check", 1), ""},
		{"a listener of [https]", none + ws(`listen = [":443"]`), `signaling[0].listen[0]: :443 is taken by https.listen[0] (:443); a listener of a route`},
		{"a listener of [turn]", none + ws(`listen = [":3478"]`), `signaling[0].listen[0]: :3478 is taken by turn.listen[0]`},
		{"one of them in part", none + ws(`listen = ["192.0.2.1:443"]`), `signaling[0].listen[0]: 192.0.2.1:443 is taken by https.listen[0]`},
		{"two that overlap", none + ws(`listen = [":8443"]`) + ws(`listen = ["192.0.2.1:8443"]`), `signaling[1].listen[0]: 192.0.2.1:8443 is taken by signaling[0].listen[0]`},
		{"that of the metrics", none + ws(`listen = ["127.0.0.1:9641"]`) + "[admin]\nmetrics = \"127.0.0.1:9641\"", `admin.metrics: 127.0.0.1:9641 is taken by signaling[0].listen[0]`},
		{"one twice in a list", none + ws(`listen = [":8443", ":8443"]`), `signaling[0].listen[1]: :8443 stands in the list twice`},
		{"an empty element", none + ws(`listen = [""]`), `signaling[0].listen[0]: is empty`},
		{"no port", none + ws(`listen = ["8443"]`), `signaling[0].listen[0]: "8443" has no colon`},
		{"both rooms on one path and listener", ws(`listen = [":8443"]`) + logs(`listen = [":8443"]`), ""},
		{"both rooms on one path, apart", ws("") + logs(`listen = [":8443"]`), ""},
		{"both rooms on one path, half apart", ws(`listen = [":8443", ":9443"]`) + logs(`listen = [":8443"]`), `logger[0].listen: "/ws" of signaling[0].path on line 2 answers on other listeners`},
	} {
		cfg, findings := LoadBytes("t.toml", []byte(tt.text), machine(nil, nil))
		var errs []string
		for _, f := range findings {
			if f.Severity == Error {
				errs = append(errs, f.String())
			}
		}
		all := strings.Join(errs, "\n")
		if tt.want == "" && (cfg == nil || all != "") || !strings.Contains(all, tt.want) {
			t.Errorf("%s:\ngot %s\nwant %s", tt.name, all, tt.want)
		}
	}
	cfg, _ := LoadBytes("t.toml", []byte(ws(`listen = [":8443", ":9443"]`)+logs(`listen = [":7443", ":8443"]`)+"[https]\nlisten = [\":443\"]"), machine(nil, nil))
	if cfg != nil {
		t.Fatal("half apart was taken")
	}
	cfg, findings := LoadBytes("t.toml", []byte(ws(`listen = [":8443", ":9443"]`)+strings.Replace(logs(`listen = [":7443", ":8443"]`), "/ws", "/l", 1)), machine(nil, nil))
	if cfg == nil {
		t.Fatal(findings)
	}
	var got []string
	for _, l := range cfg.RouteListeners() {
		got = append(got, l.String())
	}
	if want := []string{":8443", ":9443", ":7443"}; !slices.Equal(got, want) {
		t.Errorf("listeners of routes %v, want %v", got, want)
	}
}

func TestWatchRTCRequestsFollowTheirRoute(t *testing.T) {
	cfg, findings := LoadBytes("t.toml", []byte("logger = []\n[[signaling]]\npreset = \"watchrtc\"\nlisten = [\":8443\"]\n"), machine(nil, nil))
	if cfg == nil {
		t.Fatal(findings)
	}
	routes := cfg.LogRoutes()
	if len(routes) != 1 || len(routes[0].Listen) != 1 || routes[0].Listen[0].String() != ":8443" {
		t.Errorf("got %+v, want one route on :8443", routes)
	}
}
