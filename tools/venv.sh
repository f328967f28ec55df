#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# venv.sh DIRECTORY PINS [PIP-ARGUMENT...] : a virtual environment with the pinned packages, then
# with what the arguments name. Debian's python3 has no ensurepip and guards the system's packages,
# so the environment is made without pip and the pip outside fills it (pip --python).
set -eu
python=${PYTHON:-python3}
dir=$1
pins=$2
shift 2

refuse() {
    echo "make: $1" >&2
    exit 1
}
fill() {
    "$python" -m pip --python "$dir/bin/python" install --quiet --disable-pip-version-check "$@" ||
        refuse "$dir is not complete, pip says why above; when that is mended, type the same again"
}

command -v "$python" >/dev/null 2>&1 ||
    refuse "$python is not there; type as root: apt-get install python3 python3-pip"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    refuse "$python is older than 3.11; name a newer one: make PYTHON=python3.11 ..."
"$python" -m pip --version >/dev/null 2>&1 ||
    refuse "$python has no pip that works; type as root: apt-get install python3-pip"
"$python" -m pip --help 2>/dev/null | grep -q -e '--python' ||
    refuse "the pip of $python is older than 22.3; type: $python -m pip install --upgrade pip"

# What an interrupted or upgraded Python left behind is made again from the start.
[ -x "$dir/bin/python" ] || "$python" -m venv --clear --without-pip "$dir" ||
    refuse "$python cannot make a virtual environment; type as root: apt-get install python3-venv"
echo "make: filling $dir (once, about half a minute)" >&2
fill --requirement "$pins"
[ $# = 0 ] || fill "$@"
