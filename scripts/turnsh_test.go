package scripts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/turngate/turngate/internal/testnet"
)

// A host is this machine with its own network, processes and writable copies
// of /etc, /var, /run and /usr/local: what turn.sh does stays in there.
const host = `
set -e
mount -t tmpfs tmpfs /mnt
for d in etc var usr/local/bin; do
  mkdir -p /mnt/$d/upper /mnt/$d/work
  mount -t overlay overlay -o lowerdir=/$d,upperdir=/mnt/$d/upper,workdir=/mnt/$d/work /$d
done
mount -t tmpfs tmpfs /run
rm -rf /etc/turngate /var/lib/turngate /usr/local/bin/turngate
ip link set lo up
ip addr add 10.9.9.9/24 dev lo
ip route add default dev lo
echo >/etc/resolv.conf # nobody to ask, and no time is lost on it
set +e
`

var built string // the directory of a release: turngate, turn.sh, packaging

func release(t *testing.T) string {
	t.Helper()
	testnet.Need(t, "netns")
	if built != "" {
		return built
	}
	dir, err := os.MkdirTemp("", "turngate-release")
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "go", "build", "-o", filepath.Join(dir, "turngate"), "../cmd/turngate")
	tool(t, "cp", "-r", "turn.sh", "packaging", dir)
	built = dir
	return dir
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// onHost runs a script on a host of its own, with $release.
func onHost(t *testing.T, script string) string {
	t.Helper()
	dir := release(t)
	cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation", "private",
		"bash", "-c", host+"release="+dir+"\n"+script+"\nexit 0\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func wants(t *testing.T, out string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(`(?m)` + p).MatchString(out) {
			t.Errorf("no %q in\n%s", p, out)
		}
	}
}

func TestTurnShEndsWithARunningTurngate(t *testing.T) {
	out := onHost(t, `
bash $release/turn.sh 10.9.9.9; echo "first $?"
pid=$(cat /run/turngate/turngate.pid)
stat -c '%n %a %U %G' /etc/turngate/turngate.toml /var/lib/turngate /run/turngate/admin.sock
cp /etc/turngate/turngate.toml /tmp/before.toml
bash $release/turn.sh 10.9.9.9; echo "again $?"
cmp /tmp/before.toml /etc/turngate/turngate.toml && echo unchanged
[ "$pid" = "$(cat /run/turngate/turngate.pid)" ] && kill -0 $pid && echo "same process"
grep -E '^(Uid|CapEff|NoNewPrivs)' /proc/$pid/status
rm /tmp/before.toml
`)
	wants(t, out, `^first 0$`, `^again 0$`, `^unchanged$`, `^same process$`,
		`^/etc/turngate/turngate.toml 640 root turngate$`, `^/var/lib/turngate 700 turngate turngate$`, `admin.sock 600 turngate turngate$`,
		`url: '10\.9\.9\.9:3478', username: 'turn', credential: '[A-Z0-9]{26}'`, `^layout +2-B, inside the company network`, `^address +10\.9\.9\.9$`,
		`^Everything is set up already\.$`, `^CapEff:\s0000000000000400$`, `^NoNewPrivs:\s1$`)
	if regexp.MustCompile(`(?m)^Uid:\s+0`).MatchString(out) {
		t.Error("turngate runs as root")
	}
}

func TestTurnShTakesAnotherAddress(t *testing.T) {
	out := onHost(t, `
bash $release/turn.sh 10.9.9.9 >/dev/null
echo '# ours' >>/etc/turngate/turngate.toml
pid=$(cat /run/turngate/turngate.pid)
bash $release/turn.sh 14.3.3.3; echo "code $?"
kill -0 $pid && echo "same process"
grep -c '^external_ip' /etc/turngate/turngate.toml
tail -n 1 /etc/turngate/turngate.toml
grep '^external_ip' /etc/turngate/turngate.toml.before
stat -c '%a %U %G' /etc/turngate/turngate.toml.before
`)
	wants(t, out, `^code 0$`, `^same process$`, `^1$`, `^# ours$`, `^external_ip = "10\.9\.9\.9"`, `^640 root turngate$`,
		`url: '14\.3\.3\.3:3478'`, `^layout +2-A, in front of`)
}

// A file of somebody's own is edited where the key belongs, before any table.
func TestTurnShEditsAFileWithoutTheKeys(t *testing.T) {
	out := onHost(t, `
mkdir -p /etc/turngate
printf '[turn]\nmin_port = 21000\nmax_port = 22000\n' >/etc/turngate/turngate.toml
bash $release/turn.sh 14.3.3.3/10.9.9.9; echo "code $?"
/usr/local/bin/turngate config show --json /etc/turngate/turngate.toml | tr -d ' \n' | grep -o '14.3.3.3/10.9.9.9'
kill $(cat /run/turngate/turngate.pid)
`)
	wants(t, out, `^code 0$`, `^14\.3\.3\.3/10\.9\.9\.9$`)
}

func TestTurnShSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ name, script, code, text string }{
		{"no address", `bash $release/turn.sh`, "2", `^usage: sudo .*turn.sh <external-ip>$`},
		{"two addresses", `bash $release/turn.sh 10.9.9.9 10.9.9.8`, "2", `^usage`},
		{"an option", `bash $release/turn.sh --help`, "2", `^usage`},
		{"no address at all", `bash $release/turn.sh 14.3.3`, "1", `wrong external ip "14\.3\.3"`},
		{"a blank in it", `bash $release/turn.sh "14.3.3.3 "`, "1", `wrong external ip`},
		{"not as root", `chmod -R a+rX $release; setpriv --reuid=65534 --regid=65534 --clear-groups bash $release/turn.sh 14.3.3.3`, "1", `must run as root: sudo .* 14\.3\.3\.3$`},
		{"no binary", `mkdir /mnt/x; cp -r $release/turn.sh $release/packaging /mnt/x; bash /mnt/x/turn.sh 14.3.3.3`, "1", `no turngate: put the binary beside`},
		{"a file with mistakes", `mkdir -p /etc/turngate; echo 'external = "x"' >/etc/turngate/turngate.toml; bash $release/turn.sh 14.3.3.3`, "1", `unknown key`},
		{"a port that is taken", `printf '[https]\nlisten = ["127.0.0.1:8443"]\n[admin]\nsocket = "/tmp/other.sock"\n' >/mnt/o.toml
STATE_DIRECTORY=/mnt $release/turngate serve --config /mnt/o.toml >/dev/null 2>&1 & until $release/turngate status --socket /tmp/other.sock >/dev/null 2>&1; do sleep .05; done
bash $release/turn.sh 10.9.9.9`, "1", `TG-132 +(tcp|udp) .*3478 is held by turngate \(process [0-9]+\)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := onHost(t, c.script+"\necho \"code $?\"\n")
			wants(t, out, "^code "+c.code+"$", c.text)
		})
	}
}

// With systemd it installs a unit and lets systemd do the rest. The systemctl
// here writes down what it is asked.
func TestTurnShUsesSystemd(t *testing.T) {
	out := onHost(t, `
mkdir -p /run/systemd/system /mnt/bin
cat >/mnt/bin/systemctl <<'END'
#!/bin/sh
echo "systemctl $*" >>/mnt/asked
case "$1" in
is-active) [ -e /mnt/started ] && echo active || { echo inactive; exit 3; } ;;
is-enabled) [ -e /mnt/enabled ] && echo enabled || { echo disabled; exit 1; } ;;
enable) touch /mnt/enabled ;;
reload) /usr/local/bin/turngate reload ;;
start) touch /mnt/started
  export RUNTIME_DIRECTORY=/run/turngate STATE_DIRECTORY=/var/lib/turngate; mkdir -p /run/turngate
  /usr/local/bin/turngate serve --config /etc/turngate/turngate.toml >/dev/null 2>&1 &
  until /usr/local/bin/turngate status >/dev/null 2>&1; do sleep .05; done ;;
esac
END
chmod +x /mnt/bin/systemctl
PATH=/mnt/bin:$PATH
bash $release/turn.sh 10.9.9.9; echo "code $?"
bash $release/turn.sh 10.9.9.8 >/dev/null 2>&1; echo "again $?"
cat /mnt/asked
grep ^Exec /etc/systemd/system/turngate.service
kill %1 2>/dev/null
`)
	wants(t, out, `^code 0$`, `^again 0$`, `^ExecStart=/usr/local/bin/turngate serve --config /etc/turngate/turngate.toml$`)
	var asked []string
	for line := range strings.Lines(out) {
		words, ok := strings.CutPrefix(strings.TrimSpace(line), "systemctl ")
		if ok && !strings.HasPrefix(words, "is-") && strings.HasSuffix(words, " turngate.service") || words == "daemon-reload" {
			asked = append(asked, words)
		}
	}
	want := fmt.Sprint([]string{"daemon-reload", "reset-failed turngate.service", "enable turngate.service", "start turngate.service", "reload turngate.service"})
	if fmt.Sprint(asked) != want {
		t.Errorf("systemctl was asked\n%v, want\n%s", asked, want)
	}
}
