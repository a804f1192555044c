package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
)

// attackedPlain starts a target with a listener of http-01, and returns it twice: the attacks
// of the second go to that listener.
func attackedPlain(t *testing.T) (tg, plain *target) {
	t.Helper()
	rec := newRecorder(t)
	port := testnet.FreePort(t)
	g := startGateWith(t, "", "", fmt.Sprintf(`
[tls]
mode = "acme"
[tls.acme]
terms_agreed = true
ca = "https://127.0.0.1:1/dir"
names = ["proxy.example.com"]
challenges = ["http-01"]
http_listen = "127.0.0.1:%d"
`, port)+rec.config(t, rec.Addr))
	tg = &target{gate: g, recorder: rec, addr: g.https, tls: g.trust(t)}
	at := *tg
	at.addr, at.tls = netip.AddrPortFrom(g.https.Addr(), port), nil
	return tg, &at
}

// What is tried on the edge's HTTP is tried on the port of http-01: one answer at most for a
// connection, to our own name or a refusal, and nothing arrives upstream.
func TestPlainHTTPUnderAttack(t *testing.T) {
	t.Parallel()
	tg, plain := attackedPlain(t)
	ours := fmt.Sprintf("https://proxy.example.com:%d/", tg.https.Port())
	refusals := []int{0, 400, 404, 405, 413, 414, 431, 501, 505}
	honest := func() {
		t.Helper()
		eventually(t, func() string { // while attackers have all places of this address
			a := plain.dial(t)
			defer a.NetConn().Close()
			a.send("GET /x?y=%20 HTTP/1.1\r\nHost: proxy.example.com\r\n\r\n")
			status, h, _ := a.response()
			if got := fmt.Sprint(status, " ", h.Get("Location")); got != "301 "+ours+"x?y=%20" {
				return "an honest browser: got " + got
			}
			return ""
		})
	}
	type row struct {
		name, bytes string
		want        []int // beside the refusals
	}
	var rows []row
	for n, f := range framings() {
		rows = append(rows, row{f.name, f.bytes(fmt.Sprintf("/attack%d", n)), nil})
	}
	for _, o := range tooBig() {
		rows = append(rows, row{o.name, o.bytes("/attack"), nil})
	}
	for n, l := range requestLines {
		want := []int{301} // where the line is read at all, it goes to our own name
		rows = append(rows, row{l.name, strings.ReplaceAll(l.line, "{x}", fmt.Sprintf("/attack%d.", n)) + "\r\nHost: localhost\r\n\r\n", want})
	}
	for _, line := range []string{
		"GET /.well-known/acme-challenge/", "GET /.well-known/acme-challenge/attack", "GET /.well-known/acme-challenge/../attack",
		"GET /.well-known/acme-challenge/%2e%2e/attack", "GET http://evil.example/attack", "GET https://evil.example/attack",
		"CONNECT evil.example:443", "CONNECT 127.0.0.1:1", "POST /attack", "PUT /attack", "DELETE /attack", "TRACE /attack",
		"PROPFIND /attack", "OPTIONS /attack", "POST /.well-known/acme-challenge/attack",
	} {
		rows = append(rows, row{line, line + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", nil})
	}
	for _, line := range []string{
		"GET //evil.example/attack", "GET ///evil.example", `GET /\evil.example/attack`, "GET /@evil.example/attack", "GET /%0d%0aX-Smuggled:%20smuggled",
		"HEAD /attack", "GET /?" + strings.Repeat("attack", 500), "GET /logger/attack", "GET /ws/attack", "GET /healthz",
	} {
		rows = append(rows, row{line, line + " HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{301}})
	}
	for _, host := range []string{"evil.example", "proxy.example.com.evil.example", "evil.example:80@proxy.example.com", "proxy.example.com/evil.example", "127.0.0.1", "", "a, b"} {
		rows = append(rows, row{"Host " + host, "GET /attack HTTP/1.1\r\nHost: " + host + "\r\n\r\n", nil})
	}
	rows = append(rows,
		row{"no Host", "GET /attack HTTP/1.1\r\n\r\n", nil},
		row{"HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", nil},
		row{"an upgrade to HTTP/2", "GET /attack HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", nil},
		row{"a ClientHello", stalls.tls[2] + "\r\n\r\n", nil},
	)
	queue := make(chan row)
	var wg sync.WaitGroup
	for range plainConnsPerSource - 4 {
		wg.Go(func() {
			for r := range queue {
				a, err := plain.tryDial()
				if err != nil {
					t.Errorf("%s: %v", r.name, err)
					continue
				}
				// What nobody reads any more need not be taken.
				go a.send(strings.ReplaceAll(r.bytes, "Host: localhost", "Host: proxy.example.com") + "GET /second HTTP/1.1\r\nHost: proxy.example.com\r\n\r\n")
				req := &http.Request{Method: strings.SplitN(r.bytes, " ", 2)[0]}
				res, err := http.ReadResponse(a.r, req)
				status, location := 0, ""
				if isTimeout(err) {
					status = -1
				} else if err == nil {
					status, location = res.StatusCode, res.Header.Get("Location")
					res.Body.Close()
				}
				if !slices.Contains(refusals, status) && !slices.Contains(r.want, status) {
					t.Errorf("%s: got %d, want one of %v", r.name, status, append(r.want, refusals...))
				}
				if location != "" && !strings.HasPrefix(location, ours) {
					t.Errorf("%s: sent to %s, want %s", r.name, location, ours)
				}
				a.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
				if second, _, _ := a.response(); second > 0 {
					t.Errorf("%s: a second answer, %d", r.name, second)
				}
				a.NetConn().Close()
			}
		})
	}
	for n, r := range rows {
		queue <- r
		if n%50 == 0 {
			honest()
			tg.control(t)
		}
	}
	close(queue)
	wg.Wait()
	if got := append(tg.received("attack"), tg.received("second")...); len(got) > 0 {
		t.Errorf("upstream received %d requests, the first %q", len(got), got[0].head)
	}
	honest()
	tg.control(t)
	tg.blameless(t)
}

// Who says little is cut, and takes the places of nobody else: neither those of
// another address, nor any on the edge.
func TestSlowClientsOfPlainHTTP(t *testing.T) {
	t.Parallel()
	tg, plain := attackedPlain(t)
	var wg sync.WaitGroup
	plain.cutAll(t, &wg, nil, append(slices.Clone(stalls.http), "POST / HTTP/1.1\r\nHost: proxy.example.com\r\nContent-Length: 5000\r\n\r\n"))
	for range 3 {
		tg.control(t)
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 8)}, Timeout: 10 * time.Second}
		c, err := d.Dial("tcp", plain.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: proxy.example.com\r\n\r\n")
		buf := make([]byte, 12)
		if n, err := c.Read(buf); string(buf[:n]) != "HTTP/1.1 301" {
			t.Errorf("another address: got %q, %v, want 301", buf[:n], err)
		}
		c.Close()
	}
	wg.Wait()
	tg.control(t)
	tg.blameless(t)
}
