package firewall

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Sysctls that matter to a relay. KernelNames lists those whose values a plan wants
// in Options.Kernel.
const (
	ctlEphemeral = "net.ipv4.ip_local_port_range"
	ctlReserved  = "net.ipv4.ip_local_reserved_ports"
	ctlReceive   = "net.core.rmem_max"
	ctlSend      = "net.core.wmem_max"
	ctlConntrack = "net.netfilter.nf_conntrack_max"
	ctlStream    = "net.netfilter.nf_conntrack_udp_timeout_stream"
)

// KernelNames are the sysctls to read.
func KernelNames() []string {
	return []string{ctlEphemeral, ctlReserved, ctlReceive, ctlSend, ctlConntrack, ctlStream}
}

const (
	socketBuffer = 4 << 20 // what the server asks for its sockets
	// A TURN permission lasts 300 seconds (RFC 8656 section 9); a connection table
	// that forgets a silent relay earlier shuts the way back.
	permissionTime = 300
)

// Advice is a sysctl that had better have another value.
type Advice struct {
	Name, Value, Why string
}

// Fix is the line for a file in /etc/sysctl.d.
func (a Advice) Fix() string { return "sysctl -w " + a.Name + "=" + a.Value }

// KernelAdvice compares the values of the kernel with what the plan needs. Values
// that are not known give no advice.
func (p *Plan) KernelAdvice() []Advice {
	var all []Advice
	if lo, hi, ok := portPair(p.Kernel[ctlEphemeral]); ok && hi >= p.Relay.Lo && lo <= p.Relay.Hi && !reserved(p.Kernel[ctlReserved], p.Relay, lo, hi) {
		value := p.Relay.String()
		if have := strings.TrimSpace(p.Kernel[ctlReserved]); have != "" {
			value = have + "," + value
		}
		all = append(all, Advice{ctlReserved, value,
			fmt.Sprintf("the relay range %s overlaps the ports %d-%d that the kernel gives to outgoing connections, which then take ports from relays", p.Relay, lo, hi)})
	}
	for _, name := range []string{ctlReceive, ctlSend} {
		if n, ok := number(p.Kernel[name]); ok && n < socketBuffer {
			all = append(all, Advice{name, fmt.Sprint(2 * socketBuffer), fmt.Sprintf("%s = %d cuts the socket buffers of 4 MiB that the server asks for: bursts of media are lost", name, n)})
		}
	}
	if p.NoTrack {
		return all
	}
	ports := int64(p.Relay.Hi) - int64(p.Relay.Lo) + 1
	// Each relay is two entries: its client and its media server.
	if n, ok := number(p.Kernel[ctlConntrack]); ok && n < 4*ports {
		all = append(all, Advice{ctlConntrack, fmt.Sprint(max(262144, 8*ports)),
			fmt.Sprintf("the connection table has %d entries for %d relay ports and everything else: when it is full, packets of everybody are dropped; --notrack keeps the relay range out of it", n, ports)})
	}
	if n, ok := number(p.Kernel[ctlStream]); ok && n < permissionTime {
		all = append(all, Advice{ctlStream, fmt.Sprint(permissionTime),
			fmt.Sprintf("the connection table forgets a silent UDP peer after %d seconds, and a relay remembers it for %d", n, permissionTime)})
	}
	return all
}

func number(s string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	return n, err == nil
}

func portPair(s string) (lo, hi uint16, ok bool) {
	f := strings.Fields(s)
	if len(f) != 2 {
		return 0, 0, false
	}
	l, err1 := strconv.ParseUint(f[0], 10, 16)
	h, err2 := strconv.ParseUint(f[1], 10, 16)
	return uint16(l), uint16(h), err1 == nil && err2 == nil
}

// reserved reports whether a list of ports ("8080,20000-29999") holds what the
// relay range and the ephemeral range share.
func reserved(list string, relay Ports, lo, hi uint16) bool {
	need := Ports{max(relay.Lo, lo), min(relay.Hi, hi)}
	var have []Ports
	for _, part := range strings.Split(strings.TrimSpace(list), ",") {
		a, b, isRange := strings.Cut(part, "-")
		if !isRange {
			b = a
		}
		if l, h, ok := portPair(a + " " + b); ok {
			have = append(have, Ports{l, h})
		}
	}
	slices.SortFunc(have, func(x, y Ports) int { return int(x.Lo) - int(y.Lo) })
	for _, h := range have {
		if h.Lo <= need.Lo && need.Lo <= h.Hi {
			if h.Hi >= need.Hi {
				return true
			}
			need.Lo = h.Hi + 1
		}
	}
	return false
}
