package main

import (
	"os/exec"
	"regexp"
	"testing"

	"github.com/turngate/turngate/internal/testnet"
)

// realHost is this machine with its own network, processes and writable copies of /etc
// and /var, and with what a package brings; $OUT is the address that it has.
const realHost = `set -e
mount -t tmpfs tmpfs /mnt
for d in etc var; do
  mkdir -p /mnt/$d/upper /mnt/$d/work
  mount -t overlay overlay -o lowerdir=/$d,upperdir=/mnt/$d/upper,workdir=/mnt/$d/work /$d
done
mount -t tmpfs tmpfs /run
rm -rf /etc/turngate /var/lib/turngate /etc/systemd/system/firewalld.service /etc/systemd/system/multi-user.target.wants/firewalld.service /etc/systemd/system/dbus-org.fedoraproject.FirewallD1.service
getent passwd turngate >/dev/null || useradd --system --user-group --no-create-home --home-dir /var/lib/turngate turngate
install -d -m 0750 -g turngate /etc/turngate /etc/turngate/tls
install -d -m 0700 -o turngate -g turngate /var/lib/turngate
ip link set lo up
ip addr add 14.3.3.3/24 dev lo
ip route add default dev lo
echo >/etc/resolv.conf
echo '14.3.3.3 proxy.example.com' >>/etc/hosts
exe=/mnt/turngate # where the service's user may run it
cp "$(command -v turngate)" $exe && chmod 0755 /mnt $exe
turngate() { $exe "$@"; }
tree() { find /etc /var/lib/turngate* -printf '%p %y %m %U:%G %l\n' | sort >/mnt/$1.list; find /etc /var/lib/turngate* -type f -exec sha256sum {} + 2>/dev/null | sort >>/mnt/$1.list; nft list ruleset >>/mnt/$1.list; }
set +e
`

func onRealHost(t *testing.T, script string, patterns ...string) {
	t.Helper()
	testnet.Need(t, "netns")
	testnet.Need(t, "nftables")
	out, err := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation", "private",
		"bash", "-c", realHost+script+"\nexit 0\n").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, p := range patterns {
		if !regexp.MustCompile(`(?m)` + p).Match(out) {
			t.Errorf("no %q", p)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// Real rules are opened, a real program serves, and everything is put back.
func TestSetupOnAHostThatFilters(t *testing.T) {
	onRealHost(t, `
nft -f - <<'END'
table inet filter {
	chain input {
		type filter hook input priority 0; policy drop;
		iif lo accept
		ct state established,related accept
		tcp dport 22 accept
	}
}
END
tree before
turngate setup proxy.example.com --own-ca; echo "set up: $?"
nft list chain inet filter turngate
pid=$(cat /run/turngate/turngate.pid); grep -E '^(CapEff|NoNewPrivs|Uid)' /proc/$pid/status
turngate check --local --quiet --ca /etc/turngate/turngate-ca.pem | grep -c FAIL
tree after
turngate setup proxy.example.com; echo "again: $?"
tree again; cmp /mnt/after.list /mnt/again.list && echo "again: nothing changed"
kill -0 $pid && echo "the same process"
echo '# edited' >>/etc/turngate/turngate.toml
turngate setup --undo; echo "undone: $?"
cat /etc/turngate/turngate.toml.undone | tail -n 1; rm /etc/turngate/turngate.toml.undone
kill -0 $pid 2>/dev/null || echo "the process has ended"
tree undone; diff /mnt/before.list /mnt/undone.list && echo "everything is as it was"
`, `^set up: 3$`, `tcp dport 443 accept comment "turngate`, `udp dport 3478 accept`, `^CapEff:\s0000000000000400$`, `^NoNewPrivs:\s1$`, `^0$`,
		`^again: 3$`, `^again: nothing changed$`, `^the same process$`, `^undone: 0$`, `^# edited$`, `^the process has ended$`, `^everything is as it was$`)
}

// A port that somebody has is named with who has it, and nothing is changed.
func TestSetupNamesWhoHasThePort(t *testing.T) {
	testnet.Need(t, "nginx")
	onRealHost(t, `
mkdir -p /etc/nginx /var/log/nginx /var/lib/nginx
openssl req -x509 -newkey rsa:2048 -nodes -keyout /etc/nginx/k.pem -out /etc/nginx/c.pem -days 2 -subj /CN=proxy.example.com -addext subjectAltName=DNS:proxy.example.com 2>/dev/null
cat >/etc/nginx/nginx.conf <<'END'
events {}
http {
  server {
    listen 443 ssl;
    server_name proxy.example.com;
    ssl_certificate /etc/nginx/c.pem;
    ssl_certificate_key /etc/nginx/k.pem;
    location /ws/ { proxy_pass https://signaling.rtc.qq.com/; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }
    location /logger/ { proxy_pass https://yun.tim.qq.com/; }
  }
}
END
sed -i 's|https://signaling.rtc.qq.com/|https://14.3.3.3:9/|; s|https://yun.tim.qq.com/|https://14.3.3.3:9/|' /etc/nginx/nginx.conf
nginx
tree before
turngate setup proxy.example.com --own-ca; echo "refused: $?"
tree after; cmp /mnt/before.list /mnt/after.list && echo "nothing changed"
turngate setup proxy.example.com --own-ca --port 8443 | grep -F 'https://proxy.example.com:8443/check#'; echo "another port: ${PIPESTATUS[0]}"
turngate setup --undo >/dev/null; echo "undone: $?"
turngate config import /etc/nginx/nginx.conf --force -o /etc/turngate/turngate.toml >/dev/null 2>&1
nginx -s stop; while [ -e /run/nginx.pid ]; do sleep .05; done
chgrp turngate /etc/nginx/k.pem; chmod 0640 /etc/nginx/k.pem
stat -c 'imported as %a %U:%G' /etc/turngate/turngate.toml
turngate setup proxy.example.com; echo "imported: $?"
stat -c 'served as %a %U:%G' /etc/turngate/turngate.toml
turngate status | grep '^file'
`, `TG-132 +tcp :443 is held by nginx \(process [0-9]+.*turngate config import /etc/nginx/nginx.conf --force -o /etc/turngate/turngate.toml; stop it .* --port 8443`,
		`^refused: 1$`, `^nothing changed$`, `^another port: [03]$`, `^undone: 0$`, `^imported: [03]$`, `^imported as 600 root:(root|turngate)$`, `^served as 640 root:turngate$`, `^file +/etc/turngate/turngate.toml$`)
}
