# SPDX-License-Identifier: Apache-2.0
"""`make faults`: rounds of every sort, several at a time, and the sum of what they found.

The seed plans everything: which rounds there are, what strikes in which order, and the chance
within each. Threads, disks and networks do not repeat exactly, so that a seed gives the same
plan and not the same run.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import datetime as dt
import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import Figure, write
from demo.stage import REPO, Stage
from tests.faults import clocks, damage, ingest, papers, power, rounds, traced, walks
from tests.faults.history import LOOK_MS
from tests.faults.household import COMMIT_S
from tests.faults.kinds import BACKEND, KINDS
from tests.faults.rounds import Outcome
from tests.faults.world import World
from tests.simulators import lossy, steps

RESULT = REPO / "benchmarks" / "results" / "faults.json"
SORTS = ("mixed", "steps", "errors", "clock", "held", "damage", "ingest", *walks.WALKED)
_DISKS = {"power": "gateway", "papers": "gateway", "ingest": "backend"}
VICTIMS = ("collect", "uplink", BACKEND)
_CHAIN = 24  # faults of one world: then it ends, so that a violation is found near its cause
DEFAULT_S = 5  # the commit interval where agent.toml names none
_KIND = "faults.kind."
_TOLD = 20  # violations in words that the results keep
_MOST = {"power": 10}  # rounds of a sort that would have many more
_ROUNDS = 20  # of `mixed`, each with every kind once

_here: list[Stage] = []


class Job(NamedTuple):
    """One round to run.

    Attributes:
        sort: of SORTS.
        seed: of its chance.
        victim: whose program, where one is singled out.
        chain: where it is struck.
        together: collect and uplink are one process.
        commit_s: the commit interval.
    """

    sort: str
    seed: int
    victim: str = ""
    chain: tuple[walks.Point, ...] = ()
    together: bool = False
    commit_s: int = COMMIT_S

    def __str__(self) -> str:
        together = " in one process" if self.together else ""
        commit = f" commit {self.commit_s} s" if self.commit_s != COMMIT_S else ""
        return f"{self.sort} {self.victim}{together}{commit} seed {self.seed}".replace("  ", " ")


def refusals() -> dict[str, str]:
    """The sorts of rounds that this machine cannot have, and why."""
    found: dict[str, str] = {}
    if (why := steps.refusal()) is not None:
        found |= dict.fromkeys(("steps", "errors", "enrolment"), why)
    if (why := lossy.refusal()) is not None:
        found |= dict.fromkeys(_DISKS, why)
    return found


@contextlib.contextmanager
def settled(recipients: Stage, root: Path, job: Job) -> Iterator[World]:
    """A world for a round, with a household that agreed; nothing runs."""
    with World(
        recipients,
        root,
        together=job.together,
        shifts_clock=job.sort in {"clock", "held"},
        disk_of=_DISKS.get(job.sort, ""),
    ) as world:
        world.commit_s = job.commit_s
        world.settle()
        yield world


def run(job: Job, recipients: Stage, root: Path) -> Outcome:
    """Runs one round in a directory of its own."""
    rng = random.Random(job.seed)
    with settled(recipients, root, job) as world:
        match job.sort:
            case "mixed":
                kinds = [one for one in KINDS if not (job.together and one == "uplink killed")]
                rng.shuffle(kinds)
                return rounds.mixed(world, str(job), rng, kinds)
            case "steps":
                chain = [one for one in job.chain if isinstance(one, steps.Step)]
                return traced.steps(world, str(job), job.victim, chain)
            case "errors":
                return traced.errors(world, str(job), job.victim, rng, _CHAIN)
            case "held":
                return clocks.held(world, str(job), rng, 8)
            case "power":
                faults = [one for one in job.chain if isinstance(one, power.Fault)]
                return power.power(world, str(job), rng, faults)
            case "papers":
                some = [one for one in job.chain if isinstance(one, papers.Paper)]
                return papers.papers(world, str(job), rng, some)
            case "enrolment":
                some = [one for one in job.chain if isinstance(one, papers.Paper)]
                return papers.killed(world, str(job), some)
            case "ingest":
                return ingest.ingest(world, str(job), rng, ingest.faults(rng))
            case "damage":
                return damage.damaged(world, str(job), rng, 8)
            case _:
                return clocks.clock(world, str(job), rng, 8)


def _settle_in(place: str) -> None:
    root = Path(tempfile.mkdtemp(dir=place))
    recipients = Stage(root / "recipients")
    recipients.make_recipients()
    _here.append(recipients)


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    """Where a world may be, for as long as the block."""
    root = Path(tempfile.mkdtemp(dir=_here[0].root.parent))
    try:
        yield root / "world"
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _work(job: Job) -> Outcome:
    try:
        with _place() as root:
            return run(job, _here[0], root)
    except Exception:  # noqa: BLE001 - told as what is wrong with this round
        return Outcome(str(job), wrong=[traceback.format_exc(limit=-4)])


def _reckon(victim: str) -> Counter[str]:
    with _place() as root, settled(_here[0], root, Job("steps", 0)) as world:
        return traced.reckon(world, victim)


def _walk(sort: str, seed: int) -> list[walks.Point]:
    with _place() as root, settled(_here[0], root, Job(sort, seed)) as world:
        return walks.walk(sort, world, random.Random(seed))


def plan(
    rng: random.Random,
    counts: dict[str, Counter[str]],
    every: int,
    sorts: Sequence[str],
    walked: dict[str, list[walks.Point]],
) -> list[Job]:
    """The rounds of a campaign, in an order that chance gives.

    Args:
        rng: chance.
        counts: how many of each call each victim makes in one life.
        every: of the writes of pages, every K-th; of all other calls, every one.
        sorts: which sorts of rounds.
        walked: where those of walks.WALKED are struck.
    """
    jobs = [
        Job(
            "mixed",
            _seed(rng),
            together=at % 4 == 3,
            commit_s=DEFAULT_S if at % 4 == 1 else COMMIT_S,
        )
        for at in range(_ROUNDS)
    ]
    for victim, counted in counts.items():
        found = points(counted, every, rng)
        rng.shuffle(found)
        jobs += [
            Job("steps", _seed(rng), victim, tuple(found[at : at + _CHAIN]))
            for at in range(0, len(found), _CHAIN)
        ]
    jobs += [Job("errors", _seed(rng), victim) for victim in ("collect", "collect", *VICTIMS)]
    for sort, points_of in walked.items():
        chains = [tuple(points_of[at : at + _CHAIN]) for at in range(0, len(points_of), _CHAIN)]
        jobs += [
            Job(sort, _seed(rng), chain=chain, together=sort == "power" and at % 2 == 1)
            for at, chain in enumerate(chains[: _MOST.get(sort)])
        ]
    jobs += [Job("damage", _seed(rng), together=at % 2 == 1) for at in range(4)]
    jobs += [Job(sort, _seed(rng)) for sort in ("clock", "held", "ingest") for _ in range(3)]
    jobs = [job for job in jobs if job.sort in sorts]
    rng.shuffle(jobs)
    return jobs


def points(counted: Counter[str], every: int, rng: random.Random) -> list[steps.Step]:
    """The steps at which a program is killed."""
    found = []
    for call, count in sorted(counted.items()):
        stride = every if call in {"pwrite64", "write"} else 1
        first = rng.randint(1, min(stride, count))
        found += [steps.Step(call, number) for number in range(first, count + 1, stride)]
    return found


def _seed(rng: random.Random) -> int:
    return rng.randrange(1 << 32)


def main() -> int:
    """Runs the campaign, prints a line for each round, keeps the sum; 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=None, help="begin no round after so long")
    parser.add_argument("--kind", choices=SORTS, action="append", help="rounds of this sort only")
    parser.add_argument("--every", type=int, default=2, help="of the writes, every K-th")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    missing = refusals()
    for sort, why in missing.items():
        print(f"no rounds of {sort}: {why}", flush=True)
    sorts = [one for one in chosen.kind or SORTS if one not in missing]
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="assent-") as place,
        concurrent.futures.ProcessPoolExecutor(
            chosen.jobs, initializer=_settle_in, initargs=(place,)
        ) as pool,
    ):
        rng = random.Random(seed)
        victims = VICTIMS if "steps" in sorts else ()
        counts = dict(zip(victims, pool.map(_reckon, victims), strict=True))
        walked = [one for one in walks.WALKED if one in sorts]
        seeds = [_seed(rng) for _ in walked]
        found = dict(zip(walked, pool.map(_walk, walked, seeds), strict=True))
        jobs = plan(rng, counts, chosen.every, sorts, found)
        until = None if chosen.minutes is None else began + 60 * chosen.minutes
        outcomes = list(_outcomes(pool, jobs, chosen.jobs, until))
    limit = f" --minutes {chosen.minutes:g}" if chosen.minutes is not None else ""
    told = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "command": f"make faults  (python -m tests.faults --seed {seed} --every {chosen.every}{limit})",
        "seconds": round(time.monotonic() - began),
        "rounds": len(outcomes),
        "planned": len(jobs),
        "missing": missing,
    }
    figures = sums(outcomes, told)
    if chosen.kind is None:
        chosen.out.unlink(missing_ok=True)  # a kind that is no more leaves no row
    else:
        figures = [one for one in figures if one.name.startswith(_KIND)]  # no sum of some
    write(figures, chosen.out)
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


def _outcomes(
    pool: concurrent.futures.Executor, jobs: Sequence[Job], width: int, until: float | None
) -> Iterator[Outcome]:
    waiting = list(jobs)
    running: set[concurrent.futures.Future[Outcome]] = set()
    while waiting or running:
        late = until is not None and time.monotonic() > until
        while waiting and not late and len(running) < width:
            running.add(pool.submit(_work, waiting.pop(0)))
        if not running:
            return
        done, running = concurrent.futures.wait(
            running, return_when=concurrent.futures.FIRST_COMPLETED
        )
        for future in done:
            outcome = future.result()
            struck, injected = outcome.struck.total(), outcome.injected.total()
            print(
                f"{outcome.name}: {struck} of {injected} struck, {len(outcome.wrong)} wrong,"
                f" {len(waiting)} rounds to go",
                flush=True,
            )
            for one in outcome.wrong:
                print(f"  {one}", flush=True)
            yield outcome


def sums(outcomes: Sequence[Outcome], told: dict[str, object]) -> list[Figure]:
    """The figures of a campaign: sums, and one row for each kind of fault.

    Args:
        outcomes: of its rounds.
        told: how it was run.
    """
    injected: Counter[str] = Counter()
    struck: Counter[str] = Counter()
    hurt: Counter[str] = Counter()
    for outcome in outcomes:
        injected += outcome.injected
        struck += outcome.struck
        hurt.update(kind for kind in outcome.injected if outcome.wrong)
    total = struck.total()
    wrong = [f"{one.name}: {sentence}" for one in outcomes for sentence in one.wrong]
    figures = [
        Figure("faults.injected", total, "faults", ">= 1000", total >= 1000, told),
        _nothing("faults.violations", sum(len(one.wrong) for one in outcomes), wrong[:_TOLD]),
        Figure("faults.readings", sum(one.total("stored") for one in outcomes), "readings"),
    ]
    for what in ("lost", "doubled", "undeclared", "foreign", "false"):
        figures.append(_nothing(f"faults.{what}", sum(one.total(what) for one in outcomes)))
    figures += [*_losses(outcomes), _recovery(outcomes)]
    for kind in sorted(injected):
        row = {"set": injected[kind], "in_rounds_with_violations": hurt[kind]}
        name = kind.replace(": ", ".").replace(" ", "-")
        figures.append(Figure(f"{_KIND}{name}", struck[kind], "faults", detail=row))
    return figures


def _nothing(name: str, count: int, wrong: Sequence[str] = ()) -> Figure:
    detail = {"wrong": list(wrong)} if wrong else {}
    return Figure(name, count, "", "<= 0", count == 0, detail)


def _losses(outcomes: Sequence[Outcome]) -> list[Figure]:
    """What a crash took at most, for each commit interval; lives of a full disk do not count."""
    worst: dict[int, tuple[int, str]] = {}
    for one in outcomes:
        for judged in one.judged.values():
            loss = (judged.longest_loss_ms, one.name)
            worst[judged.bound_ms] = max(worst.get(judged.bound_ms, (0, "")), loss)
    return [
        Figure(
            "faults.crash_loss_s" + ("" if bound == COMMIT_S * 1_000 + LOOK_MS else f".{commit:g}"),
            round(loss / 1_000, 2),
            "s",
            f"<= {bound / 1_000:g}",
            loss <= bound,
            {"commit_s": commit, "look_s": LOOK_MS / 1_000, "in": name},
        )
        for bound, (loss, name) in sorted(worst.items())
        for commit in [(bound - LOOK_MS) / 1_000]
    ]


def _recovery(outcomes: Sequence[Outcome]) -> Figure:
    worst = max((one.longest_recovery_s for one in outcomes), default=(0.0, ""))
    return Figure("faults.recovery_s", worst[0], "s", detail={"after": worst[1]})
