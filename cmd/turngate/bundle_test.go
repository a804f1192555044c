package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
	tc "github.com/turngate/turngate/internal/testnet/turnclient"
)

func unpack(t testing.TB, file string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for archive := tar.NewReader(zip); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "turngate-bundle/")] = string(text)
	}
}

// Every secret of a configuration, in every place where one can stand, and what
// clients send: none is in a bundle.
func TestABundleHoldsNoSecret(t *testing.T) {
	refused := testnet.ClosedAddress(t)
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	if err := os.WriteFile(kept, []byte("s3cret-of-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGateWith(t, "", "secrets = [\"s3cret-shared-with-pages\", \"file:"+kept+"\"]", `
[upstream]
proxy = "http://proxyuser:s3cret-of-the-proxy@`+refused+`"
[[signaling]]
path = "/ws/"
upstream = ["http://upstream.invalid/"]
add_headers = { "X-Api-Key" = "s3cret-in-a-field" }
[[signaling]]
path = "/chat/"
upstream = ["http://`+refused+`/"]
[signaling.hook.inbound]
url = "http://127.0.0.1:9/hook?key=s3cret-of-the-hook"
keys = { "k1" = "s3cret-that-signs-hooks-of-32-bytes" }
[turn.api]
path = "/ice"
tokens = ["s3cret-token-of-the-api"]
[[turn.user]]
name = "second"
password = "s3cret-of-the-second"
passwords = ["s3cret-before-the-change"]
`)
	// What clients send, in the log and elsewhere.
	g.get(t, "/ws/?userSig=s3cret-user-sig")
	g.get(t, "/ice?token=s3cret-token-of-the-api")
	if c, err := tc.Dial(deadline(t), "udp", g.turnUDP.String(), tc.Auth{User: "second", Password: "s3cret-guess"}); err == nil {
		_, _ = c.Allocate(deadline(t))
		c.Close()
	}
	g.log.Warn("a line that should not have been written", "err", "dial http://proxyuser:s3cret-of-the-proxy@"+refused+": s3cret-of-the-second")
	file := filepath.Join(dir, "bundle.tar.gz")
	var out, stderr bytes.Buffer
	if code := run([]string{"bundle", "--config", g.file(), "-o", file}, nil, &out, &stderr); code != 0 {
		t.Fatalf("code %d: %s%s", code, out.String(), stderr.String())
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v %v, want 0600", info.Mode(), err)
	}
	files := unpack(t, file)
	for _, want := range []struct{ file, words string }{
		{"config.toml", "[[signaling]]"}, {"status.json", `"listeners"`}, {"metrics.txt", "turngate_build_info"}, {"check.txt", "TG-0"},
		{"check.json", `"findings"`}, {"log.jsonl", "a line that should not have been written"}, {"goroutines.txt", "goroutine"},
		{"version.txt", "turngate "}, {"sockets.txt", "tcp "}, {"system.txt", "ip_local_port_range"}, {"heap.txt", "heap profile"},
	} {
		if !strings.Contains(files[want.file], want.words) {
			t.Errorf("%s lacks %q: %.200s", want.file, want.words, files[want.file])
		}
	}
	for name, text := range files {
		for line := range strings.Lines(text) {
			if strings.Contains(line, "s3cret") || strings.Contains(line, g.password) || strings.Contains(line, "proxyuser") {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
	if code := run([]string{"bundle", "--config", g.file(), "-o", file}, nil, &out, &stderr); code != 1 {
		t.Errorf("a bundle over another one: exit code %d, want 1", code)
	}
}

func TestABundleWithoutAServer(t *testing.T) {
	g := &gate{dir: t.TempDir(), user: "turn", password: "s3cret-of-a-user"}
	g.writeConfig(t, "", "", "")
	file := filepath.Join(g.dir, "b.tar.gz")
	var out, stderr bytes.Buffer
	// The file is wrong, and where the socket is by default somebody's turngate may run.
	socket := filepath.Join(g.dir, "admin.sock")
	if code := run([]string{"bundle", "--config", g.file(), "--socket", socket, "--local", "-o", file}, nil, &out, &stderr); code != 0 {
		t.Fatalf("code %d: %s%s", code, out.String(), stderr.String())
	}
	files := unpack(t, file)
	if !strings.Contains(files["status.json"], "no turngate is running") || !strings.Contains(files["check.txt"], "TG-191") {
		t.Errorf("status %q, check %q", files["status.json"], files["check.txt"])
	}
	for name, text := range files {
		if strings.Contains(text, "s3cret") {
			t.Errorf("%s holds the password", name)
		}
	}
}

func TestStatusIsOnePage(t *testing.T) {
	g := startGateWith(t, "", "[turn.limits]\nallocations = 1", allowLoopback)
	c := g.allocate(t, "udp")
	peer := tc.NewEcho(t, "127.0.0.1")
	if err := c.ChannelBind(deadline(t), 0x4000, peer.Addr()); err != nil {
		t.Fatal(err)
	}
	if err := c.SendChannel(deadline(t), 0x4000, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(deadline(t)); err != nil {
		t.Fatal(err)
	}
	full, err := tc.Dial(deadline(t), "tcp", g.turnTCP.String(), tc.Auth{User: g.user, Password: g.password})
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if _, err := full.Allocate(deadline(t)); tc.Code(err) != 508 {
		t.Fatalf("a relay too many: %v, want 508", err)
	}
	g.log.Error("something that an operator has to see", "upstream", "u.example.com")
	for ctx := deadline(t); ; { // the relay publishes its sums now and then
		if _, out, _ := g.command(t, "status"); strings.Contains(out, "1.0 kB up, 1.0 kB down") || ctx.Err() != nil {
			for _, want := range []string{"allocations    1, 1 made", "1.0 kB up", "limit held     turn.limits.allocations, 1 times",
				"last warnings  ", "ERROR: something that an operator has to see upstream=u.example.com", "running        pid ", "certificate ", "listens "} {
				if !strings.Contains(out, want) {
					t.Errorf("the status lacks %q:\n%s", want, out)
				}
			}
			break
		}
	}
	_, out, _ := g.command(t, "top")
	for _, want := range []string{"relays 1 ", "turn/udp", c.LocalAddr().String(), "limit turn.limits.allocations"} {
		if !strings.Contains(out, want) {
			t.Errorf("top lacks %q:\n%s", want, out)
		}
	}
	if code, out, _ := g.command(t, "top", "-n", "2", "-d", "100ms"); code != 0 || strings.Count(out, "relays 1 ") != 2 || !strings.Contains(out, "/s") {
		t.Errorf("two looks: %d\n%s", code, out)
	}
}

// Whatever there is to show, and whatever names clients have, it fits.
func TestTopFitsTheTerminal(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var v view
	v.status = Status{Version: "1.0", Started: at, Figures: Figures{At: at.Add(time.Second), LimitHits: map[string]float64{"a": 1, "b": 2, "c": 3}, RelayBytesUp: 5e6}}
	for range 20 {
		v.status.Upstreams = append(v.status.Upstreams, UpstreamState{Route: "/ws/", Upstream: strings.Repeat("u", 100), State: "down", Cause: "refused"})
	}
	for range 100 {
		v.sessions = append(v.sessions, Session{ID: "t1", Kind: "turn", Transport: "udp", Client: "[2001:db8:1111:2222:3333:4444:5555:6666]:65535", User: "\x1b[2Jé" + strings.Repeat("x", 300), Opened: at})
	}
	before := view{status: Status{Figures: Figures{At: at}}}
	for _, size := range [][2]int{{80, 24}, {40, 10}, {200, 100}, {20, 5}} {
		lines := v.lines(before, size[0], size[1])
		if len(lines) > size[1] {
			t.Errorf("%d lines on a terminal of %d", len(lines), size[1])
		}
		for _, l := range lines {
			if n := len([]rune(l)); n > size[0] || strings.Contains(l, "\x1b") {
				t.Errorf("%d columns on a terminal of %d: %q", n, size[0], l)
			}
		}
	}
	if text := strings.Join(v.lines(before, 120, 60), "\n"); !strings.Contains(text, "up 5.0 MB/s") || !strings.Contains(text, "and ") {
		t.Errorf("rates and the rest:\n%s", text)
	}
}
