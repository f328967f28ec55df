# SPDX-License-Identifier: Apache-2.0
"""Collects what became durable, and makes signed, sealed acknowledgements of it.

Path: Settled (store) → **Letter** → subscriber → broker → the gateway's inbox.
Law:
  - only what the store has committed is acknowledged: the positions are read when a letter is made;
  - a letter is for one gateway, signed by the ack key, sealed to that gateway's key;
  - a request is answered for the streams it names, of the gateway that asks, and no other's;
  - what was refused for its content is told with its reason, and never counted as stored;
  - of a stream whose position cannot be read nothing is told: its gateway keeps what it has;
  - a gateway gets at most some five letters a second, however many batches it sends.

Limits: letters wait in memory. One that is lost costs the gateway a resend, which is a duplicate
here and acknowledged again.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from assent.backend.outcomes import Accepted, Asked, DecayedError, Gateway, Rejected
from assent.backend.store import Settled
from assent.backend.store.positions import Position, Range
from assent.cosekey import SigningKey
from assent.envelope import Kind, seal, sign_message
from assent.messages import (
    MAX_RANGES,
    MAX_REFUSED,
    MAX_STREAMS,
    Acknowledgement,
    Refused,
    StreamAck,
    Verb,
    down_topic,
)

# Five a second: signing and sealing cost some 0.2 ms each, and a gateway waits minutes anyway.
INTERVAL_S: Final = 0.2
# Ranges and refusals take at most 21 bytes each; 4,000 of them stay below a message of 120 kB.
_MAX_ITEMS: Final = 4_000


@dataclasses.dataclass(frozen=True, slots=True)
class Letter:
    """One message to one gateway.

    Attributes:
        topic: where it goes.
        data: signed and sealed.
        expires_s: for how many seconds the broker keeps it for one who is away; None for no limit.
    """

    topic: str
    data: bytes
    expires_s: int | None = None


@dataclasses.dataclass(slots=True)
class _Stream:
    """What has to be told about one stream."""

    sequences: set[int] = dataclasses.field(default_factory=set)
    refused: dict[int, Refused] = dataclasses.field(default_factory=dict)
    whole: bool = False


@dataclasses.dataclass(slots=True)
class _Pile:
    """What has to be told to one gateway."""

    gateway: Gateway
    streams: dict[int, _Stream] = dataclasses.field(default_factory=dict)


class Acknowledger:
    """What is still to be told; owned by the subscriber's thread."""

    def __init__(self, key: SigningKey, position: Callable[[bytes, int], Position]) -> None:
        """Starts with nothing to tell.

        Args:
            key: the recipient's ack key.
            position: finds how far a stream is stored, by thumbprint of the signer and stream.
        """
        self._key = key
        self._position = position
        self._piles: dict[str, _Pile] = {}
        self._not_before: dict[str, float] = {}

    def note(self, settled: Iterable[Settled]) -> None:
        """Takes note of what the store has committed."""
        for one in settled:
            outcome = one.outcome
            match outcome:
                case Accepted():
                    stream = self._stream(outcome.gateway, outcome.header.stream)
                    stream.sequences.add(outcome.header.sequence)
                case Rejected(gateway=Gateway() as gateway, header=header, refused=Refused() as no):
                    assert header is not None
                    refused = self._stream(gateway, header.stream).refused
                    if len(refused) < MAX_REFUSED:
                        refused[no.sequence] = no
                case Asked(request=request) if request.verb is Verb.ACKNOWLEDGE:
                    for asked in request.streams:
                        self._stream(outcome.gateway, asked).whole = True
                case _:
                    pass

    def wait(self, now: float) -> float | None:
        """Says for how many seconds there is nothing to send; None when nothing is waiting.

        Args:
            now: monotonic seconds.
        """
        if not self._piles:
            return None
        due = min(self._not_before.get(mailbox, now) for mailbox in self._piles)
        return max(0.0, due - now)

    def letters(self, now: float) -> Iterator[Letter]:
        """Makes the letters that are due, and forgets what they tell.

        Args:
            now: monotonic seconds.
        """
        due = [box for box in self._piles if self._not_before.get(box, now) <= now]
        self._not_before = {box: at for box, at in self._not_before.items() if at > now}
        for mailbox in due:
            pile = self._piles.pop(mailbox)
            self._not_before[mailbox] = now + INTERVAL_S
            for part in _parts(self._told(pile)):
                body = Acknowledgement(part).encode()
                signed = sign_message(Kind.ACKNOWLEDGEMENT, body, self._key, mailbox)
                yield Letter(down_topic(mailbox), seal(signed, pile.gateway.seal, mailbox))

    def _stream(self, gateway: Gateway, stream: int) -> _Stream:
        pile = self._piles.setdefault(gateway.mailbox, _Pile(gateway))
        return pile.streams.setdefault(stream, _Stream())

    def _told(self, pile: _Pile) -> list[StreamAck]:
        signer = pile.gateway.sign.thumbprint
        found = []
        for stream, pending in sorted(pile.streams.items()):
            with contextlib.suppress(DecayedError):
                found.append(stream_ack(stream, self._position(signer, stream), pending))
        return found


def stream_ack(stream: int, position: Position, pending: _Stream) -> StreamAck:
    """Says what is stored of one stream, less what was refused.

    A fork is stored once and refused once under the same number; the refusal is what is told, so
    that nobody deletes a batch that is not the one that is stored.
    """
    ranges = position.ranges if pending.whole else position.around(frozenset(pending.sequences))
    refused = sorted(pending.refused)
    stored = list(_without([(0, position.watermark - 1), *ranges], refused))
    watermark = stored.pop(0)[1] + 1 if stored and stored[0][0] == 0 else 0
    return StreamAck(
        stream,
        watermark,
        tuple(stored[:MAX_RANGES]),
        tuple(pending.refused[number] for number in refused),
    )


def _without(ranges: Iterable[Range], numbers: list[int]) -> Iterator[Range]:
    """Cuts single numbers out of ranges; an empty range (last before first) is left out."""
    for first, last in ranges:
        start = first
        begin, end = bisect.bisect_left(numbers, first), bisect.bisect_right(numbers, last)
        for number in numbers[begin:end]:
            if start < number:
                yield start, number - 1
            start = number + 1
        if start <= last:
            yield start, last


def _parts(acks: list[StreamAck]) -> Iterator[tuple[StreamAck, ...]]:
    """Divides what is too much for one message."""
    part: list[StreamAck] = []
    items = 0
    for ack in acks:
        weight = len(ack.ranges) + len(ack.refused)
        if part and (len(part) == MAX_STREAMS or items + weight > _MAX_ITEMS):
            yield tuple(part)
            part, items = [], 0
        part.append(ack)
        items += weight
    if part:
        yield tuple(part)
