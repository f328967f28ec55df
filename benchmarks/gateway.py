# SPDX-License-Identifier: Apache-2.0
"""An environment as a gateway has it: the wheel, what that depends on, and nothing else.

A checkout's environment starts every Python with the finders of its development packages, and some
of these are loaded by what we use because they are there. No gateway pays for that. Benchmarks of
memory and start run themselves again in here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distribution
from pathlib import Path

from demo.stage import REPO

HERE = "--as-on-a-gateway"
"""What a benchmark is told when it runs in such an environment."""
_PACKAGES = ("assent", "agent", "firmware_bridge", "config", "systemd")
_FILES = ("pyproject.toml", "README.md", "LICENSE")
_SCRIPT = "#!{python}\nimport sys\nfrom {module} import {name}\nsys.exit({name}())\n"


def again(module: str, words: Sequence[str] = ()) -> int:
    """Runs a benchmark in an environment that is made for it; its exit code."""
    with tempfile.TemporaryDirectory() as place:
        python = make(Path(place))
        words = [str(python), "-m", module, HERE, *words]
        return subprocess.run(words, cwd=REPO, check=False).returncode


def make(place: Path) -> Path:
    """Makes the environment below a directory.

    Returns:
        Its Python; the commands lie beside it.

    Raises:
        RuntimeError: the wheel cannot be built.
    """
    venv.create(place / "environment", symlinks=True, with_pip=False)
    python = place / "environment/bin/python"
    (site,) = (place / "environment").glob("lib/python*/site-packages")
    zipfile.ZipFile(_wheel(place / "source")).extractall(site)
    (data,) = site.glob("assent-*.data/data")
    shutil.copytree(data, place / "environment", dirs_exist_ok=True)
    for one in needed("assent"):
        for name in {path.parts[0] for path in one.files or () if path.parts[0] != ".."}:
            if name != "__pycache__":
                (site / name).symlink_to(Path(str(one.locate_file(name))))
    (ours,) = Distribution.discover(name="assent", path=[str(site)])
    for entry in ours.entry_points.select(group="console_scripts"):
        script = python.with_name(entry.name)
        script.write_text(_SCRIPT.format(python=python, module=entry.module, name=entry.attr))
        script.chmod(0o755)
    return python


def needed(name: str) -> Iterator[Distribution]:
    """What a distribution depends on when nothing extra is asked for, each once."""
    # Of the checkout's environment; a benchmark that runs in ours imports this room as well.
    from packaging.requirements import Requirement  # noqa: PLC0415

    seen, waiting = {name}, [name]
    while waiting:
        one = distribution(waiting.pop())
        if one.name != name:
            yield one
        for words in one.requires or ():
            needs = Requirement(words)
            other = re.sub(r"[-_.]+", "-", needs.name).lower()
            if other not in seen and (needs.marker is None or needs.marker.evaluate({"extra": ""})):
                seen.add(other)
                waiting.append(other)


def _wheel(source: Path) -> Path:
    for name in _PACKAGES:
        shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _FILES:
        shutil.copy(REPO / name, source)
    code = "from setuptools import build_meta; build_meta.build_wheel('.')"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the wheel cannot be built: {done.stderr[-400:]}")
    (built,) = source.glob("*.whl")
    return built
