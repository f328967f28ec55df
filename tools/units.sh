#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# units.sh : makes sure that systemd-analyze is there, with which the tests read systemd/. No service
# is started. Where it cannot be installed those tests say so: skipped, or failed when CI=true.
set -u
there() { command -v "$1" >/dev/null 2>&1; }
there systemd-analyze && exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo="sudo -n"
install() {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 \
        install --no-install-recommends systemd >/dev/null 2>&1
}
if there apt-get; then
    install || { $sudo apt-get -qq update >/dev/null 2>&1 && install; }
fi
there systemd-analyze || echo "make: systemd-analyze is missing; type as root: apt-get install systemd" >&2
exit 0
