package browser

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
)

// Coturn is a running coturn: a TURN server of known quality, to check the
// harness itself against and to compare with.
type Coturn struct {
	Plain netip.AddrPort // UDP and TCP
	TLS   netip.AddrPort
	// User and Password are a long-term credential.
	User, Password string
}

// StartCoturn starts a coturn on free ports of loopback with the certificate.
// It ends with the test.
func StartCoturn(tb testing.TB, certPEM, keyPEM []byte) Coturn {
	tb.Helper()
	testnet.Need(tb, "coturn")
	program := testnet.Program("turnserver")
	dir := tb.TempDir()
	for name, data := range map[string][]byte{"cert.pem": certPEM, "key.pem": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	c := Coturn{Plain: FreePort(tb), TLS: FreePort(tb), User: "turn", Password: "turn"}
	cmd := exec.Command(program, "-n", "--lt-cred-mech", "--user="+c.User+":"+c.Password, "--realm=test",
		"--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--allow-loopback-peers", "--no-cli",
		fmt.Sprintf("--listening-port=%d", c.Plain.Port()), fmt.Sprintf("--tls-listening-port=%d", c.TLS.Port()),
		"--cert="+filepath.Join(dir, "cert.pem"), "--pkey="+filepath.Join(dir, "key.pem"),
		"--log-file=stdout", "--simple-log", "--pidfile="+filepath.Join(dir, "pid"), "--db="+filepath.Join(dir, "db"))
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	deadline := time.Now().Add(30 * time.Second)
	for _, addr := range []netip.AddrPort{c.Plain, c.TLS} {
		for {
			conn, err := net.Dial("tcp", addr.String())
			if err == nil {
				conn.Close()
				break
			}
			if time.Now().After(deadline) {
				tb.Fatalf("coturn does not answer: %v", err)
			}
			time.Sleep(20 * time.Millisecond) // a foreign program; there is no event to wait for
		}
	}
	return c
}

// FreePort returns a port of loopback that was free for TCP and UDP a moment ago:
// for programs, and configurations that name the port to others, for which port 0
// does not do.
func FreePort(tb testing.TB) netip.AddrPort {
	tb.Helper()
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), testnet.FreePort(tb))
}
