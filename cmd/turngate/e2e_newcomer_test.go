package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/internal/testnet/browser"
	"github.com/turngate/turngate/internal/testnet/pebble"
	"github.com/turngate/turngate/internal/testnet/trtccloud"
)

// A newcomer is somebody with a package, a name and a Debian that has nothing else. The
// Debian is a directory, which .ci/newcomer makes, and its Internet is this process.
type newcomer struct {
	root      string
	questions []string
	times     []string
}

// systemctlForNewcomers does what systemd would with the unit: it starts the program as
// its user, with its directories and the one capability, and waits until it serves.
const systemctlForNewcomers = `#!/bin/sh
export RUNTIME_DIRECTORY=/run/turngate STATE_DIRECTORY=/var/lib/turngate LOGS_DIRECTORY=/var/log/turngate
case "$1 $2" in
"is-enabled turngate.service") [ -e /run/enabled ] && echo enabled || { echo disabled; exit 1; } ;;
"is-active turngate.service") turngate status >/dev/null 2>&1 && echo active || { echo inactive; exit 3; } ;;
"enable turngate.service") touch /run/enabled ;;
"disable turngate.service") rm -f /run/enabled ;;
"stop turngate.service") turngate drain --limit 1s --wait ;;
"reload turngate.service") turngate reload ;;
"start turngate.service" | "restart turngate.service")
  install -d -m 0750 -o turngate -g turngate /run/turngate /var/log/turngate
  ulimit -n $(ulimit -Hn)
  setsid setpriv --reuid=turngate --regid=turngate --clear-groups --no-new-privs --inh-caps=-all,+net_bind_service --ambient-caps=-all,+net_bind_service \
    --bounding-set=-all,+net_bind_service turngate serve --config /etc/turngate/turngate.toml </dev/null >/run/turngate.log 2>&1 &
  for i in $(seq 100); do turngate status >/dev/null 2>&1 && exit 0; sleep 0.1; done
  cat /run/turngate.log >&2; exit 1 ;;
*) exit 0 ;;
esac
`

// newNewcomer makes a fresh copy of the Debian, with an address of its own. Nothing of
// this machine is mounted into it, and nothing here removes a directory with mounts in
// it: all of them are gone with the namespace that .ci/newcomer made.
func newNewcomer(t *testing.T, base, name, address string) *newcomer {
	t.Helper()
	n := &newcomer{root: filepath.Join(filepath.Dir(base), "of-"+name)}
	shell(t, fmt.Sprintf(`set -e
mkdir %[1]s
mount -t tmpfs tmpfs %[1]s
mkdir %[1]s/upper %[1]s/work %[1]s/host
mount -t overlay overlay -o lowerdir=%[2]s,upperdir=%[1]s/upper,workdir=%[1]s/work %[1]s/host
mount -t proc proc %[1]s/host/proc
mount -t tmpfs tmpfs %[1]s/host/dev
mknod -m 666 %[1]s/host/dev/null c 1 3
mknod -m 666 %[1]s/host/dev/zero c 1 5
mknod -m 666 %[1]s/host/dev/urandom c 1 9
mknod -m 666 %[1]s/host/dev/tty c 5 0
mount -t tmpfs tmpfs %[1]s/host/run
mkdir -p %[1]s/host/run/systemd/system
ip addr flush dev inet0
ip addr add %[3]s/24 dev inet0
ip route replace default dev inet0`, n.root, base, address))
	n.root += "/host"
	t.Cleanup(func() { // whatever serves there ends with its socket
		_, _ = exec.Command("chroot", n.root, "turngate", "drain", "--limit", "1ms", "--wait").CombinedOutput()
	})
	n.write(t, "/usr/bin/systemctl", systemctlForNewcomers, 0o755)
	return n
}

func shell(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("bash", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	return string(out)
}

func (n *newcomer) write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	_ = os.Remove(filepath.Join(n.root, path))
	if err := os.WriteFile(filepath.Join(n.root, path), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// trusts adds an authority to those of the Debian.
func (n *newcomer) trusts(t *testing.T, pem []byte) {
	t.Helper()
	path := filepath.Join(n.root, "/etc/ssl/certs/ca-certificates.crt")
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n.write(t, "/etc/ssl/certs/ca-certificates.crt", string(have)+string(pem), 0o644)
}

// types is a command at a terminal of the Debian; whatever it asks is answered with the
// return key, and noted.
func (n *newcomer) types(t *testing.T, command string) string {
	t.Helper()
	cmd := exec.Command("script", "--quiet", "--return", "--command", "chroot "+n.root+" sh -c "+shellQuote(command), "/dev/null")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var out testnet.LogBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	question := regexp.MustCompile(`(?m)^.*\[Y/n\]: `)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond) // a terminal announces nothing
	defer tick.Stop()
	for asked := 0; ; {
		select {
		case err = <-ended:
			n.times = append(n.times, fmt.Sprintf("%-70s %5.1f s", command, time.Since(began).Seconds()))
			if err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out.String())
			}
			return out.String()
		case <-tick.C:
			if all := question.FindAllString(out.String(), -1); len(all) > asked {
				n.questions = append(n.questions, strings.TrimSpace(all[asked]))
				asked++
				_, _ = io.WriteString(in, "\n")
			}
		}
	}
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// onPort443 serves a listener's connections at an address of the Internet.
func onPort443(t *testing.T, internet *testnet.Namespace, address string, serve func(net.Listener)) {
	t.Helper()
	var l net.Listener
	var err error
	internet.Do(func() { l, err = net.Listen("tcp", address+":443") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go serve(l)
}

// forward copies connections to another address.
func forward(to string) func(net.Listener) {
	return func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				up, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer up.Close()
				go func() { _, _ = io.Copy(up, c); up.Close() }()
				_, _ = io.Copy(c, up)
			}()
		}
	}
}

// letsEncrypt is a Pebble under the name and the path of Let's Encrypt.
func letsEncrypt(t *testing.T, internet *testnet.Namespace, ca *testnet.CA) *pebble.Server {
	t.Helper()
	p := pebble.Start(t, pebble.Options{TLSPort: 443, HTTPPort: 80})
	to, err := url.Parse(p.Directory)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.Roots)
	proxy := &httputil.ReverseProxy{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "https", to.Host, r.In.Host
			if r.In.URL.Path == "/directory" {
				r.Out.URL.Path = "/dir"
			}
		},
	}
	cert := ca.Issue(t, "acme-v02.api.letsencrypt.org")
	onPort443(t, internet, "198.51.100.2", func(l net.Listener) {
		srv := &http.Server{Handler: proxy, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
		_ = srv.ServeTLS(l, "", "")
	})
	return p
}

// TestNewcomer goes from the package to "done" on the check page.
func TestNewcomer(t *testing.T) {
	base := os.Getenv("TURNGATE_NEWCOMER")
	if base == "" {
		testnet.Lacks(t, "newcomer", "there is no Debian for it, which .ci/newcomer makes")
	}
	testnet.Need(t, "chromium")
	internet := testnet.NewNamespace(t)
	runtime.LockOSThread() // a thread that is in the host's network; the first one may not be
	defer runtime.UnlockOSThread()
	internet.Run(t, "ip link add inet1 type veth peer name inet0", fmt.Sprintf("ip link set inet0 netns %d", syscall.Gettid()), "ip link set inet1 up",
		"ip addr add 198.51.100.1/24 dev inet1", "ip addr add 198.51.100.2/24 dev inet1", "ip route add default dev inet1")
	shell(t, "ip link set lo up; ip link set inet0 up")
	cloud := trtccloud.Start(t)
	onPort443(t, internet, "198.51.100.1", forward(cloud.Addr().String()))
	ca := testnet.NewCA(t, "an authority of the Internet")
	acme := letsEncrypt(t, internet, ca)
	names := ""
	for _, name := range []string{"signaling.rtc.qq.com", "yun.tim.qq.com", "apisgp.my-imcloud.com", "schedule.cloud-rtc.com", "schedule.cloud-rtc.net",
		"schedule.rtc-web.com", "schedule.rtc-web.io", "intl-schedule.cloud-rtc.com", "schedule.rtc.qcloud.com", "schedule.rtc.tencentcloud.com", "schedule-ecdn.rtc.tencentcloud.com"} {
		names += "198.51.100.1 " + name + "\n"
	}
	names += "198.51.100.2 acme-v02.api.letsencrypt.org\n"

	for _, tc := range []struct {
		name, host, address string
		commands            []string
		questions           int
	}{
		{"2-A", "proxy.example.com", "203.0.113.7", []string{"turngate setup proxy.example.com"}, 1},
		{"2-B", "proxy.corp.example", "10.20.0.5", []string{"turngate setup proxy.corp.example --cert /srv/proxy.pem --key /srv/proxy.key"}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNewcomer(t, base, tc.name, tc.address)
			n.write(t, "/etc/hosts", "127.0.0.1 localhost\n"+tc.address+" "+tc.host+"\n"+names, 0o644)
			n.write(t, "/etc/resolv.conf", "\n", 0o644)
			for _, pem := range [][]byte{cloud.CAPEM(), ca.PEM, acme.IssuerPEM(t)} {
				n.trusts(t, pem)
			}
			writePair(t, ca.IssueUntil(t, time.Now().Add(90*24*time.Hour), tc.host), n.root+"/srv/proxy")
			began := time.Now()
			n.types(t, "dpkg --install /turngate.deb")
			var out string
			for _, c := range tc.commands {
				out = n.types(t, c)
			}
			link := regexp.MustCompile(`https://` + regexp.QuoteMeta(tc.host) + `/check#\S+`).FindString(out)
			if link == "" {
				t.Fatalf("no link in\n%s", out)
			}
			page := browser.Start(t, browser.Options{
				Trust: []*x509.Certificate{servedBy(t, tc.address, tc.host)},
				Hosts: map[string]string{tc.host: tc.address},
			})
			opened := time.Now()
			got := waitForVerdict(t, page.Visit(t, link, browser.View{Width: 1280, Height: 900, Language: "en-US"}))
			n.times = append(n.times, fmt.Sprintf("%-70s %5.1f s", "the check page, until its verdict", time.Since(opened).Seconds()))
			if got.Verdict != "ok" || !strings.HasPrefix(got.Title, "Done") {
				t.Errorf("the page says %s %q\n%s\nsetup said\n%s", got.Verdict, got.Title, got.Text, out)
			}
			if len(n.questions) != tc.questions {
				t.Errorf("%d questions, want %d: %q", len(n.questions), tc.questions, n.questions)
			}
			t.Logf("%s: from the package to done in %.1f s\n%s\nquestions: %q\n%s", tc.name, time.Since(began).Seconds(), strings.Join(n.times, "\n"), n.questions, out)

			// And back, to what the package had left.
			if out := n.types(t, "turngate setup --undo"); !strings.Contains(out, "This host is as it was before") {
				t.Errorf("undo:\n%s", out)
			}
			if out := n.types(t, "cmp /etc/turngate/turngate.toml /usr/share/turngate/turngate.toml && ls -A /etc/turngate /etc/turngate/tls /var/lib/turngate"); strings.Join(strings.Fields(out), " ") !=
				"/etc/turngate: tls turn.password turngate.toml /etc/turngate/tls: /var/lib/turngate:" {
				t.Errorf("after the undo:\n%s", out)
			}
		})
	}
}

// servedBy is the certificate that an address shows for a name.
func servedBy(t *testing.T, address, name string) *x509.Certificate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}}
	c, err := d.DialContext(ctx, "tcp", address+":443")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0]
}
