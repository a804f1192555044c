//go:build !unix

package edge

import (
	"fmt"
	"io/fs"
)

func owner(info fs.FileInfo) string { return fmt.Sprintf("mode %04o", info.Mode().Perm()) }

func whoami() string { return "this user" }
