package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ErrInUse means that a living program serves the socket, most likely another
// turngate with the same configuration.
var ErrInUse = errors.New("another program is serving this socket: is a turngate running already?")

// unixListener removes its socket when it is closed, but never one that
// somebody else has put in its place.
type unixListener struct {
	net.Listener
	path string
	self fs.FileInfo
}

func listenUnix(opts Options) (net.Listener, error) {
	path, mode := opts.Socket, opts.Mode
	if mode == 0 {
		mode = 0o600
		if opts.Group != "" {
			mode = 0o660
		}
	}
	if len(path) > maxPath {
		return nil, fmt.Errorf("admin socket %s: the path has %d bytes, a socket's may have %d", path, len(path), maxPath)
	}
	gid, err := lookupGroup(opts.Group)
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil { // the socket's own mode protects it
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	defer unlock()
	if err := mayReplace(path); err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	ln, err := bindPrivately(path, mode, gid)
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	return ln, nil
}

// mayReplace reports nil when path is free or is a socket that nobody serves.
func mayReplace(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return errors.New("there is a file that is no socket; remove it or name another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		return ErrInUse
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("it belongs to somebody else: %w", err)
	}
	return fmt.Errorf("%w (%v)", ErrInUse, err) // a full queue: somebody lives, however slowly
}

// bindPrivately binds under another name, sets mode and group, and only then
// moves the socket into place: it is never there with rights it should not have.
func bindPrivately(path string, mode fs.FileMode, gid int) (_ net.Listener, err error) {
	temp := filepath.Join(filepath.Dir(path), "."+strconv.Itoa(os.Getpid()))
	os.Remove(temp) // of a process that died right here; the directory is locked
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: temp})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	defer func() {
		if err != nil {
			ln.Close()
			os.Remove(temp)
		}
	}()
	if gid >= 0 {
		if err := os.Lchown(temp, -1, gid); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(temp, mode); err != nil {
		return nil, err
	}
	self, err := os.Lstat(temp)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(temp, path); err != nil {
		return nil, err
	}
	return &unixListener{ln, path, self}, nil
}

func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.self) {
		os.Remove(l.path)
	}
	return l.Listener.Close()
}

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: l.path} }
