# SPDX-License-Identifier: Apache-2.0
"""Messages made and taken apart: signed inside, sealed outside, bound to one mailbox.

Path: Batch (agent) → `sign_batch` → `seal` → spool → broker → `open_batch` → **Opened**.

Law: the order of checks in `open_*` is that of docs/wire.md: length, structure of the seal, key
id, seal, structure of the signature, signature, header, recipient, payload. The first that fails
is the error, and nothing read before the signature held is used for anything else.

Security: reads bytes from anybody who can publish to the broker. A signature is judged by the key
that belongs to the mailbox, never by one the message brings.
"""

from __future__ import annotations

import hashlib

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from assent import columns
from assent.cosekey import SealPrivateKey, SealPublicKey, SigningKey, VerifyingKey
from assent.envelope import cose
from assent.errors import CannotOpenError, MalformedError, TooLargeError, UnknownSuiteError
from assent.header import (
    BatchHeader,
    read_header,
    sealed_data,
    signed_data,
    write_batch,
    write_kind,
)
from assent.wire import MAX_MESSAGE, Direction, Kind


class Opened(msgspec.Struct, frozen=True):
    """A batch that verified and opened. Made by this room only.

    Attributes:
        header: what the gateway signed about it.
        tables: the readings.
        digest: SHA-256 of the sealed bytes, by which a copy is told from a fork.
    """

    header: BatchHeader
    tables: tuple[columns.Table, ...]
    digest: bytes


class Control(msgspec.Struct, frozen=True):
    """A message that verified and is no batch; `assent.messages` reads its body. Made here only."""

    kind: Kind
    body: bytes


def sign_batch(header: BatchHeader, payload: bytes, key: SigningKey, mailbox: str) -> bytes:
    """Signs the columns of a batch together with its header.

    Args:
        header: what is said about it.
        payload: `columns.encode` of its tables.
        key: the gateway's for this recipient.
        mailbox: the gateway's at this recipient.

    Returns:
        A COSE_Sign1.

    Raises:
        WireError: a field of the header that no reader would accept.
    """
    external = signed_data(mailbox, Direction.UP)
    return cose.sign1(write_batch(header), payload, key, external)


def sign_message(kind: Kind, body: bytes, key: SigningKey, mailbox: str) -> bytes:
    """Signs a message that is no batch, for the one direction its kind travels.

    Args:
        kind: which kind.
        body: encoded by `assent.messages`.
        key: the sender's: the gateway's for this recipient, or the recipient's ack key.
        mailbox: the gateway's at this recipient, in both directions.

    Returns:
        A COSE_Sign1.

    Raises:
        MalformedError: a batch, which has a header of its own.
    """
    if kind is Kind.BATCH:
        raise MalformedError("a batch is signed with its header, by sign_batch")
    return cose.sign1(write_kind(kind), body, key, signed_data(mailbox, kind.direction))


def seal(
    signed: bytes,
    to: SealPublicKey,
    mailbox: str,
    *,
    max_bytes: int = MAX_MESSAGE,
    unsafe_ephemeral: X25519PrivateKey | None = None,
) -> bytes:
    """Seals a signed message to its reader; the sealer cannot read it afterwards.

    Args:
        signed: a COSE_Sign1.
        to: the reader's key; its type decides the suite.
        mailbox: the gateway's at this recipient.
        max_bytes: longest result.
        unsafe_ephemeral: see `assent.hpke.seal`; for test vectors only.

    Returns:
        A COSE_Encrypt0.

    Raises:
        TooLargeError: the result would be longer than `max_bytes`.
    """
    data = cose.encrypt0(
        signed, to, sealed_data(mailbox, to.kid), unsafe_ephemeral=unsafe_ephemeral
    )
    if len(data) > max_bytes:
        raise TooLargeError(f"expected a message of at most {max_bytes} bytes, got {len(data)}")
    return data


def recipient_kid(data: bytes, max_bytes: int = MAX_MESSAGE) -> bytes:
    """Reads the key id a message was sealed to, without opening it.

    Args:
        data: a sealed message.
        max_bytes: longest accepted.

    Returns:
        The id, in clear and not yet proven; `SealPublicKey.kid` of some key, to pick it by.

    Raises:
        WireError: no COSE_Encrypt0 of docs/wire.md.
    """
    return cose.read_encrypt0(data, max_bytes).kid


def unseal(data: bytes, key: SealPrivateKey, mailbox: str, max_bytes: int = MAX_MESSAGE) -> bytes:
    """Opens a sealed message.

    Args:
        data: a COSE_Encrypt0.
        key: the reader's.
        mailbox: the one of the topic it came on.
        max_bytes: longest accepted.

    Returns:
        The signed message inside, not verified.

    Raises:
        CannotOpenError: for another key or mailbox, or changed.
        WireError: not the structure of docs/wire.md.
    """
    read = cose.read_encrypt0(data, max_bytes)
    if read.kid != key.kid:
        raise CannotOpenError("the message is sealed to another key")
    return cose.decrypt0(read, key, sealed_data(mailbox, read.kid))


def verify_batch(signed: bytes, key: VerifyingKey, mailbox: str) -> tuple[BatchHeader, bytes]:
    """Verifies a signed batch.

    Args:
        signed: a COSE_Sign1.
        key: the gateway's, known by its mailbox.
        mailbox: the one of the topic it came on.

    Returns:
        Its header and its payload.

    Raises:
        BadSignatureError: another key, mailbox or direction, or changed.
        UnknownSuiteError: no batch.
        WireError: not the structure of docs/wire.md.
    """
    _, header, payload = _verify(signed, key, mailbox, Direction.UP)
    if header is None:
        raise UnknownSuiteError("expected a batch, another kind of message came")
    return header, payload


def verify_message(
    signed: bytes, key: VerifyingKey, mailbox: str, direction: Direction
) -> tuple[Kind, bytes]:
    """Verifies a signed message that is no batch.

    Args:
        signed: a COSE_Sign1.
        key: the sender's, known beforehand.
        mailbox: the one of the topic it came on.
        direction: which way the topic goes.

    Returns:
        Its kind and its body.

    Raises:
        BadSignatureError: another key, mailbox or direction, or changed.
        UnknownSuiteError: a batch, or a kind that does not travel this way.
        WireError: not the structure of docs/wire.md.
    """
    kind, header, body = _verify(signed, key, mailbox, direction)
    if header is not None:
        raise UnknownSuiteError("expected a message of control, a batch came")
    return kind, body


def open_batch(
    data: bytes,
    *,
    key: SealPrivateKey,
    signer: VerifyingKey,
    mailbox: str,
    recipient: str,
    max_bytes: int = MAX_MESSAGE,
    limits: columns.Limits = columns.DEFAULT,
) -> Opened:
    """Opens a batch and verifies everything there is to verify about it.

    Args:
        data: the sealed message.
        key: the recipient's private key.
        signer: the gateway's key, known by its mailbox.
        mailbox: the one of the topic it came on.
        recipient: our own id; the header must name it.
        max_bytes: longest accepted.
        limits: what the columns may inflate to.

    Returns:
        The batch.

    Raises:
        WireError: the first check of docs/wire.md that failed.
    """
    signed = unseal(data, key, mailbox, max_bytes)
    header, payload = verify_batch(signed, signer, mailbox)
    return _opened(data, header, payload, recipient, limits)


def open_up(
    data: bytes,
    *,
    key: SealPrivateKey,
    signer: VerifyingKey,
    mailbox: str,
    recipient: str,
    max_bytes: int = MAX_MESSAGE,
    limits: columns.Limits = columns.DEFAULT,
) -> Opened | Control:
    """Opens whatever came up from a gateway; arguments and errors as `open_batch`."""
    signed = unseal(data, key, mailbox, max_bytes)
    kind, header, payload = _verify(signed, signer, mailbox, Direction.UP)
    if header is None:
        return Control(kind, payload)
    return _opened(data, header, payload, recipient, limits)


def open_down(
    data: bytes,
    *,
    key: SealPrivateKey,
    signer: VerifyingKey,
    mailbox: str,
    max_bytes: int = MAX_MESSAGE,
) -> Control:
    """Opens what came down from a recipient.

    Args:
        data: the sealed message.
        key: the gateway's private key for this recipient.
        signer: the recipient's ack key, as the policy names it.
        mailbox: the gateway's own at this recipient.
        max_bytes: longest accepted.

    Returns:
        The message.

    Raises:
        WireError: the first check of docs/wire.md that failed.
    """
    signed = unseal(data, key, mailbox, max_bytes)
    return Control(*verify_message(signed, signer, mailbox, Direction.DOWN))


def _verify(
    signed: bytes, key: VerifyingKey, mailbox: str, direction: Direction
) -> tuple[Kind, BatchHeader | None, bytes]:
    read = cose.read_sign1(signed, len(signed))  # bounded where it was unsealed
    if read.payload is None:
        raise MalformedError("expected the payload inside the signed message")
    header = cose.verify1(read, read.payload, key, signed_data(mailbox, direction))
    kind, batch = read_header(header)
    if kind.direction is not direction:
        raise UnknownSuiteError("a kind of message came that does not travel this way")
    return kind, batch, read.payload


def _opened(
    data: bytes, header: BatchHeader, payload: bytes, recipient: str, limits: columns.Limits
) -> Opened:
    if header.recipient != recipient:
        raise CannotOpenError("the batch was made for another recipient")
    tables = columns.decode(payload, limits=limits)
    return Opened(header, tables, hashlib.sha256(data).digest())
