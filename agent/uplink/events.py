# SPDX-License-Identifier: Apache-2.0
"""What may happen on a connection to a broker: frozen records, no behaviour."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Answered(msgspec.Struct, frozen=True):
    """The broker's CONNACK.

    Attributes:
        reason: its code.
        receive_maximum: announced, or None.
        maximum_packet: announced, or None.
        maximum_qos: announced, or None.
        keepalive_s: what it wants instead of ours, or None.
        resumed: it still knew our session.
    """

    reason: int
    receive_maximum: int | None
    maximum_packet: int | None
    maximum_qos: int | None
    keepalive_s: int | None
    resumed: bool


class Subscribed(msgspec.Struct, frozen=True):
    """The broker's SUBACK: whether we may listen to our mailbox."""

    granted: bool


class Confirmed(msgspec.Struct, frozen=True):
    """A PUBACK: which message, and its reason code (0 on 3.1.1)."""

    mid: int
    reason: int


class Came(msgspec.Struct, frozen=True):
    """A message from the recipient; the broker keeps it until it is acknowledged."""

    mid: int
    qos: int
    data: bytes


class Ended(msgspec.Struct, frozen=True):
    """The connection is over.

    Attributes:
        sentence: why, for a person.
        reason: the broker's DISCONNECT code, or None.
        dialled: whether there was a TLS connection at all.
        hung_up: whether the other side closed it without a word.
        refused: whether only a person can mend it.
    """

    sentence: str
    reason: int | None
    dialled: bool
    hung_up: bool = False
    refused: bool = False


Event: TypeAlias = Answered | Subscribed | Confirmed | Came | Ended
