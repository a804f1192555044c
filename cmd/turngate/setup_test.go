package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/doctor/machine"
	"github.com/turngate/turngate/internal/setup"
	"github.com/turngate/turngate/internal/testnet"
)

// A fakeHost is a host in a directory, as a package leaves it, with a systemd that does
// what it is told and no firewall.
type fakeHost struct {
	dir      string
	service  setup.State
	asked    []string // of systemctl
	fails    string   // a command that fails
	network  setup.Network
	out, err bytes.Buffer
}

const serviceGroup = 987 // of the service, in fake hosts

func newFakeHost(t *testing.T) *fakeHost {
	t.Helper()
	testnet.Need(t, "netns") // root: files get owners
	h := &fakeHost{dir: t.TempDir()}
	for _, dir := range []string{"etc/turngate/tls", "etc/sysctl.d", "etc/systemd/system", "usr/share/turngate", "usr/lib/systemd/system", "var/lib/turngate", "var/log",
		"run/systemd/system", "proc/thread-self/net", "proc/sys/net/ipv4", "proc/sys/net/core"} {
		if err := os.MkdirAll(filepath.Join(h.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	starter := config.Starter{User: "turn", PasswordFile: passwordFile}
	for path, text := range map[string]string{
		defaultConfig: string(starter.TOML()), packagedConfig: string(starter.TOML()), passwordFile: "made by the package\n",
		"/usr/lib/systemd/system/" + unitName: "[Unit]\n",
		"/proc/thread-self/net/tcp":           "  sl  local_address rem_address   st\n",
		"/proc/sys/net/core/rmem_max":         "212992\n", "/proc/sys/net/core/wmem_max": "212992\n",
		"/proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n", "/proc/sys/net/ipv4/ip_local_reserved_ports": "\n",
	} {
		h.write(t, path, text)
	}
	return h
}

func (h *fakeHost) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, path), []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func (h *fakeHost) read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(h.dir, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// at gives the host addresses: "14.3.3.3" or, behind NAT, what DNS says besides.
func (h *fakeHost) at(own string, names ...string) *fakeHost {
	h.network = setup.Network{Own: []setup.Own{{Addr: netip.MustParseAddr(own), Interface: "eth0"}}, Out: []netip.Addr{netip.MustParseAddr(own)}}
	for _, n := range names {
		h.network.Names = append(h.network.Names, netip.MustParseAddr(n))
	}
	return h
}

func (h *fakeHost) systemctl(verb string) (string, error) {
	switch verb {
	case "is-enabled":
		return map[bool]string{true: "enabled\n", false: "disabled\n"}[h.service.Enabled], nil
	case "is-active":
		return map[bool]string{true: "active\n", false: "inactive\n"}[h.service.Active], nil
	}
	h.asked = append(h.asked, verb)
	if verb == h.fails {
		return "", fmt.Errorf("systemctl %s: it does not want to", verb)
	}
	switch verb {
	case "enable", "disable":
		h.service.Enabled = verb == "enable"
	case "start", "stop":
		h.service.Active = verb == "start"
		if verb == "start" { // what the service makes for itself
			_ = os.WriteFile(filepath.Join(h.dir, "var/lib/turngate/turn-secret"), []byte("secret"), 0o600)
		}
	}
	return "", nil
}

// installer is a setup with a command line, asked by nobody.
func (h *fakeHost) installer(t *testing.T, args ...string) *installer {
	t.Helper()
	o, err := setupFlags(args)
	if err != nil {
		t.Fatal(err)
	}
	h.out.Reset()
	h.err.Reset()
	in := &installer{
		streams: streams{strings.NewReader(""), &h.out, &h.err}, o: o, root: true,
		machine: machine.New(os.DirFS(h.dir)),
		host: setup.Host{
			Root:    h.dir,
			Has:     func(name string) bool { return name == "systemctl" },
			Account: func(string) (int, int, error) { return 986, serviceGroup, nil },
			Run: func(_ context.Context, _, name string, args ...string) (string, error) {
				if name == "systemctl" {
					return h.systemctl(args[0])
				}
				return "", fmt.Errorf("%s is not installed", name)
			},
		},
		look: func(_ context.Context, domain string) (setup.Network, error) {
			h.network.Domain = domain
			return h.network, nil
		},
		check: func(context.Context) (doctor.Report, error) {
			return doctor.NewReport("x", "1", time.Now(), 0, []doctor.Finding{doctor.As(doctor.WebOK, "it answers")}), nil
		},
		ready: func(context.Context, string) error { return nil },
		clock: func() []doctor.Finding { return nil },
	}
	in.service = setup.Systemd{Host: in.host, Unit: unitName}
	return in
}

// setupFlags reads a command line as the command does.
func setupFlags(args []string) (o setupOptions, err error) {
	cmd := newSetupCommand(streams{})
	o, parsed := setupOptions{}, cmd.Flags()
	if err := parsed.Parse(args); err != nil {
		return o, err
	}
	get := func(name string) string { return parsed.Lookup(name).Value.String() }
	is := func(name string) bool { return get(name) == "true" }
	o = setupOptions{Layout: get("layout"), Cert: get("cert"), Key: get("key"), ACME: get("acme"), ACMERoot: get("acme-root"), OwnCA: is("own-ca"),
		Proxy: get("upstream-proxy"), CA: get("upstream-ca"), replace: is("replace"), dryRun: is("dry-run"), undo: is("undo"), yes: is("yes"), given: parsed.Changed}
	o.ExternalIP, _ = parsed.GetStringSlice("external-ip")
	o.Port, _ = parsed.GetUint16("port")
	o.TURNPort, _ = parsed.GetUint16("turn-port")
	return o, o.arguments(parsed.Args())
}

// setup runs a command line and returns its exit code.
func (h *fakeHost) setup(t *testing.T, args ...string) int {
	t.Helper()
	in := h.installer(t, args...)
	run := in.run
	if in.o.undo {
		run = in.takeBack
	}
	var exit exitError
	switch err := run(t.Context()); {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	default:
		fmt.Fprintln(&h.err, err)
		return 1
	}
}

// writePair writes base.pem and base.key.
func writePair(t *testing.T, c tls.Certificate, base string) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var chain bytes.Buffer
	for _, der := range c.Certificate {
		_ = pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	for name, text := range map[string][]byte{base + ".pem": chain.Bytes(), base + ".key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// tree is everything on the host but /run: kind, mode, owner, content.
func (h *fakeHost) tree(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(h.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(h.dir, name)
		if rel == "run" {
			return filepath.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		all[rel] = fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(name)
			all[rel] += fmt.Sprintf(" %q", data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (h *fakeHost) same(t *testing.T, when string, before map[string]string, service setup.State) {
	t.Helper()
	if diff := cmp.Diff(before, h.tree(t)); diff != "" {
		t.Errorf("%s: the host is not as it was (-want +got):\n%s\nsaid:\n%s%s", when, diff, &h.out, &h.err)
	}
	if h.service != service {
		t.Errorf("%s: the service is %+v, was %+v", when, h.service, service)
	}
}

// said reports whether the setup said all of it.
func (h *fakeHost) said(t *testing.T, words ...string) {
	t.Helper()
	text := h.out.String() + h.err.String()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in\n%s", w, text)
		}
	}
}

func TestSetupShowsWhatItWouldDo(t *testing.T) {
	dir := t.TempDir()
	writePair(t, testnet.NewCA(t, "company").Issue(t, "proxy.corp.example"), dir+"/proxy")
	for name, tc := range map[string]struct {
		host *fakeHost
		args []string
	}{
		"external":   {newFakeHost(t).at("14.3.3.3", "14.3.3.3"), []string{"proxy.example.com"}},
		"behind-nat": {newFakeHost(t).at("10.0.0.4", "14.3.3.3"), []string{"proxy.example.com"}},
		"intranet":   {newFakeHost(t).at("10.0.0.4", "10.0.0.4"), []string{"proxy.corp.example"}},
		"intranet-files": {newFakeHost(t).at("10.0.0.4", "10.0.0.4"), []string{"proxy.corp.example", "--cert", dir + "/proxy.pem", "--key", dir + "/proxy.key",
			"--upstream-proxy", "http://me:nobody-may-know@10.0.0.8:3128", "--port", "8443"}},
		"address": {newFakeHost(t).at("10.0.0.4"), []string{"10.0.0.4"}},
	} {
		t.Run(name, func(t *testing.T) {
			before := tc.host.tree(t)
			if code := tc.host.setup(t, append(tc.args, "--dry-run")...); code != 0 {
				t.Errorf("exit code %d", code)
			}
			tc.host.same(t, "after a dry run", before, setup.State{})
			text := "$ turngate setup " + strings.Join(append(tc.args, "--dry-run"), " ") + "\n" + tc.host.out.String() + tc.host.err.String()
			if strings.Count(text, "nobody-may-know") > 1 {
				t.Error("a password is shown")
			}
			golden(t, "setup-"+name+".txt", regexp.MustCompile(`20[0-9]{2}-[0-9]{2}-[0-9]{2}`).ReplaceAllString(strings.ReplaceAll(text, dir, "DIR"), "DATE"))
		})
	}
}

func TestSetupIsTakenBackExactly(t *testing.T) {
	for _, tc := range []struct {
		name    string
		host    *fakeHost
		service setup.State
		args    []string
	}{
		{"2-A with Let's Encrypt", newFakeHost(t).at("14.3.3.3", "14.3.3.3"), setup.State{}, []string{"proxy.example.com", "--yes"}},
		{"2-B with a CA of its own", newFakeHost(t).at("10.0.0.4", "10.0.0.4"), setup.State{}, []string{"proxy.corp.example"}},
		{"a service that ran", newFakeHost(t).at("10.0.0.4"), setup.State{Enabled: true, Active: true}, []string{"proxy.corp.example"}},
		{"a service that ran and is not enabled", newFakeHost(t).at("10.0.0.4"), setup.State{Active: true}, []string{"proxy.corp.example"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := tc.host
			h.service = tc.service
			h.write(t, "/var/lib/turngate/kept", "of before")
			before := h.tree(t)
			if code := h.setup(t, tc.args...); code != 0 {
				t.Fatalf("exit code %d\n%s%s", code, &h.out, &h.err)
			}
			if want := (setup.State{Enabled: true, Active: true}); h.service != want {
				t.Errorf("the service is %+v, want %+v", h.service, want)
			}
			h.said(t, "Set up. To take it back: turngate setup --undo", "turngate check: everything works")
			after := h.tree(t)

			h.asked = nil
			if code := h.setup(t, tc.args...); code != 0 {
				t.Errorf("again: exit code %d", code)
			}
			h.said(t, "Everything is set up already.")
			h.same(t, "after a second run", after, h.service)
			if len(h.asked) > 0 {
				t.Errorf("the second run asked systemctl for %v", h.asked)
			}
			if code := h.setup(t); code != 0 { // and without a word
				t.Errorf("again, without arguments: exit code %d\n%s", code, &h.err)
			}
			h.same(t, "after a third run", after, h.service)

			if code := h.setup(t, "--undo"); code != 0 {
				t.Errorf("undo: exit code %d\n%s", code, &h.err)
			}
			h.same(t, "after the undo", before, tc.service)
			if code := h.setup(t, "--undo"); code != 0 {
				t.Errorf("undo again: exit code %d", code)
			}
			h.said(t, "already: this host is as it was")
		})
	}
}

func TestSetupWritesWhatItShould(t *testing.T) {
	h := newFakeHost(t).at("10.0.0.4", "14.3.3.3")
	if code := h.setup(t, "proxy.example.com", "--yes", "--upstream-proxy", "http://me:pass@10.0.0.8:3128"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, &h.err)
	}
	cfg, findings := config.LoadBytes("x", []byte(h.read(t, defaultConfig)), config.Env{ReadFile: func(path string) ([]byte, fs.FileMode, error) {
		return []byte(h.read(t, path)), 0o640, nil
	}})
	if cfg == nil {
		t.Fatal(findings)
	}
	if cfg.Layout != config.External || cfg.Domain != "proxy.example.com" || cfg.ExternalIP[0].String() != "14.3.3.3/10.0.0.4" || cfg.TLS.Source() != config.TLSACME ||
		!cfg.TLS.ACME.TermsAgreed || cfg.TURN.User[0].Password.Reveal() != "made by the package" || cfg.Upstream.ProxyHost() != "10.0.0.8:3128" {
		t.Errorf("the configuration:\n%s", h.read(t, defaultConfig))
	}
	for _, line := range []string{"net.core.rmem_max = 8388608", "net.core.wmem_max = 8388608"} {
		if !strings.Contains(h.read(t, kernelFile), line) {
			t.Errorf("%s: %s", kernelFile, h.read(t, kernelFile))
		}
	}
	if got := h.read(t, "/proc/sys/net/core/rmem_max"); got != "8388608\n" {
		t.Errorf("rmem_max is %q", got)
	}
	for path, want := range map[string]string{
		defaultConfig: "-rw-r----- 0:987", requestSheet: "-rw-r--r-- 0:0", kernelFile: "-rw-r--r-- 0:0", setupDir: "drwx------ 0:0", setupDir + "/journal": "-rw------- 0:0",
	} {
		if got := h.tree(t)[path[1:]]; !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %.40s, want %s", path, got, want)
		}
	}
	// Another flag changes what it is about, and the rest stays.
	if code := h.setup(t, "--port", "8443"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, &h.err)
	}
	if text := h.read(t, defaultConfig); !strings.Contains(text, `listen = [":8443"]`) || !strings.Contains(text, "10.0.0.8:3128") || !strings.Contains(text, "proxy.example.com") {
		t.Errorf("the configuration after --port:\n%s", text)
	}
	if got := h.asked[len(h.asked)-1]; got != "reload" {
		t.Errorf("systemctl %s, want a reload", got)
	}
}

// Each step fails after it has done its work, or is interrupted then: nothing is left.
func TestAFailureOfAnyStepLeavesNothing(t *testing.T) {
	for _, how := range []string{"fails", "is interrupted"} {
		for i := 0; ; i++ {
			h := newFakeHost(t).at("10.0.0.4", "10.0.0.4")
			before := h.tree(t)
			in := h.installer(t, "proxy.corp.example")
			j, err := in.openJournal()
			if err != nil {
				t.Fatal(err)
			}
			p, err := in.plan(t.Context(), j)
			if err != nil {
				t.Fatal(err)
			}
			if i == len(p.steps) {
				j.Close()
				if i < 5 {
					t.Fatalf("%d steps only", i)
				}
				break
			}
			if p.steps[i].done {
				j.Close()
				continue
			}
			ctx, cancel := context.WithCancel(t.Context())
			do := p.steps[i].do
			p.steps[i].do = func(ctx context.Context) error {
				if err := do(ctx); err != nil {
					t.Errorf("%s: %v", p.steps[i].name, err)
				}
				if how == "fails" {
					return errors.New("the test does not want it")
				}
				cancel()
				return nil
			}
			var exit exitError
			if err := in.install(ctx, j, p); !errors.As(err, &exit) || exit.code != 1 {
				t.Errorf("step %q %s: got %v, want exit code 1", p.steps[i].name, how, err)
			}
			cancel()
			j.Close()
			h.same(t, fmt.Sprintf("step %q %s", p.steps[i].name, how), before, setup.State{})
			h.said(t, "TG-308", "everything is as it was before")
		}
	}
}

func TestAServiceThatDoesNotStartLeavesNothing(t *testing.T) {
	for _, verb := range []string{"enable", "start"} {
		h := newFakeHost(t).at("10.0.0.4", "10.0.0.4")
		before := h.tree(t)
		h.fails = verb
		if code := h.setup(t, "proxy.corp.example"); code != 1 {
			t.Errorf("%s: exit code %d, want 1", verb, code)
		}
		h.same(t, verb, before, setup.State{})
		h.said(t, "TG-306", "it does not want to")
	}
}

// A process that died half-way is put back by the next one.
func TestASetupThatWasKilledIsPutBackFirst(t *testing.T) {
	h := newFakeHost(t).at("10.0.0.4", "10.0.0.4")
	before := h.tree(t)
	in := h.installer(t, "proxy.corp.example")
	j, err := in.openJournal()
	if err != nil {
		t.Fatal(err)
	}
	p, err := in.plan(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.steps(t.Context(), j, p); err != nil { // all is done, and Done never comes
		t.Fatal(err)
	}
	j.Close()
	if code := h.setup(t, "--undo"); code != 0 {
		t.Errorf("exit code %d", code)
	}
	h.same(t, "undone", before, setup.State{})
}

func TestSomebodysOwnConfigurationIsNotOverwritten(t *testing.T) {
	h := newFakeHost(t).at("14.3.3.3", "14.3.3.3")
	own := "domain = \"proxy.example.com\"\nexternal_ip = \"14.3.3.3\"\n[[turn.user]]\nname = \"me\"\npassword = \"my own and long enough\"\n"
	h.write(t, defaultConfig, own)
	if err := os.Chown(h.dir+defaultConfig, 0, serviceGroup); err != nil {
		t.Fatal(err)
	}
	before := h.tree(t)
	if code := h.setup(t, "other.example.com", "--external-ip", "14.3.3.4"); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	h.said(t, "TG-302", `domain is "proxy.example.com", the command line says "other.example.com"`, `external_ip is "14.3.3.3"`, "--replace", "nothing was changed")
	h.same(t, "refused", before, setup.State{})

	if code := h.setup(t, "proxy.example.com"); code != 0 {
		t.Errorf("exit code %d, want 0\n%s", code, &h.err)
	}
	h.said(t, "somebody's own and stays as it is")
	if got := h.read(t, defaultConfig); got != own {
		t.Errorf("the configuration is now\n%s", got)
	}
	if code := h.setup(t, "other.example.com", "--replace", "--own-ca"); code != 0 {
		t.Errorf("exit code %d, want 0\n%s", code, &h.err)
	}
	if got := h.read(t, keptName(defaultConfig)); got != own {
		t.Errorf("kept:\n%s", got)
	}
	if got := h.read(t, defaultConfig); !strings.Contains(got, `domain = "other.example.com"`) {
		t.Errorf("the configuration is now\n%s", got)
	}
	if code := h.setup(t, "--undo"); code != 0 {
		t.Errorf("undo: exit code %d", code)
	}
	h.same(t, "undone", before, setup.State{})
}

func TestSetupSaysWhatIsInTheWay(t *testing.T) {
	dir := t.TempDir() + "/"
	ca := testnet.NewCA(t, "company")
	writePair(t, ca.Issue(t, "other.example.com"), dir+"other")
	writePair(t, ca.IssueUntil(t, time.Now().Add(-time.Hour), "proxy.example.com"), dir+"ended")
	for _, tc := range []struct {
		name  string
		host  func(h *fakeHost)
		args  []string
		code  int
		words []string
	}{
		{"no name in DNS", func(h *fakeHost) { h.at("14.3.3.3") }, []string{"proxy.example.com", "--dry-run"}, 0, []string{"TG-011", "have an A record entered: proxy.example.com to 14.3.3.3"}},
		{"the name leads elsewhere", func(h *fakeHost) { h.at("14.3.3.3", "14.9.9.9") }, []string{"proxy.example.com", "--dry-run"}, 0, []string{"TG-012", "correct the A record to 14.3.3.3"}},
		{"2-A without a public address", func(h *fakeHost) { h.at("10.0.0.4") }, []string{"proxy.example.com", "--layout", "2-A"}, 1, []string{"TG-304", "--external-ip PUBLIC/PRIVATE"}},
		{"no address", func(*fakeHost) {}, []string{"proxy.example.com"}, 1, []string{"TG-304"}},
		{"a certificate for another name", func(h *fakeHost) { h.at("14.3.3.3") }, []string{"proxy.example.com", "--cert", dir + "other.pem", "--key", dir + "other.key"}, 1,
			[]string{"TG-305", "it is not for proxy.example.com, but for other.example.com"}},
		{"a certificate that ended", func(h *fakeHost) { h.at("14.3.3.3") }, []string{"proxy.example.com", "--cert", dir + "ended.pem", "--key", dir + "ended.key"}, 1, []string{"TG-305", "ended on"}},
		{"a key of another certificate", func(h *fakeHost) { h.at("14.3.3.3") }, []string{"other.example.com", "--cert", dir + "other.pem", "--key", dir + "ended.key"}, 1, []string{"TG-305", "does not match"}},
		{"a key that is none", func(h *fakeHost) { h.at("14.3.3.3") }, []string{"other.example.com", "--cert", dir + "other.pem", "--key", dir + "other.pem"}, 1, []string{"TG-305", "no PEM private key"}},
		{"nobody agrees to the terms", func(h *fakeHost) { h.at("14.3.3.3", "14.3.3.3") }, []string{"proxy.example.com"}, 0, []string{"TG-307", "--yes, which agrees", "of a CA of this host"}},
		{"a proxy that is none", func(h *fakeHost) { h.at("10.0.0.4") }, []string{"proxy.corp.example", "--upstream-proxy", "10.0.0.8:3128"}, 1, []string{"TG-172", "upstream.proxy"}},
		{"no unit", func(h *fakeHost) { os.Remove(h.at("10.0.0.4").dir + "/usr/lib/systemd/system/" + unitName) }, []string{"proxy.corp.example"}, 1, []string{"TG-303", "systemd has no turngate.service"}},
		{"a file with errors", func(h *fakeHost) {
			_ = os.WriteFile(h.at("10.0.0.4").dir+defaultConfig, []byte("domian = \"x\"\n"), 0o600)
		}, []string{"proxy.corp.example"}, 1, []string{"TG-172", "domian"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newFakeHost(t)
			tc.host(h)
			before := h.tree(t)
			if code := h.setup(t, tc.args...); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			h.said(t, tc.words...)
			if tc.code != 0 {
				h.same(t, "refused", before, setup.State{})
			}
		})
	}
}

func TestSetupNeedsRoot(t *testing.T) {
	h := newFakeHost(t).at("10.0.0.4")
	in := h.installer(t, "proxy.corp.example")
	in.root = false
	var exit exitError
	if err := in.run(t.Context()); !errors.As(err, &exit) || exit.code != 1 {
		t.Errorf("got %v, want exit code 1", err)
	}
	h.said(t, "TG-301", "sudo")
	before := h.tree(t)
	in = h.installer(t, "proxy.corp.example", "--dry-run")
	in.root = false
	if err := in.run(t.Context()); err != nil {
		t.Errorf("a dry run: %v", err)
	}
	h.said(t, "only root may read that of this host", "Nothing was changed")
	h.same(t, "a dry run", before, setup.State{})
}

func TestSetupAsksOnceAndNoChangesNothing(t *testing.T) {
	h := newFakeHost(t).at("14.3.3.3", "14.3.3.3")
	before := h.tree(t)
	in := h.installer(t, "proxy.example.com")
	var asked []string
	answer := false
	in.ask = func(question string) bool {
		asked = append(asked, question)
		return answer
	}
	var exit exitError
	if err := in.run(t.Context()); !errors.As(err, &exit) || exit.code != 1 {
		t.Errorf("no: got %v, want exit code 1", err)
	}
	h.same(t, "after no", before, setup.State{})
	answer = true
	if err := in.run(t.Context()); err != nil {
		t.Errorf("yes: %v", err)
	}
	if err := in.run(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
	if len(asked) != 2 || !strings.Contains(asked[1], "terms of the CA") {
		t.Errorf("asked %q, want one question each, and none when there is nothing to do", asked)
	}
	if text := h.read(t, defaultConfig); !strings.Contains(text, "terms_agreed = true") {
		t.Errorf("the configuration:\n%s", text)
	}
}

func TestAnswersToTheQuestion(t *testing.T) {
	for answer, want := range map[string]bool{"\n": true, "y\n": true, "YES\n": true, "n\n": false, "no\n": false, "what?\n": false, "": false} {
		var out bytes.Buffer
		if got := askYes(strings.NewReader(answer), &out, "Well?"); got != want || !strings.Contains(out.String(), "Well? [Y/n]") {
			t.Errorf("%q: got %v, want %v", answer, got, want)
		}
	}
}

func TestSetupArguments(t *testing.T) {
	for _, tc := range []struct {
		args string
		ok   bool
	}{
		{"proxy.example.com", true}, {"Proxy.Example.COM.", true}, {"10.0.0.4", true}, {"2001:db8::7", true}, {"", true},
		{"--undo", true}, {"--undo proxy.example.com", false}, {"a b", false}, {"proxy", false}, {"https://proxy.example.com/", false}, {"*.example.com", false},
		{"proxy.example.com --layout 2-B", true}, {"proxy.example.com --layout dmz", false}, {"proxy.example.com --cert a", false},
		{"proxy.example.com --cert a --key b --own-ca", false}, {"10.0.0.4 --external-ip 10.0.0.5", false}, {"10.0.0.4 --acme https://ca/dir", false},
		{"proxy.example.com --port 0", false}, {"proxy.example.com --port 3478", false}, {"proxy.example.com --own-ca --acme https://ca/dir", false},
	} {
		_, err := setupFlags(strings.Fields(tc.args))
		if (err == nil) != tc.ok && !(tc.args == "a b") {
			t.Errorf("%q: %v", tc.args, err)
		}
	}
	for domain, want := range map[string]string{
		"https://Proxy.example.com:8443/ws?x": "write proxy.example.com, and a port with --port",
		"proxy.example.com:443":               "write proxy.example.com, and a port with --port",
		"wss://proxy/":                        "is not a name like",
		"m\u00fcnchen.example":                "xn--",
		"fe80::1%eth0":                        "one link of this host",
		"":                                    "DOMAIN is empty",
		"[2001:db8::7]":                       "",
	} {
		if _, err := setupFlags([]string{domain}); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", domain, err, want)
		}
	}
	var out, errs bytes.Buffer
	for args, want := range map[string]int{"setup a.example b.example": 2, "setup proxy": 2, "setup --layout moon x.example": 2, "setup --port x x.example": 2} {
		if code := run(strings.Fields(args), strings.NewReader(""), &out, &errs); code != want {
			t.Errorf("%s: exit code %d, want %d", args, code, want)
		}
	}
}
