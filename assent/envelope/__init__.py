# SPDX-License-Identifier: Apache-2.0
"""The envelope of everything on the wire: COSE sign and seal, verify and open; no I/O.

Inside a COSE_Sign1 by the sender, outside a COSE_Encrypt0 with integrated HPKE to the reader
(docs/decisions/0002-integrated-hpke.md). The rooms behind this door: `assent.header` (what a
signature says), `cose` (the two structures), `message` (both together).

Law:
  - the reader refuses unless the signing key belongs to the mailbox and the recipient is itself;
  - the mailbox, the direction and the format version are signed; mailbox, reader's key id and
    format version are sealed; none of them can be exchanged unnoticed;
  - one value has one encoding; unknown parameters, tags and kinds are refused, never skipped;
  - every failure is a `WireError`, whatever the bytes.

Standards: RFC 9052, RFC 9053, draft-ietf-cose-hpke, draft-ietf-cose-hpke-pq-pqt, docs/wire.md.

Security: a message that verifies may still be a copy of one that came before; who stores batches
compares (gateway key, stream, sequence, digest), and control is harmless when repeated.
"""

from assent.envelope.cose import sign_detached, verify_detached
from assent.envelope.message import (
    Control,
    Opened,
    open_batch,
    open_down,
    open_up,
    recipient_kid,
    seal,
    sign_batch,
    sign_message,
    unseal,
    verify_batch,
    verify_message,
)
from assent.header import (
    MAX_GAPS,
    BatchHeader,
    ClockQuality,
    Gap,
    GapCause,
)
from assent.wire import MAX_MESSAGE, Direction, Kind

__all__ = [
    "MAX_GAPS",
    "MAX_MESSAGE",
    "BatchHeader",
    "ClockQuality",
    "Control",
    "Direction",
    "Gap",
    "GapCause",
    "Kind",
    "Opened",
    "open_batch",
    "open_down",
    "open_up",
    "recipient_kid",
    "seal",
    "sign_batch",
    "sign_detached",
    "sign_message",
    "unseal",
    "verify_batch",
    "verify_detached",
    "verify_message",
]
