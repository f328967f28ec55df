# SPDX-License-Identifier: Apache-2.0
"""What the spool takes and gives: frozen records, no behaviour."""

from __future__ import annotations

import enum

import msgspec


class LaneState(enum.IntEnum):
    """Whether what waits in a lane may leave. The numbers are in the database."""

    OPEN = 0
    """Batches enter and leave."""
    PAUSED = 1
    """Nothing enters, nothing leaves, what waits stays: nobody took anything back."""
    CLOSED = 2
    """A no: nothing enters, nothing leaves, and what waits never leaves again."""
    HELD = 3
    """Batches enter that count from the boot; nothing leaves before the time is known."""


class ClockTrust(enum.IntEnum):
    """What the machine's clock is worth to whoever dials. The numbers are in the database."""

    MACHINE = 0
    """It is believed."""
    TOLD = 1
    """It is not; a recipient told the time, and the floor bears it."""
    UNKNOWN = 2
    """It is not, and nobody knows the time: the floor is all that is known."""


class LinkState(enum.Enum):
    """How the uplink stands with one recipient's broker."""

    IDLE = "idle"
    """No open lane and nothing that was asked for waits, so there is no connection."""
    CONNECTING = "connecting"
    """A connection is being made."""
    CONNECTED = "connected"
    """Messages pass."""
    HOLDING = "holding"
    """Connected, but the broker does not take messages now; one is tried from time to time."""
    WAITING = "waiting"
    """Not connected; the next attempt comes after a while."""


class Boot(msgspec.Struct, frozen=True):
    """The boot from which a held stream counts.

    Attributes:
        id: its name.
        low_ms: it did not begin earlier, in ms since 1970.
    """

    id: str
    low_ms: int


class LaneView(msgspec.Struct, frozen=True):
    """One lane as it stands.

    Attributes:
        flow: id of the flow.
        recipient: id of the recipient.
        state: whether what waits may leave.
        core: whether the disk quota spares it until the last.
        not_after_ms: end of the permission, or None.
        generation: rises whenever what was leased before must not leave any more.
        stream: the present stream, or None after a purge.
        next_sequence: the sequence the next batch must have.
        not_before_ms: start of the unbroken yes it was last opened for, in ms since 1970; or of
            what was put from before it, until it is opened again.
    """

    flow: str
    recipient: str
    state: LaneState
    core: bool
    not_after_ms: int | None
    generation: int
    stream: int | None
    next_sequence: int
    not_before_ms: int = 0


class Held(msgspec.Struct, frozen=True):
    """What waits of one flow for the time to be known.

    Attributes:
        batches: how many batches.
        readings: how many values they hold.
        unresolved: how many of the batches count from a boot of which nobody knows when it was.
    """

    batches: int
    readings: int
    unresolved: int


class Waiting(msgspec.Struct, frozen=True):
    """What waits of one flow.

    Attributes:
        batches: how many batches are on the disk.
        readings: how many values they hold.
        bytes: how many bytes of messages.
        oldest_ms: earliest instant in the oldest of them, or None.
        last_acknowledged_ms: when the backend last confirmed one, or None.
        too_large: how many of the batches no broker so far would take.
    """

    batches: int
    readings: int
    bytes: int
    oldest_ms: int | None
    last_acknowledged_ms: int | None
    too_large: int


class Acknowledged(msgspec.Struct, frozen=True):
    """What an acknowledgement did.

    Attributes:
        batches: stored at the backend, deleted here.
        readings: how many values these held.
        refused: batches the backend gave up on, deleted here.
        retried: batches the backend asked for once more.
        unknown: streams named that are not the recipient's, or gone.
        more: it was too much for one transaction; the same acknowledgement deletes more.
        forked: flows of whose present stream the backend holds other batches of the same numbers.
    """

    batches: int
    readings: int
    refused: int
    retried: int
    unknown: int
    more: bool = False
    forked: frozenset[str] = frozenset()


class Purged(msgspec.Struct, frozen=True):
    """What a purge deleted, unopened; what was sent waits, too, until its recipient signed.

    Attributes:
        batches: how many sealed batches.
        readings: how many values, sealed or not.
        bytes: of the sealed batches.
        unconfirmed: batches among them that a broker was given and did not confirm: they may
            still arrive.
    """

    batches: int
    readings: int
    bytes: int
    unconfirmed: int = 0


class Dropped(msgspec.Struct, frozen=True):
    """What quota or age deleted of one flow; a gap declares it."""

    flow: str
    batches: int
    readings: int
    bytes: int


class Target(msgspec.Struct, frozen=True):
    """One recipient's broker, and who we are there.

    Attributes:
        recipient: id of the recipient.
        broker: `mqtts://host:port`, one of the signed policy's.
        mailbox: our mailbox there: topic, client id and name in the certificate.
        ca_pem: the pinned authority, and the only one.
        cert_path: our certificate chain (PEM); read at each connect.
        key_path: our TLS key (PEM); read at each connect.
        briefly: what the broker has confirmed leaves the disk, acknowledged or not.
        clock: what this machine's clock is worth against the ends of certificates.
        wanted: a lane is open, or control that was asked for waits. Given by the spool, ignored
            when set.
    """

    recipient: str
    broker: str
    mailbox: str
    ca_pem: str
    cert_path: str
    key_path: str
    briefly: bool = False
    clock: ClockTrust = ClockTrust.MACHINE
    wanted: bool = False


class Lease(msgspec.Struct, frozen=True):
    """One message the uplink may send now.

    Attributes:
        id: what to report the outcome under; never reused.
        data: sealed bytes.
        flow: id of the flow, or None for control.
        again: the broker has had it before, and the backend has not confirmed it.
        late: it waited before there was a connection.
    """

    id: int
    data: bytes
    flow: str | None
    again: bool = False
    late: bool = False


class Sent(msgspec.Struct, frozen=True):
    """One batch that left, as the household may know it.

    Attributes:
        at_ms: when the broker took it for the first time; of an unconfirmed one, when it was
            given up.
        flow: id of the flow.
        recipient: id of the recipient.
        readings: how many values it holds.
        size: of the sealed message, in bytes.
        digest: SHA-256 of the sealed message.
        confirmed: whether the broker said that it took it; else it may have arrived.
    """

    at_ms: int
    flow: str
    recipient: str
    readings: int
    size: int
    digest: bytes
    confirmed: bool = True


class Inbound(msgspec.Struct, frozen=True):
    """One message from a recipient, unread and unverified."""

    id: int
    recipient: str
    data: bytes
    received_ms: int


class Health(msgspec.Struct, frozen=True):
    """How the uplink stands with one recipient.

    Attributes:
        state: in one word.
        since_ms: since when.
        detail: a sentence for a person, or empty.
    """

    state: LinkState
    since_ms: int
    detail: str = ""
