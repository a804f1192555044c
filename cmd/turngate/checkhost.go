package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/firewall"
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
			var all strings.Builder // what is reserved already stays so
			for _, have := range append(reserved, both) {
				fmt.Fprintf(&all, ",%s", have)
			}
			found = append(found, doctor.As(doctor.RangeOverlap, "the relay range %s overlaps %s, the ports that the system gives to programs (%s)", r, both, ephemeral).
				Do("sysctl -w net.ipv4.ip_local_reserved_ports=%s, and the same line in /etc/sysctl.d/90-turngate.conf", all.String()[1:]))
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
	if st != nil {
		found[0] = found[0].With("relay_ports_free", float64(st.FreePorts), "")
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
	for _, l := range cfg.RouteListeners() {
		list = append(list, wanted{"tcp", l, "listen of a route"})
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

// checkFirewall compares the live rules of this host with what the configuration
// needs.
func checkFirewall(ctx context.Context, cfg *config.Config) []doctor.Finding {
	unknown := func(err error) []doctor.Finding {
		return []doctor.Finding{doctor.As(doctor.FirewallUnknown, "the firewall of this host was not looked at: %v", err)}
	}
	if err := needRoot(); err != nil {
		return unknown(err)
	}
	o, err := firewallOptions(cfg)
	if err != nil {
		return unknown(err)
	}
	ownMachine(&o)
	plan, err := firewall.New(o)
	if err != nil {
		return unknown(err)
	}
	host := firewall.Host()
	live, err := firewall.Read(ctx, host, "")
	if err != nil {
		return unknown(err)
	}
	var found []doctor.Finding
	for _, d := range live.Judge(plan, host) {
		if d.Note {
			continue // for who plans the firewall
		}
		f := doctor.As(doctor.FirewallBlocks, "%s", d.What)
		if d.Fix != "" {
			f = f.Do("%s; see: turngate firewall check", d.Fix)
		}
		if d.Code != firewall.DriftClosed && d.Code != firewall.DriftForeign {
			f = f.At(doctor.Warn)
		}
		found = append(found, f)
	}
	if found == nil && len(live.Backends()) == 0 {
		return []doctor.Finding{doctor.As(doctor.FirewallOK, "nothing on this host filters packets")}
	}
	if found == nil {
		return []doctor.Finding{doctor.As(doctor.FirewallOK, "the firewall of this host lets pass what the configuration needs")}
	}
	return found
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
