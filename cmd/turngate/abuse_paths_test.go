package main

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// first sends a request on a connection of its own and returns the status of its answer.
func (tg *target) first(t testing.TB, request string) int {
	t.Helper()
	a := tg.dial(t)
	defer a.NetConn().Close()
	a.SetDeadline(time.Now().Add(time.Minute))
	a.send(request)
	status, _, _ := a.response()
	return status
}

// Paths that belong to nobody go nowhere.
func TestForeignPaths(t *testing.T) {
	tg := attacked(t, "", "")
	for _, path := range []string{
		"/", "/etc/passwd", "/wsx", "/wsx/", "/loggerx/", "/logger.x", "/LOGGER/", "/WS/", "/schedulex", "/ux", "/metrics",
		"/debug/pprof/", "/debug/vars", "/check/x", "/check/api", "/checkx", "/admin", "/status", "/server-status", "/.git/config", "/.env",
		"/.well-known/x", "/healthz/", "/healthz/x", "/readyz/../logger/", "//", "//logger/", "/x/logger/", "/?/logger/",
		"/%6cogger/", "/logger%2fx", "/schedule/", "/schedule/x", "/schedule/debug/", "/u/x", "/u/admin/", "/schedule//",
		"/u/healthz",
	} {
		t.Run(path, func(t *testing.T) {
			got := tg.first(t, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nX-Marker: foreign\r\n\r\n")
			if got != 404 && got != 400 {
				t.Errorf("got %d, want 404 or 400", got)
			}
		})
	}
	if all := tg.received("foreign"); len(all) > 0 {
		t.Errorf("upstream received %q", all[0].head)
	}
	tg.control(t)
	tg.blameless(t)
}

// No way of writing a dot segment, a slash or a control byte gets past the route.
func TestPathEscapes(t *testing.T) {
	tg := attacked(t, "", "")
	for n, escape := range []string{
		"..", "../", "../x", "./x", "a/../../x", "a/./x", "%2e%2e/x", "%2E%2E/x", ".%2e/x", "%2e./x", "%2e/x", "a/%2e%2e/x", "..%2fx", "%2e%2e%2fx", "a%2f..%2fx", "a%2Fb",
		"%00", "a%00b", "%0d%0aX: y", "%0a", "%7f", "%1b%5b2J", "%252e%252e/x", "%252e%252e%252fx", "a%252fb", "%2500", "%250d%250a",
		`..\x`, `a\..\x`, "..%5cx", "a%5cb", "%255c", "..;/x", "..;a=b/x", ".;/x", "%2e%2e;/x", "%2e%2e%3b/x", "a/..;/..;/x",
		"%c0%ae%c0%ae/x", "%c0%2e/x", "%e0%80%ae/x", "%c0%af", "%f0%80%80%af", "%ff", "%u002e%u002e/x", "%", "%2", "%zz", "%2%65",
		"..%00/x", "..%0d/x", "%2e%2e%00/x", "a/%252E%252e/%252e%252E/x",
	} {
		for m, prefix := range []string{"/logger/", "/ws/", "/schedule/api/v1/", "/schedule/s1.rtc.test/", "/u/v5/", "/u/v2/", "/u/"} {
			marker := fmt.Sprintf("escape%d-%d.", n, m)
			for _, extra := range []string{"Connection: close\r\n", upgradeFields} {
				got := tg.first(t, "GET "+prefix+escape+" HTTP/1.1\r\nHost: localhost\r\nX-Marker: "+marker+"\r\n"+extra+"\r\n")
				if got != 400 && got != 404 {
					t.Errorf("%s: got %v, want 400 or 404", prefix+escape, got)
				}
			}
			for _, e := range tg.received(marker) {
				t.Errorf("%s: upstream received %q", prefix+escape, e.head)
			}
		}
	}
	tg.control(t)
	tg.blameless(t)
}

// sink is a listener inside that nobody may be made to connect to.
func sink(t testing.TB) (addr string, untouched func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reached := make(chan string, 1)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				close(reached)
				return
			}
			select {
			case reached <- c.RemoteAddr().String():
			default:
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String(), func() {
		t.Helper()
		ln.Close()
		if from, ok := <-reached; ok {
			t.Errorf("somebody connected to the inner host from %s", from)
		}
	}
}

// Nothing in a request makes turngate connect to a host that is not configured.
func TestNoOpenProxy(t *testing.T) {
	tg := attacked(t, "", "")
	inner, untouched := sink(t)
	_, port, _ := net.SplitHostPort(inner)
	for _, row := range []struct {
		name, head string
		want       []int // statuses; 200: forwarded to our own upstream
	}{
		{"CONNECT to an inner host", "CONNECT {inner} HTTP/1.1\r\nHost: {inner}\r\n\r\n", []int{400, 404, 405, 501}},
		{"CONNECT to a path", "CONNECT /logger/ HTTP/1.1\r\nHost: {inner}\r\n\r\n", []int{400, 404, 405, 501}},
		{"CONNECT to ourselves", "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n", []int{400, 404, 405, 501}},
		{"an absolute target", "GET http://{inner}/ HTTP/1.1\r\nHost: {inner}\r\n\r\n", []int{400, 404, 421}},
		{"an absolute target below a route", "GET http://{inner}/logger/open HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{200, 400, 404, 421}},
		{"an absolute target that Host contradicts", "GET https://localhost/logger/open HTTP/1.1\r\nHost: {inner}\r\n\r\n", []int{200, 400, 404, 421}},
		{"an absolute target with user and password", "GET http://localhost@{inner}/logger/open HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{200, 400, 404, 421}},
		{"a foreign Host", "GET /logger/open HTTP/1.1\r\nHost: {inner}\r\n\r\n", []int{200, 400, 421}},
		{"a Host with a path", "GET /logger/open HTTP/1.1\r\nHost: localhost/x\r\n\r\n", []int{400, 200, 421}},
		{"a Host with a user", "GET /logger/open HTTP/1.1\r\nHost: a@{inner}\r\n\r\n", []int{400, 200, 421}},
		{"a Host with a blank", "GET /logger/open HTTP/1.1\r\nHost: localhost {inner}\r\n\r\n", []int{400, 421}},
		{"no Host", "GET /logger/open HTTP/1.1\r\n\r\n", []int{400}},
		{"a URL below the log route", "GET /logger/http://{inner}/open HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{200, 400, 404}},
		{"an authority below the log route", "GET /logger//{inner}/open HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{200, 400, 404}},
		{"an authority behind an at", "GET /logger/@{inner}/open HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{200, 400, 404}},
		{"a port below the log route", "GET /logger/:{port}/open HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{200, 400, 404}},
		{"another scheme", "GET ftp://{inner}/logger/ HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{400, 404}},
		{"a file", "GET file:///etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", []int{400, 404}},
		{"a WebSocket to an absolute target", "GET ws://{inner}/ws/open HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{101, 400, 404, 421}},
		{"an inner signaling domain in the path", "GET /schedule/127.0.0.1:{port}/open HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"an inner signaling domain", "GET /u/v2/ws?signalDomain={inner} HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"an allowed signaling domain with a port", "GET /u/v2/ws?signalDomain=s1.rtc.test:{port} HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"an allowed signaling domain behind a user", "GET /u/v2/ws?signalDomain={inner}%40s1.rtc.test HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"an allowed signaling domain before an at", "GET /u/v2/ws?signalDomain=s1.rtc.test@{inner} HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"an allowed signaling domain behind a path", "GET /u/v2/ws?signalDomain={inner}/s1.rtc.test HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"an allowed signaling domain behind a NUL", "GET /u/v2/ws?signalDomain={inner}%00.rtc.test HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"a suffix of an allowed domain", "GET /u/v2/ws?signalDomain=evilrtc.test HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"a prefix of an allowed domain", "GET /u/v2/ws?signalDomain=s1.rtc.test.evil.example HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"two signaling domains", "GET /u/v2/ws?signalDomain=s1.rtc.test&signalDomain={inner} HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"a signaling domain in another spelling", "GET /u/v2/ws?signalDomain=s1.rtc.test&SIGNALDOMAIN={inner} HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"an escaped second signaling domain", "GET /u/v2/ws?signalDomain=s1.rtc.test&signal%44omain={inner} HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"a domain that is a number", "GET /u/v2/ws?signalDomain=2130706433 HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"localhost", "GET /u/v2/ws?signalDomain=localhost HTTP/1.1\r\nHost: localhost\r\n" + upgradeFields + "\r\n", []int{403}},
		{"a quick start of an inner host", "POST /u/v4/sub?signalDomain={inner} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", []int{403}},
	} {
		t.Run(row.name, func(t *testing.T) {
			head := strings.NewReplacer("{inner}", inner, "{port}", port).Replace(row.head)
			if got := tg.first(t, head); !slices.Contains(row.want, got) {
				t.Errorf("got %d, want one of %v", got, row.want)
			}
		})
	}
	untouched()
	tg.control(t)
	tg.blameless(t)
}

// What a client writes about itself, about hops and for servers behind us stays with us.
func TestHeadersThatStayHere(t *testing.T) {
	tg := attacked(t, "", "")
	rows := []string{
		"X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.1, 10.0.0.1", "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-For: 192.0.2.1",
		"x-forwarded-for: ", "X-Forwarded-For: unknown", "X_Forwarded_For: 192.0.2.1", "X-Real-IP: 192.0.2.1", "X_Real_IP: 192.0.2.1",
		"Forwarded: for=192.0.2.1", "True-Client-IP: 192.0.2.1", "CF-Connecting-IP: 192.0.2.1", "Client-IP: 192.0.2.1",
		"X-Forwarded-Host: evil.example", "X-Forwarded-Proto: http", "X-Forwarded-Port: 1", "X-Forwarded-Server: x", "Via: 1.1 x",
		"X-Wsproxy-Upstream: ws://127.0.0.1:1/", "X-Wsproxy-Inboundhook: http://127.0.0.1:1/\r\nx-wsproxy-idletimeout: 1", "X-Accel-Redirect: /etc/passwd", "X-Original-URL: /admin", "X-Rewrite-URL: /admin",
		"X-HTTP-Method-Override: DELETE", "Proxy: http://192.0.2.1/", "Cookie: session=secret", "Authorization: Bearer secret",
		"TE: trailers", "Trailer: X-A", "Keep-Alive: timeout=9999", "Proxy-Authorization: Basic c2VjcmV0", "Proxy-Connection: keep-alive",
		"Proxy-Authenticate: x", "HTTP2-Settings: AAMAAABkAAQAAP__", "Connection: x-hop\r\nX-Hop: 1", "Connection: close, x-hop\r\nX-Hop: 1",
		"Connection: X-Forwarded-For", "Connection: cookie\r\nCookie: a=b", "Connection: sec-websocket-key", "Content_Length: 5",
		"Transfer_Encoding: chunked", "X_Under: score",
	}
	for n, row := range rows {
		t.Run(row, func(t *testing.T) {
			for m, path := range plainPaths {
				marker := fmt.Sprintf("row%d-%d.", n, m)
				a := tg.dial(t)
				a.send("GET " + path + marker + " HTTP/1.1\r\nHost: localhost\r\n" + row + "\r\n\r\n")
				if status, _, _ := a.response(); status != 200 {
					t.Errorf("%s: got %d, want 200", path, status)
				}
				if got := len(tg.received(marker)); got != 1 {
					t.Errorf("%s: %d requests upstream, want 1", path, got)
				}
			}
			for m, path := range wsPaths {
				if strings.HasPrefix(row, "Connection: close") {
					continue // no handshake
				}
				marker := fmt.Sprintf("wsrow%d-%d.", n, m)
				a := tg.dial(t)
				a.send("GET " + path + marker + " HTTP/1.1\r\nHost: localhost\r\n" + row + "\r\n" + upgradeFields + "\r\n")
				if status, _, _ := a.response(); status != 101 {
					t.Errorf("%s: got %d, want 101", path, status)
				}
				if got := len(tg.received(marker)); got != 1 {
					t.Errorf("%s: %d requests upstream, want 1", path, got)
				}
			}
		})
	}
	tg.control(t)
	tg.blameless(t) // the recorder knows each of them
}

// A proxy that is trusted says who the client is, and only it.
func TestForwardedForOfATrustedProxy(t *testing.T) {
	tg := attacked(t, `trusted_proxies = ["127.0.0.1"]`, "")
	a := tg.dial(t)
	a.send("GET /logger/trusted HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 198.51.100.2\r\n\r\n")
	if status, _, _ := a.response(); status != 200 {
		t.Errorf("got %d, want 200", status)
	}
	want := "192.0.2.1, 198.51.100.2, 127.0.0.1"
	if got := tg.received("/trusted"); len(got) != 1 || got[0].Header.Get("X-Forwarded-For") != want {
		t.Errorf("X-Forwarded-For upstream: got %q, want %q", got[0].Header, want)
	}
}

// Methods beyond those that reports and handshakes need are refused.
func TestMethods(t *testing.T) {
	tg := attacked(t, "", "")
	for _, method := range []string{"TRACE", "TRACK", "DEBUG", "PROPFIND", "XYZZY", "PUT", "DELETE", "PATCH", "CONNECT", "LINK", "get", "POSTS", "PRI"} {
		t.Run(method, func(t *testing.T) {
			for _, path := range slices.Concat(plainPaths, wsPaths, []string{"/healthz", "/readyz", "/nowhere"}) {
				a := tg.dial(t)
				a.send(method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nX-Marker: method\r\nContent-Length: 0\r\n\r\n")
				status, _, body := a.response()
				if status != 405 && status != 400 && status != 501 && status != 404 && status != 505 {
					t.Errorf("%s: got %d, want 405, 400 or 501", path, status)
				}
				if strings.Contains(body, "marker") || strings.Contains(body, "X-Marker") {
					t.Errorf("%s: the request came back: %q", path, body)
				}
			}
		})
	}
	if all := tg.received("X-Marker: method"); len(all) > 0 {
		t.Errorf("upstream received %q", all[0].head)
	}
	tg.control(t)
	tg.blameless(t)
}
