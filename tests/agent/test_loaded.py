# SPDX-License-Identifier: Apache-2.0
"""What each program has loaded when it works: a closed list, because a module costs memory for ever."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

# Other people's packages, and what they bring along.
OURS = {"agent", "assent", "firmware_bridge"}
COLLECT = {"_cbor2", "_cffi_backend", "cbor2", "cryptography", "msgspec", "tinydb"}
UPLINK = {"_cbor2", "cbor2", "msgspec", "paho"}
# msgspec and tinydb look for it, and it is there when another package needs it.
MAYBE = {"typing_extensions", "_openssl"}
# Parts of Python of a megabyte each, or of somebody else's work.
HEAVY = {
    "asyncio",
    "ctypes",
    "dataclasses",
    "importlib.metadata",
    "multiprocessing",
    "pdb",
    "unittest",
    "xml",
    "zipfile",
}
NETWORK = {"email", "http", "ssl", "urllib.request"}

# A Modbus meter costs its port beside that.
METER = "firmware_bridge.sources.modbus"

LOADS = """
import sys
sys.path[:0] = sys.argv[2:]
import agent.cli.main, importlib
importlib.import_module(sys.argv[1])
print(*sorted(sys.modules))
"""


def loaded(module: str) -> set[str]:
    """Modules of a Python that has imported one of ours; without what a checkout's `.pth` loads."""
    places = [str(REPO), sysconfig.get_path("platlib"), sysconfig.get_path("purelib")]
    words = [sys.executable, "-S", "-c", LOADS, module, *places]
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def packages(modules: set[str]) -> set[str]:
    """Those that are neither ours nor Python's, by their top names."""
    tops = {name.split(".")[0] for name in modules}
    return tops - set(sys.stdlib_module_names) - OURS - {"__main__"}


@pytest.mark.parametrize(
    ("verb", "wanted", "strange"),
    [
        ("agent.service.collect", COLLECT, HEAVY | NETWORK),
        ("agent.service.uplink", UPLINK, HEAVY),
        ("agent.service.both", COLLECT | UPLINK, HEAVY),
    ],
    ids=["collect", "uplink", "both in one"],
)
def test_a_program_loads_its_packages_and_no_heavy_part_of_python(
    verb: str, wanted: set[str], strange: set[str]
) -> None:
    modules = loaded(verb)
    assert packages(modules) - MAYBE <= wanted
    assert strange & modules == set()


def test_a_meter_loads_a_serial_port_and_no_heavy_part_of_python() -> None:
    modules = loaded(METER)
    assert packages(modules) - MAYBE - COLLECT == {"serial"}
    assert (HEAVY | NETWORK) & modules == set()


def test_the_list_sees_what_a_program_loads() -> None:
    modules = loaded("agent.service.both")
    assert {"cryptography", "msgspec", "paho"} <= packages(modules)
    assert {"sqlite3", "urllib.request"} <= modules
    assert "zipfile" in loaded("importlib.metadata")
