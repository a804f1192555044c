//go:build unix

package admin

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// maxPath is the smallest sun_path of the systems we know, less the final NUL.
const maxPath = 103

// lockDir keeps two programs that start at the same moment from both finding
// the socket free. It locks the directory itself, which leaves no file behind.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { d.Close() }, nil
}

func lookupGroup(name string) (gid int, err error) {
	if name == "" {
		return -1, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}
