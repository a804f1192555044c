package main

import (
	"errors"
	"io/fs"
	"net"
	"syscall"
)

func isPermission(err error) bool { return errors.Is(err, fs.ErrPermission) }

func isInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// noIPv6 reports whether a socket could not be opened because the host has no
// IPv6.
func noIPv6(err error) bool {
	var addr *net.AddrError
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.As(err, &addr)
}
