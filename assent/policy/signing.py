# SPDX-License-Identifier: Apache-2.0
"""The manufacturer's signature under a policy: made, verified, and the policy opened behind it.

Path: policy.toml and policy.toml.cose → verify → load → pin every file → **SignedPolicy** → gate.

Law, in this order when a policy is opened:
  - the signature is over the file's bytes as they are, and is checked before they are parsed;
  - the serial never goes back, and one serial never names two texts;
  - a policy with an error does not load; one with a warning, an overdue review among them, loads
    but is not signed, so that a date never silences a fleet;
  - every file the policy names has the thumbprint it is named with, and is a key of its use.

Standards: RFC 9052 §4.4 (COSE_Sign1, detached payload), RFC 9679 (thumbprints of COSE keys).
Security: the policy, its signature and its files may be anybody's until this room has passed
them; only the policy key is trusted beforehand. No I/O: files are read by the caller's function.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from assent import cbor, located
from assent.cosekey import (
    SealPublicKey,
    SigningKey,
    VerifyingKey,
    decode_seal_public_key,
    decode_verifying_key,
    file_thumbprint,
    thumbprint_text,
)
from assent.envelope import sign_detached, verify_detached
from assent.errors import AssentError, ConfigError, PolicyError, Severity, WireError
from assent.places import Path, scan
from assent.policy.lints import lint
from assent.policy.model import KeyRef, Policy, references

_AAD: Final = cbor.encode([1, "policy"])
"""Keeps a signature under a policy from passing as one under anything else."""

_PIN = re.compile(r"""["']?thumbprint["']?[ \t]*=[ \t]*("[^"\n]*"|'[^'\n]*')""")


class PolicyUnsignedError(PolicyError):
    """There is no signature beside the policy."""

    code = "policy-unsigned"


class PolicySignatureError(PolicyError):
    """The signature is not by the policy key, or not over these bytes."""

    code = "policy-signature"


class PolicySerialError(PolicyError):
    """An older policy than one this gateway has already run, or another one of the same serial."""

    code = "policy-serial"


class PolicyFileError(PolicyError):
    """A file the policy names is missing, has another thumbprint, or is no key of its use."""

    code = "policy-file"


class SignedPolicy(msgspec.Struct, frozen=True):
    """A policy that may run: signed, loaded, and every file of it pinned.

    Attributes:
        policy: what it says.
        keys: per recipient, the key its batches are sealed to.
        ack_keys: per recipient, the key that verifies what comes from it.
        flow_keys: per flow that names a key of its own, that key.
        cas: per recipient, the PEM its brokers are judged by.
        serial: its serial.
        hash: SHA-256 of its bytes.
    """

    policy: Policy
    keys: Mapping[str, SealPublicKey]
    ack_keys: Mapping[str, VerifyingKey]
    flow_keys: Mapping[str, SealPublicKey]
    cas: Mapping[str, bytes]
    serial: int
    hash: bytes

    def seal_key(self, flow_id: str) -> SealPublicKey:
        """Gives the key a flow's batches are sealed to: its own, else its recipient's.

        Args:
            flow_id: id of a flow of the policy.

        Returns:
            The key.
        """
        own = self.flow_keys.get(flow_id)
        return own if own is not None else self.keys[self.policy.flows[flow_id].recipient]


def load_policy(text: bytes, file_name: str = "policy.toml") -> Policy:
    """Reads a policy, signed or not.

    Args:
        text: the file's bytes.
        file_name: what findings call it.

    Returns:
        The policy; it has no errors, and may have warnings.

    Raises:
        ConfigError: with every error of the file.
    """
    document = located.parse_document(text, file_name)
    policy = located.read(document, Policy)
    findings = lint(policy, document, dt.date.min)  # no error depends on the day
    errors = tuple(finding for finding in findings if finding.severity is Severity.ERROR)
    if errors:
        raise ConfigError(errors)
    return policy


def sign(
    policy_bytes: bytes,
    key: SigningKey,
    files: Mapping[str, bytes],
    today: dt.date,
    previous_serial: int | None = None,
    *,
    file_name: str = "policy.toml",
) -> bytes:
    """Signs a policy that nothing is wrong with.

    Args:
        policy_bytes: the file's bytes, as they will be shipped.
        key: the policy key.
        files: the bytes of every file it names, by the name it uses.
        today: the day on which a review counts as overdue.
        previous_serial: serial of the last policy that was signed; None for the first.
        file_name: what findings call it.

    Returns:
        A detached COSE_Sign1, to be stored beside the policy as `policy.toml.cose`.

    Raises:
        ConfigError: with every error, warning, wrong thumbprint, and a serial that does not rise.
    """
    document = located.parse_document(policy_bytes, file_name)
    policy = located.read(document, Policy)
    findings = lint(policy, document, today)
    for path, ref in references(policy):
        wrong = _what_is_wrong(str(path[-1]), ref, files.get(ref.file))
        if wrong is not None:
            findings.append(document.finding((*path, "thumbprint"), wrong))
    serial = policy.policy.serial
    if previous_serial is not None and serial <= previous_serial:
        message = f"expected a serial over {previous_serial}, which was signed before, got {serial}"
        findings.append(document.finding(("policy", "serial"), message))
    if findings:
        raise ConfigError(tuple(sorted(findings)))
    return sign_detached(policy_bytes, key, _AAD)


def verify(policy_bytes: bytes, signature: bytes, key: VerifyingKey) -> None:
    """Returns when the signature under a policy is the policy key's.

    Args:
        policy_bytes: the file's bytes.
        signature: what `sign` gave; empty when there is none.
        key: the policy key this gateway trusts.

    Raises:
        PolicyUnsignedError: there is no signature.
        PolicySignatureError: it is by another key, over other bytes, or no signature at all.
    """
    if not signature:
        raise PolicyUnsignedError(
            "expected a signature beside the policy, got none",
            hint="policy.toml and policy.toml.cose belong together",
        )
    try:
        verify_detached(policy_bytes, signature, key, _AAD)
    except WireError as exc:
        raise PolicySignatureError(
            "the signature beside the policy is not by the trusted policy key over these bytes",
            hint="a policy is not edited after signing; fetch both files again",
        ) from exc


def open_policy(
    policy_bytes: bytes,
    signature: bytes,
    policy_key: VerifyingKey,
    read_file: Callable[[str], bytes],
    highest_serial: int,
    *,
    highest_hash: bytes | None = None,
) -> SignedPolicy:
    """Opens a policy to run by; the steps are in the Law of this room.

    Args:
        policy_bytes: the file's bytes.
        signature: the bytes beside it; empty when there are none.
        policy_key: the policy key this gateway trusts.
        read_file: gives the bytes of a file the policy names; its OSError and KeyError are ours.
        highest_serial: of any policy this gateway has run; 0 for none.
        highest_hash: SHA-256 of the policy that had it, where known.

    Returns:
        The policy with its keys.

    Raises:
        PolicyError: one class per reason; see the classes of this room.
        ConfigError: signed, but with errors; carries them.
    """
    verify(policy_bytes, signature, policy_key)
    policy = load_policy(policy_bytes)
    digest = hashlib.sha256(policy_bytes).digest()
    _check_serial(policy.policy.serial, highest_serial, digest, highest_hash)
    data: dict[Path, bytes] = {}
    for path, ref in references(policy):
        data[path] = _read(read_file, ref)
        wrong = _what_is_wrong(str(path[-1]), ref, data[path])
        if wrong is not None:
            raise PolicyFileError(f"{ref.file}: {wrong}")
    return SignedPolicy(
        policy=policy,
        keys={
            name: decode_seal_public_key(data["recipients", name, "key"])
            for name in policy.recipients
        },
        ack_keys={
            name: decode_verifying_key(data["recipients", name, "ack_key"])
            for name in policy.recipients
        },
        flow_keys={
            name: decode_seal_public_key(data["flows", name, "key"])
            for name, flow in policy.flows.items()
            if flow.key is not None
        },
        cas={name: data["recipients", name, "ca"] for name in policy.recipients},
        serial=policy.policy.serial,
        hash=digest,
    )


def fill_thumbprints(text: str, files: Mapping[str, bytes]) -> str:
    """Writes the right thumbprint beside every `file = "…"` whose bytes are given.

    Args:
        text: a policy; comments and everything else stay as they are.
        files: bytes by the name the policy uses.

    Returns:
        The policy with its thumbprints.

    Raises:
        ConfigError: the text is no TOML.
        WireError: a `.cose` file is no public key.
    """
    document = located.parse_document(text, "policy.toml")
    changes: list[tuple[int, int, str]] = []
    for path, offset in scan(text).places.items():
        match = _PIN.match(text, offset) if path[-1] == "thumbprint" else None
        name = _at(document.data, (*path[:-1], "file")) if match else None
        if match and isinstance(name, str) and name in files:
            right = thumbprint_text(file_thumbprint(name, files[name]))
            changes.append((match.start(1) + 1, match.end(1) - 1, right))
    for start, end, right in sorted(changes, reverse=True):
        text = text[:start] + right + text[end:]
    return text


_READERS: Final[dict[str, Callable[[bytes], object]]] = {
    "key": decode_seal_public_key,
    "ack_key": decode_verifying_key,
}
_USES: Final = {"key": "a public key to seal to", "ack_key": "an Ed25519 public key"}


def _what_is_wrong(use: str, ref: KeyRef, data: bytes | None) -> str | None:
    if data is None:
        return f"expected the file {ref.file!r}, got none"
    try:
        _READERS.get(use, bytes)(data)
        came = thumbprint_text(file_thumbprint(ref.file, data))
    except WireError:
        return f"expected {_USES.get(use, 'a public key')} in the file, got something else"
    if use == "ca" and b"-----BEGIN CERTIFICATE-----" not in data:
        return "expected certificates in PEM in the file, got something else"
    if came != ref.thumbprint:
        return f"expected the file with thumbprint {ref.thumbprint}, got {came}"
    return None


def _read(read_file: Callable[[str], bytes], ref: KeyRef) -> bytes:
    try:
        return read_file(ref.file)
    except (OSError, KeyError, AssentError) as exc:
        raise PolicyFileError(f"{ref.file}: expected a readable file beside the policy") from exc


def _check_serial(serial: int, highest: int, digest: bytes, known: bytes | None) -> None:
    if serial < highest:
        raise PolicySerialError(
            f"expected a policy of serial {highest} or later, got {serial}",
            hint="an older policy is never run again; ask for the current one",
        )
    if serial == highest and known is not None and digest != known:
        raise PolicySerialError(
            f"another policy of serial {serial} has been in force here",
            hint="a changed policy needs a higher serial",
        )


def _at(value: object, path: Path) -> object:
    """Follows a path of keys; elements of lists hold no files in a policy."""
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value
