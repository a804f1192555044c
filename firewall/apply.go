package firewall

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// stateDir holds what must be gone after a reboot, as the live rules are: the change
// that waits for its confirmation, and the record of what was opened in firewalld.
const stateDir = "/run/turngate-firewall"

// Pending is a change that is taken back unless it is confirmed in time.
type Pending struct {
	ID       string        `json:"id"`
	Backend  string        `json:"backend"`
	Before   Own           `json:"before"`
	After    Own           `json:"after"`
	Within   time.Duration `json:"within"`
	Deadline time.Time     `json:"deadline"`
	Boot     []string      `json:"boot,omitempty"` // the command that applies the plan at boot
}

// Change is what [Apply] is asked to do.
type Change struct {
	Backend string
	Want    Own
	// Within is the time to confirm; 0 needs no confirmation.
	Within time.Duration
	// Watch starts what takes the change back after Within, detached from the
	// terminal and the session: it calls [RollBack]. It runs before anything changes.
	Watch func(Pending) error
	// Boot is the command that applies the plan again at boot, for rules that no
	// program of the host keeps. Empty: none is installed.
	Boot []string
}

// ErrPending is returned while another change waits for its confirmation.
var ErrPending = errors.New("a change waits for its confirmation: say \"turngate firewall confirm\" to keep it or \"turngate firewall rollback\" to take it back")

// ErrNothingPending is returned when there is nothing to confirm or to take back.
var ErrNothingPending = errors.New("no change waits for a confirmation: it was confirmed already, or taken back after its time")

// Apply changes the host, all or nothing, and returns what waits for its
// confirmation, nil when nothing does. Until it is confirmed the change is in the live
// rules only, so a reboot takes it back too.
func Apply(ctx context.Context, sys System, c Change) (*Pending, error) {
	unlock, err := sys.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if old, err := sys.pending(); err == nil {
		if time.Now().Before(old.Deadline) {
			return nil, ErrPending
		}
		if err := sys.takeBack(ctx, old); err != nil { // whoever watched it is gone
			return nil, err
		}
	}
	live, err := Read(ctx, sys, c.Backend)
	if err != nil {
		return nil, err
	}
	if c.Within == 0 {
		if err := sys.change(ctx, c.Backend, live, c.Want, live.Own); err != nil {
			return nil, err
		}
		return nil, sys.atBoot(ctx, c.Want, c.Boot)
	}
	p := Pending{ID: rand.Text(), Backend: c.Backend, Before: live.Own, After: c.Want, Within: c.Within, Deadline: time.Now().Add(c.Within), Boot: c.Boot}
	if err := sys.write(stateDir+"/pending", p); err != nil {
		return nil, err
	}
	if err := c.Watch(p); err != nil {
		sys.forget()
		return nil, fmt.Errorf("nothing was changed, because nothing would take it back: %w", err)
	}
	if err := sys.change(ctx, c.Backend, live, p.After.untilConfirmed(live.Own), live.Own); err != nil {
		sys.forget()
		return nil, err
	}
	return &p, nil
}

// untilConfirmed leaves the permanent configuration as it is.
func (o Own) untilConfirmed(have Own) Own {
	n := Own{Places: o.Places, Services: have.Services, Zones: make(map[string]Zone)}
	for name, z := range union(o.Zones, have.Zones) {
		z = Zone{Runtime: o.Zones[name].Runtime, Permanent: have.Zones[name].Permanent}
		if len(z.Runtime) > 0 || len(z.Permanent) > 0 {
			n.Zones[name] = z
		}
	}
	return n
}

// Confirm keeps the change that waits: in the permanent configuration, and over
// reboots.
func Confirm(ctx context.Context, sys System) (Own, error) {
	unlock, err := sys.lock()
	if err != nil {
		return Own{}, err
	}
	defer unlock()
	p, err := sys.pending()
	if err != nil {
		return Own{}, err
	}
	live, err := Read(ctx, sys, p.Backend)
	if err != nil {
		return Own{}, err
	}
	if err := sys.change(ctx, p.Backend, live, p.After, live.Own); err != nil {
		return Own{}, err
	}
	sys.forget()
	return p.After, sys.atBoot(ctx, p.After, p.Boot)
}

// RollBack takes back the change that waits; with an id only that very one, and
// ErrNothingPending is no error of the caller then: it was confirmed.
func RollBack(ctx context.Context, sys System, id string) error {
	unlock, err := sys.lock()
	if err != nil {
		return err
	}
	defer unlock()
	p, err := sys.pending()
	if err != nil {
		return err
	}
	if id != "" && p.ID != id {
		return ErrNothingPending
	}
	return sys.takeBack(ctx, p)
}

// Waiting returns the change that waits for its confirmation.
func Waiting(sys System) (Pending, error) { return sys.pending() }

func (sys System) takeBack(ctx context.Context, p Pending) error {
	live, err := Read(ctx, sys, p.Backend)
	if err != nil {
		return err
	}
	if err := sys.do(ctx, live.Steps(p.Before)); err != nil {
		return err
	}
	sys.record(p.Before)
	sys.forget()
	return nil
}

// change brings the host from live to want, and back to before if a step fails.
func (sys System) change(ctx context.Context, backend string, live *Live, want, before Own) error {
	sys.record(want)
	failed := sys.do(ctx, live.Steps(want))
	if failed == nil {
		return nil
	}
	now, err := Read(ctx, sys, backend)
	if err == nil {
		err = sys.do(ctx, now.Steps(before))
	}
	if err != nil {
		return fmt.Errorf("%w\ntaking back what was done before it: %w", failed, err)
	}
	sys.record(before)
	return fmt.Errorf("%w\nnothing was changed", failed)
}

// Unit keeps rules that the host's own programs do not keep.
const unitPath = "/etc/systemd/system/turngate-firewall.service"

// unit is the systemd unit that applies a plan again at boot, and whenever one of
// the services that load rules has cleared them.
func unit(command []string) string {
	const services = "nftables.service iptables.service ip6tables.service netfilter-persistent.service ufw.service"
	// The program may be removed without the unit: not a failure at every boot.
	exists := "ConditionFileIsExecutable=" + strings.ReplaceAll(command[0], "%", "%%")
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$")
	quoted := make([]string, len(command))
	for i, c := range command {
		quoted[i] = escape.Replace(c)
		if strings.ContainsAny(c, " \t\"'\\;") {
			quoted[i] = `"` + quoted[i] + `"`
		}
	}
	return `# Written by "turngate firewall apply", removed by "turngate firewall apply --remove".
[Unit]
Description=Firewall rules of turngate
After=` + services + `
PartOf=` + services + `
ReloadPropagatedFrom=` + services + `
Before=turngate.service
` + exists + `

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=` + strings.Join(quoted, " ") + `
ExecReload=` + strings.Join(quoted, " ") + `

[Install]
WantedBy=multi-user.target
`
}

// HasSystemd reports whether systemd runs the host.
func (sys System) HasSystemd() bool {
	_, err := os.Stat(sys.Root + "/run/systemd/system")
	return err == nil && sys.Has("systemctl")
}

// atBoot installs the unit for rules that need it, and removes it when nothing is
// to be kept.
func (sys System) atBoot(ctx context.Context, own Own, command []string) error {
	if !sys.HasSystemd() {
		return nil
	}
	have := sys.readFile(unitPath)
	if own.IsEmpty() && len(command) == 0 && have != "" {
		err := sys.do(ctx, []Step{{Name: "systemctl", Args: []string{"disable", filepath.Base(unitPath)}}})
		return errors.Join(err, os.Remove(sys.Root+unitPath), sys.do(ctx, []Step{{Name: "systemctl", Args: []string{"daemon-reload"}}}))
	}
	if len(own.Places) == 0 || len(command) == 0 {
		return nil
	}
	want := unit(command)
	if have == want {
		return nil
	}
	if err := os.WriteFile(sys.Root+unitPath, []byte(want), 0o644); err != nil {
		return err
	}
	return sys.do(ctx, []Step{
		{Name: "systemctl", Args: []string{"daemon-reload"}},
		{Name: "systemctl", Args: []string{"enable", filepath.Base(unitPath)}},
		// Started, it is restarted with the services it is part of.
		{Name: "systemctl", Args: []string{"start", "--no-block", filepath.Base(unitPath)}},
	})
}

// lock keeps everybody else from changing the firewall through us, until unlock.
func (sys System) lock() (unlock func(), err error) {
	dir := sys.Root + stateDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dir+"/lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

func (sys System) pending() (p Pending, err error) {
	data, err := os.ReadFile(sys.Root + stateDir + "/pending")
	if errors.Is(err, fs.ErrNotExist) {
		return p, ErrNothingPending
	}
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(data, &p)
}

func (sys System) forget() { _ = os.Remove(sys.Root + stateDir + "/pending") }

// record remembers what is opened in the running firewalld; see runtimeRecord.
func (sys System) record(own Own) {
	var lines []string
	for name, z := range own.Zones {
		for _, item := range z.Runtime {
			lines = append(lines, name+" "+item)
		}
	}
	slices.Sort(lines)
	if len(lines) == 0 {
		_ = os.Remove(sys.Root + runtimeRecord)
		return
	}
	_ = writeFile(sys.Root+runtimeRecord, []byte(strings.Join(lines, "\n")+"\n"))
}

func (sys System) write(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(sys.Root+path, data)
}

// writeFile replaces a file at once, so that nobody reads half of it.
func writeFile(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
