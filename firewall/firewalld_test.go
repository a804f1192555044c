package firewall

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
)

// scratchFirewalld is a configuration of firewalld with nothing in it.
func scratchFirewalld(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"zones", "services", "policies", "icmptypes", "ipsets", "helpers"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := "DefaultZone=public\nCleanupOnExit=yes\nFirewallBackend=nftables\nFlushAllOnReload=yes\n"
	if err := os.WriteFile(filepath.Join(dir, "firewalld.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// zoneListings are what an administrator sees of all zones, and of our service.
func zoneListings(out string) string {
	i := strings.Index(out, "public")
	return out[max(i, 0):]
}

func TestFirewalldThatDoesNotRun(t *testing.T) {
	testnet.Need(t, "firewalld")
	dir := scratchFirewalld(t)
	sys := System{
		Root: t.TempDir(),
		Has:  func(name string) bool { return name == "firewall-offline-cmd" || name == "systemctl" },
		Run: func(ctx context.Context, input, name string, args ...string) (string, error) {
			switch name {
			case "systemctl":
				return "enabled\n", nil
			case "firewall-offline-cmd":
				args = append([]string{"--system-config", dir}, args...)
			}
			return runProgram(ctx, input, name, args...)
		},
	}
	ctx := context.Background()
	list := func() string {
		out, err := sys.Run(ctx, "", "firewall-offline-cmd", "--list-all-zones")
		if err != nil {
			t.Fatal(err)
		}
		return zoneListings(out)
	}
	read := func() *Live {
		l, err := Read(ctx, sys, "")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	// A package brings a service of its own, which is neither ours nor changed.
	packaged := `<service><short>turngate</short><port protocol="tcp" port="9"/></service>`
	if err := os.WriteFile(filepath.Join(dir, "services", "turngate.xml"), []byte(packaged), 0o644); err != nil {
		t.Fatal(err)
	}
	before := list()
	p := mustPlan(t, external())
	if got := codes(read().Judge(p, sys)); !slices.Contains(got, DriftBoot) {
		t.Errorf("check before: %v, want %s", got, DriftBoot)
	}
	apply := func(want Own) {
		t.Helper()
		if _, err := Apply(ctx, sys, Change{Want: want}); err != nil {
			t.Fatal(err)
		}
	}
	apply(read().Want(p))
	if got := codes(read().Judge(p, sys)); len(got) > 0 {
		t.Errorf("check: %v, want none", got)
	}
	if steps := read().Steps(read().Want(p)); len(steps) > 0 {
		t.Errorf("applied again: %v", steps)
	}
	xml, err := os.ReadFile(filepath.Join(dir, "services", "turngate-clients.xml"))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "firewalld-service.xml", string(xml))
	zone, err := os.ReadFile(filepath.Join(dir, "zones", "public.xml"))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "firewalld-zone.xml", string(zone))

	// Another plan in another zone takes the place of the first.
	o := intranet()
	o.Zones = []string{"internal"}
	p = mustPlan(t, o)
	apply(read().Want(p))
	if got := codes(read().Judge(p, sys)); len(got) > 0 {
		t.Errorf("check of the second plan: %v, want none", got)
	}
	apply(Own{})
	if got := list(); got != before {
		t.Errorf("removed:\n%s\nwant\n%s", got, before)
	}
	if own := read().Own; !own.IsEmpty() {
		t.Errorf("still ours: %v", own.Lines())
	}
	if got, err := os.ReadFile(filepath.Join(dir, "services", "turngate.xml")); err != nil || string(got) != packaged {
		t.Errorf("the service of a package: %s, %v", got, err)
	}
}

func codes(drifts []Drift) []string {
	var all []string
	for _, d := range drifts {
		if !d.Note {
			all = append(all, d.Code)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// runFirewalld runs the real daemon in the host's namespace, on a bus of its own.
func (s *site) runFirewalld() {
	t := s.t
	t.Helper()
	dir := scratchFirewalld(t)
	bus := filepath.Join(dir, "bus.conf")
	address := "unix:path=" + filepath.Join(dir, "bus")
	if err := os.WriteFile(bus, fmt.Appendf(nil, `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_destination="*"/><allow receive_type="method_call"/><allow eavesdrop="false"/></policy>
</busconfig>`, address), 0o644); err != nil {
		t.Fatal(err)
	}
	s.env = []string{"DBUS_SYSTEM_BUS_ADDRESS=" + address}
	s.start("dbus-daemon", "--config-file="+bus, "--nofork")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", filepath.Join(dir, "bus"))
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	s.start("firewalld", "--nofork", "--nopid", "--system-config", dir, "--log-file", filepath.Join(dir, "log"))
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) { // it announces itself to systemd only
		if out, err := s.run("", "firewall-cmd", "--state"); err == nil && strings.TrimSpace(out) == "running" {
			return
		}
		if time.Now().After(end) {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("firewalld does not run:\n%s", log)
		}
	}
}

// start runs a program of the host until the test ends.
func (s *site) start(name string, args ...string) {
	s.t.Helper()
	path, err := lookPath(name)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), s.env...)
	s.host.Do(func() { err = cmd.Start() })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func TestFirewalldThatRuns(t *testing.T) {
	testnet.Need(t, "firewalld")
	testnet.Need(t, "nftables")
	s := newSite(t, nil, "nft", "firewall-cmd")
	s.runFirewalld()
	s.must("", "firewall-cmd", "--zone=public", "--change-interface=up0")
	s.must("", "firewall-cmd", "--zone=public", "--add-port=7/udp")
	s.must("", "firewall-cmd", "--zone=public", "--add-service=https") // somebody else's, and for now
	list := func() string {
		return s.must("", "firewall-cmd", "--list-all-zones") + zoneListings(s.must("", "firewall-cmd", "--permanent", "--list-all-zones"))
	}
	before := list()
	ctx := context.Background()
	p := small(t, nil)
	s.wantPass(false, host4, 3478)
	s.wantDrifts(p, DriftBoot, DriftClosed)

	change := func(p *Plan) *Pending {
		t.Helper()
		pending, err := Apply(ctx, s.sys, Change{Want: s.live().Want(p), Within: time.Hour, Watch: func(Pending) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		return pending
	}
	pending := change(p)
	s.wantPass(true, host4, 3478)
	s.wantPass(true, host6, 3478)
	if out := s.must("", "firewall-cmd", "--permanent", "--get-services"); strings.Contains(out, "turngate-") {
		t.Error("permanent before it is confirmed")
	}
	if err := RollBack(ctx, s.sys, pending.ID); err != nil {
		t.Fatal(err)
	}
	s.wantPass(false, host4, 3478)
	if got := list(); got != before {
		t.Errorf("taken back:\n%s\nwant\n%s", got, before)
	}

	change(p)
	if _, err := Confirm(ctx, s.sys); err != nil {
		t.Fatal(err)
	}
	s.wantDrifts(p)
	if out := s.must("", "firewall-cmd", "--zone=public", "--query-service=https"); strings.TrimSpace(out) != "yes" {
		t.Error("what another opened for now is gone")
	}

	// Loaded anew, the service stands in for the ports that were opened for now.
	s.must("", "firewall-cmd", "--reload")
	s.must("", "firewall-cmd", "--zone=public", "--change-interface=up0")
	s.must("", "firewall-cmd", "--zone=public", "--add-port=7/udp")
	s.must("", "firewall-cmd", "--zone=public", "--add-service=https")
	s.wantPass(true, host4, 3478)
	s.wantDrifts(p)

	// A zone that is left out, and one that nobody comes in by.
	s.must("", "firewall-cmd", "--zone=internal", "--add-source=10.0.0.2/32")
	s.must("", "firewall-cmd", "--zone=internal", "--add-port=7/udp")
	s.wantDrifts(p, DriftBoot, DriftClosed)
	s.must("", "firewall-cmd", "--zone=internal", "--remove-port=7/udp")
	s.must("", "firewall-cmd", "--zone=internal", "--remove-source=10.0.0.2/32")
	if got := s.drifts(small(t, func(o *Options) { o.Zones = []string{"work"} })); !slices.Contains(got, DriftZone) {
		t.Errorf("a zone without an interface: %v, want %s", got, DriftZone)
	}

	// Only those who are named, and the relay range out of the connection table.
	o := small(t, func(o *Options) {
		o.Clients = []netip.Prefix{netip.MustParsePrefix("10.0.0.66/32"), netip.MustParsePrefix("fd00::/64")}
		o.NoTrack = true
	})
	s.apply(o)
	s.wantDrifts(o)
	s.wantPass(false, host4, 3478)
	s.wantPass(true, host6, 3478)
	if !s.passes(host4, 3478, "10.0.0.66") {
		t.Error("a client that is named does not get in")
	}
	s.wantPass(true, host4, 20000)

	s.remove()
	if got := list(); got != before {
		t.Errorf("removed:\n%s\nwant\n%s", got, before)
	}
	s.wantPass(false, host6, 3478)
}
