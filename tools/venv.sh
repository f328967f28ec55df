#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# venv.sh DIRECTORY PIP-ARGUMENT... : a virtual environment with these packages.
# Debian's python3 has no ensurepip and guards the system's packages, so the environment is made
# without pip and the pip outside fills it (pip --python, pip 22.3 and newer).
set -eu
python=${PYTHON:-python3}
dir=$1
shift

command -v "$python" >/dev/null 2>&1 || {
    echo "make: $python is not there; type: sudo apt-get install python3 python3-pip" >&2
    exit 1
}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "make: $python is older than 3.11; name a newer one: make PYTHON=python3.11 ..." >&2
    exit 1
}
"$python" -m pip --version >/dev/null 2>&1 || {
    echo "make: $python has no pip; type: sudo apt-get install python3-pip" >&2
    exit 1
}
[ -x "$dir/bin/python" ] || "$python" -m venv --without-pip "$dir"
echo "make: filling $dir (once, about half a minute)" >&2
"$python" -m pip --python "$dir/bin/python" install --quiet --disable-pip-version-check "$@"
