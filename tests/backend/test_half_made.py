# SPDX-License-Identifier: Apache-2.0
"""The power goes while a directory is made or a policy published: typed again, all is well."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from assent.backend import cli, publishing
from assent.backend.directory import Directory
from assent.errors import KeyStoreError

# Its name is on the disk already, its bytes are not.
CUT = """
import os, signal, sys
from assent.backend import cli

def fsync(file, real=os.fsync):
    if os.readlink(f"/proc/self/fd/{file}").endswith(sys.argv[1]):
        os.ftruncate(file, 0)
        os.kill(os.getpid(), signal.SIGKILL)
    real(file)

os.fsync = fsync
cli.main(sys.argv[2:])
"""


def cut_at(name: str, *words: str) -> None:
    """Types a command whose power goes while it writes a file of some name."""
    done = subprocess.run(
        [sys.executable, "-c", CUT, name, *words], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def left(folder: Path) -> list[str]:
    """The files in it that were never finished."""
    return [path.name for path in folder.glob(".tmp-*")]


def test_a_directory_is_made_after_the_power_went_at_its_first_key(tmp_path: Path) -> None:
    words = ("keygen", str(tmp_path), "--recipient", "maker", "--classical")
    cut_at("seal.key.cose", *words)
    assert left(tmp_path / "keys")
    with pytest.raises(KeyStoreError, match="no backend directory"):
        Directory.open(tmp_path)
    assert cli.main(words) == 0
    assert len(Directory.open(tmp_path).seal_keys()) == 1


def test_a_directory_half_made_is_not_used_and_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("keygen", str(tmp_path), "--recipient", "maker", "--classical")
    cut_at("ca.key", *words)
    assert cli.main(words) == 3
    assert "keys are never overwritten" in capsys.readouterr().err
    with pytest.raises(KeyStoreError, match="no backend directory"):
        Directory.open(tmp_path)


@pytest.mark.parametrize("name", [".bundle", ".toml.cose", ".toml"])
def test_a_policy_is_published_after_the_power_went(
    sites: dict[str, Directory], tmp_path: Path, name: str
) -> None:
    maker = sites["maker"]
    key = maker.key("policy.pub.cose")
    bundle = tmp_path / "maker.bundle"
    bundle.write_bytes(publishing.bundle(tmp_path / "policy.toml", key, tmp_path))
    shutil.rmtree(maker.root / "policies")
    words = ("publish", str(bundle), str(maker.root))
    cut_at(name, *words)
    assert left(maker.root / "policies")
    cut = maker.published()
    assert (cut.offers, cut.troubles) == ({}, ())
    assert cli.main(words) == 0
    again = maker.published()
    assert again.offers
    assert again.troubles == ()
