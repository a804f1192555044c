//go:build !linux

package setup

import (
	"os/exec"
	"syscall"
)

// startAs starts a program as a user.
func startAs(cmd *exec.Cmd, uid, gid int) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return cmd.Start()
}
