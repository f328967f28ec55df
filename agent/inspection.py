# SPDX-License-Identifier: Apache-2.0
"""Every finding of every file a technician edits, held against each other; opens no store.

Law:
  - an absent policy or form is no mistake; a file that is there is read whole;
  - what one file says of another is checked too: brokers and profiles against the policy, which is
    the newer one that came down where there is one,
    recordings against the disk.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from agent.arrival import unsafe_glance
from agent.form import judge, load_form
from agent.records import Record
from agent.settings import FILE_NAME, DeviceSettings, Settings, load_settings
from agent.site import FORM, POLICY
from assent.errors import ConfigError, Finding, Severity
from assent.located import open_document, read
from assent.nearest import nearest
from assent.policy.lints import lint
from assent.policy.model import Policy
from firmware_bridge.profile import Profile, doubts, load_profile


def inspect(directory: Path, now: dt.datetime) -> list[Finding]:
    """Reads everything below a configuration directory.

    Args:
        directory: the configuration directory.
        now: the moment by which a review is overdue and a form lies in the future.

    Returns:
        What was found, file by file.
    """
    findings: list[Finding] = []
    settings = policy = None
    is_sound = False
    try:
        settings = load_settings(directory)
    except ConfigError as exc:
        findings += exc.findings
    path = directory / POLICY
    if path.exists():
        try:
            document = open_document(path)
            policy = read(document, Policy)
            lints = lint(policy, document, now.date())
            findings += lints
            is_sound = not any(one.severity is Severity.ERROR for one in lints)
        except ConfigError as exc:
            findings += exc.findings
    came = unsafe_glance(settings.state) if settings is not None else None
    if came is not None and (policy is None or came.policy.serial > policy.policy.serial):
        policy, is_sound = came, True
    if settings is not None:
        findings += _profiles(settings, policy)
        findings += _languages(settings)
        findings += _twice(settings)
        findings += _recordings(settings)
        if policy is not None:
            findings += _brokers(settings, policy)
    # A policy that does not load has no terms that a form could be held against.
    findings += _form(directory, policy if is_sound else None, now)
    return list(dict.fromkeys(findings))


def inspect_profile(path: Path, directory: Path) -> list[Finding]:
    """Reads one profile, and holds it against the policy where there is one.

    Args:
        path: the profile's file.
        directory: the configuration directory.
    """
    findings: list[Finding] = []
    try:
        profile = load_profile(path)
        findings += doubts(path)
        policy = read(open_document(directory / POLICY), Policy)
    except ConfigError as exc:
        return findings + [one for one in exc.findings if one.file == str(path)]
    return findings + list(_strangers(path, profile, policy))


def read_files(directory: Path) -> list[str]:
    """Names the files that `inspect` finds there."""
    names = [FILE_NAME, POLICY, FORM]
    return [name for name in names if (directory / name).exists()]


def _profiles(settings: Settings, policy: Policy | None) -> Iterator[Finding]:
    for path in sorted({device.profile for device in settings.devices if device.profile}):
        try:
            profile = load_profile(path)
        except ConfigError as exc:
            yield from exc.findings
            continue
        yield from doubts(path)
        if policy is not None:
            yield from _strangers(path, profile, policy)


def _strangers(path: Path, profile: Profile, policy: Policy) -> Iterator[Finding]:
    """What a profile names and the dictionary lacks: slips, or that nothing of it can leave.

    A profile describes a model and is shared: that it names more than this policy is no mistake.
    """
    document = open_document(path)
    for index, field in enumerate(profile.fields):
        meant = _meant(field.attribute, policy.attributes.keys() - profile.attributes)
        if field.attribute not in policy.attributes and meant is not None:
            yield document.finding(
                ("field", index, "attribute"),
                f"the policy's dictionary has no attribute {field.attribute!r}; it never leaves",
                f"did you mean {meant!r}?",
                Severity.WARNING,
            )
    if profile.attributes.isdisjoint(policy.attributes):
        yield document.finding(
            ("profile",),
            "the policy's dictionary has no attribute of this profile; nothing of it ever leaves",
            severity=Severity.WARNING,
        )


def _meant(name: str, missed: Collection[str]) -> str | None:
    """The name, among those no field has, whose words are all near: l1 and l2 are not."""
    words = name.split(".")
    for known in sorted(missed):
        others = known.split(".")
        if len(others) == len(words) and all(
            nearest(word, [other]) for word, other in zip(words, others, strict=True)
        ):
            return known
    return None


def _languages(settings: Settings) -> Iterator[Finding]:
    document = open_document(settings.directory / FILE_NAME)
    for index, device in enumerate(settings.devices):
        if device.profile is None:
            continue
        with contextlib.suppress(ConfigError):  # told with the profile itself
            source = load_profile(device.profile).source
            if source != device.source:
                message = f"this profile is for source {source!r}, the device is {device.source!r}"
                yield document.finding(("device", index, "profile"), message)


def _twice(settings: Settings) -> Iterator[Finding]:
    """Devices that are one: it would be read twice, and counted twice by whoever gets it."""
    document = open_document(settings.directory / FILE_NAME)
    seen: dict[tuple[str, str, int], int] = {}
    for index, device in enumerate(settings.devices):
        first = seen.setdefault(_whereabouts(device), index)
        if first == index:
            continue
        on_a_bus = device.source == "modbus"
        key, same = ("unit_id", "port and unit") if on_a_bus else ("source", "source")
        other, (line, _) = settings.devices[first].id, document.place("device", first)
        yield document.finding(
            ("device", index, key),
            f"{device.id!r} and {other!r} of line {line} have the same {same}:"
            " one device is read twice",
            "remove one, or correct its port or unit_id" if on_a_bus else "remove one",
            Severity.WARNING,
        )


def _whereabouts(device: DeviceSettings) -> tuple[str, str, int]:
    port = device.port or "/"
    # One adapter has several names, by id and by path.
    return device.source, port if "://" in port else os.path.realpath(port), device.unit_id


def _recordings(settings: Settings) -> Iterator[Finding]:
    document = open_document(settings.directory / FILE_NAME)
    for index, device in enumerate(settings.devices):
        if _is_missing(device):
            yield document.finding(("device", index, "port"), f"there is no file {device.port}")


def _is_missing(device: DeviceSettings) -> bool:
    return device.source == "replay" and not Path(device.port or "").is_file()


def _brokers(settings: Settings, policy: Policy) -> Iterator[Finding]:
    document = open_document(settings.directory / FILE_NAME)
    for recipient, broker in settings.brokers.items():
        known = policy.recipients.get(recipient)
        if known is None:
            yield document.finding(
                ("uplink", recipient),
                f"the policy has no recipient {recipient!r}",
                nearest(recipient, policy.recipients),
            )
        elif broker not in known.brokers:
            yield document.finding(
                ("uplink", recipient, "broker"),
                f"the policy names no such broker for {recipient!r}, so it is not connected to",
                f"expected one of {', '.join(known.brokers)}" if known.brokers else None,
            )


def _form(directory: Path, policy: Policy | None, now: dt.datetime) -> list[Finding]:
    with contextlib.suppress(FileNotFoundError):
        try:
            form = load_form(directory / FORM)
        except ConfigError as exc:
            return list(exc.findings)
        if form is None or policy is None:
            return []
        now_ms = int(now.timestamp() * 1000)
        acts = judge(form, b"", policy, _NothingDecided(), now_ms, clock_trusted=True)
        return [act.finding for act in acts if act.finding is not None]
    return []


class _NothingDecided:
    """A ledger in which nothing was ever decided, so that every line of a form is judged."""

    unknown_since_ms: int | None = None

    def form_seen(self, form_hash: bytes) -> bool:
        """No form was ever seen."""
        del form_hash
        return False

    def is_overtaken(self, form_hash: bytes, flow: str) -> bool:
        """Nothing came after it."""
        del form_hash, flow
        return False

    def history(self, flow: str) -> tuple[Record, ...]:
        """Nothing was ever decided."""
        del flow
        return ()
