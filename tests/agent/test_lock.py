# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.lock import FILE_NAME, BusyError, instance_lock
from assent.errors import RefusedError

HOLD = """
import sys, pathlib, signal
from agent.lock import FILE_NAME, instance_lock
place, sys.argv[:] = pathlib.Path(sys.argv[1]), ["assent", "devices", "watch", "meter-1"]
with instance_lock(place):
    print("held", flush=True)
    signal.pause()
"""


def test_a_second_instance_is_refused(tmp_path: Path) -> None:
    with instance_lock(tmp_path), pytest.raises(RefusedError), instance_lock(tmp_path):
        pass


def test_the_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    with instance_lock(tmp_path):
        pass
    with instance_lock(tmp_path):
        assert (tmp_path / FILE_NAME).exists()


def test_a_killed_holder_leaves_nothing_behind(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BusyError) as caught, instance_lock(tmp_path):
        pass
    assert caught.value.holder == f"assent devices watch (process {holder.pid})"
    assert caught.value.message.endswith(caught.value.holder)
    assert caught.value.hint == "end it, or wait for it"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with instance_lock(tmp_path):
        pass
