# SPDX-License-Identifier: Apache-2.0
"""`make kills`: each program killed before each of its steps in each act that ends a flow.

One run without a kill counts the steps of a victim during an act; then there is one household for
every step. Every step counts but for the writes of pages, of which every k-th is taken, from one
that chance picks. A step that a run does not reach (threads and timers do not repeat exactly) is
counted as missed and shows nothing.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime as dt
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from demo.stage import REPO, Stage
from tests.journeys.killed import ACTS, Expiry, Household, Outcome, Point, TooLateError
from tests.simulators.steps import Step, refusal

RESULT = REPO / "benchmarks" / "results" / "kills.json"
VICTIMS = ("collect", "uplink", "run", "command")
GROUPS = tuple(
    (act, victim) for act in ACTS for victim in VICTIMS if (act, victim) != ("expiry", "command")
)
"""Nobody types a command for an end date."""

Row = dict[str, Any]

_here: list[Household] = []


def at(household: Household, act: str, victim: str | None, strike: Step | None) -> Outcome:
    """One point: a household of its own, an act, a victim, a step."""
    for attempt in range(3):
        done = ACTS[act]()
        if isinstance(done, Expiry):
            done.after_s *= 1 + attempt
        with (
            tempfile.TemporaryDirectory(prefix="assent-") as directory,
            Point(household, Path(directory) / "p", done, together=victim == "run") as point,
        ):
            try:
                return point.outcome(victim, strike)
            except TooLateError:
                continue
    raise TooLateError


def _settle_in(place: str) -> None:
    """Makes the worker's own household."""
    root = Path(tempfile.mkdtemp(dir=place))
    recipients = Stage(root / "recipients")
    recipients.make_recipients()
    _here.append(Household(recipients, root / "house"))


def _work(act: str, victim: str, strike: Step | None) -> tuple[Outcome | None, str]:
    try:
        return at(_here[0], act, victim, strike), ""
    except Exception as exc:  # noqa: BLE001 - told as what is wrong with this point
        return None, repr(exc)[:500]


def points(counted: Counter[str], every: int, rng: random.Random) -> list[Step]:
    """The steps to strike at."""
    found = []
    for call, count in sorted(counted.items()):
        pages = call == "pwrite64"
        first = rng.randint(1, min(every, count)) if pages else 1
        found += [Step(call, number) for number in range(first, count + 1, every if pages else 1)]
    return found


def main() -> int:
    """Runs all of it, prints a line for each group, keeps the result; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=4, help="of the writes of pages, every K-th")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    if (why := refusal()) is not None:
        print(why, file=sys.stderr)
        return 1
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="assent-") as place,
        concurrent.futures.ProcessPoolExecutor(
            chosen.jobs, initializer=_settle_in, initargs=(place,)
        ) as pool,
    ):
        rows = _run(pool, chosen.every, random.Random(seed))
    violations = [one for row in rows for one in row["wrong"]]
    result = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "command": f"make kills  (--every {chosen.every} --seed {seed})",
        "seed": seed,
        "every_page_write": chosen.every,
        "seconds": round(time.monotonic() - began),
        "points": sum(row["points"] for row in rows),
        "struck": sum(row["struck"] for row in rows),
        "violations": len(violations),
        "groups": rows,
    }
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['points']} points, {result['struck']} struck, {len(violations)} violations")
    return 1 if violations else 0


def _run(pool: concurrent.futures.Executor, every: int, rng: random.Random) -> list[Row]:
    counting = {group: pool.submit(_work, *group, None) for group in GROUPS}
    rows = []
    planned = {}
    for group, future in counting.items():
        outcome, trouble = future.result()
        counted = outcome.counted if outcome is not None else Counter[str]()
        wrong = [trouble] if outcome is None else list(outcome.wrong)
        steps = points(counted, every, rng)
        planned[group] = (counted, wrong, {s: pool.submit(_work, *group, s) for s in steps})
    for (act, victim), (counted, wrong, futures) in planned.items():
        struck: Counter[str] = Counter()
        unreported = 0
        for step, future in futures.items():
            outcome, trouble = future.result()
            if outcome is None:
                wrong.append(f"{step}: {trouble}")
                continue
            wrong += [f"{step} ({outcome.struck}): {one}" for one in outcome.wrong]
            struck[step.call] += outcome.struck is not None
            unreported += outcome.struck is not None and not outcome.done
        row = {
            "act": act,
            "victim": victim,
            "steps": dict(sorted(counted.items())),
            "points": len(futures),
            "struck": sum(struck.values()),
            "struck_by_call": dict(sorted(struck.items())),
            "calls_that_did_not_report_success": unreported,
            "wrong": wrong,
        }
        rows.append(row)
        print(f"{act} {victim}: {row['struck']} of {len(futures)} struck, {len(wrong)} wrong")
        for one in wrong:
            print(f"  {one}")
        sys.stdout.flush()
    return rows


if __name__ == "__main__":
    sys.exit(main())
