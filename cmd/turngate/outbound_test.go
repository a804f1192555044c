package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/turngate/turngate/internal/testnet"
)

// behindProxy starts a target whose upstreams are reached through a company's
// proxy only: their names do not resolve here.
func behindProxy(t *testing.T, proxyURL func(rec *recorder) string) *target {
	t.Helper()
	rec := newRecorder(t)
	keys, _, _ := strings.Cut(rec.config(t, rec.Addr), "resolve =")
	_, rest, _ := strings.Cut(rec.config(t, rec.Addr), "}\n")
	g := startGateWith(t, "", "", keys+fmt.Sprintf("proxy = %q\n", proxyURL(rec))+rest)
	return &target{gate: g, recorder: rec, addr: g.https, tls: g.trust(t)}
}

const corpLogin = "corp:hunter2 @/"

// Every way to an upstream goes through the proxy: both signaling dials, the
// scheduler, the log reports and those of the one-parameter mode.
func TestEverythingGoesThroughTheCompanysProxy(t *testing.T) {
	for _, scheme := range []string{"http", "https", "socks5h"} {
		t.Run(scheme, func(t *testing.T) {
			var p *testnet.OutboundProxy
			tg := behindProxy(t, func(rec *recorder) string {
				route := func(target string) string { return rec.Addr }
				switch scheme {
				case "http":
					p = testnet.NewConnectProxy(t, nil, corpLogin, route)
				case "https":
					cert := rec.ca.Issue(t, "127.0.0.1")
					p = testnet.NewConnectProxy(t, &cert, corpLogin, route)
				default:
					p = testnet.NewSOCKSProxy(t, corpLogin, route)
				}
				return scheme + "://corp:hunter2%20%40%2F@" + p.Addr
			})
			for _, path := range []string{"/ws/", "/schedule/s1.rtc.test/v2/ws", "/u/v2/ws?signalDomain=s1.rtc.test"} {
				if a := tg.upgrade(t, path); !a.echoes("through " + path) {
					t.Errorf("%s: no echo", path)
				}
			}
			for _, path := range []string{"/logger//v5/x", "/u/v5/x", "/schedule/api/v1/config", "/u/api/v1/config"} {
				if got := tg.first(t, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); got != 200 {
					t.Errorf("%s: got %d, want 200", path, got)
				}
			}
			for _, want := range []string{"signal.test:443", "s1.rtc.test:443", "log.test:443", "schedule.test:443"} {
				if !slices.Contains(p.Targets(), want) {
					t.Errorf("the proxy was asked for %q, want also %s", p.Targets(), want)
				}
			}
			tg.blameless(t)
			if b := tg.banner(); !strings.Contains(b, p.Addr) {
				t.Errorf("the banner does not name the proxy:\n%s", b)
			}
			if logs := tg.logs.String(); strings.Contains(logs, "hunter2") {
				t.Errorf("the log shows the password:\n%s", logs)
			}
			if code, out, errs := turngate("config", "show", tg.file()); code != 0 || strings.Contains(out+errs, "hunter2") || !strings.Contains(out, "upstream.proxy") {
				t.Errorf("config show: %d, %s%s", code, out, errs)
			}
		})
	}
}

// A wrong login is named once in the log, and a reload with the right one repairs it.
func TestAReloadChangesTheProxy(t *testing.T) {
	var p *testnet.OutboundProxy
	rec := newRecorder(t)
	p = testnet.NewConnectProxy(t, nil, corpLogin, func(string) string { return rec.Addr })
	keys, _, _ := strings.Cut(rec.config(t, rec.Addr), "resolve =")
	_, rest, _ := strings.Cut(rec.config(t, rec.Addr), "}\n")
	with := func(login string) string {
		return keys + fmt.Sprintf("proxy = %q\n", "http://"+login+"@"+p.Addr) + rest
	}
	g := startGateWith(t, "", "", with("corp:wrong-hunter2"))
	tg := &target{gate: g, recorder: rec, addr: g.https, tls: g.trust(t)}
	for _, request := range []string{"GET /logger/ HTTP/1.1\r\nHost: localhost\r\n\r\n", upgradeRequest("/ws/")} {
		if got := tg.first(t, request); got != 502 {
			t.Errorf("with a wrong login: got %d, want 502", got)
		}
	}
	line := g.logs.line("upstream down", "proxy_auth")
	if !strings.Contains(line, "it does not accept this user and password") || !strings.Contains(line, p.Addr) {
		t.Errorf("the log says %q", line)
	}
	g.writeConfig(t, "", "", with("corp:hunter2%20%40%2F"))
	result, err := g.reload()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(result.Changed, "upstream.proxy") {
		t.Errorf("changed: %q", result.Changed)
	}
	tg.control(t)
	g.writeConfig(t, "", "", with("corp:hunter2#")) // cannot be read
	if _, err := g.reload(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a broken proxy URL: %v", err)
	}
	tg.control(t)
	if logs := g.logs.String(); strings.Contains(logs, "hunter2") {
		t.Errorf("the log shows the password:\n%s", logs)
	}
}
