# SPDX-License-Identifier: Apache-2.0
"""The witness of the ledger: a second small place that says how far the ledger had come.

Path: ledger → **witness** → ledger, at the next opening.

Law:
  - it says how many entries there were, the hash of the newest, the highest policy, and since when
    decisions were unknown; it is signed with the ledger key, with words of its own;
  - an entry is written first and witnessed after: a ledger that goes on from what its witness says
    is believed, however far it is ahead; one that is behind it, another, or gone is not;
  - a ledger that begins anew after a loss is witnessed first: what was lost cannot come back in
    between, and a crash there leaves a loss, as it was;
  - a witness that is gone or damaged beside a key that began a ledger is a loss itself.

Security: one file beside the ledger. Who puts both back as they were is believed: of a whole state
that was restored nothing on this machine can know. The write that a crash cut off from its witness
can be taken away until the next opening.
Limits: a disk that does not take it is told in the log; the entry stands all the same.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from agent.records import Entry, PolicyInForce
from agent.records.standing import Standing
from agent.storage import StorageError
from assent import durable
from assent.cosekey import SigningKey, VerifyingKey
from assent.errors import AssentError

_DOMAIN: Final = b"assent witness 1\0"  # the key signs the ledger's entries under another
_MAX_BYTES: Final = 4_096

log = logging.getLogger(__name__)


class Testimony(msgspec.Struct, frozen=True):
    """How far a ledger had come.

    Attributes:
        entries: how many it had, at least one.
        head: hash of the newest, 32 bytes.
        policy: the highest that was in force.
        since_ms: since when decisions were unknown, or 0.
    """

    entries: int
    head: bytes
    policy: PolicyInForce
    since_ms: int

    @classmethod
    def of(cls, standing: Standing) -> Testimony:
        """What there is to say of some entries."""
        since_ms = standing.unknown_since_ms or 0
        return cls(len(standing.entries), standing.head, standing.policy, since_ms)


class Witness:
    """The witness of one ledger; owned by its Ledger.

    Args:
        path: its file, or None for a ledger that has none.
        key: the ledger key.
    """

    def __init__(self, path: Path | None, key: SigningKey) -> None:
        self._path = path
        self._key = key
        self._refusal: str | None = None
        self.said, self._is_damaged = _read(path, key.public) if path else (None, False)

    def objection(self, entries: Sequence[Entry], *, is_new: bool) -> str | None:
        """Says why a ledger is not the one that was witnessed; None when it is.

        Args:
            entries: of the ledger, verified.
            is_new: whether no ledger was ever begun with the key.
        """
        if not entries and not (is_new and self.said is None):
            return "it is gone with every other generation of it"
        if self._is_damaged:
            return "its witness is damaged"
        if self.said is None:
            return None if is_new else "its witness is gone"
        if (
            len(entries) < self.said.entries
            or entries[self.said.entries - 1].hash != self.said.head
        ):
            return "it is older than its witness, or another"
        return None

    def tell(self, standing: Standing) -> None:
        """Keeps how far the ledger has come; durable when this returns.

        Args:
            standing: its entries, at least one: on the disk, or there before anything else is.

        Raises:
            StorageError: it cannot be written; the old one stays.
        """
        testimony = Testimony.of(standing)
        if self._path is None or testimony == self.said:
            return
        try:
            durable.write(self._path, _encode(testimony, self._key))
        except OSError as exc:
            raise StorageError(f"{self._path.name} cannot be written: {exc.strerror}") from exc
        self.said, self._is_damaged = testimony, False

    def try_to_tell(self, standing: Standing) -> None:
        """As `tell`, but a disk that refuses is told in the log: what it says of stands anyway."""
        try:
            self.tell(standing)
        except StorageError as exc:
            if exc.message != self._refusal:
                log.error("ledger not witnessed reason=%s", exc.message)
            self._refusal = exc.message
        else:
            self._refusal = None


def witness_of(ledger: Path) -> Path:
    """Where the witness of a ledger lies."""
    return ledger.with_name(f"{ledger.stem}-witness.json")


def _read(path: Path, key: VerifyingKey) -> tuple[Testimony | None, bool]:
    """What the file says, and whether it is there and says nothing that the key has signed."""
    try:
        data = durable.read(path, _MAX_BYTES)
    except FileNotFoundError:
        return None, False
    except OSError as exc:
        if isinstance(exc, PermissionError):
            raise StorageError(f"{path.name} cannot be read: {exc.strerror}") from exc
        return None, True
    try:
        return _decode(data, key), False
    except (ValueError, TypeError, LookupError, RecursionError, AssentError):
        return None, True


def _encode(said: Testimony, key: SigningKey) -> bytes:
    body = _body(said)
    signature = base64.b64encode(key.sign(_DOMAIN + _bytes(body))).decode("ascii")
    return _bytes({**body, "signature": signature}) + b"\n"


def _decode(data: bytes, key: VerifyingKey) -> Testimony:
    told = json.loads(data)
    policy = PolicyInForce(int(told["serial"]), bytes.fromhex(told["policy"]))
    said = Testimony(
        int(told["entries"]), bytes.fromhex(told["head"]), policy, int(told["since_ms"])
    )
    if said.entries < 1:
        raise ValueError("nothing to witness")
    key.verify(base64.b64decode(told["signature"], validate=True), _DOMAIN + _bytes(_body(said)))
    return said


def _body(said: Testimony) -> dict[str, int | str]:
    return {
        "entries": said.entries,
        "head": said.head.hex(),
        "serial": said.policy.serial,
        "policy": said.policy.hash.hex(),
        "since_ms": said.since_ms,
    }


def _bytes(told: dict[str, int | str]) -> bytes:
    return json.dumps(told, sort_keys=True).encode("ascii")
