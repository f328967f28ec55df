# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.control import FILE_NAME, MAX_LINE, AnsweredError, Control, NotRunningError, ask
from assent.errors import ControlError, RefusedError, UsageError


def answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
    if request["verb"] == "refuse":
        raise RefusedError("no such thing", hint="try another")
    return {"heard": dict(request)}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    control = Control(tmp_path, answer)
    control.start()
    yield tmp_path
    control.stop()


def converse(state: Path, sent: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(str(state / FILE_NAME))
        connection.sendall(sent)
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    return dict(json.loads(received))


def test_an_answer_comes_back(state: Path) -> None:
    assert ask(state, "hello", flow="service") == {"heard": {"verb": "hello", "flow": "service"}}


@pytest.mark.parametrize("is_there", [True, False], ids=["an agent runs", "none does"])
def test_what_is_no_text_is_not_asked(state: Path, tmp_path: Path, is_there: bool) -> None:
    with pytest.raises(UsageError):
        ask(state if is_there else tmp_path / "nowhere", "refuse", flow="service\udcff")


def test_a_refusal_keeps_its_sentence_hint_and_exit_code(state: Path) -> None:
    with pytest.raises(AnsweredError) as caught:
        ask(state, "refuse")
    assert (caught.value.message, caught.value.hint) == ("no such thing", "try another")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "sent",
    [b"\n", b"[]\n", b"{\n", b"\xff\xfe\n", b"[" * 50_000 + b"\n", b'"text"\n'],
    ids=["nothing", "a list", "half an object", "no UTF-8", "deep nesting", "a string"],
)
def test_a_strange_line_is_refused_and_the_next_one_is_heard(state: Path, sent: bytes) -> None:
    assert converse(state, sent)["ok"] is False
    assert ask(state, "still there")["heard"]["verb"] == "still there"


def test_a_mistake_of_ours_does_not_silence_the_next_request(tmp_path: Path) -> None:
    def mistaken(request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"heard": {"verb": request["verb"]}, "text": "\ud800" if request["bad"] else ""}

    control = Control(tmp_path, mistaken)
    control.start()
    try:
        with pytest.raises(ControlError):
            ask(tmp_path, "first", bad=True)
        assert ask(tmp_path, "second", bad=False)["heard"] == {"verb": "second"}
    finally:
        control.stop()


def test_a_line_without_end_is_refused(state: Path) -> None:
    assert converse(state, b"x" * (MAX_LINE + 2))["error"].startswith("the message is over")


def test_who_sends_byte_by_byte_holds_nobody_up_for_longer_than_a_silent_one(
    tmp_path: Path,
) -> None:
    control = Control(tmp_path, answer, patience_s=0.5)
    control.start()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
            slow.connect(str(tmp_path / FILE_NAME))
            ended = threading.Event()

            def drip() -> None:
                with contextlib.suppress(OSError):
                    while not ended.wait(0.02):
                        slow.send(b" ")

            dripping = threading.Thread(target=drip)
            dripping.start()
            try:
                assert ask(tmp_path, "a no", patience_s=3)["heard"]["verb"] == "a no"
            finally:
                ended.set()
                dripping.join()
    finally:
        control.stop()


def test_a_stopped_agent_does_not_answer(tmp_path: Path) -> None:
    control = Control(tmp_path, answer)
    control.start()
    assert ask(tmp_path, "hello")
    control.stop()
    with pytest.raises(NotRunningError):
        ask(tmp_path, "hello")


def test_a_long_path_is_no_hindrance(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    control = Control(deep, answer)
    control.start()
    try:
        assert ask(deep, "hello")
    finally:
        control.stop()


def test_a_left_over_socket_does_not_stop_the_next_one(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / FILE_NAME))
    control = Control(tmp_path, answer)
    control.start()
    try:
        assert ask(tmp_path, "hello")
    finally:
        control.stop()


def test_only_the_agents_user_may_open_the_socket(state: Path) -> None:
    assert (state / FILE_NAME).stat().st_mode & 0o777 == 0o600


@pytest.fixture
def passable() -> Iterator[Path]:
    """A directory that everybody may enter, wherever temporary ones lie; pytest's own are shut."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


@pytest.mark.clause("C30")
@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("setpriv") or not Path("/usr/bin/python3").exists(),
    reason="needs root, setpriv and the system's python3",
)
def test_another_user_is_not_answered(passable: Path) -> None:
    # The directory and the socket are opened to everybody, so that only the kernel's word counts.
    state = passable
    control = Control(state, answer)
    control.start()
    try:
        (state / FILE_NAME).chmod(0o666)
        code = (
            "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            's.sendall(b\'{"verb":"hello"}\\n\'); print(s.recv(4096).decode())'
        )
        words = ["/usr/bin/python3", "-c", code, str(state / FILE_NAME)]
        asked = subprocess.run(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *words],
            capture_output=True,
            text=True,
            cwd="/",
        )
        assert "only the agent's own user may ask" in asked.stdout, asked.stderr
        assert ask(state, "hello")
    finally:
        control.stop()


def test_one_that_is_stopped_before_its_thread_has_begun_ends_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when the thread looks for the listener only once it runs: a signal may come first."""
    may_run, failed = threading.Event(), []

    class Late(threading.Thread):
        def run(self) -> None:
            assert may_run.wait(10)
            try:
                super().run()
            except AssertionError as exc:
                failed.append(exc)

    control = Control(tmp_path, answer)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Late)
        control.start()
    control.close()
    may_run.set()
    control.stop()
    assert failed == []
    assert not (tmp_path / FILE_NAME).exists()
