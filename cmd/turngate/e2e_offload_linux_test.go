package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/turngate/turngate/internal/testnet"
	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn/offload"
)

// kernelSite is a turngate of its own between clients and peers, each in a
// network of its own.
type kernelSite struct {
	server, clients, peers *testnet.Namespace
	dir                    string
	process                *exec.Cmd
	log                    bytes.Buffer
}

// startKernelSite starts turngate with keys of [turn] and an external address.
func startKernelSite(t *testing.T, external, keys string) *kernelSite {
	t.Helper()
	testnet.Need(t, "xdp")
	s := &kernelSite{
		server: testnet.NewNamespace(t), clients: testnet.NewNamespace(t), peers: testnet.NewNamespace(t),
		dir: t.TempDir(),
	}
	testnet.Veth(t, s.server, "c0", s.clients, "eth0")
	testnet.Veth(t, s.server, "p0", s.peers, "eth0")
	s.server.Run(t, "ip addr add 10.1.0.1/24 dev c0", "ip addr add fd01::1/64 dev c0 nodad",
		"ip addr add 10.2.0.1/24 dev p0", "ip addr add fd02::1/64 dev p0 nodad")
	s.clients.Run(t, "ip addr add 10.1.0.2/24 dev eth0", "ip addr add fd01::2/64 dev eth0 nodad")
	s.peers.Run(t, "ip addr add 10.2.0.2/24 dev eth0", "ip addr add fd02::2/64 dev eth0 nodad", "ip route add default via 10.2.0.1")
	s.configure(t, external, keys)
	s.process = exec.Command("turngate", "serve", "--config", s.file())
	s.process.Stderr = &s.log
	var err error
	s.server.Do(func() { err = s.process.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
		if t.Failed() {
			t.Log(s.log.String())
		}
	})
	s.awaits(t)
	return s
}

func (s *kernelSite) file() string { return filepath.Join(s.dir, "turngate.toml") }

func (s *kernelSite) configure(t *testing.T, external, keys string) {
	t.Helper()
	text := fmt.Sprintf(`
layout = "external"
external_ip = %s
state_dir = %q
[https]
listen = [":8443"]
[turn]
listen = [":3478"]
realm = "test"
min_port = 22000
max_port = 22999
%s
[[turn.user]]
name = "turn"
password = "a password of the test"
[turn.peers]
allow = ["10.2.0.0/24", "fd02::/64"]
[admin]
socket = %q
`, external, s.dir, keys, filepath.Join(s.dir, "admin.sock"))
	if err := os.WriteFile(s.file(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// awaits waits until the process answers.
func (s *kernelSite) awaits(t *testing.T) {
	t.Helper()
	for ctx := deadline(t); ; {
		if code, _, _ := s.try("status", "--json"); code == 0 {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("turngate does not answer:\n%s", s.log.String())
		}
	}
}

func (s *kernelSite) try(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(append(args, "--socket", filepath.Join(s.dir, "admin.sock")), nil, &out, &err)
	return code, out.String(), err.String()
}

// ask runs a command of the operator, which must succeed.
func (s *kernelSite) ask(t *testing.T, args ...string) string {
	t.Helper()
	code, out, stderr := s.try(args...)
	if code != 0 {
		t.Fatalf("turngate %v: code %d, %s", args, code, stderr)
	}
	return out
}

func (s *kernelSite) status(t *testing.T) (st Status) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.ask(t, "status", "--json")), &st); err != nil {
		t.Fatal(err)
	}
	return st
}

func (s *kernelSite) sessions(t *testing.T) (all []Session) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.ask(t, "sessions", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// signal stops the process or lets it go on, and returns when it has.
func (s *kernelSite) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := s.process.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if sig != syscall.SIGSTOP {
		return
	}
	for ctx := deadline(t); ctx.Err() == nil; {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.process.Process.Pid))
		if _, after, _ := bytes.Cut(stat, []byte(") ")); len(after) > 0 && after[0] == 'T' {
			return
		}
	}
	t.Fatal("the process does not stop")
}

// kernelCall is a client with a channel to a peer.
type kernelCall struct {
	client  *tc.Client
	peer    *tc.Peer
	relayed netip.AddrPort // as the peer sees it
	sent    uint64
}

const kernelChannel = 0x4000

func (s *kernelSite) call(t *testing.T, server, peer string, attrs ...tc.Attr) *kernelCall {
	t.Helper()
	var c kernelCall
	var err error
	s.peers.Do(func() { c.peer = tc.NewPeer(t, peer) })
	s.clients.Do(func() {
		c.client, err = tc.Dial(deadline(t), "udp", server, tc.Auth{User: "turn", Password: "a password of the test"})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.client.Close() })
	a, err := c.client.Allocate(deadline(t), attrs...)
	if err != nil {
		t.Fatal(err)
	}
	c.relayed = a.Relayed[0]
	if err := c.client.ChannelBind(deadline(t), kernelChannel, c.peer.Addr()); err != nil {
		t.Fatal(err)
	}
	return &c
}

// exchange sends n datagrams in each direction, and every one must come.
func (c *kernelCall) exchange(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		text := fmt.Appendf(nil, "datagram %d", i)
		if err := c.client.SendChannel(deadline(t), kernelChannel, text); err != nil {
			t.Fatal(err)
		}
		got, err := c.peer.Receive(deadline(t))
		if err != nil || !bytes.Equal(got.Payload, text) || got.From.Port() != c.relayed.Port() {
			t.Fatalf("datagram %d: the peer got %q from %v, %v", i, got.Payload, got.From, err)
		}
		if err := c.peer.Send(got.From, text); err != nil {
			t.Fatal(err)
		}
		back, err := c.client.Receive(deadline(t))
		if err != nil || !bytes.Equal(back.Payload, text) || back.Channel != kernelChannel {
			t.Fatalf("datagram %d: the client got %q, %v", i, back.Payload, err)
		}
		c.sent++
	}
}

func TestACallGoesOnInTheKernelWhileTheProcessIsStopped(t *testing.T) {
	for _, tt := range []struct {
		name, external, server, peer string
		family                       []tc.Attr
	}{
		{"IPv4", `"10.2.0.1"`, "10.1.0.1:3478", "10.2.0.2", nil},
		{"IPv6", `["10.2.0.1", "fd02::1"]`, "[fd01::1]:3478", "fd02::2", []tc.Attr{tc.RequestedAddressFamily(2)}},
		{"IPv4 to IPv6", `["10.2.0.1", "fd02::1"]`, "10.1.0.1:3478", "fd02::2", []tc.Attr{tc.RequestedAddressFamily(2)}},
		{"IPv6 to IPv4", `"10.2.0.1"`, "[fd01::1]:3478", "10.2.0.2", nil},
		{"behind a NAT, with its pair of addresses", `"203.0.113.5/10.2.0.1"`, "10.1.0.1:3478", "10.2.0.2", nil},
		{"behind a NAT that nobody wrote down", `"203.0.113.5"`, "10.1.0.1:3478", "10.2.0.2", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startKernelSite(t, tt.external, `offload = "native"`)
			c := s.call(t, tt.server, tt.peer, tt.family...)
			c.exchange(t, 3) // neighbours become known
			s.signal(t, syscall.SIGSTOP)
			c.exchange(t, 200)
			s.signal(t, syscall.SIGCONT)

			st := s.status(t).Offload
			if st.Mode != offload.Native || strings.Join(st.Interfaces, " ") != "c0 p0" || st.Bindings != 1 {
				t.Errorf("status %+v, want native on c0 and p0 with one channel", st)
			}
			ses := s.sessions(t)[0]
			if ses.PacketsUp != c.sent || ses.PacketsDown != c.sent || ses.InKernel != 1 {
				t.Errorf("session %+v: want %d datagrams each way, and its channel in the kernel", ses, c.sent)
			}
		})
	}
}

func TestKickDetachAndReloadInTheKernel(t *testing.T) {
	s := startKernelSite(t, `"10.2.0.1"`, `offload = "native"`)
	first, second := s.call(t, "10.1.0.1:3478", "10.2.0.2"), s.call(t, "10.1.0.1:3478", "10.2.0.2")
	first.exchange(t, 10)
	second.exchange(t, 10)

	// A kick: what the client still sends does not reach its peer.
	for _, ses := range s.sessions(t) {
		if ses.Client == first.client.LocalAddr().String() {
			s.ask(t, "kick", ses.ID)
		}
	}
	if got := s.status(t).Offload.Bindings; got != 1 {
		t.Errorf("%d channels in the kernel after the kick, want 1", got)
	}
	s.signal(t, syscall.SIGSTOP)
	if err := first.client.SendChannel(deadline(t), kernelChannel, []byte("too late")); err != nil {
		t.Fatal(err)
	}
	second.exchange(t, 10) // on the same wires, after it
	if n := first.peer.Pending(); n != 0 {
		t.Errorf("%d datagrams reached the peer of a kicked session", n)
	}
	s.signal(t, syscall.SIGCONT)

	// A reload that switches it off, and on again, while the call goes on.
	for _, mode := range []string{"off", "generic", "native"} {
		s.configure(t, `"10.2.0.1"`, fmt.Sprintf("offload = %q", mode))
		s.ask(t, "reload")
		second.exchange(t, 10)
		want, bindings := offload.Mode(mode), 1
		if mode == "off" {
			bindings = 0
		}
		if st := s.status(t).Offload; st.Mode != want || st.Bindings != bindings {
			t.Errorf("offload = %q: status %+v", mode, st)
		}
		if ses := s.sessions(t)[0]; ses.PacketsUp != second.sent {
			t.Errorf("offload = %q: %d datagrams counted, want %d", mode, ses.PacketsUp, second.sent)
		}
	}
	if out := s.ask(t, "status"); !strings.Contains(out, "native on c0 p0, 1 channels") {
		t.Errorf("status says:\n%s", out)
	}

	// A process that dies leaves nothing attached.
	if !s.attached(t) {
		t.Error("no program is attached while turngate runs")
	}
	if err := s.process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.process.Wait()
	if s.attached(t) {
		t.Error("a program is attached after turngate was killed")
	}
}

// It takes no root, but these capabilities.
func TestTheKernelPathWithCapabilitiesOnly(t *testing.T) {
	testnet.Need(t, "xdp")
	program, err := exec.LookPath("turngate")
	if err != nil {
		t.Fatal(err)
	}
	server := testnet.NewNamespace(t)
	testnet.Veth(t, server, "c0", testnet.NewNamespace(t), "eth0")
	server.Run(t, "ip addr add 10.1.0.1/24 dev c0")
	// A directory that another user reaches; those of tests are root's.
	dir, err := os.MkdirTemp("/var/tmp", "turngate-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &kernelSite{server: server, dir: dir}
	s.configure(t, `"10.1.0.1"`, `offload = "native"`)
	copied := filepath.Join(dir, "turngate")
	content, err := os.ReadFile(program)
	if err == nil {
		err = os.WriteFile(copied, content, 0o755)
	}
	for _, name := range []string{dir, s.file(), copied} {
		if err == nil {
			err = os.Chown(name, 65534, 65534)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	const caps = "-all,+bpf,+net_admin,+perfmon"
	s.process = exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
		"--bounding-set="+caps, "--inh-caps="+caps, "--ambient-caps="+caps, copied, "serve", "--config", s.file())
	s.process.Stderr = &s.log
	server.Do(func() { err = s.process.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
	})
	s.awaits(t)
	if st := s.status(t).Offload; st.Mode != offload.Native || len(st.Interfaces) != 1 {
		t.Errorf("status %+v, want native on c0", st)
	}
}

// attached reports whether an XDP program is attached to c0.
func (s *kernelSite) attached(t *testing.T) bool {
	t.Helper()
	var out []byte
	var err error
	s.server.Do(func() { out, err = exec.Command("ip", "link", "show", "c0").Output() })
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(out, []byte("prog/xdp"))
}

func TestAHostWithoutTheKernelPath(t *testing.T) {
	testnet.Need(t, "netns")
	for _, tt := range []struct {
		mode string
		code int
		want string
	}{
		{"auto", 0, "no kernel packet path, relaying in user space"},
		{"native", 1, `turn.offload = "native": CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON missing`},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			s := &kernelSite{server: testnet.NewNamespace(t), dir: t.TempDir()}
			s.configure(t, `"127.0.0.1"`, fmt.Sprintf("offload = %q", tt.mode))
			s.process = exec.Command("setpriv", "--bounding-set=-all", "--inh-caps=-all", "turngate", "serve", "--config", s.file())
			s.process.Stderr = &s.log
			var err error
			s.server.Do(func() { err = s.process.Start() })
			if err != nil {
				t.Fatal(err)
			}
			if tt.code == 0 {
				s.awaits(t)
				if st := s.status(t).Offload; st.Mode != offload.Off || !strings.Contains(st.Why, "CAP_BPF") {
					t.Errorf("status %+v, want off for want of CAP_BPF", st)
				}
				_ = s.process.Process.Kill()
			}
			_ = s.process.Wait()
			if got := strings.Count(s.log.String(), tt.want); got != 1 {
				t.Errorf("the log says %q %d times, want once:\n%s", tt.want, got, s.log.String())
			}
		})
	}
}
