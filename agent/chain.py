# SPDX-License-Identifier: Apache-2.0
"""Entries of the ledger as signed documents, and back; no I/O.

Law:
  - a document is an entry and the ledger key's signature over it, both in base64;
  - each entry names the hash of the one before; the first, and only the first, begins a ledger;
  - one document has one spelling, so that no other bytes are taken for it.

Standards: SHA-256 (chain), Ed25519 (RFC 8032), RFC 4648 §4 (base64, strict).
Security: reads documents from a card that anybody may have written; whatever they are, entries
come out that the key signed in this order, or BrokenChainError. What is missing at the end leaves
no trace here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Final

from agent.records import HASH_BYTES, Entry, Start
from agent.records.wire import decode_entry
from assent.cosekey import SigningKey, VerifyingKey
from assent.errors import BadSignatureError, LedgerError

GENESIS: Final = bytes(HASH_BYTES)
"""What the first entry names as the one before."""

_DOMAIN: Final = b"assent ledger 1\0"  # the key signs entries and can be talked into nothing else


class BrokenChainError(LedgerError):
    """The documents are not a ledger of this key."""


def document_of(entry: Entry, key: SigningKey) -> dict[str, str]:
    """Signs an entry.

    Args:
        entry: what to write.
        key: the ledger key.

    Returns:
        The document.
    """
    return {"entry": _text(entry.raw), "signature": _text(key.sign(_DOMAIN + entry.raw))}


def entry_of(document: Mapping[str, object], key: VerifyingKey) -> Entry:
    """Verifies one document by itself.

    Args:
        document: what `document_of` made.
        key: the ledger key.

    Returns:
        The entry in it.

    Raises:
        BrokenChainError: it is something else, or not signed by the key.
    """
    match dict(document):
        case {"entry": str(entry), "signature": str(signature), **rest} if not rest:
            raw = _bytes(entry)
        case _:
            raise BrokenChainError("an entry has other members than it should")
    try:
        key.verify(_bytes(signature), _DOMAIN + raw)
        return decode_entry(raw)
    except (BadSignatureError, LedgerError) as exc:
        raise BrokenChainError(f"an entry does not verify: {exc.message}") from exc


def verified(documents: Mapping[int, Mapping[str, object]], key: VerifyingKey) -> Iterator[Entry]:
    """Verifies documents as a chain.

    Args:
        documents: by number, from 1.
        key: the ledger key.

    Returns:
        The entries, oldest first; none when there are no documents.

    Raises:
        BrokenChainError: one is missing, altered, out of order, or another ledger's.
    """
    prev = GENESIS
    for number in range(1, len(documents) + 1):
        if number not in documents:
            raise BrokenChainError(f"entry {number} is missing")
        entry = entry_of(documents[number], key)
        if entry.prev != prev:
            raise BrokenChainError(f"entry {number} does not follow the one before")
        if isinstance(entry.body, Start) != (number == 1):
            raise BrokenChainError(f"entry {number} begins a ledger, or should")
        prev = entry.hash
        yield entry


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise BrokenChainError("an entry is not written in base64") from exc
    if _text(data) != text:  # the last character may hold bits that decode to nothing
        raise BrokenChainError("an entry is not in the one spelling it has")
    return data
