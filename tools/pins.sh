#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# pins.sh PINS PIP-ARGUMENT... : writes to PINS which releases pip takes today for the arguments.
set -eu
python=${PYTHON:-python3}
pins=$1
shift
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
"$python" -m venv --without-pip "$made/venv"
pip() { "$python" -m pip --python "$made/venv/bin/python" --disable-pip-version-check "$@"; }
pip install --quiet "$@"
{
    echo "# SPDX-License-Identifier: Apache-2.0"
    echo "# Written by make pins."
    pip freeze --all --exclude-editable --exclude pip
} >"$made/pins"
cp "$made/pins" "$pins"
