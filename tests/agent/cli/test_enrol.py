# SPDX-License-Identifier: Apache-2.0
"""`assent enrol` with a file that is another, half of one, or brought at the wrong moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.main import main
from agent.lock import instance_lock
from tests.agent.installed import MAKER, copied, fresh, newer, requests


@pytest.fixture
def gateway(installed: Path, tmp_path: Path) -> Path:
    return copied(installed, tmp_path / "gateway")


class Typed:
    """What a command printed, and how it ended."""

    def __init__(self, gateway: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        capsys.readouterr()
        self.code = main(["enrol", str(file), "--config", str(gateway)])
        self.out, self.err = capsys.readouterr()


BUNDLE = MAKER.bundle()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("policy.toml", MAKER.policy()[0], "is no bundle and no admission"),
        ("maker-2026.cose", MAKER.key.public.encode(), "is no bundle and no admission"),
        ("policy.toml.cose", MAKER.policy()[1], "is no bundle and no admission"),
        ("empty", b"", "is no bundle and no admission"),
        ("maker.bundle", BUNDLE[:-1], "begins like a bundle, but is cut off or damaged"),
        ("maker.bundle", BUNDLE[:100], "begins like a bundle, but is cut off or damaged"),
        ("maker.bundle", BUNDLE + b"\n", "begins like a bundle, but is cut off or damaged"),
    ],
    ids=[
        "a policy",
        "a key",
        "a signature",
        "nothing",
        "a bundle without its last byte",
        "the beginning of a bundle",
        "a bundle with a line more",
    ],
)
def test_a_wrong_file_is_named_with_what_was_expected(
    gateway: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    data: bytes,
    said: str,
) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    typed = Typed(gateway, file, capsys)
    assert (typed.code, typed.out) == (2, "")
    assert typed.err.startswith(f"assent: {file} {said}")


def test_a_request_is_named_with_where_it_belongs(
    gateway: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = gateway / "requests" / "maker.request"
    typed = Typed(gateway, file, capsys)
    assert (typed.code, typed.out) == (2, "")
    assert f"{file} is a request, expected a bundle or an admission" in typed.err
    assert "assent-backend admit" in typed.err


def test_a_cut_admission_is_named(
    gateway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "maker.admission"
    file.write_bytes(MAKER.recipients["maker"].admission(requests(gateway)["maker"])[:-9])
    typed = Typed(gateway, file, capsys)
    assert typed.code == 2
    assert f"{file} begins like an admission, but is cut off or damaged" in typed.err


def test_beside_a_running_agent_it_says_to_stop_it(
    gateway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "maker.bundle"
    file.write_bytes(BUNDLE)
    with instance_lock(gateway / "state"):
        typed = Typed(gateway, file, capsys)
    assert (typed.code, typed.out) == (3, "")
    assert "stop the agent, enrol, then start it again" in typed.err


def test_an_update_for_the_same_recipients_asks_for_no_request(
    gateway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (gateway / "requests").iterdir():
        path.unlink()
    file = tmp_path / "maker.bundle"
    file.write_bytes(MAKER.bundle(newer))
    typed = Typed(gateway, file, capsys)
    assert typed.code == 0
    assert "request" not in typed.out
    assert "next: assent consent show" in typed.out
    assert requests(gateway) == {}


def test_only_a_recipient_that_has_not_admitted_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway, file = fresh(tmp_path / "blank"), tmp_path / "file"
    file.write_bytes(MAKER.bundle())
    first = Typed(gateway, file, capsys)
    assert "next: give each request to its recipient" in first.out
    asked = requests(gateway)
    assert set(asked) == {"maker", "energy-advice"}
    file.write_bytes(MAKER.recipients["maker"].admission(asked["maker"]))
    assert Typed(gateway, file, capsys).code == 0
    for path in (gateway / "requests").iterdir():
        path.unlink()
    file.write_bytes(MAKER.bundle(newer))
    assert "next: give each request to its recipient" in Typed(gateway, file, capsys).out
    assert set(requests(gateway)) == {"energy-advice"}


def test_a_recipient_with_another_authority_is_asked_again(
    gateway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its broker would not know the certificate of the old one."""
    for path in (gateway / "requests").iterdir():
        path.unlink()
    (gateway / "keys" / "maker-ca.pem").write_bytes(b"the one before")
    file = tmp_path / "maker.bundle"
    file.write_bytes(MAKER.bundle(newer))
    assert Typed(gateway, file, capsys).code == 0
    assert set(requests(gateway)) == {"maker"}
