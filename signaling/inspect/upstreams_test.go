package inspect

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/signaling/entry"
)

// where opens a WebSocket and returns the upstream that got it.
func (h *harness) where(t testing.TB, target, client string) string {
	t.Helper()
	c := h.open(t, target, http.Header{"X-Forwarded-For": {client}})
	defer c.Close()
	s := h.Sessions()
	return s[len(s)-1].Upstream
}

// eventually waits until ok, which it asks again and again.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// saying is an upstream that gives every connection this answer to its request.
func saying(t testing.TB, answer string) *testnet.Upstream {
	return testnet.RawUpstream(t, nil, func(c net.Conn) {
		var head [4096]byte
		_, _ = c.Read(head[:])
		_, _ = io.WriteString(c, answer)
	})
}

var behindProxy = proxy.HeaderPolicy{Trust: proxy.Trust{netip.MustParsePrefix("127.0.0.1/32")}}

func TestBalanceByKey(t *testing.T) {
	var urls []string
	for range 4 {
		urls = append(urls, newUpstream(t, websocket.Upgrader{}).url())
	}
	h := serve(t, Route{Route: entry.Route{Path: "/ip", Upstreams: urls, Balance: "client_ip", Headers: behindProxy}},
		Route{Route: entry.Route{Path: "/user", Upstreams: urls, Balance: "query:userId", Headers: behindProxy}},
		Route{Route: entry.Route{Path: "/order", Upstreams: urls, Headers: behindProxy}})
	for _, tt := range []struct {
		name        string
		target      func(i int) string
		client      func(i int) string
		least, most int // upstreams in use
	}{
		{"clients of one /24", func(int) string { return "/ip" }, func(i int) string { return fmt.Sprintf("203.0.113.%d", i) }, 2, 4},
		{"clients of many IPv6 /64", func(int) string { return "/ip" }, func(i int) string { return fmt.Sprintf("2001:db8:0:%x::1", i) }, 2, 4},
		{"one IPv6 /64", func(int) string { return "/ip" }, func(i int) string { return fmt.Sprintf("2001:db8::%x", i) }, 1, 1},
		{"users behind one address", func(i int) string { return fmt.Sprintf("/user?userId=u%d", i) }, func(int) string { return "203.0.113.7" }, 2, 4},
		{"no user", func(int) string { return "/user" }, func(int) string { return "203.0.113.7" }, 1, 1},
		{"two users in one query", func(i int) string { return fmt.Sprintf("/user?userId=a&userId=%d", i) }, func(int) string { return "203.0.113.7" }, 1, 1},
		{"in order", func(int) string { return "/order" }, func(i int) string { return fmt.Sprintf("203.0.113.%d", i) }, 1, 1},
	} {
		used := map[string]bool{}
		for i := range 20 {
			used[h.where(t, tt.target(i), tt.client(i))] = true
		}
		if len(used) < tt.least || len(used) > tt.most {
			t.Errorf("%s: %d upstreams in use, want %d to %d", tt.name, len(used), tt.least, tt.most)
		}
	}
}

func TestWeightsOverRealSessions(t *testing.T) {
	light, heavy, off := newUpstream(t, websocket.Upgrader{}), newUpstream(t, websocket.Upgrader{}), newUpstream(t, websocket.Upgrader{})
	h := serve(t, Route{Route: entry.Route{Path: "/", Balance: "least_connections", Targets: []proxy.Target{
		{URL: light.url(), Weight: 1}, {URL: heavy.url(), Weight: 3}, {URL: off.url(), Off: true}}}})
	var open []*peer
	for range 8 {
		open = append(open, h.open(t, "/", nil))
	}
	counts := func() (n []int) {
		for _, u := range h.Upstreams() {
			n = append(n, u.Connections)
		}
		return n
	}
	if got := counts(); got[0] != 2 || got[1] != 6 || got[2] != 0 {
		t.Errorf("connections %v, want 2, 6 and none", got)
	}
	for _, c := range open {
		c.Close()
	}
	h.vacant(t)
	eventually(t, "no connection counted", func() bool { n := counts(); return n[0]+n[1] == 0 })
}

func TestUpstreamThatDoesNotAnswerIsPassedOver(t *testing.T) {
	good := newUpstream(t, websocket.Upgrader{})
	silent := testnet.RawUpstream(t, nil, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	for name, tt := range map[string]struct {
		bad string
		out bool // it is passed over from then on
	}{
		"refuses":                {testnet.ClosedAddress(t), true},
		"is silent":              {silent.Addr, true},
		"hangs up":               {saying(t, "").Addr, false},
		"hangs up amid the head": {saying(t, "HTTP/1.1 101 Swit").Addr, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, Route{Route: entry.Route{Path: "/", Upstreams: []string{"http://" + tt.bad, good.url()}, HandshakeTimeout: 3 * time.Second}})
			if got := h.where(t, "/", "x"); got != good.Addr {
				t.Errorf("the client is at %s, want the next upstream %s", got, good.Addr)
			}
			if up := h.Upstreams()[0].Up; up == tt.out {
				t.Errorf("up %v afterwards, want %v", up, !tt.out)
			}
		})
	}
}

func TestAnswerThatIsNoWebSocketEndsTheSearch(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string
		status int
	}{
		"not HTTP":            {"SSH-2.0-x\r\n", 502},
		"a wrong accept":      {"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n", 502},
		"101 and nothing":     {"HTTP/1.1 101 X\r\n\r\n", 502},
		"another subprotocol": {"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: x\r\n\r\n", 502},
		"a refusal":           {"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", 403},
		"a redirect":          {"HTTP/1.1 302 Away\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n", 302},
		"a busy server":       {"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", 503},
	} {
		t.Run(name, func(t *testing.T) {
			good := newUpstream(t, websocket.Upgrader{})
			h := serve(t, Route{Route: entry.Route{Path: "/", Upstreams: []string{"http://" + saying(t, tt.answer).Addr, good.url()}}})
			if status, _ := h.refused(t, "/", nil); status != tt.status {
				t.Errorf("the client gets %d, want %d", status, tt.status)
			}
			if n := good.Conns.Load(); n != 0 {
				t.Errorf("%d connections to the next upstream, want none", n)
			}
			// One client's bad luck is not everybody's.
			if !h.Upstreams()[0].Up {
				t.Error("the upstream is out")
			}
		})
	}
}

func TestBackupsAndActiveChecks(t *testing.T) {
	for _, kind := range []string{entry.CheckConnect, entry.CheckWebSocket} {
		t.Run(kind, func(t *testing.T) {
			main, backup := newUpstream(t, websocket.Upgrader{}), newUpstream(t, websocket.Upgrader{})
			var sick atomic.Bool
			front := testnet.RawUpstream(t, nil, func(c net.Conn) {
				if sick.Load() {
					return
				}
				to, err := net.Dial("tcp", main.Addr)
				if err != nil {
					return
				}
				defer to.Close()
				go func() { _, _ = io.Copy(to, c); to.Close() }()
				_, _ = io.Copy(c, to)
			})
			first := "http://" + front.Addr
			if kind == entry.CheckConnect {
				first = "https://" + saying(t, "").Addr // TLS tells a server from whoever accepts
			}
			rt := Route{Route: entry.Route{Path: "/", Targets: []proxy.Target{{URL: first}, {URL: backup.url(), Backup: true}},
				HandshakeTimeout: 3 * time.Second, Check: entry.HealthCheck{Kind: kind, Interval: 20 * time.Millisecond}}}
			h := serve(t, rt)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = h.Serve(ctx) }()
			t.Cleanup(func() { cancel(); <-done })
			if kind == entry.CheckWebSocket {
				if got := h.where(t, "/", "x"); got != front.Addr {
					t.Errorf("the client is at %s, want the main one %s", got, front.Addr)
				}
				sick.Store(true)
			}
			eventually(t, "out", func() bool { return !h.Upstreams()[0].Up })
			if got := h.where(t, "/", "x"); got != backup.Addr {
				t.Errorf("the main one is out, the client is at %s, want the backup %s", got, backup.Addr)
			}
			if kind == entry.CheckWebSocket {
				sick.Store(false)
				eventually(t, "back", func() bool { return h.Upstreams()[0].Up })
				if got := h.where(t, "/", "x"); got != front.Addr {
					t.Errorf("the main one is back, the client is at %s", got)
				}
			}
			registry := prometheus.NewRegistry()
			registry.MustRegister(h.Collectors()...)
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]int{}
			for _, f := range families {
				seen[f.GetName()] = len(f.GetMetric())
			}
			if seen["turngate_inspect_upstream_up"] != 2 || seen["turngate_inspect_upstream_connections"] != 2 || seen["turngate_inspect_upstream_checks_total"] == 0 {
				t.Errorf("metrics %v, want the state of both upstreams and the checks", seen)
			}
		})
	}
}

func TestSilenceTowardsStrangers(t *testing.T) {
	good := newUpstream(t, websocket.Upgrader{})
	refusing := saying(t, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
	for name, change := range map[string]func(*Route){
		"an address that is not listed": func(rt *Route) {
			rt.Clients, rt.Silent.Clients = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, true
		},
		"over the limit":        func(rt *Route) { rt.MaxPerAddress, rt.Silent.Limit = 1, true },
		"an upstream's refusal": func(rt *Route) { rt.Upstreams, rt.Silent.Errors = []string{"http://" + refusing.Addr}, true },
	} {
		t.Run(name, func(t *testing.T) {
			rt := plainRoute(good)
			change(&rt)
			h := serve(t, rt)
			if rt.MaxPerAddress > 0 {
				h.open(t, "/", nil)
			}
			_, resp, err := h.try(t, "/", nil)
			if err == nil || resp != nil {
				t.Errorf("answer %v, %v; want the end of the connection and nothing else", resp, err)
			}
		})
	}
}

// Who holds connections, and what is known about upstreams, outlives a reload.
func TestReloadForgetsNothing(t *testing.T) {
	good := newUpstream(t, websocket.Upgrader{})
	rt := Route{Route: entry.Route{Path: "/", Upstreams: []string{"http://" + testnet.ClosedAddress(t), good.url()}, MaxPerAddress: 2}}
	h := serve(t, rt)
	first := h.open(t, "/", nil)
	far := good.next(t)
	if h.Upstreams()[0].Up {
		t.Error("an upstream that refuses is up")
	}
	if err := h.Reconfigure(Options{Routes: []Route{rt}}); err != nil {
		t.Fatal(err)
	}
	if h.Upstreams()[0].Up || h.Upstreams()[1].Connections != 1 {
		t.Errorf("after a reload: %+v, want one out and one connection", h.Upstreams())
	}
	h.open(t, "/", nil)
	if status, _ := h.refused(t, "/", nil); status != 429 {
		t.Errorf("a third connection: %d, want 429", status)
	}
	first.say("still here")
	far.hears("still here")
	if log := h.logs.String(); strings.Count(log, `msg="upstream down"`) != 1 {
		t.Errorf("log has not one line about the upstream that is out:\n%s", log)
	}
}
