#!/bin/sh
# Before the files are unpacked: some of them belong to this group.
set -e
getent group turngate >/dev/null || groupadd --system turngate
getent passwd turngate >/dev/null || useradd --system --gid turngate --home-dir /var/lib/turngate \
  --no-create-home --shell /usr/sbin/nologin --comment turngate turngate
