# SPDX-License-Identifier: Apache-2.0
"""Enrolment by files: a maker's bundle in, one request for each recipient out, an admission in.

Law:
  - the first bundle's policy key is trusted because a technician brought it by hand; the key of a
    later bundle must be the same; `--thumbprint` compares it with what the maker told otherwise;
  - a bundle is verified whole before one byte of it is written; nothing in it can name a path
    outside the configuration directory;
  - each recipient gets a request of its own: mailbox, keys and certificate have nothing in common;
    one that has admitted this gateway is asked again only under another authority, or by `renew`;
  - a bundle is taken in while the agent is stopped; a running one is asked to take an admission in
    and to write a request (agent/admission.py);
  - enrolling agrees to nothing: no flow runs before the household decided.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from agent.admission import request_of, take
from agent.control import NotRunningError, ask
from agent.keys import Keys
from agent.ledger import Ledger
from agent.lock import BusyError, instance_lock
from agent.offline import at_the_desk
from agent.settings import Settings, load_settings
from agent.site import LEDGER, POLICY, SIGNATURE, make_state, open_site
from assent import durable
from assent.cosekey import VerifyingKey, decode_verifying_key, thumbprint_text
from assent.enrolment import (
    MAX_FILE,
    MAX_POLICY,
    Bundle,
    decode_bundle,
    sniff,
)
from assent.errors import AssentError, KeyStoreError, PolicyError, RefusedError, UsageError
from assent.policy.model import Policy, references
from assent.policy.signing import SignedPolicy, load_policy, open_policy
from firmware_bridge.clock import Clock

_REQUESTS = "requests"
_PREFIX: Final = "sha-256:"
_NOT_COMPARED: Final = "not compared: is that the thumbprint which the maker told you?"
_STOP: Final = "stop the agent, enrol, then start it again"
_WAIT: Final = "an agent starts or ends; try again"


class Taken(msgspec.Struct, frozen=True):
    """What a file was and what came of it.

    Attributes:
        kind: `bundle` or `admission`, or `request` when one was written.
        written: the files that were written.
        told: sentences for a person.
    """

    kind: str
    written: tuple[Path, ...]
    told: list[str]


def enrol(directory: Path, data: bytes, *, expected: str | None = None) -> Taken:
    """Takes in a bundle or an admission.

    Args:
        directory: the configuration directory.
        data: the file's bytes.
        expected: thumbprint of the policy key as text, with or without its prefix, or None to trust
            the first that comes, which is told.

    Raises:
        WireError: the file is not what it should be.
        PolicyError: its policy does not verify.
        RefusedError: another key is trusted, or the agent runs.
    """
    settings = load_settings(directory)
    make_state(settings.state)
    kind = sniff(data)
    if kind == "bundle":
        with _alone(settings.state, _STOP):
            return _take_bundle(settings, decode_bundle(data), expected)
    if kind == "admission":
        return Taken("admission", (), _take_admission(settings, data))
    raise UsageError(
        "a request is for the recipient, not for a gateway",
        hint="send it to them; what comes back is an admission",
    )


def renew(directory: Path, recipient: str) -> Taken:
    """Asks a recipient for a new certificate, for a new TLS key; the old pair serves until then.

    Args:
        directory: the configuration directory.
        recipient: id of the recipient.

    Raises:
        UsageError: the policy has no such recipient.
        RefusedError: there is no policy in force.
        AssentError: the request cannot be written.
    """
    settings = load_settings(directory)
    try:
        answer = dict(ask(settings.state, "renew", recipient=recipient))
    except NotRunningError:
        with _patient(_WAIT), at_the_desk(settings) as desk:
            answer = desk.answer({"verb": "renew", "recipient": recipient})
    request = base64.b64decode(answer["request"])
    path = _keep_request(directory, recipient, request)
    told = [f"request written: {path}", "next: give it to the recipient; take its answer in"]
    return Taken("request", (path,), told)


def _take_admission(settings: Settings, data: bytes) -> list[str]:
    with contextlib.suppress(NotRunningError):
        text = base64.b64encode(data).decode("ascii")
        return [str(line) for line in ask(settings.state, "admission", data=text)["told"]]
    with _alone(settings.state, _WAIT):
        clock = Clock(trust=settings.trust)
        site = open_site(settings, clock)
        return take(site, data, clock.now())


@contextlib.contextmanager
def _alone(state: Path, hint: str) -> Iterator[None]:
    """Holds the instance lock, or says what to do about who holds it."""
    with _patient(hint), instance_lock(state):
        yield


@contextlib.contextmanager
def _patient(hint: str) -> Iterator[None]:
    """Says what to do about who holds the instance lock that the block asks for."""
    try:
        yield
    except BusyError as exc:
        raise BusyError(exc.message, hint=hint, holder=exc.holder) from exc


def _take_bundle(settings: Settings, bundle: Bundle, expected: str | None) -> Taken:
    keys = Keys.open(settings.state / "keys")
    now_ms = Clock().now().wall_ms
    ledger = Ledger.open(settings.state / LEDGER, keys.ledger_key, now_ms)
    trusted, is_lost = _trusted(keys, expected)
    policy = _verify(bundle, trusted, ledger, expected)
    is_unproved = trusted is None and expected is None
    before = _authorities(settings.directory)
    written = _write_policy(settings.directory, bundle, policy.policy)
    keys.trust_policy_key(decode_verifying_key(bundle.policy_key), replace=is_lost)
    # From here on an older policy is refused, also when this one never came to run.
    ledger.append_policy(policy.serial, policy.hash, now_ms)
    requests = [
        _keep_request(settings.directory, name, request_of(keys, name))
        for name, authority in policy.cas.items()
        if not keys.admitted(name) or before.get(name, authority) != authority
    ]
    head = policy.policy.policy
    return Taken(
        "bundle",
        (*written, *requests),
        [
            f"policy {head.id} {head.version}, serial {head.serial}, of {head.controller}",
            f"policy key {_thumbprint(bundle)}",
            *([_NOT_COMPARED] if is_unproved else []),
            *(f"request written: {path}" for path in requests),
            "next: give each request to its recipient; take the answers in with assent enrol"
            if requests
            else "next: assent consent show tells what is asked anew; then start the agent again",
        ],
    )


def _authorities(directory: Path) -> dict[str, bytes]:
    """By whom each recipient's broker was judged until now; empty when that cannot be read."""
    try:
        policy = load_policy(durable.read(directory / POLICY, MAX_POLICY))
        return {
            name: durable.read(directory / one.ca.file, MAX_FILE)
            for name, one in policy.recipients.items()
        }
    except (OSError, AssentError):
        return {}


def _trusted(keys: Keys, expected: str | None) -> tuple[VerifyingKey | None, bool]:
    """The policy key that is trusted, and whether it is lost: the maker's word takes its place."""
    try:
        return keys.policy_key, False
    except KeyStoreError as exc:
        if expected is None:
            hint = "type its thumbprint, as the maker told it: assent enrol FILE --thumbprint TEXT"
            raise KeyStoreError(exc.message, hint=hint) from exc
        return None, True


def _verify(
    bundle: Bundle, trusted: VerifyingKey | None, ledger: Ledger, expected: str | None
) -> SignedPolicy:
    thumbprint = _thumbprint(bundle)
    if expected is not None and thumbprint.removeprefix(_PREFIX) != expected.removeprefix(_PREFIX):
        raise RefusedError(
            f"the bundle's policy key is {thumbprint}, not {expected}",
            hint="nothing was taken in; ask the maker which is theirs",
        )
    key = decode_verifying_key(bundle.policy_key)
    if trusted is not None and trusted.thumbprint != key.thumbprint:
        raise RefusedError(
            "this gateway trusts another policy key",
            hint="a gateway serves one maker; nothing was taken in",
        )

    def read_file(name: str) -> bytes:
        if name not in bundle.files:
            raise PolicyError(f"the policy names {name}, which the bundle does not bring")
        return bundle.files[name]

    return open_policy(
        bundle.policy,
        bundle.signature,
        key,
        read_file,
        ledger.highest_serial,
        highest_hash=ledger.policy_hash,
    )


def _thumbprint(bundle: Bundle) -> str:
    return thumbprint_text(decode_verifying_key(bundle.policy_key).thumbprint)


def _write_policy(directory: Path, bundle: Bundle, policy: Policy) -> list[Path]:
    """Files first, policy last: a crash in between pauses the flows until it is taken in again."""
    written = []
    try:
        for name, content in {
            **{name: bundle.files[name] for name in sorted(_named_by(policy))},
            SIGNATURE: bundle.signature,
            POLICY: bundle.policy,
        }.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.write(path, content, mode=0o644)
            written.append(path)
    except OSError as exc:
        raise AssentError(f"{exc.filename} cannot be written: {exc.strerror}") from exc
    return written


def _named_by(policy: Policy) -> set[str]:
    """The files a policy names; whatever else a bundle brings is not written."""
    return {ref.file for _, ref in references(policy)}


def _keep_request(directory: Path, recipient: str, request: bytes) -> Path:
    path = directory / _REQUESTS / f"{recipient}.request"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write(path, request, mode=0o644)
    except OSError as exc:
        raise AssentError(f"{exc.filename} cannot be written: {exc.strerror}") from exc
    return path
