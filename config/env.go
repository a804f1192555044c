package config

import (
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Env is what loading looks at outside the configuration file. The zero Env
// is a machine with neither environment variables nor files.
type Env struct {
	// Lookup is os.LookupEnv.
	Lookup func(name string) (string, bool)
	// ReadFile returns the contents and the mode of a file. Of a large file it
	// may return the beginning.
	ReadFile func(path string) ([]byte, fs.FileMode, error)
	// Root says that the service runs as root, which decides on the default
	// directories.
	Root bool
}

// Machine is the Env of this process.
func Machine() Env {
	return Env{Lookup: os.LookupEnv, ReadFile: readFile, Root: os.Geteuid() == 0}
}

func (e Env) lookup(name string) (string, bool) {
	if e.Lookup == nil {
		return "", false
	}
	return e.Lookup(name)
}

func (e Env) readFile(path string) ([]byte, fs.FileMode, error) {
	if e.ReadFile == nil {
		return nil, 0, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return e.ReadFile(path)
}

// readFile reads at most 1 MiB, so that a path like /dev/zero costs nothing.
func readFile(path string) ([]byte, fs.FileMode, error) {
	// A pipe without a writer would block Open; it is refused by its mode.
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() && !strings.HasPrefix(path, "/proc/") {
		return nil, modeOf(info), err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	return data, info.Mode(), err
}

func modeOf(info fs.FileInfo) fs.FileMode {
	if info == nil {
		return 0
	}
	return info.Mode()
}

// ephemeralPorts returns the range from which the kernel takes the ports of
// outgoing connections, and the ports it keeps free of them.
func (e Env) ephemeralPorts() (ephemeral PortRange, reserved []PortRange, ok bool) {
	const dir = "/proc/sys/net/ipv4/"
	data, _, err := e.readFile(dir + "ip_local_port_range")
	if err != nil {
		return PortRange{}, nil, false
	}
	bounds := strings.Fields(string(data))
	if len(bounds) != 2 {
		return PortRange{}, nil, false
	}
	lo, errLo := strconv.ParseUint(bounds[0], 10, 16)
	hi, errHi := strconv.ParseUint(bounds[1], 10, 16)
	if errLo != nil || errHi != nil || lo > hi {
		return PortRange{}, nil, false
	}
	if data, _, err = e.readFile(dir + "ip_local_reserved_ports"); err == nil {
		for text := range strings.SplitSeq(strings.TrimSpace(string(data)), ",") {
			var r PortRange
			if r.UnmarshalText([]byte(text)) == nil {
				reserved = append(reserved, r)
			}
		}
	}
	return PortRange{uint16(lo), uint16(hi)}, reserved, true
}
