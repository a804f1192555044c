package inspect

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/turngate/turngate/internal/testnet"
)

func TestStatusDecides(t *testing.T) {
	for _, c := range []struct {
		status  int
		forward bool
	}{
		{200, true}, {201, true}, {202, true}, {203, true}, {204, true},
		{205, false}, {206, false}, {301, false}, {307, false}, {400, false}, {403, false}, {500, false}, {503, false},
	} {
		t.Run(fmt.Sprint(c.status), func(t *testing.T) {
			elsewhere := testnet.PlainUpstream(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			hook := newHook(t, func(_ *http.Request, _ string, w http.ResponseWriter) {
				w.Header().Set("Location", "http://"+elsewhere.Addr+"/")
				w.WriteHeader(c.status)
			})
			u := newUpstream(t, websocket.Upgrader{})
			rt := plainRoute(u)
			rt.Inbound, rt.Outbound = &Hook{URL: hook}, &Hook{URL: hook}
			for _, direction := range []string{"inbound", "outbound"} {
				h := serve(t, rt)
				near := h.open(t, "/", nil)
				far := u.next(t)
				from, to := near, far
				if direction == "outbound" {
					from, to = far, near
				}
				from.say("hello")
				if c.forward {
					to.hears("hello")
					continue
				}
				near.ends(1008, "message denied")
				if direction == "inbound" {
					far.ends(1001, "going away")
				} else {
					far.ends(1008, "message denied")
				}
				h.vacant(t)
			}
			if n := elsewhere.Conns.Load(); n != 0 {
				t.Errorf("the redirect was followed %d times", n)
			}
		})
	}
}

func TestOrderIsKeptWithManyCallsInFlight(t *testing.T) {
	hook, calls := heldHook(t)
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Inbound = &Hook{URL: hook, InFlight: 4}
	h := serve(t, rt)
	near := h.open(t, "/", nil)
	far := u.next(t)
	const all = 12
	for i := range all {
		near.say(fmt.Sprint("message ", i))
	}
	held := map[string]*hookCall{}
	take := func() {
		c := receive(t, calls, "the hook is not asked")
		held[c.body] = c
	}
	for range 4 {
		take()
	}
	// The last of the four is answered first; the others keep it back, and so a fifth.
	held["message 3"].status(200)
	held["message 2"].status(200)
	held["message 1"].status(200)
	if n := len(calls); n != 0 {
		t.Errorf("%d calls beyond the four in flight", n)
	}
	held["message 0"].status(200)
	for i := range 4 {
		far.hears(fmt.Sprint("message ", i))
	}
	for i := 4; i < all; i += 4 {
		for range 4 {
			take()
		}
		for j := i + 3; j >= i; j-- {
			held[fmt.Sprint("message ", j)].status(200)
		}
		for j := i; j < i+4; j++ {
			far.hears(fmt.Sprint("message ", j))
		}
	}
}

func TestDirectionsDoNotWaitForEachOther(t *testing.T) {
	hook, calls := heldHook(t)
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Inbound = &Hook{URL: hook}
	h := serve(t, rt)
	near := h.open(t, "/", nil)
	far := u.next(t)
	near.say("held")
	call := receive(t, calls, "the hook is not asked")
	far.say("not held")
	near.hears("not held")
	call.status(204)
	far.hears("held")
}

func TestMessagesBehindADeniedOneAreNotDelivered(t *testing.T) {
	hook, calls := heldHook(t)
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Inbound = &Hook{URL: hook}
	h := serve(t, rt)
	near := h.open(t, "/", nil)
	far := u.next(t)
	for _, text := range []string{"good", "bad", "late"} {
		near.say(text)
	}
	held := map[string]*hookCall{}
	for range 3 {
		c := receive(t, calls, "the hook is not asked")
		held[c.body] = c
	}
	held["late"].status(200)
	held["bad"].status(403)
	held["good"].status(200)
	far.hears("good")
	far.ends(1001, "going away")
	near.ends(1008, "message denied")
}

func TestReadingStopsWhileTheHookIsSlow(t *testing.T) {
	hook, calls := heldHook(t)
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Inbound = &Hook{URL: hook, Timeout: patience}
	h := serve(t, rt)
	near := h.open(t, "/", nil)
	u.next(t)
	// Big messages: their bytes, not their number, are too much.
	message := []byte(strings.Repeat("x", 512<<10))
	var sent atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = near.SetWriteDeadline(time.Now().Add(time.Second))
		for near.WriteMessage(websocket.TextMessage, message) == nil {
			sent.Add(1)
		}
	}()
	<-ended
	// Three are read (one beyond the room), the rest stays in the buffers of the kernel.
	if n := len(calls); n > 3 {
		t.Errorf("%d messages of 512 KiB asked about, want at most 3", n)
	}
	if n := sent.Load(); n > 40 {
		t.Errorf("%d MiB were taken from a client whose hook does not answer", n/2)
	}
}

func TestHookFailures(t *testing.T) {
	silent := testnet.RawUpstream(t, nil, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	noHTTP := testnet.RawUpstream(t, nil, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH\r\n") })
	reset := testnet.RawUpstream(t, nil, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }) // closed over unread bytes
	closed := testnet.RawUpstream(t, nil, func(net.Conn) {})
	for _, c := range []struct {
		name, addr string
		timeout    time.Duration
		reason     string
	}{
		{"no answer in time", silent.Addr, 200 * time.Millisecond, "hook timed out"},
		{"an answer that is not HTTP", noHTTP.Addr, patience, "hook failed"},
		{"a reset", reset.Addr, patience, "hook failed"},
		{"closed at once", closed.Addr, patience, "hook failed"},
		{"nobody there", "127.0.0.1:1", patience, "hook failed"},
	} {
		for _, onError := range []string{OnErrorClose, OnErrorForward} {
			t.Run(c.name+", "+onError, func(t *testing.T) {
				u := newUpstream(t, websocket.Upgrader{})
				rt := plainRoute(u)
				rt.Inbound = &Hook{URL: "http://" + c.addr, Timeout: c.timeout, OnError: onError}
				h := serve(t, rt)
				near := h.open(t, "/", nil)
				far := u.next(t)
				near.say("hello")
				if onError == OnErrorForward {
					far.hears("hello")
					return
				}
				near.ends(1011, c.reason)
				far.ends(1001, "going away")
				h.vacant(t)
			})
		}
	}
}

func TestABodyThatNeverEndsDelaysNoVerdict(t *testing.T) {
	hook := testnet.RawUpstream(t, nil, func(c net.Conn) {
		if _, err := c.Read(make([]byte, 4096)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		}
	})
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Inbound = &Hook{URL: "http://" + hook.Addr, Timeout: patience}
	h := serve(t, rt)
	near := h.open(t, "/", nil)
	near.say("hello")
	u.next(t).hears("hello")
}

// Many connections together never have more requests under way than the cap.
func TestConcurrencyIsBoundedOverAllConnections(t *testing.T) {
	const most, conns, each = 2, 6, 5
	var now, peak atomic.Int64
	hook := newHook(t, func(_ *http.Request, _ string, w http.ResponseWriter) {
		n := now.Add(1)
		for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
		}
		time.Sleep(2 * time.Millisecond) // so that requests overlap
		now.Add(-1)
	})
	u := newUpstream(t, websocket.Upgrader{})
	byHeaders := headersRoute()
	byHeaders.ByHeaders.Concurrency = most
	route := plainRoute(u)
	route.Inbound = &Hook{URL: hook, Concurrency: most, Timeout: patience}
	for name, rt := range map[string]Route{"by the route": route, "by headers": byHeaders} {
		t.Run(name, func(t *testing.T) {
			peak.Store(0)
			h := serve(t, rt)
			var clients []func()
			for range conns {
				near := h.open(t, "/", wants(u, "Inboundhook", hook))
				far := u.next(t)
				clients = append(clients, func() {
					for i := range each {
						near.say(fmt.Sprint(i))
					}
				}, func() {
					for i := range each {
						far.hears(fmt.Sprint(i))
					}
				})
			}
			together(clients...)
			if got := peak.Load(); got != most {
				t.Errorf("%d requests at once, want %d", got, most)
			}
		})
	}
}

func TestBreaker(t *testing.T) {
	changes := 0
	g := &gate{slots: make(chan struct{}, 1), changed: func(bool) { changes++ }}
	now := time.Unix(1000, 0)
	ask := func(want error) {
		t.Helper()
		if _, err := g.ask(now); err != want {
			t.Fatalf("ask: %v, want %v", err, want)
		}
	}
	for range breakAfter - 1 {
		ask(nil)
		g.answered(false, now)
	}
	ask(nil)
	g.answered(true, now) // a verdict in between: the count begins anew
	for range breakAfter {
		ask(nil)
		g.answered(false, now)
	}
	ask(errBreaker)
	now = now.Add(breakTime)
	trial, err := g.ask(now)
	if !trial || err != nil {
		t.Fatalf("after the pause: %v %v, want a trial", trial, err)
	}
	ask(errBreaker) // one at a time
	g.nothing(true) // the session ended under it
	ask(nil)
	g.answered(false, now)
	ask(errBreaker)
	now = now.Add(breakTime)
	ask(nil)
	g.answered(true, now)
	ask(nil)
	if g.open() || changes != 2 {
		t.Errorf("open %v after %d changes, want closed after 2", g.open(), changes)
	}
}

func TestADeadHookIsNotAskedForAWhile(t *testing.T) {
	dead := testnet.RawUpstream(t, nil, func(net.Conn) {})
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Inbound = &Hook{URL: "http://" + dead.Addr, OnError: OnErrorForward, InFlight: 1}
	h := serve(t, rt)
	near := h.open(t, "/", nil)
	far := u.next(t)
	for i := range 3 * breakAfter {
		near.say(fmt.Sprint(i))
		far.hears(fmt.Sprint(i))
	}
	if got := dead.Conns.Load(); got != breakAfter {
		t.Errorf("asked %d times, want %d", got, breakAfter)
	}
	if log := h.logs.String(); strings.Count(log, "hook down") != 1 {
		t.Errorf("log: %s, want one line that the hook is down", log)
	}
}

func TestBinaryPolicy(t *testing.T) {
	for _, c := range []struct {
		policy string
		want   string // "" is a close with 1008
		asked  bool
	}{{"", "", false}, {BinaryDeny, "", false}, {BinaryForward, "\x00\xff", false}, {BinaryHook, "\x00\xff", true}} {
		t.Run("policy "+c.policy, func(t *testing.T) {
			asked := make(chan string, 1)
			hook := newHook(t, func(r *http.Request, body string, _ http.ResponseWriter) {
				asked <- r.Header.Get("Content-Type") + " " + r.Header.Get("X-Turngate-Opcode") + " " + body
			})
			u := newUpstream(t, websocket.Upgrader{})
			rt := plainRoute(u)
			rt.Inbound = &Hook{URL: hook, Binary: c.policy}
			h := serve(t, rt)
			near := h.open(t, "/", nil)
			far := u.next(t)
			_ = near.WriteMessage(websocket.BinaryMessage, []byte("\x00\xff"))
			if c.want == "" {
				near.ends(1008, "message denied")
			} else if kind, data, err := far.ReadMessage(); err != nil || kind != websocket.BinaryMessage || string(data) != c.want {
				t.Errorf("got %d %q %v", kind, data, err)
			}
			select {
			case got := <-asked:
				if !c.asked || got != "application/octet-stream binary \x00\xff" {
					t.Errorf("the hook was asked %q", got)
				}
			default:
				if c.asked {
					t.Error("the hook was not asked")
				}
			}
		})
	}
}

func TestRequestOfAHook(t *testing.T) {
	hook, calls := heldHook(t)
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Path = "/chat/"
	rt.Headers.Trust = append(rt.Headers.Trust, loopback)
	keys := []Key{{"new", []byte("the new secret of the hook")}, {"old", []byte("the old secret of the hook")}}
	rt.Inbound = &Hook{URL: hook + "/decide?a=b", Method: "PUT", Headers: http.Header{"Authorization": {"Bearer x"}}, Keys: keys}
	h := serve(t, rt)
	near := h.open(t, "/chat/room?c=d", http.Header{"X-Forwarded-For": {"203.0.113.9"}})
	near.say("héllo")
	c := receive(t, calls, "the hook is not asked")
	c.status(200)
	if c.Method != "PUT" || c.RequestURI != "/decide?a=b" || c.body != "héllo" {
		t.Errorf("got %s %s %q", c.Method, c.RequestURI, c.body)
	}
	key := h.Sessions()[0].Connection
	for name, want := range map[string]string{
		"Content-Type": "text/plain; charset=utf-8", "Authorization": "Bearer x", "User-Agent": "turngate",
		"X-Turngate-Connection": key, "X-Turngate-Direction": "inbound", "X-Turngate-Seq": "1",
		"X-Turngate-Client-Ip": "203.0.113.9", "X-Turngate-Route": "/chat/", "X-Turngate-Opcode": "text", "Idempotency-Key": "",
	} {
		if got := c.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	signature := c.Header.Get("X-Turngate-Signature")
	stamp, _, _ := strings.Cut(strings.TrimPrefix(signature, "t="), ",")
	want := "t=" + stamp
	for _, k := range keys {
		m := hmac.New(sha256.New, k.Secret)
		fmt.Fprintf(m, "%s\n%s\ninbound\n1\nhéllo", stamp, key)
		want += ",keyid=" + k.ID + ",sha256=" + hex.EncodeToString(m.Sum(nil))
	}
	if signature != want || len(stamp) != 10 {
		t.Errorf("signature\n %s, want\n %s", signature, want)
	}
	near.say("second")
	if c := receive(t, calls, "the hook is not asked"); c.Header.Get("X-Turngate-Seq") != "2" {
		t.Errorf("second message: seq %q", c.Header.Get("X-Turngate-Seq"))
	}
}

func TestHooksOfHeadersGetTheClientsTarget(t *testing.T) {
	hook, calls := heldHook(t)
	u := newUpstream(t, websocket.Upgrader{})
	h := serve(t, headersRoute())
	near := h.open(t, "/a//c?d=%20e%2F", wants(u, "Outboundhook", hook+"/own?path", "Outboundhook-Method", "get", "Outboundhook-Headers", "X-Key=a=b"))
	u.next(t).say("from the upstream")
	c := receive(t, calls, "the hook is not asked")
	c.status(200)
	if c.Method != "GET" || c.RequestURI != "/a//c?d=%20e%2F" || c.body != "from the upstream" || c.Header.Get("X-Key") != "a=b" || c.Header.Get("X-Turngate-Direction") != "outbound" {
		t.Errorf("got %s %s %q %v", c.Method, c.RequestURI, c.body, c.Header)
	}
	near.hears("from the upstream")
}

func TestEveryMethodCarriesTheMessage(t *testing.T) {
	for _, method := range methods {
		t.Run(method, func(t *testing.T) {
			got := make(chan string, 1)
			hook := newHook(t, func(r *http.Request, body string, _ http.ResponseWriter) { got <- r.Method + " " + body })
			u := newUpstream(t, websocket.Upgrader{})
			rt := plainRoute(u)
			rt.Inbound = &Hook{URL: hook, Method: method}
			h := serve(t, rt)
			near := h.open(t, "/", nil)
			near.say("hello")
			u.next(t).hears("hello")
			if g := receive(t, got, "the hook is not asked"); g != method+" hello" {
				t.Errorf("got %q", g)
			}
		})
	}
}

func TestRewrite(t *testing.T) {
	hook := newHook(t, func(r *http.Request, body string, w http.ResponseWriter) {
		action, text, _ := strings.Cut(body, ":")
		w.Header().Set("X-Turngate-Action", action)
		_, _ = io.WriteString(w, text)
	})
	u := newUpstream(t, websocket.Upgrader{})
	t.Run("switched on", func(t *testing.T) {
		rt := plainRoute(u)
		rt.Inbound = &Hook{URL: hook, Rewrite: true, MaxAnswer: 16}
		h := serve(t, rt)
		near := h.open(t, "/", nil)
		far := u.next(t)
		for _, text := range []string{"replace:other", "drop:", "forward:as it is", "replace:"} {
			near.say(text)
		}
		far.hears("other")
		far.hears("forward:as it is")
		far.hears("")
		near.say("replace:" + strings.Repeat("x", 17))
		near.ends(1011, "hook failed")
	})
	t.Run("text stays text", func(t *testing.T) {
		rt := plainRoute(u)
		rt.Inbound = &Hook{URL: hook, Rewrite: true, Binary: BinaryHook}
		rt.ValidateUTF8 = false
		h := serve(t, rt)
		near := h.open(t, "/", nil)
		u.next(t)
		near.say("replace:\xff")
		near.ends(1011, "hook failed")
	})
	t.Run("switched off", func(t *testing.T) {
		rt := plainRoute(u)
		rt.Inbound = &Hook{URL: hook}
		h := serve(t, rt)
		near := h.open(t, "/", nil)
		far := u.next(t)
		for _, text := range []string{"replace:other", "drop:"} {
			near.say(text)
			far.hears(text)
		}
	})
}

func TestBatches(t *testing.T) {
	hook, calls := heldHook(t)
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Inbound = &Hook{URL: hook, BatchMessages: 3, BatchDelay: patience, Binary: BinaryHook, Rewrite: true}
	open := func(t *testing.T) (near, far *peer, send func(answer string)) {
		near = serve(t, rt).open(t, "/", nil) // a server for each: the breaker counts bad answers
		far = u.next(t)
		near.say("one")
		_ = near.WriteMessage(websocket.BinaryMessage, []byte{0xff})
		near.say("three")
		return near, far, func(answer string) {
			c := receive(t, calls, "the hook is not asked")
			var list []map[string]any
			if err := json.Unmarshal([]byte(c.body), &list); err != nil || len(list) != 3 || c.Header.Get("Content-Type") != "application/json" || c.Header.Get("X-Turngate-Opcode") != "batch" {
				t.Fatalf("got %q %v", c.body, c.Header)
			}
			if list[0]["data"] != "one" || list[1]["data_base64"] != "/w==" || list[1]["opcode"] != "binary" || list[2]["seq"] != 3.0 {
				t.Errorf("got %v", list)
			}
			c.answer <- func(w http.ResponseWriter) { _, _ = io.WriteString(w, answer) }
		}
	}
	t.Run("an empty answer forwards all", func(t *testing.T) {
		_, far, send := open(t)
		send("")
		far.hears("one")
		if kind, data, _ := far.ReadMessage(); kind != websocket.BinaryMessage || string(data) != "\xff" {
			t.Errorf("got %d %q", kind, data)
		}
		far.hears("three")
	})
	t.Run("a verdict for each", func(t *testing.T) {
		near, far, send := open(t)
		send(`[{"seq":3,"action":"deny"},{"seq":1,"action":"replace","data":"eins"},{"seq":2,"action":"drop"}]`)
		far.hears("eins")
		far.ends(1001, "going away")
		near.ends(1008, "message denied")
	})
	for name, answer := range map[string]string{
		"no list":                  `{"seq":1}`,
		"a verdict is missing":     `[{"seq":1},{"seq":2}]`,
		"a verdict twice":          `[{"seq":1},{"seq":1},{"seq":3}]`,
		"a message that is none":   `[{"seq":1},{"seq":2},{"seq":4}]`,
		"an action that is none":   `[{"seq":1},{"seq":2},{"seq":3,"action":"Forward"}]`,
		"something behind the end": `[{"seq":1},{"seq":2},{"seq":3}] x`,
	} {
		t.Run(name+" is no verdict", func(t *testing.T) {
			near, _, send := open(t)
			send(answer)
			near.ends(1011, "hook failed")
		})
	}
	t.Run("a status that denies, denies all", func(t *testing.T) {
		near, _, _ := open(t)
		receive(t, calls, "the hook is not asked").status(403)
		near.ends(1008, "message denied")
	})
	t.Run("the delay sends what there is", func(t *testing.T) {
		rt := rt
		rt.Inbound = &Hook{URL: hook, BatchMessages: 100, BatchDelay: time.Millisecond}
		h := serve(t, rt)
		near := h.open(t, "/", nil)
		far := u.next(t)
		near.say("alone")
		receive(t, calls, "the hook is not asked").status(200)
		far.hears("alone")
	})
	t.Run("a close sends what there is", func(t *testing.T) {
		near := serve(t, rt).open(t, "/", nil)
		far := u.next(t)
		near.say("last words")
		_ = near.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(1000, "bye"))
		receive(t, calls, "the hook is not asked").status(200)
		far.hears("last words")
		far.ends(1000, "bye")
	})
}

// A connection that the hook closes while it is idle costs no session.
func TestKeptConnectionsThatEndAreReplaced(t *testing.T) {
	var served atomic.Int64
	hook := testnet.RawUpstream(t, nil, func(c net.Conn) {
		buf := make([]byte, 4096)
		if _, err := c.Read(buf); err == nil {
			served.Add(1)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			_, _ = c.Read(buf) // the next request, which gets no answer
		}
	})
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Inbound = &Hook{URL: "http://" + hook.Addr, InFlight: 1}
	h := serve(t, rt)
	near := h.open(t, "/", nil)
	far := u.next(t)
	for i := range 10 {
		near.say(fmt.Sprint(i))
		far.hears(fmt.Sprint(i))
	}
	if got := served.Load(); got != 10 {
		t.Errorf("%d answers, want 10", got)
	}
}
