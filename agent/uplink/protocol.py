# SPDX-License-Identifier: Apache-2.0
"""What the uplink decides: window, sizes, reason codes, backoff, version. Pure, no I/O.

Law:
  - at most `WINDOW` messages, and never more than the broker says, are without their PUBACK;
  - a message larger than the broker takes is not sent;
  - a PUBACK that says no, or that nobody is subscribed, means not delivered;
  - every attempt after a failure waits a random part of a ceiling that doubles; it stays at two
    minutes, and at ten where only a person can help;
  - the broker is asked whether it is there after a keepalive without a word, and given up half a
    keepalive later; the broker may shorten it, and lengthens it for itself alone.

Standards: MQTT 5.0 §3.1.2.11 and §3.2.2.3 (properties), §2.4 (reason codes), §4.13; MQTT 3.1.1
§3.2.2.3.
"""

from __future__ import annotations

import enum
import random
import re
from typing import Final

from assent.errors import UplinkError

# More in flight is slower: every PUBACK walks paho's table of messages (measured: 75 µs each at 20,
# 150 µs at 1,000). It is also what one lost connection sends twice at most.
WINDOW: Final = 20
# Seconds; the ceiling of the first wait, and of all. Two minutes are short beside a batch's age.
BACKOFF_S: Final = 1.0
BACKOFF_MAX_S: Final = 120.0
# A certificate nobody knows is not admitted by asking often. What a person mends is noticed within
# ten minutes; a new certificate on the disk at once.
REFUSED_MAX_S: Final = 600.0
# Bytes on their way; more are added when half of it is left, and one message however large it is.
# It is what a link holds in memory, and what a lost connection carries twice: 20 messages of the
# largest size would be 2.4 MB of each. A line that carries 2 kB/s confirms one in time.
BYTES_IN_FLIGHT: Final = 131_072
# Attempts after which the ceiling is 64 s: where a session that was taken over begins.
_TAKEN_OVER_ATTEMPTS: Final = 6
# Closed before CONNACK this often in a row by a broker that spoke 5 before: try 3.1.1 as well.
_DOUBT: Final = 5
_DEFAULT_PORT: Final = 8883  # registered for MQTT over TLS
_ADDRESS: Final = re.compile(
    r"mqtts://(?:\[([0-9A-Fa-f:.]+)\]|([^][/:@?#\s]+))(?::([0-9]{1,5}))?/?"
)


class Version(enum.Enum):
    """Versions of MQTT we speak."""

    V5 = "5"
    V311 = "3.1.1"

    @property
    def other(self) -> Version:
        """The one that this is not."""
        return Version.V311 if self is Version.V5 else Version.V5


class Receipt(enum.Enum):
    """What a PUBACK says."""

    ARRIVED = "arrived"
    NOBODY = "nobody is subscribed"
    """The broker has thrown it away: the backend has no subscription."""
    REFUSED = "refused"
    """The broker did not take it."""


class Reason(enum.IntEnum):
    """Reason codes of MQTT 5 that we act on."""

    SUCCESS = 0x00
    NO_MATCHING_SUBSCRIBERS = 0x10
    ERROR = 0x80
    """This and all above it say no."""
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    BANNED = 0x8A
    BAD_AUTHENTICATION_METHOD = 0x8C
    SESSION_TAKEN_OVER = 0x8E
    PACKET_TOO_LARGE = 0x95


_NEEDS_A_PERSON: Final = frozenset(
    {
        Reason.CLIENT_IDENTIFIER_NOT_VALID,
        Reason.BAD_USER_NAME_OR_PASSWORD,
        Reason.NOT_AUTHORIZED,
        Reason.BANNED,
        Reason.BAD_AUTHENTICATION_METHOD,
    }
)


def needs_a_person(reason: int) -> bool:
    """Says whether the reason code of a CONNACK will hardly change by itself.

    Args:
        reason: the code; those of 3.1.1 come as their fellows of 5.

    Returns:
        Whether somebody has to do something.
    """
    return reason in _NEEDS_A_PERSON


def receipt_of(reason: int) -> Receipt:
    """Says what the reason code of a PUBACK means for the message.

    On 3.1.1 there is none, and a topic that is refused looks like success; there only the backend's
    acknowledgement tells.

    Args:
        reason: the code.

    Returns:
        Whether it arrived at the broker, and if not, why.
    """
    if reason == Reason.NO_MATCHING_SUBSCRIBERS:
        return Receipt.NOBODY
    return Receipt.REFUSED if reason >= Reason.ERROR else Receipt.ARRIVED


def window(receive_maximum: int | None) -> int:
    """Says how many messages may be in flight.

    Args:
        receive_maximum: what the broker announced, or None.

    Returns:
        At least 1, at most `WINDOW`.
    """
    return max(1, min(WINDOW, receive_maximum or WINDOW))


def keepalive(ours_s: int, theirs_s: int | None) -> int:
    """Says how many seconds of silence there may be before the broker is asked.

    A broker that wants to be asked later, or never, is asked all the same: that is allowed, and
    nothing else finds a link that is open at one end only.

    Args:
        ours_s: what we said in CONNECT.
        theirs_s: the Server Keep Alive of the CONNACK, or None.

    Returns:
        Seconds.
    """
    return min(ours_s, theirs_s or ours_s)


def ping_after_s(keepalive_s: int) -> int:
    """Says after which silence the broker is asked: a look a second early, to be in time.

    Args:
        keepalive_s: from `keepalive`.

    Returns:
        Seconds.
    """
    return max(keepalive_s - 2, (keepalive_s + 1) // 2)


def silence_s(keepalive_s: int) -> float:
    """Says after which silence the broker is given up: within one and a half keepalives.

    Args:
        keepalive_s: from `keepalive`; below 3 the answer has two looks' time all the same.

    Returns:
        Seconds.
    """
    return max(1.5 * keepalive_s - 1.0, ping_after_s(keepalive_s) + 2)


def largest_message(maximum_packet: int | None, topic: str) -> int | None:
    """Says how large a message may be.

    Args:
        maximum_packet: Maximum Packet Size the broker announced, or None.
        topic: where it goes.

    Returns:
        Bytes, possibly below zero, or None for no limit.
    """
    if maximum_packet is None:
        return None
    # Command, four bytes of length at most, topic with its length, packet id, no properties.
    return maximum_packet - (1 + 4 + 2 + len(topic.encode()) + 2 + 1)


def address(broker: str) -> tuple[str, int]:
    """Reads where a broker is.

    Args:
        broker: `mqtts://host:port`.

    Returns:
        Host and port.

    Raises:
        UplinkError: another scheme, or no address.
    """
    found = _ADDRESS.fullmatch(broker)
    port = int(found[3] or _DEFAULT_PORT) if found else 0
    if found is None or not 0 < port < 65_536:
        raise UplinkError(
            "expected the broker's address as mqtts://host:port",
            hint="brokers without TLS are not spoken to",
        )
    return found[1] or found[2], port


def next_version(now: Version, *, proven: bool, refused: bool, failures: int) -> Version:
    """Says which version the next attempt speaks after one that got no answer it could use.

    Args:
        now: the version it spoke.
        proven: a broker has answered this version since the uplink began.
        refused: the broker said that it does not speak it; otherwise it hung up.
        failures: attempts in a row that ended like this.

    Returns:
        The version. Brokers that only know 3.1.1 answer, or just hang up.
    """
    if refused or not proven or failures % _DOUBT == 0:
        return now.other
    return now


class Backoff:
    """How long to wait before the next attempt: full jitter under a ceiling that doubles.

    Args:
        rng: where randomness comes from.
    """

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self.attempts = 0

    @property
    def ceiling_s(self) -> float:
        """The longest the next wait can be."""
        return ceiling_s(self.attempts)

    def failed(
        self, lived_s: float = 0.0, *, taken_over: bool = False, refused: bool = False
    ) -> float:
        """Notes that a connection ended or did not come about.

        Only one that lived longer than the present ceiling counts as good. Two clients of one id
        that throw each other out never do.

        Args:
            lived_s: how long the broker had been answering.
            taken_over: another client came with our id.
            refused: only a person can mend it.

        Returns:
            Seconds to wait.
        """
        if lived_s > self.ceiling_s:
            self.attempts = 0
        if taken_over:
            self.attempts = max(self.attempts, _TAKEN_OVER_ATTEMPTS)
        most_s = REFUSED_MAX_S if refused else BACKOFF_MAX_S
        wait_s = self._random.uniform(0.0, ceiling_s(self.attempts, most_s))
        self.attempts += 1
        return wait_s

    def worked(self) -> None:
        """Notes that what was tried has worked."""
        self.attempts = 0


def ceiling_s(attempts: int, most_s: float = BACKOFF_MAX_S) -> float:
    """Gives the longest wait after a number of failures in a row.

    Args:
        attempts: failures before this one.
        most_s: where the doubling ends.

    Returns:
        Seconds.
    """
    return float(min(most_s, BACKOFF_S * 2 ** min(attempts, 16)))


class Pace:
    """How many messages may go now: so many a second, and a window of them at once.

    Args:
        per_s: how many a second.
    """

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._saved = float(WINDOW)
        self._since = 0.0

    def allows(self, now: float) -> int:
        """Says how many may go.

        Args:
            now: monotonic seconds.

        Returns:
            At most a window.
        """
        self._saved = min(float(WINDOW), self._saved + (now - self._since) * self._per_s)
        self._since = now
        return int(self._saved)

    def spend(self, count: int) -> None:
        """Notes that some went.

        Args:
            count: not more than were allowed.
        """
        self._saved -= count
