# SPDX-License-Identifier: Apache-2.0
"""The bundle: a recipient's policy with every file that it names, as one file or one message.

Law:
  - it names files by relative paths of its own, keys and certificates only, so that no policy, form
    or setting can be written by bringing one;
  - it proves nothing by itself: `assent.policy.signing.open_policy` does, with the policy key that
    the technician compares.

Standards: docs/wire.md, CDDL `bundle`.
Security: it comes from a stranger.
Limits: 64 files, 2 MiB.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from assent import shapes
from assent.cbor import CborValue
from assent.cosekey import MAX_KEY_BYTES, decode_verifying_key
from assent.enrolment.frame import fields_of, written
from assent.errors import MalformedError, TooLargeError

MAX_BUNDLE: Final = 2 * 2**20
"""Longest bundle in bytes."""
MAX_FILES: Final = 64
MAX_FILE: Final = 65_536
"""Longest file that a policy names, in bytes."""
MAX_POLICY: Final = 2**20
"""Longest policy in bytes."""
_MAX_NAME: Final = 128
_MAX_SIGNATURE: Final = 128
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_SUFFIXES: Final = (".cose", ".pem")
# What a policy, a form or a setting of this gateway ends in, with a signature or without.
_NEVER: Final = (".toml", ".toml.cose")


class Bundle(msgspec.Struct, frozen=True):
    """A recipient's policy with everything it names.

    Attributes:
        policy: bytes of `policy.toml`.
        signature: bytes of `policy.toml.cose`.
        policy_key: COSE_Key that verifies it.
        files: bytes of each file, by its path as the policy names it.
    """

    policy: bytes
    signature: bytes
    policy_key: bytes
    files: dict[str, bytes]


def encode_bundle(bundle: Bundle) -> bytes:
    """Writes a bundle.

    Args:
        bundle: what to write.

    Returns:
        The file's bytes.

    Raises:
        WireError: something a reader would refuse.
    """
    files: dict[int | str, CborValue] = {name: bundle.files[name] for name in bundle.files}
    fields: list[CborValue] = [bundle.policy, bundle.signature, bundle.policy_key, files]
    _bundle(fields)
    return written("bundle", fields, MAX_BUNDLE)


def decode_bundle(data: bytes) -> Bundle:
    """Reads a bundle; verifies nothing of the policy inside.

    Args:
        data: the file's bytes.

    Returns:
        The bundle.

    Raises:
        WireError: not the CDDL of docs/wire.md, over a limit, or a name that is no plain
            relative path of a key or certificate.
    """
    return _bundle(fields_of("bundle", data, MAX_BUNDLE))


def _bundle(fields: list[CborValue]) -> Bundle:
    policy, signature, key, files = shapes.array(fields, "a bundle", count=4)
    if not isinstance(files, dict):
        raise MalformedError("expected a map of names as the files of a bundle")
    if len(files) > MAX_FILES:
        raise TooLargeError(f"expected at most {MAX_FILES} files in a bundle, got {len(files)}")
    policy_key = shapes.octets(key, "policy key", most=MAX_KEY_BYTES)
    decode_verifying_key(policy_key)
    return Bundle(
        shapes.octets(policy, "policy", most=MAX_POLICY),
        shapes.octets(signature, "policy signature", most=_MAX_SIGNATURE),
        policy_key,
        {
            _path(name): shapes.octets(content, "a file of a bundle", most=MAX_FILE)
            for name, content in files.items()
        },
    )


def _path(value: CborValue) -> str:
    """Takes a relative path that cannot leave its folder or name a file a person edits."""
    name = shapes.text(value, "a file name of a bundle", most=_MAX_NAME)
    if not all(_PART.fullmatch(part) for part in name.split("/")):
        raise MalformedError("expected a plain relative path as the name of a file of a bundle")
    if not name.endswith(_SUFFIXES) or name.lower().endswith(_NEVER):
        raise MalformedError("expected a name ending in .cose or .pem in a bundle")
    return name
