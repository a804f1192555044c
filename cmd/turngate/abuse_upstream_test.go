package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/turngate/turngate/internal/testnet"
)

// allPaths are requests on every route, WebSockets with their handshake.
func allPaths() map[string]string {
	all := make(map[string]string)
	for _, path := range plainPaths {
		all[path] = "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n"
	}
	for _, path := range wsPaths {
		all[path+" (WebSocket)"] = upgradeRequest(path)
	}
	return all
}

// An upstream whose certificate is not good receives not one byte of a request.
func TestUpstreamCertificates(t *testing.T) {
	tg := attacked(t, "", "")
	names := []string{"signal.test", "log.test", "schedule.test", "s1.rtc.test"}
	foreign := testnet.NewCA(t, "authority of somebody else")
	tg.control(t) // so that there could be TLS sessions to resume
	for _, row := range []struct {
		name string
		cert tls.Certificate
	}{
		{"of another authority", foreign.Issue(t, names...)},
		{"for another name", tg.ca.Issue(t, "other.test")},
		{"expired", tg.ca.IssueUntil(t, time.Now().Add(-time.Hour), names...)},
		{"for no name", tg.ca.Issue(t)},
		{"for the address only", tg.ca.Issue(t, "127.0.0.1")},
	} {
		t.Run(row.name, func(t *testing.T) {
			tg.CloseConnections()
			tg.SetCertificate(row.cert)
			for path, request := range allPaths() {
				if got := tg.first(t, request); got != 502 {
					t.Errorf("%s: got %d, want 502", path, got)
				}
			}
			if got := tg.received("HTTP/1.1"); len(got) != 2 { // of the control client
				t.Errorf("upstream received %q", got[len(got)-1].head)
			}
		})
	}
	tg.SetCertificate(tg.certificate(t))
	tg.control(t)
	for _, want := range names {
		if !slices.Contains(tg.ServerNames(), want) {
			t.Errorf("SNI: got %v, want also %s", tg.ServerNames(), want)
		}
	}
	tg.blameless(t)
}

// Whatever an upstream answers, the client gets a whole answer or a clean
// refusal soon, and memory stays where it was.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	tg := attacked(t, "", "")
	reset := func(c net.Conn) { tg.CloseConnections() }
	refused := []int{502, 504}
	for _, row := range []struct {
		name   string
		answer func(c net.Conn)
		want   []int // 0: a connection that breaks off
	}{
		{"a reset before the answer", reset, refused},
		{"a reset within the head", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-"); reset(c) }, refused},
		{"an end before the answer", func(c net.Conn) {}, refused},
		{"an end within the head", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Le") }, refused},
		{"an end within the body", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello") }, []int{0, 200, 502}},
		{"a reset within the body", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"); reset(c) }, []int{0, 200, 502}},
		{"no answer", func(c net.Conn) { io.Copy(io.Discard, c) }, []int{504}},
		{"half a head and silence", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "); io.Copy(io.Discard, c) }, []int{504}},
		{"one header without end", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "); pourInto(c, "x") }, refused},
		{"headers without end", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n"); pourInto(c, "X: y\r\n") }, refused},
		{"a status line without end", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 "); pourInto(c, "x") }, refused},
		{"informational answers without end", func(c net.Conn) { pourInto(c, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n") }, refused},
		{"100 without end", func(c net.Conn) { pourInto(c, "HTTP/1.1 100 Continue\r\n\r\n") }, refused},
		{"a few informational answers", func(c net.Conn) {
			io.WriteString(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\nSet-Cookie: a=b\r\n\r\n", 3)+"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}, []int{200}},
		{"garbage", func(c net.Conn) { pourInto(c, "\x00\xff garbage") }, refused},
		{"lines of nothing", func(c net.Conn) { pourInto(c, "\r\n") }, refused},
		{"HTTP/2", func(c net.Conn) { pourInto(c, "\x00\x00\x00\x04\x00\x00\x00\x00\x00") }, refused},
		{"HTTP/3.7", func(c net.Conn) { io.WriteString(c, "HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n") }, []int{200, 502}},
		{"status 99", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 099 x\r\nContent-Length: 0\r\n\r\n") }, refused},
		{"status 1000", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 1000 x\r\nContent-Length: 0\r\n\r\n") }, refused},
		{"status -1", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 -01 x\r\nContent-Length: 0\r\n\r\n") }, refused},
		{"101 nobody asked for", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n")
		}, refused},
		{"two lengths", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")
		}, refused},
		{"a length that is none", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello") }, refused},
		{"a transfer coding that is none", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: evil\r\n\r\nhello") }, refused},
		{"chunks that are none", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n") }, []int{0, 200, 502}},
		{"a CR in a value", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nX-A: b\rX-Injected: yes\r\nContent-Length: 0\r\n\r\n")
		}, []int{200, 502}},
		{"a NUL in a value", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nX-A: b\x00X-Injected: yes\r\nContent-Length: 0\r\n\r\n")
		}, []int{200, 502}},
		{"a name with a blank", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 0\r\n\r\n")
		}, []int{200, 502}},
		{"HTTP within the reason", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\rX-Injected: yes\r\nContent-Length: 0\r\n\r\n")
		}, []int{200, 502}},
		{"an answer behind the answer", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nX-Injected: yes\r\nContent-Length: 3\r\n\r\nbad")
		}, []int{200}},
		{"a redirect", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
		}, []int{302}},
	} {
		t.Run(row.name, func(t *testing.T) {
			tg.answerWith(t, func(c net.Conn, e *forwarded) bool {
				row.answer(c)
				return false
			})
			var wg sync.WaitGroup
			for path, request := range allPaths() {
				wg.Go(func() {
					a, err := tg.tryDial()
					if err != nil {
						t.Error(err)
						return
					}
					defer a.NetConn().Close()
					a.SetDeadline(time.Now().Add(time.Minute))
					a.send(request)
					status, h, _ := a.response()
					if !slices.Contains(row.want, status) {
						t.Errorf("%s: got %d, want one of %v", path, status, row.want)
					}
					if h.Get("X-Injected") != "" {
						t.Errorf("%s: a header was injected: %v", path, h)
					}
				})
			}
			wg.Wait()
		})
	}
	tg.answer.Store(nil)
	tg.control(t)
	tg.blameless(t)
}

// pourInto writes 8 MiB of a text, as long as somebody takes it.
func pourInto(c net.Conn, s string) {
	block := []byte(strings.Repeat(s, 1+4096/len(s)))
	for range (8 << 20) / len(block) {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

// Answers without end that no client takes are not held.
func TestFloodsOfUpstreams(t *testing.T) {
	tg := attacked(t, "", "")
	tg.costs(t, 24<<10, 8<<10, func(held func()) {
		tg.answerWith(t, func(c net.Conn, e *forwarded) bool {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") // a body without end
			pourInto(c, "x")
			io.Copy(io.Discard, c)
			return false
		})
		var clients []*attacker
		for range 8 {
			for _, request := range allPaths() {
				a := tg.dial(t) // and it does not read
				a.send(request)
				clients = append(clients, a)
			}
		}
		held()
		for _, a := range clients {
			a.NetConn().Close()
		}
	})
	tg.answer.Store(nil)
	tg.control(t)
	tg.blameless(t)
}

// zone is a DNS server on loopback that the process asks during a test.
type zone struct {
	answer atomic.Pointer[[4]byte] // nil: SERVFAIL
}

func startZone(t testing.TB) *zone {
	t.Helper()
	z := &zone{}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go z.serve(pc)
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
	t.Cleanup(func() {
		pc.Close()
		net.DefaultResolver = before
	})
	return z
}

func (z *zone) serve(pc net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) == 0 {
			continue
		}
		q := m.Questions[0]
		r := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions[:1]}
		if a := z.answer.Load(); a == nil {
			r.RCode = dnsmessage.RCodeServerFailure
		} else if q.Type == dnsmessage.TypeA {
			r.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: *a},
			}}
		}
		if b, err := r.Pack(); err == nil {
			pc.WriteTo(b, from)
		}
	}
}

// turngate starts without DNS and proxies as soon as it is there. A name that
// moves is followed without a reload, and one that moves to a host without the
// upstream's certificate leads to no request there.
func TestNamesThatMove(t *testing.T) {
	t.Parallel() // it waits; no test beside it asks DNS
	z := startZone(t)
	rec := newRecorder(t)
	port, err := strconv.Atoi(rec.Port())
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer(
		"https://signal.test/", fmt.Sprintf("https://moved.test:%d/", port),
		"https://log.test/", fmt.Sprintf("https://moved.test:%d/", port),
	).Replace(rec.config(t, rec.Addr))
	g := startGateWith(t, "", "", config)
	tg := &target{gate: g, recorder: rec, addr: g.https, tls: g.trust(t)}

	if status, _, _ := tg.get(t, "/healthz"); status != 200 {
		t.Errorf("without DNS: /healthz: got %d, want 200", status)
	}
	for _, request := range []string{"GET /logger/ HTTP/1.1\r\nHost: localhost\r\n\r\n", upgradeRequest("/ws/")} {
		if got := tg.first(t, request); got != 502 {
			t.Errorf("without DNS: got %d, want 502", got)
		}
	}
	z.answer.Store(&[4]byte{127, 0, 0, 1})
	eventually(t, func() string {
		if got := tg.first(t, "GET /logger/moved HTTP/1.1\r\nHost: localhost\r\n\r\n"); got != 200 {
			return fmt.Sprintf("with DNS again: got %d, want 200", got)
		}
		return ""
	})
	tg.control(t)

	// The name now leads to an inner host, where somebody else listens.
	foreign := testnet.NewCA(t, "authority of somebody else").Issue(t, "inner.test")
	inner, err := tls.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", port), &tls.Config{Certificates: []tls.Certificate{foreign}})
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	var arrived atomic.Int64
	go func() {
		for {
			c, err := inner.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				n, _ := io.Copy(io.Discard, c)
				arrived.Add(n)
			}()
		}
	}()
	z.answer.Store(&[4]byte{127, 0, 0, 2})
	moved := time.Now()
	eventually(t, func() string { // the last answer is used for 5 s
		if got := tg.first(t, upgradeRequest("/ws/moved")); got != 502 {
			return fmt.Sprintf("moved to another host: WebSocket: got %d, want 502", got)
		}
		if got := tg.first(t, "GET /logger/moved HTTP/1.1\r\nHost: localhost\r\n\r\n"); got != 502 {
			return fmt.Sprintf("moved to another host: report: got %d, want 502", got)
		}
		return ""
	})
	if d := time.Since(moved); d > 30*time.Second {
		t.Errorf("the move was followed after %v, want 30 s at most", d)
	}
	if n := arrived.Load(); n > 0 {
		t.Errorf("the inner host received %d bytes", n)
	}
	z.answer.Store(&[4]byte{127, 0, 0, 1})
	eventually(t, func() string {
		if got := tg.first(t, upgradeRequest("/ws/moved")); got != 101 {
			return fmt.Sprintf("moved back: got %d, want 101", got)
		}
		return ""
	})
	eventually(t, func() string {
		if got := tg.first(t, "GET /logger/moved HTTP/1.1\r\nHost: localhost\r\n\r\n"); got != 200 {
			return fmt.Sprintf("moved back: got %d, want 200", got)
		}
		return ""
	})
	tg.control(t)
	tg.blameless(t)
}
