#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# systemd-root.sh DIRECTORY : a Debian with systemd as its first process, in which journeys of
# tests/ start the units. 300 MB, a minute; made once, outside the checkout.
set -eu
root=$1
[ -d "$root/usr/lib/systemd" ] && exit 0
[ "$(id -u)" = 0 ] || { echo "make: only root may make $root" >&2; exit 1; }
for program in debootstrap systemd-nspawn; do
    command -v "$program" >/dev/null 2>&1 && continue
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends \
        debootstrap systemd-container >/dev/null ||
        { echo "make: type: apt-get install debootstrap systemd-container" >&2; exit 1; }
done
rm -rf "$root.part"
mkdir -p "$(dirname "$root")"
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,python3,procps \
    bookworm "$root.part" >/dev/null
mv "$root.part" "$root"
