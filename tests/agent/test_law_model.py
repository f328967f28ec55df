# SPDX-License-Identifier: Apache-2.0
"""The law against a second reading of it: whatever is said, done and broken in whatever order.

A state machine of hypothesis drives a whole household in one process: real keys, ledger, signed
policies, desk, path and spool, a clock that is moved by hand, and the uplink's end of the spool.
Beside it `law_oracle` keeps a list of what was said. After every step the flows whose lanes are
open are those that the oracle names, and what the recipients would read of what can be leased is
what may leave, and all that has to be there.

The everyday run is short. `make law` makes a long one (`LAW_EXAMPLES`, `LAW_SEED`); hypothesis prints the steps that
failed as a program, and `@reproduce_failure` or `--hypothesis-seed` repeats them; `LAW_SHRINK=1`
looks for fewer steps.

Limits: a whole state that is put back, witness and all, is believed; what a no said past an agent
that does not run leaves in the spool is another test's business.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import copy
import dataclasses
import datetime as dt
import functools
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import agent.enrol
from agent.floor import Mark
from agent.halves import Halves
from agent.letterbox import SETTLE_MS
from agent.path import Pending, Permit
from agent.records import FormRead, PolicyInForce, Start
from agent.records.wire import decode_entry
from agent.site import FLOOR, LEDGER, POLICY, SIGNATURE
from agent.spool import LaneState, Spool
from agent.spool.schema import beside
from agent.storage import previous
from agent.witness import witness_of
from assent.cosekey import SigningKey
from assent.envelope import ClockQuality, Opened
from assent.errors import AssentError, ConfigError, RefusedError, UsageError
from firmware_bridge.sample import Instant, Sample
from tests.agent.installed import MAKER, WASHER, House, copied, install
from tests.agent.law_oracle import (
    KEPT_DAYS,
    OWNER,
    Grain,
    Line,
    Oracle,
    Paper,
    Policy,
    Reading,
    Terms,
    Word,
)
from tests.simulators.clock import START_MS, ManualClock
from tests.simulators.power import PowerCut, power_cut

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
SERVICE, DIAGNOSIS, ADVICE, TRIAL = FLOWS = (
    "service",
    "remote-diagnosis",
    "partner-energy-advice",
    "trial",
)
POWER, HEAT, BOARD = NAMES = ("appliance.power", "appliance.temperature", "host.temperature")
SHRINKS: Final = "LAW_SHRINK" in os.environ
EXAMPLES: Final = int(os.environ.get("LAW_EXAMPLES", "40"))
STRANGER: Final = SigningKey.generate()


# -- what a maker may publish ------------------------------------------------------------------

ROUND, COARSE = Grain("round", 1), Grain("round", 10)
MINUTES = Grain("window", 1), Grain("window", 2)
LEVELS: Final = (
    {POWER: COARSE},
    {POWER: COARSE, HEAT: ROUND},
    {POWER: ROUND, HEAT: ROUND},
    {POWER: ROUND, HEAT: ROUND, BOARD: ROUND},
)


@dataclasses.dataclass(frozen=True)
class Edition:
    """One state of the maker's mind: a policy but for its serial."""

    levels: tuple[int, int, int, int] = (2, 2, 2, 2)
    controller: str = "Example Appliances Co."
    region: str = "CN"
    purpose: str = "fault-diagnosis"
    keep_days: int = 90
    to_partner: bool = False
    as_core: bool = False
    with_trial: bool = False

    def signed_as(self, serial: int) -> Policy:
        flows = {}
        for flow, level in zip(FLOWS, self.levels, strict=True):
            if flow == TRIAL and not self.with_trial:
                continue
            mine = flow == DIAGNOSIS
            partner = flow == ADVICE or (mine and self.to_partner)
            attributes = dict(LEVELS[level])
            if flow == ADVICE:
                attributes[POWER] = MINUTES[level < 2]
            flows[flow] = Terms(
                controller=self.controller,
                function="core" if flow == SERVICE or (mine and self.as_core) else "optional",
                purpose=self.purpose if mine else flow,
                recipient="energy-advice" if partner else "maker",
                region="DE" if partner else self.region,
                keep_days=self.keep_days if mine else 90,
                attributes=attributes,
            )
        return Policy(serial, f"v{serial}", flows)


CHANGES: Final[dict[str, dict[str, Any]]] = {
    "another controller": {"controller": "Buyer of Appliances Ltd"},
    "the old controller": {"controller": "Example Appliances Co."},
    "another region": {"region": "US"},
    "the old region": {"region": "CN"},
    "another purpose": {"purpose": "advertising"},
    "the old purpose": {"purpose": "fault-diagnosis"},
    "kept longer": {"keep_days": 180},
    "kept shorter": {"keep_days": 30},
    "kept as before": {"keep_days": 90},
    "another recipient": {"to_partner": True, "as_core": False},
    "the old recipient": {"to_partner": False},
    "declared core": {"as_core": True, "to_partner": False},
    "optional again": {"as_core": False},
    "a new flow": {"with_trial": True},
    "a flow dropped": {"with_trial": False},
    "nothing": {},
}


def written(policy: Policy) -> str:
    """The flows of a policy as the maker writes them."""
    text = ""
    for flow, terms in policy.flows.items():
        attributes = ", ".join(
            f'"{name}" = "{_transform(grain)}"' for name, grain in terms.attributes.items()
        )
        text += f"""
[flows.{flow}]
function = "{terms.function}"
purpose = "{terms.purpose}"
notice = {{ en = "For a test of {flow}." }}
basis = "{"contract" if terms.function == "core" else "consent"}"
recipient = "{terms.recipient}"
attributes = {{ {attributes} }}
keep = {{ gateway = "{KEPT_DAYS}d", recipient = "{terms.keep_days}d", then = "delete" }}
separate = {str(terms.recipient != "maker").lower()}
batch = {{ age = "1m" }}
"""
    return text


def _transform(grain: Grain) -> str:
    return f"round({grain.size})" if grain.way == "round" else f"window({grain.size}m, last)"


@functools.cache
def published(edition: Edition, serial: int, *, by_a_stranger: bool = False) -> tuple[bytes, bytes]:
    """The bytes of a policy and of the signature beside it."""
    policy = edition.signed_as(serial)

    def edit(text: str) -> str:
        text = text[: text.index("[flows.service]")] + written(policy)
        for old, new in (
            ('version = "2026-11-01"', f'version = "{policy.version}"'),
            ("serial = 17", f"serial = {serial}"),
            ('controller = "Example Appliances Co."', f'controller = "{edition.controller}"'),
            ('region = "CN"', f'region = "{edition.region}"'),
        ):
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        return text

    return MAKER.policy(edit, key=STRANGER if by_a_stranger else None)


# -- what a household may write ----------------------------------------------------------------


def paper_text(paper: Paper) -> str:
    """A form as the technician writes it."""
    lines = [
        f'policy = "{paper.version}"',
        f'decided_by = "{paper.by}"',
        'recorded_by = "installer 4711"',
        f"recorded_at = {_moment(paper.recorded_ms)}",
        f'method = "signed form {paper.number}"',
        "[decisions]" if paper.readable else "[decisions",
    ]
    for flow, line in paper.lines.items():
        word = ("accepted" if line.accepts else "given") if line.yes else "refused"
        more = ""
        if line.until_ms is not None:
            more += f", until = {_moment(line.until_ms)[:10]}"
        if line.without:
            more += f", without = [{', '.join(repr(name) for name in line.without)}]"
        if line.on_ms is not None:
            more += f", on = {_moment(line.on_ms)}"
        lines.append(f'{flow} = {{ decision = "{word}"{more} }}')
    return "\n".join(lines) + "\n"


def written_out(paper: Paper) -> list[str]:
    """The same with a table for each line, as an editor writes it: head first, then these."""
    rows = []
    for flow, line in paper.lines.items():
        word = ("accepted" if line.accepts else "given") if line.yes else "refused"
        rows += [f"[decisions.{flow}]", f'decision = "{word}"']
        if line.until_ms is not None:
            rows.append(f"until = {_moment(line.until_ms)[:10]}")
        if line.without:
            rows.append(f"without = [{', '.join(repr(name) for name in line.without)}]")
        if line.on_ms is not None:
            rows.append(f"on = {_moment(line.on_ms)}")
    return rows


def cut_off(paper: Paper, rows: list[str], number: int) -> Paper:
    """What the first rows of a form say by themselves."""
    lines: dict[str, Line] = {}
    flow, is_whole = "", bool(rows)
    for row in rows:
        if row.startswith("["):
            flow, is_whole = row.removeprefix("[decisions.").removesuffix("]"), False
            continue
        is_whole = True
        said = paper.lines[flow]
        if row.startswith("decision"):
            lines[flow] = Line(yes=said.yes, accepts=said.accepts)
        elif row.startswith("until"):
            lines[flow] = dataclasses.replace(lines[flow], until_ms=said.until_ms)
        elif row.startswith("without"):
            lines[flow] = dataclasses.replace(lines[flow], without=said.without)
        else:
            lines[flow] = dataclasses.replace(lines[flow], on_ms=said.on_ms)
    return dataclasses.replace(paper, number=number, lines=lines, readable=is_whole)


def _moment(ms: int) -> str:
    text = dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


@dataclasses.dataclass(frozen=True)
class Wish:
    """One line of a form before anybody knows what time it is."""

    yes: bool
    until_days: int | None
    without: tuple[str, ...]
    on: int | None
    right_word: bool


wishes = st.builds(
    Wish,
    yes=st.sampled_from([True, True, False]),
    until_days=st.sampled_from([None, None, None, 1, 2, 40]),
    without=st.sampled_from([()] * 5 + [(HEAT,)] * 2 + [(BOARD,), (POWER, HEAT)]),
    on=st.sampled_from([None, None, 0, 0, -30 * MINUTE, -DAY, HOUR]),
    right_word=st.sampled_from([True] * 19 + [False]),
)
kills = st.sampled_from([None] * 40 + list(range(10)))


# -- the clock --------------------------------------------------------------------------------


class LawClock(ManualClock):
    """Whoever waits gives the uplink its turn."""

    def __init__(self) -> None:
        super().__init__(flowing=True)
        self.uplink: Callable[[], None] = lambda: None

    def restart(self, wall_ms: int, mono_ms: int) -> None:
        """The machine boots."""
        self._wall_ms, self._mono_ms = wall_ms, mono_ms
        self.boot_id = f"{int(self.boot_id[-4:]) + 1:036}"

    def wait(self, duration_ms: int, event: threading.Event | None = None) -> bool:
        self.uplink()
        return super().wait(duration_ms, event)


@functools.cache
def template() -> Path:
    """An installation that both recipients admitted; nobody was asked anything."""
    directory = Path(tempfile.mkdtemp(prefix="law-"))
    atexit.register(shutil.rmtree, directory)
    with pytest.MonkeyPatch.context() as patch:
        # The ledger begins by the household's clock, whatever day it is on this machine.
        patch.setattr(agent.enrol, "Clock", lambda **_: ManualClock())
        return install(directory / "gateway")


# -- the machine -------------------------------------------------------------------------------

up = precondition(lambda self: self.house is not None)
down = precondition(lambda self: self.house is None)


class LawMachine(RuleBasedStateMachine):
    """One household; `oracles` has more than one when a power cut left open what was heard."""

    checked = 0
    """How often the two readings were compared, in all households of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="law-"))
        self.directory = copied(template(), self.root / "gateway")
        self.clock = LawClock()
        self.clock.uplink = self.uplink_turns
        self.house: House | None = None
        self.dead: list[House] = []
        self.recipients_view: House | None = None
        self.oracles = [Oracle(START_MS)]
        self.edition, self.serial = Edition(), 18
        self.editions: dict[int, Edition] = {}
        self.lying: Policy | None = None
        self.paper: Paper | None = None
        self.papers: list[Paper] = []
        self.readings: dict[int, Reading] = {}
        self.opened: dict[bytes, Opened] = {}
        self.asked: set[str] = set()
        """Who would be asked for the time, when it was looked last."""
        self.uplink: Spool | None = None
        self.probe: Spool | None = None
        self.held: dict[int, str] = {}
        self.act_was_cut = False
        self.floor = Mark(0, 0)
        self.texts: dict[int, str] = {}
        self.writes = self.laid = 0
        self.seen: tuple[int, int] | None = None
        self.is_settled = False
        self.spool_is_damaged = False
        self.images: list[tuple[bytes, bytes | None]] = []
        self.publish()

    def teardown(self) -> None:
        if self.house is not None:
            self.house.close()
        for house in self.dead:
            house.spool.close()
        self.hang_up()
        shutil.rmtree(self.root)

    # --- what every step is made of

    @property
    def oracle(self) -> Oracle:
        assert len(self.oracles) == 1
        return self.oracles[0]

    @property
    def now_ms(self) -> int:
        return self.clock.now().wall_ms

    @property
    def boot_ms(self) -> int:
        return self.clock.now().mono_ms

    def sync(self, *oracles: Oracle) -> None:
        """Says what time it is."""
        for oracle in oracles or self.oracles:
            oracle.now_ms, oracle.trusted = self.now_ms, self.clock.trusted
            oracle.floor_ms = self.floor.later(self.boot_ms)
            oracle.boot, oracle.boot_ms = self.clock.boot_id, self.boot_ms

    def observe(self) -> None:
        """A running agent looks at the clock."""
        if self.clock.trusted:
            past_ms = max(self.now_ms, self.floor.later(self.boot_ms))
            self.floor = Mark(past_ms, self.boot_ms)
        self.sync()

    @property
    def home(self) -> House:
        assert self.house is not None
        return self.house

    def act(
        self, real: Callable[[], object], *steps: Callable[[Oracle], object], kill: int | None
    ) -> None:
        """Does something, and says what the law makes of each part of it that is one write."""
        chain = [self.oracle]
        for step in steps:
            chain.append(copy.deepcopy(chain[-1]))
            self.sync(chain[-1])
            step(chain[-1])
        try:
            with power_cut(kill):
                real()
        except PowerCut:
            self.die(cut=True)
            self.oracles = chain
            for one in chain:
                one.die()
        else:
            self.oracles = chain[-1:]
            self.look()

    def look(self) -> None:
        """The owner looks around, as several times a second."""
        if self.house is not None:
            self.clock.advance(250)
            self.house.pipeline.turn(0)
            self.observe()
            for oracle in self.oracles:
                oracle.settle()
        self.sync()

    def die(self, *, cut: bool) -> None:
        """As after kill -9: nothing is closed, nothing is said any more."""
        self.dead.append(self.home)
        self.house = None
        self.act_was_cut = cut

    def begin(self, kill: int | None) -> None:
        """The agent starts, from what lies on the disk."""
        house: House | None = None
        with contextlib.suppress(PowerCut), power_cut(kill):
            house = House(self.directory, self.clock)
            self.spool_is_damaged = False
            house.desk.read_form()
            house.pipeline.start()
            self.house = self.recipients_view = house
        if self.house is None:
            # Whether it looked at the clock before it died is its own business.
            self.floor = max(self.floor, self.written_floor(), key=lambda m: m.later(self.boot_ms))
        else:
            self.observe()
        courses = [self.course_of_a_start(oracle) for oracle in self.oracles]
        if self.house is None:
            self.act_was_cut = True
            self.dead += [house] if house is not None else []
            self.oracles = [oracle for course in courses for oracle in course]
            return
        self.oracles = [self.heard_of([course[-1] for course in courses])]
        self.act_was_cut = False
        self.seen = None
        self.looked_at()
        self.dial()
        self.look()
        self.form_settles(None)

    def course_of_a_start(self, oracle: Oracle) -> list[Oracle]:
        """What the law makes of each part of a start, as of one that a power cut ended there."""
        since_ms, highest = self.legible()
        course = [oracle]
        for step in (
            lambda oracle: oracle.open_ledger(since_ms, highest),
            Oracle.tell_time,
            lambda oracle: oracle.read_policy(self.lying),
            lambda oracle: oracle.glance(self.paper, afresh=True),
        ):
            course.append(copy.deepcopy(course[-1]))
            self.sync(course[-1])
            step(course[-1])
        return course

    def written_floor(self) -> Mark:
        """What the file of the floor says."""
        try:
            told: Any = Halves(self.directory / "state" / FLOOR).read()
        except FileNotFoundError:
            return Mark(0, 0)
        return Mark(told["at_ms"], told["boot_ms"])

    def legible(self) -> tuple[int, int]:
        """Since when a ledger that was begun anew knows nothing, and the highest serial in it.

        How much of a damaged ledger can still be read is the ledger's own business.
        """
        since_ms, highest = self.now_ms, 0
        with contextlib.suppress(OSError, ValueError, LookupError, AssentError):
            tables = json.loads((self.directory / "state" / LEDGER).read_text())["tables"]
            for document in tables["entries"].values():
                body = decode_entry(base64.b64decode(document["entry"])).body
                if isinstance(body, Start) and body.unknown_since_ms is not None:
                    since_ms = body.unknown_since_ms
                if isinstance(body, PolicyInForce):
                    highest = max(highest, body.serial)
        return since_ms, highest

    def heard_of(self, oracles: list[Oracle]) -> Oracle:
        """The one of several courses of events that the ledger tells of."""
        ledger = self.home.site.ledger
        read = {e.body.form_hash for e in ledger.entries if isinstance(e.body, FormRead)}
        for oracle in oracles:
            if oracle.lost_ms != ledger.unknown_since_ms:
                continue
            if self.words_of_the_ledger() != self.words_of(oracle):
                continue
            if len(read) != len(oracle.first_read.keys() | oracle.papers_done):
                continue
            if ledger.highest_serial != oracle.highest:
                continue
            return oracle
        raise AssertionError(
            f"the ledger knows nothing before {ledger.unknown_since_ms}, has serial"
            f" {ledger.highest_serial}, {len(read)} forms and {self.words_of_the_ledger()};"
            f" the oracle says one of {[(one.lost_ms, one.highest, len(one.first_read), self.words_of(one)) for one in oracles]}"
        )

    def words_of_the_ledger(self) -> list[Any]:
        ledger = self.home.site.ledger
        return [
            (r.flow, r.state.is_yes, r.at_ms, r.decided_ms, r.until_ms, r.without)
            for flow in FLOWS
            for r in ledger.history(flow)
        ]

    def words_of(self, oracle: Oracle) -> list[Any]:
        def told(word: Word) -> tuple[Any, ...]:
            return word.flow, word.yes, word.at_ms, word.decided_ms, word.until_ms, word.without

        return [told(word) for flow in FLOWS for word in oracle.words if word.flow == flow]

    # --- the uplink

    def dial(self) -> None:
        self.hang_up()
        self.uplink = Spool.open(self.home.path, create=False)
        self.probe = Spool.open(self.home.path, create=False)
        self.held = {}

    def hang_up(self) -> None:
        for spool in (self.uplink, self.probe):
            if spool is not None:
                spool.close()
        self.uplink = self.probe = None

    def uplink_turns(self) -> None:
        """What the uplink does all the time: lets go of what must not leave, and says so."""
        if self.uplink is not None and not self.act_was_cut:
            fence = self.uplink.fence()
            revoked = self.uplink.revoked(self.now_ms, boot_ms=self.boot_ms)
            self.uplink.returned(revoked)
            for key in revoked:
                self.held.pop(key, None)
            self.uplink.answer_fence(fence)

    # --- the files

    def publish(self) -> None:
        """The maker's newest policy lies there, signed."""
        text, signature = published(self.edition, self.serial)
        self.editions[self.serial] = self.edition
        self.lay_policy(text, signature, self.edition.signed_as(self.serial))

    def lay_policy(self, text: bytes, signature: bytes | None, policy: Policy | None) -> None:
        (self.directory / POLICY).write_bytes(text)
        if signature is None:
            (self.directory / SIGNATURE).unlink(missing_ok=True)
        else:
            (self.directory / SIGNATURE).write_bytes(signature)
        self.lying = policy

    def lay_paper(self, paper: Paper | None) -> None:
        path = self.directory / "consent.toml"
        if paper is None:
            path.unlink(missing_ok=True)
            self.laid = 0
        else:
            path.write_text(self.text_of(paper))
            self.writes += 1
            self.laid = self.writes
            os.utime(path, (self.laid, self.laid))  # two writes within a tick have one time
        self.paper = paper

    def text_of(self, paper: Paper) -> str:
        return self.texts.get(paper.number) or paper_text(paper)

    def reload(self, kill: int | None) -> None:
        self.reload_once(kill)
        self.form_settles(None)

    def reload_once(self, kill: int | None) -> None:
        """The files are read; what the form says is heard as far as it may be half of one."""
        if self.house is None:
            return
        self.act(
            self.home.desk.reload,
            Oracle.seal,
            Oracle.tell_time,
            lambda oracle: oracle.read_policy(self.lying),
            self.looked_at(),
            kill=kill,
        )

    def looked_at(self) -> Callable[[Oracle], object]:
        """What a look at the form makes of it: the second one at the same bytes believes them."""
        if self.seen is None or self.seen[0] != self.laid:
            self.seen = self.laid, self.boot_ms
        self.is_settled = self.boot_ms - self.seen[1] >= SETTLE_MS
        paper, is_settled = self.paper, self.is_settled
        return lambda oracle: oracle.read_form(paper) if is_settled else oracle.glance(paper)

    def form_settles(self, kill: int | None) -> None:
        """The form lies still for a while; the agent looks until that was long enough."""
        while self.house is not None and not self.is_settled:
            self.clock.advance(SETTLE_MS + SECOND)
            self.look()
            self.act(self.home.desk.look_again, self.looked_at(), kill=kill)

    def apply(self, paper: Paper, kill: int | None) -> None:
        if self.oracle.policy is None:
            with pytest.raises(RefusedError):
                self.home.desk.apply(self.text_of(paper), "form")
            return
        sound = copy.deepcopy(self.oracle)
        self.sync(sound)
        is_sound = sound.read(paper)

        def real() -> None:
            if is_sound:
                self.home.desk.apply(self.text_of(paper), "form")
            else:
                with pytest.raises(ConfigError):
                    self.home.desk.apply(self.text_of(paper), "form")

        self.act(real, lambda oracle: oracle.read(paper), kill=kill)

    # --- the household

    @initialize(yes=st.sampled_from([True] * 7 + [False]), trial=st.booleans())
    def moves_in(self, yes: bool, trial: bool) -> None:
        if trial:
            self.edition = dataclasses.replace(self.edition, with_trial=True)
            self.publish()
        self.begin(None)
        if yes:
            lines = {
                flow: Line(yes=True, accepts=flow == SERVICE)
                for flow in self.edition.signed_as(self.serial).flows
            }
            paper = Paper(len(self.papers), f"v{self.serial}", OWNER, self.now_ms, lines)
            self.papers.append(paper)
            self.apply(paper, None)
            self.readings_come(count=2, late=0, seal=True)

    @rule(
        lines=st.dictionaries(st.sampled_from(FLOWS), wishes, min_size=1),
        by=st.sampled_from([OWNER] * 5 + ["resident"]),
        recorded=st.sampled_from([0, 0, 0, -HOUR, -DAY, HOUR]),
        serials=st.sampled_from([0, 0, 0, 0, -1, 1]),
        readable=st.sampled_from([True] * 7 + [False]),
        as_file=st.booleans(),
        kill=kills,
    )
    def write_a_form(
        self,
        lines: dict[str, Wish],
        by: str,
        recorded: int,
        serials: int,
        readable: bool,
        as_file: bool,
        kill: int | None,
    ) -> None:
        now, policy = self.now_ms, self.edition.signed_as(self.serial)
        core = {flow for flow, terms in policy.flows.items() if terms.function == "core"}
        day = now // DAY * DAY
        paper = Paper(
            number=len(self.papers),
            version=f"v{self.serial + serials}",
            by=by,
            recorded_ms=now + recorded,
            lines={
                flow: Line(
                    yes=wish.yes,
                    until_ms=day + wish.until_days * DAY if wish.until_days and wish.yes else None,
                    without=wish.without if wish.yes else (),
                    on_ms=None if wish.on is None else now + wish.on,
                    accepts=(flow in core) == wish.right_word,
                )
                for flow, wish in lines.items()
            },
            readable=readable,
        )
        self.papers.append(paper)
        self.put(paper, as_file=as_file, kill=kill)

    def put(self, paper: Paper, *, as_file: bool, kill: int | None) -> None:
        only_no = not any(line.yes for line in paper.lines.values())
        was_broken = self.is_broken()
        if as_file or self.house is None:
            before = self.open_lanes_of_the_policy()
            self.lay_paper(paper)
            self.reload(kill)
        else:
            before, was_broken = self.open_lanes(), False
            self.apply(paper, kill)
        if (only_no or not paper.readable) and not was_broken:
            self.nothing_was_added(before)

    @rule(
        wish=wishes.filter(lambda wish: wish.yes),
        flows=st.sets(st.sampled_from(FLOWS[:3]), min_size=1),
        as_file=st.booleans(),
        kill=kills,
        by=st.sampled_from([OWNER] * 4 + ["resident"]),
        on=st.sampled_from([0, 0, 0, None, -HOUR]),
    )
    def say_yes(
        self,
        wish: Wish,
        flows: set[str],
        as_file: bool,
        kill: int | None,
        by: str = OWNER,
        on: int | None = 0,
    ) -> None:
        """A yes is said to what lies there, with nothing wrong about the form."""
        wish = dataclasses.replace(wish, on=on, right_word=True, without=wish.without[:1])
        self.write_a_form(
            lines=dict.fromkeys(sorted(flows), wish),
            by=by,
            recorded=0,
            serials=0,
            readable=True,
            as_file=as_file,
            kill=kill,
        )

    @up
    @rule(
        data=st.data(),
        lines=st.dictionaries(st.sampled_from(FLOWS), wishes, min_size=1),
        is_finished=st.booleans(),
        kill=kills,
    )
    def a_form_is_read_while_it_is_written(
        self, data: st.DataObject, lines: dict[str, Wish], is_finished: bool, kill: int | None
    ) -> None:
        number, day = len(self.papers), self.now_ms // DAY * DAY
        whole = Paper(
            number=number,
            version=f"v{self.serial}",
            by=OWNER,
            recorded_ms=self.now_ms,
            lines={
                flow: Line(
                    yes=wish.yes,
                    until_ms=day + wish.until_days * DAY if wish.until_days and wish.yes else None,
                    without=wish.without if wish.yes else (),
                    on_ms=self.now_ms if wish.on is not None else None,
                    accepts=(flow == SERVICE) == wish.right_word,
                )
                for flow, wish in lines.items()
            },
        )
        upto = data.draw(st.integers(0, len(written_out(whole)) - 1))
        self.write_in_two(whole, upto, is_finished=is_finished, kill=kill)

    def write_in_two(self, whole: Paper, upto: int, *, is_finished: bool, kill: int | None) -> None:
        """Somebody has the files read when so many rows of a form are written."""
        rows = written_out(whole)
        half = cut_off(whole, rows[:upto], whole.number + 1)
        head = paper_text(dataclasses.replace(whole, lines={})).removesuffix("[decisions]\n")
        self.texts[whole.number] = "\n".join([head, *rows]) + "\n"
        self.texts[half.number] = "\n".join([head, *rows[:upto]]) + "\n"
        self.papers += [whole, half]
        before = self.open_lanes_of_the_policy()
        self.lay_paper(half)
        self.reload_once(kill)
        self.nothing_was_added(before)
        if is_finished:
            self.lay_paper(whole)
        self.form_settles(kill)

    @precondition(lambda self: self.papers)
    @rule(data=st.data(), as_file=st.booleans(), kill=kills)
    def bring_an_old_form_again(self, data: st.DataObject, as_file: bool, kill: int | None) -> None:
        paper = data.draw(st.sampled_from(self.papers))
        self.put(paper, as_file=as_file, kill=kill)

    @rule(kill=kills)
    def delete_the_form(self, kill: int | None) -> None:
        before, was_broken = self.open_lanes_of_the_policy(), self.is_broken()
        self.lay_paper(None)
        self.reload(kill)
        if not was_broken:
            self.nothing_was_added(before)

    @up
    @rule(flow=st.sampled_from(FLOWS), kill=kills)
    def say_no(self, flow: str, kill: int | None) -> None:
        oracle, before = self.oracle, self.open_lanes()
        known = oracle.policy is not None and flow in oracle.policy.flows
        if not known and oracle.newest(flow) is None and flow not in self.home.spool.lanes():
            with pytest.raises(UsageError):
                self.home.desk.say_no(flow)
            return
        self.act(lambda: self.home.desk.say_no(flow), lambda oracle: oracle.say_no(flow), kill=kill)
        self.nothing_was_added(before)

    def open_lanes(self) -> set[str]:
        if self.house is None:
            return set(FLOWS)
        lanes = self.house.spool.lanes()
        return {flow for flow, lane in lanes.items() if lane.state is LaneState.OPEN}

    def open_lanes_of_the_policy(self) -> set[str]:
        """What is open, and what the policy that lies there opens once it is read, form or not."""
        if self.house is None:
            return self.open_lanes()
        read = copy.deepcopy(self.oracle)
        read.tell_time()
        read.read_policy(self.lying)
        return self.open_lanes() | read.open_flows()

    def held_lanes(self) -> set[str]:
        lanes = self.home.spool.lanes()
        return {flow for flow, lane in lanes.items() if lane.state is LaneState.HELD}

    def is_broken(self) -> bool:
        return self.house is not None and self.house.site.form_trouble is not None

    def nothing_was_added(self, before: set[str]) -> None:
        if self.house is not None:
            assert self.open_lanes() <= before

    # --- the maker

    @rule(
        change=st.sampled_from(sorted(CHANGES)),
        level=st.none() | st.tuples(st.sampled_from(FLOWS), st.integers(0, 3)),
        kill=kills,
        lazy=st.booleans(),
    )
    def publish_a_policy(
        self, change: str, level: tuple[str, int] | None, kill: int | None, lazy: bool
    ) -> None:
        changes = dict(CHANGES[change])
        if level is not None:
            levels = list(self.edition.levels)
            levels[FLOWS.index(level[0])] = level[1]
            changes["levels"] = tuple(levels)
        self.edition = dataclasses.replace(self.edition, **changes)
        self.serial += 1
        self.publish()
        if not lazy:
            self.reload(kill)

    @up
    @rule(how=st.sampled_from(["older", "unsigned", "altered", "a stranger's", "gone"]), kill=kills)
    def spoil_the_policy(self, how: str, kill: int | None) -> None:
        before = self.open_lanes()
        text, signature = published(self.edition, self.serial)
        if how == "older":
            serial = min(self.editions)
            edition = self.editions[serial]
            self.lay_policy(*published(edition, serial), edition.signed_as(serial))
        elif how == "unsigned":
            self.lay_policy(text, None, None)
        elif how == "altered":
            self.lay_policy(text + b"\n", signature, None)
        elif how == "a stranger's":
            self.lay_policy(*published(self.edition, self.serial, by_a_stranger=True), None)
        else:
            self.lay_policy(text, signature, None)
            (self.directory / POLICY).unlink()
        self.reload(kill)
        if how != "older":
            self.nothing_was_added(before)

    @up
    @rule(kill=kills)
    def mend_the_policy(self, kill: int | None) -> None:
        self.publish()
        self.reload(kill)

    # --- the clock

    @rule(by=st.sampled_from([MINUTE, 20 * MINUTE, 3 * HOUR, 13 * HOUR, 2 * DAY]))
    def time_passes(self, by: int) -> None:
        self.clock.advance(by)
        self.look()

    @rule(
        by=st.sampled_from(
            [-3 * DAY, -DAY, -3 * HOUR, -20 * MINUTE, 20 * MINUTE, 5 * HOUR, 3 * DAY]
        )
    )
    def somebody_sets_the_clock(self, by: int) -> None:
        self.clock.step(by)
        self.look()

    @up
    @rule(data=st.data())
    def an_end_comes(self, data: st.DataObject) -> None:
        ends = sorted({word.until_ms for word in self.oracles[-1].words if word.until_ms})
        ends = [end for end in ends if end > self.now_ms]
        if ends:
            end = data.draw(st.sampled_from(ends))
            self.clock.advance(end - self.now_ms + data.draw(st.sampled_from([-250, 0, MINUTE])))
            self.look()

    @rule(kill=kills)
    def trust_is_lost_or_comes_back(self, kill: int | None) -> None:
        self.clock.trusted = not self.clock.trusted
        self.look()
        if self.house is not None:
            self.what_can_leave_may_leave()
        self.reload(kill)  # as the service does when it sees the clock flip

    @up
    @rule(count=st.integers(1, 2), boots=st.booleans(), knows=st.booleans())
    def a_while_without_the_time(self, count: int, boots: bool, knows: bool) -> None:
        """What comes is held; then the time is known, in this boot or in a later one."""
        self.clock.trusted = False
        self.look()
        self.reload(None)
        self.readings_come(count=count, late=0, seal=True)
        if boots:
            self.stop()
            self.the_power_comes_back(20 * MINUTE, trusted=False)
            if self.house is None:
                self.begin(None)
            self.readings_come(count=1, late=0, seal=True)
        if knows:
            self.clock.trusted = True
            self.look()
            self.reload(None)

    # --- the process

    @up
    @rule()
    def stop(self) -> None:
        self.oracle.seal()
        self.home.close()
        self.house = None

    @up
    @rule()
    def kill(self) -> None:
        self.oracle.die()
        self.die(cut=False)

    @up
    @rule(kill=kills)
    def reload_the_files(self, kill: int | None) -> None:
        self.reload(kill)

    @down
    @rule(kill=kills)
    def start(self, kill: int | None) -> None:
        self.begin(kill)

    @down
    @rule(how=st.sampled_from(["by hand", "by its unit", "by the watchdog"]))
    def start_and_come_up(self, how: str) -> None:
        self.begin(None)

    @down
    @rule(by=st.sampled_from([0, 0, -3 * DAY, -3 * HOUR, 2 * HOUR]), trusted=st.booleans())
    def the_power_comes_back(self, by: int, trusted: bool) -> None:
        """A later boot: what is known of the time is what was written down, and its own age."""
        floor_ms, written = self.floor.later(self.boot_ms), self.written_floor()
        if self.act_was_cut or written.at_ms // DAY < floor_ms // DAY:
            return  # an end that nobody had read of may lie in what was not written down
        assert written.later(self.boot_ms) > floor_ms - SECOND
        boot_ms = min(5_000, written.boot_ms - 1)
        self.clock.restart(self.now_ms + by, boot_ms)
        self.floor = Mark(written.later(boot_ms), boot_ms)
        self.clock.trusted = trusted
        self.sync()
        self.begin(None)

    @down
    @rule(how=st.sampled_from(["gone", "damaged"]))
    def the_floor_is_lost(self, how: str) -> None:
        """The spool's copy says the same, as long as no power cut fell between the two."""
        path = self.directory / "state" / FLOOR
        if self.act_was_cut or not path.exists() or self.spool_is_damaged:
            return
        written = self.written_floor()
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(b"{")
        self.floor = Mark(written.later(self.boot_ms), self.boot_ms)
        self.sync()
        self.begin(None)

    @rule()
    def somebody_takes_an_image(self) -> None:
        path = self.directory / "state" / LEDGER
        if path.exists():
            older = previous(path).read_bytes() if previous(path).exists() else None
            self.images.append((path.read_bytes(), older))

    @precondition(lambda self: self.house is None and self.images)
    @rule(data=st.data(), with_the_one_before=st.booleans(), cut=kills)
    def somebody_puts_an_old_ledger_back(
        self, data: st.DataObject, with_the_one_before: bool, cut: int | None
    ) -> None:
        image, older = data.draw(st.sampled_from(self.images))
        self.put_back(image, older if with_the_one_before else None, cut)

    def put_back(self, image: bytes, older: bytes | None, cut: int | None) -> None:
        path = self.directory / "state" / LEDGER
        is_damaged = any(oracle.ledger_is_damaged for oracle in self.oracles)
        if is_damaged or self.act_was_cut or not path.exists() or path.read_bytes() == image:
            return
        path.write_bytes(image)
        if older is not None:
            previous(path).write_bytes(older)
        for oracle in self.oracles:
            oracle.ledger_is_damaged = True
        self.begin(cut)

    @down
    @rule(how=st.sampled_from(["one byte", "torn", "gone", "gone whole", "its witness"]))
    def damage_the_ledger(self, how: str) -> None:
        path = self.directory / "state" / LEDGER
        if not path.exists() or any(oracle.ledger_is_damaged for oracle in self.oracles):
            return  # the same byte twice mends it; a start that was cut may have moved it aside
        data = path.read_bytes()
        if how == "one byte":
            at = len(data) // 2
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        elif how == "torn":
            path.write_bytes(data[: len(data) // 2])
        elif how == "gone whole":
            for file in path.parent.glob(f"{LEDGER}*"):
                file.unlink()
        elif how == "its witness":
            witness_of(path).unlink()
        elif previous(path).exists():
            path.unlink()
        else:
            return
        for oracle in self.oracles:
            oracle.ledger_is_damaged = True

    @down
    @rule(how=st.sampled_from(["found so while it ran", "overwritten"]))
    def damage_the_spool(self, how: str) -> None:
        path = self.directory / "state" / "spool" / "spool.db"
        if not path.exists():
            return  # a start that was cut moved it aside
        self.hang_up()
        for house in self.dead:
            house.spool.close()
        self.dead.clear()
        if how == "overwritten":
            path.write_bytes(b"\xff" * path.stat().st_size)
        else:
            beside(path, ".fault").touch()
        self.spool_is_damaged = True
        for oracle in self.oracles:
            oracle.lose_spool()

    # --- days and nights in which much happens

    @rule(yes=st.sets(st.sampled_from(FLOWS[:3]), min_size=1))
    def a_good_day(self, yes: set[str]) -> None:
        """Everything is put right, the owner says yes, and the appliance is used."""
        self.clock.trusted = True
        self.sync()
        self.publish()
        self.lay_paper(None)
        if self.house is None:
            self.begin(None)
        self.clock.advance(MINUTE)
        self.look()
        self.reload(None)
        wish = Wish(yes=True, until_days=None, without=(), on=0, right_word=True)
        self.say_yes(wish, yes, as_file=False, kill=None)
        self.readings_come(count=1, late=0, seal=True)

    @precondition(lambda self: self.house is not None and self.oracle.open_flows())
    @rule(how=st.sampled_from(["unsigned", "altered", "a stranger's", "older"]))
    def the_policy_is_spoilt_for_a_while(self, how: str) -> None:
        self.spoil_the_policy(how, None)
        self.the_law_holds()
        self.mend_the_policy(None)

    @precondition(lambda self: self.house is not None and self.oracle.open_flows())
    @rule(
        data=st.data(),
        by=st.sampled_from([OWNER, OWNER, "resident"]),
        on=st.sampled_from([None, 0]),
    )
    def somebody_says_no_and_somebody_says_yes(
        self, data: st.DataObject, by: str, on: int | None
    ) -> None:
        flow = data.draw(st.sampled_from(sorted(self.oracle.open_flows())))
        self.say_no(flow, None)
        self.the_law_holds()
        without = data.draw(st.sampled_from([(), (HEAT,)]))
        wish = Wish(yes=True, until_days=None, without=without, on=on, right_word=True)
        self.say_yes(wish, {flow}, as_file=data.draw(st.booleans()), kill=None, by=by, on=on)
        self.readings_come(count=1, late=0, seal=True)

    @up
    @rule(flow=st.sampled_from(FLOWS[:3]), kill=st.integers(0, 9))
    def a_no_is_cut_short_and_thought_better_of(self, flow: str, kill: int) -> None:
        self.say_no(flow, kill)
        if self.house is None:
            self.the_morning_after(flow)

    @up
    @rule(flow=st.sampled_from(FLOWS[:3]))
    def an_end_comes_while_nobody_is_at_home(self, flow: str) -> None:
        newest = self.oracle.newest(flow)
        if newest is not None and newest.until_ms is not None and newest.until_ms > self.now_ms:
            until_ms = newest.until_ms
            self.stop()
            self.clock.advance(until_ms - self.now_ms)
            self.the_morning_after(flow)

    @up
    @rule(flow=st.sampled_from(FLOWS[:3]), kill=st.integers(0, 9))
    def the_ledger_is_lost_and_the_start_cut_short(self, flow: str, kill: int) -> None:
        self.stop()
        self.damage_the_ledger("torn")
        self.begin(kill)
        if self.house is None:
            self.the_morning_after(flow)

    def the_morning_after(self, flow: str) -> None:
        """A form lies there with a yes that was said meanwhile; then the agent starts."""
        self.clock.advance(HOUR)
        self.sync()
        wish = Wish(yes=True, until_days=2, without=(), on=0, right_word=True)
        self.write_a_form(
            lines={flow: wish},
            by=OWNER,
            recorded=0,
            serials=0,
            readable=True,
            as_file=True,
            kill=None,
        )
        self.begin(None)

    # --- the appliance

    @up
    @rule(count=st.integers(1, 3), late=st.sampled_from([0, 0, 0, HOUR, DAY]), seal=st.booleans())
    def readings_come(self, count: int, late: int, seal: bool) -> None:
        for _ in range(count):
            self.clock.advance(SECOND)
            self.observe()
            self.oracle.settle()
            number = len(self.readings) + 1
            now = self.clock.now()
            at = Instant(now.wall_ms - late, now.mono_ms, now.trusted)
            self.oracle.moment += 1
            reading = Reading(number, at.wall_ms, self.oracle.moment, live=not late)
            self.readings[number] = reading
            value = 10.0 * number + 3
            self.home.pipeline.deliver([Sample(WASHER, at, NAMES, (value, value, value))])
            self.home.pipeline.turn(0)
            self.oracle.take(reading)
        if seal:
            self.home.pipeline.flush()
            self.oracle.seal()
        self.look()

    @up
    @rule()
    def every_open_flow_gives_what_comes(self) -> None:
        self.readings_come(count=1, late=0, seal=True)
        oracle, newest = self.oracle, self.readings[len(self.readings)]
        leased = {flow for flow, _ in self.leasable()}
        for flow in oracle.open_flows():
            agreed = oracle.agreed(flow)
            assert agreed is not None
            by_rows = any(grain.way == "round" for grain in agreed.attributes.values())
            # Only a clock that was set back behind the yes keeps a new reading out.
            assert flow in leased or not by_rows or not oracle.is_in_the_yes(flow, newest)
        assert leased <= oracle.open_flows()

    @up
    @rule(recipient=st.sampled_from(["maker", "energy-advice"]))
    def the_uplink_takes_some(self, recipient: str) -> None:
        assert self.uplink is not None
        for lease in self.uplink.lease(recipient, 3, self.now_ms, boot_ms=self.boot_ms):
            if lease.flow is not None:
                self.held[lease.id] = lease.flow

    # --- what always holds

    def leasable(self) -> list[tuple[str, Opened]]:
        """Everything that could leave now, as the recipients would read it."""
        found = []
        self.asked.clear()
        if self.probe is None:
            return []
        for recipient in MAKER.recipients:
            leases = self.probe.lease(recipient, 10_000, self.now_ms, boot_ms=self.boot_ms)
            self.probe.returned([lease.id for lease in leases])
            if any(lease.flow is None for lease in leases):
                self.asked.add(recipient)
            for lease in leases:
                if lease.flow is None:
                    continue  # a question for the time, of no flow
                if lease.data not in self.opened:
                    assert self.recipients_view is not None
                    batch = self.recipients_view.opened(recipient, lease.data)
                    assert isinstance(batch, Opened)
                    self.opened[lease.data] = batch
                batch = self.opened[lease.data]
                assert (batch.header.flow, batch.header.recipient) == (lease.flow, recipient)
                assert lease.flow is not None
                found.append((lease.flow, batch))
        return found

    def what_can_leave_may_leave(self) -> None:
        oracle = self.oracle
        left: set[tuple[str, str, int]] = set()
        leasable = self.leasable()
        held = oracle.held_flows()
        assert oracle.policy is not None or not held
        assert self.asked <= {oracle.policy.flows[flow].recipient for flow in held if oracle.policy}
        for flow, batch in leasable:
            assert oracle.policy is not None
            assert batch.header.recipient == oracle.policy.flows[flow].recipient
            for table in batch.tables:
                for column in table.columns:
                    assert column.quantum is not None
                    for ms, units in zip(table.times, column.values, strict=True):
                        assert isinstance(units, int)
                        value = column.quantum.value(units)
                        reading = self.readings[int(value // 10)]
                        left.add((flow, column.attribute, reading.number))
                        why = oracle.may_leave(flow, column.attribute, reading)
                        assert why is None, (flow, column.attribute, reading, why)
                        reading = oracle.taken[flow, reading.number][1]
                        by_boot = batch.header.clock is ClockQuality.UNTRUSTED
                        assert by_boot is (reading.boot is not None)
                        self.is_as_coarse_as_agreed(flow, column.attribute, reading, ms, value)
        for flow in oracle.open_flows():
            agreed = oracle.agreed(flow)
            assert agreed is not None
            for reading in oracle.waiting.get(flow, []):
                for name, grain in agreed.attributes.items():
                    missing = grain.way == "round" and (flow, name, reading.number) not in left
                    assert not missing, f"{flow} lost {name} of {reading}"

    def is_as_coarse_as_agreed(
        self, flow: str, name: str, reading: Reading, ms: int, value: float
    ) -> None:
        agreed = self.oracle.agreed(flow)
        assert agreed is not None
        grain = agreed.attributes[name]
        held = reading.boot is not None
        at_ms = reading.mono_ms if held else reading.at_ms
        begins_ms = 0 if held else self.oracle.begins_ms(flow)
        if grain.way == "round":
            second_ms = at_ms // SECOND * SECOND
            # The second in which a yes began had begun before it.
            assert ms == second_ms + SECOND * (second_ms < begins_ms)
            assert value % grain.size == 0
        else:
            assert ms % (grain.size * MINUTE) == 0
            assert ms <= at_ms < ms + grain.size * MINUTE
            assert ms >= begins_ms

    @invariant()
    def the_law_holds(self) -> None:
        LawMachine.checked += 1
        if self.house is not None:
            self.what_runs_is_what_was_agreed()
            self.what_can_leave_may_leave()
            self.the_uplink_lets_go_of_what_was_shut()
        elif not self.act_was_cut:
            self.nothing_of_a_no_leaves_while_nobody_is_at_home()

    def what_runs_is_what_was_agreed(self) -> None:
        oracle = self.oracle
        heard, said = self.words_of_the_ledger(), self.words_of(oracle)
        assert heard == said, (
            f"only the ledger: {_over(heard, said)}, only the oracle: {_over(said, heard)}"
        )
        verdicts = self.home.pipeline.verdicts
        permits = {flow for flow, one in verdicts.items() if isinstance(one, Permit)}
        pending = {flow for flow, one in verdicts.items() if isinstance(one, Pending)}
        for held_now in (self.held_lanes(), pending):
            assert held_now == oracle.held_flows()
        for open_now in (self.open_lanes(), permits):
            agreed = oracle.open_flows()
            assert open_now <= agreed, f"{open_now - agreed} should be shut"
            assert agreed <= open_now, f"{agreed - open_now} should be open"

    def the_uplink_lets_go_of_what_was_shut(self) -> None:
        assert self.uplink is not None
        shut = {key for key, flow in self.held.items() if flow not in self.oracle.open_flows()}
        assert shut <= self.uplink.revoked(self.now_ms, boot_ms=self.boot_ms)

    def nothing_of_a_no_leaves_while_nobody_is_at_home(self) -> None:
        oracle = self.oracle
        for flow, _ in self.leasable():
            newest = oracle.newest(flow)
            assert newest is not None
            assert newest.yes
            past_ms = max(self.now_ms, self.floor.later(self.boot_ms))
            assert newest.until_ms is None or past_ms < newest.until_ms


def _over(some: list[Any], others: list[Any]) -> list[Any]:
    return [one for one in some if one not in others]


LawMachine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    # Shrinking takes up to five minutes; what failed is printed without it, too.
    phases=[phase for phase in Phase if SHRINKS or phase not in {Phase.shrink, Phase.explain}],
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestLaw = LawMachine.TestCase


# -- what it found, as short as it goes --------------------------------------------------------


@pytest.fixture
def machine() -> Iterator[LawMachine]:
    machine = LawMachine()
    machine.moves_in(yes=True, trial=False)
    yield machine
    machine.teardown()


def test_what_waited_at_a_no_stays_wherever_the_power_was_cut_and_a_yes_came_since() -> None:
    heard = 0
    for kill in range(12):
        machine = LawMachine()
        machine.moves_in(yes=True, trial=False)
        machine.say_no(DIAGNOSIS, kill)
        if machine.house is None:
            machine.the_morning_after(DIAGNOSIS)
            machine.the_law_holds()
            words = [word.yes for word in machine.oracle.words if word.flow == DIAGNOSIS]
            if words == [True, False, True]:
                heard += 1
                assert {flow for flow, _ in machine.leasable()} == {SERVICE, ADVICE}
        machine.teardown()
    assert heard > 1


def test_what_waited_at_an_end_stays_when_nobody_was_at_home_and_a_yes_came_since(
    machine: LawMachine,
) -> None:
    wish = Wish(yes=True, until_days=1, without=(), on=0, right_word=True)
    machine.say_yes(wish, {DIAGNOSIS}, as_file=False, kill=None)
    machine.readings_come(count=1, late=0, seal=True)
    assert DIAGNOSIS in {flow for flow, _ in machine.leasable()}
    machine.an_end_comes_while_nobody_is_at_home(DIAGNOSIS)
    machine.the_law_holds()
    assert DIAGNOSIS in machine.open_lanes()
    assert {flow for flow, _ in machine.leasable()} == {SERVICE, ADVICE}


@pytest.mark.parametrize("kill", range(12))
def test_what_waited_at_the_loss_of_a_ledger_stays_wherever_the_start_was_cut(
    machine: LawMachine, kill: int
) -> None:
    machine.the_ledger_is_lost_and_the_start_cut_short(DIAGNOSIS, kill)
    machine.the_law_holds()
    assert machine.leasable() == []


def test_an_end_stays_come_on_a_clock_that_was_set_back_and_after_a_power_cut(
    machine: LawMachine,
) -> None:
    wish = Wish(yes=True, until_days=1, without=(), on=0, right_word=True)
    machine.say_yes(wish, {DIAGNOSIS}, as_file=False, kill=None)
    newest = machine.oracle.newest(DIAGNOSIS)
    assert newest is not None
    assert newest.until_ms is not None
    machine.clock.advance(newest.until_ms - machine.now_ms)
    machine.look()
    machine.somebody_sets_the_clock(-DAY)
    machine.the_law_holds()
    assert machine.open_lanes() == {SERVICE, ADVICE}
    machine.kill()
    machine.the_power_comes_back(-3 * HOUR, trusted=True)
    machine.the_law_holds()
    assert machine.open_lanes() == {SERVICE, ADVICE}
    machine.kill()
    machine.the_floor_is_lost("gone")
    machine.the_law_holds()
    assert machine.open_lanes() == {SERVICE, ADVICE}


@pytest.mark.parametrize("cut", [None, 0, 3, 6, 9])
def test_a_no_does_not_go_with_an_old_ledger(machine: LawMachine, cut: int | None) -> None:
    machine.somebody_takes_an_image()
    ((image, older),) = machine.images
    machine.say_no(DIAGNOSIS, None)
    machine.stop()
    machine.put_back(image, older, cut)
    if machine.house is None:
        machine.start_and_come_up("by hand")
    machine.the_law_holds()
    assert machine.open_lanes() == set()
    machine.clock.advance(MINUTE)
    wish = Wish(yes=True, until_days=None, without=(), on=0, right_word=True)
    machine.say_yes(wish, {ADVICE}, as_file=False, kill=None)
    machine.the_law_holds()
    assert machine.open_lanes() == {ADVICE}


@pytest.mark.parametrize("upto", range(7))
def test_half_a_form_says_no_more_than_the_whole(machine: LawMachine, upto: int) -> None:
    machine.say_no(DIAGNOSIS, None)
    machine.clock.advance(HOUR)
    machine.look()
    now = machine.now_ms
    whole = Paper(
        number=len(machine.papers),
        version=f"v{machine.serial}",
        by=OWNER,
        recorded_ms=now,
        lines={
            DIAGNOSIS: Line(yes=True, until_ms=now // DAY * DAY + DAY, without=(HEAT,), on_ms=now),
            ADVICE: Line(yes=False),
        },
    )
    machine.write_in_two(whole, upto, is_finished=True, kill=None)
    machine.the_law_holds()
    assert machine.open_lanes() == {SERVICE, DIAGNOSIS}
    newest = machine.oracle.newest(DIAGNOSIS)
    assert newest is not None
    assert (newest.without, newest.until_ms) == ((HEAT,), now // DAY * DAY + DAY)


@pytest.mark.parametrize("no", [None, Line(yes=False)])
def test_a_policy_that_was_mended_is_read_with_the_form_that_goes_or_says_no(
    machine: LawMachine, no: Line | None
) -> None:
    machine.spoil_the_policy("a stranger's", None)
    assert machine.open_lanes() == set()
    machine.publish_a_policy("nothing", None, None, lazy=True)
    if no is None:
        machine.delete_the_form(None)
    else:
        paper = Paper(1, f"v{machine.serial}", OWNER, machine.now_ms, {DIAGNOSIS: no})
        machine.put(paper, as_file=True, kill=None)
    machine.the_law_holds()
    assert machine.open_lanes() == {SERVICE, ADVICE} | ({DIAGNOSIS} if no is None else set())


def test_a_yes_has_ended_when_its_end_is_now(machine: LawMachine) -> None:
    wish = Wish(yes=True, until_days=1, without=(), on=0, right_word=True)
    machine.say_yes(wish, {DIAGNOSIS}, as_file=False, kill=None)
    newest = machine.oracle.newest(DIAGNOSIS)
    assert newest is not None
    assert newest.until_ms is not None
    machine.clock.advance(newest.until_ms - machine.now_ms - 250)
    machine.look()
    assert machine.now_ms == newest.until_ms
    machine.the_law_holds()
    assert DIAGNOSIS not in machine.open_lanes()


@pytest.mark.parametrize("boots", [False, True])
def test_what_was_held_leaves_as_soon_as_the_time_is_known(
    machine: LawMachine, boots: bool
) -> None:
    before = len(machine.leasable())
    machine.a_while_without_the_time(count=2, boots=boots, knows=False)
    machine.the_law_holds()
    assert (machine.open_lanes(), machine.held_lanes()) == (set(), {SERVICE, DIAGNOSIS, ADVICE})
    assert machine.leasable() == []
    machine.trust_is_lost_or_comes_back(None)
    machine.the_law_holds()
    assert machine.open_lanes() == {SERVICE, DIAGNOSIS, ADVICE}
    assert len(machine.leasable()) > before
    held = [one for _, one in machine.leasable() if one.header.clock is ClockQuality.UNTRUSTED]
    assert {one.header.flow for one in held} >= {SERVICE, DIAGNOSIS}


def test_the_twin_what_waits_survives_a_cut_a_night_and_a_renewed_yes(machine: LawMachine) -> None:
    machine.kill()
    machine.the_morning_after(DIAGNOSIS)
    machine.the_law_holds()
    assert {flow for flow, _ in machine.leasable()} == {SERVICE, DIAGNOSIS, ADVICE}
