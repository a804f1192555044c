package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/testnet"
)

// check runs the check of a gate on itself and returns the report.
func (g *gate) check(t testing.TB, args ...string) (doctor.Report, int) {
	t.Helper()
	g.waitForSocket(t)
	return runCheck(t, append([]string{"--config", g.file()}, args...)...)
}

func (g *gate) waitForSocket(t testing.TB) {
	t.Helper()
	for ctx := deadline(t); ; {
		c, err := net.Dial("unix", filepath.Join(g.dir, "admin.sock"))
		if err == nil {
			c.Close()
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func runCheck(t testing.TB, args ...string) (r doctor.Report, code int) {
	t.Helper()
	var out, stderr bytes.Buffer
	code = run(append([]string{"check", "--json"}, args...), nil, &out, &stderr)
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("check: code %d, %v\n%s%s", code, err, out.String(), stderr.String())
	}
	return r, code
}

// found returns the findings with a code.
func found(r doctor.Report, code doctor.Code) []doctor.Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f doctor.Finding) bool { return f.Code != code })
}

// wantFinding fails the test unless the report has the code with the status, and the
// words in what it says.
func wantFinding(t testing.TB, r doctor.Report, code doctor.Code, status doctor.Status, words ...string) {
	t.Helper()
	for _, f := range found(r, code) {
		all := f.Status == status
		for _, w := range words {
			all = all && strings.Contains(f.What, w)
		}
		if all {
			return
		}
	}
	var b strings.Builder
	_ = r.WriteText(&b, false)
	t.Errorf("no finding %s %v with %q in:\n%s", code, status, words, b.String())
}

func pathOf(r doctor.Report, name string) doctor.Path {
	for _, p := range r.Paths {
		if p.Name == name {
			return p
		}
	}
	return doctor.Path{}
}

// checkedCloud is an upstream for signaling and logs as the check asks them.
func checkedCloud(t testing.TB) *testnet.Upstream {
	return testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
			io.WriteString(w, "{}")
			return
		}
		h := w.Header()
		h.Set("Upgrade", "websocket")
		h.Set("Connection", "Upgrade")
		h.Set("Sec-WebSocket-Accept", testnet.AcceptKey(r.Header.Get("Sec-WebSocket-Key")))
		w.WriteHeader(http.StatusSwitchingProtocols)
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}))
}

func routesTo(up string) string {
	return `
[[signaling]]
path = "/ws/"
upstream = ["http://` + up + `/"]
[[logger]]
path = "/logger/"
upstream = ["http://` + up + `/"]
`
}

func TestCheckOfAGateThatWorks(t *testing.T) {
	g := startGate(t, routesTo(checkedCloud(t).Addr))
	r, code := g.check(t, "--ca", g.certFile())
	for _, c := range []doctor.Code{doctor.WebOK, doctor.WssOK, doctor.LogOK, doctor.UDPOK, doctor.TCPOK, doctor.TLSOK, doctor.LoopOK,
		doctor.RefusesOK, doctor.RangeOK, doctor.FirewallOK, doctor.VersionOK, doctor.ServiceOK} {
		wantFinding(t, r, c, doctor.OK)
	}
	if n := len(found(r, doctor.LoopOK)); n != 4 {
		t.Errorf("%d loops came back, want 4: UDP, TCP, TLS and TCP on the HTTPS port", n)
	}
	for _, name := range []string{"logs", "media", "signaling"} {
		if p := pathOf(r, name); p.Status == doctor.Fail {
			t.Errorf("the path %s: %v", name, p)
		}
	}
	if code != 0 && code != 1 { // the machine of the test may deserve warnings
		t.Errorf("exit code %d with %v", code, r.Findings)
	}
}
