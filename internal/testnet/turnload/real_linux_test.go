package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/turngate/turngate/internal/testnet"
)

var turngate = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "turnload")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "turngate")
	text, err := exec.Command("go", "build", "-o", out, "../../../cmd/turngate").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, text)
	}
	return out, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := turngate(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// localRig is one on loopback, not pinned.
func localRig(t *testing.T) *rig {
	return &rig{dir: t.TempDir(), address: netip.MustParseAddr("127.0.0.1"), core: -1}
}

func started(t *testing.T, p *process, err error) *process {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

type printed struct {
	Direction string
	Best      result
	Steps     []result
}

// benched runs "turnload bench -json" and checks what holds for every run.
func benched(t *testing.T, p *process, flags string) printed {
	t.Helper()
	args := append([]string{"bench", "-server", p.addr.String(), "-user", credential.User, "-password", credential.Password,
		"-pid", strconv.Itoa(p.pid()), "-json"}, strings.Fields(flags)...)
	var stdout, stderr bytes.Buffer
	if code := run(args, &stdout, &stderr); code != 0 {
		t.Fatalf("%s %s: exit code %d\n%s", p.name, flags, code, &stderr)
	}
	var got printed
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatalf("%s %s: %v\n%s", p.name, flags, err, &stdout)
	}
	for _, r := range got.Steps {
		switch {
		case r.Delivered == 0:
			t.Errorf("%s %s: nothing was delivered: %+v", p.name, flags, r)
		case r.Sent != r.Delivered+r.Lost || r.Misdirected != 0 || r.Duplicated != 0:
			t.Errorf("%s %s: of %d sent %d were delivered and %d lost; %d misdirected, %d twice", p.name, flags, r.Sent, r.Delivered, r.Lost, r.Misdirected, r.Duplicated)
		case r.CPU.Server <= 0 || r.CPU.Generator <= 0 || r.Resident < 1<<20:
			t.Errorf("%s %s: CPU %v and %v, %d bytes resident", p.name, flags, r.CPU.Server, r.CPU.Generator, r.Resident)
		case r.Latency.P50 <= 0 || r.Latency.P50 > r.Latency.P99 || r.Latency.P99 > r.Latency.Max:
			t.Errorf("%s %s: latencies %+v", p.name, flags, r.Latency)
		}
	}
	return got
}

func TestBenchMeasuresTurngate(t *testing.T) {
	g := localRig(t)
	var err error
	if g.turngate, err = turngate(); err != nil {
		t.Fatal(err)
	}
	p, err := g.startTurngate(t.Context())
	started(t, p, err)
	for _, flags := range []string{
		"-direction up -allocations 10 -burst 3",
		"-direction down -allocations 10",
		"-direction both -allocations 10 -size 28",
		"-direction both -allocations 5 -client-net none -peer-net none -peer-addr 127.0.0.1",
		"-direction both -burst 30 -gso -gro",
		"-direction both -allocations 5 -transport tcp -size 121",
	} {
		got := benched(t, p, flags+" -rate 2000 -duration 200ms")
		if len(got.Steps) != 1 || got.Steps[0].Sent > 410 { // fewer only where the machine gave it no time
			t.Errorf("%s: %+v, want one step of at most 400 packets", flags, got.Steps)
		}
	}
	overTLS := *p
	overTLS.addr = p.tls
	benched(t, &overTLS, "-direction both -allocations 5 -transport tls -rate 2000 -duration 200ms")

	got := benched(t, p, "-rate search -from 500 -most 1000 -within 0.5 -duration 100ms")
	if len(got.Steps) < 2 || got.Best.Rate > 1000 {
		t.Errorf("search: %d steps, the best with %v packets/s", len(got.Steps), got.Best.Rate)
	}
}

func TestBenchMeasuresCoturn(t *testing.T) {
	testnet.Need(t, "coturn")
	g := localRig(t)
	g.coturn = testnet.Program("turnserver")
	p, err := g.startCoturn(t.Context())
	started(t, p, err)
	for _, flags := range []string{"-direction up", "-direction down", "-direction both -transport tcp"} {
		benched(t, p, flags+" -allocations 10 -rate 2000 -duration 200ms")
	}
}

func TestBenchSaysWhyItCannot(t *testing.T) {
	g := localRig(t)
	var err error
	if g.turngate, err = turngate(); err != nil {
		t.Fatal(err)
	}
	p, err := g.startTurngate(t.Context())
	started(t, p, err)
	for flags, want := range map[string]string{
		"-password wrong":              "401",
		"-cpu-of nobody-has-this-name": "no such thread",
		"-ns-client no-such-namespace": "no-such-namespace",
		"-pid 999999999":               "999999999",
	} {
		var stdout, stderr bytes.Buffer
		args := append([]string{"bench", "-server", p.addr.String(), "-user", credential.User, "-password", credential.Password, "-duration", "10ms"}, strings.Fields(flags)...)
		if code := run(args, &stdout, &stderr); code == 0 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: exit code %d and %q, want an error that says %q", flags, code, &stderr, want)
		}
	}
}

// TestBenchBetweenNamespaces measures with the server, its clients and its
// peers in namespaces of their own, as for the kernel's packet path.
func TestBenchBetweenNamespaces(t *testing.T) {
	testnet.Need(t, "netns")
	ip := func(args string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", args, err, out)
		}
	}
	name := func(s string) string { return fmt.Sprintf("tl%d%s", os.Getpid(), s) }
	server, client, peer := name("s"), name("c"), name("p")
	for _, ns := range []string{server, client, peer} {
		ip("netns add " + ns)
		t.Cleanup(func() { ip("netns del " + ns) })
		ip("-n " + ns + " link set lo up")
	}
	for i, ns := range []string{client, peer} {
		ip(fmt.Sprintf("-n %s link add v%d type veth peer name v0 netns %s", server, i, ns))
		ip(fmt.Sprintf("-n %s addr add 10.77.%d.1/24 dev v%d", server, i, i))
		ip(fmt.Sprintf("-n %s addr add 10.77.%d.2/24 dev v0", ns, i))
		ip(fmt.Sprintf("-n %s link set v%d up", server, i))
		ip(fmt.Sprintf("-n %s link set v0 up", ns))
		ip(fmt.Sprintf("-n %s route add default via 10.77.%d.1", ns, i))
	}
	g := localRig(t)
	g.address, g.namespace, g.clientNS = netip.MustParseAddr("10.77.0.1"), server, client
	var err error
	if g.turngate, err = turngate(); err != nil {
		t.Fatal(err)
	}
	p, err := g.startTurngate(t.Context())
	started(t, p, err)
	flags := "-rate 2000 -duration 200ms -direction both -allocations 5 -ns-client " + client + " -ns-peer " + peer
	benched(t, p, flags)
	benched(t, p, flags+" -transport tcp")

	// A whole prefix on one socket, where the namespaces take it for their own.
	ip("-n " + client + " route add local 10.78.0.0/16 dev lo")
	ip("-n " + peer + " route add local 10.79.0.0/16 dev lo")
	ip("-n " + server + " route add 10.78.0.0/16 via 10.77.0.2")
	ip("-n " + server + " route add 10.79.0.0/16 via 10.77.1.2")
	benched(t, p, flags+" -client-net 10.78.0.0/16 -peer-net 10.79.0.0/16")
}
