# SPDX-License-Identifier: Apache-2.0
"""Commands by hand over a store that is shut under the unit's credential, while no agent runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.keys.credential import BY_HAND, NAME
from tests.agent.installed import DIAGNOSIS, MAKER, YES, install, living, newer


class Manager:
    """The service manager: hands the credential to what runs as the unit, and to nothing else."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        directory.mkdir(mode=0o700)
        (directory / NAME).write_bytes(bytes(range(32)))
        (directory / NAME).chmod(0o400)
        self._directory = directory
        self._patch = patch

    def hands(self) -> None:
        self._patch.setenv("CREDENTIALS_DIRECTORY", str(self._directory))

    def hands_nothing(self) -> None:
        self._patch.delenv("CREDENTIALS_DIRECTORY")


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manager:
    return Manager(tmp_path / "credentials", monkeypatch)


@pytest.fixture
def gateway(tmp_path: Path, manager: Manager) -> Path:
    """Enrolled and agreed, by an agent that has the credential; it does not run any more."""
    manager.hands()
    directory = install(tmp_path / "gateway")
    with living(directory) as house:
        house.decide(YES)
    return directory


def reason(gateway: Path, capsys: pytest.CaptureFixture[str]) -> str | None:
    """Why the flow is off; None when it is on."""
    capsys.readouterr()
    assert main(["status", "--json", "--config", str(gateway)]) == 0
    flows = {flow["flow"]: flow for flow in json.loads(capsys.readouterr().out)["flows"]}
    found: str | None = flows[DIAGNOSIS]["reason"]
    return found


def test_every_command_that_needs_the_secrets_says_how_it_gets_at_them(
    gateway: Path, manager: Manager, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "maker.bundle"
    bundle.write_bytes(MAKER.bundle(newer))
    commands = (["status"], ["check"], ["enrol", "--renew", "maker"], ["enrol", str(bundle)])
    for words in commands:
        assert main([*words, "--config", str(gateway)]) == 0, "the twin: with it"
    manager.hands_nothing()
    for words in commands:
        capsys.readouterr()
        assert main([*words, "--config", str(gateway)]) == 1
        said = capsys.readouterr().err
        assert f"shut under the unit's credential {NAME}, which is not here" in said
        assert BY_HAND in said


@pytest.mark.clause("C28")
def test_a_no_is_heard_without_the_secrets_and_recorded_when_they_are_there_again(
    gateway: Path, manager: Manager, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reason(gateway, capsys) is None
    manager.hands_nothing()
    assert main(["consent", "withdraw", DIAGNOSIS, "--config", str(gateway)]) == 0
    manager.hands()
    assert reason(gateway, capsys) == "withdrawn"
