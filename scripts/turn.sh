#!/usr/bin/env bash
# Makes this host a running turngate: sudo ./turn.sh <external-ip>
#
# <external-ip> is the address that clients reach: the public one of a host in
# front of the company network (14.3.3.3, or 14.3.3.3/10.0.0.4 behind NAT), the
# intranet one of a host inside (10.0.0.4). Works from a checkout with Go, beside
# a binary, and after the installation of a package. Run again, with another
# address too, it keeps what it finds and applies the change; calls go on.
#
# It brings what a package does (program, user, directories, unit), and leaves the
# rest to "turngate setup", which "turngate setup --undo" takes back.
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

# The program: that of a package stays where it is.
if [ -e /usr/lib/systemd/system/turngate.service ] && [ -x /usr/bin/turngate ]; then
  turngate=/usr/bin/turngate new=$turngate
else
  turngate=/usr/local/bin/turngate new=$work/turngate
  if [ -x "$here/turngate" ]; then
    cp "$here/turngate" "$new"
  elif [ -e "$here/../go.mod" ] && command -v go >/dev/null; then
    say "building turngate"
    (cd "$here/.." && CGO_ENABLED=0 go build -trimpath -o "$new" ./cmd/turngate) || fail "it cannot be built here"
  elif [ -x $turngate ]; then
    cp $turngate "$new"
  else
    fail "no turngate: put the binary beside this script, or install Go and run it from a checkout"
  fi
fi

# The address is read before anything is changed.
"$new" config init "$work/new.toml" --external-ip "$ip" >/dev/null 2>"$work/err" ||
  { cat "$work/err" >&2; fail "wrong external ip \"$ip\""; }

if ! cmp -s "$new" $turngate; then
  install -D -m 0755 "$new" $turngate
  ! command -v restorecon >/dev/null || restorecon $turngate || :
fi
sh "$here/packaging/user.sh" 2>"$work/err" || fail "the user turngate cannot be made: $(cat "$work/err")"
install -d -m 0750 -g turngate /etc/turngate /etc/turngate/tls
install -d -m 0700 -o turngate -g turngate /var/lib/turngate
chown -hR turngate:turngate /var/lib/turngate # of a start as root, before
if [ -d /run/systemd/system ] && [ $turngate = /usr/local/bin/turngate ]; then
  sed "s|/usr/bin/turngate|$turngate|" "$here/packaging/turngate.service" >"$work/turngate.service"
  if ! cmp -s "$work/turngate.service" /etc/systemd/system/turngate.service; then
    install -m 0644 "$work/turngate.service" /etc/systemd/system/turngate.service
    systemctl daemon-reload
  fi
fi

# Somebody's own configuration gets the address, and stays his otherwise.
if ! $turngate setup --dry-run --external-ip "$ip" >/dev/null 2>"$work/err" && grep -q 'TG-302.*external_ip' "$work/err"; then
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

code=0
$turngate setup --yes --external-ip "$ip" || code=$?
case $code in 0 | 3) ;; *) exit $code ;; esac # 3: it runs, and the check found something
echo
$turngate client trtc --config $config || :
