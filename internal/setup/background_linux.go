package setup

import (
	"os/exec"
	"runtime"
	"syscall"
)

const (
	capNetBindService = 10
	prSetNoNewPrivs   = 38
)

// startAs starts a program as a user who may bind ports below 1024 and gain nothing
// else.
func startAs(cmd *exec.Cmd, uid, gid int) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:      true,
		Credential:  &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
		AmbientCaps: []uintptr{capNetBindService},
	}
	// A connection is a descriptor, a WebSocket and a relay are two.
	const many = 1 << 20
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: many, Max: many}) != nil {
		var own syscall.Rlimit
		if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own) == nil {
			own.Cur = own.Max
			_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &own)
		}
	}
	err := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: what is forbidden to the thread ends with it
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
			err <- errno
			return
		}
		err <- cmd.Start()
	}()
	return <-err
}
