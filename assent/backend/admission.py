# SPDX-License-Identifier: Apache-2.0
"""Admits a gateway: a request in, a row in the store and an admission out.

Path: EnrolRequest → **admit** → custody.gateways, Admission → technician → gateway.
Law:
  - the request is for this recipient, and whoever made it holds the keys it names;
  - the certificate says the mailbox and nothing else;
  - the gateway is known to the store before its admission exists;
  - a known mailbox under its known keys is a renewal: a new certificate for the TLS key it brings;
    another signing or sealing key for a known mailbox is refused.

Security: admitting says that this gateway may deliver, not that its household agreed to anything.
Who may bring a request is the recipient's own business: this room checks keys, not people.
"""

from __future__ import annotations

import dataclasses
import datetime as dt

from assent.backend.directory import Directory
from assent.backend.store import Store
from assent.backend.store.custody import Row
from assent.enrolment import Admission, decode_request, encode_admission
from assent.errors import RefusedError


@dataclasses.dataclass(frozen=True, slots=True)
class Admitted:
    """What came of a request.

    Attributes:
        mailbox: whom it admits.
        data: the admission to give back.
        is_renewal: whether the gateway was known before.
    """

    mailbox: str
    data: bytes
    is_renewal: bool


def admit(directory: Directory, store: Store, data: bytes, now: dt.datetime) -> Admitted:
    """Admits a gateway, or renews its certificate; its row is durable when this returns.

    Args:
        directory: the recipient's.
        store: the recipient's.
        data: the enrolment request.
        now: the present, with a zone.

    Raises:
        RefusedError: it is for another recipient, or mailbox or key are taken.
        WireError: the request is not what it should be.
        KeyStoreError: a key of the directory cannot be used.
        StoreError: the store refuses.
    """
    request = decode_request(data)
    if request.recipient != directory.recipient:
        raise RefusedError(
            f"the request is for {request.recipient}, this is {directory.recipient}",
            hint="a gateway writes one request for each recipient; take the other one",
        )
    authority, ack_key = directory.authority(), directory.ack_key()
    chain = authority.admit(request.csr, request.mailbox, now)
    row = Row(
        mailbox=request.mailbox,
        sign_key=request.sign_key,
        seal_key=request.seal_key,
        admitted_ms=int(now.timestamp() * 1000),
    )
    with store.changing() as custody:
        is_new = custody.admit(row)
    admission = Admission(directory.recipient, request.mailbox, chain)
    return Admitted(request.mailbox, encode_admission(admission, ack_key), not is_new)
