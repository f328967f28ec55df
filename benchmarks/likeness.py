# SPDX-License-Identifier: Apache-2.0
"""How far a series still gives itself away: recorded appliances found again by their readings.

Pseudonyms, instants and batches join nothing (tests/journeys/test_joins.py). What is measured is
like itself all the same. Here somebody holds the series of some appliances from two flows, or from
two epochs of one flow, and gives each series of the first the one of the second that looks most
like it. The figure is how often that is right; by chance it is one in the number of appliances.

Sets: `plugs`, the smart plugs of tracebase, laid upon one day as if of one street, cut into pieces
of six hours; `rooms`, the nine rooms of one house at ten minutes, cut into weeks.
Flows: `window(15m, mean)` beside `round(10)` every second for plugs; `window(1h, mean)` beside the
rooms' own ten minutes. Epochs: a piece and the one after it.
Ways to look: `course`, the correlation of means over time; `nearness`, how far apart they are;
`level`, how far apart the means of all are; `values`, how much of the time is spent at the same
values; `instants`, which seconds both have.

Limits: few appliances, no effort on the seeker's side; somebody who tries harder finds more. A
piece in which an appliance has no reading leaves that appliance out.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from benchmarks import series
from benchmarks.report import Figure, write

_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000

Rows: TypeAlias = Sequence[tuple[int, float]]
"""Instants in ms and values, as a recipient has them."""
Score: TypeAlias = Callable[[Rows, Rows], float]
"""How alike two series are; the higher, the more."""


def plugs() -> dict[str, Rows]:
    """Each plug's day, in whole seconds since midnight."""
    found: dict[str, Rows] = {}
    for one in series.load():
        if one.family == "tracebase":
            device = one.runs[0][0]
            times = [ms % _DAY for ms in device.times]
            found[one.name] = list(zip(times, device.attributes[0].floats(), strict=True))
    return found


def rooms() -> dict[str, Rows]:
    """The temperature of each room."""
    (house,) = (one for one in series.load() if one.family == "appliances-energy")
    return {
        device.name: list(zip(device.times, device.attributes[0].floats(), strict=True))
        for device in house.runs[0]
        if device.name.startswith("node")
    }


def windowed(rows: Rows, length: int) -> list[tuple[int, float]]:
    """What `window(length, mean)` leaves."""
    windows: dict[int, list[float]] = defaultdict(list)
    for ms, value in rows:
        windows[ms - ms % length].append(value)
    return [(start, statistics.fmean(windows[start])) for start in sorted(windows)]


def rounded(rows: Rows, step: float) -> list[tuple[int, float]]:
    """What `round(step)` leaves."""
    return [(ms, round(value / step) * step) for ms, value in rows]


def pieces(devices: Mapping[str, Rows], length: int) -> Iterator[dict[str, Rows]]:
    """Cuts the series of all devices at multiples of a length."""
    cut: dict[int, dict[str, list[tuple[int, float]]]] = defaultdict(dict)
    for name, rows in devices.items():
        for ms, value in rows:
            cut[ms // length].setdefault(name, []).append((ms, value))
    for number in sorted(cut):
        yield dict(cut[number])


def course(length: int, period: int | None = None) -> Score:
    """Correlates the means of both: at the same time, or at the same time of the period."""

    def at(rows: Rows) -> dict[int, float]:
        return dict(
            windowed([(ms % period if period else ms, value) for ms, value in rows], length)
        )

    def score(one: Rows, other: Rows) -> float:
        ours, theirs = at(one), at(other)
        shared = sorted(ours.keys() & theirs.keys())
        try:
            return statistics.correlation(
                [ours[ms] for ms in shared], [theirs[ms] for ms in shared]
            )
        except statistics.StatisticsError:  # too few, or one of them never moves
            return -1.0

    return score


def nearness(length: int) -> Score:
    """Compares the means at the same time."""

    def score(one: Rows, other: Rows) -> float:
        ours, theirs = dict(windowed(one, length)), dict(windowed(other, length))
        shared = ours.keys() & theirs.keys()
        apart = sum(abs(ours[ms] - theirs[ms]) for ms in sorted(shared))
        return -apart / len(shared) if shared else -float("inf")

    return score


def level(one: Rows, other: Rows) -> float:
    """Compares the means."""
    means = [statistics.fmean(value for _, value in rows) for rows in (one, other)]
    return -abs(means[0] - means[1])


def values(one: Rows, other: Rows) -> float:
    """Tells what part of the readings both have at the same values."""
    ours, theirs = (Counter(value for _, value in rows) for rows in (one, other))
    return sum(min(ours[v] / len(one), theirs[v] / len(other)) for v in ours.keys() & theirs.keys())


def instants(one: Rows, other: Rows) -> float:
    """Tells what part of the seconds in which one of both has a reading both have."""
    ours, theirs = ({ms for ms, _ in rows} for rows in (one, other))
    return len(ours & theirs) / len(ours | theirs)


def found(ours: Mapping[str, Rows], theirs: Mapping[str, Rows], score: Score) -> tuple[float, int]:
    """Matches each of ours to the likest of theirs.

    Returns:
        How many are right, ties in parts; how many there are.
    """
    names = sorted(ours.keys() & theirs.keys())
    right = 0.0
    for name in names:
        scores = {other: score(ours[name], theirs[other]) for other in names}
        best = [other for other in names if scores[other] == max(scores.values())]
        right += (name in best) / len(best)
    return right, len(names)


def figure(
    name: str, pairs: Sequence[tuple[Mapping[str, Rows], Mapping[str, Rows]]], score: Score
) -> Figure:
    """The share that is found over all pieces, with its spread."""
    trials = [found(ours, theirs, score) for ours, theirs in pairs]
    shares = [right / count for right, count in trials]
    count = sum(count for _, count in trials)
    return Figure(
        name=f"likeness.{name}",
        value=round(sum(right for right, _ in trials) / count, 3),
        unit="found",
        detail={
            "chance": round(len(trials) / count, 3),
            "trials": count,
            "pieces": len(trials),
            "least": round(min(shares), 3),
            "most": round(max(shares), 3),
        },
    )


def _of_plugs() -> list[Figure]:
    day = list(pieces(plugs(), 6 * _HOUR))
    fine = [{name: rounded(rows, 10) for name, rows in piece.items()} for piece in day]
    coarse = [{name: windowed(rows, 15 * _MINUTE) for name, rows in piece.items()} for piece in day]
    flows, kept = list(zip(coarse, fine, strict=True)), list(zip(day, fine, strict=True))
    epochs = list(itertools.pairwise(fine))
    return [
        figure("flows.plugs.course", flows, course(15 * _MINUTE)),
        figure("flows.plugs.nearness", flows, nearness(15 * _MINUTE)),
        figure("flows.plugs.instants", kept, instants),
        figure("epochs.plugs.values", epochs, values),
        figure("epochs.plugs.level", epochs, level),
    ]


def _of_rooms() -> list[Figure]:
    weeks = list(pieces(rooms(), 7 * _DAY))
    coarse = [{name: windowed(rows, _HOUR) for name, rows in week.items()} for week in weeks]
    flows = list(zip(coarse, weeks, strict=True))
    epochs = list(itertools.pairwise(coarse))
    return [
        figure("flows.rooms.course", flows, course(_HOUR)),
        figure("epochs.rooms.course", epochs, course(_HOUR, _DAY)),
        figure("epochs.rooms.level", epochs, level),
    ]


def main() -> int:
    """Prints the figures and keeps them; there is no target."""
    if not series.DATA.is_dir():
        sys.stderr.write(
            "likeness: not measured, the recorded series are not beside this checkout\n"
        )
        return 0
    write([*_of_plugs(), *_of_rooms()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
