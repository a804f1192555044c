package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/pages"
	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/internal/testnet/trtccloud"
)

// check runs the check of a gate on itself and returns the report.
func (g *gate) check(t testing.TB, args ...string) (doctor.Report, int) {
	t.Helper()
	return runCheck(t, append([]string{"--config", g.file()}, args...)...)
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
	for _, c := range []doctor.Code{doctor.WebOK, doctor.WssOK, doctor.LogOK, doctor.UDPOK, doctor.TCPOK, doctor.TLSOK,
		doctor.RefusesOK, doctor.RangeOK, doctor.FirewallOK, doctor.VersionOK, doctor.ServiceOK} {
		wantFinding(t, r, c, doctor.OK)
	}
	if n := len(found(r, doctor.LoopOK)) + len(found(r, doctor.LoopLoss)) + len(found(r, doctor.LoopSlow)); n != 4 { // a busy machine loses some
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

// Each trouble has its code, and does not hide what works.
func TestCheckNamesTheTrouble(t *testing.T) {
	ca := testnet.NewCA(t, "Corporate Inspection CA")
	cloud := checkedCloud(t)
	refused := testnet.ClosedAddress(t)
	answering := func(status int) string {
		return testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })).Addr
	}
	inspected := testnet.NewUpstream(t, ca.Issue(t, "upstream.test"), http.NotFoundHandler())
	for _, tt := range []struct {
		name, turn, extra string
		args              []string
		want              doctor.Code
		status            doctor.Status
		words             string
		signaling, media  doctor.Status
	}{
		{"an upstream that is down", "", routesTo(refused), nil, doctor.WssBlocked, doctor.Fail, "refused", doctor.Fail, doctor.OK},
		{"a log upstream that is down", "", routesTo(refused), nil, doctor.LogBlocked, doctor.Fail, "refused", doctor.Fail, doctor.OK},
		{"a name that DNS does not know", "", routesTo("upstream.invalid:80"), nil, doctor.WssDNS, doctor.Fail, "upstream.invalid", doctor.Fail, doctor.OK},
		{"a firewall that inspects TLS", "", "[[signaling]]\npath = \"/ws/\"\nupstream = [\"https://upstream.test/\"]\nresolve = { \"upstream.test\" = \"" + inspected.Addr + "\" }",
			nil, doctor.WssIssuer, doctor.Fail, "Corporate Inspection CA", doctor.Fail, doctor.OK},
		{"an upstream that fails behind its balancer", "", routesTo(answering(503)), nil, doctor.WssAnswer, doctor.Fail, "503", doctor.Fail, doctor.OK},
		{"a company proxy that is not there", "", "[upstream]\nproxy = \"http://" + refused + "\"\n" + routesTo(cloud.Addr), nil, doctor.WssProxy, doctor.Fail, refused, doctor.Fail, doctor.OK},
		{"a route that refuses the client", "", "[[signaling]]\npath = \"/ws/\"\nclients = [\"192.0.2.0/24\"]\nupstream = [\"http://" + cloud.Addr + "/\"]",
			nil, doctor.WssThrough, doctor.Warn, "403", doctor.Warn, doctor.OK},
		{"one of two upstreams that is down", "", "[[signaling]]\npath = \"/ws/\"\nupstream = [\"http://" + cloud.Addr + "/\", \"http://" + refused + "/\"]",
			nil, doctor.WssBlocked, doctor.Warn, "refused", doctor.Warn, doctor.OK},
		{"an answer that the page cannot read", "", routesTo(answering(200)), nil, doctor.LogCORS, doctor.Warn, "Access-Control-Allow-Origin", doctor.OK, doctor.OK},
		{"a wrong password", "", routesTo(cloud.Addr), []string{"--user", "turn", "--password", "wrong"}, doctor.UDPLogin, doctor.Fail, "401", doctor.OK, doctor.Fail},
		{"no port left", "allocations = 1", routesTo(cloud.Addr), nil, doctor.TCPFull, doctor.Fail, "508", doctor.OK, doctor.Fail},
		{"relays that may reach this host", "", routesTo(cloud.Addr) + allowLoopback, nil, doctor.OpenPeer, doctor.Warn, "127.0.0.1", doctor.OK, doctor.Warn},
		{"a loop that is switched off", "", routesTo(cloud.Addr) + "\n[turn.peers]\nrelay_to_relay = false", nil, doctor.LoopRefused, doctor.Skip, "own relays", doctor.OK, doctor.OK},
		{"a certificate that nobody trusts", "", routesTo(cloud.Addr), []string{"--ca", ""}, doctor.CertUntrusted, doctor.Fail, "self-signed", doctor.Fail, doctor.OK},
		{"nobody outside to ask", "", routesTo(cloud.Addr), nil, doctor.EgressUntested, doctor.Skip, "--stun", doctor.OK, doctor.OK},
		{"a STUN server that the policy denies", "", routesTo(cloud.Addr), []string{"--stun", "10.9.9.9:3478"}, doctor.EgressRefused, doctor.Skip, "10.9.9.9", doctor.OK, doctor.OK},
		{"a STUN server that does not answer", "", routesTo(cloud.Addr) + allowLoopback, []string{"--stun", "127.0.0.1:9"}, doctor.EgressBlocked, doctor.Fail, "127.0.0.1:9", doctor.OK, doctor.Fail},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limits := ""
			if tt.turn != "" {
				limits = "[turn.limits]\n" + tt.turn
			}
			g := startGateWith(t, "", limits, tt.extra)
			if strings.Contains(tt.turn, "allocations = 1") {
				g.allocate(t, "udp")
			}
			args := append([]string{"--ca", g.certFile()}, tt.args...)
			r, _ := g.check(t, args...)
			wantFinding(t, r, tt.want, tt.status, tt.words)
			if p := pathOf(r, "signaling"); p.Status != tt.signaling {
				t.Errorf("signaling: got %v %q, want %v", p.Status, p.Why, tt.signaling)
			}
			if p := pathOf(r, "media"); p.Status != tt.media {
				t.Errorf("media: got %v %q, want %v", p.Status, p.Why, tt.media)
			}
			for _, f := range r.Findings {
				if f.Status >= doctor.Warn && (f.Fix == "" || f.Who == "") {
					t.Errorf("%s says neither what to do nor who has to: %v", f.Code, f)
				}
			}
		})
	}
}

func TestCheckOfAGateThatDoesNotRun(t *testing.T) {
	g := &gate{dir: t.TempDir(), user: "turn", password: "turnserver"}
	g.https = netip.MustParseAddrPort(testnet.ClosedAddress(t))
	g.turnUDP = netip.AddrPortFrom(g.https.Addr(), testnet.FreePort(t))
	g.writeConfig(t, "", "", "")
	text, err := os.ReadFile(g.file())
	if err != nil {
		t.Fatal(err)
	}
	overlapping := strings.Replace(string(text), "min_port = 22000\nmax_port = 22999", "min_port = 40000\nmax_port = 50000", 1)
	if err := os.WriteFile(g.file(), []byte(overlapping), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", g.turnUDP.String())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r, code := runCheck(t, "--config", g.file(), "--timeout", "15s")
	if code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
	wantFinding(t, r, doctor.ServiceDown, doctor.Fail, "no turngate is running")
	wantFinding(t, r, doctor.WebRefused, doctor.Fail, "refused")
	wantFinding(t, r, doctor.UDPRefused, doctor.Fail, "closed")
	wantFinding(t, r, doctor.CredentialWeak, doctor.Fail, `"turn"`)
	wantFinding(t, r, doctor.FirewallTaken, doctor.Fail, "tcp "+g.turnUDP.String(), "turngate.test")
	wantFinding(t, r, doctor.RangeOverlap, doctor.Warn, "40000-50000")
	if _, err := os.Stat(filepath.Join(g.dir, "state")); err == nil {
		t.Error("a look has made the state directory")
	}

	if err := os.WriteFile(g.file(), []byte("[turn]\nmin_prt = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, code = runCheck(t, "--config", g.file())
	wantFinding(t, r, doctor.ConfigErrors, doctor.Fail, "min_prt")
	if code != 2 {
		t.Errorf("exit code %d with a bad file, want 2", code)
	}
}

// What the running server knows is in the check.
func TestCheckTellsWhatTheServerKnows(t *testing.T) {
	refused := testnet.ClosedAddress(t)
	g := startGateWith(t, "", "[turn.limits]\nauth_failures = 3", "[[signaling]]\npath = \"/ws/\"\nupstream = [\"http://"+refused+"/\"]\n"+
		"[[logger]]\npath = \"/logger/\"\nspool = \"1MiB\"\nupstream = [\"http://"+refused+"/\"]")
	good, err := os.ReadFile(g.file())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.file(), append(good, "\n[turn.limts]\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := g.reload(); err == nil {
		t.Fatal("a bad file was accepted")
	}
	if err := os.WriteFile(g.file(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	g.check(t, "--ca", g.certFile()) // its requests make the upstream go out, and a report wait
	r, _ := g.check(t, "--ca", g.certFile())
	wantFinding(t, r, doctor.ServiceReload, doctor.Warn, "refused")
	wantFinding(t, r, doctor.ServiceUpstream, doctor.Warn, "refused")
	wantFinding(t, r, doctor.ServiceSpool, doctor.Warn, "/logger")
}

func TestCheckAsMonitoringReadsIt(t *testing.T) {
	g := startGate(t, routesTo(testnet.ClosedAddress(t)))
	var out, stderr bytes.Buffer
	code := run([]string{"check", "--config", g.file(), "--ca", g.certFile(), "--nagios"}, nil, &out, &stderr)
	if code != 2 || strings.Count(out.String(), "\n") != 1 || !strings.HasPrefix(out.String(), "TURNGATE CRITICAL - TG-042 ") || !strings.Contains(out.String(), " | ok=") {
		t.Errorf("code %d:\n%s%s", code, out.String(), stderr.String())
	}
	for _, wrong := range [][]string{{"--nonsense"}, {"--json", "--quiet"}, {"--timeout", "0s"}, {"--from-client", "http://localhost/"}, {"--from-client", "localhost"}, {"--ca", "/nowhere"},
		{"extra"}, {"--from-client", "https://[fe80::1%25lo]/"}, {"--from-client", "https://localhost/", "--wss-path", "ws"}} {
		out.Reset()
		if code := run(append([]string{"check", "--config", g.file()}, wrong...), nil, &out, io.Discard); code != 3 || out.Len() > 0 {
			t.Errorf("check %v: exit code %d and %q, want 3 and nothing", wrong, code, out.String())
		}
	}
	if code := run([]string{"check", "--config", g.file(), "--ca", g.certFile(), "--json"}, nil, fullDisk{}, io.Discard); code != 3 {
		t.Errorf("a report that cannot be written: exit code %d, want 3", code)
	}
	if code := run([]string{"check", "--nagios", "--timeout", "0s"}, nil, &out, io.Discard); code != 3 || !strings.HasPrefix(out.String(), "TURNGATE UNKNOWN - --timeout 0s") {
		t.Errorf("a check that cannot be made: exit code %d and %q, want 3 and UNKNOWN", code, out.String())
	}
	out.Reset()
	if code := run([]string{"explain", "tg42"}, nil, &out, &stderr); code != 0 || !strings.HasPrefix(out.String(), "TG-042  ") {
		t.Errorf("explain: %d %s", code, out.String())
	}
	if code := run([]string{"explain", "TG-999"}, nil, &out, &stderr); code != 2 {
		t.Errorf("explain of what is no code: exit code %d, want 2", code)
	}
}

// From a client the same codes come, without a configuration.
func TestCheckFromAClient(t *testing.T) {
	cloud := checkedCloud(t)
	g := startGate(t, routesTo(cloud.Addr)+"\n[turn.api]\npath = \"/ice\"\ntokens = [\"a-token-of-the-test\"]")
	from := func(args ...string) (doctor.Report, int) {
		return runCheck(t, append([]string{"--from-client", "https://" + g.https.String() + "/", "--turn-port", fmt.Sprint(g.turnUDP.Port()), "--ca", g.certFile()}, args...)...)
	}
	t.Setenv("TURNGATE_PASSWORD", g.password)
	r, code := from("--user", g.user)
	for _, c := range []doctor.Code{doctor.CertOK, doctor.WebOK, doctor.WssOK, doctor.LogOK, doctor.UDPOK, doctor.TCPOK, doctor.TLSOK, doctor.LoopOK, doctor.RefusesOK} {
		wantFinding(t, r, c, doctor.OK)
	}
	if code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	t.Setenv("TURNGATE_PASSWORD", "")
	r, _ = from("--token", "a-token-of-the-test")
	wantFinding(t, r, doctor.UDPOK, doctor.OK)
	r, code = from()
	wantFinding(t, r, doctor.UDPUntested, doctor.Skip, "UDP", "the server answers")
	wantFinding(t, r, doctor.TCPUntested, doctor.Skip, "TCP", "the server answers")
	if code != 0 || !strings.HasSuffix(r.Verdict, "media was not tested.") {
		t.Errorf("without a credential: exit code %d, %q", code, r.Verdict)
	}
	r, code = from("--token", "another")
	wantFinding(t, r, doctor.CredentialMissing, doctor.Fail, "401")
	if code != 2 {
		t.Errorf("exit code %d without a credential, want 2", code)
	}
	r, _ = from("--user", "turn", "--wss-path", "/nowhere/")
	wantFinding(t, r, doctor.WssThrough, doctor.Fail, "404")
	wantFinding(t, r, doctor.UDPLogin, doctor.Fail)
	// A token goes to nobody whose certificate is not trusted.
	r, _ = runCheck(t, "--from-client", "https://"+g.https.String()+"/", "--token", "a-token-of-the-test", "--turn-port", "0")
	wantFinding(t, r, doctor.CredentialMissing, doctor.Fail, "not sent")
	wantFinding(t, r, doctor.CertUntrusted, doctor.Fail)
}

// A link needs no credential and no paths, and the server tells what it saw.
func TestCheckFromAClientWithALink(t *testing.T) {
	cloud := checkedCloud(t)
	refused := testnet.ClosedAddress(t)
	g := startGate(t, routesTo(cloud.Addr)+"[[signaling]]\npath = \"/closed/\"\nupstream = [\"http://"+refused+"/\"]\norigins = [\"https://app.example.com\"]\n")
	link := func() string {
		l, err := g.checkLink("", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return l.URL
	}
	used := link()
	r, code := runCheck(t, "--from-client", used, "--ca", g.certFile())
	for _, c := range []doctor.Code{doctor.CertOK, doctor.WebOK, doctor.UDPOK, doctor.TCPOK, doctor.TLSOK, doctor.LoopOK, doctor.RefusesOK} {
		wantFinding(t, r, c, doctor.OK)
	}
	wantFinding(t, r, doctor.WssOK, doctor.OK, "/ws/", "answered by "+cloud.Addr, "101")
	wantFinding(t, r, doctor.LogOK, doctor.OK, "/logger/", "answered by "+cloud.Addr)
	wantFinding(t, r, doctor.WssBlocked, doctor.Fail, "/closed/", "the server does not reach its upstream "+refused, "refused")
	if code != 2 || r.Verdict != "One signaling route is dead, others work; the media path works." {
		t.Errorf("exit code %d, %q; want 2 and that one route is dead", code, r.Verdict)
	}
	if g.logs.line("check page ended", `"result":"fails"`, `"failed":1`) == "" {
		t.Errorf("no line in the log about the end of the check")
	}
	_, token, _ := strings.Cut(used, "#")
	text, _ := json.Marshal(r)
	if strings.Contains(string(text), token) || strings.Contains(g.logs.String(), token) {
		t.Error("the token is in the report or in the log")
	}

	for _, tt := range []struct {
		name, link, words string
		args              []string
	}{
		{"a link that was used", used, "each works once", []string{"--ca", g.certFile()}},
		{"a link of nobody", strings.TrimSuffix(used, token) + "guess", "does not know this link", []string{"--ca", g.certFile()}},
		{"a page that is none", "https://" + g.https.String() + "/nowhere#guess", "404", []string{"--ca", g.certFile()}},
		{"a server that is not trusted", link(), "not sent", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, code := runCheck(t, append([]string{"--from-client", tt.link, "--turn-port", fmt.Sprint(g.turnUDP.Port())}, tt.args...)...)
			wantFinding(t, r, doctor.CredentialMissing, doctor.Fail, tt.words)
			wantFinding(t, r, doctor.TLSUntested, doctor.Skip, "TLS", "the server answers")
			if p := pathOf(r, "media"); code != 2 || p.Status != doctor.Skip {
				t.Errorf("exit code %d, media %v; want 2, and that nothing is known about media", code, p)
			}
		})
	}
	var out, stderr bytes.Buffer
	if code := run([]string{"check", "--from-client", "http://x/#secret"}, nil, &out, &stderr); code != 3 || strings.Contains(stderr.String(), "secret") {
		t.Errorf("exit code %d, %q; want 3 and no token", code, stderr.String())
	}
}

// Something between client and server, and something behind the server, look the
// same to a client; with a link the server tells which it is.
func TestALinkTellsTheWayFromWhatIsBehindTheServer(t *testing.T) {
	broken := errors.New("no answer")
	route := checkedRoute{path: "/ws/"}
	for _, tt := range []struct {
		name string
		told pages.Result
		err  error
		want doctor.Code
	}{
		{"never arrived", pages.Result{}, broken, doctor.WssNotHere},
		{"never arrived, and answered", pages.Result{}, nil, doctor.WssNotHere},
		{"the answer is lost", pages.Result{Arrived: true, Ended: true, Status: 101, Upstream: "a:443"}, broken, doctor.WssNotBack},
		{"not answered yet", pages.Result{Arrived: true}, broken, doctor.WssBlocked},
		{"upstream not in DNS", pages.Result{Arrived: true, Ended: true, Status: 502, Outcome: "upstream_dns"}, nil, doctor.WssDNS},
		{"upstream inspected", pages.Result{Arrived: true, Ended: true, Status: 502, Outcome: "upstream_tls_issuer"}, nil, doctor.WssIssuer},
		{"upstream expired", pages.Result{Arrived: true, Ended: true, Status: 502, Outcome: "upstream_tls_expired"}, nil, doctor.WssTLS},
		{"company proxy", pages.Result{Arrived: true, Ended: true, Status: 502, Outcome: "upstream_proxy_auth"}, nil, doctor.WssProxy},
		{"upstream silent", pages.Result{Arrived: true, Ended: true, Status: 504, Outcome: "upstream_timeout"}, nil, doctor.WssBlocked},
		{"refused by a rule", pages.Result{Arrived: true, Ended: true, Status: 403, Outcome: "forbidden_client"}, nil, doctor.WssThrough},
		{"answered", pages.Result{Arrived: true, Ended: true, Status: 403, Upstream: "a:443"}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, bad := wssAsks.judge(route, tt.told, tt.err)
			if bad != (tt.want != "") || got.Code != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

func TestTheClockIsComparedWithAnswers(t *testing.T) {
	late := testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		w.Header().Set("Access-Control-Allow-Origin", "*")
	})).Addr
	g := startGate(t, routesTo(late))
	r, _ := g.check(t, "--ca", g.certFile())
	wantFinding(t, r, doctor.ClockOff, doctor.Fail, "ahead of the upstream's", "1h0m")
	if n := len(found(r, doctor.ClockOff)); n != 1 {
		t.Errorf("it is said %d times, want once", n)
	}
	r, _ = runCheck(t, "--from-client", "https://"+g.https.String()+"/", "--ca", g.certFile(), "--turn-port", "0")
	if list := found(r, doctor.ClockOff); len(list) > 0 {
		t.Errorf("from a client with the same clock: %v", list)
	}
}

func TestCheckOfTheScheduler(t *testing.T) {
	cloud := trtccloud.Start(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, cloud.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := testnet.ClosedAddress(t)
	gateTo := func(t *testing.T, schedulers, extra string) *gate {
		var resolve []string
		for _, name := range []string{"signaling.rtc.qq.com", "yun.tim.qq.com"} {
			resolve = append(resolve, fmt.Sprintf("%q = %q", name, cloud.Addr()))
		}
		for _, name := range []string{"schedule.cloud-rtc.com", "schedule.cloud-rtc.net", "schedule.rtc.qcloud.com"} {
			resolve = append(resolve, fmt.Sprintf("%q = %q", name, schedulers))
		}
		return startGateWith(t, "", "", fmt.Sprintf("[upstream]\nca = %q\nresolve = { %s }\n%s", ca, strings.Join(resolve, ", "), extra))
	}
	t.Run("all three ways work", func(t *testing.T) {
		g := gateTo(t, cloud.Addr().String(), "")
		r, _ := g.check(t, "--ca", g.certFile())
		if n := len(found(r, doctor.ScheduleOK)); n != 5 {
			t.Errorf("%d findings %s, want one for each of three schedulers, and for /schedule/ and /u/", n, doctor.ScheduleOK)
		}
		wantFinding(t, r, doctor.ScheduleOK, doctor.OK, "/schedule/: a request through turngate", "readable")
		wantFinding(t, r, doctor.ScheduleOK, doctor.OK, "/u/: a request through turngate", "readable")
		wantFinding(t, r, doctor.WssOK, doctor.OK, "/u/: a handshake through turngate", "101")
		wantFinding(t, r, doctor.LogOK, doctor.OK, "/u/: a request through turngate", "readable")
		link, err := g.checkLink("", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		r, _ = runCheck(t, "--from-client", link.URL, "--ca", g.certFile())
		wantFinding(t, r, doctor.ScheduleOK, doctor.OK, "/schedule/", "answered by schedule.cloud-rtc.com:443")
		wantFinding(t, r, doctor.WssOK, doctor.OK, "/u/", "answered by signaling.rtc.qq.com:443")
		r, _ = runCheck(t, "--from-client", "https://"+g.https.String()+"/", "--ca", g.certFile(), "--schedule-path", "/schedule", "--turn-port", "0")
		wantFinding(t, r, doctor.ScheduleOK, doctor.OK, "/schedule/: a request through turngate")
	})
	t.Run("a dead scheduler is a warning, said once for each", func(t *testing.T) {
		g := gateTo(t, refused, "")
		r, _ := g.check(t, "--ca", g.certFile())
		wantFinding(t, r, doctor.ScheduleBlocked, doctor.Warn, "schedule.cloud-rtc.com", "refused")
		if list := found(r, doctor.ScheduleThrough); len(list) > 0 {
			t.Errorf("the route says the same again: %v", list)
		}
		if p := pathOf(r, "signaling"); p.Status != doctor.Warn {
			t.Errorf("signaling: %v, want a warning", p)
		}
	})
	t.Run("switched off", func(t *testing.T) {
		g := gateTo(t, refused, "[trtc]\nschedule = \"\"\nunified = \"\"\n")
		r, _ := g.check(t, "--ca", g.certFile())
		wantFinding(t, r, doctor.ScheduleUntested, doctor.Skip)
	})
}

func TestWhatIsBlockedMattersLessWhereAnotherWayIsOpen(t *testing.T) {
	door := func(network string, o doctor.Outcome) through {
		return through{turnDoor{name: network, network: network, code: network}, o, []doctor.Finding{doctor.As(doctor.Transport(network, o), "%s", network)}, nil}
	}
	for _, tt := range []struct {
		name          string
		udp, tcp, tls doctor.Outcome
		client        bool
		sum           doctor.Code
		worst         doctor.Status
	}{
		{"all open", doctor.TransportOK, doctor.TransportOK, doctor.TransportOK, true, "", doctor.OK},
		{"UDP blocked", doctor.TransportSilent, doctor.TransportOK, doctor.TransportOK, true, doctor.BlockedUDP, doctor.Warn},
		{"only TLS open", doctor.TransportSilent, doctor.TransportRefused, doctor.TransportOK, true, doctor.BlockedUDP, doctor.Warn},
		{"all blocked", doctor.TransportSilent, doctor.TransportSilent, doctor.TransportTLS, true, doctor.BlockedMedia, doctor.Fail},
		{"UDP blocked, no credential", doctor.TransportSilent, doctor.TransportUntested, doctor.TransportUntested, true, doctor.BlockedUDP, doctor.Warn},
		{"a wrong password is no firewall", doctor.TransportLogin, doctor.TransportLogin, doctor.TransportLogin, true, "", doctor.Fail},
		{"on the server itself UDP must work", doctor.TransportSilent, doctor.TransportOK, doctor.TransportOK, false, "", doctor.Fail},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := checkedTURN{client: tt.client}
			got := c.judge([]through{door("udp", tt.udp), door("tcp", tt.tcp), door("tls", tt.tls)})
			if w := doctor.Worst(got); w != tt.worst {
				t.Errorf("worst: got %v, want %v", w, tt.worst)
			}
			has := slices.ContainsFunc(got, func(f doctor.Finding) bool { return f.Code == tt.sum })
			if tt.sum != "" && !has || tt.sum == "" && len(got) != 3 {
				t.Errorf("got %v, want the sum %q", got, tt.sum)
			}
		})
	}
}
