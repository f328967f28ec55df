#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# broker.sh : makes sure that the mosquitto broker is there, which demo, tests and benchmarks start
# for themselves on free ports of the loopback.
set -eu
PATH=$PATH:/usr/sbin:/sbin
command -v mosquitto >/dev/null 2>&1 && exit 0

refuse() {
    echo "make: the mosquitto broker is missing and could not be installed; type: sudo apt-get install mosquitto" >&2
    exit 1
}
install() {
    "$@" apt-get -qq update >/dev/null 2>&1 || return 1
    # apt keeps its hands off the terminal; no questions are asked.
    "$@" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends mosquitto >/dev/null 2>&1
}
echo "make: installing the mosquitto broker with apt" >&2
command -v apt-get >/dev/null 2>&1 || refuse
if [ "$(id -u)" = 0 ]; then
    install || refuse
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    install sudo -n || refuse
else
    refuse
fi
command -v mosquitto >/dev/null 2>&1 || refuse
