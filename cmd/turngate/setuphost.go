package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/turngate/turngate/firewall"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/setup"
)

// Kinds of changes that setup notes beside files.
const (
	noteKernel   = "kernel"
	noteFirewall = "firewall"
	noteService  = "service" // undone first: what was not running ends
	noteAgain    = "again"   // undone last: what was running takes its files again
)

// parameter is a value of the kernel as it was.
type parameter struct{ Name, Value string }

// parameterFile is where the kernel has a parameter.
func parameterFile(name string) string {
	return "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
}

// system is the host as the firewall wants it.
func (in *installer) system() firewall.System {
	return firewall.System{Run: in.host.Run, Has: in.host.Has, Root: in.host.Root}
}

// firewallPlan is what the configuration needs through firewalls.
func (in *installer) firewallPlan(p *installation) (*firewall.Plan, error) {
	o, err := firewallOptions(p.cfg)
	if err != nil {
		return nil, err
	}
	if len(o.Addresses) == 0 {
		for _, a := range p.choice.Addresses {
			o.Addresses = append(o.Addresses, firewall.Address{Public: a.Public, Private: a.Private})
		}
	}
	o.Resolvers = resolvers(in.host.Path("/etc/resolv.conf"))
	o.Kernel = make(map[string]string)
	for _, name := range firewall.KernelNames() {
		if data, err := in.host.ReadFile(parameterFile(name)); err == nil {
			o.Kernel[name] = strings.TrimSpace(string(data))
		}
	}
	return firewall.New(o)
}

// kernel adds the step that sets what the kernel needs.
func (in *installer) kernel(p *installation) {
	plan, err := in.firewallPlan(p)
	if err != nil {
		p.problem(doctor.As(doctor.SetupStep, "%v", err))
		return
	}
	advice := plan.KernelAdvice()
	if len(advice) == 0 {
		p.add(setupStep{name: "kernel", done: true, what: []string{"buffers, ports and connection table suffice"}})
		return
	}
	s := setupStep{name: "kernel"}
	for _, a := range advice {
		s.what = append(s.what, fmt.Sprintf("%s = %s (now %s)", a.Name, a.Value, strings.Join(strings.Fields(plan.Kernel[a.Name]), " ")))
	}
	s.what[len(s.what)-1] += ", kept in " + kernelFile
	s.do = func(context.Context) error { return in.setKernel(p, advice) }
	p.add(s)
}

// setKernel sets parameters now and at boot. In a container they are the host's: that is
// said, and is no failure.
func (in *installer) setKernel(p *installation, advice []firewall.Advice) error {
	kept := make(map[string]string)
	if text, err := in.host.ReadFile(kernelFile); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
				kept[strings.TrimSpace(name)] = strings.TrimSpace(value)
			}
		}
	}
	for _, a := range advice {
		path := parameterFile(a.Name)
		before, err := in.host.ReadFile(path)
		if err != nil {
			return err
		}
		if err := p.journal.Note(noteKernel, parameter{a.Name, strings.TrimSpace(string(before))}); err != nil {
			return err
		}
		if err := os.WriteFile(in.host.Path(path), []byte(a.Value+"\n"), 0); err != nil {
			_ = in.report(doctor.As(doctor.LimitsBuffers, "%s cannot be set here: %v", a.Name, err).Do("set it on the machine that this container runs on: %s", a.Fix()))
			continue
		}
		kept[a.Name] = a.Value
	}
	if len(kept) == 0 {
		return nil
	}
	text := "# Written by \"turngate setup\".\n"
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		text += name + " = " + kept[name] + "\n"
	}
	_, err := p.journal.WriteFile(setup.File{Path: kernelFile, Data: []byte(text), Mode: 0o644})
	return err
}

func (in *installer) undoKernel(_ context.Context, raw json.RawMessage) error {
	var old parameter
	if err := json.Unmarshal(raw, &old); err != nil {
		return err
	}
	path := parameterFile(old.Name)
	now, err := in.host.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || strings.TrimSpace(string(now)) == old.Value {
		return nil
	}
	return os.WriteFile(in.host.Path(path), []byte(old.Value+"\n"), 0)
}

// firewallUnit keeps rules over a reboot; package firewall writes it.
const firewallUnit = "/etc/systemd/system/turngate-firewall.service"

// openFirewall adds the step that opens this host's firewall, and the sheet for those
// who look after the others.
func (in *installer) openFirewall(ctx context.Context, p *installation) error {
	plan, err := in.firewallPlan(p)
	if err != nil {
		return nil // has been said
	}
	request, err := plan.Request("en")
	if err != nil {
		return err
	}
	var sheet strings.Builder
	if err := request.Write(&sheet, "md"); err != nil {
		return err
	}
	files := []setup.File{{Path: requestSheet, Data: []byte(sheet.String()), Mode: 0o644}}
	if !in.root {
		p.add(setupStep{name: "firewall", what: []string{"only root may read that of this host"}})
		return nil
	}
	live, err := firewall.Read(ctx, in.system(), "")
	if err != nil {
		return err
	}
	want := live.Want(plan)
	s := setupStep{name: "firewall", what: []string{"nothing on this host filters packets"}, done: true}
	if len(live.Backends()) > 0 {
		s.what = []string{strings.Join(live.Backends(), ", ") + ": lets pass what turngate needs"}
		s.done = len(live.Steps(want)) == 0
		s.what = append(s.what, firewall.Diff(live.Own, want)...)
	}
	boot, err := in.firewallAtBoot()
	if err != nil {
		return err
	}
	s.do = func(ctx context.Context) error { return in.applyFirewall(ctx, p, live, want, boot) }
	p.add(s)
	p.add(setupStep{name: "", what: []string{"sheet for the company's firewall team: " + requestSheet},
		done: in.areWritten(files), do: ignoring(in.writer(p, files, false))})
	return nil
}

// firewallAtBoot is the command that applies the rules again.
func (in *installer) firewallAtBoot() ([]string, error) {
	exe, err := os.Executable()
	return []string{exe, "firewall", "apply", "--now", "--config=" + defaultConfig}, err
}

func (in *installer) applyFirewall(ctx context.Context, p *installation, live *firewall.Live, want firewall.Own, boot []string) error {
	for _, path := range []string{firewallUnit, "/etc/firewalld"} {
		if err := p.journal.SavePath(path); err != nil {
			return err
		}
	}
	if err := p.journal.Note(noteFirewall, live.Own); err != nil {
		return err
	}
	_, err := firewall.Apply(ctx, in.system(), firewall.Change{Want: want, Boot: boot})
	return err
}

func (in *installer) undoFirewall(ctx context.Context, raw json.RawMessage) error {
	var before firewall.Own
	if err := json.Unmarshal(raw, &before); err != nil {
		return err
	}
	_, err := firewall.Apply(ctx, in.system(), firewall.Change{Want: before})
	return err
}

// serve adds the step that starts the service.
func (in *installer) serve(ctx context.Context, p *installation) error {
	have, err := in.service.State(ctx)
	if err != nil {
		return err
	}
	want := setup.State{Active: true}
	what := "turngate is started in the background; nothing starts it at boot, for there is no systemd"
	if _, systemd := in.service.(setup.Systemd); systemd {
		want.Enabled, what = true, unitName+" is enabled and started"
	}
	s := setupStep{name: "service", what: []string{what}, done: have == want && !p.changes()}
	if have.Active && in.outdated(ctx, p) {
		s.done, s.what = false, []string{what + " anew, because the program is another one: calls have a minute to end"}
	}
	s.do = func(ctx context.Context) error { return in.start(ctx, p, have, want) }
	p.add(s)
	return nil
}

// outdated reports whether the running program is not the one on the disk any more.
func (in *installer) outdated(ctx context.Context, p *installation) bool {
	st, err := askStatus(ctx, in.host.Path(p.cfg.Admin.Socket))
	if err != nil {
		return false
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", st.PID))
	return err == nil && strings.HasSuffix(exe, " (deleted)")
}

func (in *installer) start(ctx context.Context, p *installation, have, want setup.State) error {
	if err := p.journal.Note(noteService, serviceNote{have, p.cfg.Admin.Socket}); err != nil {
		return err
	}
	socket := in.host.Path(p.cfg.Admin.Socket)
	err := in.service.Set(ctx, want)
	if err == nil && have.Active {
		if in.outdated(ctx, p) {
			err = errors.Join(endCalls(ctx, socket, serviceDrain), in.service.Restart(ctx))
		} else {
			err = in.service.Reload(ctx)
		}
	}
	if err == nil {
		err = in.ready(ctx, socket)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	if why := in.service.Why(ctx); why != "" {
		fmt.Fprintln(in.err, why)
	}
	if enforcing, denials, _ := in.machine.SELinux("turngate"); enforcing && len(denials) > 0 {
		_ = in.report(doctor.As(doctor.SELinuxDenied, "the last of %d denials: %.200s", len(denials), denials[len(denials)-1]))
	}
	return startFailure{err}
}

// startFailure has a code of its own.
type startFailure struct{ error }

// serviceNote is the service as it was, and where the one that follows is asked.
type serviceNote struct {
	setup.State
	Socket string
}

func (in *installer) undoService(ctx context.Context, raw json.RawMessage) error {
	var before serviceNote
	if err := json.Unmarshal(raw, &before); err != nil {
		return err
	}
	if !before.Active {
		_ = endCalls(ctx, in.host.Path(before.Socket), shortDrain) // it may not run
	}
	return in.service.Set(ctx, before.State)
}

func (in *installer) undoAgain(ctx context.Context, raw json.RawMessage) error {
	var before serviceNote
	if err := json.Unmarshal(raw, &before); err != nil || !before.Active {
		return err
	}
	if err := in.service.Reload(ctx); err == nil {
		return nil
	}
	return in.service.Restart(ctx)
}
