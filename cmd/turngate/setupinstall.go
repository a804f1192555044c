package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/admin"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/pki"
	"github.com/turngate/turngate/internal/setup"
)

const (
	serviceDrain  = time.Minute // for calls when the program is changed
	shortDrain    = time.Second // when turngate goes for good
	setupLinkLife = time.Hour   // somebody has to walk over to a user's desk
	issueWait     = 90 * time.Second
)

func (in *installer) openJournal() (*setup.Journal, error) {
	j, err := setup.OpenJournal(in.host, setupDir, map[string]setup.Undo{
		noteKernel: in.undoKernel, noteFirewall: in.undoFirewall, noteService: in.undoService, noteAgain: in.undoAgain,
	})
	if err == nil {
		j.Say = func(format string, args ...any) { fmt.Fprintf(in.out, format+"\n", args...) }
	}
	return j, err
}

func journalFinding(err error) doctor.Finding {
	if errors.Is(err, setup.ErrBusy) {
		return doctor.As(doctor.SetupBusy, "%v", err)
	}
	return doctor.As(doctor.SetupStep, "%v", err)
}

// install does the steps, all or none.
func (in *installer) install(ctx context.Context, j *setup.Journal, p *installation) error {
	if !p.changes() {
		fmt.Fprintln(in.out, "\nEverything is set up already.")
		return nil
	}
	err := in.steps(ctx, j, p)
	if err == nil {
		err = j.Done()
	}
	if err == nil {
		fmt.Fprintln(in.out, "\nSet up. To take it back: turngate setup --undo")
		return nil
	}
	f := doctor.As(doctor.SetupStep, "%v", err)
	var start startFailure
	switch {
	case ctx.Err() != nil:
		f = doctor.As(doctor.SetupStep, "interrupted").Do("run setup again when you like")
	case errors.As(err, &start):
		f = doctor.As(doctor.SetupStart, "%v", err)
	}
	if back := j.RollBack(ctx); back != nil {
		fmt.Fprintln(in.err, f)
		return in.report(doctor.As(doctor.SetupStep, "putting back: %v", back).Do("turngate setup --undo tries again what is left"))
	}
	_ = in.report(f)
	fmt.Fprintln(in.err, "turngate: everything is as it was before")
	return exitError{1}
}

func (in *installer) steps(ctx context.Context, j *setup.Journal, p *installation) error {
	have, err := in.service.State(ctx)
	if err != nil {
		return err
	}
	in.o.Agreed = in.o.Agreed || p.orders
	if err := j.Begin(in.o); err != nil {
		return err
	}
	if err := j.Note(noteAgain, serviceNote{have, p.cfg.Admin.Socket}); err != nil {
		return err
	}
	// What the service makes for itself goes with it.
	for _, dir := range []string{"/var/log/turngate", p.cfg.StateDir} {
		if err := j.SaveNames(dir); err != nil {
			return err
		}
	}
	for _, s := range p.steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.done {
			continue
		}
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", strings.TrimSpace(s.name), err)
		}
	}
	return ctx.Err()
}

// takeBack is --undo.
func (in *installer) takeBack(ctx context.Context) error {
	if !in.root {
		return in.report(doctor.As(doctor.SetupNotRoot, "only root can take a setup back"))
	}
	j, err := in.openJournal()
	if err != nil {
		return in.report(journalFinding(err))
	}
	defer j.Close()
	if j.Empty() {
		fmt.Fprintln(in.out, "already: this host is as it was before turngate setup")
		return nil
	}
	for _, line := range j.Describe() {
		fmt.Fprintln(in.out, line)
	}
	if in.o.dryRun {
		fmt.Fprintln(in.out, "\nNothing was changed (--dry-run).")
		return nil
	}
	if in.ask != nil && !in.ask("Put this host back as it was? Live calls end, and certificates that turngate made or ordered are lost.") {
		fmt.Fprintln(in.err, "turngate: nothing was changed")
		return exitError{1}
	}
	if err := j.UndoAll(ctx); err != nil {
		return in.report(doctor.As(doctor.SetupStep, "putting back: %v", err).Do("turngate setup --undo tries again what is left"))
	}
	fmt.Fprintln(in.out, "This host is as it was before turngate setup.")
	return nil
}

// endCalls has the running turngate end what is live within a time, and waits for its end.
func endCalls(ctx context.Context, socket string, limit time.Duration) error {
	client, err := admin.Dial(socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit+30*time.Second)
	defer cancel()
	if err := client.Do(ctx, "POST", admin.PathDrain, DrainRequest{config.Duration(limit)}, nil); err != nil {
		return err
	}
	return waitForDrain(ctx, streams{out: io.Discard}, client)
}

// awaitCertificate waits for the ACME server, and says what it complains of.
func (in *installer) awaitCertificate(ctx context.Context, p *installation) {
	ctx, cancel := context.WithTimeout(ctx, issueWait)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond) // another process: there is no event to wait for
	defer tick.Stop()
	for said := false; ; {
		st, err := askStatus(ctx, in.host.Path(p.cfg.Admin.Socket))
		if err != nil {
			return // the check says it
		}
		missing := 0
		for _, o := range st.ACME {
			if o.Error != "" {
				return // as well
			}
			if o.NotAfter.IsZero() {
				missing++
			}
		}
		switch {
		case missing == 0:
			fmt.Fprintf(in.out, "%-14s issued for %s\n", "certificate", p.cfg.Domain)
			return
		case !said:
			fmt.Fprintf(in.out, "%-14s waiting for the CA\n", "certificate")
			said = true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// next says what is left to do.
func (in *installer) next(ctx context.Context, p *installation) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(in.out, "%-14s "+format+"\n", append([]any{name}, args...)...)
	}
	fmt.Fprintln(in.out)
	row("service", "%s", in.service.How())
	if mode, err := certMode(p.cfg); err == nil && mode == config.TLSCA && in.host.Root == "" {
		row("certificate", "clients must trust %s first; how: turngate cert ca", setupCA)
		if a, err := pki.OpenAuthority(authorityDir(p.cfg)); err == nil {
			row("", "SHA-256 %s", a.Fingerprint())
		}
		row("", "or have %s signed by your company's CA: turngate cert install ANSWER", setupCSR)
	}
	row("firewalls", "%s is for those who look after the company's", requestSheet)
	row("client code", "turngate client trtc; also watchrtc, plain")
	client, err := admin.Dial(in.host.Path(p.cfg.Admin.Socket))
	if err != nil {
		return
	}
	var link CheckLink
	if err := client.Do(ctx, "POST", admin.PathCheck, CheckLinkRequest{"", int64(setupLinkLife / time.Second)}, &link); err != nil {
		row("next", "turngate check-link prints a link to the check page")
		return
	}
	row("next", "open this in a browser where the users are; it works once, until %s:", link.Expires.Local().Format("15:04"))
	fmt.Fprintln(in.out, link.URL)
}
