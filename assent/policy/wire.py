# SPDX-License-Identifier: Apache-2.0
"""The array in which the terms of a flow are written: its layout, and reading it as that.

Standards: RFC 8949 §4.2.1; docs/terms.md gives the same layout as CDDL.
Security: reads bytes of a ledger or a message; whatever they are, it gives the array or a
WireError. That names are in order and transforms in one spelling is for `assent.policy.terms`.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from assent import cbor
from assent.errors import MalformedError
from assent.policy.model import (
    AttributeKind,
    AttributeType,
    Basis,
    Function,
    Link,
    OnWithdraw,
    Role,
    Sensitivity,
    Then,
)

FORMAT: Final = 1
"""Number of this layout; another one is another hash."""
MAX_BYTES: Final = 1_048_576
"""Longest terms read: a policy file, which holds them with their prose, is no longer."""


Milliseconds = Annotated[int, msgspec.Meta(ge=0)]


class Row(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One attribute as it stands in the array."""

    name: str
    kind: AttributeKind
    type: AttributeType
    choices: tuple[str, ...]
    unit: str | None
    quantum: float | None
    sensitivity: Sensitivity
    transform: str


class TermsArray(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The array, member by member; `keep` and `epoch` are in milliseconds."""

    format: int
    controller: str
    function: Function
    purpose: str
    basis: Basis
    recipient: tuple[str, Role, str]
    attributes: tuple[Row, ...]
    keep: tuple[Milliseconds, Milliseconds, Then]
    epoch: Milliseconds
    links: tuple[Link, ...]
    separate: bool
    on_withdraw: OnWithdraw

    def encode(self) -> bytes:
        """Writes the array as deterministic CBOR.

        Returns:
            The bytes.
        """
        return cbor.encode(msgspec.to_builtins(self))


def decode(data: bytes) -> TermsArray:
    """Reads the array.

    Args:
        data: what `TermsArray.encode` wrote.

    Returns:
        Its members, each of its type.

    Raises:
        WireError: the bytes are not deterministic CBOR, or not this array.
    """
    value = cbor.decode(data, max_bytes=MAX_BYTES)
    try:
        array = msgspec.convert(value, TermsArray, strict=True)
    except msgspec.ValidationError as exc:
        raise MalformedError("expected the array of a flow's terms") from exc
    if array.format != FORMAT:
        raise MalformedError(f"expected terms of format {FORMAT}, got {array.format}")
    return array
