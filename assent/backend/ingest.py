# SPDX-License-Identifier: Apache-2.0
"""Judges one message: bytes in, a verified outcome out; no I/O.

Path: subscriber → **judge** → Outcome → store.
Law, in this order; the first that fails is the reason:
  - the topic names a mailbox, and the mailbox an admitted gateway;
  - the message is sealed to a key of ours, bound to this mailbox, and opens;
  - it is signed by the key of this very gateway, for this mailbox;
  - a batch is for our recipient, its terms are published for its very flow, and its columns stay
    within the terms (`assent.backend.offers`);
  - a request or a status has its one shape;
  - a store that cannot be read judges nothing: the message comes again;
  - where one row of it makes no sense, or memory runs out, the message is laid aside;
  - whatever else happens is a mistake of ours: refused, logged, and the next message is judged.

Standards: docs/wire.md.
Security: reads bytes from anybody who can publish. What is told a gateway about a refused batch
rests on its signature alone, never on what an unverified message says of itself.
"""

from __future__ import annotations

import dataclasses
import logging
import traceback
from collections.abc import Callable, Mapping

from assent.backend.offers import Offer
from assent.backend.outcomes import (
    Accepted,
    Aside,
    Asked,
    DecayedError,
    Gateway,
    Lack,
    Outcome,
    Reason,
    Rejected,
    Told,
)
from assent.cosekey import SealPrivateKey
from assent.envelope import (
    MAX_MESSAGE,
    BatchHeader,
    Control,
    Kind,
    Opened,
    open_up,
    recipient_kid,
    unseal,
    verify_batch,
)
from assent.errors import StoreError, WireError
from assent.messages import decode_request, decode_status, mailbox_of

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Desk:
    """What a judgement rests on.

    Attributes:
        recipient: our own id.
        keys: private keys that open seals, by key id.
        offers: published terms, by flow and hash.
        gateway: finds an admitted gateway by its mailbox.
    """

    recipient: str
    keys: Mapping[bytes, SealPrivateKey] = dataclasses.field(repr=False)
    offers: Mapping[tuple[str, bytes], Offer] = dataclasses.field(repr=False)
    gateway: Callable[[str], Gateway | None]


def judge(topic: str, data: bytes, desk: Desk) -> Outcome:
    """Judges one message that came up. Raises nothing of its own, whatever the bytes.

    Args:
        topic: where it came.
        data: the bytes.
        desk: what is known here.

    Returns:
        What it is, or why it is refused.

    Raises:
        StoreError: nobody can say now whose the mailbox is; that is no word about the message.
    """
    mailbox = ""
    try:
        mailbox = mailbox_of(topic)
        gateway = desk.gateway(mailbox)
        if gateway is None:
            return Rejected(mailbox, Reason.UNKNOWN_MAILBOX)
        return _open(data, gateway, desk)
    except WireError as exc:
        reason = _reason(exc) if mailbox else Reason.BAD_TOPIC
        return Rejected(mailbox, reason, exc.message)
    except DecayedError as exc:
        return Aside(mailbox, Lack.RECORD, detail=exc.message)
    except MemoryError:
        return Aside(mailbox, Lack.MEMORY)
    except StoreError:
        raise
    except Exception as exc:  # noqa: BLE001  # a mistake of ours must not block what comes after
        _log.error("event=judge-failed error=%s size=%d", place_of(exc), len(data))
        return Rejected(mailbox, Reason.INTERNAL)


def place_of(exc: BaseException) -> str:
    """Says what went wrong and where in our code; a message could quote a value, so it does not."""
    last = traceback.extract_tb(exc.__traceback__)[-1:]
    return " ".join([type(exc).__name__, *(f"{one.filename}:{one.lineno}" for one in last)])


def _open(data: bytes, gateway: Gateway, desk: Desk) -> Outcome:
    key = desk.keys.get(recipient_kid(data))
    if key is None:
        return Rejected(gateway.mailbox, Reason.OTHER_KEY)
    try:
        opened = open_up(
            data,
            key=key,
            signer=gateway.sign,
            mailbox=gateway.mailbox,
            recipient=desk.recipient,
            max_bytes=MAX_MESSAGE,
        )
    except WireError as exc:
        header = _signed_header(data, key, gateway)
        foreign = header is not None and header.recipient != desk.recipient
        reason = Reason.OTHER_RECIPIENT if foreign else _reason(exc)
        return Rejected(gateway.mailbox, reason, exc.message, gateway if header else None, header)
    if isinstance(opened, Control):
        return _control(opened, gateway)
    return _batch(opened, gateway, desk)


def _batch(opened: Opened, gateway: Gateway, desk: Desk) -> Outcome:
    accepted = Accepted(gateway, opened)
    header = opened.header
    offer = desk.offers.get((header.flow, header.terms))
    if offer is None:
        return accepted.rejected(Reason.TERMS_NOT_PUBLISHED)
    objection = offer.objection(opened.tables)
    return accepted.rejected(*objection) if objection else accepted


def _control(control: Control, gateway: Gateway) -> Outcome:
    match control.kind:
        case Kind.REQUEST:
            return Asked(gateway, decode_request(control.body))
        case Kind.STATUS:
            return Told(gateway, decode_status(control.body))
        case _:
            return Rejected(gateway.mailbox, Reason.UNKNOWN_SUITE)


def _signed_header(data: bytes, key: SealPrivateKey, gateway: Gateway) -> BatchHeader | None:
    """Finds what a refused batch said of itself, if the gateway did sign it."""
    try:
        signed = unseal(data, key, gateway.mailbox, MAX_MESSAGE)
        return verify_batch(signed, gateway.sign, gateway.mailbox)[0]
    except WireError:
        return None


def _reason(error: WireError) -> Reason:
    try:
        return Reason(error.code)
    except ValueError:
        return Reason.MALFORMED
