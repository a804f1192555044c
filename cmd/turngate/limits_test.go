package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/turngate/turngate/config"
)

// limitsOf returns limits with the bounds of a [https] table in TOML.
func limitsOf(t *testing.T, https string) (*httpLimits, *bytes.Buffer) {
	t.Helper()
	var logs bytes.Buffer
	l := newHTTPLimits(slog.New(slog.NewTextHandler(&logs, nil)))
	l.set(httpsOf(t, https))
	return l, &logs
}

func httpsOf(t *testing.T, https string) config.HTTPS {
	t.Helper()
	cfg, findings := config.LoadBytes("turngate.toml", []byte(https), config.Env{})
	if cfg == nil {
		t.Fatal(findings)
	}
	return cfg.HTTPS
}

var (
	clientA  = netip.MustParseAddr("192.0.2.1")
	clientB  = netip.MustParseAddr("192.0.2.2")
	client6  = netip.MustParseAddr("2001:db8::1")
	client6b = netip.MustParseAddr("2001:db8::2") // of the same /64
	client6c = netip.MustParseAddr("2001:db8:0:1::1")
)

func trtcQuery(user string) string {
	return "?sdkAppId=1400000001&userId=" + user + "&userSig=x&keepAlive=0"
}

// passing says how many of n handshakes pass.
func (l *httpLimits) passing(n int, client netip.Addr, query func(i int) string) (passed int) {
	for i := range n {
		if release, _ := l.handshake(l.caller(client, query(i))); release != nil {
			release()
			passed++
		}
	}
	return passed
}

func users(i int) string       { return trtcQuery("user" + strconv.Itoa(i)) }
func oneUser(int) string       { return trtcQuery("alice") }
func oneUserAgain(int) string  { return "?userSig=y&userId=alice&sdkAppId=1400000001" }
func otherApp(int) string      { return "?userId=alice&sdkAppId=1400000002" }
func nobody(int) string        { return "?apiVersion=v1" }
func longUser(i int) string    { return trtcQuery(strings.Repeat("u", maxUserLength) + strconv.Itoa(i)) }
func spelledUser(i int) string { return "?USERID=%61lice&sdkappid=1400000001" }

func TestHandshakesOfAUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := limitsOf(t, "")
		for _, c := range []struct {
			name   string
			client netip.Addr
			query  func(int) string
			want   int
		}{
			{"one user has 20 a minute", clientA, oneUser, 20},
			{"in whatever order his parameters stand", clientA, oneUserAgain, 0},
			{"and however they are spelled", clientA, spelledUser, 0},
			{"the same name of another application is another user", clientA, otherApp, 20},
			{"and at another address", clientB, oneUser, 20},
			{"addresses of one /64 are one", client6, oneUser, 20},
			{"as they are", client6b, oneUser, 0},
			{"those of another /64 are not", client6c, oneUser, 20},
			{"names are cut before they are told apart", clientB, longUser, 20},
			{"who names no user is bound by the address only", clientA, nobody, 100},
			{"and so are a hundred users", clientA, users, 100},
		} {
			if got := l.passing(100, c.client, c.query); got != c.want {
				t.Errorf("%s: %d of 100 handshakes passed, want %d", c.name, got, c.want)
			}
		}
		time.Sleep(30 * time.Second)
		if got := l.passing(100, clientA, oneUser); got != 10 {
			t.Errorf("half a minute later %d of 100 passed, want 10", got)
		}
	})
}

// Two thousand users behind one address come back at once after an outage, and then
// 200 a second.
func TestHandshakesOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, logs := limitsOf(t, "")
		if got := l.passing(5000, clientA, users); got != 2000 {
			t.Errorf("%d of 5000 users passed at once, want 2000", got)
		}
		if got := l.passing(10, clientB, users); got != 10 {
			t.Errorf("another address: %d of 10 passed", got)
		}
		for range 3 {
			time.Sleep(time.Second)
			if got := l.passing(5000, clientA, nobody); got != 200 {
				t.Errorf("a second later %d passed, want 200", got)
			}
		}
		_, no := l.handshake(l.caller(clientA, ""))
		if no == nil || no.limit != limitHandshakes || no.wait <= 0 || no.wait > 10*time.Millisecond {
			t.Errorf("refusal: got %+v, want %s for some milliseconds", no, limitHandshakes)
		}
		if n := strings.Count(logs.String(), "\n"); n != 1 || !strings.Contains(logs.String(), limitHandshakes) {
			t.Errorf("%d lines in the log for %d refusals, want one that names the limit: %s", n, 3000+3*4800, logs)
		}
		time.Sleep(time.Minute)
		l.passing(5000, clientA, nobody)
		l.passing(3000, clientA, nobody)
		if n := strings.Count(logs.String(), "\n"); n != 2 || !strings.Contains(logs.String(), "refused=17401") {
			t.Errorf("a minute later: %d lines, want a second one that counts 17401 refusals: %s", n, logs)
		}
	})
}

func TestRequestsOfAnAddressAndAUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := limitsOf(t, "[https.limits]\nrequests_per_second = 10\nrequests_per_second_per_user = 2\n")
		count := func(query string) (n int) {
			for range 100 {
				if l.request(l.caller(clientA, query)) == nil {
					n++
				}
			}
			return n
		}
		if got := count("?user=alice"); got != 4 {
			t.Errorf("%d requests of a user at once, want 4: two seconds' worth", got)
		}
		time.Sleep(10 * time.Second)
		if got := count(""); got != 20 {
			t.Errorf("%d requests of an address at once, want 20", got)
		}
		time.Sleep(time.Second)
		if got := count(""); got != 10 {
			t.Errorf("%d requests in the second behind it, want 10", got)
		}
	})
}

// A reload changes the bounds; what was asked and what is open counts on.
func TestLimitsSurviveAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := limitsOf(t, "[https]\nmax_connections_per_address = 3\n")
		var open []func()
		for range 3 {
			release, _ := l.handshake(l.caller(clientA, oneUser(0)))
			open = append(open, release)
		}
		l.set(httpsOf(t, "[https]\nmax_connections_per_address = 4\n[https.limits]\nhandshakes_per_minute_per_user = 6\n"))
		release, no := l.handshake(l.caller(clientA, oneUser(0)))
		if no != nil {
			t.Fatalf("a fourth WebSocket of four: %+v", no)
		}
		if _, no := l.handshake(l.caller(clientA, oneUser(0))); no == nil || no.limit != limitSockets {
			t.Errorf("a fifth of four: got %+v, want %s", no, limitSockets)
		}
		l.set(httpsOf(t, "[https.limits]\nwebsockets_per_user = 2\nhandshakes_per_minute_per_user = 1000\n"))
		time.Sleep(time.Minute)
		if _, no := l.handshake(l.caller(clientA, oneUser(0))); no == nil || no.limit != limitUserSockets {
			t.Errorf("a WebSocket of a user who has four of two: got %+v, want %s", no, limitUserSockets)
		}
		for _, f := range append(open, release) {
			f()
		}
		if n := l.sockets.Keys() + l.userSockets.Keys(); n != 0 {
			t.Errorf("%d keys are held with nothing open", n)
		}
	})
}

// Whoever invents users costs bounded memory and is held by the address.
func TestInventedUsers(t *testing.T) {
	l, _ := limitsOf(t, "[https]\nmax_connections_per_address = 2147483647\n")
	for i := range 10 * limitedUsers {
		release, no := l.handshake(l.caller(clientA, users(i)))
		if no != nil {
			t.Fatalf("user %d: %+v", i, no)
		}
		release()
	}
	if n := l.userHandshakes.Keys(); n > limitedUsers {
		t.Errorf("%d users are remembered, want %d at most", n, limitedUsers)
	}
	if n := l.userSockets.Keys(); n != 0 {
		t.Errorf("%d users hold slots with nothing open", n)
	}
}

// The limits hold in front of every room, by the address that the trusted proxies name.
func TestLimitsHoldOnEveryRoute(t *testing.T) {
	tg := attacked(t, "trusted_proxies = [\"127.0.0.0/30\"]\n[https.limits]\nrequests_per_second = 1\n", `
[turn.api]
path = "/ice"
tokens = ["abcdefghijklmnopqrstuvwxyz"]
`)
	for n, path := range append([]string{"/ice", "/healthz", "/nowhere"}, append(plainPaths, wsPaths...)...) {
		t.Run(path, func(t *testing.T) {
			ask := func(xff string) (int, http.Header) {
				a := tg.dial(t)
				defer a.NetConn().Close()
				fields := ""
				if n >= 3+len(plainPaths) {
					fields = upgradeFields
				}
				a.send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: " + xff + "\r\n" + fields + "\r\n")
				status, h, _ := a.response()
				return status, h
			}
			client := fmt.Sprintf("192.0.2.%d", n)
			refused := 0
			for range 5 {
				status, h := ask("198.51.100.1, " + client + ", 127.0.0.2")
				if status != http.StatusTooManyRequests {
					continue
				}
				refused++
				if wait, err := strconv.Atoi(h.Get("Retry-After")); err != nil || wait < 1 || wait > 2 {
					t.Errorf("Retry-After: got %q, want a second or two", h.Get("Retry-After"))
				}
				if v := h.Get("Access-Control-Allow-Origin"); v != "" {
					t.Errorf("a page may read the 429: %q", v)
				}
			}
			if refused < 2 {
				t.Errorf("%d of 5 requests were refused, want three", refused)
			}
			if status, _ := ask(client + ", 198.51.100." + strconv.Itoa(n+2)); status == http.StatusTooManyRequests {
				t.Error("a client is held by what another one wrote into X-Forwarded-For")
			}
		})
	}
	tg.blamelessButFor(t, "X-Forwarded-For")
}

// A WebSocket holds its slots until it ends, in whatever way, and a refused or
// failed handshake holds none.
func TestSlotsOfWebSockets(t *testing.T) {
	tg := attacked(t, "[https.limits]\nwebsockets_per_user = 2\n", "")
	const path = "/ws/?sdkAppId=1400000001&userId=alice"
	two := []*attacker{tg.upgrade(t, path), tg.upgrade(t, path)}
	if status := tg.first(t, upgradeRequest(path)); status != http.StatusTooManyRequests {
		t.Errorf("a third WebSocket of two: got %d, want 429", status)
	}
	if !tg.upgrade(t, "/ws/?sdkAppId=1400000001&userId=bob").echoes("another user") {
		t.Error("another user is held too")
	}
	if _, err := tg.reload(); err != nil {
		t.Fatal(err)
	}
	if status := tg.first(t, upgradeRequest(path)); status != http.StatusTooManyRequests {
		t.Errorf("after a reload: got %d, want 429", status)
	}
	two[0].NetConn().Close()
	eventually(t, func() string {
		if status := tg.first(t, upgradeRequest(path)); status != http.StatusSwitchingProtocols {
			return fmt.Sprintf("after one has ended: got %d, want 101", status)
		}
		return ""
	})
	tg.CloseConnections()
	eventually(t, func() string {
		if n := tg.httpLimits.sockets.Keys() + tg.httpLimits.userSockets.Keys(); n > 0 {
			return fmt.Sprintf("%d keys hold slots after everything has ended", n)
		}
		return ""
	})
	tg.control(t)
	tg.blameless(t)
}
