# SPDX-License-Identifier: Apache-2.0
"""The one room that makes, reads and destroys secrets.

Path: keys → ledger (signs its entries), transform (pseudonyms of a flow), seal (gateway keys);
the uplink gets the path of a TLS key and nothing else of this room.

Law:
  - every secret is wrapped (`agent.keys.wrapped`), but a TLS key in use, which a TLS stack reads;
  - nothing of two recipients is related: mailbox, signing, sealing and TLS key are drawn apart;
  - what was destroyed cannot be unwrapped again, from no copy either; a later secret is new;
  - nothing lost is made anew in silence: where something else shows that it once was there, it
    is a KeyStoreError; the ledger's key knows whether there ever was a ledger.

Files: `wrapping.key`, `ledger.key`, `policy.key`, `journal.key`, `gateways/<recipient>.key`,
`flows/<recipient>/<flow>.key`, and those of `agent.keys.tls`.

Security: where the unit has a credential (`agent.keys.credential`), the files open with it alone.
Otherwise whoever reads the wrapping key beside them reads all; that is whoever takes the card. No
secret is in a repr, a message or a log.
Limits: one owner, under the instance lock.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from agent.keys.credential import unit_credential
from agent.keys.ledger_key import LedgerKey, decoded, encoded_new
from agent.keys.ring import KEY_BYTES
from agent.keys.tls import TlsKeys
from agent.keys.wrapped import LOST, ShutError, WrappedStore
from assent import cbor
from assent.cosekey import (
    SealPrivateKey,
    SigningKey,
    VerifyingKey,
    decode_seal_private_key,
    decode_signing_key,
    decode_verifying_key,
)
from assent.errors import KeyStoreError, RefusedError, WireError
from assent.messages import new_mailbox
from assent.policy.model import NAME

_MAX_BYTES: Final = 8_192  # a signing and a hybrid pair take some 1.5 kB

_name = re.compile(NAME)


class Gateway(msgspec.Struct, frozen=True):
    """What this gateway is to one recipient, and to no other.

    Attributes:
        mailbox: 32 lower-case hexadecimal digits.
        sign: signs what goes up.
        seal: opens what comes down.
    """

    mailbox: str
    sign: SigningKey
    seal: SealPrivateKey

    def __repr__(self) -> str:
        return f"Gateway(sign={self.sign!r}, seal={self.seal!r})"


class Keys:
    """The secrets of one gateway. Made by `open`.

    Args:
        directory: where they lie.
        store: the wrapped files in it.
        ledger_key: signs the entries of the ledger.
    """

    def __init__(self, directory: Path, store: WrappedStore, ledger_key: LedgerKey) -> None:
        self._directory = directory
        self._store = store
        self._tls = TlsKeys(directory, store)
        self._gateways: dict[str, Gateway] = {}
        self.ledger_key = ledger_key

    def __repr__(self) -> str:
        return f"Keys({str(self._directory)!r})"

    @classmethod
    def open(cls, directory: Path) -> Keys:
        """Opens the secrets, or makes the first ones where there is nothing yet.

        Args:
            directory: their directory; made with mode 0710 when missing.

        Raises:
            KeyStoreError: unreadable, of a wrong owner or mode, or a part of it is lost; or shut
                under a credential of the unit (`agent.keys.credential`) that is not here.
        """
        store = WrappedStore.open(directory, unit_credential())
        return cls(directory, store, _open_ledger_key(store))

    @property
    def policy_key(self) -> VerifyingKey | None:
        """Verifies policies; None before enrolment.

        Raises:
            KeyStoreError: it is there and cannot be read.
        """
        raw = self._store.read("policy")
        if raw is None:
            return None
        with _decoding("the policy key"):
            return decode_verifying_key(raw)

    def trust_policy_key(self, key: VerifyingKey, *, replace: bool = False) -> None:
        """Pins the key that policies are verified with; durable when this returns.

        Args:
            key: the manufacturer's.
            replace: also when another one is pinned.

        Raises:
            RefusedError: another one is pinned, and replace is not said.
            KeyStoreError: the store cannot be read or written.
        """
        pinned = self.policy_key
        if pinned is not None and pinned.raw != key.raw and not replace:
            raise RefusedError(
                "another policy key is trusted already",
                hint="whoever signs the policy decides what the household can be asked for",
            )
        self._store.write("policy", key.encode())

    def flow_secret(self, recipient: str, flow: str) -> bytes:
        """The secret under a flow's pseudonyms; made when there is none.

        Args:
            recipient: id of the recipient.
            flow: id of the flow.

        Returns:
            32 bytes, the same until destroyed.

        Raises:
            KeyStoreError: it cannot be read or written, or an id is no name.
        """
        return self._drawn(_flow_name(recipient, flow))

    def destroy_flow_secret(self, recipient: str, flow: str) -> None:
        """Makes a flow's pseudonyms untraceable, for good when this returns.

        The file is removed, then the wrapping key is changed: a copy of the file opens with
        nothing that the store still holds. Takes a write for every secret there is.

        Args:
            recipient: id of the recipient.
            flow: id of the flow.

        Raises:
            KeyStoreError: the disk refused; to be called again.
        """
        self._store.destroy(_flow_name(recipient, flow))

    def journal_key(self) -> bytes:
        """The key of the journal of open batches; made when there is none.

        One that is lost is made anew: what it could open holds for minutes, and is then declared
        lost.

        Returns:
            32 bytes.

        Raises:
            KeyStoreError: it cannot be read or written.
        """
        try:
            return self._drawn("journal")
        except ShutError:
            self._store.write("journal", secrets.token_bytes(KEY_BYTES))
            return self._drawn("journal")

    def gateway(self, recipient: str) -> Gateway:
        """What this gateway is to a recipient; made when there is nothing yet.

        Args:
            recipient: id of the recipient.

        Raises:
            KeyStoreError: it cannot be read or written, or it is lost while a TLS key is there.
        """
        if recipient not in self._gateways:
            self._gateways[recipient] = self._open_gateway(_checked(recipient))
        return self._gateways[recipient]

    def tls_request(self, recipient: str) -> bytes:
        """A certificate request for the recipient's broker; its common name is the mailbox.

        It is for a new TLS key, which waits; what is in use stays so until `admit`.

        Args:
            recipient: id of the recipient.

        Returns:
            PEM (RFC 2986), signed with the key that waits.

        Raises:
            KeyStoreError: the key cannot be read or written.
        """
        return self._tls.request(_checked(recipient), self.gateway(recipient).mailbox)

    def admit(self, recipient: str, certificate: bytes, now_ms: int | None = None) -> None:
        """Puts the certificate a recipient issued and its key in use; durable when this returns.

        Args:
            recipient: id of the recipient.
            certificate: PEM, this gateway's first, the chain after it.
            now_ms: the present in ms since 1970 UTC, or None where it is not known.

        Raises:
            KeyStoreError: it has ended, or is not for this gateway's mailbox and the TLS key that
                waits; where none waits, the one in use.
        """
        mailbox = self.gateway(recipient).mailbox
        self._tls.keep(_checked(recipient), mailbox, certificate, now_ms)

    def tls_pair(self, recipient: str) -> Path:
        """Where the certificate and the TLS key for a recipient lie in one file, there or not.

        Raises:
            KeyStoreError: the id is no name.
        """
        return self._tls.pair(_checked(recipient))

    def admitted(self, recipient: str) -> bool:
        """Whether the recipient has admitted this gateway, and certificate and key can be read."""
        return self._tls.is_in_use(_checked(recipient))

    def certificate_ends_ms(self, recipient: str) -> int | None:
        """When the certificate in use ends, in ms since 1970 UTC; None where none can be read."""
        return self._tls.ends_ms(_checked(recipient))

    def _drawn(self, name: str) -> bytes:
        secret = self._store.read(name)
        if secret is None:
            secret = secrets.token_bytes(KEY_BYTES)
            self._store.write(name, secret)
        if len(secret) != KEY_BYTES:
            raise KeyStoreError(f"expected a secret of 32 bytes, got {len(secret)}")
        return secret

    def _open_gateway(self, recipient: str) -> Gateway:
        name = f"gateways/{recipient}"
        raw = self._store.read(name)
        if raw is None:
            if self._tls.is_known(recipient):
                raise KeyStoreError(f"the gateway key for {recipient!r} is lost", hint=LOST)
            return self._new_gateway(name)
        with _decoding(f"the gateway key for {recipient!r}"):
            match cbor.decode(raw, max_bytes=_MAX_BYTES):
                case [str(mailbox), bytes(sign), bytes(seal)]:
                    pairs = decode_signing_key(sign), decode_seal_private_key(seal)
                    return Gateway(mailbox, *pairs)
        raise KeyStoreError(f"the gateway key for {recipient!r} is none")

    def _new_gateway(self, name: str) -> Gateway:
        made = Gateway(new_mailbox(), SigningKey.generate(), SealPrivateKey.generate())
        self._store.write(name, cbor.encode([made.mailbox, made.sign.encode(), made.seal.encode()]))
        return made


def _open_ledger_key(store: WrappedStore) -> LedgerKey:
    raw = store.read("ledger")
    if raw is None:
        if not store.is_empty():
            # It is the first secret ever made. A new one would make a stranger of every record.
            raise KeyStoreError("the key of the ledger is lost", hint=LOST)
        raw = encoded_new(SigningKey.generate())
        store.write("ledger", raw)
    with _decoding("the key of the ledger"):
        key, is_new = decoded(raw)

    def keep() -> None:
        store.write("ledger", key.encode())

    return LedgerKey(key, is_new=is_new, keep=keep)


def _checked(text: str) -> str:
    # The shape of a policy's ids (assent/policy/model.py); nothing that means something in a path.
    if not _name.fullmatch(text):
        raise KeyStoreError("an id that is no name cannot have a key")
    return text


def _flow_name(recipient: str, flow: str) -> str:
    return f"flows/{_checked(recipient)}/{_checked(flow)}"


@contextlib.contextmanager
def _decoding(what: str) -> Iterator[None]:
    try:
        yield
    except WireError as exc:
        raise KeyStoreError(f"{what} is none: {exc.message}") from exc
