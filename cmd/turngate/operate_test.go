package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
)

// command runs a command of the operator against the gate.
func (g *gate) command(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	socket := filepath.Join(g.dir, "admin.sock")
	ctx := deadline(t)
	for { // the socket opens a moment after the gate
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	var out, err bytes.Buffer
	code = run(append(args, "--socket", socket), nil, &out, &err)
	return code, out.String(), err.String()
}

// allocate returns a client with an allocation.
func (g *gate) allocate(t testing.TB, network string, opts ...tc.Option) *tc.Client {
	t.Helper()
	addr := g.turnUDP
	if network == "tls" {
		addr = g.https
	}
	opts = append(opts, tc.TLS(&tls.Config{InsecureSkipVerify: true}))
	c, err := tc.Dial(deadline(t), network, addr.String(), tc.Auth{User: g.user, Password: g.password}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Allocate(deadline(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSessionsAreFilteredAndSorted(t *testing.T) {
	g := startGate(t, allowLoopback)
	peer := tc.NewPeer(t, "127.0.0.1")
	udp, tcp := g.allocate(t, "udp"), g.allocate(t, "tcp")
	far := g.allocate(t, "tls", tc.Local(netip.MustParseAddrPort("127.0.0.9:0")))
	if err := tcp.ChannelBind(deadline(t), 0x4000, peer.Addr()); err != nil {
		t.Fatal(err)
	}
	if err := tcp.SendChannel(deadline(t), 0x4000, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Receive(deadline(t)); err != nil {
		t.Fatal(err)
	}
	names := map[string]string{udp.LocalAddr().String(): "udp", tcp.LocalAddr().String(): "tcp", far.LocalAddr().String(): "far"}
	for _, tt := range []struct {
		args string
		want string
	}{
		{"", "udp tcp far"},
		{"--transport tcp", "tcp"},
		{"--client 127.0.0.9", "far"},
		{"--client 127.0.0.0/29", "udp tcp"},
		{"--client ::ffff:127.0.0.9", "far"},
		{"--user turn --transport tls", "far"},
		{"--user nobody", ""},
		{"--kind wss", ""},
		{"--kind turn --sort bytes", "tcp udp far"},
		{"--sort rate", "tcp udp far"},
		{"--client 127.0.0.9 --transport udp", ""},
	} {
		code, out, stderr := g.command(t, append([]string{"sessions", "--json"}, strings.Fields(tt.args)...)...)
		var all []Session
		if err := json.Unmarshal([]byte(out), &all); code != 0 || err != nil {
			t.Fatalf("sessions %s: code %d, %v, %s", tt.args, code, err, stderr)
		}
		var got []string
		for _, s := range all {
			got = append(got, names[s.Client])
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("sessions %s: got %v, want %s", tt.args, got, tt.want)
		}
	}
	for _, wrong := range []string{"--sort size", "--kind call", "--transport sctp", "--client here"} {
		if code, _, _ := g.command(t, append([]string{"sessions"}, strings.Fields(wrong)...)...); code != 2 {
			t.Errorf("sessions %s: exit code %d, want 2", wrong, code)
		}
	}
	_, table, _ := g.command(t, "sessions", "--transport", "tcp")
	for _, want := range []string{"turn/tcp", tcp.LocalAddr().String(), `"turn"`, peer.Addr().String(), "1.0 kB", "in "} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
	if _, all, _ := g.command(t, "sessions", "--json", "--transport", "tcp"); !strings.Contains(all, `"server": "`+g.turnTCP.String()) ||
		!strings.Contains(all, `"channel": 16384`) || !strings.Contains(all, `"expires"`) {
		t.Errorf("JSON of a session:\n%s", all)
	}
}

func TestBansAreListedAndLifted(t *testing.T) {
	g := startGateWith(t, "", "[turn.limits]\nauth_failures = 3\nban = \"1h\"", allowLoopback)
	if _, out, _ := g.command(t, "bans"); out != "nobody is banned\n" {
		t.Errorf("bans at the start: %q", out)
	}
	c, err := tc.Dial(deadline(t), "udp", g.turnUDP.String(), tc.Auth{User: "eve", Password: "guess"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 4 {
		if _, err := c.Allocate(deadline(t)); tc.Code(err) != 401 {
			t.Fatalf("a guess: %v, want 401", err)
		}
	}
	_, out, _ := g.command(t, "bans")
	if !strings.Contains(out, "127.0.0.1/32") || !strings.Contains(out, `"eve"`) || !strings.Contains(out, "h") {
		t.Errorf("bans:\n%s", out)
	}
	var list []turn.Ban
	_, out, _ = g.command(t, "bans", "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		t.Errorf("bans --json: %v %s", err, out)
	}
	if _, out, _ = g.command(t, "status"); !strings.Contains(out, "turngate bans") {
		t.Errorf("status does not tell of the ban:\n%s", out)
	}
	if g.logs.line("source banned", "127.0.0.1/32", "turngate unban 127.0.0.1") == "" {
		t.Errorf("no log line about the ban:\n%s", g.logs)
	}
	if code, _, _ := g.command(t, "unban", "there"); code != 2 {
		t.Errorf("unban of what is no address: exit code %d, want 2", code)
	}
	if code, out, stderr := g.command(t, "unban", "127.0.0.1"); code != 0 || out != "127.0.0.1 is answered again\n" {
		t.Errorf("unban: %d %q %q", code, out, stderr)
	}
	if code, _, stderr := g.command(t, "unban", "127.0.0.1"); code != 1 || !strings.Contains(stderr, "not banned") {
		t.Errorf("unban again: %d %q", code, stderr)
	}
	g.allocate(t, "udp")
}

func TestDrainReportsWhatIsLeftAndKeepsToItsLimit(t *testing.T) {
	g := startGate(t, allowLoopback)
	g.allocate(t, "udp")
	g.allocate(t, "tcp")
	if code, _, _ := g.command(t, "drain", "--limit", "0s"); code != 2 {
		t.Errorf("drain --limit 0s: exit code %d, want 2", code)
	}
	if code, out, stderr := g.command(t, "drain", "--limit", "1h"); code != 0 || out != "draining\n" {
		t.Fatalf("drain: %d %q %q", code, out, stderr)
	}
	ctx := deadline(t)
	for { // the second command wants to find the first at work
		var s Status
		_, out, _ := g.command(t, "status", "--json")
		if json.Unmarshal([]byte(out), &s) == nil && s.Drain != nil {
			if s.Drain.Allocations != 2 || time.Until(s.Drain.Until) < 50*time.Minute {
				t.Errorf("drain of an hour: %+v", s.Drain)
			}
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the status never said that the gate drains")
		}
	}
	code, out, stderr := g.command(t, "drain", "--limit", "1s", "--wait")
	if code != 0 || !strings.Contains(out, "0 WebSockets, 2 allocations, at most") || !strings.HasSuffix(out, "were left\n") {
		t.Errorf("drain --wait: %d\n%s%s", code, out, stderr)
	}
	select {
	case err := <-g.served:
		g.served <- err
	case <-ctx.Done():
		t.Fatal("the drain did not keep to its limit")
	}
	if g.logs.line("allocations were cut at the drain limit", `"allocations":2`) == "" {
		t.Errorf("no log line about what was cut:\n%s", g.logs)
	}
}

// One address cannot take every connection of the TURN ports, and others get
// theirs; what it gives back it can have again.
func TestConnectionsOfAnAddressAreBounded(t *testing.T) {
	const most = 40
	g := startGateWith(t, "", fmt.Sprintf("[turn.limits]\nconnections_per_address = %d", most), allowLoopback)
	held := func(local string) (open []net.Conn) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}}
		for range most + 10 {
			c, err := d.DialContext(deadline(t), "tcp", g.turnTCP.String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			_, _ = c.Write(tc.NewBuilder(tc.MethodBinding, tc.ClassRequest).Bytes())
			if _, err := io.ReadFull(c, make([]byte, 20)); err != nil {
				c.Close()
				continue
			}
			open = append(open, c)
		}
		return open
	}
	first := held("127.0.0.1")
	if len(first) != most {
		t.Errorf("%d connections of one address are served, want %d", len(first), most)
	}
	second := held("127.0.0.2")
	if len(second) != most {
		t.Errorf("%d connections of another address are served, want %d", len(second), most)
	}
	g.allocate(t, "udp") // no connection at all
	for _, c := range append(first, second...) {
		c.Close()
	}
	ctx := deadline(t)
	for again := held("127.0.0.1"); len(again) != most; again = held("127.0.0.1") { // the server notices the end in its time
		if ctx.Err() != nil {
			t.Fatal("what was given back cannot be had again")
		}
		for _, c := range again {
			c.Close()
		}
	}
}
