# SPDX-License-Identifier: Apache-2.0
"""Users of the kernel for a test that is root: numbers that nobody has, with setpriv(1)."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
GROUP = 61_003
"""The group that both share."""


class User:
    """Somebody with a number, in one group, with no privilege.

    Args:
        uid: the number.
    """

    def __init__(self, uid: int) -> None:
        self.uid = uid
        setpriv = shutil.which("setpriv")
        if os.geteuid() != 0 or setpriv is None:
            pytest.skip("two users need root and setpriv (util-linux)")
        self.prefix = [
            setpriv,
            f"--reuid={uid}",
            f"--regid={GROUP}",
            "--clear-groups",
            "--no-new-privs",
            *_python(),
        ]

    def runs(self, code: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Has the user run some Python."""
        return subprocess.run(
            [*self.prefix, "-c", code, *words], capture_output=True, text=True, timeout=60
        )


def _python() -> list[str]:
    """A Python that everybody may run, with our packages."""
    paths = os.pathsep.join([str(REPO), *site.getsitepackages()])
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for found in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")):
        if found is None:
            continue
        words = ["/usr/bin/env", f"PYTHONPATH={paths}", "PYTHONDONTWRITEBYTECODE=1", found]
        probe = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *words]
        code = "import cryptography, msgspec, agent.cli.main"
        if subprocess.run([*probe, "-c", code], cwd="/", capture_output=True).returncode == 0:
            return words
    pytest.skip("no Python here that another user may run")
