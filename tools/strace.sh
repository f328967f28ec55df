#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# strace.sh : makes sure that strace is there, with which the tests kill programs between two steps.
# Where it cannot be installed, or ptrace is refused, those tests are skipped and say why.
set -u
there() { command -v "$1" >/dev/null 2>&1; }
there strace && exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo="sudo -n"
install() {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 \
        install --no-install-recommends strace >/dev/null 2>&1
}
if there apt-get; then
    install || { $sudo apt-get -qq update >/dev/null 2>&1 && install; }
fi
there strace || echo "make: strace is missing; type as root: apt-get install strace" >&2
exit 0
