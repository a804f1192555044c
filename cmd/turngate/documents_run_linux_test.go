package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/manual"
	"github.com/turngate/turngate/internal/testnet"
)

// notRun are the programs that a document names and the test cannot run, with
// the reason. They do nothing, and end with 0.
var notRun = map[string]string{
	"dnf":     "needs a repository; .ci/packages installs the RPM",
	"apt":     "needs a repository; .ci/packages installs the DEB",
	"docker":  "needs a daemon",
	"kubectl": "needs a cluster",
	"helm":    "needs a cluster; TestChart renders the chart",
	"go":      "the gate builds and tests",
	"nginx":   "has port 443 of another host; the tests of the import run it",
}

// names are the hosts that the documents talk about, with the addresses that
// they have in the network of the test.
var names = map[string]string{
	"proxy.example.com":                  "14.3.3.3",
	"proxy.corp.example":                 "10.0.0.4",
	"signaling.rtc.qq.com":               cloudAddress,
	"schedule.cloud-rtc.com":             cloudAddress,
	"schedule.cloud-rtc.net":             cloudAddress,
	"schedule.rtc.qcloud.com":            cloudAddress,
	"schedule.rtc-web.com":               cloudAddress,
	"schedule.rtc-web.io":                cloudAddress,
	"schedule.rtc.tencentcloud.com":      cloudAddress,
	"schedule-ecdn.rtc.tencentcloud.com": cloudAddress,
	"intl-schedule.cloud-rtc.com":        cloudAddress,
	"yun.tim.qq.com":                     cloudAddress,
	"apisgp.my-imcloud.com":              cloudAddress,
	"watchrtc-server.cyara.com":          cloudAddress,
	"watchrtc.spearline.dev":             cloudAddress,
	"chat.example.com":                   cloudAddress,
	"waf.example.com":                    cloudAddress,
	"a.example.com":                      cloudAddress,
	"b.example.com":                      cloudAddress,
	"c.example.com":                      cloudAddress,
	"app.internal.example":               cloudAddress,
}

const cloudAddress = "192.0.2.80"

// TestDocumentCommands does what the documents say, one document after another,
// each on a host of its own: it writes the files, runs the commands, and
// compares what they print.
func TestDocumentCommands(t *testing.T) {
	testnet.Need(t, "netns")
	testnet.Need(t, "curl")
	testnet.Need(t, "openssl")
	used := map[string]bool{}
	for _, d := range documents(t) {
		if strings.HasSuffix(d.Name, ".zh") {
			continue // has the commands of the original
		}
		blocks := d.blocks(t)
		if !slices.ContainsFunc(blocks, func(b block) bool { return b.lang == "sh" || b.lang == "console" }) {
			continue
		}
		for _, b := range blocks {
			for program := range notRun {
				if b.lang != "sh" && b.lang != "console" || !regexp.MustCompile(`\b`+program+`\b`).MatchString(b.Text) {
					continue
				}
				used[program] = true
			}
		}
		t.Run(d.Name, func(t *testing.T) {
			t.Parallel()
			newDocumentHost(t).run(t, blocks)
		})
	}
	for program := range notRun {
		if !used[program] {
			t.Errorf("%s is let off, and no document names it", program)
		}
	}
}

// documentHost is a host on which the package is installed.
type documentHost struct {
	dir     string // of the test; a reader works in dir/home
	network *testnet.Namespace
}

func newDocumentHost(t *testing.T) *documentHost {
	h := &documentHost{dir: t.TempDir(), network: testnet.NewNamespace(t)}
	for _, path := range []string{h.dir, filepath.Dir(h.dir)} { // the service is another user
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ca := testnet.NewCA(t, "an authority of the test")
	roots, err := os.ReadFile(ca.File(t))
	if err != nil {
		t.Fatal(err)
	}
	var hosts strings.Builder
	var all []string
	for name, address := range names {
		fmt.Fprintln(&hosts, address, name)
		all = append(all, name)
	}
	h.write(t, "hosts", hosts.String(), 0o644)
	h.write(t, "roots.pem", string(roots), 0o644)
	h.write(t, "turngate.toml", string(config.Starter{User: "turn", PasswordFile: "/etc/turngate/turn.password"}.TOML()), 0o644)
	h.link(t, "host.sh", "testdata/documents/host.sh")
	h.link(t, "user.sh", "../../scripts/packaging/user.sh")
	h.link(t, "turngate.service", "../../scripts/packaging/turngate.service")
	h.link(t, "scripts", "../../scripts")
	h.link(t, "bin/systemctl", "testdata/documents/systemctl")
	h.write(t, "bin/sysctl", "#!/bin/sh\n# the kernel is that of all hosts on this machine\n", 0o755)
	h.write(t, "bin/journalctl", "#!/bin/sh\ncat /var/log/journal.turngate\n", 0o755)
	h.write(t, "bin/sudo", "#!/bin/sh\nexec \"$@\"\n", 0o755)
	for program, why := range notRun {
		h.write(t, "bin/"+program, "#!/bin/sh\n# "+why+"\n", 0o755)
	}
	// What a reader has in hand: a certificate, that of the company's CA.
	for _, name := range []string{"proxy.example.com", "proxy.corp.example"} {
		cert := ca.Issue(t, name)
		key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		var chain strings.Builder
		for _, der := range cert.Certificate {
			pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // into memory
		}
		h.write(t, "home/"+name+".pem", chain.String(), 0o644)
		h.write(t, "home/"+name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})), 0o600)
	}
	h.write(t, "home/company-ca.pem", string(roots), 0o644)
	h.serveCloud(t, ca, all)
	return h
}

func (h *documentHost) write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(h.dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (h *documentHost) link(t *testing.T, name, target string) {
	t.Helper()
	path := filepath.Join(h.dir, name)
	target, err := filepath.Abs(target)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.Symlink(target, path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// serveCloud answers for all upstreams of the documents: WebSockets are opened,
// everything else is well.
func (h *documentHost) serveCloud(t *testing.T, ca *testnet.CA, names []string) {
	cloud := testnet.NewNamespace(t)
	testnet.Veth(t, h.network, "eth0", cloud, "cloud0")
	h.network.Run(t, "ip address add 192.0.2.1/24 dev eth0", "ip address add 14.3.3.3/32 dev eth0", "ip address add 10.0.0.4/32 dev eth0",
		"ip route add default via "+cloudAddress+" src 14.3.3.3")
	cloud.Run(t, "ip address add "+cloudAddress+"/24 dev cloud0", "ip route add default via 192.0.2.1")
	var listener net.Listener
	var err error
	cloud.Do(func() { listener, err = net.Listen("tcp", cloudAddress+":443") })
	if err != nil {
		t.Fatal(err)
	}
	var srv http.Server
	srv.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, names...)}}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			io.WriteString(w, "ok")
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			testnet.AcceptKey(r.Header.Get("Sec-WebSocket-Key")))
		rw.Flush()
		io.Copy(io.Discard, rw) // until the client goes
	})
	done := make(chan struct{})
	go func() { defer close(done); srv.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { srv.Close(); <-done })
}

// bare are the documents that begin with a host where the package is installed. The
// others are for one that was set up, as layout-2a says.
var bare = []string{"README", "layout-2a", "layout-2b", "migrate", "operations"}

const setUp = "turngate setup proxy.example.com --cert proxy.example.com.pem --key proxy.example.com.key --external-ip 14.3.3.3 --yes"

// run does what the blocks say, in their order.
func (h *documentHost) run(t *testing.T, blocks []block) {
	var script strings.Builder
	fmt.Fprintf(&script, ". %s/host.sh\nset +e\ncd %s/home\n", h.dir, h.dir)
	outputs := map[string]block{}
	n := 0
	command := func(b block, text string) string {
		n++
		out := fmt.Sprintf("%s/out.%03d", h.dir, n)
		outputs[out] = b
		fmt.Fprintf(&script, "(\nset -e\n%s\n) </dev/null >%s 2>&1\necho $? >%s.code\n", text, out, out)
		return out
	}
	type expected struct {
		step step
		out  string
		b    block
	}
	var expectations []expected
	if !slices.Contains(bare, blocks[0].doc.Name) {
		command(block{Block: manual.Block{Text: setUp}, doc: blocks[0].doc, words: map[string]string{}}, setUp)
	}
	for _, b := range blocks {
		switch file := b.words["file"] + b.words["append"]; {
		case file != "":
			redirect := ">"
			if b.words["append"] != "" {
				redirect = ">>"
			}
			// As an editor does: owner and mode stay.
			command(b, fmt.Sprintf("mkdir -p \"$(dirname %s)\"\ncat %s%s <<'END_OF_BLOCK'\n%sEND_OF_BLOCK", file, redirect, file, b.Text))
		case b.lang == "sh" && b.words["background"] != "":
			n++
			out := fmt.Sprintf("%s/out.%03d", h.dir, n)
			fmt.Fprintf(&script, "(\nset -e\n%s\n) </dev/null >%s 2>&1 &\n", b.Text, out)
			command(b, fmt.Sprintf("for i in $(seq 100); do ! (: <>/dev/tcp/127.0.0.1/%s) 2>/dev/null || exit 0; sleep 0.1; done; cat %s; exit 1", b.words["background"], out))
		case b.lang == "sh":
			command(b, b.Text)
		case b.lang == "console":
			for _, s := range console(b.Text) {
				expectations = append(expectations, expected{s, command(b, s.command), b})
			}
		}
	}
	h.write(t, "document.sh", script.String(), 0o644)

	program, err := exec.LookPath("turngate") // which is this test, see TestMain
	if err != nil {
		t.Fatal(err)
	}
	if program, err = filepath.EvalSymlinks(program); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
		"bash", h.dir+"/document.sh", h.dir, program)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TERM=dumb"}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	var startErr error
	h.network.Do(func() { startErr = cmd.Start() })
	if startErr == nil {
		startErr = cmd.Wait()
	}
	if startErr != nil || said.Len() > 0 {
		t.Fatalf("the host: %v\n%s", startErr, said.Bytes())
	}

	for out, b := range outputs {
		text, err := os.ReadFile(out)
		code, err2 := os.ReadFile(out + ".code")
		if err != nil || err2 != nil {
			t.Errorf("%s: was not run: %v, %v", b, err, err2)
			continue
		}
		want := strings.Split("0", "|")
		if exit := b.words["exit"]; exit != "" {
			want = strings.Split(exit, "|")
		}
		if got := strings.TrimSpace(string(code)); !slices.Contains(want, got) {
			t.Errorf("%s: ended with %s, want %s:\n%s%s", b, got, strings.Join(want, " or "), b.Text, text)
		}
	}
	if testing.Verbose() {
		for out, b := range outputs {
			text, _ := os.ReadFile(out)
			t.Logf("%s\n%s\nprints\n%s", b, b.Text, text)
		}
	}
	for _, e := range expectations {
		text, err := os.ReadFile(e.out)
		if err != nil {
			continue // said above
		}
		rest := strings.Split(string(text), "\n")
		for _, line := range e.step.output {
			i := slices.IndexFunc(rest, func(got string) bool { return likeLine(line, got) })
			if i < 0 {
				t.Errorf("%s: %q does not print\n%s\nbut\n%s", e.b, e.step.command, line, text)
				break
			}
			rest = rest[i+1:]
		}
	}
}

// likeLine compares a line of a document with one that was printed: "..." stands
// for anything, and blanks for any number of them.
func likeLine(shown, got string) bool {
	var parts []string
	for _, part := range strings.Split(shown, "...") {
		part = regexp.QuoteMeta(part)
		parts = append(parts, regexp.MustCompile(` +`).ReplaceAllString(part, ` +`))
	}
	re, err := regexp.Compile("^ *" + strings.Join(parts, ".*") + " *$")
	return err == nil && re.MatchString(got)
}
