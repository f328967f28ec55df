# SPDX-License-Identifier: Apache-2.0
"""`Batch` → `Sealed`: encoded as columns, signed, sealed, split by encoded size.

Path: lane → Batch → **seal** → Sealed → spool.

Law:
  - a message is at most `MAX_MESSAGE` bytes: what is longer is halved by rows until it fits, and
    the parts are numbered without holes;
  - a row that does not fit alone is left out and counted; it takes nothing else with it;
  - the flow's own key seals when the policy names one, else the recipient's; without a key nothing
    is sealed;
  - the gateway keeps no key that opens what it sealed.

Standards: see assent/envelope.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from agent.keys import Gateway, Keys
from agent.path import Batch, Sealed
from assent import columns, envelope
from assent.columns import Column, Table
from assent.cosekey import SealPublicKey
from assent.errors import PolicyError, TooLargeError
from assent.policy.signing import SignedPolicy


class Sealer:
    """Seals the batches of one policy. Owned by the thread that owns the lanes.

    Args:
        keys: the gateway's.
        policy: the one in force; its keys are pinned by its signature.
    """

    def __init__(self, keys: Keys, policy: SignedPolicy) -> None:
        self.left_out = 0
        """Readings in rows that did not fit into any message."""
        self._keys = keys
        self._policy = policy
        self._gateways: dict[str, Gateway] = {}

    def seal(self, batch: Batch, first_sequence: int) -> list[Sealed]:
        """Seals a batch.

        Args:
            batch: of a lane.
            first_sequence: number of the first message within the stream.

        Returns:
            One message, or several with the numbers that follow; none when no row fits.

        Raises:
            PolicyError: the policy in force has no key for this recipient.
            KeyStoreError: the gateway's keys cannot be read.
        """
        sealed: list[Sealed] = []
        waiting = [batch.tables]
        while waiting:
            tables = waiting.pop()
            message = self._message(batch, tables, first_sequence + len(sealed))
            if message is not None:
                sealed.append(message)
            elif sum(len(table.times) for table in tables) > 1:
                waiting += reversed(_halves(tables))
            else:
                self.left_out += columns.readings(tables)
        return sealed

    def _message(self, batch: Batch, tables: Sequence[Table], sequence: int) -> Sealed | None:
        # None when it is too long.
        try:
            payload = columns.encode(tables)
        except TooLargeError:
            return None
        if len(payload) > envelope.MAX_MESSAGE:
            return None
        permit = batch.permit
        gateway, to = self._gateway(permit.recipient), self._key(permit.recipient, permit.flow)
        header = envelope.BatchHeader(
            recipient=permit.recipient,
            flow=permit.flow,
            terms=permit.terms_hash,
            record=permit.record,
            stream=batch.stream,
            sequence=sequence,
            epoch=batch.epoch,
            clock=batch.clock,
            gaps=batch.gaps[: envelope.MAX_GAPS],
        )
        signed = envelope.sign_batch(header, payload, gateway.sign, gateway.mailbox)
        try:
            data = envelope.seal(signed, to, gateway.mailbox)
        except TooLargeError:
            return None
        return _sealed(batch, tables, sequence, data)

    def _gateway(self, recipient: str) -> Gateway:
        gateway = self._gateways.get(recipient)
        if gateway is None:
            gateway = self._gateways[recipient] = self._keys.gateway(recipient)
        return gateway

    def _key(self, recipient: str, flow: str) -> SealPublicKey:
        key = self._policy.flow_keys.get(flow) or self._policy.keys.get(recipient)
        if key is None:
            raise PolicyError(f"the policy in force has no key for recipient {recipient}")
        return key


def _sealed(batch: Batch, tables: Sequence[Table], sequence: int, data: bytes) -> Sealed:
    last_ms = max(max(table.times) for table in tables)
    return Sealed(
        flow=batch.permit.flow,
        recipient=batch.permit.recipient,
        stream=batch.stream,
        sequence=sequence,
        data=data,
        digest=hashlib.sha256(data).digest(),
        readings=columns.readings(tables),
        first_ms=min(min(table.times) for table in tables),
        last_ms=last_ms,
        expires_ms=last_ms + batch.permit.keep_ms,
    )


def _halves(tables: Sequence[Table]) -> list[tuple[Table, ...]]:
    # Both have at least one row when there are two or more.
    left = sum(len(table.times) for table in tables) // 2
    first: list[Table] = []
    second: list[Table] = []
    for table in tables:
        rows = min(left, len(table.times))
        left -= rows
        if rows:
            first.append(_rows(table, 0, rows))
        if rows < len(table.times):
            second.append(_rows(table, rows, len(table.times)))
    return [tuple(first), tuple(second)]


def _rows(table: Table, begin: int, end: int) -> Table:
    return Table(
        table.device,
        table.times[begin:end],
        tuple(
            Column(column.attribute, column.kind, column.values[begin:end], column.quantum)
            for column in table.columns
        ),
    )
