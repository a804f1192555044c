// Package setup changes a host step by step and can take every step back.
//
// A [Journal] notes on the disk how things were before each change, so that a
// failure, an interruption or a later wish puts them back exactly: files with
// their owners and modes, and whatever a caller registers an undo for. [Network]
// is what a host knows of its addresses, and [Network.Choose] what follows from
// it. A [Service] starts and stops the program, with systemd or without.
//
// The package knows no configuration and no firewall. All it touches is below
// [Host.Root], and all it runs is run by [Host.Run], so that it can be tried in
// any directory.
package setup

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A Host is how a machine is reached: its programs and files.
type Host struct {
	// Run runs a program with input and returns what it printed. The error of a
	// program that fails holds what it complained of.
	Run func(ctx context.Context, input, name string, args ...string) (string, error)
	// Has reports whether a program is installed.
	Has func(name string) bool
	// Account returns the numbers of a user and of the group of the same name.
	Account func(name string) (uid, gid int, err error)
	// Root is put before the paths of files; empty on the machine itself.
	Root string
}

// Path is where a file of the host lies.
func (h Host) Path(path string) string { return h.Root + path }

// Exists reports whether there is something at a path, a dangling link too.
func (h Host) Exists(path string) bool {
	_, err := os.Lstat(h.Path(path))
	return err == nil
}

// ReadFile reads a small file of the host.
func (h Host) ReadFile(path string) ([]byte, error) { return os.ReadFile(h.Path(path)) }

// A File is what a file of the host shall be.
type File struct {
	Path     string
	Data     []byte
	Mode     fs.FileMode
	UID, GID int
}

// Is reports whether the file is as wanted already.
func (h Host) Is(f File) bool {
	info, err := os.Lstat(h.Path(f.Path))
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != f.Mode.Perm() {
		return false
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != f.UID || int(st.Gid) != f.GID {
		return false
	}
	have, err := h.ReadFile(f.Path)
	return err == nil && bytes.Equal(have, f.Data)
}

// Write makes the file as wanted, whole or not at all, and on the disk when it
// returns. Its directory must be there.
func (h Host) Write(f File) (err error) {
	to := h.Path(f.Path)
	tmp, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(f.Data)
	err = errors.Join(err, tmp.Chown(f.UID, f.GID))
	if err == nil {
		err = errors.Join(tmp.Chmod(f.Mode.Perm()), tmp.Sync())
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), to)
}
