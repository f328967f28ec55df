# SPDX-License-Identifier: Apache-2.0
"""Files that are wholly there or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from assent import durable

REPO = Path(__file__).resolve().parents[2]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    durable.write(tmp_path / "a", b"one")
    durable.write(tmp_path / "a", b"two")
    assert durable.read(tmp_path / "a", 3) == b"two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o660])
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_mode_is_the_one_asked_for_whatever_the_umask(
    tmp_path: Path, mode: int, umask: int
) -> None:
    before = os.umask(umask)
    try:
        durable.write(tmp_path / "a", b"", mode=mode)
        durable.make_dirs(tmp_path / "d" / "e", 0o750)
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "a") == mode
    assert mode_of(tmp_path / "d") == mode_of(tmp_path / "d" / "e") == 0o750


def test_without_a_mode_only_the_owner_reads(tmp_path: Path) -> None:
    durable.write(tmp_path / "a", b"")
    durable.make_dirs(tmp_path / "d")
    assert mode_of(tmp_path / "a") == 0o600
    assert mode_of(tmp_path / "d") == 0o700


def test_a_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o755)
    durable.make_dirs(tmp_path / "d" / "e", 0o700)
    assert mode_of(tmp_path / "d") == 0o755
    assert mode_of(tmp_path / "d" / "e") == 0o700


def test_a_file_in_place_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"")
    with pytest.raises(OSError, match="d"):
        durable.make_dirs(tmp_path / "d" / "e")
    with pytest.raises(NotADirectoryError):
        durable.make_dirs(tmp_path / "d")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import pathlib, resource, signal, sys\n"
        "from assent import durable\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    durable.write(pathlib.Path(sys.argv[1]), bytes(5000))\n"
        "except OSError as exc:\n"
        "    sys.exit(exc.errno)\n"
    )
    durable.write(tmp_path / "a", b"old")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], cwd=REPO, check=False)
    assert done.returncode == errno.EFBIG
    assert durable.read(tmp_path / "a", 10) == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_directory_in_the_way_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        durable.write(tmp_path / "a", b"")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "from assent import durable\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "for count in range(10**9):\n"
        "    durable.write(path, bytes([count % 256]) * 20_000)\n"
        "    print(count, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a")]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        counts = [int(writer.stdout.readline()) for _ in range(20)]
        writer.send_signal(signal.SIGKILL)
        counts += map(int, writer.stdout.read().split())
    finished = counts[-1]
    data = durable.read(tmp_path / "a", 20_000)
    assert len(data) == 20_000
    assert set(data) <= {finished % 256, (finished + 1) % 256}
    assert len(set(data)) == 1


# The calls that make a name or bytes durable.
CALLS = "openat,rename,renameat,renameat2,fsync,unlink,unlinkat"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_system_calls_come_in_the_order_that_survives_a_power_cut(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "from assent import durable\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "durable.write(path, b'x')\n"
        "durable.remove(path)\n"
    )
    trace = tmp_path / "trace"
    python = [sys.executable, "-c", code, str(tmp_path / "a")]
    command = ["strace", "-o", str(trace), "-e", CALLS, *python]
    subprocess.run(command, cwd=REPO, check=True)
    lines = trace.read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if ".tmp-" in line)
    calls = [line.split("(")[0] for line in lines[start:] if "(" in line]
    assert calls[:7] == ["openat", "fsync", "rename", "openat", "fsync", "unlink", "openat"]
    assert calls[7] == "fsync"


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What is synced, in order: its name, and whether the file `a` was there by then."""
    synced: list[tuple[str, bool]] = []
    really = os.fsync

    def listen(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path.name, (tmp_path / "a").exists()))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", listen)
    return synced


def test_every_step_of_a_write_is_synced_before_the_next(
    tmp_path: Path, seen: list[tuple[str, bool]]
) -> None:
    durable.write(tmp_path / "a", b"x")
    (temporary, final_before), directory = seen
    assert temporary.startswith(".tmp-")
    assert not final_before
    assert directory == (tmp_path.name, True)
    seen.clear()
    durable.remove(tmp_path / "a")
    assert seen == [(tmp_path.name, False)]


def test_every_directory_made_is_synced_into_the_one_above(
    tmp_path: Path, seen: list[tuple[str, bool]]
) -> None:
    durable.make_dirs(tmp_path / "d" / "e")
    assert [name for name, _ in seen] == [tmp_path.name, "d"]


def test_a_removed_file_is_gone_and_removing_it_again_is_no_error(tmp_path: Path) -> None:
    durable.write(tmp_path / "a", b"x")
    durable.remove(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    durable.remove(tmp_path / "a")
    durable.remove(tmp_path / "no" / "such" / "directory")


def test_a_read_is_bounded(tmp_path: Path) -> None:
    durable.write(tmp_path / "a", b"12345")
    assert durable.read(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes") as caught:
        durable.read(tmp_path / "a", 4)
    assert caught.value.errno == errno.EFBIG


def test_a_pipe_in_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    raised: list[OSError] = []

    def read() -> None:
        try:
            durable.read(tmp_path / "pipe", 10)
        except OSError as exc:
            raised.append(exc)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(5)
    assert [exc.errno for exc in raised] == [errno.EINVAL]


def test_a_missing_file_and_a_directory_are_the_callers_oserrors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        durable.read(tmp_path / "a", 1)
    with pytest.raises(OSError, match="not a regular file"):
        durable.read(tmp_path, 1)


def test_a_sweep_removes_what_a_crash_left_and_nothing_else(tmp_path: Path) -> None:
    durable.write(tmp_path / "a", b"x")
    (tmp_path / ".tmp-0123456789abcdef").write_bytes(b"half")
    assert durable.sweep(tmp_path) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert durable.sweep(tmp_path) == 0
