package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/setup"
)

// file is one that the service may read and not change.
func (p *installation) file(path string, data []byte) setup.File {
	return setup.File{Path: path, Data: data, Mode: 0o640, UID: 0, GID: p.gid}
}

// Whose the configuration is that a host has.
const (
	noFile  = "none" // or as the package brings it: nobody's work
	ourFile = "ours" // as setup has left it
	ownFile = "own"  // somebody's
	oldFile = "old"  // somebody's, to be replaced
)

// existing looks at the configuration that there is. One of setup's own brings the flags
// that are not said again.
func (in *installer) existing(p *installation) (string, error) {
	have, err := in.host.ReadFile(defaultConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return noFile, nil
	}
	if errors.Is(err, fs.ErrPermission) && !in.root {
		p.problem(doctor.As(doctor.SetupNotRoot, "only root may read %s: this is for a host as the package leaves it", defaultConfig).At(doctor.Warn))
		return noFile, nil
	}
	if err != nil {
		return "", err
	}
	packaged, err := in.host.ReadFile(packagedConfig)
	switch {
	case len(bytes.TrimSpace(have)) == 0, err == nil && bytes.Equal(have, packaged):
		return noFile, nil
	case p.journal != nil && p.journal.IsOurs(defaultConfig):
		var before setupOptions
		if p.journal.LastRun(&before) {
			in.inherit(before)
		}
		return ourFile, nil
	case in.o.replace:
		return oldFile, nil
	}
	p.present = have
	return ownFile, nil
}

// inherit takes what a setup before said and this one does not.
func (in *installer) inherit(before setupOptions) {
	o := &in.o
	sameName := o.Domain == "" && len(o.ExternalIP) == 0 || o.Domain == before.Domain
	o.Domain = cmp.Or(o.Domain, before.Domain)
	o.Layout, o.Proxy, o.CA = cmp.Or(o.Layout, before.Layout), cmp.Or(o.Proxy, before.Proxy), cmp.Or(o.CA, before.CA)
	o.Email, o.STUN = cmp.Or(o.Email, before.Email), cmp.Or(o.STUN, before.STUN)
	o.Agreed = o.Agreed || before.Agreed
	if len(o.ExternalIP) == 0 {
		o.ExternalIP = before.ExternalIP
	}
	if !o.given("port") && before.Port != 0 {
		o.Port = before.Port
	}
	if !o.given("turn-port") && before.TURNPort != 0 {
		o.TURNPort = before.TURNPort
	}
	if o.CA == before.CA && o.CA != "" { // the file that was named may be gone
		o.CA = in.host.Path(setupUpstream)
	}
	if o.Cert != "" || o.OwnCA || o.ACME != "" || !sameName {
		return // another certificate
	}
	o.OwnCA, o.ACME = before.OwnCA, before.ACME
	if before.ACMERoot != "" {
		o.ACMERoot = in.host.Path(setupACMERoot)
	}
	if before.Cert != "" {
		o.Cert, o.Key = in.host.Path(setupCert), in.host.Path(setupKey)
	}
}

// configure writes the configuration. It reports whether it can be used.
func (in *installer) configure(p *installation, c certificate, have string) bool {
	password, files := in.password(), []setup.File(nil)
	if password != nil {
		files = append(files, p.file(passwordFile, password))
	}
	starter := in.starter(p, c)
	if in.o.CA != "" {
		pem, err := os.ReadFile(in.o.CA)
		if err != nil {
			p.problem(doctor.As(doctor.SetupCertificate, "--upstream-ca: %v", err))
			return false
		}
		starter.CA = setupUpstream
		files = append(files, p.file(setupUpstream, pem))
	}
	files = append(files, p.file(defaultConfig, starter.TOML()))
	for _, f := range append(files, c.files...) {
		p.pending[f.Path] = f.Data
	}
	if !in.load(p, files[len(files)-1].Data) {
		return false
	}
	s := setupStep{name: "configuration", what: []string{defaultConfig + `: TURN user "turn", its random password is in ` + passwordFile}}
	if have == oldFile {
		s.what = append(s.what, "somebody's own file is kept as "+keptName(defaultConfig))
	}
	s.done = !slices.ContainsFunc(files, func(f setup.File) bool { return !in.host.Is(f) })
	s.do = ignoring(in.writer(p, files, have == oldFile))
	p.add(s)
	return true
}

// keptName is what a replaced file is kept as.
func keptName(path string) string { return path + ".before-" + time.Now().Format("20060102") }

// writer writes files, the first of all the copy of the configuration that is replaced.
func (in *installer) writer(p *installation, files []setup.File, keep bool) func() error {
	return func() error {
		if keep {
			have, err := in.host.ReadFile(defaultConfig)
			if err != nil {
				return err
			}
			files = append([]setup.File{p.file(keptName(defaultConfig), have)}, files...)
		}
		for _, f := range files {
			if _, err := p.journal.WriteFile(f); err != nil {
				return err
			}
		}
		return nil
	}
}

// password is a new one for the TURN user, nil when there is one.
func (in *installer) password() []byte {
	if have, err := in.host.ReadFile(passwordFile); err == nil && len(bytes.TrimSpace(have)) > 0 {
		return nil
	}
	return []byte(config.NewPassword() + "\n")
}

// starter is the configuration that setup writes.
func (in *installer) starter(p *installation, c certificate) config.Starter {
	var external []string
	for _, a := range p.choice.Addresses {
		external = append(external, a.String())
	}
	s := config.Starter{
		Layout: p.choice.Layout, Domain: in.o.Domain, ExternalIP: strings.Join(external, ","),
		User: "turn", PasswordFile: passwordFile, Proxy: in.o.Proxy, ACME: c.acme,
	}
	if c.kind == certFiles {
		s.Cert, s.Key = setupCert, setupKey
	}
	if in.o.Port != 443 {
		s.HTTPS = config.Listen(netip.Addr{}, in.o.Port)
	}
	if in.o.TURNPort != 3478 {
		s.TURN = config.Listen(netip.Addr{}, in.o.TURNPort)
	}
	return s
}

// load loads a configuration as the service will.
func (in *installer) load(p *installation, text []byte) bool {
	cfg, findings := config.LoadBytes(defaultConfig, text, in.env(p))
	for _, f := range findings {
		code := doctor.ConfigWarnings
		if f.Severity == config.Error {
			code = doctor.ConfigErrors
		}
		p.problem(doctor.As(code, "%s", f.Said()).Do("%s", f.Fix))
	}
	p.cfg = cfg
	return cfg != nil
}

// env is what the service will see: its own variables, and files that will be there.
func (in *installer) env(p *installation) config.Env {
	variables := in.variables()
	machine := config.Machine()
	return config.Env{
		Root: true,
		Lookup: func(name string) (string, bool) {
			v, ok := variables[name]
			return v, ok
		},
		ReadFile: func(path string) ([]byte, fs.FileMode, error) {
			if data, ok := p.pending[path]; ok {
				return data, 0o640, nil
			}
			return machine.ReadFile(in.host.Path(path))
		},
	}
}

// variables reads the unit's file of environment variables.
func (in *installer) variables() map[string]string {
	all := make(map[string]string)
	text, err := in.host.ReadFile(configDir + "/turngate.env")
	if err != nil {
		return all
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok || strings.HasPrefix(name, "#") || strings.HasPrefix(name, ";") {
			continue
		}
		if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		all[name] = value
	}
	return all
}

// ownConfiguration takes the file that somebody has written, if it does not contradict
// the command line.
func (in *installer) ownConfiguration(p *installation) bool {
	if !in.load(p, p.present) {
		return false
	}
	for _, d := range in.contradictions(p) {
		p.problem(doctor.As(doctor.SetupOwnFile, "%s: %s", defaultConfig, d))
	}
	p.choice = setup.Choice{Layout: p.cfg.Layout, Why: "the configuration says so"}
	for _, e := range p.cfg.ExternalIP {
		p.choice.Addresses = append(p.choice.Addresses, setup.Address{Public: e.Public, Private: e.Private})
	}
	if len(p.choice.Addresses) == 0 {
		for _, a := range relayAddresses(nil) {
			p.choice.Addresses = append(p.choice.Addresses, setup.Address{Public: a.External})
		}
	}
	in.o.Domain = p.cfg.Domain
	s := setupStep{name: "configuration", done: true, what: []string{defaultConfig + " is somebody's own and stays as it is"}}
	if !in.readable(p, defaultConfig) { // of an import, or of an editor with a strict umask
		f := p.file(defaultConfig, p.present)
		s.done, s.what = false, []string{defaultConfig + " is somebody's own and stays as it is, but for its group: the service may read it"}
		s.do = ignoring(in.writer(p, []setup.File{f}, false))
	}
	p.add(s)
	return true
}

// readable reports whether the service may read a file.
func (in *installer) readable(p *installation, path string) bool {
	info, err := os.Stat(in.host.Path(path))
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode()
	return !ok || mode&0o004 != 0 || int(st.Gid) == p.gid && mode&0o040 != 0 || int(st.Uid) == p.uid && mode&0o400 != 0
}

// contradictions are flags that a file does not fulfil.
func (in *installer) contradictions(p *installation) (list []string) {
	differs := func(key, have, want string) {
		if have != want {
			list = append(list, fmt.Sprintf("%s is %q, the command line says %q", key, have, want))
		}
	}
	cfg, o := p.cfg, in.o
	if o.Domain != "" {
		differs("domain", cfg.Domain, o.Domain)
	}
	if o.Layout != "" {
		differs("layout", cfg.Layout, o.Layout)
	}
	if len(o.ExternalIP) > 0 {
		var have, want []string
		for _, e := range cfg.ExternalIP {
			have = append(have, e.String())
		}
		for _, a := range o.ExternalIP {
			want = append(want, strings.TrimSpace(a))
		}
		differs("external_ip", strings.Join(have, ","), strings.Join(want, ","))
	}
	if o.Port != 443 && !slices.ContainsFunc(cfg.HTTPS.Listen, func(l config.ListenAddr) bool { return l.Port == o.Port }) {
		list = append(list, fmt.Sprintf("https.listen has no port %d", o.Port))
	}
	if o.TURNPort != 3478 && !slices.ContainsFunc(cfg.TURN.Listen, func(l config.ListenAddr) bool { return l.Port == o.TURNPort }) {
		list = append(list, fmt.Sprintf("turn.listen has no port %d", o.TURNPort))
	}
	if o.Cert != "" && !slices.Contains(cfg.TLS.Cert, setupCert) {
		list = append(list, "tls.cert is not "+setupCert+", where --cert is copied to")
	}
	if o.ACME != "" && cfg.TLS.ACME.CA != o.ACME {
		list = append(list, fmt.Sprintf("tls.acme.ca is %q, the command line says %q", cfg.TLS.ACME.CA, o.ACME))
	}
	if o.Proxy != "" && cfg.Upstream.Proxy.Reveal() != o.Proxy {
		list = append(list, "upstream.proxy is not that of --upstream-proxy")
	}
	return list
}
