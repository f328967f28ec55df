#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fuse.sh : makes sure that fuse3 is there, with which the tests cut the power of a disk. Where it
# cannot be installed, or there is no /dev/fuse, those tests are skipped and say why.
set -u
there() { command -v "$1" >/dev/null 2>&1; }
there fusermount3 && exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo="sudo -n"
install() {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 \
        install --no-install-recommends fuse3 libfuse3-3 >/dev/null 2>&1
}
if there apt-get; then
    install || { $sudo apt-get -qq update >/dev/null 2>&1 && install; }
fi
there fusermount3 || echo "make: fuse3 is missing; type as root: apt-get install fuse3" >&2
exit 0
