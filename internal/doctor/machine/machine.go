// Package machine reads what the operating system knows about itself and its
// sockets, for the self-test: port ranges, listening sockets, limits, counters,
// the clock. It reads Linux's /proc and /sys, without rights where the system
// allows it; what is not there is an error or an empty answer, never a guess.
package machine

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Machine is a view of a file system's root.
type Machine struct{ root fs.FS }

// This is the machine that the program runs on.
func This() Machine { return Machine{os.DirFS("/")} }

// New is a machine with the given root, for tests.
func New(root fs.FS) Machine { return Machine{root} }

// read returns a file's text without blanks around it; name has no leading slash.
func (m Machine) read(name string) (string, error) {
	b, err := fs.ReadFile(m.root, name)
	return strings.TrimSpace(string(b)), err
}

// network reads a file of /proc/net. That of the thread counts: threads may be in
// several network namespaces, and /proc/net is that of the first one.
func (m Machine) network(file string) (string, error) {
	text, err := m.read("proc/thread-self/net/" + file)
	if err != nil { // before Linux 3.17
		return m.read("proc/net/" + file)
	}
	return text, nil
}

// Number reads a file that holds one number.
func (m Machine) Number(name string) (int64, error) {
	text, err := m.read(name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// Range is a range of ports, both ends included.
type Range struct{ Lo, Hi uint16 }

// Overlap is what two ranges have in common.
func (r Range) Overlap(o Range) (Range, bool) {
	both := Range{max(r.Lo, o.Lo), min(r.Hi, o.Hi)}
	return both, both.Lo <= both.Hi
}

// Contains reports whether a port is in the range.
func (r Range) Contains(port uint16) bool { return r.Lo <= port && port <= r.Hi }

func (r Range) String() string { return fmt.Sprintf("%d-%d", r.Lo, r.Hi) }

// Ephemeral is the range that the system gives to programs that do not ask for a port.
func (m Machine) Ephemeral() (Range, error) {
	text, err := m.read("proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return Range{}, err
	}
	var r Range
	if _, err := fmt.Sscan(text, &r.Lo, &r.Hi); err != nil {
		return Range{}, err
	}
	return r, nil
}

// Reserved are the ranges that the system gives to nobody.
func (m Machine) Reserved() ([]Range, error) {
	text, err := m.read("proc/sys/net/ipv4/ip_local_reserved_ports")
	if err != nil {
		return nil, err
	}
	var list []Range
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		lo, hi, ranged := strings.Cut(part, "-")
		if !ranged {
			hi = lo
		}
		l, errLo := strconv.ParseUint(lo, 10, 16)
		h, errHi := strconv.ParseUint(hi, 10, 16)
		if err := errors.Join(errLo, errHi); err != nil {
			return nil, err
		}
		list = append(list, Range{uint16(l), uint16(h)})
	}
	return list, nil
}

// Uncovered returns the first part of a range that no range of the list covers.
func Uncovered(r Range, by []Range) (Range, bool) {
	by = slices.Clone(by)
	slices.SortFunc(by, func(a, b Range) int { return int(a.Lo) - int(b.Lo) })
	next := uint32(r.Lo)
	for _, b := range by {
		if uint32(b.Lo) > next {
			break
		}
		next = max(next, uint32(b.Hi)+1)
	}
	if next > uint32(r.Hi) {
		return Range{}, false
	}
	return Range{uint16(next), r.Hi}, true
}

// Socket is a socket that takes what comes: a listening TCP socket, or a UDP socket.
type Socket struct {
	Network string // "tcp" or "udp"
	Local   netip.AddrPort
	Drops   int64 // datagrams lost for a full buffer, UDP only
	inode   string
}

// Sockets lists listening TCP sockets and all UDP sockets of this network
// namespace.
func (m Machine) Sockets() ([]Socket, error) {
	var list []Socket
	read := 0
	for _, file := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := m.network(file)
		if err != nil {
			continue // no IPv6
		}
		read++
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			const listening = "0A"
			if len(f) < 10 || f[0] == "sl" || strings.HasPrefix(file, "tcp") && f[3] != listening {
				continue
			}
			local, ok := hexAddrPort(f[1])
			if !ok {
				continue
			}
			s := Socket{Network: file[:3], Local: local, inode: f[9]}
			if s.Network == "udp" {
				s.Drops, _ = strconv.ParseInt(f[len(f)-1], 10, 64)
			}
			list = append(list, s)
		}
	}
	if read == 0 {
		return nil, errors.New("/proc/net cannot be read")
	}
	return list, nil
}

// hexAddrPort reads "0100007F:0050": the address as words of the machine's byte
// order, the port as a number.
func hexAddrPort(s string) (netip.AddrPort, bool) {
	addr, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(addr)
	p, errPort := strconv.ParseUint(port, 16, 16)
	if err != nil || errPort != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	ip, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(p)), true
}

// Owner names the program that holds a socket, "" when this user may not know.
func (m Machine) Owner(s Socket) (name string, pid int) {
	entries, _ := fs.ReadDir(m.root, "proc")
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := path.Join("proc", e.Name(), "fd")
		fds, err := fs.ReadDir(m.root, dir)
		if err != nil {
			continue // another user's
		}
		for _, fd := range fds {
			to, err := fs.ReadLink(m.root, path.Join(dir, fd.Name()))
			if err == nil && to == "socket:["+s.inode+"]" {
				comm, _ := m.read(path.Join("proc", e.Name(), "comm"))
				return comm, id
			}
		}
	}
	return "", 0
}

// Unit is the systemd service that a process belongs to, "" without one.
func (m Machine) Unit(pid int) string {
	text, err := m.read(fmt.Sprintf("proc/%d/cgroup", pid))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(text) {
		for part := range strings.SplitSeq(strings.TrimSpace(line), "/") {
			if strings.HasSuffix(part, ".service") && !strings.HasPrefix(part, "user@") {
				return part
			}
		}
	}
	return ""
}

// OpenFiles is the limit of open files of a process, and how many it has open; have
// is -1 when this user may not know.
func (m Machine) OpenFiles(pid int) (have int, limit int64, err error) {
	dir := fmt.Sprintf("proc/%d", pid)
	text, err := m.read(dir + "/limits")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "Max open files")
		if f := strings.Fields(rest); ok && len(f) > 0 {
			if limit, err = strconv.ParseInt(f[0], 10, 64); f[0] == "unlimited" {
				limit, err = 1<<62, nil
			}
		}
	}
	have = -1
	if fds, err := fs.ReadDir(m.root, dir+"/fd"); err == nil {
		have = len(fds)
	}
	return have, limit, err
}

// UDPBufferErrors counts the datagrams that were lost for full receive buffers since
// the start of the system, or of the network namespace.
func (m Machine) UDPBufferErrors() (int64, error) {
	text, err := m.network("snmp")
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		if i := slices.Index(names, "RcvbufErrors"); i >= 0 && i < len(f) {
			return strconv.ParseInt(f[i], 10, 64)
		}
	}
	return 0, errors.New("/proc/net/snmp has no RcvbufErrors")
}

// Conntrack is how full the table of connections is. An error wraps
// fs.ErrNotExist when the kernel keeps none.
func (m Machine) Conntrack() (count, limit int64, err error) {
	if count, err = m.Number("proc/sys/net/netfilter/nf_conntrack_count"); err != nil {
		return 0, 0, err
	}
	limit, err = m.Number("proc/sys/net/netfilter/nf_conntrack_max")
	return count, limit, err
}

// auditTail is how much of the audit log is read.
const auditTail = 4 << 20

// SELinux reports whether it stops programs, and the newest denials of a program.
// An error is about the log alone.
func (m Machine) SELinux(program string) (enforcing bool, denials []string, err error) {
	if mode, err := m.Number("sys/fs/selinux/enforce"); err != nil || mode == 0 {
		return false, nil, nil
	}
	f, err := m.root.Open("var/log/audit/audit.log")
	if err != nil {
		return true, nil, err
	}
	defer f.Close()
	if s, ok := f.(io.Seeker); ok {
		if info, err := f.Stat(); err == nil && info.Size() > auditTail {
			_, _ = s.Seek(-auditTail, io.SeekEnd)
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, auditTail))
	if err != nil {
		return true, nil, err
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "avc:") && strings.Contains(line, "denied") && strings.Contains(line, `comm="`+program+`"`) {
			denials = append(denials, strings.TrimSpace(line))
		}
	}
	return true, denials, nil
}
