# SPDX-License-Identifier: Apache-2.0
"""Enrolment by files: a maker's bundle in, one request for each recipient out, an admission in.

Law:
  - the first bundle's policy key is trusted because a technician brought it by hand; the key of a
    later bundle must be the same; `--thumbprint` compares it with what the maker told otherwise;
  - a bundle is verified whole before one byte of it is written; nothing in it can name a path
    outside the configuration directory;
  - each recipient gets a request of its own: mailbox, keys and certificate have nothing in common;
    one that has admitted this gateway is asked again only under another authority;
  - enrolling agrees to nothing: no flow runs before the household decided.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from agent.keys import Keys
from agent.ledger import Ledger
from agent.lock import BusyError, instance_lock
from agent.settings import Settings, load_settings
from agent.site import LEDGER, POLICY, SIGNATURE, make_state, open_site
from assent import durable
from assent.cosekey import decode_verifying_key, thumbprint_text
from assent.enrolment import (
    MAX_FILE,
    MAX_POLICY,
    Bundle,
    EnrolRequest,
    decode_admission,
    decode_bundle,
    encode_request,
    sniff,
)
from assent.errors import AssentError, PolicyError, RefusedError, UsageError
from assent.policy.model import Policy, references
from assent.policy.signing import SignedPolicy, load_policy, open_policy
from firmware_bridge.clock import Clock

_REQUESTS = "requests"


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """What a file was and what came of it.

    Attributes:
        kind: `bundle` or `admission`.
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
        expected: thumbprint of the policy key as text, or None to trust the first that comes.

    Raises:
        WireError: the file is not what it should be.
        PolicyError: its policy does not verify.
        RefusedError: another key is trusted, or the agent runs.
    """
    settings = load_settings(directory)
    make_state(settings.state)
    kind = sniff(data)
    with _alone(settings.state):
        if kind == "bundle":
            return _take_bundle(settings, decode_bundle(data), expected)
        if kind == "admission":
            return _take_admission(settings, data)
    raise UsageError(
        "a request is for the recipient, not for a gateway",
        hint="send it to them; what comes back is an admission",
    )


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Holds the instance lock, or says what to do about who holds it."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(instance_lock(state))
        except BusyError as exc:
            hint = "stop the agent, enrol, then start it again"
            raise BusyError(exc.message, hint=hint) from exc
        yield


def _take_bundle(settings: Settings, bundle: Bundle, expected: str | None) -> Taken:
    keys = Keys.open(settings.state / "keys")
    now_ms = Clock().now().wall_ms
    ledger = Ledger.open(settings.state / LEDGER, keys.ledger_key, now_ms)
    policy = _verify(bundle, keys, ledger, expected)
    before = _authorities(settings.directory)
    written = _write_policy(settings.directory, bundle, policy.policy)
    keys.trust_policy_key(decode_verifying_key(bundle.policy_key))
    # From here on an older policy is refused, also when this one never came to run.
    ledger.append_policy(policy.serial, policy.hash, now_ms)
    requests = [
        _request(settings.directory, keys, name)
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


def _verify(bundle: Bundle, keys: Keys, ledger: Ledger, expected: str | None) -> SignedPolicy:
    thumbprint = _thumbprint(bundle)
    if expected is not None and thumbprint != expected:
        raise RefusedError(
            f"the bundle's policy key is {thumbprint}, not {expected}",
            hint="nothing was taken in; ask the maker which is theirs",
        )
    key = decode_verifying_key(bundle.policy_key)
    trusted = keys.policy_key
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


def _request(directory: Path, keys: Keys, recipient: str) -> Path:
    gateway = keys.gateway(recipient)
    request = EnrolRequest(
        recipient=recipient,
        mailbox=gateway.mailbox,
        csr=keys.tls_request(recipient),
        sign_key=gateway.sign.public.encode(),
        seal_key=gateway.seal.public.encode(),
    )
    path = directory / _REQUESTS / f"{recipient}.request"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write(path, encode_request(request, gateway.sign), mode=0o644)
    except OSError as exc:
        raise AssentError(f"{exc.filename} cannot be written: {exc.strerror}") from exc
    return path


def _take_admission(settings: Settings, data: bytes) -> Taken:
    site = open_site(settings, Clock().now())
    if site.policy is None:
        sentence = site.trouble.sentence if site.trouble else "no policy"
        raise RefusedError(
            f"an admission needs a policy in force: {sentence}",
            hint="take in the maker's bundle first",
        )
    for recipient, ack_key in site.policy.ack_keys.items():
        try:
            admission = decode_admission(data, ack_key)
        except AssentError:
            continue
        if admission.recipient != recipient:
            continue
        if admission.mailbox != site.keys.gateway(recipient).mailbox:
            raise RefusedError("the admission answers another gateway's request")
        site.keys.admit(recipient, admission.certificate)
        return Taken(
            "admission",
            (),
            [
                f"admitted by {recipient}",
                "next: assent consent show, then assent consent apply FILE, then assent run",
            ],
        )
    raise RefusedError("no recipient of the policy in force signed this admission")
