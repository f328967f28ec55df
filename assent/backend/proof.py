# SPDX-License-Identifier: Apache-2.0
"""`show DIR gaps`: what is proven of each gateway, flow and day, as rows and as lines.

Path: chains → completeness → **Report** → the command line.
Law:
  - every day (UTC) from the first that is stored until now has a row for whatever keeps it from
    being complete, or one that says it is;
  - doubtful, exit code 1, is what cannot be by anybody's right: what cannot be read, and what is
    missing and unexplained, or gone, while its terms would still let it be kept. A gateway that is
    silent is not: a household may say no, and while it is off nobody is told. A script that wants
    to know reads the state;
  - as text, in 80 columns, days in a row that say the same are one line; JSON has each of them.

Standards: docs/backend.md, *When something is missing*.
"""

from __future__ import annotations

import datetime as dt
import itertools
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from assent.backend.report import Json, Report, shown_time
from assent.backend.store import Store
from assent.backend.store.completeness import Chain, Day, Hole, judge
from assent.backend.store.hearing import State, rhythm

# Where the hole has numbers: its stream, the first missing one, and the one after the last.
_NUMBERS: Final = ("stream", "first", "next")
_HEAD: Final = (
    *("mailbox", "flow", "day", "state", "from", "to", "cause", "readings"),
    *_NUMBERS,
    *("heard", "gateway_heard"),
)
_COMPLETE: Final = Hole(State.COMPLETE, (None, None))

# What rows of one line have in common besides that each goes on where the one before ends.
_SAME: Final = ("state", "cause", *_NUMBERS)
_WIDTH: Final = 80
# What is gone ends where the next batch begins, so that it looks younger than it was.
_GRACE_MS: Final = 86_400_000

_Row = dict[str, Json]


def gaps(store: Store, flow: str | None, now_ms: int, ages: Mapping[str, int]) -> Report:
    """Says of each gateway, flow and day whether it is complete, and what is missing.

    Args:
        store: the store.
        flow: only this one, or None for all.
        now_ms: now, by the clock of this machine.
        ages: for how long a batch stays open at most, in ms, by flow, as published.
    """
    names = sorted({flow} if flow else store.readings.names())
    rhythms = {name: rhythm(store.readings.terms(name), ages.get(name)) for name in names}
    rows: list[_Row] = []
    doubtful = False
    seen: dict[str, set[str]] = {}
    with store.chains.at_once():
        kept = store.readings.counted()
        for chain in store.chains.all(flow, rhythms, kept):
            judged = judge(chain, now_ms)
            keep_ms = chain.rhythm.recipient_ms
            doubtful = doubtful or any(_is_doubtful(one, keep_ms, now_ms) for one in _all(judged))
            rows += _rows(chain, judged)
            seen.setdefault(chain.mailbox, set()).add(chain.flow)
        rows += _never(store, names, seen)
    rows.sort(key=lambda row: str(row["mailbox"]))
    return Report(
        _HEAD,
        [tuple(row[name] for name in _HEAD) for row in rows],
        doubtful,
        tuple(_lines(rows)),
    )


def _all(judged: Iterable[Day]) -> Iterator[Hole]:
    return itertools.chain.from_iterable(day.holes for day in judged)


def _is_doubtful(hole: Hole, keep_ms: int | None, now_ms: int) -> bool:
    if hole.state not in {State.UNEXPLAINED, State.GONE, State.UNREADABLE}:
        return False
    # What is older than anybody may keep is nobody's loss; what explained it is gone, too.
    until = hole.span[1]
    return until is None or keep_ms is None or until > now_ms - keep_ms + _GRACE_MS


def _rows(chain: Chain, judged: Iterable[Day]) -> Iterator[_Row]:
    heard: _Row = {"heard": _time(chain.heard_ms), "gateway_heard": _time(chain.met_ms)}
    for day in judged:
        name = None if day.day is None else day.day.isoformat()
        key: _Row = {"mailbox": chain.mailbox, "flow": chain.flow, "day": name}
        for hole in day.holes or (_COMPLETE,):
            yield {**key, **_hole(hole), **heard}


def _hole(hole: Hole) -> _Row:
    first, following = hole.numbers or (None, None)
    return {
        "state": hole.state.value,
        "from": _time(hole.span[0]),
        "to": _time(hole.span[1]),
        "cause": None if hole.cause is None else hole.cause.name.lower(),
        "readings": hole.readings,
        "stream": None if hole.stream is None else hole.stream.to_bytes(8, "big").hex(),
        "first": first,
        "next": following,
    }


def _never(store: Store, flows: Iterable[str], seen: Mapping[str, set[str]]) -> Iterator[_Row]:
    """Flows that are published and of which a gateway never sent anything."""
    for gateway in store.custody.gateways():
        here = seen.get(gateway.mailbox, set())
        for flow in flows:
            if flow not in here:
                hole = Hole(State.NEVER, (gateway.admitted_ms, None))
                key: _Row = {"mailbox": gateway.mailbox, "flow": flow, "day": None}
                heard = _time(store.chains.met(gateway.mailbox))
                yield {**key, **_hole(hole), "heard": None, "gateway_heard": heard}


def _time(ms: int | None) -> str | None:
    return None if ms is None else shown_time(ms)


# --- lines ----------------------------------------------------------------------------------------


def _lines(rows: Sequence[_Row]) -> Iterator[str]:
    if rows:
        yield "days and times are UTC"
    for mailbox, of_gateway in itertools.groupby(rows, key=lambda row: row["mailbox"]):
        mine = list(of_gateway)
        yield f"gateway {mailbox}, heard {_instant(mine[0]['gateway_heard'])}"
        for flow, of_flow in itertools.groupby(mine, key=lambda row: row["flow"]):
            days = list(of_flow)
            yield from _wrapped("  ", f"{flow}, heard {_instant(days[0]['heard'])}")
            for run in _runs(days):
                day, state = run[0]["day"] or "-", run[0]["state"]
                yield from _wrapped(f"    {day:<10}  {state:<11}  ", _detail(run))


def _wrapped(begin: str, text: str) -> list[str]:
    indent = " " * max(4, len(begin))
    return textwrap.wrap(begin + text, _WIDTH, subsequent_indent=indent) or [begin.rstrip()]


def _runs(rows: Iterable[_Row]) -> list[list[_Row]]:
    """Puts together the rows of what goes on from day to day, in the order in which each begins."""
    runs: list[list[_Row]] = []
    newest: dict[tuple[Json, ...], list[_Row]] = {}
    for row in rows:
        same = tuple(row[name] for name in _SAME)
        run = newest.get(same)
        if run is not None and _goes_on(run[-1], row):
            run.append(row)
        else:
            newest[same] = [row]
            runs.append(newest[same])
    return runs


def _goes_on(before: _Row, row: _Row) -> bool:
    if row["from"] is not None:
        return row["from"] == before["to"]
    days = [dt.date.fromisoformat(str(one["day"])) for one in (before, row) if one["day"]]
    return len(days) == 2 and days[1] == days[0] + dt.timedelta(1)


def _detail(run: list[_Row]) -> str:
    first, last = run[0], run[-1]
    words = [_span(first, last)]
    if len(run) > 1 and first["from"] is None:
        words = [f"to {last['day']}"]
    if len(run) > 1:
        words.append(f"{len(run)} days")
    words.append(str(first["cause"] or ""))
    if first["readings"] is not None:
        words.append(f"{first['readings']} readings")
    if first["stream"] is not None:
        numbers = "" if first["first"] is None else f", numbers {_numbers(first)}"
        words.append(f"stream {first['stream']}{numbers}")
    return ", ".join(word for word in words if word)


def _numbers(row: _Row) -> str:
    first, following = row["first"], row["next"]
    if not isinstance(first, int) or not isinstance(following, int):
        return f"{first} and on"
    return str(first) if following == first + 1 else f"{first} to {following - 1}"


def _span(first: _Row, last: _Row) -> str:
    since, until = (_in_day(one, at) for one, at in ((first, "from"), (last, "to")))
    if since is not None and until is not None and first is not last:
        until = f"{last['day']} {until}"
    match since, until:
        case None, None:
            return ""
        case _, None:
            return f"since {since}"
        case None, _:
            return f"until {until}"
        case _:
            return f"{since} to {until}"


def _in_day(row: _Row, at: str) -> str | None:
    """The time of an instant on its row's day; the end of the day is 24:00:00."""
    if row[at] is None:
        return None
    instant, day = _instant(row[at]), row["day"]
    if day is not None and instant.startswith(str(day)):
        return instant.partition(" ")[2]
    return "24:00:00" if day is not None and at == "to" else instant


def _instant(time: Json) -> str:
    """An instant without its milliseconds."""
    return "never" if time is None else str(time)[:19].replace("T", " ")
