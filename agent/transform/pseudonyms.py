# SPDX-License-Identifier: Apache-2.0
"""Keyed pseudonyms of devices and identifiers.

Law:
  - a pseudonym is the first 128 bits of HMAC-SHA-256 over the canonical identifier, under a key of
    this recipient, flow, kind of identifier and epoch; the secret of recipient and flow is random
    and never leaves, so that nobody else can try all serial numbers of a maker;
  - two spellings of one identifier are one identifier: MACs lower-case without separators, all
    others stripped and upper-case;
  - text that is no identifier of its kind, an empty one above all, has no pseudonym: it would be
    the same for every device that lacks one.

Standards: RFC 2104 (HMAC), RFC 5869 (HKDF with SHA-256, empty salt).
Security: pseudonymised data is still personal data.
"""

from __future__ import annotations

import hmac
import re
from typing import Final

from firmware_bridge.sample import Device

PSEUDONYM_BYTES: Final = 16  # 128 bits: nobody guesses one, no two meet
SECRET_BYTES: Final = 32
DEVICE_KIND: Final = "device"

_HASH: Final = "sha256"
_NO_SALT: Final = bytes(32)  # RFC 5869 §2.2: HashLen zeros when there is no salt
_LABEL: Final = b"assent/1 pseudonym"
_SEPARATORS = re.compile(r"[\s:.\-]")
_HARDWARE_ADDRESS = re.compile(r"(?:[0-9a-f]{12}|[0-9a-f]{16})")  # EUI-48, EUI-64
_NUMBERED = re.compile(r"[0-9]{5,20}")  # IMSI, IMEI and ICCID, ITU-T E.212 and E.118
_HARDWARE_KINDS: Final = frozenset({"mac", "bssid", "bluetooth", "eui"})
_NUMBERED_KINDS: Final = frozenset({"imei", "imsi", "iccid"})


def identifier_kind(attribute: str) -> str:
    """Tells the kind of identifier from an attribute's name: its last word.

    Args:
        attribute: such as `device.serial` or `host.wifi-mac`.

    Returns:
        Such as `serial` or `mac`.
    """
    return re.split(r"[.\-]", attribute)[-1]


def canonical(kind: str, text: str) -> str | None:
    """Writes an identifier in the one way it is hashed.

    Args:
        kind: as `identifier_kind` gives it.
        text: the identifier as the hardware spells it.

    Returns:
        The canonical text, or None when it is no identifier of that kind.
    """
    if kind in _HARDWARE_KINDS:
        address = _SEPARATORS.sub("", text).lower()
        return address if _HARDWARE_ADDRESS.fullmatch(address) else None
    if kind in _NUMBERED_KINDS:
        digits = _SEPARATORS.sub("", text)
        return digits if _NUMBERED.fullmatch(digits) else None
    return text.strip().upper() or None


def pseudonym_key(secret: bytes, kind: str, epoch: int) -> bytes:
    """Derives the key of one kind of identifier in one epoch.

    Args:
        secret: the 32 random bytes of (recipient, flow).
        kind: of identifier; has no NUL.
        epoch: number of the pseudonym epoch.

    Returns:
        32 bytes; one block of HKDF-Expand.

    Raises:
        ValueError: a secret of another length.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"expected a secret of {SECRET_BYTES} bytes, got {len(secret)}")
    info = b"\0".join((_LABEL, kind.encode(), epoch.to_bytes(8, "big", signed=True)))
    extracted = hmac.digest(_NO_SALT, secret, _HASH)  # RFC 5869 §2.2
    return hmac.digest(extracted, info + b"\x01", _HASH)  # RFC 5869 §2.3, the first block is all


def pseudonym(key: bytes, identifier: str) -> bytes:
    """Gives the pseudonym of a canonical identifier.

    Args:
        key: of `pseudonym_key`.
        identifier: canonical.

    Returns:
        16 bytes.
    """
    return hmac.digest(key, identifier.encode(), _HASH)[:PSEUDONYM_BYTES]


def device_pseudonym(key: bytes, device: Device, *, is_shared: bool = False) -> bytes:
    """Gives the pseudonym under which a device's tables travel.

    It rests on the serial where the device has one, so that it outlives a new configuration, else
    on the installation's id. Serials are upper-case, so that none can pass for an id.

    Args:
        key: of `pseudonym_key` for `DEVICE_KIND`.
        device: whose tables they are.
        is_shared: whether another device has its serial; the pseudonym then rests on both.

    Returns:
        16 bytes.
    """
    serial = canonical("serial", device.serial or "")
    if serial is None:
        return pseudonym(key, "id:" + device.id)
    return pseudonym(key, f"{serial}\0id:{device.id}" if is_shared else serial)


def device_owner(key: bytes, device: Device) -> bytes:
    """Gives the pseudonym under which a device's memory is kept; no two devices share one.

    It never leaves: two devices of one serial, or of two kinds, are told apart by it.

    Args:
        key: of `pseudonym_key` for `DEVICE_KIND`.
        device: whose memory it is.

    Returns:
        16 bytes.
    """
    return pseudonym(key, "\0".join(("owner:", device.kind, device.id, device.serial or "")))
