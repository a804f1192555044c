package inspect

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

func TestMessagesPassBothWays(t *testing.T) {
	u := newUpstream(t, websocket.Upgrader{})
	h := serve(t, plainRoute(u))
	c := h.open(t, "/chat?room=1", nil)
	far := u.next(t)
	for _, text := range []string{"hello", "", strings.Repeat("é", 40_000), strings.Repeat("x", 16<<20)} {
		c.say(text)
		far.hears(text)
		far.say(text)
		c.hears(text)
	}
	if err := c.WriteMessage(websocket.BinaryMessage, []byte{0, 255}); err != nil {
		t.Fatal(err)
	}
	if kind, data, err := far.ReadMessage(); err != nil || kind != websocket.BinaryMessage || string(data) != "\x00\xff" {
		t.Errorf("got %d %q %v, want the binary message", kind, data, err)
	}
}

func TestCloseCodesAndReasonsPassBothWays(t *testing.T) {
	for _, c := range []struct {
		name   string
		code   int
		reason string
	}{
		{"a normal close", 1000, "done"},
		{"an application's code", 4001, "come again"},
		{"a restart", 1012, "service restart"},
		{"no code at all", 1005, ""},
	} {
		t.Run(c.name+" of the client", func(t *testing.T) {
			u := newUpstream(t, websocket.Upgrader{})
			h := serve(t, plainRoute(u))
			near := h.open(t, "/", nil)
			far := u.next(t)
			near.say("last words")
			_ = near.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(c.code, c.reason))
			far.hears("last words")
			far.ends(c.code, c.reason) // and gorilla echoes the code
			near.ends(c.code, "")
			h.vacant(t)
		})
		t.Run(c.name+" of the upstream", func(t *testing.T) {
			u := newUpstream(t, websocket.Upgrader{})
			h := serve(t, plainRoute(u))
			near := h.open(t, "/", nil)
			far := u.next(t)
			far.say("last words")
			_ = far.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(c.code, c.reason))
			near.hears("last words")
			near.ends(c.code, c.reason)
			far.ends(c.code, "")
			h.vacant(t)
		})
	}
}

func TestHookDecides(t *testing.T) {
	hook := newHook(t, func(r *http.Request, body string, w http.ResponseWriter) {
		if strings.Contains(body, "bad") {
			w.WriteHeader(http.StatusForbidden)
		}
	})
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Inbound = &Hook{URL: hook}
	h := serve(t, rt)
	c := h.open(t, "/", nil)
	far := u.next(t)
	c.say("one")
	c.say("two")
	far.hears("one")
	far.hears("two")
	c.say("bad")
	c.say("three")
	c.ends(1008, "message denied")
	far.ends(1001, "going away")
	h.vacant(t)
}

func TestOnlyListedClientsAndSoMany(t *testing.T) {
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Clients = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	if status, _ := serve(t, rt).refused(t, "/", nil); status != 403 {
		t.Errorf("a client that is not listed: %d, want 403", status)
	}
	rt.Clients, rt.MaxPerAddress = []netip.Prefix{loopback}, 1
	h := serve(t, rt)
	first := h.open(t, "/", nil)
	far := u.next(t)
	if err := h.Reconfigure(Options{Routes: []Route{rt}}); err != nil { // who holds what is remembered
		t.Fatal(err)
	}
	if status, _ := h.refused(t, "/", nil); status != 429 {
		t.Errorf("a second connection of one: %d, want 429", status)
	}
	first.Close()
	far.ends(1001, "client connection lost")
	far.Close()
	h.vacant(t)
}
