package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/doctor/machine"
)

// hostChecks are those of the machine that turngate runs on.
func hostChecks(m machine.Machine, cfg *config.Config, st *Status) []doctor.Check {
	pid := 0
	if st != nil {
		pid = st.PID
	}
	relays := machine.Range{Lo: cfg.TURN.MinPort, Hi: cfg.TURN.MaxPort}
	look := func(name string, f func() []doctor.Finding) doctor.Check {
		return doctor.Check{Name: name, Group: doctor.Host, Run: func(context.Context) []doctor.Finding { return f() }}
	}
	return []doctor.Check{
		look("relay range", func() []doctor.Finding { return checkRange(m, relays, st) }),
		look("listening sockets", func() []doctor.Finding { return checkSockets(m, cfg, pid) }),
		{Name: "firewall", Group: doctor.Host, Run: func(ctx context.Context) []doctor.Finding { return checkFirewall(ctx, cfg) }},
		look("SELinux", func() []doctor.Finding { return checkSELinux(m) }),
		look("clock", checkClock),
		look("limits", func() []doctor.Finding { return checkLimits(m, pid) }),
	}
}

// few is how many free relay ports are few: a sixteenth of the range, at most 64.
func few(r machine.Range) int { return min(64, (int(r.Hi)-int(r.Lo)+1)/16) }

func checkRange(m machine.Machine, r machine.Range, st *Status) (found []doctor.Finding) {
	ephemeral, err := m.Ephemeral()
	reserved, errReserved := m.Reserved()
	if both, overlap := r.Overlap(ephemeral); err == nil && overlap {
		if _, open := machine.Uncovered(both, reserved); open || errReserved != nil {
			found = append(found, doctor.As(doctor.RangeOverlap, "the relay range %s overlaps %s, the ports that the system gives to programs (%s)", r, both, ephemeral).
				Do("sysctl -w net.ipv4.ip_local_reserved_ports=%s, and the same line in /etc/sysctl.d/60-turngate.conf", both))
		}
	}
	if st != nil {
		if st.FreePorts <= few(r) {
			f := doctor.As(doctor.RangeFew, "%d of the relay ports %s are free", st.FreePorts, r)
			if st.FreePorts == 0 {
				f = f.At(doctor.Fail)
			}
			found = append(found, f)
		}
	} else if sockets, err := m.Sockets(); err == nil {
		taken := 0
		for _, s := range sockets {
			if s.Network == "udp" && r.Contains(s.Local.Port()) {
				taken++
			}
		}
		if taken > 0 {
			found = append(found, doctor.As(doctor.RangeTaken, "%d sockets of other programs are in the relay range %s", taken, r))
		}
	}
	if len(found) == 0 {
		text := fmt.Sprintf("the relay range %s is not given to other programs", r)
		if st != nil {
			text += fmt.Sprintf(", %d ports are free", st.FreePorts)
		}
		found = append(found, doctor.As(doctor.RangeOK, "%s", text))
	}
	return found
}

// wanted is a port that the configuration says to listen on.
type wanted struct {
	network string
	at      config.ListenAddr
	key     string
}

func wantedPorts(cfg *config.Config) (list []wanted) {
	for _, l := range cfg.HTTPS.Listen {
		list = append(list, wanted{"tcp", l, "https.listen"})
	}
	for _, l := range cfg.TURN.Listen {
		list = append(list, wanted{"tcp", l, "turn.listen"}, wanted{"udp", l, "turn.listen"})
	}
	return slices.DeleteFunc(list, func(w wanted) bool { return w.at.Port == 0 })
}

// holds reports whether a socket takes what a listener would.
func (w wanted) holds(s machine.Socket) bool {
	return s.Network == w.network && s.Local.Port() == w.at.Port &&
		(w.at.Wildcard() || s.Local.Addr().IsUnspecified() || s.Local.Addr() == w.at.Addr)
}

func checkSockets(m machine.Machine, cfg *config.Config, pid int) (found []doctor.Finding) {
	sockets, err := m.Sockets()
	if err != nil {
		return []doctor.Finding{doctor.As(doctor.FirewallUnknown, "listening sockets cannot be read: %v", err)}
	}
	ports := 0
	for _, w := range wantedPorts(cfg) {
		i := slices.IndexFunc(sockets, w.holds)
		switch {
		case i < 0 && pid != 0: // not running is a finding of its own
			found = append(found, doctor.As(doctor.FirewallNotOpen, "nobody listens on %s %s (%s)", w.network, w.at, w.key))
		case i >= 0:
			if name, holder := m.Owner(sockets[i]); holder != 0 && holder != pid && (pid != 0 || name != "turngate") {
				found = append(found, doctor.As(doctor.FirewallTaken, "%s %s (%s) is held by %s, process %d", w.network, w.at, w.key, name, holder))
			} else {
				ports++
			}
		}
	}
	if len(found) == 0 && ports > 0 {
		found = append(found, doctor.As(doctor.FirewallOK, "%d sockets listen where the configuration says", ports))
	}
	return found
}

// firewallCheck compares the rules of the host with the configuration. It is nil
// where no such comparison is built in; then only the kernel's own rules are looked at.
var firewallCheck func(ctx context.Context, cfg *config.Config) []doctor.Finding

func checkFirewall(ctx context.Context, cfg *config.Config) []doctor.Finding {
	if firewallCheck != nil {
		return firewallCheck(ctx, cfg)
	}
	out, err := exec.CommandContext(ctx, "nft", "list", "ruleset").CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return []doctor.Finding{doctor.As(doctor.FirewallUnknown, "the program nft is not installed: the host's firewall was not looked at")}
	case err != nil:
		return []doctor.Finding{doctor.As(doctor.FirewallUnknown, "the host's firewall cannot be read: run the check as root")}
	}
	return judgeRuleset(string(out), cfg)
}

// judgeRuleset finds ports that no rule names although the input chain drops what
// none does. It knows no more of the rules: jumps, sets and interfaces may let a
// port in all the same, so it warns.
func judgeRuleset(rules string, cfg *config.Config) []doctor.Finding {
	if !closedInput(rules) {
		return []doctor.Finding{doctor.As(doctor.FirewallOK, "the host's firewall lets everything in that no rule drops")}
	}
	var missing []string
	for _, w := range wantedPorts(cfg) {
		if !mentions(rules, w.network, w.at.Port) {
			missing = append(missing, fmt.Sprintf("%s %d", w.network, w.at.Port))
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return []doctor.Finding{doctor.As(doctor.FirewallBlocks, "the host's firewall drops what no rule names, and none names %s",
			strings.Join(slices.Compact(missing), ", ")).At(doctor.Warn)}
	}
	return []doctor.Finding{doctor.As(doctor.FirewallOK, "the host's firewall names every port of the configuration")}
}

// closedInput reports whether an input chain drops or rejects by its policy or its last rule.
func closedInput(rules string) bool {
	inside, last := false, ""
	for line := range strings.Lines(rules) {
		line = strings.TrimSpace(line)
		switch {
		case strings.Contains(line, "hook input"):
			if inside = true; strings.Contains(line, "policy drop") {
				return true
			}
			last = ""
		case inside && line == "}":
			if inside = false; strings.HasPrefix(last, "reject") || last == "drop" {
				return true
			}
		case line != "":
			last = line
		}
	}
	return false
}

// mentions reports whether a rule lets a port in. Services that have a name in nft are
// written by it.
func mentions(rules, network string, port uint16) bool {
	names := map[uint16][]string{443: {"443", "https"}, 3478: {"3478", "stun", "nat-stun-port"}}[port]
	if names == nil {
		names = []string{fmt.Sprint(port)}
	}
	for line := range strings.Lines(rules) {
		if !strings.Contains(line, "dport") || !strings.Contains(line, "accept") || !strings.Contains(line, network) && !strings.Contains(line, "th dport") {
			continue
		}
		for _, word := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" ,{}\t\n", r) }) {
			lo, hi, ranged := strings.Cut(word, "-")
			var l, h uint16
			if slices.Contains(names, word) {
				return true
			}
			if _, err := fmt.Sscan(lo+" "+hi, &l, &h); ranged && err == nil && l <= port && port <= h {
				return true
			}
		}
	}
	return false
}

func checkSELinux(m machine.Machine) []doctor.Finding {
	enforcing, denials, err := m.SELinux("turngate")
	switch {
	case !enforcing:
		return []doctor.Finding{doctor.As(doctor.SELinuxOK, "SELinux is off or stops nothing")}
	case err != nil:
		return []doctor.Finding{doctor.As(doctor.SELinuxUnknown, "the audit log cannot be read: run the check as root")}
	case len(denials) > 0:
		return []doctor.Finding{doctor.As(doctor.SELinuxDenied, "%d denials in the audit log, the last: %.200s", len(denials), denials[len(denials)-1])}
	}
	return []doctor.Finding{doctor.As(doctor.SELinuxOK, "SELinux enforces, and the audit log has no denial of turngate")}
}

// maxClockError is how far off a clock may be that is called right.
const maxClockError = 2 * time.Second

func checkClock() []doctor.Finding {
	synced, off, err := machine.Clock()
	switch {
	case err != nil:
		return []doctor.Finding{doctor.As(doctor.ClockUnknown, "the kernel does not tell about its clock: %v", err)}
	case !synced:
		return []doctor.Finding{doctor.As(doctor.ClockUnsynced, "no time service keeps the clock")}
	case off > maxClockError:
		return []doctor.Finding{doctor.As(doctor.ClockOff, "the clock may be off by %s", off.Round(time.Millisecond)).At(doctor.Warn)}
	}
	return []doctor.Finding{doctor.As(doctor.ClockOK, "a time service keeps the clock, to %s at worst", off.Round(time.Millisecond))}
}

// What a host for some thousand clients needs.
const (
	wantFiles   = 65536
	wantBuffers = 1 << 20
)

func checkLimits(m machine.Machine, pid int) (found []doctor.Finding) {
	var good []string
	if pid != 0 {
		switch have, limit, err := m.OpenFiles(pid); {
		case err != nil:
			found = append(found, doctor.As(doctor.LimitsUnknown, "the limits of process %d cannot be read: run the check as root, or as turngate's user", pid))
		case int64(have) > limit*8/10:
			found = append(found, doctor.As(doctor.LimitsFiles, "turngate has %d of %d files open", have, limit).At(doctor.Fail))
		case limit < wantFiles:
			found = append(found, doctor.As(doctor.LimitsFiles, "turngate may open %d files; %d is what a busy host needs", limit, wantFiles))
		default:
			good = append(good, fmt.Sprintf("%d files may be open", limit))
		}
	}
	for _, name := range []string{"rmem_max", "wmem_max"} {
		if n, err := m.Number("proc/sys/net/core/" + name); err == nil && n < wantBuffers {
			found = append(found, doctor.As(doctor.LimitsBuffers, "net.core.%s is %d bytes; bursts of video need 8388608", name, n))
		}
	}
	switch count, limit, err := m.Conntrack(); {
	case errors.Is(err, fs.ErrNotExist):
	case err == nil && limit > 0 && count*10 > limit*8:
		found = append(found, doctor.As(doctor.LimitsConntrack, "the kernel tracks %d connections of at most %d", count, limit))
	case err == nil:
		good = append(good, fmt.Sprintf("%d of %d connections tracked", count, limit))
	}
	switch drops, err := m.UDPBufferErrors(); {
	case err == nil && drops > 0:
		found = append(found, doctor.As(doctor.LimitsDrops, "%d datagrams were lost for full buffers since this system started", drops))
	case err == nil:
		good = append(good, "no datagram lost for full buffers")
	}
	if len(found) == 0 {
		found = append(found, doctor.As(doctor.LimitsOK, "%s", strings.Join(good, ", ")))
	}
	return found
}
