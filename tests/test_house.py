# SPDX-License-Identifier: Apache-2.0
"""The house as design says it: one maker per path type, libraries in their rooms, small rooms."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGES = ("assent", "agent", "firmware_bridge")
MAX_LINES = 350

# Type of the path -> the one room that may construct it.
MAKERS = {
    "Sample": "firmware_bridge/",
    "Permit": "agent/gate",
    "Pending": "agent/gate",
    "Rehearsal": "agent/preview",
    "Refusal": "agent/gate",
    "Batch": "agent/lane",
    "Sealed": "agent/seal",
    "Opened": "assent/envelope",
}

# Outside library -> the rooms it may be imported in.
LIBRARIES = {
    "cbor2": ("assent/cbor.py",),
    "tinydb": ("agent/ledger.py", "agent/storage.py"),
    "paho": ("agent/uplink", "assent/backend/subscriber"),
    "sqlite3": ("agent/spool", "assent/backend/store"),
    "serial": ("firmware_bridge/sources/modbus",),
    "cryptography": (
        "assent/certificates.py",
        "assent/cosekey",
        "assent/hpke.py",
        "assent/kem.py",
        "assent/envelope",
        "assent/backend/authority.py",
        "agent/journal/areas",
        "agent/keys",
        "agent/transform",
    ),
    "ssl": ("agent/uplink", "assent/backend/subscriber"),
    "pickle": (),
    "yaml": (),
    "requests": (),
    "http": (),
    "urllib": (),
}


def rooms(root: Path = REPO) -> list[Path]:
    return sorted(
        path for package in PACKAGES for path in (root / package).rglob("*.py") if path.is_file()
    )


def name_of(path: Path, root: Path = REPO) -> str:
    return path.relative_to(root).as_posix()


def calls_of(tree: ast.AST) -> set[str]:
    called = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name):
                called.add(function.id)
            elif isinstance(function, ast.Attribute):
                called.add(function.attr)
    return called


def imports_of(tree: ast.AST) -> set[str]:
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module.split(".")[0])
    return imported


def strange_makers(root: Path) -> list[str]:
    found = []
    for path in rooms(root):
        tree = ast.parse(path.read_text())
        for made in calls_of(tree) & MAKERS.keys():
            if not name_of(path, root).startswith(MAKERS[made]):
                found.append(f"{name_of(path, root)} makes {made}")
    return found


def strange_libraries(root: Path) -> list[str]:
    found = []
    for path in rooms(root):
        imported = imports_of(ast.parse(path.read_text()))
        for library in imported & LIBRARIES.keys():
            if not name_of(path, root).startswith(LIBRARIES[library] or ("-",)):
                found.append(f"{name_of(path, root)} imports {library}")
    return found


def plant(root: Path, room: str, text: str) -> Path:
    for package in PACKAGES:
        shutil.copytree(
            REPO / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(REPO / "pyproject.toml", root)
    planted = root / room
    planted.write_text(planted.read_text() + text)
    return root


def floors_hold(root: Path) -> bool:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=root, capture_output=True, text=True)
    assert "contracts" in done.stdout.lower(), done.stdout + done.stderr
    return done.returncode == 0


def test_each_type_of_the_path_is_made_in_one_room() -> None:
    assert strange_makers(REPO) == []


def test_each_type_of_the_path_is_made_somewhere() -> None:
    made = set().union(*(calls_of(ast.parse(path.read_text())) for path in rooms()))
    assert made >= MAKERS.keys()


def test_a_second_maker_is_found(tmp_path: Path) -> None:
    root = plant(tmp_path, "agent/settings.py", "\n\ndef forge() -> object:\n    return Permit()\n")
    assert strange_makers(root) == ["agent/settings.py makes Permit"]


@pytest.mark.clause("C32")
def test_each_library_stays_in_its_rooms() -> None:
    assert strange_libraries(REPO) == []


def test_a_library_out_of_its_room_is_found(tmp_path: Path) -> None:
    root = plant(tmp_path, "agent/gate.py", "\nimport urllib.request\n")
    assert strange_libraries(root) == ["agent/gate.py imports urllib"]


def test_no_room_is_over_350_lines() -> None:
    sizes = {name_of(path): len(path.read_text().splitlines()) for path in rooms()}
    assert {name: size for name, size in sizes.items() if size > MAX_LINES} == {}


def test_no_function_is_over_60_lines() -> None:
    long = [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in rooms()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > 60
    ]
    assert long == []


def test_every_file_opens_with_its_licence() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        text=True,
    )
    files = [REPO / name for name in listed.stdout.split()] if listed.returncode == 0 else rooms()
    texts = {".py", ".toml", ".sh", ".md", ".conf", ".acl", ".service", ".cddl", ".yml"}
    bare = [
        name_of(path)
        for path in files
        if path.is_file()
        and path.suffix in texts
        and "SPDX-License-Identifier: Apache-2.0" not in path.read_text()[:200]
    ]
    assert bare == []


def test_the_daemon_imports_no_command_line_library() -> None:
    code = (
        "import sys, agent.service.both; "
        "print(sorted({'click','rich','pymodbus','bleak','asyncio','pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_no_file_names_a_path_of_a_machine_or_a_registry() -> None:
    # Written in pieces, so that this file is not its own finding.
    strange = re.compile("|".join(["/wo" + "rk/", "py" + "pi\\.", "npm" + "js\\.", "/ro" + "ot/"]))
    listed = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True)
    named = []
    for name in listed.stdout.split():
        path = REPO / name
        if path.is_file() and path.suffix not in {".xz", ".png", ".bin"}:
            named += [name] if strange.search(path.read_text(errors="replace")) else []
    assert named == []


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("firmware_bridge/sample.py", "\nimport agent.gate\n"),
        ("assent/policy/terms.py", "\nimport assent.backend\n"),
        ("agent/ledger.py", "\nimport agent.lane\n"),
        ("agent/uplink/__init__.py", "\nimport agent.keys\n"),
        ("agent/pipeline/__init__.py", "\nimport ssl\n"),
        ("firmware_bridge/decode/host.py", "\nimport os\n"),
        ("firmware_bridge/sources/host.py", "\nimport firmware_bridge.sources.replay\n"),
        ("agent/gate.py", "\nimport firmware_bridge.supervisor\n"),
    ],
    ids=[
        "the bridge may not know the agent",
        "the contract may not know the backend",
        "the ledger may not know the lanes above it",
        "the uplink may not know the keys",
        "the collecting side may not know TLS",
        "a decoder may not know the operating system",
        "a source may not know another",
        "the gate may not open hardware",
    ],
)
def test_a_planted_import_turns_the_floors_red(tmp_path: Path, room: str, line: str) -> None:
    assert not floors_hold(plant(tmp_path, room, line))


@pytest.mark.clause("C32")
def test_the_floors_hold(tmp_path: Path) -> None:
    assert floors_hold(plant(tmp_path, "agent/gate.py", "\n"))
