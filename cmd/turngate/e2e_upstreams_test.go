package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
)

// switcher is an upstream over plain HTTP that takes every WebSocket and says its name.
type switcher struct {
	*testnet.Upstream
	name  string
	heads chan string
}

func startSwitcher(t *testing.T, name string) *switcher {
	s := &switcher{name: name, heads: make(chan string, 1000)}
	s.Upstream = testnet.RawUpstream(t, nil, func(c net.Conn) {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		r := bufio.NewReader(c)
		head, key := "", ""
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if v, ok := strings.CutPrefix(strings.ToLower(line), "sec-websocket-key: "); ok {
				key = strings.TrimSpace(line[len(line)-len(v):])
			}
			if head += line; line == "\r\n" {
				break
			}
		}
		s.heads <- head
		if strings.HasPrefix(head, "GET /refuse") {
			_, _ = io.WriteString(c, "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
			return
		}
		_, _ = io.WriteString(c, s.answer(key))
		_, _ = io.Copy(io.Discard, r)
	})
	return s
}

func (s *switcher) answer(key string) string {
	return "HTTP/1.1 101 Of Course\r\nServer: x/1\r\nX_Name: " + s.name + "\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: " +
		testnet.AcceptKey(key) + "\r\n\r\n"
}

const sampleKey = "dGhlIHNhbXBsZSBub25jZQ=="

func handshakeFor(target string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: proxy.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + sampleKey + "\r\n\r\n"
}

// ask sends a request from an address of loopback and returns the head of the answer,
// with everything to the end of the connection when it is no 101.
func ask(t *testing.T, from string, to string, over *tls.Config, request string) string {
	t.Helper()
	d := net.Dialer{Timeout: time.Minute, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	var c net.Conn
	var err error
	if c, err = d.Dial("tcp", to); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if over != nil {
		c = tls.Client(c, over)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	head := ""
	for !strings.HasSuffix(head, "\r\n\r\n") {
		line, err := r.ReadString('\n')
		head += line
		if err != nil {
			return head
		}
	}
	if strings.HasPrefix(head, "HTTP/1.1 101 ") {
		return head
	}
	rest, _ := io.ReadAll(r)
	return head + string(rest)
}

func named(head string) string {
	_, name, _ := strings.Cut(head, "X_Name: ")
	name, _, _ = strings.Cut(name, "\r\n")
	return name
}

// Two lines make a route that behaves as Qrator's reverse proxy, over TLS.
func TestQratorPreset(t *testing.T) {
	a, b := startSwitcher(t, "a"), startSwitcher(t, "b")
	extra := fmt.Sprintf("\n[[signaling]]\npreset = \"qrator\"\nupstream = [\"http://%s\", \"http://%s\"]\n", a.Addr, b.Addr)
	g := startGate(t, extra)
	h1 := alpn(g.trust(t), "http/1.1")
	up := map[string]*switcher{"a": a, "b": b}
	head := ask(t, "127.0.0.1", g.https.String(), h1, handshakeFor("/any/where?x=%2F"))
	first := up[named(head)]
	if first == nil || head != first.answer(sampleKey) {
		t.Fatalf("got %q, want the upstream's 101 byte for byte", head)
	}
	if got := <-first.heads; !strings.HasPrefix(got, "GET /any/where?x=%2F HTTP/1.1\r\n") ||
		!strings.Contains(got, "X-Qrator-IP-Source: 127.0.0.1\r\n") || !strings.Contains(got, "X-Qrator-RequestID: ") || !strings.Contains(got, "X-Forwarded-For: 127.0.0.1\r\n") {
		t.Errorf("the upstream got %q", got)
	}
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"} {
		if got := ask(t, "127.0.0.1", g.https.String(), h1, request); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%q: %q, want 400", request, got)
		}
	}
	if status, _, res := g.get(t, "/"); status != http.StatusBadRequest || res.ProtoMajor != 2 {
		t.Errorf("over HTTP/2: %d %s, want 400", status, res.Proto)
	}
	if status, _, _ := g.get(t, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d, want 200: the route has no more than is left", status)
	}
	if got := ask(t, "127.0.0.1", g.https.String(), h1, handshakeFor("/refuse")); !strings.HasPrefix(got, "HTTP/1.1 403 ") || !strings.Contains(got, "Connection: close\r\n") || !strings.HasSuffix(got, "no") {
		t.Errorf("a refusal: %q", got)
	}
	status := func() string {
		text, err := json.Marshal(g.status().Upstreams)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := status(); strings.Count(got, `"state":"up"`) != 2 {
		t.Errorf("status: %s, want two that are up", got)
	}
	// The other one is gone; a reload does not forget it.
	extra = fmt.Sprintf("\n[[signaling]]\npreset = \"qrator\"\nhealth_check = \"connect\"\nhealth_interval = \"20ms\"\nupstream = [\"http://127.0.0.1:%d\", { url = \"http://%s\", backup = true }]\n", testnet.FreePort(t), a.Addr)
	g.writeConfig(t, "", "", extra)
	if _, err := g.reload(); err != nil {
		t.Fatal(err)
	}
	g.logs.await(t, "upstream down", "refused", "connect")
	if got := named(ask(t, "127.0.0.1", g.https.String(), h1, handshakeFor("/"))); got != "a" {
		t.Errorf("served by %q, want the backup", got)
	}
	if _, err := g.reload(); err != nil {
		t.Fatal(err)
	}
	if got := status(); !strings.Contains(got, `"state":"down"`) || !strings.Contains(got, `"cause":"refused"`) || !strings.Contains(got, `"backup":true`) {
		t.Errorf("status after a reload: %s", got)
	}
	families, err := g.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var values []float64
	for _, f := range families {
		if f.GetName() == "turngate_signaling_upstream_up" {
			for _, m := range f.GetMetric() {
				values = append(values, m.GetGauge().GetValue())
			}
		}
	}
	if len(values) != 2 || values[0]+values[1] != 1 {
		t.Errorf("turngate_signaling_upstream_up: %v, want one 0 and one 1", values)
	}
	var out bytes.Buffer
	showStatus(streams{out: &out}, g.status())
	if got := out.String(); !strings.Contains(got, "down, refused, since ") || !strings.Contains(got, "up, backup, ") {
		t.Errorf("turngate status says %q", got)
	}
}

// nginx hashes the first three bytes of an address: all clients of a network get one
// upstream.
func TestBesideNginxClientsOfOneNetwork(t *testing.T) {
	testnet.Need(t, "nginx")
	var ups []*switcher
	urls, servers := "", ""
	for _, name := range []string{"a", "b", "c"} {
		s := startSwitcher(t, name)
		ups = append(ups, s)
		urls += fmt.Sprintf("%q, ", "http://"+s.Addr)
		servers += "server " + s.Addr + "; "
	}
	g := startGate(t, "\n[[signaling]]\npath = \"/ws\"\nbalance = \"client_ip\"\nanswer = \"qrator\"\nupstream = ["+urls+"]\n")
	addr, dir := fmt.Sprintf("127.0.0.1:%d", testnet.FreePort(t)), t.TempDir()
	conf := fmt.Sprintf("daemon off; master_process off; pid nginx.pid; events {}\nhttp { access_log off; upstream all { ip_hash; %s } server { listen %s;\nlocation / { proxy_pass http://all; proxy_http_version 1.1;\nproxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; } } }", servers, addr)
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testnet.Program("nginx"), "-p", dir, "-c", "nginx.conf", "-e", "error.log")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			break
		} else if time.Now().After(end) {
			log, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Fatalf("nginx does not listen: %v\n%s", err, log)
		}
	}
	used := map[string]map[string]int{"nginx": {}, "turngate": {}}
	where := map[string]string{}
	h1 := alpn(g.trust(t), "http/1.1")
	for i := range 40 {
		from := netip.AddrFrom4([4]byte{127, 7, 7, byte(i + 1)}).String()
		used["nginx"][named(ask(t, from, addr, nil, handshakeFor("/ws")))]++
		where[from] = named(ask(t, from, g.https.String(), h1, handshakeFor("/ws")))
		used["turngate"][where[from]]++
	}
	if len(used["nginx"]) != 1 || len(used["turngate"]) != 3 {
		t.Errorf("40 clients of one /24: %v, want one upstream with nginx and three with turngate", used)
	}
	// One goes: its clients move, and nobody else.
	lost := ups[0]
	extra := "\n[[signaling]]\npath = \"/ws\"\nbalance = \"client_ip\"\nanswer = \"qrator\"\nupstream = [" + strings.Replace(urls, fmt.Sprintf("%q, ", "http://"+lost.Addr), "", 1) + "]\n"
	g.writeConfig(t, "", "", extra)
	if _, err := g.reload(); err != nil {
		t.Fatal(err)
	}
	for from, before := range where {
		now := named(ask(t, from, g.https.String(), h1, handshakeFor("/ws")))
		if before != lost.name && now != before || now == lost.name || now == "" {
			t.Errorf("%s moved from %s to %s, when %s went", from, before, now, lost.name)
		}
	}
}
