#!/usr/bin/env bash
# Makes this host a running turngate: sudo ./turn.sh <external-ip>
#
# <external-ip> is the address that clients reach: the public one of a host in
# front of the company network (14.3.3.3, or 14.3.3.3/10.0.0.4 behind NAT), the
# intranet one of a host inside (10.0.0.4). Works from a checkout with Go, beside
# a binary, and after the installation of a package. Run again, with another
# address too, it keeps what it finds and applies the change; calls go on.
set -euo pipefail

say() { printf 'turn.sh: %s\n' "$*"; }
fail() { printf 'turn.sh: %s\n' "$*" >&2; exit 1; }
usage() { printf 'usage: sudo %s <external-ip>\ne.g.   sudo %s 14.3.3.3\n' "$0" "$0" >&2; exit 2; }

[ $# -eq 1 ] || usage
ip=$1
case "$ip" in '' | -*) usage ;; esac
[ "$(id -u)" = 0 ] || fail "must run as root: sudo $0 $ip"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
config=/etc/turngate/turngate.toml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The binary: that of a package stays where it is.
changed=no
if [ -e /usr/lib/systemd/system/turngate.service ] && [ -x /usr/bin/turngate ]; then
  turngate=/usr/bin/turngate
else
  turngate=/usr/local/bin/turngate
  if [ -x "$here/turngate" ]; then
    cp "$here/turngate" "$work/turngate"
  elif [ -e "$here/../go.mod" ] && command -v go >/dev/null; then
    say "building turngate"
    (cd "$here/.." && CGO_ENABLED=0 go build -trimpath -o "$work/turngate" ./cmd/turngate) || fail "it cannot be built here"
  elif [ -x $turngate ]; then
    cp $turngate "$work/turngate"
  else
    fail "no turngate: put the binary beside this script, or install Go and run it from a checkout"
  fi
  if ! cmp -s "$work/turngate" $turngate; then
    install -D -m 0755 "$work/turngate" $turngate
    changed=yes
    ! command -v restorecon >/dev/null || restorecon $turngate || :
  fi
fi

sh "$here/packaging/user.sh" 2>"$work/err" || fail "the user turngate cannot be made: $(cat "$work/err")"
install -d -m 0750 -g turngate /etc/turngate /etc/turngate/tls
install -d -m 0700 -o turngate -g turngate /var/lib/turngate
chown -hR turngate:turngate /var/lib/turngate # of a start as root, before

# The configuration: a new one, or the address in the one that is there.
$turngate config init "$work/new.toml" --external-ip "$ip" >/dev/null 2>"$work/err" ||
  { cat "$work/err" >&2; fail "wrong external ip \"$ip\""; }
if [ ! -e $config ] || cmp -s $config /usr/share/turngate/turngate.toml; then
  install -m 0640 -g turngate "$work/new.toml" $config
  say "$config: written, with a random credential"
elif grep -Eq "^external_ip *= *\"$ip\" *(#.*)?$" $config; then
  say "$config: has this address already, left as it is"
else
  # Both keys stand before the first table; an example of one is replaced.
  cp $config "$work/edited.toml"
  for key in external_ip layout; do
    awk -v key=$key -v line="$(grep "^$key = " "$work/new.toml")" '
      !done && $0 ~ "^#? *" key " *=" { print line; done = 1; next }
      !done && /^ *\[/ { print line "\n"; done = 1 }
      { print }
      END { if (!done) print line }' "$work/edited.toml" >"$work/next.toml"
    mv "$work/next.toml" "$work/edited.toml"
  done
  $turngate config check "$work/edited.toml" >"$work/err" || { cat "$work/err" >&2; fail "$config is left as it was"; }
  cp -p $config $config.before
  cat "$work/edited.toml" >$config
  say "$config: external_ip is now $ip; the file before is $config.before"
fi
$turngate config check $config || fail "$config has to be corrected first"

if [ -d /run/systemd/system ]; then
  if [ $turngate = /usr/local/bin/turngate ]; then
    sed "s|/usr/bin/turngate|$turngate|" "$here/packaging/turngate.service" >"$work/turngate.service"
    if ! cmp -s "$work/turngate.service" /etc/systemd/system/turngate.service; then
      install -m 0644 "$work/turngate.service" /etc/systemd/system/turngate.service
      changed=yes
    fi
  fi
  systemctl daemon-reload
  systemctl enable --quiet turngate.service
  if systemctl is-active --quiet turngate.service && [ $changed = no ]; then
    systemctl reload turngate.service || fail "the change is refused: journalctl -u turngate -n 20"
  else
    systemctl restart turngate.service || { journalctl -u turngate -n 20 --no-pager || :; fail "it does not start: see the lines above"; }
  fi
  control="systemctl status|stop|restart turngate"
else
  # Without systemd: in the background, as its own user where setpriv can give
  # it the ports below 1024.
  export RUNTIME_DIRECTORY=/run/turngate STATE_DIRECTORY=/var/lib/turngate
  pidfile=$RUNTIME_DIRECTORY/turngate.pid log=/var/log/turngate/turngate.log
  install -d -m 0750 -o turngate -g turngate $RUNTIME_DIRECTORY /var/log/turngate
  running() { [ -s $pidfile ] && [ "$(readlink "/proc/$(cat $pidfile)/exe" 2>/dev/null | sed 's/ (deleted)$//')" = $turngate ]; }
  if running && [ $changed = yes ]; then
    say "another version: calls have a minute to end"
    $turngate drain --limit 1m --wait >/dev/null || :
  fi
  if running; then
    $turngate reload || fail "the change is refused"
  else
    caps=()
    if setpriv --help 2>/dev/null | grep -q -- --ambient-caps; then
      caps=(setpriv --reuid=turngate --regid=turngate --clear-groups --no-new-privs
        --inh-caps=-all,+net_bind_service --ambient-caps=-all,+net_bind_service --bounding-set=-all,+net_bind_service)
    else
      say "setpriv cannot give capabilities here: turngate runs as root"
    fi
    ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)"
    begin=$(wc -c 2>/dev/null <$log || echo 0)
    umask 077
    setsid "${caps[@]}" $turngate serve --config $config </dev/null >>$log 2>&1 &
    pid=$!
    echo $pid >$pidfile
    until $turngate status >/dev/null 2>&1; do
      kill -0 $pid 2>/dev/null || { tail -c +$((begin + 1)) $log >&2; rm -f $pidfile; fail "it does not start: see the lines above"; }
      sleep 0.1
    done
  fi
  control="kill $(cat $pidfile), log $log"
fi

$turngate status
echo
$turngate client trtc --config $config || :
cat <<END

turngate runs ($control).
Next: a certificate for your domain in $config; open TCP 443, and UDP and TCP
3478, from the clients to $ip, and let this host out.
END
