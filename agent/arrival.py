# SPDX-License-Identifier: Apache-2.0
"""A policy that came down: judged against the one in force, then kept as one file.

Path: inbox → **arrival** → STATE/policy.bundle → site.

Law:
  - the policy key that was trusted when the gateway was enrolled verifies it, and the bundle must
    name that very key; none is ever trusted for a message's sake;
  - it has the id of the policy in force and a serial above it, and opens whole, before one byte of
    it is kept;
  - it is kept by one durable write: what lies there is the old one or the new one, never half;
  - what lies there is verified again each time it is read, like a policy that a person laid down.

Standards: docs/wire.md, `policy-kind`.
Security: who sent it was verified (agent/inbox.py) and counts for nothing here: a recipient can
bring the maker's policy, never make one. The file holds nothing that is secret.
Limits: one file; which of it and the policy beside agent.toml runs is agent/site.py's to say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from assent import durable
from assent.cosekey import VerifyingKey, decode_verifying_key
from assent.enrolment import MAX_BUNDLE, Bundle, decode_bundle
from assent.errors import AssentError, PolicyError
from assent.policy.model import Policy
from assent.policy.signing import (
    PolicySerialError,
    PolicySignatureError,
    SignedPolicy,
    load_policy,
    open_policy,
)

FILE: Final = "policy.bundle"
"""Where it lies in the state directory."""


class OtherPolicyError(PolicyError):
    """It is the trusted maker's, and another policy than the one in force."""

    code = "policy-other"


class NotKeptError(PolicyError):
    """The disk did not take it."""

    code = "policy-not-kept"


class Arrival(msgspec.Struct, frozen=True):
    """A policy that may come into force. Made here only.

    Attributes:
        policy: opened and verified.
        data: the bundle it came in.
    """

    policy: SignedPolicy
    data: bytes


def judge(data: bytes, key: VerifyingKey, current: SignedPolicy) -> Arrival | None:
    """Judges a bundle that a recipient of the policy in force has sent.

    Args:
        data: the bundle.
        key: the policy key this gateway trusts.
        current: the policy in force, whose serial is the highest that ever was.

    Returns:
        The policy that may come into force; None when it is the one in force.

    Raises:
        AssentError: it may not; one class for each reason.
    """
    policy = _opened(decode_bundle(data), key, current.serial, current.hash)
    if policy.policy.policy.id != current.policy.policy.id:
        raise OtherPolicyError("expected the policy with the id of the one in force")
    return None if policy.serial == current.serial else Arrival(policy, data)


def keep(state: Path, data: bytes) -> bytes | None:
    """Keeps a bundle; durable when this returns.

    Args:
        state: the state directory.
        data: of an Arrival.

    Returns:
        What lay there before, for `put_back`.

    Raises:
        NotKeptError: the disk refuses; what lay there still does.
    """
    path = state / FILE
    try:
        before = durable.read(path, MAX_BUNDLE) if path.exists() else None
        durable.write(path, data)
    except OSError as exc:
        raise NotKeptError(f"{path} cannot be written: {exc.strerror}") from exc
    return before


def put_back(state: Path, before: bytes | None) -> None:
    """Undoes `keep`; where the disk refuses that too, the newer one stays for the next start.

    Args:
        state: the state directory.
        before: what `keep` returned.
    """
    path = state / FILE
    try:
        durable.remove(path) if before is None else durable.write(path, before)
    except OSError:
        return


def held(
    state: Path, key: VerifyingKey, highest_serial: int, highest_hash: bytes | None
) -> SignedPolicy | None:
    """Opens what lies in the state directory.

    Args:
        state: the state directory.
        key: the policy key this gateway trusts.
        highest_serial: of any policy that was in force; 0 for none.
        highest_hash: SHA-256 of the policy that had it.

    Returns:
        The policy; None when none came down, or a later one was in force since.

    Raises:
        PolicyError: what lies there cannot be used; the sentence says what to do.
    """
    path = state / FILE
    try:
        return _opened(
            decode_bundle(durable.read(path, MAX_BUNDLE)), key, highest_serial, highest_hash
        )
    except (FileNotFoundError, PolicySerialError):
        return None
    except (OSError, AssentError) as exc:
        why = exc.message if isinstance(exc, AssentError) else exc.strerror
        raise PolicyError(
            f"{path}, a policy that came down, cannot be used: {why};"
            " take in the maker's newest bundle with assent enrol"
        ) from exc


def unsafe_glance(state: Path) -> Policy | None:
    """Reads what lies in the state directory and verifies nothing: for findings, never to run by.

    Args:
        state: the state directory.

    Returns:
        The policy; None where none lies there that loads.
    """
    try:
        return load_policy(decode_bundle(durable.read(state / FILE, MAX_BUNDLE)).policy)
    except (OSError, AssentError):
        return None


def _opened(
    bundle: Bundle, key: VerifyingKey, highest_serial: int, highest_hash: bytes | None
) -> SignedPolicy:
    if decode_verifying_key(bundle.policy_key).thumbprint != key.thumbprint:
        raise PolicySignatureError("expected a bundle of the policy key this gateway trusts")
    return open_policy(
        bundle.policy,
        bundle.signature,
        key,
        bundle.files.__getitem__,
        highest_serial,
        highest_hash=highest_hash,
    )
