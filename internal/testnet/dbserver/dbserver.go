//go:build unix

// Package dbserver runs private PostgreSQL and Redis servers for tests: on a
// free port of loopback, in a directory of the test, ended with it. A server
// that the system runs is neither used nor touched.
package dbserver

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
)

// Server is a running database server. It can be stopped and started again
// with what it holds.
type Server struct {
	Port int

	t     testing.TB
	start func() *exec.Cmd
	stop  syscall.Signal
	run   *exec.Cmd
	out   bytes.Buffer
	done  chan struct{} // closed when run has ended
}

// Postgres starts PostgreSQL with an empty database "coturn" that the user
// "turn" may use with the password "turn".
func Postgres(t testing.TB) *Server {
	t.Helper()
	testnet.Need(t, "postgres")
	dir, as := ownDir(t)
	data := filepath.Join(dir, "data")
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("turn\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	init := exec.Command(testnet.Program("initdb"), "-D", data, "-U", "turn", "--pwfile", password,
		"-A", "scram-sha-256", "-E", "UTF8", "--locale", "C", "--no-sync")
	init.Dir, init.SysProcAttr = dir, as
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	s := &Server{Port: int(testnet.FreePort(t)), t: t, stop: syscall.SIGQUIT} // at once, with its children
	s.start = func() *exec.Cmd {
		cmd := exec.Command(testnet.Program("postgres"), "-D", data, "-p", strconv.Itoa(s.Port),
			"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off")
		cmd.Dir, cmd.SysProcAttr = dir, as
		return cmd
	}
	s.Start()
	return s
}

// Redis starts Redis with the password "turn".
func Redis(t testing.TB) *Server {
	t.Helper()
	testnet.Need(t, "redis")
	dir := t.TempDir()
	s := &Server{Port: int(testnet.FreePort(t)), t: t, stop: syscall.SIGKILL}
	s.start = func() *exec.Cmd {
		cmd := exec.Command(testnet.Program("redis-server"), "--port", strconv.Itoa(s.Port), "--bind", "127.0.0.1",
			"--requirepass", "turn", "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", dir)
		cmd.Dir = dir
		return cmd
	}
	s.Start()
	return s
}

// ownDir is a directory that the server's account owns. PostgreSQL refuses to
// run as root, so then it runs as the account of its package.
func ownDir(t testing.TB) (string, *syscall.SysProcAttr) {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		return dir, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(account.Uid)
	gid, _ := strconv.Atoi(account.Gid)
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // made by testing, for us alone
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return dir, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// Addr is where the server listens.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// Start starts the server and returns when it accepts connections.
func (s *Server) Start() {
	s.t.Helper()
	cmd := s.start()
	s.out.Reset()
	cmd.Stdout, cmd.Stderr = &s.out, &s.out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	s.run, s.done = cmd, done
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	s.t.Cleanup(s.Stop)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		if c, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr()); err == nil {
			c.Close()
			return
		}
		select {
		case <-retry.C:
		case <-done:
			s.t.Fatalf("%s ended:\n%s", cmd.Path, s.out.String())
		case <-ctx.Done():
			s.t.Fatalf("%s does not answer", cmd.Path)
		}
	}
}

// Stop ends the server as if it had crashed, and returns when it has ended.
func (s *Server) Stop() {
	select {
	case <-s.done:
	default:
		_ = s.run.Process.Signal(s.stop)
		<-s.done
	}
}
