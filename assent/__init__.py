# SPDX-License-Identifier: Apache-2.0
"""The contract both ends share, and the public Python API for backends.

A subscriber of one's own, whatever it stores into, needs this much of it:

    import assent

    key = assent.decode_seal_private_key(Path("maker/keys/seal.key.cose").read_bytes())

    def on_message(topic: str, data: bytes) -> None:
        mailbox = assent.mailbox_of(topic)
        opened = assent.open_batch(
            data, key=key, signer=signer_of(mailbox), mailbox=mailbox, recipient="maker"
        )
        for table in opened.tables:
            for column in table.columns:
                store(opened.header.flow, table.device, column.attribute, table.times, column)

`open_batch` verifies everything there is to verify about one message, or raises a `WireError`. Not
in these lines, and done by `assent.backend`: whether the terms are published, whether the batch
came before, whether its instants count from a boot, and the acknowledgement without which the
gateway sends it again.

Limits: names are loaded when they are first used, so that the gateway's processes do not pay for
what only a backend needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assent.columns import Column, Kind, Table
    from assent.cosekey import decode_seal_private_key, decode_verifying_key
    from assent.envelope import BatchHeader, Opened, open_batch
    from assent.errors import WireError
    from assent.messages import UP_FILTER, mailbox_of

__all__ = [
    "UP_FILTER",
    "BatchHeader",
    "Column",
    "Kind",
    "Opened",
    "Table",
    "WireError",
    "decode_seal_private_key",
    "decode_verifying_key",
    "mailbox_of",
    "open_batch",
]

_ROOMS = {
    "UP_FILTER": "assent.messages",
    "BatchHeader": "assent.envelope",
    "Column": "assent.columns",
    "Kind": "assent.columns",
    "Opened": "assent.envelope",
    "Table": "assent.columns",
    "WireError": "assent.errors",
    "decode_seal_private_key": "assent.cosekey",
    "decode_verifying_key": "assent.cosekey",
    "mailbox_of": "assent.messages",
    "open_batch": "assent.envelope",
}


def __getattr__(name: str) -> object:
    """Loads a public name from its room (PEP 562)."""
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module 'assent' has no attribute {name!r}")
    return getattr(importlib.import_module(room), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted({*globals(), *__all__})
