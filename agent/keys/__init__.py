# SPDX-License-Identifier: Apache-2.0
"""The one room that makes, reads and destroys secrets.

Path: keys → ledger (signs its entries), transform (pseudonyms of a flow), seal (gateway keys);
the uplink gets the path of a TLS key and nothing else of this room.

Law:
  - every secret is wrapped (`agent.keys.wrapped`), but a TLS key in use, which a TLS stack reads;
  - nothing of two recipients is related: mailbox, signing, sealing and TLS key are drawn apart;
  - what was destroyed cannot be unwrapped again, from no copy either; a later secret is new;
  - nothing lost is made anew in silence: where something else shows that it once was there, it
    is a KeyStoreError; the ledger's key knows whether there ever was a ledger;
  - a key that cannot be read stops what rests on it and nothing else: wrapping and ledger key the
    whole agent, the policy key every flow, a gateway's its recipient, a flow's the flow; it is
    made anew by an act of a person only (docs/decisions/0024-a-key-that-cannot-be-read.md).

Files: `wrapping.key`, `ledger.key`, `policy.key`, `journal.key`, `gateways/<recipient>.key`,
`flows/<recipient>/<flow>.key`, and those of `agent.keys.tls`.

Security: where the unit has a credential (`agent.keys.credential`), the files open with it alone.
Otherwise whoever reads the wrapping key beside them reads all; that is whoever takes the card. No
secret is in a repr, a message or a log.
Limits: one owner, under the instance lock.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from agent.keys.credential import unit_credential
from agent.keys.identity import Gateway, decode_gateway, decoding
from agent.keys.ledger_key import LedgerKey, decoded, encoded_new
from agent.keys.ring import KEY_BYTES, LOST
from agent.keys.tls import TlsKeys
from agent.keys.wrapped import ShutError, WrappedStore, ours
from assent.cosekey import SigningKey, VerifyingKey, decode_verifying_key
from assent.errors import KeyStoreError, RefusedError
from assent.policy.model import NAME

__all__ = ["Gateway", "Keys"]

_name = re.compile(NAME)


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
        with decoding("the policy key"):
            return decode_verifying_key(raw)

    def has_policy_key(self) -> bool:
        """Whether a policy key is there, readable or not.

        Raises:
            KeyStoreError: it cannot be looked at.
        """
        with ours("the policy key cannot be looked at"):
            return self._store.holds("policy")

    def trust_policy_key(self, key: VerifyingKey, *, replace: bool = False) -> None:
        """Pins the key that policies are verified with; durable when this returns.

        Args:
            key: the manufacturer's.
            replace: also when another one is pinned, or one that cannot be read.

        Raises:
            RefusedError: another one is pinned, and replace is not said.
            KeyStoreError: the store cannot be read or written.
        """
        pinned = None if replace else self.policy_key
        if pinned is not None and pinned.raw != key.raw:
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
        Nothing in the agent calls it before there is a verb that erases (policy C26).

        Args:
            recipient: id of the recipient.
            flow: id of the flow.

        Raises:
            KeyStoreError: the disk refused; to be called again.
        """
        self._store.destroy(_flow_name(recipient, flow))

    def drop_unreadable(self, recipient: str, flow: str) -> None:
        """Removes a flow's secret that does not open any more; one that opens stays.

        Raises:
            KeyStoreError: it cannot be read or removed.
        """
        name = _flow_name(recipient, flow)
        try:
            self._store.read(name)
        except ShutError:
            self._store.remove(name)

    def trouble(self, recipient: str, flow: str) -> str | None:
        """Why a flow to a recipient that admitted this gateway has to stand still; None for none.

        Args:
            recipient: its id.
            flow: id of the flow.

        Returns:
            A sentence that names the file, and what helps.
        """
        try:
            self.gateway(recipient)
        except KeyStoreError as exc:
            return _told(f"gateways/{recipient}", exc, f"assent enrol --renew {recipient}")
        name = _flow_name(recipient, flow)
        try:
            self._store.read(name)
        except KeyStoreError as exc:
            return _told(name, exc, f"assent consent withdraw {flow}, and then a new yes")
        return None

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

    def opens(self, recipient: str) -> bool:
        """Whether what this gateway is to a recipient can be read, or be made."""
        try:
            self.gateway(recipient)
        except KeyStoreError:
            return False
        return True

    def is_lost(self, recipient: str) -> bool:
        """Whether what this gateway was to a recipient is gone for good.

        Raises:
            KeyStoreError: it cannot be looked at.
        """
        try:
            self.gateway(recipient)
        except ShutError:
            return True
        return False

    def forget(self, recipient: str) -> None:
        """Removes what this gateway was to a recipient: the next request is of another gateway.

        Args:
            recipient: id of the recipient.

        Raises:
            KeyStoreError: the disk refused; to be called again.
        """
        self._gateways.pop(recipient, None)
        self._store.remove(f"gateways/{_checked(recipient)}")
        self._tls.forget(recipient)

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
                raise ShutError(f"the gateway key for {recipient!r} is lost", hint=LOST)
            made = Gateway.generate()
            self._store.write(name, made.encode())
            return made
        return decode_gateway(raw, f"the gateway key for {recipient!r}")


def _open_ledger_key(store: WrappedStore) -> LedgerKey:
    raw = store.read("ledger")
    if raw is None:
        if not store.is_empty():
            # It is the first secret ever made. A new one would make a stranger of every record.
            raise KeyStoreError("the key of the ledger is lost", hint=LOST)
        raw = encoded_new(SigningKey.generate())
        store.write("ledger", raw)
    with decoding("the key of the ledger"):
        key, is_new = decoded(raw)

    def keep() -> None:
        store.write("ledger", key.encode())

    return LedgerKey(key, is_new=is_new, keep=keep)


def _checked(text: str) -> str:
    # The shape of a policy's ids (assent/policy/model.py); nothing that means something in a path.
    if not _name.fullmatch(text):
        raise KeyStoreError("an id that is no name cannot have a key")
    return text


def _told(name: str, exc: KeyStoreError, act: str) -> str:
    """What is wrong with a file, and what helps: another one is made where it is lost only."""
    help_ = act if isinstance(exc, ShutError) else exc.hint
    return f"keys/{name}.key: {exc.message}" + (f"; what helps: {help_}" if help_ else "")


def _flow_name(recipient: str, flow: str) -> str:
    return f"flows/{_checked(recipient)}/{_checked(flow)}"
