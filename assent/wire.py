# SPDX-License-Identifier: Apache-2.0
"""The numbers of the wire in one table: format version, limits, directions, code points.

The HPKE numbers are the drafts' assumed ones. When they become final and differ, the table gets
new rows, `FORMAT` goes up, and both stand side by side until the last gateway has moved; nothing
else in the house names a code point.

Standards: RFC 9052, RFC 9053, draft-ietf-cose-dilithium (AKP), draft-ietf-cose-hpke-27,
draft-ietf-cose-hpke-pq-pqt-01.
"""

from __future__ import annotations

import enum
from typing import Final

FORMAT: Final = 1
"""Version of the wire format; in every topic and in the external data of everything signed."""

MAX_MESSAGE: Final = 120_000
"""Longest sealed message in bytes: below 128 kB, the smallest limit of the large MQTT clouds."""
MAX_SENT_BUNDLE: Final = 118_000
"""Longest bundle that goes down as a message; a hybrid seal and the signature add some 1,400."""


class Direction(enum.IntEnum):
    """Which way a message travels; part of what its signature covers."""

    UP = 0
    """From a gateway to the recipient, signed by the gateway's key for it."""
    DOWN = 1
    """From the recipient to a gateway, signed by the recipient's `ack_key`."""


class Kind(enum.IntEnum):
    """Kinds of message."""

    BATCH = 0
    ACKNOWLEDGEMENT = 1
    REQUEST = 2
    STATUS = 3
    POLICY = 4
    TIME = 5

    @property
    def direction(self) -> Direction:
        """The one way this kind travels."""
        comes_down = self in {Kind.ACKNOWLEDGEMENT, Kind.POLICY, Kind.TIME}
        return Direction.DOWN if comes_down else Direction.UP


class Algorithm(enum.IntEnum):
    """COSE algorithms."""

    EDDSA = -8
    """Ed25519 (RFC 9053 §2.2)."""
    HPKE_4 = 42
    """X25519, HKDF-SHA256, ChaCha20-Poly1305 (draft-ietf-cose-hpke, assumed)."""
    HPKE_9 = 56
    """MLKEM768-X25519, SHAKE256, AES-256-GCM (draft-ietf-cose-hpke-pq-pqt, assumed)."""


# CBOR tags, written as the one byte that is their deterministic encoding (RFC 9052 table 1).
TAG_ENCRYPT0: Final = b"\xd0"  # 16
TAG_SIGN1: Final = b"\xd2"  # 18

# Header parameters (RFC 9052 table 3).
HEADER_ALG: Final = 1
HEADER_KID: Final = 4
HEADER_EK: Final = -4  # encapsulated key, draft-ietf-cose-hpke, assumed
HEADER_ASSENT: Final = -70001  # ours, in the range for private use (RFC 9052 §11.1)

# Members of a COSE_Key (RFC 9052 table 4, RFC 9053 tables 18 and 19, AKP of the draft).
KEY_KTY: Final = 1
KEY_KID: Final = 2
KEY_ALG: Final = 3
KTY_OKP: Final = 1
KTY_AKP: Final = 7
OKP_CRV: Final = -1
OKP_X: Final = -2
OKP_D: Final = -4
AKP_PUB: Final = -1
AKP_PRIV: Final = -2
CRV_X25519: Final = 4
CRV_ED25519: Final = 6
