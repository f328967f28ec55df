# SPDX-License-Identifier: Apache-2.0
"""Publishes a maker's bundle in recipients' directories: rows may stand under its terms.

Path: bundle → verify → **policies/ID-SERIAL.toml**, its signature, the bundle, the policy key →
subscriber, which sends the bundle to gateways that run an older policy.
Law:
  - everything is checked for every directory before one byte is written in any;
  - the first bundle's policy key is trusted because a person brought it; a later one's is the same;
  - a policy that seals to keys which are not the directory's is not published there;
  - what was published stays: rows may stand under it.

Security: whoever may write `policies/` of a directory decides what its recipient stores; this room
only keeps a person from publishing what no gateway would send under.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Final

from assent import durable
from assent.backend.directory import Directory
from assent.cosekey import SealPublicKey, decode_verifying_key
from assent.enrolment import MAX_BUNDLE, Bundle, decode_bundle, encode_bundle
from assent.enrolment.kinds import wrong_file
from assent.errors import KeyStoreError, PolicyError, RefusedError, WireError
from assent.policy.signing import SignedPolicy, open_policy
from assent.wire import MAX_SENT_BUNDLE

_POLICY_KEY: Final = "policy.pub.cose"

_Files = dict[pathlib.Path, bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Adopted:
    """A bundle that is published.

    Attributes:
        bundle: what it held.
        signed: its policy.
        written: the files that were written; none when all were there.
        too_long: by how many bytes it is too long to be sent to gateways; 0 when it is not.
    """

    bundle: Bundle
    signed: SignedPolicy
    written: tuple[pathlib.Path, ...]
    too_long: int = 0


def publish(path: pathlib.Path, directories: Sequence[Directory]) -> Adopted:
    """Publishes a bundle; durable when this returns, also for a subscriber that runs.

    Args:
        path: the bundle.
        directories: the recipients' that publish it.

    Raises:
        UsageError: the file is no bundle.
        PolicyError: its policy does not verify, or a file cannot be read or written.
        RefusedError: it is not for a directory's recipient, keys or policy key.
        KeyStoreError: a key of a directory cannot be used.
    """
    bundle, signed = _opened(path)
    wanted: _Files = {}
    for here in directories:
        _check(here, signed)
        wanted |= _files(here, bundle, signed)
    missing = {file: data for file, data in wanted.items() if not _holds(file, data)}
    for file, data in missing.items():
        try:
            durable.make_dirs(file.parent)
            durable.write(file, data, mode=0o644)
        except OSError as exc:
            raise PolicyError(f"{file} cannot be written: {exc.strerror}") from exc
    too_long = max(0, len(encode_bundle(bundle)) - MAX_SENT_BUNDLE)
    return Adopted(bundle, signed, tuple(missing), too_long)


def _opened(path: pathlib.Path) -> tuple[Bundle, SignedPolicy]:
    try:
        data = durable.read(path, MAX_BUNDLE)
    except OSError as exc:
        raise PolicyError(f"{path} cannot be read: {exc.strerror}") from exc
    try:
        bundle = decode_bundle(data)
    except WireError as exc:
        raise wrong_file(path, data, ["bundle"], exc) from exc
    key = decode_verifying_key(bundle.policy_key)
    return bundle, open_policy(bundle.policy, bundle.signature, key, bundle.files.__getitem__, 0)


def _check(here: Directory, signed: SignedPolicy) -> None:
    name, head = here.recipient, signed.policy.policy
    if name not in signed.policy.recipients:
        raise RefusedError(
            f"policy {head.id} {head.version} has no recipient {name}",
            hint=f"{here.root} is the directory of {name}",
        )
    held = here.seal_keys()
    if any(key.kid not in held for key in _seal_keys(signed, name)):
        raise RefusedError(
            f"policy {head.id} {head.version} seals to a key that is not in {here.root / 'keys'}",
            hint=f"the maker has to sign a policy with the files of {here.root / 'public'}",
        )
    if signed.ack_keys[name] != here.ack_key().public:
        raise RefusedError(
            f"policy {head.id} {head.version} names another ack_key than the one in {here.root}",
            hint="gateways would not believe what this backend acknowledges",
        )


def _seal_keys(signed: SignedPolicy, recipient: str) -> Iterator[SealPublicKey]:
    yield signed.keys[recipient]
    for name, flow in signed.policy.flows.items():
        if flow.recipient == recipient:
            yield signed.seal_key(name)


def _files(here: Directory, bundle: Bundle, signed: SignedPolicy) -> _Files:
    """What has to lie in a directory; the policy last, so that it is never there unsigned."""
    head = signed.policy.policy
    policy = here.root / "policies" / f"{head.id}-{head.serial}.toml"
    if policy.exists() and not _holds(policy, bundle.policy):
        raise RefusedError(
            f"a policy of serial {head.serial} is published as {policy} with other bytes",
            hint="a changed policy needs a higher serial; what is published stays",
        )
    key = here.key(_POLICY_KEY)
    if key.exists() and not _holds(key, bundle.policy_key):
        raise RefusedError(
            f"{here.root} trusts another policy key than the bundle brings",
            hint=f"nothing was published; whose key it is, stands in {key}",
        )
    return {
        key: bundle.policy_key,
        policy.with_suffix(".bundle"): encode_bundle(bundle),
        policy.with_name(f"{policy.name}.cose"): bundle.signature,
        policy: bundle.policy,
    }


def _holds(file: pathlib.Path, data: bytes) -> bool:
    try:
        return durable.read(file, MAX_BUNDLE) == data
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise KeyStoreError(f"{file} cannot be read: {exc.strerror}") from exc
