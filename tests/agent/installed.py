# SPDX-License-Identifier: Apache-2.0
"""A real installation: two recipients, a signed policy, an admitted gateway, a household at home.

Everything is made by the real rooms, in this process: a policy with the example's dictionary and
recipients, signed by a policy key, taken in as a bundle; two requests, answered by two authorities;
the answers taken in. What a test may hold in its hand are the other ends: the recipients' private
keys, the uplink's end of the spool, and a clock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import itertools
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.answers import Applied
from agent.desk import Desk
from agent.enrol import enrol
from agent.fence import Carrier
from agent.letterbox import SETTLE_MS
from agent.pipeline import Pipeline
from agent.settings import load_settings
from agent.site import SPOOL, Site, open_site
from agent.spool import Health, Lease, LinkState, Spool
from assent.backend.authority import Authority, create
from assent.columns import Quantum
from assent.cosekey import SealPrivateKey, SigningKey
from assent.enrolment import Admission, Bundle, decode_request, encode_admission, encode_bundle
from assent.envelope import Control, Opened, open_up, seal, sign_message
from assent.envelope import Kind as MessageKind
from assent.messages import Acknowledgement, StreamAck
from assent.policy.signing import fill_thumbprints, sign
from firmware_bridge.sample import Device, Sample
from tests.simulators.clock import START_MS, ManualClock

REPO = Path(__file__).resolve().parents[2]
CORE, DIAGNOSIS, ADVICE = "service", "remote-diagnosis", "partner-energy-advice"
FLOWS = (CORE, DIAGNOSIS, ADVICE)
VERSION, SERIAL = "2026-11-01", 17
POWER, ENERGY, FAULT = "appliance.power", "appliance.energy", "appliance.fault"
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000

WASHER_SERIAL = "TEST-WM-CANARY-0001"
WASHER = Device("washer-canary-room-9", "washing-machine", WASHER_SERIAL)

# The flows of the example, with batches of a minute whatever the example says.
_FLOWS = """
[flows.service]
function = "core"
purpose = "service-operation"
notice = { en = "Keep the gateway working.", zh = "保持网关正常运行。" }
basis = "contract"
recipient = "maker"
attributes = { "host.os" = "keep", "host.uptime" = "delta", "appliance.fault" = "keep" }
keep = { gateway = "7d", recipient = "90d", then = "delete" }
batch = { age = "1m", urgent = ["appliance.fault"] }

[flows.remote-diagnosis]
function = "optional"
purpose = "fault-diagnosis"
notice = { en = "Find faults before they become failures.", zh = "在故障发生之前发现它。" }
basis = "consent"
recipient = "maker"
attributes = { "appliance.power" = "round(1)", "device.serial" = "pseudonym", "appliance.fault" = "keep" }
keep = { gateway = "7d", recipient = "90d", then = "delete" }
batch = { age = "1m", urgent = ["appliance.fault"] }

[flows.partner-energy-advice]
function = "optional"
purpose = "energy-advice"
notice = { en = "Advice on saving energy, by our partner in Germany.", zh = "由我们在德国的合作伙伴提供节能建议。" }
basis = "consent"
recipient = "energy-advice"
attributes = { "appliance.power" = "window(1m, mean)", "appliance.energy" = "delta" }
keep = { gateway = "7d", recipient = "30d", then = "anonymise" }
separate = true
batch = { age = "1m" }
"""

YES = {CORE: '"accepted"', DIAGNOSIS: '"given"', ADVICE: '"given"'}
NO = dict.fromkeys(YES, '"refused"')

Edit = Callable[[str], str]
Json = dict[str, Any]

# Of a recording that `replay-washing-machine` reads.
HEAD = "time,power,energy,water,door,program,fault,serial"

# Days on which nothing of the example policy is overdue.
_TODAY = dt.date(2026, 11, 22)
_NOW = dt.datetime.fromtimestamp(START_MS / 1000, dt.UTC)
_forms = itertools.count(1)


class Recipient:
    """The other end: one recipient with its private keys and its authority.

    Args:
        name: id of the recipient.
        classical: keys without the post-quantum part.
    """

    def __init__(self, name: str, *, classical: bool) -> None:
        self.id = name
        self.seal = SealPrivateKey.generate(classical=classical)
        self.ack = SigningKey.generate()
        pair = create(name, _NOW)
        self.ca = pair.certificate
        self.authority = Authority.load(pair)

    @property
    def files(self) -> dict[str, bytes]:
        """What the policy names of it."""
        return {
            f"keys/{self.id}-2026.cose": self.seal.public.encode(),
            f"keys/{self.id}-sign.cose": self.ack.public.encode(),
            f"keys/{self.id}-ca.pem": self.ca,
        }

    def admission(self, request: bytes, **changes: str) -> bytes:
        """Answers a gateway's request; `changes` make it say something else than it should."""
        asked = decode_request(request)
        chain = self.authority.admit(asked.csr, asked.mailbox, _NOW)
        admission = Admission(
            recipient=changes.get("recipient", self.id), mailbox=asked.mailbox, certificate=chain
        )
        return encode_admission(admission, self.ack)


class Maker:
    """Who signs the policy, with both recipients."""

    def __init__(self) -> None:
        self.key = SigningKey.generate()
        self.recipients = {
            "maker": Recipient("maker", classical=False),
            "energy-advice": Recipient("energy-advice", classical=True),
        }

    @property
    def files(self) -> dict[str, bytes]:
        """Every file that the policy names."""
        return {name: data for one in self.recipients.values() for name, data in one.files.items()}

    def policy(self, edit: Edit = str, *, key: SigningKey | None = None) -> tuple[bytes, bytes]:
        """The policy, changed, with its signature."""
        example = (REPO / "config" / "policy.toml").read_text()
        text = edit(example[: example.index("[flows.service]")] + _FLOWS)
        data = fill_thumbprints(text, self.files).encode()
        return data, sign(data, key or self.key, self.files, _TODAY)

    def bundle(self, edit: Edit = str) -> bytes:
        """The policy with everything it names, as one file."""
        text, signature = self.policy(edit)
        return encode_bundle(Bundle(text, signature, self.key.public.encode(), self.files))


MAKER = Maker()
"""The other ends of every test in this process; their keys are all that is shared."""

AGENT = """\
[gateway]
state = "state"

[clock]
trust = "system"
"""


def fresh(directory: Path, agent: str = AGENT) -> Path:
    """A configuration directory as `assent init` leaves it: nobody is trusted."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "agent.toml").write_text(agent)
    shutil.copytree(REPO / "config" / "profiles", directory / "profiles")
    return directory


def requests(directory: Path) -> dict[str, bytes]:
    """The requests that enrolling wrote, by recipient."""
    return {path.stem: path.read_bytes() for path in (directory / "requests").glob("*.request")}


def install(directory: Path, maker: Maker = MAKER, edit: Edit = str) -> Path:
    """Enrols and has both recipients admit the gateway; nothing is decided."""
    enrol(fresh(directory), maker.bundle(edit))
    for recipient, request in requests(directory).items():
        enrol(directory, maker.recipients[recipient].admission(request))
    return directory


REPLAYED = """
[[device]]
id = "washer"
kind = "washing-machine"
source = "replay"
port = "recording.csv"
profile = "replay-washing-machine"
speed = 0.0
"""
"""A device of agent.toml: a washing machine that says what `recording.csv` has."""


def install_with(directory: Path, devices: str, rows: Sequence[str] = ()) -> Path:
    """Installs a gateway with devices that replay `recording.csv`, which has these rows."""
    install(directory)
    (directory / "recording.csv").write_text("\n".join([HEAD, *rows, ""]))
    with (directory / "agent.toml").open("a") as file:
        file.write(devices)
    return directory


def copied(installed: Path, directory: Path) -> Path:
    """A copy of an installation or a part of it, which may be at work."""
    # Pipes, locks and sockets are of the processes that run, which make them anew.
    ignored = shutil.ignore_patterns("*.bell", "*.leash", "*.sock")
    return Path(shutil.copytree(installed, directory, ignore=ignored))


def form(decisions: Mapping[str, str], at_ms: int = START_MS, **head: str) -> str:
    """A consent form; every one has other bytes, as every paper has."""
    moment = dt.datetime.fromtimestamp(at_ms // 1000, dt.UTC)
    fields = {
        "policy": VERSION,
        "decided_by": "owner",
        "recorded_by": "installer 4711",
        "method": f"signed form {next(_forms)}",
    } | head
    lines = [f'{name} = "{value}"' for name, value in fields.items()]
    lines += [f"recorded_at = {moment:%Y-%m-%dT%H:%M:%SZ}", "[decisions]"]
    lines += [f"{flow} = {decision}" for flow, decision in decisions.items()]
    return "\n".join(lines) + "\n"


def filled_in() -> str:
    """The example form as somebody fills it in: a yes to each flow."""
    text = (REPO / "config" / "consent.toml").read_text()
    for old, new in (
        ('decided_by = ""', 'decided_by = "owner"'),
        ('recorded_by = ""', 'recorded_by = "installer 4711"'),
        ('method = ""', 'method = "signed form 2026-0042"'),
        ("# recorded_at", "recorded_at"),
        ("# service", "service"),
        ("# remote-diagnosis", "remote-diagnosis"),
        ("# partner-energy-advice", "partner-energy-advice"),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    return text


def newer(text: str) -> str:
    """The example policy with the next serial and another version; its terms are the same."""
    for old, new in ((f"serial = {SERIAL}", f"serial = {SERIAL + 1}"), (VERSION, "2026-12-01")):
        assert old in text
        text = text.replace(old, new)
    return text


def replaced(old: str, new: str, then: Edit = newer) -> Edit:
    """A newer policy with some words replaced, and a complaint when they are not there."""

    def edit(text: str) -> str:
        assert old in text
        return then(text.replace(old, new))

    return edit


class Nobody:
    """The uplink of a gateway that has none: what was shut cannot leave by it."""

    def is_there(self) -> bool:
        """It is not."""
        return False

    def cut(self) -> bool:
        """It is gone already."""
        return True


NOBODY = Nobody()


class House:
    """A gateway at work on a bench: path, desk, and the other ends.

    Args:
        directory: the configuration directory.
        clock: moved by the test.
        carrier: the uplink; None where nobody knows it.
        maker: the other ends.
    """

    def __init__(
        self,
        directory: Path,
        clock: ManualClock,
        carrier: Carrier | None = NOBODY,
        maker: Maker = MAKER,
    ) -> None:
        self.directory = directory
        self.maker = maker
        self.clock = clock
        settings = load_settings(directory)
        self.path = settings.state / SPOOL
        site = open_site(settings, clock)
        self.spool = Spool.open(self.path)
        self.pipeline = Pipeline(site, self.spool, clock, carrier)
        self.desk = Desk(self.pipeline, running=True)
        self._closed = False

    @property
    def site(self) -> Site:
        """What is installed, as the path sees it now."""
        return self.pipeline.site

    def start(self) -> House:
        """Does what the service does at its start, without uplink and signals."""
        self.desk.read_form()
        self.pipeline.start()
        self.let_settle()
        return self

    def let_settle(self) -> None:
        """A form that was just laid there has lain for a while."""
        if self.site.form_waits:
            self.clock.advance(SETTLE_MS)
            self.desk.look_again()

    def reload(self) -> Json:
        """Has the files read again, and the form once more after a while."""
        told = self.desk.reload()
        self.let_settle()
        return told

    def close(self) -> None:
        """Ends as the service ends; may be called twice."""
        if not self._closed:
            self._closed = True
            self.pipeline.stop()
            self.spool.close()

    def vanish(self) -> None:
        """The process is gone: nothing of it is closed in order."""
        self.spool.close()
        self._closed = True

    def decide(self, decisions: Mapping[str, str], **head: str) -> Applied:
        """Applies a form that is recorded now."""
        return self.desk.apply(form(decisions, self.clock.now().wall_ms, **head), "consent.toml")

    def publish(self, edit: Edit = newer) -> None:
        """Lays another signed policy beside the gateway's files, as enrolling again does."""
        text, signature = self.maker.policy(edit)
        (self.directory / "policy.toml").write_bytes(text)
        (self.directory / "policy.toml.cose").write_bytes(signature)

    def on(self) -> dict[str, str | None]:
        """Each flow of the policy: None when it is on, else the reason."""
        return {
            flow["flow"]: None if flow["on"] else flow["reason"]
            for flow in self.desk.status()["flows"]
        }

    def turn(self, ms: int = 250) -> None:
        """Time passes, then the owner takes everything that stands at the door."""
        self.clock.advance(ms)
        self.pipeline.turn(0)

    def bring(self, *values: Mapping[str, Any], device: Device = WASHER) -> None:
        """A device says something: one sample for each, a second apart, up to now."""
        for said in values:
            self.clock.advance(SECOND)
            sample = Sample(device, self.clock.now(), tuple(said), tuple(said.values()))
            self.pipeline.deliver([sample])
            self.pipeline.turn(0)

    def powers(self, *watts: float) -> None:
        """The washing machine draws power."""
        self.bring(*({POWER: one} for one in watts))

    # The other ends.

    @contextlib.contextmanager
    def carrier(self) -> Iterator[Spool]:
        """The uplink's end of the spool."""
        with contextlib.closing(Spool.open(self.path, create=False)) as spool:
            yield spool

    def leases(self, recipient: str) -> list[Lease]:
        """Everything that could leave to a recipient now, each flow in the order it was stored."""
        with self.carrier() as carrier:
            leases = carrier.lease(recipient, 10_000, self.clock.now().wall_ms)
        return sorted(leases, key=lambda lease: lease.id)

    def leaving(self, recipient: str) -> list[Opened | Control]:
        """What the recipient would read of it."""
        return [self.opened(recipient, lease.data) for lease in self.leases(recipient)]

    def batches(self, flow: str) -> list[Opened]:
        """What the recipient of a flow would read of that flow, in the order it was stored."""
        return [
            one
            for recipient in self.maker.recipients
            for one in self.leaving(recipient)
            if isinstance(one, Opened) and one.header.flow == flow
        ]

    def opened(self, recipient: str, data: bytes) -> Opened | Control:
        """Opens one message with the recipient's key, verified against the gateway's."""
        gateway = self.site.keys.gateway(recipient)
        return open_up(
            data,
            key=self.maker.recipients[recipient].seal,
            signer=gateway.sign.public,
            mailbox=gateway.mailbox,
            recipient=recipient,
        )

    def waiting(self, flow: str) -> int:
        """How many sealed batches of a flow are on the disk."""
        found = self.spool.waiting().get(flow)
        return found.batches if found else 0

    def acknowledgement(self, recipient: str, streams: Sequence[StreamAck]) -> bytes:
        """A message of the recipient's: signed with its ack key, sealed to this gateway."""
        return self.message(
            recipient, MessageKind.ACKNOWLEDGEMENT, Acknowledgement(tuple(streams)).encode()
        )

    def message(
        self, recipient: str, kind: MessageKind, body: bytes, signer: SigningKey | None = None
    ) -> bytes:
        """Any message down; of another signer when one is given."""
        gateway = self.site.keys.gateway(recipient)
        key = signer or self.maker.recipients[recipient].ack
        signed = sign_message(kind, body, key, gateway.mailbox)
        return seal(signed, gateway.seal.public, gateway.mailbox)

    def receive(self, recipient: str, data: bytes) -> None:
        """The uplink brings a message."""
        with self.carrier() as carrier:
            assert carrier.receive(recipient, data, self.clock.now().wall_ms)

    def connect(self, recipient: str) -> None:
        """The uplink says that it is connected from now on."""
        with self.carrier() as carrier:
            carrier.report(recipient, Health(LinkState.CONNECTED, self.clock.now().wall_ms))


@contextlib.contextmanager
def living(
    directory: Path, clock: ManualClock | None = None, carrier: Carrier | None = NOBODY
) -> Iterator[House]:
    """A house that works for as long as the block."""
    house = House(directory, clock or ManualClock(), carrier)
    try:
        yield house.start()
    finally:
        house.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """One value as the recipient reads it."""

    ms: int
    value: Any


def readings(batches: Sequence[Opened], attribute: str) -> list[Reading]:
    """Every value of an attribute in some batches, numbers in their unit."""
    return [
        Reading(ms, _plain(value, column.quantum))
        for batch in batches
        for table in batch.tables
        for column in table.columns
        if column.attribute == attribute
        for ms, value in zip(table.times, column.values, strict=True)
    ]


def values(batches: Sequence[Opened], attribute: str) -> list[Any]:
    """The same without their instants."""
    return [reading.value for reading in readings(batches, attribute)]


def _plain(value: Any, quantum: Quantum | None) -> Any:
    return quantum.value(value) if quantum is not None and isinstance(value, int) else value


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """No file of this process grows while the block runs (setrlimit(2), RLIMIT_FSIZE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def full_disk(spool: Spool) -> Iterator[None]:
    """SQLite finds the disk full while the block runs (SQLITE_FULL)."""
    pages = spool._db.execute("PRAGMA page_count").fetchone()[0]
    spool._db.execute(f"PRAGMA max_page_count={pages}")
    try:
        yield
    finally:
        spool._db.execute("PRAGMA max_page_count=1000000")


@contextlib.contextmanager
def read_only(spool: Spool) -> Iterator[None]:
    """SQLite finds the file read-only while the block runs (SQLITE_READONLY)."""
    spool._db.execute("PRAGMA query_only=ON")
    try:
        yield
    finally:
        spool._db.execute("PRAGMA query_only=OFF")


@contextlib.contextmanager
def unreadable(spool: Spool, *tables: str) -> Iterator[None]:
    """SQLite reads none of some tables, or none at all, while the block runs (SQLITE_AUTH)."""

    def judge(action: int, table: str | None, *_: str | None) -> int:
        is_refused = action == sqlite3.SQLITE_READ and (not tables or table in tables)
        return sqlite3.SQLITE_DENY if is_refused else sqlite3.SQLITE_OK

    spool._db.set_authorizer(judge)
    try:
        yield
    finally:
        spool._db.set_authorizer(None)
