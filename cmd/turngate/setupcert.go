package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/pki"
	"github.com/turngate/turngate/internal/setup"
)

// Kinds of certificates.
const (
	certFiles = "files" // --cert and --key
	certACME  = "acme"  // ordered
	certOwn   = "own"   // a CA of this host, and a request for the company's
)

// certificate is where a new configuration has its certificate from.
type certificate struct {
	kind  string
	why   string // one line
	acme  *config.StarterACME
	files []setup.File // to be written
}

// chooseCertificate decides by the flags and the layout. What cannot be used is a
// problem of the plan.
func (in *installer) chooseCertificate(p *installation) (certificate, error) {
	switch {
	case in.o.Cert != "":
		return in.givenCertificate(p)
	case in.o.OwnCA:
		return certificate{kind: certOwn, why: "--own-ca"}, nil
	case in.o.ACME == "" && p.choice.Layout == config.Intranet:
		return certificate{kind: certOwn, why: "Let's Encrypt does not reach a host inside"}, nil
	case in.o.Domain == "":
		return certificate{kind: certOwn, why: "there is no name to order one for"}, nil
	case in.o.Port != 443:
		return certificate{kind: certOwn, why: fmt.Sprintf("the CA would have to reach port 443, and this is %d", in.o.Port)}, nil
	case !in.agreed():
		p.problem(doctor.As(doctor.SetupTerms, "nothing is ordered from Let's Encrypt: nobody is here to agree to its terms").
			Do("turngate setup %s --yes, which agrees to them; or --cert and --key", in.o.Domain))
		return certificate{kind: certOwn, why: "nobody has agreed to the terms of Let's Encrypt"}, nil
	}
	c := certificate{kind: certACME, acme: &config.StarterACME{CA: in.o.ACME, Email: in.o.Email}}
	if in.o.ACMERoot != "" {
		pem, err := os.ReadFile(in.o.ACMERoot)
		if err != nil {
			return c, fmt.Errorf("--acme-root: %w", err)
		}
		c.acme.CARoot = setupACMERoot
		c.files = append(c.files, p.file(setupACMERoot, pem))
	}
	return c, nil
}

// agreed reports whether the terms of the CA are agreed to, or will be asked about. Who
// names an ACME server of his own company has.
func (in *installer) agreed() bool {
	return in.o.yes || in.o.Agreed || in.ask != nil || in.o.ACME != "" || in.o.dryRun
}

// givenCertificate reads and examines the files of the command line.
func (in *installer) givenCertificate(p *installation) (certificate, error) {
	c := certificate{kind: certFiles, why: in.o.Cert}
	cert, err := os.ReadFile(in.o.Cert)
	if err != nil {
		return c, fmt.Errorf("--cert: %w", err)
	}
	key, err := os.ReadFile(in.o.Key)
	if err != nil {
		return c, fmt.Errorf("--key: %w", err)
	}
	wrong := func(format string, args ...any) { p.problem(doctor.As(doctor.SetupCertificate, format, args...)) }
	certs, err := pki.ParseCertificates(in.o.Cert, cert)
	if err != nil {
		wrong("%v", err)
		return c, nil
	}
	signer, err := pki.ParseKey(key)
	if err != nil {
		wrong("%s: %v", in.o.Key, err)
		return c, nil
	}
	subject := pki.Subject{Names: []string{in.o.Domain}}
	if in.o.Domain == "" {
		subject = pki.Subject{Addrs: []netip.Addr{p.choice.Addresses[0].Public}}
	}
	chain, signer, problems := pki.Examine(certs, []crypto.Signer{signer}, subject, nil, time.Now())
	for _, problem := range problems {
		f := doctor.As(doctor.SetupCertificate, "%s: %s", in.o.Cert, problem.What).Do("%s", problem.Fix)
		switch {
		case problem.Unanchored: // the company's root is the clients' matter
			f = doctor.As(doctor.CertIncomplete, "%s: %s", in.o.Cert, problem.What).At(doctor.Warn).
				Do("if that is a root of your company, nothing; else add its certificate to the file")
		case problem.Warning:
			f = f.At(doctor.Warn)
		}
		p.problem(f)
	}
	if chain == nil {
		return c, nil
	}
	certText, keyText, err := pki.Encode(chain, signer)
	if err != nil {
		return c, err
	}
	c.files = append(c.files, p.file(setupCert, certText), p.file(setupKey, keyText))
	return c, nil
}

// certify adds the step that brings the certificate.
func (in *installer) certify(p *installation, c certificate) {
	source := p.cfg.TLS.Source()
	switch {
	case len(c.files) > 0 && source != config.TLSAuto && source != config.TLSSelfSigned:
		in.certifyByFiles(p, c)
	case source == config.TLSACME:
		p.orders = true
		ca := p.cfg.TLS.ACME.CA
		if ca == "" {
			ca = "Let's Encrypt"
		}
		p.facts = append(p.facts, setupStep{name: "certificate", what: []string{"ordered from " + ca + " for " + in.o.Domain + " when the service runs, and renewed by it"}})
	case source == config.TLSAuto:
		in.certifyByOwnCA(p, c)
	default:
		p.facts = append(p.facts, setupStep{name: "certificate", what: []string{"as the configuration says: tls.mode " + source}})
	}
}

func (in *installer) certifyByFiles(p *installation, c certificate) {
	if c.kind == certACME {
		p.orders = true
		p.add(setupStep{name: "certificate", what: []string{"ordered from " + c.acme.CA + " for " + in.o.Domain + " when the service runs, and renewed by it"},
			done: in.areWritten(c.files), do: ignoring(in.writer(p, c.files, false))})
		return
	}
	p.add(setupStep{name: "certificate", what: []string{
		fmt.Sprintf("%s and %s, copied to %s and privkey.pem", in.o.Cert, in.o.Key, setupCert),
		"when it is renewed: this command again, or write the new pair there; it is watched"},
		done: in.areWritten(c.files), do: ignoring(in.writer(p, c.files, false))})
}

func (in *installer) areWritten(files []setup.File) bool {
	for _, f := range files {
		if !in.host.Is(f) {
			return false
		}
	}
	return true
}

// ignoring makes a step of what knows no context.
func ignoring(do func() error) func(context.Context) error {
	return func(context.Context) error { return do() }
}

// certifyByOwnCA makes a CA of this host, to begin with, and a request for another one.
func (in *installer) certifyByOwnCA(p *installation, c certificate) {
	state := in.host.Path(p.cfg.StateDir)
	if in.host.Exists(trimRoot(in.host, pki.Installed(state).Cert)) {
		p.facts = append(p.facts, setupStep{name: "certificate", what: []string{`that of "turngate cert install"`}})
		return
	}
	why := c.why
	if why != "" {
		why = " (" + why + ")"
	}
	step := setupStep{name: "certificate", what: []string{
		"of a CA of this host" + why + "; clients must trust " + setupCA,
		"request for your company's CA: " + setupCSR + "; its answer: turngate cert install FILE"},
		done: in.host.Exists(setupCA) && in.host.Exists(setupCSR),
		do:   func(context.Context) error { return in.makeCA(p, state) }}
	subject := certSubject(p.cfg, relayAddresses(p.cfg.ExternalIP))
	if authority, err := pki.OpenAuthority(state + "/ca"); err == nil && !authority.MayIssue(subject) {
		step.done = false
		step.what = append(step.what, fmt.Sprintf("the CA there is may issue for %s only: another one is made, which clients have to be told to trust", strings.Join(authority.Permits(), ", ")))
	}
	p.add(step)
}

// trimRoot is a path of the host again.
func trimRoot(h setup.Host, path string) string { return path[len(h.Root):] }

func (in *installer) makeCA(p *installation, state string) error {
	subject := certSubject(p.cfg, relayAddresses(p.cfg.ExternalIP))
	authority, err := pki.OpenAuthority(state + "/ca")
	fresh := errors.Is(err, fs.ErrNotExist)
	if err == nil && !authority.MayIssue(subject) {
		_, err = p.journal.MoveAside(p.cfg.StateDir + "/ca")
		fresh = err == nil
	}
	if fresh {
		authority, err = pki.NewAuthority(state+"/ca", subject, nil)
	}
	if err != nil {
		return err
	}
	if _, _, err := authority.Server(subject); err != nil {
		return err
	}
	request, err := pki.Request(state, subject, "", false)
	if err != nil {
		return err
	}
	public := setup.File{Path: setupCA, Data: authority.PEM(), Mode: 0o644}
	if _, err := p.journal.WriteFile(public); err != nil {
		return err
	}
	if in.host.Exists(setupCSR) && !fresh {
		return nil // a signature differs each time
	}
	_, err = p.journal.WriteFile(p.file(setupCSR, request))
	return err
}
