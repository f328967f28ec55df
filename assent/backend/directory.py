# SPDX-License-Identifier: Apache-2.0
"""A backend's directory: what lies where, and how it is made, read and checked.

    recipient                 the recipient's id, one line
    keys/seal.key.cose        opens what gateways seal; seal.pub.cose goes into the policy
    keys/ack.key.cose         signs acknowledgements and admissions; ack.pub.cose likewise
    keys/policy.key.cose      signs policies; only where `keygen --policy-key` made it
    keys/policy.pub.cose      verifies the policies below
    keys/NAME.key.cose        a further sealing key: an older one, or one of a flow's own
    tls/ca.pem, ca.key        the certificate authority; ca.pem goes into the policy
    tls/broker.pem, .key      for the broker
    tls/backend.pem, .key     for the subscriber
    public/                   copies under the names they have beside a policy
    policies/*.toml, .cose    the policies that are published: rows may stand under their terms
    policies/*.bundle         the same with all they name, as they are sent to gateways
    store.db, custody.db      the store

Law:
  - a key that is there is never overwritten;
  - a private key that others may read is not used;
  - terms count as published when a policy in `policies/` has them and its signature is the policy
    key's; a policy that does not verify publishes nothing, and the others still do.

Security: the directory is 0700, private keys 0600, not encrypted: the directory's owner is the
recipient's ingest. The authority's and the policy's key are better moved to a machine of their own;
only `admit` and `sign-policy` use them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
from collections.abc import Mapping, Sequence
from typing import Final

from assent import durable
from assent.backend import authority
from assent.backend.authority import Authority, Pair
from assent.backend.broker import BACKEND
from assent.backend.keyfiles import owner_hint, read, read_key, read_secret
from assent.backend.offers import Offer
from assent.cosekey import (
    SealPrivateKey,
    SigningKey,
    VerifyingKey,
    decode_seal_private_key,
    decode_signing_key,
    decode_verifying_key,
)
from assent.enrolment import MAX_POLICY, decode_bundle
from assent.errors import AssentError, KeyStoreError, RefusedError, WireError
from assent.policy.model import Policy
from assent.policy.signing import load_policy, verify
from assent.policy.terms import terms_of
from assent.wire import MAX_SENT_BUNDLE

_MAX_SIGNATURE: Final = 16_384  # a COSE_Sign1 of Ed25519 has some 80 bytes
# A write that the power cut short leaves a name with a dot in front, and any bytes or none.
_NAMED: Final = "[!.]*"

PUBLIC: Final = {"key": "keys/seal.pub.cose", "ack_key": "keys/ack.pub.cose", "ca": "tls/ca.pem"}
"""What the policy names of a recipient, by its use there."""
_PUBLIC_NAMES: Final = {"key": "seal.cose", "ack_key": "ack.cose", "ca": "ca.pem"}


@dataclasses.dataclass(frozen=True, slots=True)
class Sendable:
    """A published policy as a message takes it.

    Attributes:
        serial: of the policy.
        bundle: the policy with everything it names, not longer than a message allows.
    """

    serial: int
    bundle: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """What this recipient has published.

    Attributes:
        offers: by flow and hash of the terms.
        troubles: one sentence for each policy that publishes nothing.
        newest: by id of the policy, the newest of those that can be sent to gateways.
    """

    offers: Mapping[tuple[str, bytes], Offer]
    troubles: tuple[str, ...] = ()
    newest: Mapping[str, Sendable] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Directory:
    """A backend directory that exists."""

    root: pathlib.Path
    recipient: str

    @classmethod
    def open(cls, root: pathlib.Path) -> Directory:
        """Opens a directory that `keygen` made.

        Raises:
            KeyStoreError: it is none, or this account may not enter it.
        """
        try:
            recipient = durable.read(root / "recipient", 200).decode("ascii").strip()
        except PermissionError as exc:
            raise KeyStoreError(
                f"{root / 'recipient'} cannot be read: {exc.strerror}",
                hint=owner_hint(root / "recipient"),
            ) from exc
        except (OSError, UnicodeDecodeError) as exc:
            raise KeyStoreError(
                f"{root} is no backend directory: its file 'recipient' cannot be read",
                hint="make one with: assent-backend keygen DIR --recipient NAME",
            ) from exc
        return cls(root=root, recipient=recipient)

    @property
    def user(self) -> str:
        """The subscriber's name at the broker: its client id and its certificate's name."""
        return user_of(self.recipient)

    def tls(self, name: str) -> pathlib.Path:
        """Path of a file for TLS."""
        return self.root / "tls" / name

    def key(self, name: str) -> pathlib.Path:
        """Path of a key."""
        return self.root / "keys" / name

    def authority(self) -> Authority:
        """Loads the certificate authority.

        Raises:
            KeyStoreError: it is missing, unreadable or open to others.
        """
        secret = read_secret(self.tls("ca.key"))
        return Authority.load(Pair(read(self.tls("ca.pem")), secret))

    def ack_key(self) -> SigningKey:
        """Loads the key that acknowledgements and admissions are signed with.

        Raises:
            KeyStoreError: it is missing, unreadable or open to others.
        """
        return read_key(self.key("ack.key.cose"), decode_signing_key, secret=True)

    def policy_key(self) -> VerifyingKey:
        """Loads the key that published policies are verified with.

        Raises:
            KeyStoreError: it is missing or unreadable.
        """
        return read_key(self.key("policy.pub.cose"), decode_verifying_key)

    def seal_keys(self) -> dict[bytes, SealPrivateKey]:
        """Loads every key that opens seals, by key id: `seal`, older ones, ones of single flows.

        Raises:
            KeyStoreError: one is unreadable or open to others, or `seal` is missing.
        """
        signing = {self.key("ack.key.cose"), self.key("policy.key.cose")}
        paths = {self.key("seal.key.cose"), *self.key("").glob(f"{_NAMED}.key.cose")} - signing
        keys = [read_key(path, decode_seal_private_key, secret=True) for path in sorted(paths)]
        return {key.kid: key for key in keys}

    def published(self) -> Published:
        """Reads the published policies; one that cannot be trusted only loses its own terms.

        Raises:
            KeyStoreError: the policy key is missing or unreadable.
        """
        key = self.policy_key()
        offers: dict[tuple[str, bytes], Offer] = {}
        newest: dict[str, Sendable] = {}
        troubles: list[str] = []
        for path in sorted(self.root.glob(f"policies/{_NAMED}.toml")):
            try:
                policy, sendable = _published_in(path, key)
                found = _offers_of(policy, self.recipient)
            except OSError as exc:
                troubles.append(f"{path.name}: {exc.strerror or exc}")
            except AssentError as exc:
                troubles.append(f"{path.name}: {exc.message}")
            else:
                for offer in found:
                    name = offer.flow, offer.terms.hash
                    offers[name] = offer.beside(offers.get(name))
                if sendable is not None:
                    both = [sendable, newest.get(policy.policy.id, sendable)]
                    newest[policy.policy.id] = max(both, key=lambda one: one.serial)
        return Published(offers, tuple(troubles), newest)

    def fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """Tells whether anything in `policies/` changed: another value, read it again."""
        found = []
        for path in sorted(self.root.glob(f"policies/{_NAMED}")):
            try:
                state = path.stat()
            except FileNotFoundError:
                continue
            found.append((path.name, state.st_mtime_ns, state.st_size))
        return tuple(found)


def create(
    root: pathlib.Path,
    recipient: str,
    *,
    hosts: Sequence[str] = (),
    classical: bool = False,
    policy_key: bool = False,
    now: dt.datetime,
) -> Directory:
    """Makes a backend directory with new keys and certificates; durable when this returns.

    Args:
        root: where; it may exist when nothing of ours is in it.
        recipient: the recipient's id, as in the policy.
        hosts: names and addresses of the broker besides localhost.
        classical: seal to X25519 alone instead of the post-quantum hybrid.
        policy_key: make a key that signs policies, too.
        now: the present, with a zone.

    Raises:
        RefusedError: there are keys already.
        MalformedError: a name cannot stand in a certificate.
        KeyStoreError: the disk refuses.
    """
    files = _new_files(recipient, hosts, now, classical=classical, policy_key=policy_key)
    taken = [name for name in files if (root / name).exists()]
    if taken:
        raise RefusedError(
            f"{root / taken[0]} is there already, and keys are never overwritten",
            hint="choose another directory, or move the old one away",
        )
    try:
        for directory in ("keys", "tls", "policies", "public"):
            durable.make_dirs(root / directory)
        for name, data in files.items():
            public = name == "recipient" or name.endswith((".pem", ".pub.cose"))
            public = public or name.startswith("public/")
            durable.write(root / name, data, mode=0o644 if public else 0o600)
    except OSError as exc:
        raise KeyStoreError(f"{root} cannot be written: {exc.strerror}") from exc
    return Directory(root, recipient)


def public_name(recipient: str, use: str) -> str:
    """What a recipient's public file is called beside a policy, where those of others lie, too."""
    return f"{recipient}-{_PUBLIC_NAMES[use]}"


def user_of(recipient: str) -> str:
    """The name of a recipient's subscriber at the broker."""
    return f"{BACKEND}{recipient}"


def _new_files(
    recipient: str,
    hosts: Sequence[str],
    now: dt.datetime,
    *,
    classical: bool,
    policy_key: bool,
) -> dict[str, bytes]:
    root = authority.create(recipient, now)
    loaded = Authority.load(root)
    broker = loaded.issue_server(["localhost", "127.0.0.1", *hosts], now)
    backend = loaded.issue_client(user_of(recipient), now)
    seal, ack = SealPrivateKey.generate(classical=classical), SigningKey.generate()
    files = {
        "keys/seal.key.cose": seal.encode(),
        "keys/seal.pub.cose": seal.public.encode(),
        "keys/ack.key.cose": ack.encode(),
        "keys/ack.pub.cose": ack.public.encode(),
    }
    if policy_key:
        policy = SigningKey.generate()
        files["keys/policy.key.cose"] = policy.encode()
        files["keys/policy.pub.cose"] = policy.public.encode()
    for name, pair in (("ca", root), ("broker", broker), ("backend", backend)):
        files[f"tls/{name}.key"] = pair.key
        files[f"tls/{name}.pem"] = pair.certificate
    for use, source in PUBLIC.items():
        files[f"public/{public_name(recipient, use)}"] = files[source]
    # Last: a directory without it is none, so that one half made is not used.
    files["recipient"] = f"{recipient}\n".encode("ascii")
    return files


def _published_in(path: pathlib.Path, key: VerifyingKey) -> tuple[Policy, Sendable | None]:
    data = durable.read(path, MAX_POLICY)
    signature = durable.read(path.with_name(f"{path.name}.cose"), _MAX_SIGNATURE)
    verify(data, signature, key)
    policy = load_policy(data, path.name)
    try:
        bundle = durable.read(path.with_suffix(".bundle"), MAX_SENT_BUNDLE)
        is_of_it = decode_bundle(bundle).policy == data
    except (OSError, WireError):  # none was published with it, or it is too long for a message
        is_of_it = False
    return policy, Sendable(policy.policy.serial, bundle) if is_of_it else None


def _offers_of(policy: Policy, recipient: str) -> list[Offer]:
    head = policy.policy
    return [
        Offer(
            name,
            terms_of(policy, name),
            head.version,
            head.serial,
            flow.batch.readings,
            int(flow.batch.age),
        )
        for name, flow in policy.flows.items()
        if flow.recipient == recipient
    ]
