# SPDX-License-Identifier: Apache-2.0
"""Lints of the head and the recipients: brokers, files, thumbprints, keys, the end date."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Final

from assent.policy.lints.nits import Lint, Nit, error, warning
from assent.policy.model import Policy, references

_THUMBPRINT = re.compile(r"sha-256:[A-Za-z0-9_-]{43}")  # 32 bytes in base64url without padding
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_BROKER = re.compile(rf"mqtts://(?:{_HOST}|\[[0-9A-Fa-f:.]+\])(?::(\d{{1,5}}))?")
_SUFFIXES: Final = {"key": ".cose", "ack_key": ".cose", "ca": ".pem"}


def controller_is_named(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """The household is told who decides."""
    if not policy.policy.controller.strip():
        yield Nit(("policy", "controller"), "expected the controller's name, got a blank")


def controller_receives(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """Without a recipient of role controller nobody can tell what is abroad (policy C17)."""
    if not any(recipient.role == "controller" for recipient in policy.recipients.values()):
        message = "expected a recipient of role 'controller', whose region is home, got none"
        yield Nit(("recipients",), message)


def policy_is_not_over(policy: Policy, today: dt.date) -> Iterator[Nit]:
    """A policy past its end is not signed again."""
    end = policy.policy.not_after
    if end is not None and end < today:
        yield Nit(("policy", "not_after"), f"expected an end that is to come, got {end}")


def broker_is_encrypted(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A recipient has brokers, all of them over TLS (policy C21)."""
    for name, recipient in policy.recipients.items():
        path = ("recipients", name, "brokers")
        if not recipient.brokers:
            yield Nit(path, "expected at least one broker, got none")
        for index, broker in enumerate(recipient.brokers):
            match = _BROKER.fullmatch(broker)
            if match is None or not 1 <= int(match[1] or 8883) <= 65_535:
                message = f"expected a broker such as mqtts://host:8883, got {broker[:60]!r}"
                hint = "mqtt:// is not encrypted" if broker.startswith("mqtt://") else None
                yield Nit((*path, index), message, hint)
        if len(set(recipient.brokers)) != len(recipient.brokers):
            yield Nit(path, "expected each broker once, got one twice")


def file_is_beside(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A file is named by a plain relative path, so that a bundle can carry it."""
    for path, ref in references(policy):
        suffix = _SUFFIXES[str(path[-1])]
        if not _FILE.fullmatch(ref.file) or not ref.file.endswith(suffix):
            message = f"expected a path below the policy's directory that ends in {suffix}"
            yield Nit((*path, "file"), f"{message}, got {ref.file[:60]!r}")


def thumbprint_is_one(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A thumbprint is SHA-256 in base64url, without padding."""
    for path, ref in references(policy):
        if not _THUMBPRINT.fullmatch(ref.thumbprint):
            message = "expected 'sha-256:' and 43 characters of base64url"
            hint = "assent-backend sign-policy writes it"
            yield Nit((*path, "thumbprint"), f"{message}, got {ref.thumbprint[:60]!r}", hint)


def file_is_pinned_once(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """One file has one thumbprint."""
    seen: dict[str, str] = {}
    for path, ref in references(policy):
        if seen.setdefault(ref.file, ref.thumbprint) != ref.thumbprint:
            message = f"expected the thumbprint {ref.file!r} has elsewhere, got another"
            yield Nit((*path, "thumbprint"), message)


def key_is_its_own(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """No two recipients, and no two uses, share a key (policy C15)."""
    seen: dict[str, tuple[str, str]] = {}
    for path, ref in references(policy):
        use = str(path[-1])
        whose = path[1] if path[0] == "recipients" else policy.flows[str(path[1])].recipient
        owner = (str(whose), use)
        if use != "ca" and seen.setdefault(ref.thumbprint, owner) != owner:
            who, other = seen[ref.thumbprint]
            message = f"expected a key of its own, got the {other} of {who!r}"
            yield Nit((*path, "thumbprint"), message)


def flow_key_differs(policy: Policy, _today: dt.date) -> Iterator[Nit]:
    """A flow's own key is another than its recipient's, else it separates nothing (C03)."""
    for flow_id, flow in policy.flows.items():
        recipient = policy.recipients.get(flow.recipient)
        if flow.key and recipient and flow.key.thumbprint == recipient.key.thumbprint:
            message = "expected a key of the flow's own, got the recipient's"
            yield Nit(("flows", flow_id, "key"), message, "leave it out to use the recipient's")


LINTS: Final[dict[str, Lint]] = {
    "controller-is-named": error(controller_is_named),
    "controller-receives": warning(controller_receives),
    "policy-is-not-over": warning(policy_is_not_over),
    "broker-is-encrypted": error(broker_is_encrypted),
    "file-is-beside": error(file_is_beside),
    "thumbprint-is-one": error(thumbprint_is_one),
    "file-is-pinned-once": error(file_is_pinned_once),
    "key-is-its-own": error(key_is_its_own),
    "flow-key-differs": warning(flow_key_differs),
}
