package turn_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/peers"
	"github.com/turngate/turngate/turn/relay"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// start runs a server on loopback with a UDP and a TCP listener on one port.
func start(t testing.TB, change func(*turn.Options)) (*turn.Server, netip.AddrPort) {
	t.Helper()
	allow, err := peers.ParseRule("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	o := turn.Options{
		Realm:     "r",
		Users:     []turn.User{{Name: "turn", Passwords: []string{"turn"}}},
		Secrets:   []string{"north"},
		Addresses: []turn.Address{{External: loopback, Local: loopback}},
		MinPort:   21000, MaxPort: 21999,
		Allow:        []peers.Rule{allow},
		RelayToRelay: true,
		Log:          slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&o)
	}
	s, err := turn.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	udp, err := s.OpenUDP(freeForBoth(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ServeUDP(udp); err != nil {
		t.Fatal(err)
	}
	serveStreams(t, s, udp.Addr(), nil)
	return s, udp.Addr()
}

// serveStreams accepts connections for the server at addr.
func serveStreams(t testing.TB, s *turn.Server, addr netip.AddrPort, config *tls.Config) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if config != nil {
				go s.ServeConn(tls.Server(&accepted{c, c.(syscall.Conn)}, config), turn.TLS)
			} else {
				go s.ServeConn(c, turn.TCP)
			}
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// accepted is a connection as the edge's are: what lies under TLS can be put on
// another one.
type accepted struct {
	net.Conn
	socket syscall.Conn
}

func (a *accepted) SyscallConn() (syscall.RawConn, error) { return a.socket.SyscallConn() }

func (a *accepted) Rebase(replace func(below net.Conn) (net.Conn, error)) error {
	below, err := replace(a.Conn)
	if err == nil {
		a.Conn = below
	}
	return err
}

// startPeer runs coturn's echo peer on a free port of loopback.
func startPeer(t *testing.T) (port string) {
	t.Helper()
	port = strconv.Itoa(int(testnet.FreePort(t)))
	cmd := exec.Command("turnutils_peer", "-L", "127.0.0.1", "-p", port)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	// It answers once it listens.
	probe, err := net.Dial("udp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for range 600 {
		probe.Write([]byte("ready?"))
		probe.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := probe.Read(make([]byte, 16)); err == nil {
			return port
		}
		<-retry.C
	}
	t.Fatal("turnutils_peer does not answer")
	return ""
}

var lostPackets = regexp.MustCompile(`Total lost packets (\d+)`)

// uclient runs coturn's client and returns what it printed.
func uclient(t *testing.T, server netip.AddrPort, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	args = append(args, "-p", strconv.Itoa(int(server.Port())), server.Addr().String())
	cmd := exec.CommandContext(ctx, "turnutils_uclient", args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("turnutils_uclient %s: %v\n%s", strings.Join(args, " "), err, tail(out))
	}
	return string(out)
}

// losesNothing runs coturn's client, and once more when it lost something: its
// own sockets overflow on a busy machine, and what we lose we lose twice.
func losesNothing(t *testing.T, server netip.AddrPort, args ...string) {
	t.Helper()
	for again := true; ; again = false {
		out := uclient(t, server, args...)
		lost := lostPackets.FindAllStringSubmatch(out, -1)
		switch {
		case len(lost) == 0:
			t.Fatalf("no result in:\n%s", tail([]byte(out)))
		case lost[len(lost)-1][1] == "0":
			return
		case !again:
			t.Fatalf("lost packets: got %s, want 0\n%s", lost[len(lost)-1][1], tail([]byte(out)))
		}
	}
}

func tail(p []byte) string {
	if len(p) > 2000 {
		p = p[len(p)-2000:]
	}
	return string(p)
}

func TestCoturnClientLosesNothing(t *testing.T) {
	testnet.Need(t, "coturn")
	testnet.Need(t, "ipv6")
	// Nothing may be lost, so nothing may become too old either while the
	// machine is busy with other tests.
	s, plain := start(t, func(o *turn.Options) {
		bothFamilies(o)
		o.Egress = relay.StreamLimits{Age: time.Minute, Bytes: 8 << 20}
	})
	cert, pemFiles := testCertificate(t)
	secure := serveStreams(t, s, netip.AddrPortFrom(loopback, 0), &tls.Config{Certificates: []tls.Certificate{cert}})
	peer := startPeer(t)
	tlsArgs := []string{"-t", "-S", "-i", pemFiles[0], "-k", pemFiles[1]}
	auth := []string{"-u", "turn", "-w", "turn", "-n", "10", "-m", "20", "-l", "170"}
	toPeer := []string{"-e", "127.0.0.1", "-r", peer}
	for _, tt := range []struct {
		name   string
		server netip.AddrPort
		args   []string
	}{
		{"UDP with channels", plain, toPeer},
		{"UDP with Send indications", plain, append([]string{"-s"}, toPeer...)},
		{"UDP client to client", plain, []string{"-y"}},
		{"UDP without RTCP", plain, append([]string{"-c"}, toPeer...)},
		{"TCP with channels", plain, append([]string{"-t"}, toPeer...)},
		{"TCP with Send indications", plain, append([]string{"-t", "-s"}, toPeer...)},
		{"TCP client to client", plain, []string{"-t", "-y"}},
		{"UDP with DONT-FRAGMENT", plain, append([]string{"-g", "-s"}, toPeer...)},
		{"UDP with padded ChannelData", plain, append([]string{"-D"}, toPeer...)},
		{"IPv6 relay", plain, []string{"-x", "-y"}},
		{"relays of both families", plain, []string{"-Z", "-y"}},
		{"mobility asked for", plain, []string{"-M", "-y", "-c"}},
		{"extra requests", plain, []string{"-G", "-y", "-c"}},
		{"TLS with channels", secure, append(tlsArgs, toPeer...)},
		{"TLS with Send indications", secure, append(append([]string{"-s"}, tlsArgs...), toPeer...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			losesNothing(t, tt.server, slices.Concat(auth, tt.args)...)
		})
	}
}

// TestCoturnClientsThatDisconnect at random: what was on its way to them is lost, and
// nothing else happens.
func TestCoturnClientsThatDisconnect(t *testing.T) {
	testnet.Need(t, "coturn")
	s, addr := start(t, nil)
	out := uclient(t, addr, "-u", "turn", "-w", "turn", "-n", "10", "-m", "20", "-l", "170", "-B", "-y", "-c")
	if !lostPackets.MatchString(out) {
		t.Errorf("no result in:\n%s", tail([]byte(out)))
	}
	serves(t, s, addr)
}

// TestCoturnClientMoves reconnects from other addresses with its tickets.
func TestCoturnClientMoves(t *testing.T) {
	testnet.Need(t, "coturn")
	for name, args := range map[string][]string{"over UDP": {"-c"}, "over TCP": {"-t", "-c"}, "with Send indications": {"-s", "-c"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, server := start(t, withMobility)
			losesNothing(t, server, append([]string{"-u", "turn", "-w", "turn", "-M", "-y", "-n", "10", "-m", "10"}, args...)...)
			if got := metric(t, s, "turngate_turn_moves_total"); got < 10 {
				t.Errorf("%v allocations moved, want at least 10", got)
			}
		})
	}
}

func TestCoturnClientWithTimeLimitedCredential(t *testing.T) {
	testnet.Need(t, "coturn")
	_, server := start(t, nil)
	out := uclient(t, server, "-u", "someone", "-W", "north", "-n", "5", "-m", "2", "-y")
	lost := lostPackets.FindAllStringSubmatch(out, -1)
	if len(lost) == 0 || lost[len(lost)-1][1] != "0" {
		t.Errorf("want 0 lost packets in:\n%s", tail([]byte(out)))
	}
}

func TestCoturnClientIsRefusedATCPRelay(t *testing.T) {
	testnet.Need(t, "coturn")
	_, server := start(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "turnutils_uclient", "-u", "turn", "-w", "turn", "-T", "-t", "-y", "-c",
		"-p", strconv.Itoa(int(server.Port())), "127.0.0.1").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "error 442") {
		t.Errorf("got %v, want it to end with error 442\n%s", err, tail(out))
	}
}

func TestCoturnStunClientLearnsItsAddress(t *testing.T) {
	testnet.Need(t, "coturn")
	_, server := start(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "turnutils_stunclient", "-p", strconv.Itoa(int(server.Port())), "127.0.0.1").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "UDP reflexive addr: 127.0.0.1:") {
		t.Errorf("turnutils_stunclient: %v\n%s", err, tail(out))
	}
}
