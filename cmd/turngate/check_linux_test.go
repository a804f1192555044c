package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/testnet"
)

// checkedNetwork is a turngate of its own and a client, each in a network.
type checkedNetwork struct {
	server, client *testnet.Namespace
	dir            string
}

func startCheckedNetwork(t *testing.T) *checkedNetwork {
	t.Helper()
	testnet.Need(t, "xdp") // for the wire
	testnet.Need(t, "nftables")
	n := &checkedNetwork{testnet.NewNamespace(t), testnet.NewNamespace(t), t.TempDir()}
	testnet.Veth(t, n.server, "c0", n.client, "s0")
	n.server.Run(t, "ip addr add 10.1.0.1/24 dev c0")
	n.client.Run(t, "ip addr add 10.1.0.2/24 dev s0")
	text := fmt.Sprintf(`
layout = "intranet"
external_ip = "10.1.0.1"
state_dir = %q
signaling = []
logger = []
[https]
listen = [":8443"]
[turn]
listen = [":3478"]
min_port = 22000
max_port = 22999
[[turn.user]]
name = "turn"
password = "a password of the test"
[admin]
socket = %q
`, n.dir, filepath.Join(n.dir, "admin.sock"))
	if err := os.WriteFile(n.file(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	process := exec.Command("turngate", "serve", "--config", n.file())
	var log bytes.Buffer
	process.Stderr = &log
	var err error
	n.server.Do(func() { err = process.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	for ctx := deadline(t); run([]string{"status", "--config", n.file()}, nil, new(bytes.Buffer), new(bytes.Buffer)) != 0; {
		if ctx.Err() != nil {
			t.Fatal("turngate does not answer")
		}
	}
	return n
}

func (n *checkedNetwork) file() string { return filepath.Join(n.dir, "turngate.toml") }

// check runs the program in a network.
func (n *checkedNetwork) check(t *testing.T, in *testnet.Namespace, args ...string) (r doctor.Report) {
	t.Helper()
	cmd := exec.Command("turngate", append([]string{"check", "--json"}, args...)...)
	cmd.Env = append(os.Environ(), "TURNGATE_PASSWORD=a password of the test")
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	in.Do(func() { _ = cmd.Run() }) // its exit code says what the report says
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("check %v: %v\n%s%s", args, err, out.String(), stderr.String())
	}
	return r
}

// A firewall between client and server is told from a server that does not work,
// by the real program and real rules.
func TestCheckThroughAFirewall(t *testing.T) {
	n := startCheckedNetwork(t)
	client := func() doctor.Report {
		t.Helper()
		return n.check(t, n.client, "--from-client", "https://10.1.0.1:8443/", "--user", "turn", "--wss-path", "", "--log-path", "")
	}
	r := client()
	for _, c := range []doctor.Code{doctor.UDPOK, doctor.TCPOK, doctor.TLSOK, doctor.WebOK} {
		wantFinding(t, r, c, doctor.OK)
	}
	if m := pathOf(r, "media"); m.Status != doctor.OK {
		t.Errorf("media: %v", m)
	}

	n.client.Run(t, "nft add table inet wall", "nft add chain inet wall out { type filter hook output priority 0 ; }",
		"nft add chain inet wall in { type filter hook input priority 0 ; }", "nft add rule inet wall in udp sport 3478 drop")
	r = client()
	wantFinding(t, r, doctor.UDPSilent, doctor.Warn, "no answer")
	wantFinding(t, r, doctor.BlockedUDP, doctor.Warn, "TCP 3478, TLS 8443, plain TCP 8443")
	wantFinding(t, r, doctor.TCPOK, doctor.OK)
	if m := pathOf(r, "media"); m.Status != doctor.Warn {
		t.Errorf("media with UDP blocked: %v", m)
	}

	n.client.Run(t, "nft add rule inet wall out tcp dport 3478 reject with tcp reset")
	r = client()
	wantFinding(t, r, doctor.TCPRefused, doctor.Warn, "closed")
	wantFinding(t, r, doctor.BlockedUDP, doctor.Warn, "TLS 8443")

	n.client.Run(t, "nft add rule inet wall in tcp sport 8443 drop", "nft add rule inet wall out udp dport 3478 drop")
	r = client()
	wantFinding(t, r, doctor.WebSilent, doctor.Fail, "does not answer")
	wantFinding(t, r, doctor.UDPSilent, doctor.Fail, "firewall of this machine")
	wantFinding(t, r, doctor.BlockedMedia, doctor.Fail, "the media path is blocked")

	// On the server itself: the host's own firewall.
	r = n.check(t, n.server, "--config", n.file(), "--local")
	wantFinding(t, r, doctor.UDPOK, doctor.OK)
	for _, f := range found(r, doctor.FirewallBlocks) {
		if f.Status == doctor.Fail {
			t.Errorf("without a rule: %v", f)
		}
	}
	n.server.Run(t, "nft add table inet host", "nft add chain inet host in { type filter hook input priority 0 ; policy drop ; }",
		"nft add rule inet host in iif lo accept", "nft add rule inet host in tcp dport { 8443, 3478 } accept")
	r = n.check(t, n.server, "--config", n.file(), "--local")
	wantFinding(t, r, doctor.UDPOK, doctor.OK) // from the host itself
	wantFinding(t, r, doctor.FirewallBlocks, doctor.Fail, "3478/udp", "drops it")
}
