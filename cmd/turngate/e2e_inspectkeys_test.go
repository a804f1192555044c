package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/turngate/turngate/internal/testnet"
)

// asked is what a hook was sent.
type asked struct {
	*http.Request
	body string
}

// recordingHook is a hook that hands on what it is asked.
func recordingHook(t *testing.T, answer func(w http.ResponseWriter)) (string, <-chan asked) {
	calls := make(chan asked, 16)
	u := testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		calls <- asked{r, string(body)}
		answer(w)
	}))
	return "http://" + u.Addr + "/decide", calls
}

// What the file says of an inspected route is what its connections meet.
func TestKeysOfAnInspectedRoute(t *testing.T) {
	f := startFar(t)
	forwards, _ := recordingHook(t, func(http.ResponseWriter) {})
	silent := testnet.RawUpstream(t, nil, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	text := func(n int) []byte { return []byte(strings.Repeat("x", n)) }
	for _, tt := range []struct {
		name, keys string
		send       []byte // nothing: the client is silent
		kind       int
		code       int // 0: the message comes back
		reason     string
	}{
		{"a message within max_message", "max_message = \"1KiB\"", text(1024), websocket.TextMessage, 0, ""},
		{"a message over max_message", "max_message = \"1KiB\"", text(1025), websocket.TextMessage, 1009, "message too big"},
		{"an answer over max_upstream_message", "max_upstream_message = \"1KiB\"", text(1025), websocket.TextMessage, 1011, "upstream: message too big"},
		{"text that is not UTF-8", "", []byte("a\xff"), websocket.TextMessage, 1007, "text is not UTF-8"},
		{"text that need not be UTF-8", "validate_utf8 = false", []byte("a\xff"), websocket.TextMessage, 0, ""},
		{"silence over idle_timeout", "idle_timeout = \"1s\"", nil, 0, 1000, "idle"},
		{"binary without a hook", "", text(9), websocket.BinaryMessage, 0, ""},
		{"binary before a hook", "hook.inbound.url = \"" + forwards + "\"", text(9), websocket.BinaryMessage, 1008, "message denied"},
		{"binary before a hook that does not look", "hook.inbound = { url = \"" + forwards + "\", binary = \"forward\" }", text(9), websocket.BinaryMessage, 0, ""},
		{"a hook that is away", "hook.inbound.url = \"http://" + testnet.ClosedAddress(t) + "/\"", text(9), websocket.TextMessage, 1011, "hook failed"},
		{"a hook that may be away", "hook.inbound = { url = \"http://" + testnet.ClosedAddress(t) + "/\", on_error = \"forward\" }", text(9), websocket.TextMessage, 0, ""},
		{"a hook over its timeout", "hook.outbound = { url = \"http://" + silent.Addr + "/\", timeout = \"200ms\" }", text(9), websocket.TextMessage, 1011, "hook timed out"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := startGate(t, f.config(t)+"\n[[signaling]]\npath = \"/chat\"\nmode = \"inspect\"\nupstream = [\"https://signaling.rtc.qq.com/\"]\n"+tt.keys+"\n")
			c := g.wss(t, "/chat")
			if tt.code == 0 {
				if err := echoes(c, tt.kind, tt.send); err != nil {
					t.Error(err)
				}
				return
			}
			if tt.send != nil {
				if err := c.WriteMessage(tt.kind, tt.send); err != nil {
					t.Fatal(err)
				}
			}
			if _, ce := closeOf(c); ce.Code != tt.code || ce.Text != tt.reason {
				t.Errorf("got %v, want %d %s", ce, tt.code, tt.reason)
			}
		})
	}
}

// A request to a hook is what the file makes it, and its answer counts as the file lets it.
func TestKeysOfAHook(t *testing.T) {
	f := startFar(t)
	hook, calls := recordingHook(t, func(w http.ResponseWriter) {
		w.Header().Set("X-Turngate-Action", "replace")
		_, _ = io.WriteString(w, "instead")
	})
	batches, lists := recordingHook(t, func(http.ResponseWriter) {})
	g := startGate(t, f.config(t)+fmt.Sprintf(`
[[signaling]]
path = "/one"
upstream = ["https://signaling.rtc.qq.com/"]
[signaling.hook.inbound]
url = %q
method = "PUT"
headers = { Authorization = "Bearer of the test" }
rewrite = true
keys = { "2026-11" = "the new secret of the hook", "2026-10" = "the old secret of the hook" }

[[signaling]]
path = "/many"
upstream = ["https://signaling.rtc.qq.com/"]
[signaling.hook.inbound]
url = %q
batch_messages = 2
batch_delay = "20s"
`, hook, batches))
	c := g.wss(t, "/one")
	if err := c.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.ReadMessage(); err != nil || string(got) != "instead" {
		t.Errorf("got %q, %v; want what the hook put in its place", got, err)
	}
	r := <-calls
	if r.Method != "PUT" || r.RequestURI != "/decide" || r.body != "hello" || r.Header.Get("Authorization") != "Bearer of the test" ||
		r.Header.Get("X-Turngate-Route") != "/one" || r.Header.Get("X-Turngate-Client-Ip") != "127.0.0.1" {
		t.Errorf("the hook was asked %s %s %q with %v", r.Method, r.RequestURI, r.body, r.Header)
	}
	if s := r.Header.Get("X-Turngate-Signature"); strings.Count(s, ",keyid=2026-1") != 2 || strings.Count(s, ",sha256=") != 2 {
		t.Errorf("signature %q, want that of both keys", s)
	}
	if log := g.logs.String(); strings.Contains(log, "secret of the hook") || strings.Contains(log, "Bearer of the test") {
		t.Error("a secret of the hook is in the log")
	}

	c = g.wss(t, "/many")
	for _, text := range []string{"first", "second"} {
		if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"first", "second"} {
		if _, got, err := c.ReadMessage(); err != nil || string(got) != want {
			t.Errorf("got %q, %v; want %s", got, err, want)
		}
	}
	var list []struct{ Data string }
	if r := <-lists; json.Unmarshal([]byte(r.body), &list) != nil || len(list) != 2 || list[1].Data != "second" {
		t.Errorf("the hook was asked %q, want a list of both", r.body)
	}
}

// With mode = "headers" the headers of listed peers steer, and nobody else's.
func TestHeadersThatSteerThroughTheFile(t *testing.T) {
	f := startFar(t)
	named := testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.WriteMessage(websocket.TextMessage, []byte(r.RequestURI))
		_, _, _ = conn.ReadMessage()
	}))
	const trusted = "trusted_peers = [\"127.0.0.1\"]\n"
	for _, tt := range []struct {
		name, keys string
		header     [2]string
		status     int
		steered    bool
	}{
		{"a trusted peer", trusted + "targets = [\"127.0.0.1\"]", [2]string{}, 101, true},
		{"a target that is not listed", trusted + "targets = [\"*.example.com\"]", [2]string{}, 403, false},
		{"loopback is not in everything", trusted + "targets = [\"*\"]", [2]string{}, 403, false},
		{"a hook that is not listed", trusted + fmt.Sprintf("targets = [\"127.0.0.1:%s\"]", named.Port()), [2]string{"X-Wsproxy-Inboundhook", "http://127.0.0.1:1/"}, 403, false},
		{"an option that is none", trusted + "targets = [\"127.0.0.1\"]", [2]string{"X-Wsproxy-Idletimeout", "-5"}, 400, false},
		{"a frame size above the route's", trusted + "targets = [\"127.0.0.1\"]\nmax_message = \"1KiB\"", [2]string{"X-Wsproxy-Maxframesize", "1025"}, 400, false},
		{"a stranger", "targets = [\"127.0.0.1\"]\ntrusted_peers = [\"192.0.2.1\"]", [2]string{}, 403, false},
		{"a stranger whose headers are dropped", "targets = [\"127.0.0.1\"]\ntrusted_peers = [\"192.0.2.1\"]\nuntrusted = \"strip\"\nupstream = [\"https://signaling.rtc.qq.com/\"]", [2]string{}, 101, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := startGate(t, f.config(t)+"\n[[signaling]]\npath = \"/by\"\nmode = \"headers\"\n"+tt.keys+"\n")
			before := named.Conns.Load()
			c, res, err := g.tryWSS(t, "/by/room?x=1", func(_ *websocket.Dialer, h http.Header) {
				h.Set("X-Wsproxy-Upstream", "ws://"+named.Addr+"/ignored")
				if tt.header[0] != "" {
					h.Set(tt.header[0], tt.header[1])
				}
			})
			if res == nil || res.StatusCode != tt.status {
				t.Fatalf("got %v, %v; want %d", res, err, tt.status)
			}
			switch {
			case tt.steered:
				_ = c.SetReadDeadline(time.Now().Add(time.Minute))
				if _, got, err := c.ReadMessage(); err != nil || string(got) != "/by/room?x=1" {
					t.Errorf("the named upstream was asked for %q, %v", got, err)
				}
			case named.Conns.Load() != before:
				t.Error("the named upstream has a connection")
			case tt.status == 101:
				if err := echoes(c, websocket.TextMessage, []byte("the route's own")); err != nil {
					t.Error(err)
				}
				if h := f.last().Header; h.Get("X-Wsproxy-Upstream") != "" {
					t.Error("the header reached the upstream of the route")
				}
			}
		})
	}
}
