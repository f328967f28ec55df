# SPDX-License-Identifier: Apache-2.0
"""`agent.toml` into frozen settings: the devices that are there, and which broker to use.

Law:
  - every key is checked, an unknown one is an error with the nearest known one;
  - nothing here can widen what leaves: a broker that the policy does not name is refused later,
    where the policy is known (agent/site.py).

Security: written by the technician; holds paths and never a secret.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

import msgspec

from assent.errors import ConfigError, Finding
from assent.located import Document, open_document, read
from assent.units import Duration, Size

FILE_NAME = "agent.toml"

SourceName = Literal["host", "modbus", "replay"]
# As firmware_bridge/clock.py has it, which the uplink, who reads settings too, does not import.
TrustRule = Literal["synchronised", "rtc", "system"]

_UnitId = Annotated[int, msgspec.Meta(ge=0, le=255, description="a unit id from 1 to 247, or 255")]

# The kernel numbers them as they are plugged in: another device's readings would bear this name.
_UNSTABLE: Final = re.compile(r"/dev/tty(USB|ACM)[0-9]+")
# One line serves several devices, and each model says how it speaks.
_LINE: Final = (
    "a line's speed and parity stand in the device's profile, as"
    ' serial = { baudrate = 9600, parity = "N", stopbits = 1 } in its table [profile];'
    " there are always 8 data bits"
)
_LAST_UNIT: Final = 247  # on a serial line; Modbus over serial line V1.02 §2.2

# 64 MB hold a week of three flows at ten readings a second several times over (about 1 byte each).
_QUOTA = Size(64_000_000)
_SMALLEST_QUOTA = Size(1_000_000)

# What a power cut may take. Below a second a card would be written all the time.
_COMMIT = Duration(5_000)
_SHORTEST_COMMIT = Duration(1_000)


class _Gateway(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state: str
    quota: Size = _QUOTA
    commit: Duration = _COMMIT


class _ClockTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    trust: TrustRule = "synchronised"


class _Uplink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    broker: str
    keep_until: Literal["backend", "broker"] = "backend"


class _Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ELSEWHERE: ClassVar = dict.fromkeys(
        ("baudrate", "bytesize", "parity", "serial", "stopbits"), _LINE
    )

    id: str
    kind: str
    source: SourceName
    port: str | None = None
    unit_id: _UnitId | None = None
    profile: str | None = None
    every: Duration = Duration(1_000)
    fresh: Duration = Duration(30_000)
    speed: float = 1.0


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    gateway: _Gateway
    clock: _ClockTable = _ClockTable()
    uplink: dict[str, _Uplink] = {}
    device: list[_Device] = []


class DeviceSettings(msgspec.Struct, frozen=True):
    """One `[[device]]` table.

    Attributes:
        id: of this installation; never leaves.
        kind: what sort of appliance it is.
        source: the hardware language.
        port: the device node, tcp://host:port, the recording, or the root directory of the host.
        unit_id: the address of a Modbus device on its bus.
        profile: path of its profile, or None where the source needs none.
        every_ms: period between two reads.
        fresh_ms: silent for longer than this, it is opened again and reported.
        speed: of a recording; 1 is its own, 0 is as fast as it can be read.
    """

    id: str
    kind: str
    source: SourceName
    port: str | None
    unit_id: int
    profile: Path | None
    every_ms: int
    fresh_ms: int
    speed: float


class Settings(msgspec.Struct, frozen=True):
    """What agent.toml says.

    Attributes:
        directory: the configuration directory; relative paths start there.
        state: the state directory.
        quota_bytes: most bytes of waiting batches over all flows.
        commit_ms: a crash or a power cut loses the readings of so long at most.
        trust: what it takes for the wall clock to be trusted.
        brokers: recipient id to the broker chosen for it.
        devices: what to read.
        briefly: recipients of which a batch is kept until its broker has it, and no longer.
    """

    directory: Path
    state: Path
    quota_bytes: int
    commit_ms: int
    trust: TrustRule
    brokers: dict[str, str]
    devices: tuple[DeviceSettings, ...]
    briefly: frozenset[str] = frozenset()

    @property
    def clock_is_system(self) -> bool:
        """Whether the wall clock is known to be right (`clock.trust = "system"`)."""
        return self.trust == "system"


def load_settings(directory: Path) -> Settings:
    """Reads `agent.toml` of a configuration directory.

    Raises:
        ConfigError: with every finding, each with file, line and column.
    """
    document = open_document(directory / FILE_NAME)
    file = read(document, _File)
    findings = _lint(document, file, directory)
    if findings:
        raise ConfigError(tuple(sorted(findings)))
    return Settings(
        directory=directory,
        state=directory / file.gateway.state,
        quota_bytes=int(file.gateway.quota),
        commit_ms=int(file.gateway.commit),
        trust=file.clock.trust,
        brokers={recipient: uplink.broker for recipient, uplink in file.uplink.items()},
        devices=tuple(_device(directory, table) for table in file.device),
        briefly=frozenset(
            name for name, uplink in file.uplink.items() if uplink.keep_until == "broker"
        ),
    )


def salvage(directory: Path) -> Settings | None:
    """What a bad `agent.toml` still tells: where the state is, so that a no gets through.

    Returns:
        Settings with that state directory and nothing else, or None when not even that can be read.
    """
    try:
        text = (directory / FILE_NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The file may not even be TOML: the line is looked for as a person would.
    found = re.search(r"""^\s*state\s*=\s*(["'])(.+?)\1""", text, re.MULTILINE)
    if found is None:
        return None
    return Settings(
        directory=directory,
        state=directory / found.group(2),
        quota_bytes=int(_QUOTA),
        commit_ms=int(_COMMIT),
        trust="synchronised",
        brokers={},
        devices=(),
    )


def _device(directory: Path, table: _Device) -> DeviceSettings:
    port = table.port
    if port is not None and "://" not in port:
        port = str(directory / port)
    return DeviceSettings(
        id=table.id,
        kind=table.kind,
        source=table.source,
        port=port,
        unit_id=1 if table.unit_id is None else table.unit_id,
        profile=_profile_path(directory, table.profile) if table.profile else None,
        every_ms=int(table.every),
        fresh_ms=int(table.fresh),
        speed=table.speed,
    )


def _profile_path(directory: Path, name: str) -> Path:
    return directory / "profiles" / f"{name}.toml"


def _lint(document: Document, file: _File, directory: Path) -> list[Finding]:
    findings = []
    if file.gateway.quota < _SMALLEST_QUOTA:
        findings.append(
            document.finding(
                ("gateway", "quota"),
                f"expected a quota of at least {_SMALLEST_QUOTA}, got {file.gateway.quota}",
            )
        )
    if file.gateway.commit < _SHORTEST_COMMIT:
        findings.append(
            document.finding(
                ("gateway", "commit"),
                f"expected an interval of at least {_SHORTEST_COMMIT}, got {file.gateway.commit}",
            )
        )
    seen = Counter(table.id for table in file.device)
    for index, table in enumerate(file.device):
        findings.extend(_lint_device(document, table, index, directory, twice=seen[table.id] > 1))
    return findings


def _lint_device(
    document: Document, table: _Device, index: int, directory: Path, *, twice: bool
) -> list[Finding]:
    def finding(key: str, message: str, hint: str | None = None) -> Finding:
        return document.finding(("device", index, key), message, hint)

    findings = []
    if twice:
        findings.append(finding("id", f"expected an id of its own, {table.id!r} is used twice"))
    if table.every <= 0:
        findings.append(finding("every", "expected a period above zero, got 0s"))
    if table.fresh < table.every:
        findings.append(
            finding("fresh", f"expected at least every ({table.every}), got {table.fresh}")
        )
    if table.speed < 0:
        findings.append(finding("speed", f"expected a speed of zero or more, got {table.speed:g}"))
    if table.source == "replay" and table.port is None:
        findings.append(finding("source", "a replay needs a port: the path of its recording"))
    if table.source == "replay" and table.profile is None:
        findings.append(finding("source", "a replay needs a profile that names its columns"))
    if table.source == "modbus":
        findings.extend(finding(key, message, hint) for key, message, hint in _lint_modbus(table))
    elif table.unit_id is not None:
        findings.append(finding("unit_id", "'unit_id' is for source 'modbus'"))
    if table.profile and not _profile_path(directory, table.profile).is_file():
        findings.append(
            finding(
                "profile",
                f"there is no profile {table.profile!r}",
                f"expected the file {_profile_path(directory, table.profile)}",
            )
        )
    return findings


def _lint_modbus(table: _Device) -> Iterator[tuple[str, str, str | None]]:
    port = table.port or ""
    if table.port is None:
        hint = "expected the name under /dev/serial/by-id, or tcp://host:port"
        yield "source", "a Modbus device needs a port", hint
    if table.profile is None:
        yield "source", "a Modbus device needs a profile that names its registers", None
    if "://" in port and not port.startswith(("tcp://", "rfc2217://")):
        yield "port", "expected a device node, tcp://host:port or rfc2217://host:port", None
    if _UNSTABLE.fullmatch(port):
        hint = "take its name from /dev/serial/by-id, or /dev/serial/by-path when it has none there"
        yield "port", f"{port} is another device after the next plugging in", hint
    unit = 1 if table.unit_id is None else table.unit_id
    if not port.startswith("tcp://") and not 1 <= unit <= _LAST_UNIT:
        yield "unit_id", f"expected a unit id from 1 to {_LAST_UNIT}, got {unit}", None
