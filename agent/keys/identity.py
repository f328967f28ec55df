# SPDX-License-Identifier: Apache-2.0
"""What this gateway is to one recipient: a mailbox, a key that signs, a key that opens.

Law: made at random, and written before it is used; what is written is what was made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import msgspec

from assent import cbor
from assent.cosekey import (
    SealPrivateKey,
    SigningKey,
    decode_seal_private_key,
    decode_signing_key,
)
from assent.errors import KeyStoreError, WireError
from assent.messages import new_mailbox

_MAX_BYTES: Final = 8_192  # a signing and a hybrid pair take some 1.5 kB


class Gateway(msgspec.Struct, frozen=True):
    """What this gateway is to one recipient, and to no other.

    Attributes:
        mailbox: 32 lower-case hexadecimal digits.
        sign: signs what goes up.
        seal: opens what comes down.
    """

    mailbox: str
    sign: SigningKey
    seal: SealPrivateKey

    def __repr__(self) -> str:
        return f"Gateway(sign={self.sign!r}, seal={self.seal!r})"

    @classmethod
    def generate(cls) -> Gateway:
        """Draws a new one."""
        return cls(new_mailbox(), SigningKey.generate(), SealPrivateKey.generate())

    def encode(self) -> bytes:
        """Writes it with its secrets, for a store that wraps it."""
        return cbor.encode([self.mailbox, self.sign.encode(), self.seal.encode()])


def decode_gateway(raw: bytes, what: str) -> Gateway:
    """Reads what `Gateway.encode` wrote.

    Args:
        raw: the secret as it was wrapped.
        what: names it.

    Raises:
        KeyStoreError: it is none.
    """
    with decoding(what):
        match cbor.decode(raw, max_bytes=_MAX_BYTES):
            case [str(mailbox), bytes(sign), bytes(seal)]:
                pairs = decode_signing_key(sign), decode_seal_private_key(seal)
                return Gateway(mailbox, *pairs)
    raise KeyStoreError(f"{what} is none")


@contextlib.contextmanager
def decoding(what: str) -> Iterator[None]:
    """Turns an error of the wire into one of the key store.

    Args:
        what: what the bytes should be.

    Raises:
        KeyStoreError: instead of WireError.
    """
    try:
        yield
    except WireError as exc:
        raise KeyStoreError(f"{what} is none: {exc.message}") from exc
