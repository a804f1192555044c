package signaling

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/signaling/entry"
)

// eventually waits until ok, which it asks again and again.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// running serves the checks of h until the test ends.
func (h *harness) running(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// moody is an upstream that answers every connection in the mood of the moment.
type moody struct {
	*testnet.Upstream
	mood   atomic.Int32
	checks atomic.Int32 // requests of turngate itself
	closed chan string  // what came behind a handshake of a check
}

const (
	fine int32 = iota
	busy       // 503
	mute
)

func newMoody(t testing.TB) *moody {
	m := &moody{closed: make(chan string, 1000)}
	m.Upstream = testnet.RawUpstream(t, nil, func(c net.Conn) {
		w := newWire(t, c)
		w.t = quiet{t}
		head := w.head()
		if strings.Contains(head, "User-Agent: turngate\r\n") {
			m.checks.Add(1)
		}
		switch m.mood.Load() {
		case busy:
			_, _ = io.WriteString(c, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
		case fine:
			_, key, _ := strings.Cut(head, "Sec-WebSocket-Key: ")
			key, _, _ = strings.Cut(key, "\r\n")
			_, _ = io.WriteString(c, switching(key))
		}
		rest, _ := io.ReadAll(w.r)
		m.closed <- head + string(rest)
	})
	return m
}

func (h *harness) up(i int) bool { return h.Upstreams()[i].Up }

func checkedRoute(kind string, urls ...string) Route {
	return Route{Route: entry.Route{Path: "/ws", Upstreams: urls, HandshakeTimeout: 3 * time.Second, Check: entry.HealthCheck{Kind: kind, Interval: 20 * time.Millisecond, Path: "/health?deep"}}}
}

func TestWebSocketChecks(t *testing.T) {
	t.Parallel()
	m, other := newMoody(t), newMoody(t)
	rt := checkedRoute(entry.CheckWebSocket, "http://"+m.Addr+"/base", "http://"+other.Addr)
	field, _ := proxy.ParseField("X-Key", "let me in")
	rt.Headers.Add = []proxy.Field{field}
	h := serve(t, Options{Routes: []Route{rt}})
	h.running(t)
	eventually(t, "three checks", func() bool { return m.checks.Load() > 3 })
	got := <-m.closed
	if !strings.HasPrefix(got, "GET /base/health?deep HTTP/1.1\r\nHost: "+m.Addr+"\r\n") || !strings.Contains(got, "X-Key: let me in\r\n") {
		t.Errorf("a check asks %q", got)
	}
	if !strings.HasSuffix(got, "\r\n\r\n\x88\x82\x00\x00\x00\x00\x03\xe8") {
		t.Errorf("a check ends with %q, want Close 1000", got)
	}
	for _, mood := range []int32{busy, mute} {
		m.mood.Store(mood)
		eventually(t, "out", func() bool { return !h.up(0) })
		w := h.upgrade(t, "/ws")
		if s := h.Sessions(); len(s) != 1 || s[0].Upstream != other.Addr {
			t.Errorf("sessions %+v, want one to %s", s, other.Addr)
		}
		w.Close()
		h.vacant(t)
		m.mood.Store(fine)
		eventually(t, "back", func() bool { return h.up(0) })
	}
	// The state changes first, and then there is a line about it.
	said := func(what string) int { return strings.Count(h.logs.String(), what) }
	eventually(t, "two lines about going down and two about coming back", func() bool {
		return said(`msg="upstream down"`) == 2 && said(`msg="upstream up"`) == 2
	})
	logs := h.logs.String()
	if m.checks.Load() == 0 || strings.Contains(logs, "session opened session=3") {
		t.Error("a check is taken for a client")
	}
}

func TestConnectChecks(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", testnet.FreePort(t))
	h := serve(t, Options{Routes: []Route{checkedRoute(entry.CheckConnect, "http://"+addr)}})
	h.running(t)
	eventually(t, "out", func() bool { return !h.up(0) })
	if u := h.Upstreams()[0]; u.Cause != proxy.CauseRefused || u.Since.IsZero() || u.Checked != entry.CheckConnect {
		t.Errorf("%+v, want it out, refused, since a time", u)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("the port that was free: %v", err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	eventually(t, "back", func() bool { return h.up(0) })
}

// TLS belongs to a connection: a port that is open with a wrong certificate is no upstream.
func TestConnectChecksVerifyTheCertificate(t *testing.T) {
	ca := testnet.NewCA(t, "Root")
	b := testnet.NewUpstream(t, ca.Issue(t, "127.0.0.1"), nil)
	h := serve(t, Options{Routes: []Route{checkedRoute(entry.CheckConnect, "https://"+b.Addr)}})
	h.running(t)
	eventually(t, "out", func() bool { return !h.up(0) })
	if u := h.Upstreams()[0]; u.Cause != proxy.CauseIssuer {
		t.Errorf("cause %q, want tls_issuer", u.Cause)
	}
}

// A reload forgets nothing about an upstream that stays, follows the rest, and a Serve
// that ends leaves no check behind (see TestMain).
func TestReloadKeepsWhatIsKnown(t *testing.T) {
	t.Parallel()
	good, other := newMoody(t), newMoody(t)
	bad := testnet.ClosedAddress(t)
	rt := checkedRoute(entry.CheckWebSocket, "http://"+bad, "http://"+good.Addr)
	h := serve(t, Options{Routes: []Route{rt}})
	h.running(t)
	eventually(t, "out", func() bool { return !h.up(0) })
	before := h.Upstreams()[0].Since
	for i := range 50 {
		again := checkedRoute(entry.CheckWebSocket, "http://"+bad, "http://"+good.Addr)
		again.MaxPerAddress = i + 1
		if err := h.Reconfigure(Options{Routes: []Route{again}}); err != nil {
			t.Fatal(err)
		}
		if h.up(0) || !h.up(1) || !h.Upstreams()[0].Since.Equal(before) {
			t.Fatalf("after reload %d: %+v", i, h.Upstreams())
		}
	}
	if n := strings.Count(h.logs.String(), "upstream "); n != 1 {
		t.Errorf("%d lines about upstreams, want one:\n%s", n, h.logs)
	}
	next := checkedRoute(entry.CheckWebSocket, "http://"+other.Addr)
	if err := h.Reconfigure(Options{Routes: []Route{next}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "checks of the new one", func() bool { return other.checks.Load() > 2 })
	n := good.checks.Load()
	eventually(t, "more checks of the new one", func() bool { return other.checks.Load() > 5 })
	if good.checks.Load() > n+1 {
		t.Error("an upstream that is gone is still checked")
	}
	none := next
	none.Check = entry.HealthCheck{}
	if err := h.Reconfigure(Options{Routes: []Route{none}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last check", func() bool {
		n := other.checks.Load()
		time.Sleep(20 * time.Millisecond)
		return n == other.checks.Load()
	})
}

func TestChecksAreRefused(t *testing.T) {
	for name, c := range map[string]entry.HealthCheck{
		"an unknown kind":       {Kind: "ping"},
		"a negative interval":   {Kind: entry.CheckConnect, Interval: -1},
		"a negative number":     {Kind: entry.CheckConnect, Rise: -1},
		"a path with dots":      {Kind: entry.CheckWebSocket, Path: "/../x"},
		"a path without a root": {Kind: entry.CheckWebSocket, Path: "x"},
	} {
		if _, err := New(Options{Routes: []Route{{Route: entry.Route{Path: "/", Upstreams: []string{"http://a"}, Check: c}}}}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(Options{Routes: []Route{{Route: entry.Route{Path: "/", Upstreams: []string{"http://a"}, Balance: "query:"}}}}); err == nil {
		t.Error("a balance by no parameter: no error")
	}
}

func TestMetricsOfUpstreams(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	rt := Route{Route: entry.Route{Path: "/ws", Targets: []proxy.Target{
		{URL: "http://127.0.0.1:1/a"}, {URL: "http://" + b.Addr, Backup: true}, {URL: "http://127.0.0.1:2", Off: true}}}}
	h := serve(t, Options{Routes: []Route{rt}})
	h.upgrade(t, "/ws") // by the backup
	got := map[string]float64{}
	families := gather(t, h.Server)
	for _, m := range families["turngate_signaling_upstream_up"] {
		got[label(m, "route")+" "+label(m, "upstream")+" "+label(m, "backup")] = m.GetGauge().GetValue()
	}
	want := map[string]float64{"/ws http://127.0.0.1:1/a false": 0, "/ws http://" + b.Addr + " true": 1}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Errorf("%s: %v, want %v", k, g, v)
		}
	}
	if n := len(families["turngate_signaling_upstream_connections"]); n != 3 {
		t.Errorf("%d gauges of connections, want 3", n)
	}
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// Balance by the client's address, over real connections: every client of one /24 would
// have one upstream with nginx's ip_hash.
func TestClientsOfOneNetworkAreSpread(t *testing.T) {
	var urls []string
	for range 4 {
		m := newMoody(t)
		urls = append(urls, "http://"+m.Addr)
	}
	byIP := Route{Route: entry.Route{Path: "/ip", Upstreams: urls, Balance: "client_ip"}}
	byUser := Route{Route: entry.Route{Path: "/user", Upstreams: urls, Balance: "query:userId"}}
	for _, rt := range []*Route{&byIP, &byUser} {
		rt.Headers.Trust = proxy.Trust{netip.MustParsePrefix("127.0.0.1/32")}
	}
	h := serve(t, Options{Routes: []Route{byIP, byUser}})
	ask := func(target, client string) string {
		t.Helper()
		w := h.dial(t)
		defer w.Close()
		w.send(request(target, "X-Forwarded-For: "+client+"\r\n"))
		if head := w.head(); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
			t.Fatalf("%s for %s: %q", target, client, head)
		}
		s := h.Sessions()
		return s[len(s)-1].Upstream
	}
	for _, tt := range []struct {
		name   string
		target func(i int) string
		client func(i int) string
		want   int // upstreams in use, at least
		most   int
	}{
		{"clients of one /24", func(int) string { return "/ip" }, func(i int) string { return netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}).String() }, 2, 4},
		{"clients of many IPv6 /64", func(int) string { return "/ip" }, func(i int) string { return fmt.Sprintf("2001:db8:0:%x::1", i) }, 2, 4},
		{"one IPv6 /64", func(int) string { return "/ip" }, func(i int) string { return fmt.Sprintf("2001:db8::%x", i) }, 1, 1},
		{"users behind one address", func(i int) string { return "/user?userId=u" + string(rune('a'+i)) }, func(int) string { return "203.0.113.7" }, 2, 4},
		{"no user", func(int) string { return "/user" }, func(int) string { return "203.0.113.7" }, 1, 1},
		{"two users in one query", func(i int) string { return "/user?userId=a&userId=" + string(rune('a'+i)) }, func(int) string { return "203.0.113.7" }, 1, 1},
	} {
		used := map[string]bool{}
		for i := range 20 {
			used[ask(tt.target(i), tt.client(i))] = true
		}
		if len(used) < tt.want || len(used) > tt.most {
			t.Errorf("%s: %d upstreams in use, want %d to %d", tt.name, len(used), tt.want, tt.most)
		}
	}
}

func TestLeastConnectionsOverRealSessions(t *testing.T) {
	a, b := newMoody(t), newMoody(t)
	h := serve(t, Options{Routes: []Route{{Route: entry.Route{Path: "/ws", Balance: "least_connections", Upstreams: []string{"http://" + a.Addr, "http://" + b.Addr}}}}})
	var open []*wire
	for range 6 {
		open = append(open, h.upgrade(t, "/ws"))
	}
	if u := h.Upstreams(); u[0].Connections != 3 || u[1].Connections != 3 {
		t.Errorf("%d and %d connections, want three each", u[0].Connections, u[1].Connections)
	}
	for _, w := range open {
		w.Close()
	}
	h.vacant(t)
	eventually(t, "no connection counted", func() bool { u := h.Upstreams(); return u[0].Connections+u[1].Connections == 0 })
}

// The backup is for when every main one is out, and no longer.
func TestBackupIsForWhenAllElseIsOut(t *testing.T) {
	t.Parallel()
	main, backup := newMoody(t), newMoody(t)
	rt := checkedRoute(entry.CheckWebSocket)
	rt.Upstreams = nil
	rt.Targets = []proxy.Target{{URL: "http://" + backup.Addr, Backup: true}, {URL: "http://" + main.Addr}, {URL: "http://" + testnet.ClosedAddress(t)}}
	h := serve(t, Options{Routes: []Route{rt}})
	h.running(t)
	where := func() string {
		w := h.upgrade(t, "/ws")
		defer w.Close()
		s := h.Sessions()
		return s[len(s)-1].Upstream
	}
	if got := where(); got != main.Addr {
		t.Errorf("main %s is up, the client is sent to %s", main.Addr, got)
	}
	main.mood.Store(mute)
	eventually(t, "out", func() bool { return !h.up(1) })
	if got := where(); got != backup.Addr {
		t.Errorf("main ones are out, the client is sent to %s", got)
	}
	main.mood.Store(fine)
	eventually(t, "back", func() bool { return h.up(1) })
	if got := where(); got != main.Addr {
		t.Errorf("main is back, the client is sent to %s", got)
	}
}

// gather reads the metrics of a server, by name.
func gather(t *testing.T, s *Server) map[string][]*dto.Metric {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]*dto.Metric{}
	for _, f := range families {
		got[f.GetName()] = f.GetMetric()
	}
	return got
}
