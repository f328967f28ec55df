# SPDX-License-Identifier: Apache-2.0
"""A gateway as it is installed, a household that lives in a copy of it, and a broker to talk to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.installed import YES, House, copied, install, living
from tests.simulators.broker import Broker, running
from tests.simulators.certificates import Authority
from tests.simulators.subscriber import Subscriber, listening


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody has decided anything, and nothing has run; to be copied, never changed."""
    return install(tmp_path_factory.mktemp("installed") / "gateway")


@pytest.fixture
def house(installed: Path, tmp_path: Path) -> Iterator[House]:
    """A household that works for as long as the test."""
    with living(copied(installed, tmp_path / "gateway")) as house:
        yield house


@pytest.fixture
def agreed(house: House) -> House:
    """Every flow is on."""
    house.decide(YES)
    return house


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom broker and uplink trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def broker(tmp_path: Path, authority: Authority) -> Iterator[Broker]:
    """A mosquitto at work."""
    with running(tmp_path / "broker", authority) as one:
        yield one


@pytest.fixture
def backend(broker: Broker, authority: Authority) -> Iterator[Subscriber]:
    """What hears what the broker is given."""
    with listening(broker.port, authority) as one:
        yield one
