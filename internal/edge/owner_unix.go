//go:build unix

package edge

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// owner describes who may reach a file: "owner root:root, mode 0600".
func owner(info fs.FileInfo) string {
	mode := fmt.Sprintf("mode %04o", info.Mode().Perm())
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return mode
	}
	group := strconv.Itoa(int(st.Gid))
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Sprintf("owner %s:%s, %s", userName(int(st.Uid)), group, mode)
}

// whoami names the user this process runs as.
func whoami() string { return "user " + userName(os.Geteuid()) }

func userName(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
