package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/turngate/turngate/firewall"
)

// watchFirewall starts the process that takes a change back unless it is
// confirmed. It must outlive the terminal and the login session that it was
// started from. A session of its own is not enough where systemd ends all
// processes of a login with it (KillUserProcesses=), so there it becomes a
// service.
func watchFirewall(p firewall.Pending) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"firewall", "rollback", "--watch=" + p.ID}
	if firewall.Host().HasSystemd() {
		if path, err := exec.LookPath("systemd-run"); err == nil {
			if exec.Command(path, append([]string{"--quiet", "--unit=turngate-firewall-" + p.ID, "--description=Takes back an unconfirmed firewall change", exe}, args...)...).Run() == nil {
				return nil
			}
		}
	}
	cmd := exec.Command(exe, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// watchPending waits until a change is confirmed or its time is over, and takes it
// back then. It does not give up while the firewall is locked by somebody else.
func watchPending(ctx context.Context, s streams, host firewall.System, id string) error {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT)
	p, err := firewall.Waiting(host)
	if err != nil || p.ID != id {
		return nil
	}
	// The time is counted here: whoever sets the clock moves the deadline.
	late := time.NewTimer(p.Within)
	defer late.Stop()
	look := time.NewTicker(500 * time.Millisecond)
	defer look.Stop()
	for waiting := true; waiting; {
		select {
		case <-late.C:
			waiting = false
		case <-look.C:
			if now, err := firewall.Waiting(host); errors.Is(err, firewall.ErrNothingPending) || err == nil && now.ID != id {
				return nil
			}
		}
	}
	for try := 1; ; try++ {
		err := firewall.RollBack(ctx, host, id)
		if err == nil || errors.Is(err, firewall.ErrNothingPending) {
			return nil
		}
		if try == 30 {
			return fmt.Errorf("the change was not taken back: %w", err)
		}
		fmt.Fprintln(s.err, "turngate: taking the firewall change back:", err)
		time.Sleep(2 * time.Second)
	}
}
