package setup

import (
	"net"
	"net/netip"
	"strings"
)

// Look reads the addresses of this machine. Names and Seen are left to who knows a
// resolver and a server.
func Look(domain string) (Network, error) {
	n := Network{Domain: domain}
	all, err := net.Interfaces()
	if err != nil {
		return n, err
	}
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || inner(i.Name) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return n, err
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if addr := p.Addr().Unmap(); err == nil && addr.IsGlobalUnicast() {
				n.Own = append(n.Own, Own{addr, i.Name})
			}
		}
	}
	// Documentation addresses: nothing is sent.
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		c, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		if a := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(); a.IsGlobalUnicast() {
			n.Out = append(n.Out, a)
		}
		c.Close()
	}
	return n, nil
}

// inner reports whether an interface is one of containers and virtual machines on this
// host, whose addresses nobody outside can use.
func inner(name string) bool {
	for _, p := range []string{"docker", "br-", "virbr", "cni", "podman", "lxcbr", "lxdbr", "flannel", "cali", "cilium", "kube-"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
