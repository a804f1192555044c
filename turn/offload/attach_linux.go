//go:build amd64 || arm64

package offload

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// port is an interface that the program is attached to.
type port struct {
	name string
	wire wirePort
	link link.Link
}

func (p *port) close() { _ = p.link.Close() }

// errNoInterface is why nothing is attached when no interface is named.
var errNoInterface = errors.New("no Ethernet interface carries an address of a TURN listener or relay")

// anyWanted looks whether there is anything to attach to, before a program is
// loaded for nothing.
func (x *xdp) anyWanted() error {
	if len(x.o.Interfaces) > 0 {
		return nil // whatever is wrong with them is worth an error of its own
	}
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	addresses := x.addresses()
	if !slices.ContainsFunc(all, func(i net.Interface) bool { return x.wanted(i, addresses) }) {
		return errNoInterface
	}
	return nil
}

// attach attaches the program to the interfaces wanted.
func (x *xdp) attach() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := allowRoutes(); err != nil {
		return err
	}
	err := x.follow()
	switch {
	case len(x.ports) > 0 && (err == nil || len(x.o.Interfaces) == 0):
		x.say()
		return nil
	case err != nil:
		return err
	}
	return errNoInterface
}

// Refresh implements Engine.
func (x *xdp) Refresh() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return
	}
	if err := allowRoutes(); err != nil && (x.routes == nil || x.routes.Error() != err.Error()) {
		x.o.Log.Warn("the kernel packet path passes everything up", "err", err)
		x.routes = err
	}
	_ = x.follow()
	x.say()
}

// follow brings the attached interfaces in line with those that there are.
// x.mu is held.
func (x *xdp) follow() error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range x.o.Interfaces {
		if !slices.ContainsFunc(all, func(i net.Interface) bool { return i.Name == name }) {
			errs = append(errs, fmt.Errorf("interface %s: not on this host", name))
		}
	}
	addresses := x.addresses()
	gone := maps.Clone(x.ports)
	for _, ifi := range all {
		if p := x.ports[ifi.Index]; p != nil && p.name == ifi.Name {
			delete(gone, ifi.Index)
			x.renew(p, ifi)
		} else if x.wanted(ifi, addresses) {
			if err := x.attachTo(ifi); err != nil {
				errs = append(errs, err)
				x.skip(ifi.Name, err)
			}
		}
	}
	for index, p := range gone {
		p.close()
		_ = x.objects.Ports.Delete(uint32(index))
		delete(x.ports, index)
	}
	return errors.Join(errs...)
}

// skip remembers why an interface is left out.
func (x *xdp) skip(name string, err error) {
	if x.skipped[name] != err.Error() {
		x.skipped[name] = err.Error()
		x.unsaid = append(x.unsaid, name)
	}
}

// say logs what has been left out since the last time.
func (x *xdp) say() {
	for _, name := range x.unsaid {
		x.o.Log.Info("interface without the kernel packet path", "interface", name, "reason", x.skipped[name])
	}
	x.unsaid = nil
}

// addresses asks for the addresses that decide about interfaces.
func (x *xdp) addresses() []netip.Addr {
	if len(x.o.Interfaces) > 0 || x.o.Addresses == nil {
		return nil
	}
	return x.o.Addresses()
}

// wanted reports whether the program belongs on an interface.
func (x *xdp) wanted(ifi net.Interface, addresses []netip.Addr) bool {
	if len(x.o.Interfaces) > 0 {
		return slices.Contains(x.o.Interfaces, ifi.Name)
	}
	if ifi.Flags&net.FlagLoopback != 0 || ifi.Flags&net.FlagUp == 0 || len(ifi.HardwareAddr) != 6 {
		return false
	}
	// A bond's packets come in as those of its ports.
	if _, err := os.Stat(filepath.Join("/sys/class/net", ifi.Name, "bonding")); err == nil {
		return false
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		for _, want := range addresses {
			if want == p.Addr() || want.IsUnspecified() && want.Is4() == p.Addr().Is4() {
				return true
			}
		}
	}
	return false
}

func (x *xdp) attachTo(ifi net.Interface) error {
	if len(ifi.HardwareAddr) != 6 {
		return fmt.Errorf("interface %s: not Ethernet", ifi.Name)
	}
	flags := link.XDPDriverMode
	if x.o.Mode == Generic {
		flags = link.XDPGenericMode
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: x.objects.Turn, Interface: ifi.Index, Flags: flags})
	if err != nil {
		return explainAttach(ifi, x.o.Mode, err)
	}
	p := &port{name: ifi.Name, wire: x.describe(ifi), link: l}
	if err := x.objects.Ports.Put(uint32(ifi.Index), &p.wire); err != nil {
		p.close()
		return fmt.Errorf("interface %s: %w", ifi.Name, err)
	}
	x.ports[ifi.Index] = p
	delete(x.skipped, ifi.Name)
	return nil
}

// renew follows the hardware address of an interface, and what it can do.
func (x *xdp) renew(p *port, ifi net.Interface) {
	if len(ifi.HardwareAddr) != 6 {
		return
	}
	if now := x.describe(ifi); now != p.wire {
		if x.objects.Ports.Put(uint32(ifi.Index), &now) == nil {
			p.wire = now
		}
	}
}

// What wirePort.Out may hold.
const (
	outReturn   = 1
	outRedirect = 2
)

func (x *xdp) describe(ifi net.Interface) (w wirePort) {
	copy(w.MAC[:], ifi.HardwareAddr)
	w.Out = outReturn | outRedirect
	_, err := os.Stat(filepath.Join("/sys/class/net", ifi.Name, "device"))
	virtual := err != nil
	// A virtual interface hands over datagrams of the same machine whose
	// checksum was left to hardware that never came; a virtual machine's
	// does the same as long as no native program has told it not to.
	if virtual || x.o.Mode == Generic {
		w.Verify = 1
	}
	if x.o.Mode == Generic {
		return w
	}
	// A kernel that does not tell, before 6.3, may drop what is sent elsewhere without a word.
	if features, err := xdpFeatures(ifi.Index); err != nil || features&featureTransmit == 0 {
		w.Out = outReturn
		if virtual { // the other end of a pair has to be ready for either
			w.Out = 0
		}
	}
	return w
}

// attached names the interfaces. x.mu is held.
func (x *xdp) attached() (names []string) {
	for _, p := range x.ports {
		names = append(names, p.name)
	}
	slices.Sort(names)
	return names
}

// allowRoutes lets the program look up routes. The kernel answers it only for
// an interface that may forward; the program asks as if the packet came from
// the loopback interface, where nothing is ever to be forwarded, so allowing
// it there does not make the host a router.
func allowRoutes() error {
	for _, family := range []string{"ipv4", "ipv6"} {
		file := "/proc/sys/net/" + family + "/conf/lo/forwarding"
		have, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) && family == "ipv6" {
			continue // a host without IPv6
		}
		if err != nil {
			return err
		}
		if string(bytes.TrimSpace(have)) != "0" {
			continue
		}
		if err := os.WriteFile(file, []byte("1"), 0); err != nil {
			key := "net." + family + ".conf.lo.forwarding"
			return fmt.Errorf("%s is 0 and cannot be set here (%v): set it with sysctl -w %s=1, which does not make the host a router", key, err, key)
		}
	}
	return nil
}

// oldest is the first kernel with all that the program uses.
var oldest = [2]int{5, 10}

// Capabilities that loading and attaching need, by number. CAP_PERFMON is for
// offsets into packets that are known only at run time: without it the
// verifier guards against speculation and allows none.
var capabilities = []struct {
	number uint
	name   string
	admin  bool // CAP_SYS_ADMIN stands for it
}{{12, "CAP_NET_ADMIN", false}, {39, "CAP_BPF", true}, {38, "CAP_PERFMON", true}}

const capSysAdmin = 21

// prerequisites says what loading the program would fail for.
func prerequisites() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	release := unix.ByteSliceToString(u.Release[:])
	var have [2]int
	if _, err := fmt.Sscanf(release, "%d.%d", &have[0], &have[1]); err == nil && slices.Compare(have[:], oldest[:]) < 0 {
		return fmt.Errorf("kernel %s: %d.%d or later is needed", release, oldest[0], oldest[1])
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil // then the kernel will say
	}
	_, after, _ := strings.Cut(string(status), "CapEff:")
	var effective uint64
	if _, err := fmt.Sscanf(after, "%x", &effective); err != nil {
		return nil
	}
	var missing []string
	for _, c := range capabilities {
		have := effective&(1<<c.number) != 0 || c.admin && effective&(1<<capSysAdmin) != 0
		if !have {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s missing: add AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON to the unit, or run as root", strings.Join(missing, ", "))
	}
	return nil
}

// explainLoad says what an administrator can do about a program that is not
// loaded.
func explainLoad(err error) error {
	switch {
	case !hasBTF():
		return fmt.Errorf("%w: the kernel has no BTF type information (CONFIG_DEBUG_INFO_BTF)", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: the kernel wants CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON of the host (in a container: of its initial user namespace), and before 5.11 LimitMEMLOCK=infinity", err)
	}
	return err
}

// hasBTF reports whether the kernel describes its types. A function of the
// program that takes the context is verified by their names.
func hasBTF() bool {
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	return err == nil
}

func explainAttach(ifi net.Interface, mode Mode, err error) error {
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("interface %s: another XDP program is attached", ifi.Name)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("interface %s: the driver takes no %s XDP program at MTU %d and these settings (%w)", ifi.Name, mode, ifi.MTU, err)
	}
	return fmt.Errorf("interface %s: %w", ifi.Name, err)
}
