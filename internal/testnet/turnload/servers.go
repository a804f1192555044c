package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
)

// rig says where servers run.
type rig struct {
	dir       string // for their files
	turngate  string // binary
	coturn    string
	extra     string // lines for [turn] of turngate's configuration
	address   netip.Addr
	namespace string
	clientNS  string
	core      int // negative: not pinned
}

// process is a server that this program started.
type process struct {
	name string
	addr netip.AddrPort // UDP and TCP
	tls  netip.AddrPort // invalid: none
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// credential of all servers that are compared.
var credential = tc.Auth{User: "turn", Password: "turn"}

// startTurngate starts a turngate that is nothing but a TURN server, with its
// default limits.
func (g *rig) startTurngate(ctx context.Context) (*process, error) {
	port, err := g.freePort()
	if err != nil {
		return nil, err
	}
	https, err := g.freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(g.dir, "turngate")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "turngate.toml")
	text := fmt.Sprintf(`layout = "external"
external_ip = %q
state_dir = %q
signaling = []
logger = []

[https]
listen = ["%v:%d"]

[turn]
listen = ["%v:%d"]
realm = "r"
min_port = 20000
max_port = 29999
%s

[turn.peers]
allow = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]

[[turn.user]]
name = %q
password = %q

[admin]
socket = %q

[log]
level = "warn"
`, g.address, filepath.Join(dir, "state"), g.address, https, g.address, port, g.extra, credential.User, credential.Password, filepath.Join(dir, "admin.sock"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := g.start(ctx, "turngate", dir, port, g.turngate, "serve", "--config", file)
	if err == nil {
		p.tls = netip.AddrPortFrom(g.address, uint16(https))
	}
	return p, err
}

// startCoturn starts a coturn with one relay thread and the options of its
// documentation that do without TLS and its other ports.
func (g *rig) startCoturn(ctx context.Context) (*process, error) {
	port, err := g.freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(g.dir, "coturn")
	if err != nil {
		return nil, err
	}
	ip := g.address.String()
	return g.start(ctx, "coturn", dir, port, g.coturn, "-n", "-a", "-u", credential.User+":"+credential.Password, "-r", "r", "-m", "1",
		"--listening-ip="+ip, "--relay-ip="+ip, "-p", fmt.Sprint(port), "--min-port=30000", "--max-port=32700",
		"--allow-loopback-peers", "--no-cli", "--no-tls", "--no-dtls", "--log-file="+dir+"/coturn.log", "--simple-log", "-b", dir+"/db", "--pidfile="+dir+"/pid")
}

func (g *rig) start(ctx context.Context, name, dir string, port int, program string, args ...string) (*process, error) {
	if program == "" {
		return nil, errors.New(name + ": no program")
	}
	argv := append([]string{program}, args...)
	if g.core >= 0 {
		argv = append([]string{"taskset", "-c", fmt.Sprint(g.core)}, argv...)
	}
	if g.namespace != "" {
		argv = append([]string{"ip", "netns", "exec", g.namespace}, argv...)
	}
	p := &process{name: name, addr: netip.AddrPortFrom(g.address, uint16(port)), log: filepath.Join(dir, "output"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...) // each of them becomes the next, so the process id is the server's
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	if err := g.answers(ctx, p); err != nil {
		p.stop()
		text, _ := os.ReadFile(p.log)
		return nil, fmt.Errorf("%s: %w\n%s", name, err, text)
	}
	return p, nil
}

// answers waits until the server does.
func (g *rig) answers(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return inNamespace(g.clientNS, func() error {
		c, err := tc.Dial(ctx, "udp", p.addr.String(), tc.Auth{}, tc.Retransmit(50*time.Millisecond))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Binding(ctx)
		return err
	})
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the server and waits: one that is still dying would go on answering.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.done:
	case <-time.After(3 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// freePort looks for one below the ephemeral ports, where no socket of the load
// can come in between.
func (g *rig) freePort() (port int, err error) {
	for range 50 {
		port = 11000 + rand.IntN(8000)
		err = inNamespace(g.namespace, func() error {
			at := netip.AddrPortFrom(g.address, uint16(port))
			u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			if err != nil {
				return err
			}
			defer u.Close()
			t, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
			if err != nil {
				return err
			}
			return t.Close()
		})
		if err == nil {
			return port, nil
		}
	}
	return 0, err
}

// version of a server, for the table.
func version(program string, args ...string) string {
	out, err := exec.Command(program, args...).Output()
	if err != nil && len(out) == 0 {
		return "unknown"
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return first
}
