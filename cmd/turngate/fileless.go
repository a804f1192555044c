package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/pki"
)

// fileless is the configuration of a start without a file: everything found
// or made by itself, and kept where it has to last.
func fileless() (*config.Config, error) {
	dir := config.Default().StateDir
	password, err := kept(dir, "credential")
	if err != nil {
		return nil, err
	}
	starter := config.Starter{User: "turn", Password: password}
	if !bindable(443) {
		starter.HTTPS = config.Listen(netip.Addr{}, 8443)
	}
	cfg, findings := config.LoadBytes("", starter.TOML(), config.Machine())
	if err := findings.Err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// bindable reports whether the port can be listened on: it is allowed, and
// nobody else does.
func bindable(port uint16) bool {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// kept returns a random secret of this host that is made at the first start and
// stays the same.
func kept(dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	have, err := os.ReadFile(path)
	if secret := strings.TrimSpace(string(have)); err == nil && secret != "" {
		return secret, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("random %s: %w", name, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("random %s: %w; name a directory that may be written to with STATE_DIRECTORY", name, err)
	}
	secret := config.NewPassword()
	if err := pki.WriteSecret(path, []byte(secret+"\n")); err != nil { // the service's, also when root asks first
		return "", fmt.Errorf("random %s: %w", name, err)
	}
	return secret, nil
}
