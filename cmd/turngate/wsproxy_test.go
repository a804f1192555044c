package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/turngate/turngate/internal/testnet"
)

func TestWsProxyVariables(t *testing.T) {
	for _, c := range []struct {
		name, port, pool string
		wantPort         uint16
		wantPool         int
		wantErr          string
	}{
		{"nothing set", "", "", 4000, 100, ""},
		{"both set", "8080", "2", 8080, 2, ""},
		{"a port that is no number", "http", "", 0, 0, `WSPROXY_PORT is "http"`},
		{"a port out of range", "65536", "", 0, 0, "WSPROXY_PORT"},
		{"port zero", "0", "", 0, 0, "WSPROXY_PORT"},
		{"a negative pool", "", "-1", 0, 0, "WSPROXY_WEBHOOK_POOL_SIZE"},
		{"a pool of none", "", "0", 0, 0, "WSPROXY_WEBHOOK_POOL_SIZE"},
		{"a pool with a unit", "", "100k", 0, 0, "WSPROXY_WEBHOOK_POOL_SIZE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			vars := map[string]string{"WSPROXY_PORT": c.port, "WSPROXY_WEBHOOK_POOL_SIZE": c.pool}
			port, pool, err := wsProxyEnv(func(name string) string { return vars[name] })
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) {
					t.Errorf("got %v, want an error with %q", err, c.wantErr)
				}
				return
			}
			if err != nil || port != c.wantPort || pool != c.wantPool {
				t.Errorf("got %d, %d, %v, want %d, %d", port, pool, err, c.wantPort, c.wantPool)
			}
		})
	}
}

// startWsProxy serves until the test ends or stop is called, which waits.
func startWsProxy(t *testing.T, p *wsProxy) (addr string, stop func()) {
	t.Helper()
	if p.max == 0 {
		p.max = 64 << 20
	}
	p.poolSize = 100
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	now := make(chan struct{})
	go func() { served <- p.serve(ctx, now, ln, slog.New(slog.DiscardHandler)) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

func TestWsProxyOnThisHostNeedsNoFlags(t *testing.T) {
	hook := testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut || r.RequestURI != "/room?x=1" || r.Header.Get("Key") != "v=1" {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	far := testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, data, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, append([]byte(r.RequestURI+" "), data...)) != nil {
				return
			}
		}
	}))
	var trust []netip.Prefix
	for _, s := range closeToHome {
		trust = append(trust, netip.MustParsePrefix(s))
	}
	addr, stop := startWsProxy(t, &wsProxy{trust: trust})
	c, _, err := websocket.DefaultDialer.Dial("ws://"+addr+"/room?x=1", http.Header{
		"X-Wsproxy-Upstream":            {"ws://" + far.Addr + "/ignored"},
		"X-Wsproxy-Inboundhook":         {"http://" + hook.Addr + "/ignored?too"},
		"X-Wsproxy-Inboundhook-Method":  {"put"},
		"X-Wsproxy-Inboundhook-Headers": {"Key=v=1,Other=2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if err := c.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.ReadMessage(); err != nil || string(got) != "/room?x=1 hello" {
		t.Errorf("got %q %v, want the client's path and the message", got, err)
	}
	closed := make(chan *websocket.CloseError, 1)
	go func() { _, ce := closeOf(c); closed <- ce }()
	stop()
	if ce := <-closed; ce.Code != 1012 {
		t.Errorf("stopped: %v, want 1012", ce)
	}
}

func TestWsProxyRefusesStrangersAndTargets(t *testing.T) {
	far := testnet.PlainUpstream(t, http.NotFoundHandler())
	for _, c := range []struct {
		name string
		p    *wsProxy
		want int
	}{
		{"a peer that is not trusted", &wsProxy{trust: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, 403},
		{"a target that is not listed", &wsProxy{trust: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, targets: []string{"*"}}, 403},
		{"a target that is listed", &wsProxy{trust: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, targets: []string{"127.0.0.1"}}, 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, _ := startWsProxy(t, c.p)
			_, res, err := websocket.DefaultDialer.Dial("ws://"+addr+"/", http.Header{"X-Wsproxy-Upstream": {"ws://" + far.Addr}})
			if err == nil || res.StatusCode != c.want {
				t.Errorf("got %v, want %d", err, c.want)
			}
		})
	}
}
