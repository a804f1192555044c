package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Background is a service on a host without systemd: a process of its own session
// and user, which may bind ports below 1024. Nothing starts it at boot.
type Background struct {
	Host   Host
	Name   string // of the user, and of its directories in /run, /var/lib and /var/log
	Binary string
	Args   []string
	// Ready waits until the program serves, or its context ends.
	Ready func(ctx context.Context) error
	// Drain ends it when its calls have, within a bound of its own.
	Drain func(ctx context.Context) error
}

func (b Background) pidFile() string { return b.Host.Path("/run/" + b.Name + "/" + b.Name + ".pid") }
func (b Background) logFile() string {
	return b.Host.Path("/var/log/" + b.Name + "/" + b.Name + ".log")
}

// pid is that of the running program, 0 if it does not run.
func (b Background) pid() int {
	text, err := os.ReadFile(b.pidFile())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || strings.TrimSuffix(exe, " (deleted)") != b.Binary {
		return 0
	}
	return pid
}

func (b Background) State(context.Context) (State, error) { return State{Active: b.pid() != 0}, nil }

func (b Background) Set(ctx context.Context, want State) error {
	switch pid := b.pid(); {
	case want.Active && pid == 0:
		return b.start(ctx)
	case !want.Active && pid != 0:
		return b.stop(ctx, pid)
	}
	return nil
}

func (b Background) Reload(context.Context) error {
	if pid := b.pid(); pid != 0 {
		return syscall.Kill(pid, syscall.SIGHUP)
	}
	return errors.New("it does not run")
}

func (b Background) Restart(ctx context.Context) error {
	if pid := b.pid(); pid != 0 {
		if err := errors.Join(b.Drain(ctx), b.stop(ctx, pid)); err != nil {
			return err
		}
	}
	return b.start(ctx)
}

// stop ends the program at once: a second signal ends the drain that the first began.
func (b Background) stop(ctx context.Context, pid int) error {
	tick := time.NewTicker(50 * time.Millisecond) // it is nobody's child here: there is no event to wait for
	defer tick.Stop()
	for n := 0; b.pid() == pid; n++ {
		if n%20 == 0 {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := os.Remove(b.pidFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (b Background) start(ctx context.Context) error {
	uid, gid, err := b.Host.Account(b.Name)
	if err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(b.pidFile()), filepath.Dir(b.logFile())} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
		if err := os.Chown(dir, uid, gid); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(b.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(b.Binary, b.Args...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+b.Host.Path("/run/"+b.Name), "STATE_DIRECTORY="+b.Host.Path("/var/lib/"+b.Name))
	if err := startAs(cmd, uid, gid); err != nil {
		return err
	}
	if err := os.WriteFile(b.pidFile(), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o644); err != nil {
		_ = cmd.Process.Kill()
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // lives as long as the program, or as this process
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- b.Ready(wait) }()
	select {
	case err := <-ended:
		_ = os.Remove(b.pidFile())
		if err == nil {
			err = errors.New("exit code 0")
		}
		return fmt.Errorf("it ended at once: %w", err)
	case err := <-ready:
		return err
	}
}

// Why is the end of its log.
func (b Background) Why(context.Context) string {
	text, _ := os.ReadFile(b.logFile())
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

func (b Background) How() string {
	return fmt.Sprintf("kill %d; its log is %s; nothing starts it at boot", b.pid(), b.logFile())
}
