# SPDX-License-Identifier: Apache-2.0
"""Memory and disk under the worst mix for an hour: collect and uplink, each in its process.

A recording of eight series is replayed into three flows, 120 times too fast; the line to the
broker carries some two batches a second each way, so that the smallest quotas drop the oldest
batches all the time; and once a minute the disk refuses the uplink, letters fill the inbox, and the
disk refuses collect (benchmarks/mix.py).

`growth`: the mean of what each process holds by itself (Rss) over the last five minutes of this,
less that over the first five after the first sixth, which are the caches filling; `drained_mib` is
what they hold once the line is well and everything has left, another work with other caches.
`disk`: the most that the spool with its logs and its inbox held, against its quota. `undeclared`:
readings that the meter gave, and that neither the backend has nor a declared gap counts, after the
line was well again for the last three minutes; there the backend's own `show gaps` has to say that
nothing is unexplained, and no number of a stream may be missing that no gap names.

The programs run at nice 10: this load is long, and stands beside other work.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

from agent.spool.mail import INBOX_BYTES
from benchmarks.household import Household, keep_compiled
from benchmarks.mix import Load, Look, Mix
from benchmarks.report import Figure, write
from benchmarks.week import came_too, declared, rows
from demo.ports import free_port
from demo.stage import wait_until

FLOWS = 3
BATCH = 100
BESIDE_MB = INBOX_BYTES / 1e6 + 6
"""What a spool is besides its batches: the inbox, free pages, the log of what left, two logs."""
GROWTH_MIB = 0.5
"""Of each process."""
_FIRST = 1 / 6  # of the span: caches fill
_LEAST_MIN = 10  # for each of the windows that are compared
_KEPT_S = 3_600.0  # shorter runs are printed only
_REFUSED = {"agent": "batches not stored", "uplink": "the spool failed"}
"""What a program says where the disk refuses; its log lies there too, so that most goes unsaid."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What an hour came to.

    Attributes:
        looks: in order.
        taken: readings of the meter, for each of the flows.
        stored: what the backend has, over all flows.
        declared: what its gaps count, over all flows.
        both: of batches that came and that a gap names too.
        gaps: by cause, how many were declared.
        refusals: how often each program said that the disk refuses.
        letters: how many were sent, and the most that lay in the inbox.
        cpu_s: of collect, of uplink.
        span_s: how long the recording played.
        drained_s: from its end until the spool was empty.
    """

    looks: list[Look]
    taken: int
    stored: int
    declared: int
    both: int
    gaps: dict[str, int]
    refusals: dict[str, int]
    letters: int
    cpu_s: tuple[float, float]
    span_s: float
    drained_s: float

    @property
    def undeclared(self) -> int:
        """Readings that nobody has and no gap counts."""
        return self.taken - self.stored - self.declared + self.both


def run(place: Path, load: Load) -> Outcome:
    """One household through the mix, drained, and held against its backend."""
    from tests.simulators.proxy import Proxy  # noqa: PLC0415 - only a checkout has it

    broker = free_port()
    with Proxy(broker) as line:
        household = Household(
            place, batch=BATCH, flows=FLOWS, port=line.port, quota=f"{load.quota_mb} MB"
        )
        stage = household.stage
        stage.ports["maker"] = broker
        try:
            household.record(load.rows)
            household.devices(speed=load.speed, every="100ms")
            stage.start_broker("maker")
            stage.start_backend("maker")
            stage.start_two()
            mix = Mix(household, line, load)
            wait_until(mix.is_connected, "the uplink is connected")
            mix.live()
            drained_s = mix.drain()
            return _outcome(mix, drained_s)
        finally:
            stage.close()


def _outcome(mix: Mix, drained_s: float) -> Outcome:
    household = mix.household
    directory = household.stage.backend_directory("maker")
    taken, cpu_s = mix.taken(), mix.cpu_s()
    household.stage.show("maker", "gaps")  # its exit code says whether a hole is unexplained
    stored = counted = both = 0
    causes: Counter[str] = Counter()
    for flow in household.flows:
        gaps, numbers = declared(directory, flow)
        named = {(gap.stream, number) for gap in gaps for number in range(gap.begin, gap.end)}
        for stream, found in numbers.items():
            missing = set(range(max(found) + 1)) - found
            if any((stream, number) not in named for number in missing):
                raise RuntimeError(f"{flow}: a number is missing that no gap names")
        query = "SELECT sum(readings) FROM custody WHERE flow=?"
        stored += rows(directory / "custody.db", query, flow)[0][0]
        counted += sum(gap.readings for gap in gaps)
        both += came_too(directory, flow, gaps)
        causes.update(gap.cause.name for gap in gaps)
    return Outcome(
        looks=mix.looks,
        taken=taken * len(household.flows),
        stored=stored,
        declared=counted,
        both=both,
        gaps=dict(causes),
        refusals={name: household.stage.log(name).count(words) for name, words in _REFUSED.items()},
        letters=mix.letters,
        cpu_s=cpu_s,
        span_s=mix.lived_s,
        drained_s=drained_s,
    )


def figures_of(outcome: Outcome, load: Load) -> list[Figure]:
    """The rows."""
    return [_growth(outcome, load), _disk(outcome, load), _account(outcome)]


def _growth(outcome: Outcome, load: Load) -> Figure:
    looks, ill_s = outcome.looks, load.span_s - load.well_s
    part_s = load.span_s / 12
    settled = [look for look in looks if look.at_s >= load.span_s * _FIRST]
    early = [look for look in settled if look.at_s < load.span_s * _FIRST + part_s]
    late = [look for look in looks if ill_s - part_s < look.at_s <= ill_s]
    well = [look for look in looks if look.at_s > load.span_s - load.well_s / 3]
    before, after, drained = (_mean(part) for part in (early, late, well))
    grew = {name: after[at] - before[at] for at, name in enumerate(("collect", "uplink"))}
    every = settled[:: max(len(settled) // 12, 1)]
    return Figure(
        name="bounds.growth_mib",
        value=round(max(grew.values()), 2),
        unit="MiB",
        target=f"<= {GROWTH_MIB}",
        holds=max(grew.values()) <= GROWTH_MIB,
        detail={
            "hours": round(outcome.span_s / 3600, 2),
            **{f"{name}_grew_mib": round(mib, 2) for name, mib in grew.items()},
            "collect_mib": [round(look.rss[0], 1) for look in every],
            "uplink_mib": [round(look.rss[1], 1) for look in every],
            "drained_mib": [round(mib, 1) for mib in drained],
            "most_mib": [round(max(look.rss[at] for look in looks), 1) for at in (0, 1)],
            "most_pss_mib": round(max(look.pss for look in looks), 1),
            "cpu_s": [round(one) for one in outcome.cpu_s],
        },
    )


def _disk(outcome: Outcome, load: Load) -> Figure:
    looks, bound_mb = outcome.looks, load.quota_mb + BESIDE_MB
    most_mb = max(look.disk_mb for look in looks)
    return Figure(
        name="bounds.most_on_disk_mb",
        value=round(most_mb, 1),
        unit="MB",
        target=f"<= {bound_mb:.0f}",
        holds=most_mb <= bound_mb,
        detail={
            "quota_mb": load.quota_mb,
            "most_batches": max(look.waiting for look in looks),
            "most_gaps": max(look.gaps for look in looks),
            "most_letters": max(look.inbox for look in looks),
            "letters_sent": outcome.letters,
            "refused": outcome.refusals,
        },
    )


def _account(outcome: Outcome) -> Figure:
    return Figure(
        name="bounds.undeclared_readings",
        value=outcome.undeclared,
        unit="readings",
        target="== 0",
        holds=outcome.undeclared == 0,
        detail={
            "taken": outcome.taken,
            "stored": outcome.stored,
            "in_declared_gaps": outcome.declared,
            "stored_and_declared": outcome.both,
            "gaps": outcome.gaps,
            "drained_s": round(outcome.drained_s, 1),
        },
    )


def _mean(looks: list[Look]) -> tuple[float, float]:
    """MiB of collect and of the uplink."""
    return statistics.fmean(one.rss[0] for one in looks), statistics.fmean(
        one.rss[1] for one in looks
    )


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="at least ten; 60 is kept")
    parser.add_argument("--keep", type=Path, help="write everything that was seen there, as JSON")
    arguments = parser.parse_args()
    if arguments.minutes < _LEAST_MIN:
        parser.error(f"expected at least {_LEAST_MIN} minutes, got {arguments.minutes:g}")
    os.nice(10)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        keep_compiled(place)
        load = Load(arguments.minutes * 60)
        outcome = run(place, load)
    if arguments.keep:
        arguments.keep.write_text(json.dumps(dataclasses.asdict(outcome)))
    figures = figures_of(outcome, load)
    if load.span_s >= _KEPT_S:
        write(figures)
    else:
        sys.stderr.writelines(f"{figure}\n" for figure in figures)
    return 0 if all(figure.holds is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
