package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/turn/offload"
)

// openOffload opens the kernel packet path that a configuration asks for. What
// "auto" cannot have is no error.
func (a *app) openOffload(cfg *config.Config) (offload.Engine, error) {
	t := cfg.TURN
	if t.Offload == "off" {
		return offload.None{Why: "switched off"}, nil
	}
	o := offload.Options{
		Mode:       offload.Native,
		Interfaces: t.OffloadInterfaces,
		Addresses:  func() []netip.Addr { return a.turnAddresses(cfg) },
		Log:        a.log,
	}
	if t.Offload == "generic" {
		o.Mode = offload.Generic
	}
	e, err := offload.Open(o)
	switch {
	case err == nil:
		s := e.Status()
		a.log.Info("kernel packet path", "mode", s.Mode, "interfaces", s.Interfaces)
		return e, nil
	case t.Offload == "auto":
		a.log.Info("no kernel packet path, relaying in user space", "reason", err.Error())
		return offload.None{Why: err.Error()}, nil
	}
	return offload.None{Why: err.Error()}, err
}

// turnAddresses are those that TURN datagrams come to: of the plan that runs,
// or while there is none of a configuration that will.
func (a *app) turnAddresses(cfg *config.Config) (all []netip.Addr) {
	addresses := relayAddresses(cfg.ExternalIP)
	if p := a.plan.Load(); p != nil {
		cfg, addresses = p.cfg, p.addresses
	}
	for _, l := range cfg.TURN.Listen {
		if l.Wildcard() {
			all = append(all, netip.IPv4Unspecified(), netip.IPv6Unspecified())
		} else {
			all = append(all, l.Addr)
		}
	}
	for _, relay := range addresses {
		all = append(all, relay.Local)
	}
	return all
}

// swapOffload gives a plan the kernel packet path it asks for: the one that
// runs, if that is what it asks for. The other one is closed first, since an
// interface takes one program; calls go through user space meanwhile. Where
// there is none it is tried again: what stood in the way may be gone.
func (a *app) swapOffload(p *plan) {
	old := a.plan.Load()
	if old == nil {
		return // opened with the sockets of the first plan
	}
	now, next := old.cfg.TURN, p.cfg.TURN
	_, none := old.turn.Offload.(offload.None)
	if !none && now.Offload == next.Offload && slices.Equal(now.OffloadInterfaces, next.OffloadInterfaces) {
		p.turn.Offload = old.turn.Offload
		return
	}
	a.closeOffload(old)
	var err error
	if p.turn.Offload, err = a.openOffload(p.cfg); err != nil {
		a.log.Error("no kernel packet path, relaying in user space", "err", err)
	}
}

func (a *app) closeOffload(p *plan) {
	if err := p.turn.Offload.Close(); err != nil {
		a.log.Warn("kernel packet path", "err", err)
	}
}

// offloadLine is the kernel packet path as a person reads it.
func offloadLine(s offload.Status) string {
	if s.Mode == offload.Off {
		return "none: " + s.Why
	}
	return fmt.Sprintf("%s on %s, %d channels", s.Mode, strings.Join(s.Interfaces, " "), s.Bindings)
}
