# SPDX-License-Identifier: Apache-2.0
"""Households alike in all they measure, what two recipients store of them, and a search for joins.

The recording is made so that no reading tells two appliances apart: the same temperature at the
same time, counters that rise alike. What differs is what a name would be: serials, addresses,
levels of counters, times since boot, the phase at which a gateway began, how long each read takes.
So whatever still matches the rows of one appliance in two groups (flow, recipient, epoch) better
than chance is a join key.

Real sources, keys, ledgers, lanes, seals, spools and stores; clocks moved by hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from agent.spool import Spool
from agent.transform import DEVICE_KIND, device_pseudonym, pseudonym_key
from assent.backend.ingest import Desk, judge
from assent.backend.offers import Offer
from assent.backend.outcomes import Accepted, Gateway
from assent.backend.store import Store, Taken, Verdict
from assent.messages import up_topic
from assent.policy.signing import load_policy
from assent.policy.terms import terms_of
from assent.units import Duration
from firmware_bridge.sample import Device
from firmware_bridge.sources.host import HostSource
from firmware_bridge.sources.registry import SourceConfig
from tests.agent.installed import DAY, MAKER, MINUTE, SECOND, House, install
from tests.simulators.clock import START_MS, ManualClock

EPOCH = 30 * DAY
# The first instant of the second epoch.
TURN_MS = (START_MS // EPOCH + 1) * EPOCH
EVERY = "20s"
RECIPIENTS = ("maker", "energy-advice")

_FLOW = """
[flows.{name}]
function = "optional"
purpose = "{name}"
notice = {{ en = "For {name}, in a test of links.", zh = "{name}:用于链接测试。" }}
basis = "consent"
recipient = "{recipient}"
attributes = {{ {attributes} }}
keep = {{ gateway = "7d", recipient = "90d", then = "delete" }}
separate = true
batch = {{ age = "3m" }}
"""
_SEEN = '"host.temperature" = "{seen}", "host.uptime" = "delta", "host.mac" = "pseudonym"'
# Each recipient has both kinds; the two flows carry partly the same, in different words.
FLOWS = {
    "care": ("maker", _SEEN.format(seen="keep") + ', "host.serial" = "pseudonym"'),
    "design": ("maker", _SEEN.format(seen="round(0.5)") + ', "host.os" = "keep"'),
    "advice": ("energy-advice", _SEEN.format(seen="keep") + ', "host.serial" = "pseudonym"'),
    "study": ("energy-advice", _SEEN.format(seen="round(0.5)") + ', "host.os" = "keep"'),
}


def policy_of(example: str) -> str:
    """The example's head, recipients and dictionary, with the flows of this test."""
    flows = [
        _FLOW.format(name=name, recipient=recipient, attributes=attributes)
        for name, (recipient, attributes) in FLOWS.items()
    ]
    return example[: example.index("[flows.service]")] + "".join(flows)


class Appliance:
    """A machine that measures what every other one does, under a name of its own.

    Args:
        root: its files.
        number: of the appliance; everything that names it follows from it.
        chance: draws how long it has been up.
        readings: its temperatures, one for each poll of an epoch; none for what all have.
    """

    def __init__(
        self, root: Path, number: int, chance: random.Random, readings: Sequence[float] = ()
    ) -> None:
        self.root = root
        self._readings = readings
        self.device = Device(f"machine-{number}", "gateway", f"TEST-LINKS-{number:04}")
        self._lived_ms = 0
        self._up_s = chance.randrange(10_000, 900_000)
        self._write("sys/firmware/devicetree/base/serial-number", f"{self.device.serial}\0")
        self._write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
        self._write("sys/class/net/eth0/address", f"00:00:5E:00:53:{number:02x}\n")
        self._write("sys/class/net/eth0/addr_assign_type", "0\n")
        self._write("sys/class/net/eth0/ifindex", "2\n")
        self._write("sys/class/net/eth0/device/uevent", "DRIVER=bcmgenet\n")
        self._write("etc/os-release", "ID=debian\nVERSION_ID=12\n")

    def source(self, clock: ManualClock) -> HostSource:
        """The real source of its files."""
        config = SourceConfig(
            device_id=self.device.id,
            kind=self.device.kind,
            port=str(self.root),
            every=Duration.parse(EVERY),
        )
        return HostSource(config, clock)

    def live(self, ms: int) -> None:
        """Measures what it measures at this time."""
        if ms == self._lived_ms:
            return
        self._lived_ms, seconds = ms, ms // SECOND
        warmth = 48_000 + 500 * (seconds // 60 % 7)
        if self._readings:
            poll = ms // int(Duration.parse(EVERY))
            warmth = round(1_000 * self._readings[poll % len(self._readings)])
        self._write("sys/class/thermal/thermal_zone0/temp", f"{warmth}\n")
        self._write("proc/uptime", f"{self._up_s + seconds % EPOCH}.00 0.00\n")

    def _write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class Message(NamedTuple):
    """What a gateway sent: when, to whom, from which mailbox."""

    ms: int
    recipient: str
    mailbox: str
    data: bytes


class Named(NamedTuple):
    """Who is behind a pseudonym: what only the gateway can tell."""

    flow: str
    epoch: int
    appliance: int


@dataclasses.dataclass
class Village:
    """Some households: what they sent, who they are to the recipients, and who is who."""

    messages: list[Message] = dataclasses.field(default_factory=list)
    gateways: dict[tuple[str, str], Gateway] = dataclasses.field(default_factory=dict)
    who: dict[bytes, Named] = dataclasses.field(default_factory=dict)


def live(
    place: Path,
    village: Village,
    numbers: Sequence[int],
    chance: random.Random,
    recorded: Sequence[Sequence[float]] = (),
) -> None:
    """One household: agrees to everything ten minutes before an epoch ends, lives for twenty."""
    directory = install(place / "gateway", edit=policy_of)
    began = TURN_MS - 10 * MINUTE + chance.randrange(19_000)
    clock = ManualClock(began, mono_ms=chance.randrange(10**6, 10**9), flowing=True)
    house = House(directory, clock)
    house.start()
    try:
        house.decide(dict.fromkeys(FLOWS, '"given"'))
        appliances = [
            Appliance(place / str(number), number, chance, recorded[number] if recorded else ())
            for number in numbers
        ]
        sources = [appliance.source(clock) for appliance in appliances]
        with contextlib.ExitStack() as stack:
            carrier = stack.enter_context(house.carrier())
            for source in sources:
                source.open()
                stack.callback(source.close)
            until = TURN_MS + 10 * MINUTE
            while clock.now().wall_ms < until:
                for appliance, source in zip(appliances, sources, strict=True):
                    _read(house, clock, appliance, source)
                    clock.advance(chance.randrange(3, 90))  # what a slow bus takes
                if clock.now().wall_ms % MINUTE < int(Duration.parse(EVERY)):
                    _collect(house, carrier, village)
            house.pipeline.flush()
            _collect(house, carrier, village)
        _remember(house, village, dict(zip(numbers, appliances, strict=True)))
    finally:
        house.close()


def _read(house: House, clock: ManualClock, appliance: Appliance, source: HostSource) -> None:
    every = int(Duration.parse(EVERY))
    samples = []
    while not samples:
        # What it would measure at the poll that is next.
        appliance.live((clock.now().wall_ms + every // 2) // every * every)
        samples = source.read()
    house.pipeline.deliver(samples)
    house.pipeline.turn(0)


def _collect(house: House, carrier: Spool, village: Village) -> None:
    now = house.clock.now().wall_ms
    for recipient in RECIPIENTS:
        mailbox = house.site.keys.gateway(recipient).mailbox
        for lease in sorted(carrier.lease(recipient, 1_000, now), key=lambda lease: lease.id):
            if lease.flow is not None:
                village.messages.append(Message(now, recipient, mailbox, lease.data))


def _remember(house: House, village: Village, appliances: Mapping[int, Appliance]) -> None:
    keys = house.site.keys
    for recipient in RECIPIENTS:
        own = keys.gateway(recipient)
        village.gateways[recipient, own.mailbox] = Gateway(
            own.mailbox, own.sign.public, own.seal.public
        )
    for flow, (recipient, _) in FLOWS.items():
        for epoch in (TURN_MS // EPOCH - 1, TURN_MS // EPOCH):
            key = pseudonym_key(keys.flow_secret(recipient, flow), DEVICE_KIND, epoch)
            for number, appliance in appliances.items():
                pseudonym = device_pseudonym(key, appliance.device)
                village.who[pseudonym] = Named(flow, epoch, number)


def stored(root: Path, village: Village, text: str) -> Iterator[Path]:
    """Has both recipients store everything, in the order in which it came; gives their files."""
    policy = load_policy(text.encode())
    for recipient in RECIPIENTS:
        place = root / recipient
        place.mkdir(parents=True)
        offers = [
            Offer(flow, terms_of(policy, flow), policy.policy.version, policy.policy.serial, 10_000)
            for flow, (of, _) in FLOWS.items()
            if of == recipient
        ]
        seal = MAKER.recipients[recipient].seal
        known = {box: one for (name, box), one in village.gateways.items() if name == recipient}
        by_terms = {(offer.flow, offer.terms.hash): offer for offer in offers}
        desk = Desk(recipient, {seal.kid: seal}, by_terms, known.get)
        store = Store(place)
        store.publish(offers)
        mine = sorted(one for one in village.messages if one.recipient == recipient)
        for _, group in itertools.groupby(mine, key=lambda one: one.ms // MINUTE):
            _store(store, desk, list(group))
        store.rest()
        store.close()
        yield place / "store.db"


def _store(store: Store, desk: Desk, group: Sequence[Message]) -> None:
    taken = [Taken(judge(up_topic(one.mailbox), one.data, desk), one.data, one.ms) for one in group]
    assert {type(one.outcome) for one in taken} == {Accepted}, taken
    assert {one.verdict for one in store.put(taken)} == {Verdict.STORED}


# The search.

Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = list[Row]
Elements: TypeAlias = Mapping[Hashable, int]
Group: TypeAlias = dict[int, Rows]
"""The rows of one (recipient, flow, epoch), by the appliance whose they are."""
Key: TypeAlias = Callable[[Rows], Iterable[Hashable]]

VALUES = ("number", "text", "bytes", "truth", "latitude", "longitude")
COLUMNS = ("pseudonym", "series", "batch_ref", "attribute", "kind", "quantum", "terms", "again")


def rows_of(path: Path) -> Rows:
    """Every row of a store's data with everything that stands beside it, as it lies on the disk."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        found = db.execute("SELECT * FROM reading NOT INDEXED JOIN series USING (series)")
        return [dict(row) | {"place": place} for place, row in enumerate(found)]


def tables_of(path: Path) -> set[str]:
    """The tables of a store that hold anything."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {n for (n,) in names if db.execute(f"SELECT 1 FROM {n} LIMIT 1").fetchone()}


def grouped(rows: Rows, who: Mapping[bytes, Named]) -> dict[tuple[str, int], Group]:
    """The rows by flow and epoch, then by appliance, as only the gateways can."""
    groups: dict[tuple[str, int], Group] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        named = who[row["pseudonym"]]
        assert named.flow == row["flow"]
        groups[named.flow, named.epoch][named.appliance].append(row)
    return groups


def _batches(rows: Rows) -> list[Rows]:
    by_reference: dict[bytes, Rows] = defaultdict(list)
    for row in rows:
        by_reference[row["batch_ref"]].append(row)
    return sorted(by_reference.values(), key=lambda batch: min(row["time_ms"] for row in batch))


def _times(rows: Rows) -> list[int]:
    return sorted({row["time_ms"] for row in rows})


def _sums(rows: Rows) -> list[Hashable]:
    sums: dict[str, float] = defaultdict(float)
    for row in rows:
        if row["number"] is not None:
            sums[row["attribute"]] += row["number"]
    return [(name, round(total, 2)) for name, total in sums.items()]


def _extremes(rows: Rows) -> Iterator[Hashable]:
    for name in {row["attribute"] for row in rows if row["number"] is not None}:
        numbers = [row["number"] for row in rows if row["attribute"] == name]
        yield from ((name, "least", min(numbers)), (name, "most", max(numbers)))


def _modulo(ms: int) -> Key:
    return lambda rows: {row["time_ms"] % ms for row in rows}


def keys() -> dict[str, Key]:
    """Every column, and what can be made of them, as sets to be compared."""
    found: dict[str, Key] = {
        name: lambda rows, name=name: {row[name] for row in rows}  # type: ignore[misc]
        for name in (*COLUMNS, *VALUES, "time_ms")
    }
    for one, other in itertools.combinations(("attribute", "time_ms", *VALUES[:4], "again"), 2):
        found[f"{one} and {other}"] = lambda rows, one=one, other=other: {  # type: ignore[misc]
            (row[one], row[other]) for row in rows
        }
    for name, ms in {
        "second": 1_000,
        "period": 20_000,
        "minute": MINUTE,
        "hour": 3_600_000,
    }.items():
        found[f"phase in the {name}"] = _modulo(ms)
    return found | {
        "all instants": lambda rows: [tuple(_times(rows))],
        "first instant": lambda rows: _times(rows)[:1],
        "last instant": lambda rows: _times(rows)[-1:],
        "steps of time": lambda rows: {
            (later - earlier) for earlier, later in itertools.pairwise(_times(rows))
        },
        "number of rows": lambda rows: [len(rows)],
        "sums": _sums,
        "extremes": _extremes,
        "numbers in their order": lambda rows: [
            tuple(row["number"] for row in sorted(rows, key=lambda row: row["time_ms"]))
        ],
        "first instants of batches": lambda rows: [_times(batch)[0] for batch in _batches(rows)],
        "last instants of batches": lambda rows: [_times(batch)[-1] for batch in _batches(rows)],
        "spans of batches": lambda rows: [
            (_times(batch)[0], _times(batch)[-1]) for batch in _batches(rows)
        ],
        "rows of batches": lambda rows: [len(batch) for batch in _batches(rows)],
        "rows of batches in their order": lambda rows: [
            tuple(len(batch) for batch in _batches(rows))
        ],
        "number of batches": lambda rows: [len(_batches(rows))],
    }


def orders() -> dict[str, Callable[[Rows], Any]]:
    """What could rank the appliances of a group the same way as those of another."""
    return {
        "order of rows": lambda rows: min(row["place"] for row in rows),
        "order of the last rows": lambda rows: max(row["place"] for row in rows),
        "order of series": lambda rows: min(row["series"] for row in rows),
        "order of pseudonyms": lambda rows: rows[0]["pseudonym"],
        "order of batches": lambda rows: min(row["batch_ref"] for row in rows),
    }


def _continues(one: Rows, other: Rows) -> float:
    """How nearly the numbers of one go on where the other's ended; the higher, the nearer."""
    apart = 0.0
    for name in {row["attribute"] for row in one if row["number"] is not None}:
        mine = [(row["time_ms"], row["number"]) for row in one if row["attribute"] == name]
        theirs = [(row["time_ms"], row["number"]) for row in other if row["attribute"] == name]
        if theirs:
            ways = ((mine, theirs), (theirs, mine))
            apart += min(abs(min(late)[1] - max(early)[1]) for early, late in ways)
    return -apart


def matched(one: Group, other: Group, names: Iterable[str] | None = None) -> dict[str, float]:
    """How many appliances of a group each key finds again in another; ties count as parts.

    By chance it is one, however many there are.
    """
    found: dict[str, float] = {}
    numbers = sorted(one)
    assert numbers == sorted(other)
    for name, key in keys().items():
        if names is None or name in names:
            ours = {number: set(key(rows)) for number, rows in one.items()}
            theirs = {number: set(key(rows)) for number, rows in other.items()}
            found[name] = _hits(numbers, _by_shared(ours, theirs))
    for name, rank in orders().items():
        if names is None or name in names:
            found[name] = _hits(numbers, _by_rank(_ranks(one, rank), _ranks(other, rank)))
    if names is None or "continuation" in names:
        found["continuation"] = _hits(numbers, lambda a, b: _continues(one[a], other[b]))
    return found


def _by_shared(
    ours: Mapping[int, set[Hashable]], theirs: Mapping[int, set[Hashable]]
) -> Callable[[int, int], float]:
    # What few have weighs more.
    spread = Counter(element for elements in theirs.values() for element in elements)
    spread.update(element for elements in ours.values() for element in elements)

    def score(one: int, other: int) -> float:
        # Whole numbers: a sum of floats depends on its order, which would break ties.
        return sum(10**9 // spread[element] for element in ours[one] & theirs[other])

    return score


def _ranks(group: Group, rank: Callable[[Rows], Any]) -> dict[int, int]:
    marks = {number: rank(rows) for number, rows in group.items()}
    places = {mark: place for place, mark in enumerate(sorted(set(marks.values())))}
    return {number: places[mark] for number, mark in marks.items()}


def _by_rank(ours: Mapping[int, int], theirs: Mapping[int, int]) -> Callable[[int, int], float]:
    return lambda one, other: -abs(ours[one] - theirs[other])


def _hits(numbers: Sequence[int], score: Callable[[int, int], float]) -> float:
    hits = 0.0
    for one in numbers:
        scores = {other: score(one, other) for other in numbers}
        best = [other for other in numbers if scores[other] == max(scores.values())]
        hits += (one in best) / len(best)
    return hits
