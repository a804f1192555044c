package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/edge"
	"github.com/turngate/turngate/internal/testnet"
)

// A row of tooBig is a request with more than we take.
type oversize struct {
	name, fields string
	target       string // behind the path
	want         []int
}

func tooBig() []oversize {
	var many strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&many, "X-%d: 1\r\n", i)
	}
	return []oversize{
		{"a header of 64 KiB", "X-Big: " + strings.Repeat("x", 64<<10) + "\r\n", "", []int{431, 400}},
		{"a header of 1 MB", "X-Big: " + strings.Repeat("x", 1<<20) + "\r\n", "", []int{431, 400, 0}},
		{"a header of 8 MiB", "X-Big: " + strings.Repeat("x", 8<<20) + "\r\n", "", []int{431, 400, 0}},
		{"a header name of 64 KiB", strings.Repeat("x", 64<<10) + ": y\r\n", "", []int{431, 400}},
		{"2000 headers", many.String(), "", []int{431, 400}},
		{"2000 headers of one name", strings.Repeat("X: y\r\n", 2000), "", []int{431, 400}},
		{"2000 empty headers", strings.Repeat("X:\r\n", 2000), "", []int{431, 400}},
		{"1000 addresses in X-Forwarded-For", strings.Repeat("X-Forwarded-For: 192.0.2.1\r\n", 1000), "", []int{431, 400}},
		{"a target of 64 KiB", "", strings.Repeat("a", 64<<10), []int{414, 431, 400}},
		{"a query of 64 KiB", "", "?" + strings.Repeat("a", 64<<10), []int{414, 431, 400}},
		{"a report of 50 MiB", "Content-Length: 52428800\r\n", "", []int{413}},
		{"a report of 2^63-1 bytes", "Content-Length: 9223372036854775807\r\n", "", []int{413}},
		{"a report of 50 MiB that waits for 100", "Expect: 100-continue\r\nContent-Length: 52428800\r\n", "", []int{413}},
	}
}

func (o oversize) bytes(path string) string {
	return "POST " + path + o.target + " HTTP/1.1\r\nHost: localhost\r\nX-Marker: big\r\n" + o.fields + "\r\n"
}

// What is too big is refused before it is taken, and costs no memory.
func TestTooBig(t *testing.T) {
	tg := attacked(t, "", "")
	for _, row := range tooBig() {
		t.Run(row.name, func(t *testing.T) {
			for _, path := range append(slices.Clone(plainPaths), "/ws/", "/nowhere/", "/healthz") {
				if strings.Contains(row.fields, "Length") && !slices.Contains(plainPaths, path) {
					continue
				}
				a := tg.dial(t)
				a.SetDeadline(time.Now().Add(time.Minute))
				go a.send(row.bytes(path))
				if got, _, _ := a.response(); !slices.Contains(row.want, got) {
					t.Errorf("%s: got %d, want one of %v", path, got, row.want)
				}
				a.NetConn().Close()
			}
		})
	}
	t.Run("a chunked report without end", func(t *testing.T) {
		for _, path := range plainPaths {
			a := tg.dial(t)
			a.SetDeadline(time.Now().Add(time.Minute))
			go func() {
				a.send("POST " + path + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
				chunk := "10000\r\n" + strings.Repeat("x", 64<<10) + "\r\n"
				for range 1024 { // 64 MiB
					if _, err := io.WriteString(a, chunk); err != nil {
						return
					}
				}
			}()
			if got, _, _ := a.response(); got != 413 && got != 0 {
				t.Errorf("%s: got %d, want 413", path, got)
			}
			if ended, _ := a.ended(time.Minute); !ended {
				t.Errorf("%s: the connection stays open", path)
			}
			a.NetConn().Close()
		}
	})
	for _, e := range tg.received("X-Marker: big") {
		t.Errorf("upstream received %.200q", e.head)
	}
	t.Run("headers without end leave nothing behind", func(t *testing.T) {
		tg.costs(t, 16<<10, 8<<10, func(held func()) {
			var clients []*attacker
			for range 64 {
				a := tg.dial(t)
				a.send("GET /logger/ HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 30<<10))
				clients = append(clients, a)
			}
			held()
			for _, a := range clients {
				a.NetConn().Close()
			}
		})
	})
	tg.control(t)
	tg.blameless(t)
}

// stalls are beginnings of what never comes whole. The plain ones are the same
// with TLS and without.
var stalls = struct{ http, tls []string }{
	http: []string{
		"",
		"G",
		"GET /log",
		"GET /logger/ HTTP/1.1\r\nX: ",
		"GET /logger/ HTTP/1.1\r\nHost: localhost\r\n",
		"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /log",
		"\r\n\r\n",
	},
	tls: []string{
		"",
		"\x16",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("r", 32),
		"\x00\x01\x00\x00\x21",
	},
}

// cutAll opens some connections for each beginning, behind a handshake for the
// protocols, and waits until all have ended.
func (tg *target) cutAll(t *testing.T, wg *sync.WaitGroup, protocols, beginnings []string) {
	for _, first := range beginnings {
		for range 5 {
			wg.Go(func() {
				a, err := tg.tryDial(protocols...)
				if err != nil {
					t.Errorf("%q behind %q: %v", first, protocols, err)
					return
				}
				defer a.NetConn().Close()
				a.send(first)
				if ended, _ := a.ended(time.Minute); !ended {
					t.Errorf("%q behind %q: still open after a minute", first, protocols)
				}
			})
		}
	}
}

// Slow clients are cut while honest ones are served.
func TestSlowHeads(t *testing.T) {
	t.Parallel()
	onEveryListener(t, slowHeads)
}

func slowHeads(t *testing.T, attacked func(t testing.TB, https, extra string) *target) {
	t.Parallel()
	tg := attacked(t, "header_timeout = \"4s\"\nhandshake_timeout = \"4s\"", "") // an honest client of a busy machine keeps them
	raw := *tg
	raw.tls = nil
	var wg sync.WaitGroup
	raw.cutAll(t, &wg, nil, stalls.tls)
	tg.cutAll(t, &wg, []string{"http/1.1"}, stalls.http)
	tg.cutAll(t, &wg, []string{}, stalls.http)
	tg.cutAll(t, &wg, []string{"h2"}, []string{"", "PRI * HTTP/2.0\r\n"})
	if tg.addr == tg.https { // elsewhere TURN is not chosen
		tg.cutAll(t, &wg, []string{"stun.turn"}, []string{"", "\x00\x01\x00\x00\x21"})
	}
	for range 3 {
		tg.control(t)
	}
	wg.Wait()
	tg.control(t)
	tg.blameless(t)
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// A body that crawls or never comes is cut, also one that nobody asked for.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	tg := attacked(t, "", "")
	var wg sync.WaitGroup
	slow := func(name, request string, drip bool, want ...int) {
		wg.Go(func() {
			a, err := tg.tryDial()
			if err != nil {
				t.Error(err)
				return
			}
			defer a.NetConn().Close()
			a.send(request)
			stop := make(chan struct{})
			defer close(stop)
			if drip {
				go func() {
					tick := time.NewTicker(time.Second)
					defer tick.Stop()
					for {
						select {
						case <-stop:
							return
						case <-tick.C:
							a.send("x")
						}
					}
				}()
			}
			a.SetReadDeadline(time.Now().Add(time.Minute))
			status, _, _ := a.response()
			if status == http.StatusContinue {
				status, _, _ = a.response()
			}
			if !slices.Contains(want, status) {
				t.Errorf("%s: got %d, want one of %v", name, status, want)
			}
			if ended, _ := a.ended(time.Minute); !ended {
				t.Errorf("%s: the connection stays open", name)
			}
		})
	}
	for range 20 {
		for _, path := range plainPaths {
			slow("one byte a second to "+path, "POST "+path+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n", true, 408)
		}
		slow("one byte a second of a large report", "POST /logger/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n"+strings.Repeat("x", 4<<10), true, 408)
	}
	for _, framing := range []string{"Content-Length: 5000\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 5000\r\nExpect: 100-continue\r\n"} {
		for _, path := range plainPaths {
			slow("no body to "+path, "POST "+path+" HTTP/1.1\r\nHost: localhost\r\n"+framing+"\r\n", false, 408)
		}
		for _, path := range []string{"/healthz", "/nowhere", "/ws/", "/schedule/x", "/schedule/s1.rtc.test/", "/u/v2/ws", "/u/nowhere"} {
			slow("a body that nobody wants to "+path, "POST "+path+" HTTP/1.1\r\nHost: localhost\r\n"+framing+"\r\n", false, 404, 405, 426)
			slow("a body that drips to "+path, "POST "+path+" HTTP/1.1\r\nHost: localhost\r\n"+framing+"\r\n", true, 404, 405, 426)
		}
		slow("a body of a refused method", "PUT /logger/ HTTP/1.1\r\nHost: localhost\r\n"+framing+"\r\n", true, 405)
	}
	for range 3 {
		tg.control(t)
	}
	wg.Wait()
	tg.control(t)
	tg.blameless(t)
}

// One source that takes all it may have takes nothing from others.
func TestOneSourceIsBounded(t *testing.T) { onEveryListener(t, oneGreedySource) }

func oneGreedySource(t *testing.T, attacked func(t testing.TB, https, extra string) *target) {
	tg := attacked(t, "max_connections_per_address = 60", "")
	from := func(address string) net.Dialer {
		return net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: time.Minute}
	}
	flood := func(t *testing.T, n int, first string) {
		greedy := from("127.0.0.9")
		for range n {
			c, err := greedy.Dial("tcp", tg.addr.String())
			if err != nil {
				continue
			}
			t.Cleanup(func() { c.Close() })
			io.WriteString(c, first)
		}
	}
	honest := func(t *testing.T) {
		t.Helper()
		d := from("127.0.0.8")
		c, err := tls.DialWithDialer(&d, "tcp", tg.addr.String(), tg.tls)
		if err != nil {
			t.Fatalf("another source: %v", err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200") {
			t.Errorf("another source: got %q, %v, want 200", b, err)
		}
	}
	for name, first := range map[string]string{"half a ClientHello": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "silence": "", "STUN": "\x00\x01\x00\x00\x21\x12\xa4\x42"} {
		t.Run(name, func(t *testing.T) {
			flood(t, 500, first)
			eventually(t, func() string {
				if n := tg.httpsCaps.Open(); n > 60 {
					return fmt.Sprintf("%d connections open, want 60 at most", n)
				}
				return ""
			})
			honest(t)
		})
		eventually(t, func() string {
			if n := tg.httpsCaps.Open(); n > 0 {
				return fmt.Sprintf("%d connections are counted after all were closed", n)
			}
			return ""
		})
	}
	tg.control(t)
}

// Thousands who stall, from one address, keep nobody out: not even who comes from
// the same address.
func TestThousandsOfSlowClients(t *testing.T) {
	tg := attacked(t, "header_timeout = \"5s\"\nhandshake_timeout = \"5s\"", "")
	var all []net.Conn
	var ends []io.Reader // where the end of a connection shows
	t.Cleanup(func() {
		for _, c := range all {
			c.Close()
		}
	})
	stall := func(n int, first string) {
		for i := range n {
			c, err := net.Dial("tcp", tg.addr.String())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, first)
			all, ends = append(all, c), append(ends, c)
			if i%500 == 499 {
				tg.control(t)
			}
		}
	}
	stall(2000, "")
	stall(1000, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+strings.Repeat("r", 32))
	for i := range 500 {
		a, err := tg.tryDial()
		if err != nil {
			t.Fatalf("slow head %d: %v", i, err)
		}
		a.send("GET /logger/ HTTP/1.1\r\nX: ")
		all, ends = append(all, a.NetConn()), append(ends, a)
	}
	tg.control(t)
	if n := tg.httpsCaps.HalfOpen(); n > edge.DefaultCaps.HalfOpenPerSource {
		t.Errorf("%d connections are half open, want %d at most", n, edge.DefaultCaps.HalfOpenPerSource)
	}
	for i, c := range all {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, ends[i]); isTimeout(err) {
			t.Fatalf("connection %d of %d is still open", i, len(all))
		}
	}
	eventually(t, func() string {
		if n := tg.httpsCaps.HalfOpen(); n > 0 {
			return fmt.Sprintf("%d connections are still half open", n)
		}
		return ""
	})
	tg.control(t)
	tg.blameless(t)
}

// A flood of connections from one address ends at its limits, and others are served.
func TestFloodOfConnections(t *testing.T) {
	tg := attacked(t, "max_connections_per_address = 500\n[https.limits]\ntls_handshakes_per_second = 300\n", "")
	greedy := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}, Timeout: time.Minute}
	var open []net.Conn
	most := 0
	for i := range 10_000 {
		c, err := greedy.Dial("tcp", tg.addr.String())
		if err != nil {
			continue // no port is left of so many that were closed
		}
		open = append(open, c)
		most = max(most, tg.httpsCaps.Open())
		if i%2000 == 1999 {
			tg.control(t)
			for _, c := range open {
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
			open = open[:0]
		}
	}
	if most > 500+20 {
		t.Errorf("%d connections were open, want 500 of the flood at most", most)
	}
	tg.control(t)
	tg.blameless(t)
}

// A WebSocket that is silent for longer than the usual idle limits of proxies is as
// good as before.
func TestSilentWebSocketsLiveOn(t *testing.T) {
	if testing.Short() {
		testnet.Lacks(t, "slow", "it takes 75 s, and -short was asked for")
	}
	t.Parallel()
	tg := attacked(t, "", "")
	var silent []*attacker
	for _, path := range wsPaths {
		silent = append(silent, tg.upgrade(t, path))
	}
	<-time.After(75 * time.Second) // what is waited for is that nothing happens
	for i, a := range silent {
		a.SetDeadline(time.Now().Add(time.Minute))
		if !a.echoes("after 75 s") {
			t.Errorf("%s: no echo after 75 s of silence", wsPaths[i])
		}
	}
	tg.blameless(t)
}
