# SPDX-License-Identifier: Apache-2.0
"""Wrong configurations, forms, policies, profiles and bundles, and what the program says to each.

`python -m tests.agent.cli.mistakes` types them all and writes `mistakes.txt` anew; whoever changes
a sentence reads there what a person will read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.cli.main import main
from assent.cosekey import SigningKey
from assent.enrolment import Bundle, encode_bundle
from tests.agent.installed import MAKER, filled_in, install, newer

REPO = Path(__file__).resolve().parents[3]
TRANSCRIPT = Path(__file__).with_suffix(".txt")

AGENT, POLICY, FORM = "agent.toml", "policy.toml", "consent.toml"
PROFILE = "profiles/replay-washing-machine.toml"
METER = "profiles/meter.toml"
RECORDING = "time,power,energy,water,door,program,fault,serial\n"

_AGENT = """\
[gateway]
state = "state"
quota = "64 MB"

[clock]
trust = "synchronised"

[uplink.maker]
broker = "mqtts://ingest.example.com:8883"

[[device]]
id = "washer"
kind = "washing-machine"
source = "replay"
port = "washer.csv"
profile = "replay-washing-machine"
every = "1s"
fresh = "30s"
"""
_METER_DEVICE = """
[[device]]
id = "meter"
kind = "electricity-meter"
source = "modbus"
port = "/dev/serial/by-id/usb-TEST-if00-port0"
unit_id = 1
profile = "meter"
"""

_METER_PROFILE = """\
[profile]
source = "modbus"
about = "A meter"
facts = "made up"
serial = { baudrate = 2400, parity = "N", stopbits = 1 }
requests = { registers = 80, gap = 10 }

[[field]]
attribute = "appliance.power"
table = "input"
address = 12
type = "float32"
unit = "W"

[[field]]
attribute = "appliance.energy"
table = "input"
address = 72
type = "uint32"
word_order = "little"
scale = 10
unit = "Wh"
"""


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One thing done wrong in files that are right otherwise.

    Attributes:
        name: what a person did.
        file: the file in which; where it is `enrol`, what the file to enrol holds is told by `data`.
        old: what stands there.
        new: what they wrote instead.
        data: makes the bytes of a file that is taken in.
        meter: whether there is a Modbus meter besides.
    """

    name: str
    file: str
    old: str = ""
    new: str = ""
    data: Callable[[], bytes] = bytes
    meter: bool = False


def _in(file: str, *cases: tuple[str, str, str], meter: bool = False) -> list[Mistake]:
    return [Mistake(name, file, old, new, meter=meter) for name, old, new in cases]


def _bundle(name: str, data: Callable[[], bytes]) -> Mistake:
    return Mistake(name, "enrol", data=data)


def _changed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _by_another_key() -> bytes:
    text, _ = MAKER.policy(newer)
    stranger = SigningKey.generate()
    _, signature = MAKER.policy(newer, key=stranger)
    return encode_bundle(Bundle(text, signature, stranger.public.encode(), MAKER.files))


def _signed_by_a_stranger() -> bytes:
    text, _ = MAKER.policy(newer)
    _, signature = MAKER.policy(newer, key=SigningKey.generate())
    return encode_bundle(Bundle(text, signature, MAKER.key.public.encode(), MAKER.files))


def _without_a_key_file() -> bytes:
    text, signature = MAKER.policy(newer)
    files = {name: data for name, data in MAKER.files.items() if name != "keys/maker-ca.pem"}
    return encode_bundle(Bundle(text, signature, MAKER.key.public.encode(), files))


def _with_another_key_file() -> bytes:
    text, signature = MAKER.policy(newer)
    files = MAKER.files | {"keys/maker-2026.cose": MAKER.files["keys/energy-advice-2026.cose"]}
    return encode_bundle(Bundle(text, signature, MAKER.key.public.encode(), files))


# Those of keys that every run makes anew.
_THUMBPRINT = re.compile(r"sha-256:[\w-]{43}")

_SERVICE = 'service = "accepted"'

MISTAKES: tuple[Mistake, ...] = (
    *_in(
        AGENT,
        ("no state directory", 'state = "state"\n', ""),
        ("a misspelt table", "[gateway]", "[gatway]"),
        ("a misspelt key", "state =", "stat ="),
        ("a key of no table", "quota =", "max_queue ="),
        ("a quota without a unit", '"64 MB"', "64"),
        ("a quota in a unit that is none", '"64 MB"', '"64 MiB"'),
        ("a quota too small to work with", '"64 MB"', '"10 kB"'),
        ("a commit interval without a unit", '"64 MB"', '"64 MB"\ncommit = 5'),
        ("a commit interval that wears a card out", '"64 MB"', '"64 MB"\ncommit = "100ms"'),
        ("a misspelt commit interval", '"64 MB"', '"64 MB"\ncomit = "5s"'),
        ("a clock trusted by another word", '"synchronised"', '"ntp"'),
        ("a broker the policy does not name", "ingest.example.com", "other.example.com"),
        ("a broker without TLS", "mqtts://ingest.example.com:8883", "mqtt://ingest.example.com"),
        ("a recipient the policy does not have", "[uplink.maker]", "[uplink.makre]"),
        ("batches kept for somebody else", ':8883"\n', ':8883"\nkeep_until = "brokre"\n'),
        ("batches kept until nobody says", ':8883"\n', ':8883"\nkeep_untl = "broker"\n'),
        ("a device without an id", 'id = "washer"\n', ""),
        ("a device in single brackets", "[[device]]", "[device]"),
        ("a source that is not there", '"replay"\nport', '"modbsu"\nport'),
        ("a profile that is not there", '"replay-washing-machine"', '"washer"'),
        ("a recording that is not there", '"washer.csv"', '"washing.csv"'),
        ("a replay without a recording", 'port = "washer.csv"\n', ""),
        ("a replay without a profile", 'profile = "replay-washing-machine"\n', ""),
        ("a period without a unit", '"1s"', '"1"'),
        ("a period of nothing", '"1s"', '"0s"'),
        ("a number where a duration belongs", '"1s"', "1"),
        ("silence shorter than the period", '"30s"', '"500ms"'),
        (
            "two devices of one id",
            '[[device]]\nid = "washer"',
            '[[device]]\nid = "washer"\nkind = "gateway"\nsource = "host"\n\n[[device]]\nid = "washer"',
        ),
        (
            "two devices that are one machine",
            '[[device]]\nid = "washer"',
            "\n".join(
                f'[[device]]\nid = "{name}"\nkind = "gateway"\nsource = "host"\n'
                for name in ("box", "board")
            )
            + '\n[[device]]\nid = "washer"',
        ),
        ("a quote that does not end", '"washing-machine"', '"washing-machine'),
        ("a key that stands twice", 'state = "state"', 'state = "state"\nstate = "other"'),
    ),
    *_in(
        POLICY,
        ("a serial in quotes", "serial = 17", 'serial = "17"'),
        ("a serial of zero", "serial = 17", "serial = 0"),
        ("a role that is none", 'role = "controller"', 'role = "owner"'),
        ("a region in words", 'region = "CN"', 'region = "China"'),
        (
            "a broker without TLS",
            "mqtts://ingest.example.com:8883",
            "mqtt://ingest.example.com:1883",
        ),
        ("no broker at all", '["mqtts://ingest.example.com:8883"]', "[]"),
        ("a key file outside the directory", "keys/maker-2026.cose", "../maker-2026.cose"),
        ("an unknown transform", '"appliance.power" = "round(1)"', '"appliance.power" = "rond(1)"'),
        (
            "a transform without its amount",
            '"appliance.power" = "round(1)"',
            '"appliance.power" = "round"',
        ),
        (
            "a window of no known kind",
            '"window(1m, mean)", "appliance.energy"',
            '"window(1m, median)", "appliance.energy"',
        ),
        ("a flow to nobody", 'recipient = "energy-advice"', 'recipient = "energy-advise"'),
        (
            "an attribute the dictionary lacks",
            '{ "appliance.power" = "round(1)"',
            '{ "appliance.powr" = "round(1)"',
        ),
        (
            "an identifier kept as it is",
            '"device.serial" = "pseudonym"',
            '"device.serial" = "keep"',
        ),
        ("a counter kept as it is", '"appliance.energy" = "delta"', '"appliance.energy" = "keep"'),
        ("a number without a unit", 'unit = "W"\n', ""),
        ("a number without a quantum", 'unit = "W"\nquantum = 0.1\n', 'unit = "W"\n'),
        ("a unit that is none", 'unit = "W"', 'unit = "Wat"'),
        (
            "a text without a closed set",
            'choices = ["cotton", "delicates", "eco", "idle", "quick", "spin", "wool"]\n',
            "",
        ),
        (
            "a flow without a notice",
            'notice = { en = "Find faults before they become failures.", zh = "在故障发生之前发现它。" }\n',
            "",
        ),
        ("a core flow that rests on consent", 'basis = "contract"', 'basis = "consent"'),
        (
            "a core flow to a partner",
            'basis = "contract"               # consent contract legal_obligation public_interest\n                                 # official_authority vital_interest safe_operation\nrecipient = "maker"',
            'basis = "contract"\nrecipient = "energy-advice"',
        ),
        (
            "a partner's flow that is not separate",
            "separate = true                  # a partner, and abroad: a yes of its own\n",
            "",
        ),
        (
            "an urgent attribute that is not carried",
            'age = "10m", urgent = ["appliance.fault"] }\n# key',
            'age = "10m", urgent = ["appliance.door"] }\n# key',
        ),
        (
            "kept for no time",
            'gateway = "7d", recipient = "30d"',
            'gateway = "0d", recipient = "30d"',
        ),
        ("an end that is no date", "# not_after = 2030-12-31", 'not_after = "soon"'),
        ("withdrawal that erases", 'on_withdraw = "stop"', 'on_withdraw = "stop+erase"'),
        (
            "a review that is overdue",
            'about = "Electric power drawn by the appliance."\nowner = "energy team"\nreview = 2997-11-30',
            'about = "Electric power drawn by the appliance."\nowner = "energy team"\nreview = 2025-11-30',
        ),
        (
            "an advertising id",
            '[attributes."device.serial"]',
            '[attributes."device.advertising-id"]',
        ),
    ),
    *_in(
        FORM,
        ("a flow the policy does not have", "remote-diagnosis", "remote-diagnosys"),
        ("yes in another word", 'remote-diagnosis = "given"', 'remote-diagnosis = "yes"'),
        ("a core flow given", _SERVICE, 'service = "given"'),
        (
            "an optional flow accepted",
            'remote-diagnosis = "given"',
            'remote-diagnosis = "accepted"',
        ),
        ("no hour and no offset", "2026-11-22T10:15:00+08:00", "2026-11-22"),
        ("no offset", "2026-11-22T10:15:00+08:00", "2026-11-22T10:15:00"),
        ("a clock that was not set", "2026-11-22T10:15:00+08:00", "1970-01-01T00:00:10+00:00"),
        ("an end before the beginning", "until = 2997-11-22", "until = 2026-11-01"),
        ("an end that is no date", "until = 2997-11-22", 'until = "next year"'),
        ("said tomorrow", "2026-11-22T10:15:00+08:00", "2996-11-22T10:15:00+08:00"),
        ("left out what is not carried", '"appliance.energy"]', '"appliance.door"]'),
        (
            "nothing left of a yes",
            '["appliance.energy"]',
            '["appliance.energy", "appliance.power"]',
        ),
        ("an end on a no", '"given", until', '"refused", until'),
        ("a word for everything", _SERVICE, f'all = "given"\n{_SERVICE}'),
        ("nobody decided", 'decided_by = "owner"', 'decided_by = ""'),
        ("a yes that is not the owner's", 'decided_by = "owner"', 'decided_by = "installer"'),
        ("another version of the policy", 'policy = "2026-11-01"', 'policy = "2025-11-01"'),
        ("no decisions", "[decisions]", "[decision]"),
    ),
    *_in(
        PROFILE,
        ("a source that is none", 'source = "replay"', 'source = "csv"'),
        ("a column twice for one attribute", '"appliance.energy"', '"appliance.power"'),
        ("an attribute the dictionary lacks", '"appliance.door"', '"appliance.dor"'),
        ("a field without a column", 'column = "power"\n', ""),
        ("a scale of nothing", "scale = 1 ", "scale = 0 "),
        (
            "a scaled text",
            'column = "program"\ntype = "text"',
            'column = "program"\ntype = "text"\nscale = 10',
        ),
        ("a type that is none", 'type = "boolean"', 'type = "bool"'),
        ("a time format that cannot be", 'time_format = "iso"', 'time_format = "%Q"'),
        (
            "no recording described",
            'csv = { time = "time", time_format = "iso", delimiter = ",", header = true }\n',
            "",
        ),
    ),
    *_in(
        AGENT,
        ("a meter without a port", 'port = "/dev/serial/by-id/usb-TEST-if00-port0"\n', ""),
        (
            "a port that is another after plugging in",
            "/dev/serial/by-id/usb-TEST-if00-port0",
            "/dev/ttyUSB0",
        ),
        ("a port of another protocol", "/dev/serial/by-id/usb-TEST-if00-port0", "http://meter"),
        ("a meter without a profile", 'profile = "meter"\n', ""),
        ("a unit id that no unit has", "unit_id = 1", "unit_id = 248"),
        ("the speed of a line beside its port", "unit_id = 1", "unit_id = 1\nbaudrate = 9600"),
        ("the parity of a line beside its port", "unit_id = 1", 'unit_id = 1\nparity = "E"'),
        (
            "two devices of one port and unit",
            '[[device]]\nid = "meter"',
            _METER_DEVICE.replace('"meter"\nk', '"meter-cellar"\nk') + '\n[[device]]\nid = "meter"',
        ),
        (
            "a recording's profile for a meter",
            'profile = "meter"',
            'profile = "replay-washing-machine"',
        ),
        meter=True,
    ),
    *_in(
        METER,
        ("a speed under another name", "baudrate = 2400", "baud = 2400"),
        ("a parity in words", 'parity = "N"', 'parity = "none"'),
        ("an address of six figures", "address = 12", "address = 300013"),
        ("an address as the document counts it", "address = 12", "address = 30013"),
        ("an exponent of a float", '"float32"', '"float32"\nexponent = 14'),
        ("an exponent in the number itself", '"uint32"', '"uint32"\nexponent = 73'),
        ("an exponent too far away", '"uint32"', '"uint32"\nexponent = 200'),
        ("a field without a table", 'table = "input"\naddress = 12', "address = 12"),
        ("a table by its function", 'table = "input"\naddress = 12', "table = 4\naddress = 12"),
        ("a float among coils", 'table = "input"\naddress = 12', 'table = "coil"\naddress = 12'),
        ("a type of another language", '"float32"', '"float"'),
        ("an order of one register", '"uint32"', '"uint16"'),
        ("more registers than can be asked for", "registers = 80", "registers = 200"),
        ("an attribute that is nearly one of the dictionary", "appliance.power", "appliance.powr"),
        (
            "a profile of which nothing can leave",
            _METER_PROFILE.split("[[field]]", 1)[1],
            '\nattribute = "appliance.thd"\ntable = "input"\naddress = 1\ntype = "int16"\n',
        ),
        meter=True,
    ),
    _bundle("an empty file", bytes),
    _bundle("something else", lambda: b"%PDF-1.7\n%some manual\n"),
    _bundle("a bundle cut short", lambda: MAKER.bundle(newer)[:-100]),
    _bundle("one bit changed", lambda: _changed(MAKER.bundle(newer))),
    _bundle(
        "an older policy",
        lambda: MAKER.bundle(lambda text: text.replace("serial = 17", "serial = 16")),
    ),
    _bundle("by another policy key", _by_another_key),
    _bundle("signed by a stranger", _signed_by_a_stranger),
    _bundle("a key file is missing", _without_a_key_file),
    _bundle("a key file is another one", _with_another_key_file),
    _bundle("a request instead of a bundle", lambda: _request()),  # noqa: PLW0108 (made below)
)


def _request() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        place = install(Path(directory) / "gateway")
        return (place / "requests" / "maker.request").read_bytes()


def typed(mistake: Mistake) -> str:
    """Makes the mistake and types the command that finds it.

    Returns:
        The transcript: the command, stdout, stderr, the exit code; DIR is the configuration.
    """
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "gateway"
        words = _enrol(place, mistake) if mistake.file == "enrol" else _check(place, mistake)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
        said = out.getvalue() + err.getvalue()
        line = " ".join(words)
        told = f"$ assent {line}\n{said}exit {code}\n".replace(str(place), "DIR")
        return _THUMBPRINT.sub("sha-256:…", told)


def _check(place: Path, mistake: Mistake) -> list[str]:
    """Lays complete right files, and the mistake among them."""
    (place / "profiles").mkdir(parents=True)
    for name in (POLICY, FORM, PROFILE):
        # Far ahead, so that no review and no end of a yes comes while this is tested.
        text = filled_in() if name == FORM else (REPO / "config" / name).read_text()
        (place / name).write_text(text.replace("2027-", "2997-").replace("2028-", "2998-"))
    (place / AGENT).write_text(_AGENT + _METER_DEVICE * mistake.meter)
    (place / METER).write_text(_METER_PROFILE)
    (place / "washer.csv").write_text(RECORDING)
    path = place / mistake.file
    text = path.read_text()
    if mistake.old not in text:
        raise AssertionError(f"{mistake.name}: {mistake.file} has no {mistake.old!r}")
    path.write_text(text.replace(mistake.old, mistake.new, 1))
    return ["check", "--config", str(place)]


def _enrol(place: Path, mistake: Mistake) -> list[str]:
    """Enrols a gateway, and lays the wrong file beside it."""
    install(place)
    (place / "maker.bundle").write_bytes(mistake.data())
    return ["enrol", str(place / "maker.bundle"), "--config", str(place)]


def transcript() -> Iterator[str]:
    """Types every mistake."""
    yield "# SPDX-License-Identifier: Apache-2.0\n"
    yield "# Written by python -m tests.agent.cli.mistakes.\n"
    for mistake in MISTAKES:
        yield f"\n## {mistake.file}: {mistake.name}\n{typed(mistake)}"


if __name__ == "__main__":
    TRANSCRIPT.write_text("".join(transcript()))
