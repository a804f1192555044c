#!/usr/bin/env bash
# usage: turn.sh <external-ip>
set -e
usage() {
        echo -e "\nUsage: $0 <external-ip> \ne.g. $0 192.0.2.9"
}
if [ $# -lt 1 ]
then
        usage
        exit 1
fi
yum install -y coturn
# $1 is <external-ip>
cat <<END > /etc/coturn/turnserver.conf
external-ip=$1
listening-port=3478
lt-cred-mech
max-port=65535
min-port=20000
no-dtls
no-tls
realm=tencent
user=turn:turn
verbose
END
