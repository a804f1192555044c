package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/testnet"
)

// gate is a whole turngate on loopback, in the test process.
type gate struct {
	*app
	https    netip.AddrPort // HTTPS, wss, TURN over TLS and plain TURN over TCP
	turnUDP  netip.AddrPort
	turnTCP  netip.AddrPort
	dir      string // of the configuration file and the state
	user     string // of TURN
	password string
	logs     *logBuffer

	stopServe context.CancelFunc
	now       chan struct{}
	served    chan error
}

// startGate runs a turngate with a configuration that listens on free ports of
// loopback and has one TURN user; extra is TOML behind that and may hold any
// table but [tls], [https] and [turn].
func startGate(t testing.TB, extra string) *gate {
	t.Helper()
	return startGateWith(t, "", "", extra)
}

// startGateWith also adds keys to the tables [https] and [turn].
func startGateWith(t testing.TB, https, turn, extra string) *gate {
	t.Helper()
	g := &gate{
		dir: t.TempDir(), user: "turn", password: "a password of the test",
		logs: &logBuffer{}, now: make(chan struct{}), served: make(chan error, 1),
	}
	g.https = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), testnet.FreePort(t))
	g.turnUDP = netip.AddrPortFrom(g.https.Addr(), testnet.FreePort(t))
	g.turnTCP = g.turnUDP
	g.writeConfig(t, https, turn, extra)
	cfg, findings := config.Load(g.file())
	if cfg == nil {
		t.Fatal(findings)
	}
	level := new(slog.LevelVar)
	level.Set(slog.LevelInfo)
	a, err := newApp(cfg, slog.New(slog.NewJSONHandler(g.logs, &slog.HandlerOptions{Level: level})), level)
	if err != nil {
		t.Fatal(err)
	}
	g.app = a
	if err := a.admin.Listen(); err != nil { // before it serves, as the command does it
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.stopServe = cancel
	go func() { g.served <- a.serve(ctx, g.now) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-g.now:
		default:
			close(g.now) // no drain
		}
		if err := <-g.served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return g
}

func (g *gate) file() string { return filepath.Join(g.dir, "turngate.toml") }

func (g *gate) writeConfig(t testing.TB, https, turn, extra string) {
	t.Helper()
	text := fmt.Sprintf(`
layout = "external"
external_ip = "127.0.0.1"
state_dir = %q

[https]
listen = [%q]
%s

[turn]
listen = [%q]
realm = "test"
min_port = 22000
max_port = 22999
%s

[[turn.user]]
name = %q
password = %q

[drain]
websockets = "1s"
turn = "20s"

[admin]
socket = %q
`, filepath.Join(g.dir, "state"), g.https, https, g.turnUDP, turn, g.user, g.password, filepath.Join(g.dir, "admin.sock")) + extra
	if err := os.WriteFile(g.file(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// certFile is the self-signed certificate of the gate.
func (g *gate) certFile() string { return g.certs.State()[0].Cert }

// logBuffer holds what was logged.
type logBuffer struct{ testnet.LogBuffer }

// line returns the first log line that contains every word.
func (l *logBuffer) line(words ...string) string {
	for line := range strings.Lines(l.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return line
		}
	}
	return ""
}
