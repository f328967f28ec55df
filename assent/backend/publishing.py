# SPDX-License-Identifier: Apache-2.0
"""Signs a policy and bundles it for gateways: the manufacturer's side of `policy.toml`.

Path: policy.toml, policy key → **policy.toml.cose** → bundle → technician → gateway.
Law:
  - a policy with any finding, a warning among them, is not signed;
  - the serial rises: over every policy of the same id that this key signed beside it, and over
    the last one this key signed anywhere, which is noted beside the key;
  - signing the same bytes again gives the same signature, and is no change;
  - a thumbprint that says `sha-256:filled-in-by-sign-policy…` is filled in; one that says anything
    else is a claim, and has to be right;
  - a file is read from under the given root only;
  - the key for acknowledgements, which a backend that is on the network holds, signs no policy.

Security: whoever holds the policy key decides what every gateway may be asked to agree to. It is
best kept on a machine that is not the ingest.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Final

from assent import durable
from assent.backend.keyfiles import read_key
from assent.cosekey import VerifyingKey, decode_signing_key, decode_verifying_key
from assent.enrolment import MAX_FILE, MAX_POLICY, Bundle, encode_bundle
from assent.errors import AssentError, KeyStoreError, PolicyError, RefusedError
from assent.policy.model import Policy, references
from assent.policy.signing import fill_thumbprints, load_policy, open_policy, sign, verify

_EMPTY: Final = "sha-256:filled-in-by-sign-policy"


@dataclasses.dataclass(frozen=True, slots=True)
class Signed:
    """A policy that was signed.

    Attributes:
        policy: what it says.
        path: where its signature lies.
        filled: the files whose thumbprints were filled in.
    """

    policy: Policy
    path: pathlib.Path
    filled: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Last:
    """The newest policy of one id that a key has signed."""

    serial: int
    hash: str


def sign_policy(
    path: pathlib.Path, key_path: pathlib.Path, root: pathlib.Path, today: dt.date
) -> Signed:
    """Signs a policy; the signature is durable beside it when this returns.

    Args:
        path: the policy.
        key_path: the private policy key, a COSE_Key.
        root: the names in the policy are relative to it.
        today: the day on which a review counts as overdue.

    Raises:
        ConfigError: every finding, and a serial that does not rise.
        KeyStoreError: the key cannot be used, or its note not written.
        PolicyError: a file cannot be read or written.
        RefusedError: the key is not one for policies.
    """
    key = read_key(key_path, decode_signing_key, secret=True)
    data = read(path, MAX_POLICY)
    policy = load_policy(data, path.name)
    files = _files(policy, root)
    _check_use(key_path, key.public, policy, files)
    data, filled = _filled(data, policy, files)
    note = key_path.with_name(f"{key_path.name.removesuffix('.key.cose')}.signed.json")
    signed = _noted(note)
    digest = hashlib.sha256(data).hexdigest()
    last = signed.get(policy.policy.id)
    earlier = [one.serial for one in (last,) if one and one.hash != digest]
    earlier += _beside(path, policy.policy.id, key.public)
    highest = max(earlier, default=None)
    signature = sign(data, key, files, today, highest, file_name=path.name)
    signed[policy.policy.id] = _Last(policy.policy.serial, digest)
    # The note first: a serial that was noted and not used is only a number less.
    _write(note, json.dumps({name: dataclasses.astuple(one) for name, one in signed.items()}))
    target = path.with_name(f"{path.name}.cose")
    try:
        if filled:
            durable.write(path, data, mode=path.stat().st_mode & 0o777)
        durable.write(target, signature, mode=0o644)
    except OSError as exc:
        raise PolicyError(f"{target} cannot be written: {exc.strerror}") from exc
    return Signed(policy, target, filled)


def bundle(path: pathlib.Path, key_path: pathlib.Path, root: pathlib.Path) -> bytes:
    """Puts a signed policy and everything it names into one file.

    Args:
        path: the policy; its signature lies beside it.
        key_path: the public policy key, a COSE_Key.
        root: the names in the policy are relative to it.

    Returns:
        The bundle; a gateway that trusts the key will take it.

    Raises:
        AssentError: a gateway would refuse it, and why.
    """
    key = read_key(key_path, decode_verifying_key)
    data = read(path, MAX_POLICY)
    signature = read_signature(path)
    policy = open_policy(data, signature, key, lambda name: _inside(root, name), 0).policy
    return encode_bundle(Bundle(data, signature, key.encode(), _files(policy, root)))


def read(path: pathlib.Path, max_bytes: int) -> bytes:
    """Reads a file a person named.

    Raises:
        PolicyError: it cannot be read.
    """
    try:
        return durable.read(path, max_bytes)
    except OSError as exc:
        raise PolicyError(f"{path} cannot be read: {exc.strerror}") from exc


def read_signature(path: pathlib.Path) -> bytes:
    """Reads the signature beside a policy; empty when there is none."""
    try:
        return durable.read(path.with_name(f"{path.name}.cose"), MAX_FILE)
    except FileNotFoundError:
        return b""
    except OSError as exc:
        raise PolicyError(f"the signature of {path} cannot be read: {exc.strerror}") from exc


def _files(policy: Policy, root: pathlib.Path) -> dict[str, bytes]:
    """Reads what the policy names; what is missing is left to the signer to name with its place."""
    files = {}
    for _, ref in references(policy):
        try:
            files[ref.file] = _inside(root, ref.file)
        except OSError:
            continue
    return files


def _check_use(
    path: pathlib.Path, key: VerifyingKey, policy: Policy, files: Mapping[str, bytes]
) -> None:
    """Refuses a signing key of another use, beside its public half or wherever it was copied."""
    named = [files.get(one.ack_key.file, b"") for one in policy.recipients.values()]
    beside = path.with_name("ack.pub.cose")
    if key.encode() in [*named, _there(beside)]:
        raise RefusedError(
            f"{path} signs acknowledgements, not policies",
            hint="take keys/policy.key.cose, which keygen --policy-key makes",
        )
    public = path.with_name("policy.pub.cose")
    if _there(public) not in {b"", key.encode()}:
        raise RefusedError(
            f"{path} is not the private half of {public}",
            hint="gateways would not take what it signs",
        )


def _there(path: pathlib.Path) -> bytes:
    try:
        return durable.read(path, MAX_FILE)
    except OSError:
        return b""


def _filled(
    data: bytes, policy: Policy, files: Mapping[str, bytes]
) -> tuple[bytes, tuple[str, ...]]:
    empty = {ref.file for _, ref in references(policy) if ref.thumbprint.startswith(_EMPTY)}
    given = {name: files[name] for name in sorted(empty & files.keys())}
    if not given:
        return data, ()
    return fill_thumbprints(data.decode(), given).encode(), tuple(given)


def _inside(root: pathlib.Path, name: str) -> bytes:
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise PolicyError(f"{name} is not under {root}, where the policy's files are")
    return durable.read(path, MAX_FILE)


def _beside(path: pathlib.Path, policy_id: str, key: VerifyingKey) -> list[int]:
    """Finds the serials of the other policies in the same folder that this key signed."""
    serials = []
    for other in path.parent.glob("*.toml"):
        if other.name == path.name:
            continue
        try:
            data = read(other, MAX_POLICY)
            verify(data, read_signature(other), key)
            head = load_policy(data, other.name).policy
        except AssentError:
            continue  # not a policy, or not one that this key signed
        if head.id == policy_id:
            serials.append(head.serial)
    return serials


def _noted(note: pathlib.Path) -> dict[str, _Last]:
    try:
        found = json.loads(durable.read(note, MAX_POLICY))
        return {name: _Last(int(serial), str(digest)) for name, (serial, digest) in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise KeyStoreError(
            f"{note}, which notes what the key has signed, cannot be read",
            hint="a serial must not go back; bring the file back, or remove it knowingly",
        ) from exc


def _write(note: pathlib.Path, text: str) -> None:
    try:
        durable.write(note, f"{text}\n".encode())
    except OSError as exc:
        raise KeyStoreError(f"{note} cannot be written: {exc.strerror}") from exc
