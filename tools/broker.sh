#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# broker.sh PACKAGE : makes sure that the broker of this name is there, which demo, tests and
# benchmarks start for themselves on free ports of the loopback.
set -eu
package=$1
PATH=$PATH:/usr/sbin:/sbin
there() { command -v "$1" >/dev/null 2>&1; }
there "$package" && exit 0

refuse() {
    echo "make: the $package broker is missing and $1; type as root: apt-get install $package" >&2
    exit 1
}
# No questions are asked, and another apt is waited for. Old lists are made new only when needed.
install() {
    "$@" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 \
        install --no-install-recommends "$package"
}
refreshed() {
    "$@" apt-get -qq update || true
    install "$@"
}

there apt-get || refuse "there is no apt to install it"
sudo=
if [ "$(id -u)" != 0 ]; then
    there sudo && sudo -n true >/dev/null 2>&1 || refuse "only root may install it"
    sudo="sudo -n"
fi
echo "make: installing the $package broker with apt" >&2
install $sudo >/dev/null 2>&1 || refreshed $sudo >/dev/null 2>&1 || refuse "apt did not install it"
there "$package" || refuse "apt did not install it"
