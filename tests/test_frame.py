# SPDX-License-Identifier: Apache-2.0
"""The frame: what is pinned, what a bare machine is told, what a wheel carries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())


def pins(name: str) -> dict[str, str]:
    lines = (REPO / "tools" / name).read_text().splitlines()
    split = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(package): release for package, release in split}


def wanted() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"]
    listed = [*PROJECT["project"]["dependencies"], *extras["dev"], *extras["backend"]]
    return [Requirement(line) for line in [*listed, *PROJECT["build-system"]["requires"]]]


def strays(requirements: list[Requirement], pinned: dict[str, str]) -> list[str]:
    return [
        str(requirement)
        for requirement in requirements
        if not requirement.specifier.contains(pinned.get(canonicalize_name(requirement.name), "0"))
    ]


def programs(directory: Path, **bodies: str) -> dict[str, str]:
    """The environment in which these programs are found before those of the machine."""
    directory.mkdir(exist_ok=True)
    for name, body in bodies.items():
        program = directory / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    return os.environ | {"PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"}


def sh(
    script: str, *words: str, env: dict[str, str], cwd: Path = REPO
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(REPO / "tools" / script), *words],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_ci_types_what_readme_says_and_nothing_else() -> None:
    typed = re.findall(r"^\$ (make test)\b", (REPO / "README.md").read_text(), re.MULTILINE)
    lines = (REPO / ".ci" / "run").read_text().splitlines()
    spoken = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert spoken == typed == ["make test"]


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    assert strays(wanted(), pins("pins.txt")) == []


def test_the_second_implementation_is_pinned() -> None:
    assert pins("pins-cwt.txt").keys() >= {"cwt", "cbor2", "cryptography"}


@pytest.mark.parametrize("release", ["0.1", None], ids=["too old", "not pinned"])
def test_a_requirement_off_its_pin_is_found(release: str | None) -> None:
    pinned = pins("pins.txt")
    pinned.pop("tinydb") if release is None else pinned.update(tinydb=release)
    assert strays(wanted(), pinned) == ["tinydb<5,>=4.8"]


def test_make_alone_lists_every_target() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    said = subprocess.run([make], cwd=REPO, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in said.stdout.splitlines()} >= {"demo", "test", "check"}


# What a machine lacks -> how its programs answer, and what a person is told to type.
PYTHONS = {
    "there is no python": (None, "apt-get install python3 python3-pip"),
    "python is too old": ('[ "$1" != -c ]', "make PYTHON="),
    "pip is missing or broken": ('[ "$2" != pip ]', "apt-get install python3-pip"),
    "pip is too old": ('[ "$3" != --help ] || echo "--prefix"', "pip install --upgrade pip"),
    "venv cannot be made": (
        '[ "$3" != --help ] || echo "--python"; [ "$2" != venv ]',
        "apt-get install python3-venv",
    ),
    "pip reaches no index": (
        '[ "$3" != --help ] || echo "--python"; case "$*" in *install*) exit 1; esac',
        "type the same again",
    ),
}


@pytest.mark.parametrize("lacking", PYTHONS)
def test_what_python_lacks_is_a_sentence(tmp_path: Path, lacking: str) -> None:
    body, typed = PYTHONS[lacking]
    env = programs(tmp_path / "bin", **({"bare_python": body} if body else {}))
    env["PYTHON"] = "bare-python"
    told = sh("venv.sh", "venv", "pins", env=env, cwd=tmp_path)
    assert told.returncode == 1
    last = told.stderr.splitlines()[-1]
    assert last.startswith("make: ")
    assert typed in last


def test_a_whole_python_fills_the_environment(tmp_path: Path) -> None:
    body = 'echo "$@" >>said; [ "$3" != --help ] || echo "--python"'
    env = programs(tmp_path / "bin", whole_python=body) | {"PYTHON": "whole-python"}
    assert sh("venv.sh", "venv", "pins", "more", env=env, cwd=tmp_path).returncode == 0
    said = (tmp_path / "said").read_text()
    assert "-m venv --clear --without-pip venv\n" in said
    filled = re.findall(r"--python venv/bin/python install .* (\S+ \S+|more)\n", said)
    assert [words.split()[-1] for words in filled] == ["pins", "more"]


BROKERS = {
    "apt refuses": ({"id": "echo 0", "apt_get": "exit 100"}, "apt did not install it"),
    "sudo asks for a password": (
        {"id": "echo 1000", "sudo": "exit 1", "apt_get": "exit 0"},
        "only root may install it",
    ),
    "apt installs something else": ({"id": "echo 0", "apt_get": "exit 0"}, "did not install"),
}


@pytest.mark.parametrize("lacking", BROKERS)
def test_a_broker_that_cannot_be_installed_is_a_sentence(tmp_path: Path, lacking: str) -> None:
    bodies, why = BROKERS[lacking]
    told = sh("broker.sh", "absent-broker", env=programs(tmp_path, **bodies))
    assert told.returncode == 1
    last = told.stderr.splitlines()[-1]
    assert why in last
    assert last.endswith("type as root: apt-get install absent-broker")


@pytest.mark.parametrize(
    ("user", "sudo"), [("0", "exit 1"), ("1000", 'shift; "$@"')], ids=["root", "a user with sudo"]
)
def test_a_broker_is_installed_after_the_lists_are_new(
    tmp_path: Path, user: str, sudo: str
) -> None:
    apt = f"""
        here={tmp_path}
        case "$*" in
            *update*) touch $here/lists ;;
            *) [ -e $here/lists ] && cp $here/id $here/absent-broker ;;
        esac"""
    env = programs(tmp_path, id=f"echo {user}", sudo=sudo, apt_get=apt)
    assert sh("broker.sh", "absent-broker", env=env).returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the tree, built without the network."""
    source = tmp_path_factory.mktemp("source")
    for name in ("assent", "agent", "firmware_bridge", "config", "systemd"):
        shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, source)
    code = "from setuptools import build_meta; build_meta.build_wheel('.')"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = source.glob("*.whl")
    return built


def test_a_wheel_carries_every_file_of_the_rooms(wheel: Path) -> None:
    rooms = {
        path.relative_to(REPO).as_posix()
        for package in ("assent", "agent", "firmware_bridge")
        for path in (REPO / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert rooms - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_a_wheel_carries_every_unit(wheel: Path) -> None:
    units = {
        path.relative_to(REPO).as_posix()
        for path in (REPO / "systemd").rglob("*")
        if path.is_file()
    }
    carried = {
        name.partition(".data/data/share/assent/")[2] for name in zipfile.ZipFile(wheel).namelist()
    }
    assert len(units) >= 8
    assert units - carried == set()


def test_init_works_from_a_wheel_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    # As pip lays a wheel out: the rooms into site-packages, its data beside the programs.
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    (data,) = site.glob("assent-*.data/data")
    shutil.copytree(data, venv, dirs_exist_ok=True)
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    code = "import agent, sys; print(agent.__file__); from agent.cli.main import main; main()"
    done = subprocess.run(
        [venv / "bin" / "python", "-c", code, "init", "--config", tmp_path / "etc"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    written = {path.relative_to(tmp_path / "etc").as_posix() for path in tmp_path.glob("etc/**/*")}
    assert written >= {"agent.toml", "consent.toml.example", "profiles"}
