# A host on which the package is installed, for the commands of a document: file
# systems of its own over those of the machine, in a network and with processes
# of its own. $1 is a directory of the test, $2 the program.
set -e
layers=$(mktemp -d)
mount -t tmpfs tmpfs "$layers"
for dir in etc var usr; do
  mkdir -p "$layers/$dir" "$layers/$dir.work"
  mount -t overlay overlay -o "lowerdir=/$dir,upperdir=$layers/$dir,workdir=$layers/$dir.work" "/$dir"
done
mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/system # no bus and no socket of the machine
rm -rf /etc/turngate /var/lib/turngate /var/log/turngate /run/turngate
: >/usr/bin/turngate
mount --bind "$2" /usr/bin/turngate
export PATH=$1/bin:/usr/sbin:/usr/bin:/sbin:/bin

# What the package does.
sh "$1/user.sh"
install -d -o root -g turngate -m 0750 /etc/turngate /etc/turngate/tls
install -d -o turngate -g turngate -m 0700 /var/lib/turngate
install -d -o turngate -g turngate -m 0750 /var/log/turngate /run/turngate
install -o root -g turngate -m 0640 "$1/turngate.toml" /etc/turngate/turngate.toml
install -d /usr/share/turngate
cp "$1/turngate.service" /usr/lib/systemd/system
cp "$1/turngate.toml" /usr/share/turngate
cp -r "$1/scripts/." /usr/share/turngate
(umask 077; turngate config init - | sed -n 's/^password = "\(.*\)"$/\1/p' >/etc/turngate/turn.password)
chgrp turngate /etc/turngate/turn.password
chmod 0640 /etc/turngate/turn.password

# Who is in its network.
echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start # what the unit's capability is for
cat "$1/hosts" >>/etc/hosts
export SSL_CERT_FILE=$1/roots.pem
export HOME=/var/tmp
