# SPDX-License-Identifier: Apache-2.0
"""A household with a meter of eight series, for benchmarks that run the programs themselves.

The meter is a recording that the benchmark makes, replayed at any speed; recipients, broker and
commands are those of demo/stage.py. `fill` puts batches into the spool by the path's own rooms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from agent.lock import instance_lock
from agent.pipeline import Pipeline
from agent.settings import load_settings
from agent.site import SPOOL, open_site
from agent.spool import Spool
from benchmarks.path import ATTRIBUTES, policy_of, samples_from
from demo.stage import Stage
from firmware_bridge.clock import Clock

QUOTA = "500 MB"
"""Of the spool: more than any benchmark fills, so that the quota drops nothing meanwhile."""
_PROFILE = "replay-bench-meter"


class Household:
    """A stage whose gateway has one meter and some flows that all carry it.

    Args:
        root: where everything is made.
        batch: readings in a batch.
        flows: how many.
        classical: keys without the post-quantum part.
        quota: of the spool.
        port: of the maker's broker as the policy names it; the broker's own when it is None.
    """

    def __init__(
        self,
        root: Path,
        *,
        batch: int,
        flows: int,
        classical: bool = False,
        quota: str = QUOTA,
        port: int | None = None,
    ) -> None:
        self.stage = Stage(root / "stage", classical=classical)
        if port is not None:
            self.stage.ports["maker"] = port
        self.flows = [f"diagnosis{index}" for index in range(flows)]
        self.state = self.stage.gateway / "state"
        self._recording = root / "meter.csv"
        self.stage.make_recipients()
        bundle = self.stage.publish(lambda text: policy_of(text, batch, flows))
        self.stage.make_gateway("")
        self.stage.enrol(bundle)
        self.stage.decide(dict.fromkeys(self.flows, '"given"'))
        self._profile(self.stage.gateway / "profiles")
        settings = self.stage.gateway / "agent.toml"
        self._settings = settings.read_text().replace('quota = "64 MB"', f'quota = "{quota}"')

    def devices(self, *, speed: float | None, every: str = "1s") -> None:
        """Writes agent.toml: with the meter at a speed (0 is at once), or without any device."""
        meter = (
            ""
            if speed is None
            else f'[[device]]\nid = "bench"\nkind = "meter"\nsource = "replay"\n'
            f'port = "{self._recording}"\nprofile = "{_PROFILE}"\nevery = "{every}"\n'
            f"speed = {speed}\n"
        )
        (self.stage.gateway / "agent.toml").write_text(f"{self._settings}\n{meter}")

    def record(self, rows: int) -> None:
        """Makes the recording: a row a second, eight series that wander; deterministic."""
        chance = random.Random(1)
        values = [2_300.0 + 100 * index for index in range(ATTRIBUTES)]
        with self._recording.open("w") as file:
            file.write("t," + ",".join(f"s{index}" for index in range(ATTRIBUTES)) + "\n")
            for second in range(rows):
                draw = chance.getrandbits(ATTRIBUTES * 3)
                values = [
                    value + ((draw >> 3 * index & 7) - 3.5) * 0.2
                    for index, value in enumerate(values)
                ]
                cells = ",".join(f"{value:.1f}" for value in values)
                file.write(f"{1_700_000_000 + second},{cells}\n")

    def fill(self, readings: int) -> dict[str, str]:
        """Puts readings into the spool, for every flow; who signs them, and for which mailbox."""
        words = [sys.executable, "-m", "benchmarks.household", "--fill", str(self.stage.gateway)]
        done = subprocess.run(
            [*words, str(readings)], capture_output=True, text=True, check=False, timeout=900
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        told: dict[str, str] = json.loads(done.stdout)
        return told

    def _profile(self, directory: Path) -> None:
        fields = "\n".join(
            f'[[field]]\nattribute = "meter.s{index}"\ncolumn = "s{index}"\nunit = "W"\n'
            for index in range(ATTRIBUTES)
        )
        (directory / f"{_PROFILE}.toml").write_text(
            '[profile]\nsource = "replay"\nabout = "A meter of eight series, made by a benchmark"\n'
            'facts = "benchmarks/household.py"\ncsv = { time = "t", time_format = "unix" }\n\n'
            + fields
        )


@contextlib.contextmanager
def metered(
    *, batch: int, flows: int, rows: int, speed: float, every: str
) -> Iterator[tuple[Household, Path]]:
    """A household whose meter is recorded, with its modules compiled once; and a place for files.

    Args:
        batch: readings in a batch.
        flows: how many.
        rows: of the recording, one a second.
        speed: of the replay.
        every: period of the meter.
    """
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        keep_compiled(place)
        household = Household(place, batch=batch, flows=flows)
        try:
            household.record(rows)
            household.devices(speed=speed, every=every)
            yield household, place
        finally:
            household.stage.close()


def keep_compiled(place: Path) -> None:
    """Has every program from now on keep compiled modules below `place`, whatever the checkout.

    Compiling costs as much CPU as all the rest of a start, and leaves holes in the heap; on a
    gateway it happens once, at the installation.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(place / "compiled")


def _fill(config: Path, readings: int) -> dict[str, str]:
    settings = load_settings(config)
    clock = Clock(trust="system")
    with instance_lock(settings.state), contextlib.ExitStack() as stack:
        site = open_site(settings, clock)
        spool = stack.enter_context(contextlib.closing(Spool.open(settings.state / SPOOL)))
        pipeline = Pipeline(site, spool, clock)
        pipeline.start()
        lists = samples_from(clock.now().wall_ms, readings)
        done = threading.Event()

        def feed() -> None:
            for samples in lists:
                pipeline.deliver(samples)
            pipeline.act(pipeline.flush)
            pipeline.act(done.set)

        feeder = threading.Thread(target=feed)
        feeder.start()
        while not done.is_set():
            pipeline.turn(0.02)
        feeder.join()
        pipeline.stop()
        gateway = site.keys.gateway("maker")
        return {"mailbox": gateway.mailbox, "signer": gateway.sign.public.encode().hex()}


def main() -> int:
    """Fills a spool in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fill", nargs=2, metavar=("GATEWAY", "READINGS"), required=True)
    arguments = parser.parse_args()
    print(json.dumps(_fill(Path(arguments.fill[0]), int(arguments.fill[1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
