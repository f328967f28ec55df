# SPDX-License-Identifier: Apache-2.0
"""A site whose time service is blocked: a clock at 1970, a broker whose certificate is of the future.

Everything is real but the machine's clock: broker, TLS, backend, uplink, path. To a clock that stands
at 1970 every certificate is one of the future; this machine's stands right, so the broker shows one
that begins next month, and the backend comes by another door.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.pipeline import timekeeper
from assent.backend.authority import Authority, Pair
from demo.ports import kept_port
from demo.stage import Stage, _program
from firmware_bridge.sample import Sample
from tests.journeys.boots import POWER, WASHER, Machine, booted, settled, stored

pytestmark = pytest.mark.journey


class Stopped(Machine):
    """A machine without a battery: its clock begins at 1970 when it boots, and nobody sets it."""

    def wall_ms(self) -> int:
        return self.boot_ms()


@pytest.fixture
def blocked(recipients: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A gateway whose household agreed and whose clock has stopped; the maker's door of the future."""
    monkeypatch.setattr(timekeeper, "FIRST_MS", 1_000)
    monkeypatch.setattr(timekeeper, "_SPREAD_MS", 1)
    with settled(recipients, tmp_path / "stage", "synchronised") as stage:
        yield stage


def opens(stage: Stage) -> None:
    """Starts the maker's broker, whose certificate begins next month, and its backend beside."""
    tls = stage.backend_directory("maker") / "tls"
    for name in ("broker.pem", "broker.key"):
        (tls / f"now-{name}").write_bytes((tls / name).read_bytes())
    authority = Authority.load(Pair((tls / "ca.pem").read_bytes(), (tls / "ca.key").read_bytes()))
    next_month = dt.datetime.now(dt.UTC) + dt.timedelta(days=30)
    future = authority.issue_server(["127.0.0.1", "localhost"], next_month)
    (tls / "broker.pem").write_bytes(future.certificate)
    (tls / "broker.key").write_bytes(future.key)
    door, keeper = kept_port()
    stage._keepers.append(keeper)
    start = stage._start

    def with_another_door(name: str, words: list[str]) -> None:
        with Path(words[-1]).open("a") as conf:
            conf.write(
                f"listener {door} 127.0.0.1\ncafile {tls}/ca.pem\ncertfile {tls}/now-broker.pem\n"
                f"keyfile {tls}/now-broker.key\nrequire_certificate true\n"
                "use_identity_as_username true\nallow_anonymous false\n"
            )
        start(name, words)

    (tls / "now-broker.key").chmod(0o600)
    stage._start = with_another_door  # type: ignore[method-assign]
    stage.start_broker("maker")
    stage._start = start  # type: ignore[method-assign]
    words = ["run", str(stage.backend_directory("maker")), "--broker", f"mqtts://127.0.0.1:{door}"]
    stage._start("backend-maker", [_program("assent-backend"), *words])


def test_a_site_without_a_time_service_is_told_the_time_and_nothing_is_lost(
    blocked: Stage, tmp_path: Path
) -> None:
    taken: dict[int, float] = {}
    with booted(blocked, Stopped(root=tmp_path)) as gateway:
        for number in (1, 2, 3):
            taken[number] = gateway.take(number)
        assert set(gateway.desk.status()["flows"][1]["reason"].split()) >= {"held", "time"}
    with booted(blocked, Stopped(root=tmp_path)) as gateway:
        for number in (4, 5, 6):
            taken[number] = gateway.take(number)
        assert not gateway.clock.now().trusted
        opens(blocked)
        gateway.until(lambda: gateway.clock.now().trusted, "the time is told")
        off = abs(gateway.clock.now().wall_ms / 1_000 - time.time())
        assert off < 1
        for number in (7, 8):
            taken[number] = gateway.take(number)

        def all_stored() -> bool:
            # Something has to come, or no batch tells when the boots were.
            gateway.pipeline.deliver([Sample(WASHER, gateway.clock.now(), (POWER,), (99.0,))])
            return stored(blocked).keys() >= taken.keys()

        gateway.until(all_stored, "everything is stored")
    found = stored(blocked)
    for number in (4, 5, 6, 7, 8):
        at, within = found[number]
        assert within == 0
        assert abs(at - taken[number]) <= 1 + off  # instants are whole seconds
    for number in (1, 2, 3):  # of a boot that nobody ever told the time
        at, within = found[number]
        assert at - 1 <= taken[number] <= at + within + 1 + off
