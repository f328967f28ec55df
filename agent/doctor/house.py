# SPDX-License-Identifier: Apache-2.0
"""The machine around the agent: files, state directory, disk, ports.

Security: reads metadata only; no store, no port and no key is opened here.
"""

from __future__ import annotations

import datetime as dt
import itertools
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.doctor.checks import Check, bad, good, odd
from agent.inspection import inspect, read_files
from agent.owner import foreign, may_enter, name_of_group, name_of_user
from agent.settings import DeviceSettings, Settings
from assent.errors import Finding, Severity

# The quota again, for the journal of SQLite and what the ledger needs.
_ROOM: Final = 2
_MB: Final = 1_000_000
# Names of files that are looked at for their owner; a spool has a handful, keys some ten a flow.
_MOST_FILES: Final = 10_000


def files(directory: Path, now: dt.datetime) -> Iterator[Check]:
    """Looks at what a person edits.

    Args:
        directory: the configuration directory.
        now: the moment by which a review is overdue.
    """
    findings = inspect(directory, now)
    errors = [one for one in findings if one.severity is Severity.ERROR]
    if errors:
        yield bad("files", f"{_place(errors[0])} is wrong{_more(errors)}", "see: assent check")
    elif findings:
        yield odd("files", f"{_place(findings[0])} is odd{_more(findings)}", "see: assent check")
    else:
        yield good("files", f"no mistakes in {', '.join(read_files(directory))}")


def state(settings: Settings) -> Iterator[Check]:
    """Looks at the state directory and the disk it lies on."""
    place = settings.state
    try:
        owner = place.stat()
    except FileNotFoundError:
        yield odd("state", "is not there yet", "it is made by the first command that needs it")
        return
    except OSError as exc:
        yield bad("state", f"cannot be seen: {exc.strerror}", "see gateway.state in agent.toml")
        return
    if not may_enter(place):
        told = f"is not for you; it belongs to {name_of_user(owner.st_uid)}"
        yield bad("state", told, foreign(place).hint or "")
        return
    strangers = sum(one.lstat().st_uid != owner.st_uid for one in _below(place))
    if stat.S_IMODE(owner.st_mode) & 0o007:
        yield bad("state", "others may enter the state directory", "type: chmod 710 STATE")
    elif strangers:
        user = name_of_user(owner.st_uid)
        yield bad(
            "state",
            f"{strangers} of its files belong to another user than {user}",
            f"a command that root typed left them; type as root: chown -R {user} STATE",
        )
    else:
        yield good("state", f"belongs to {name_of_user(owner.st_uid)}, closed to others")
    yield _disk(settings)


def ports(settings: Settings) -> Iterator[Check]:
    """Looks at the device nodes that agent.toml names, as the agent's user would."""
    for number, device in enumerate(settings.devices, 1):
        if _is_node(device):
            yield _port(f"port {number}", device, settings.state)


def _is_node(device: DeviceSettings) -> bool:
    port = device.port or "://"
    return port.startswith("/dev/") or (device.source == "modbus" and "://" not in port)


def _disk(settings: Settings) -> Check:
    free = shutil.disk_usage(settings.state).free
    if os.statvfs(settings.state).f_flag & os.ST_RDONLY:
        return bad("disk", "the disk is read-only", "a worn card does that; replace it")
    wanted = _ROOM * settings.quota_bytes
    if free < wanted:
        told = f"{free // _MB} MB are free, the quota may need {wanted // _MB} MB"
        return odd("disk", told, "make room, or lower gateway.quota in agent.toml")
    return good("disk", f"{free // _MB} MB are free")


def _port(subject: str, device: DeviceSettings, place: Path) -> Check:
    assert device.port is not None
    try:
        node = Path(device.port).stat()
    except FileNotFoundError:
        return bad(subject, "is not there", "plug it in, then: assent devices find")
    except OSError as exc:
        return bad(subject, f"cannot be seen: {exc.strerror}")
    if not stat.S_ISCHR(node.st_mode):
        return bad(subject, "is no serial port", "see: assent devices find")
    # Where there is no state yet, whoever asks is going to make it.
    uid = place.stat().st_uid if place.exists() else os.geteuid()
    if not _may_open(uid, node):
        user, group = name_of_user(uid), name_of_group(node.st_gid)
        return bad(
            subject,
            f"{user} may not open it; it belongs to group {group}",
            f"type as root: usermod -aG {group} {user}; then {user} logs in again, and the agent is"
            " started again",
        )
    if device.port.startswith("/dev/") and not device.port.startswith("/dev/serial/by-id/"):
        told = "is there, by a name that another plug may get after a restart"
        return odd(subject, told, "use the name in /dev/serial/by-id: assent devices find")
    return good(subject, "is there, by its own name")


def _may_open(uid: int, node: os.stat_result) -> bool:
    if uid == 0:
        return True
    if node.st_uid == uid:
        return node.st_mode & 0o600 == 0o600
    try:
        user = pwd.getpwuid(uid)
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
    except KeyError:
        groups = []
    wanted = 0o060 if node.st_gid in groups else 0o006
    return node.st_mode & wanted == wanted


def _below(place: Path) -> Iterator[Path]:
    """What lies in the state but for the spool, in which the uplink's user writes, too."""
    paths = (path for path in place.rglob("*") if "spool" not in path.relative_to(place).parts)
    return itertools.islice(paths, _MOST_FILES)


def _place(finding: Finding) -> str:
    return f"{Path(finding.file).name}:{finding.line}:{finding.column}"


def _more(findings: list[Finding]) -> str:
    return f", and {len(findings) - 1} more" if len(findings) > 1 else ""
