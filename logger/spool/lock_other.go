//go:build !unix

package spool

import "os"

// lockFile locks nothing here.
func lockFile(name string) (*os.File, error) { return os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600) }
