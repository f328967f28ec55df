# SPDX-License-Identifier: Apache-2.0
"""One pair of recipients for the session; a gateway of its own for each journey."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.stage import RECIPIENTS, Stage
from tests.journeys.parts import DEVICES, Doorbell, Enrolled, fast, moved


@pytest.fixture(scope="session")
def recipients(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Recipients with their keys; nothing is published, no program runs."""
    stage = Stage(tmp_path_factory.mktemp("journeys") / "stage")
    stage.make_recipients()
    return stage


@pytest.fixture(scope="session")
def enrolled(recipients: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enrolled]:
    """For an edit of the policy, a gateway without devices that is enrolled and has decided nothing.

    It is made once, and moved for each test: nothing runs where it was made.
    """
    made: dict[Callable[[str], str], Stage] = {}

    def enrol(edit: Callable[[str], str]) -> Stage:
        if edit not in made:
            stage = recipients.copied(tmp_path_factory.mktemp("enrolled") / "stage")
            bundle = stage.publish(edit)
            stage.make_gateway("")
            stage.enrol(bundle)
            made[edit] = stage
        return made[edit]

    yield enrol
    for stage in made.values():
        stage.close()


@pytest.fixture
def stage(enrolled: Enrolled, tmp_path: Path) -> Iterator[Stage]:
    """The recipients of the session with a fresh, enrolled gateway; programs end with the test."""
    copy = moved(enrolled(fast), Stage(tmp_path / "stage"))
    copy.add_devices(DEVICES)
    yield copy
    copy.close()


@pytest.fixture
def doorbell(stage: Stage) -> Iterator[Doorbell]:
    """Listens where the brokers would, and counts who comes."""
    bells = []
    for recipient in RECIPIENTS:
        listener = socket.create_server(("127.0.0.1", stage.ports[recipient]))
        bells.append(listener)
    doorbell = Doorbell(bells)
    thread = threading.Thread(target=doorbell.listen, daemon=True)
    thread.start()
    yield doorbell
    doorbell.leave()
    thread.join()
    for bell in bells:
        bell.close()
