# SPDX-License-Identifier: Apache-2.0
"""Makes the test vectors of docs/wire.md: `python -m tests.vectors.generate`.

Law:
  - keys, ephemeral keys, ids and dates come from names, so that making them again gives the same
    bytes; the keys are therefore public and worth nothing;
  - two things cannot be fixed so: the lattice half of a hybrid seal, whose randomness cannot be
    passed in, and the deflated payload, whose bytes differ between versions of zlib. Both are
    kept as they stand in the file as long as they open to what is expected;
  - a negative vector is right in everything but the one thing its name says.

The files hold lower-case hexadecimal for bytes and plain JSON for the rest.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID

from assent import cbor, columns, enrolment, envelope, messages
from assent.cosekey import SealPrivateKey, SigningKey, thumbprint_text
from assent.errors import WireError
from assent.header import gap_fields, sealed_data, signed_data
from assent.wire import Algorithm, Kind

HERE = Path(__file__).parent
Vector = dict[str, Any]


def seed(name: str) -> bytes:
    """32 bytes that everybody can make again."""
    return hashlib.sha256(f"assent test vector: {name}".encode()).digest()


SIGNERS = {name: SigningKey.of(seed(name)) for name in ("gateway", "ack", "policy", "stranger")}
READERS = {
    "recipient-classical": SealPrivateKey.of(Algorithm.HPKE_4, seed("recipient-classical")),
    "recipient-hybrid": SealPrivateKey.of(Algorithm.HPKE_9, seed("recipient-hybrid")),
    "gateway-classical": SealPrivateKey.of(Algorithm.HPKE_4, seed("gateway-classical")),
    "stranger-classical": SealPrivateKey.of(Algorithm.HPKE_4, seed("stranger-classical")),
}
MAILBOX = seed("mailbox")[:16].hex()
OTHER_MAILBOX = seed("other mailbox")[:16].hex()
RECIPIENT = "maker"

TABLES = (
    columns.Table(
        seed("pseudonym of a device")[:16],
        tuple(1_763_770_000_000 + 1_000 * i for i in range(12)),
        (
            columns.Column(
                "appliance.power",
                columns.Kind.NUMBER,
                (605, 605, 604, 606, 1201, 1198, 1203, 1199, 605, 604, 605, 0),
                columns.Quantum(1, 10),
            ),
            columns.Column("appliance.door-open", columns.Kind.BOOLEAN, (False, True) * 6),
        ),
    ),
)
HEADER = envelope.BatchHeader(
    recipient=RECIPIENT,
    flow="remote-diagnosis",
    terms=seed("terms"),
    record=seed("record")[:16],
    stream=int.from_bytes(seed("stream")[:8], "big"),
    sequence=41,
    epoch=680,
    clock=envelope.ClockQuality.TRUSTED,
    gaps=(
        envelope.Gap(
            id=7,
            stream=int.from_bytes(seed("earlier stream")[:8], "big"),
            cause=envelope.GapCause.CRASH,
            first_ms=1_763_769_000_000,
            last_ms=1_763_769_004_000,
            readings=0,
            begin=12,
            end=14,
        ),
    ),
)
ACKNOWLEDGEMENT = messages.Acknowledgement(
    (
        messages.StreamAck(
            HEADER.stream,
            41,
            ((43, 50), (52, 52)),
            (
                messages.Refused(41, messages.RefusalReason.STORE, retry=True),
                messages.Refused(51, messages.RefusalReason.FORK, retry=False),
            ),
        ),
    )
)
REQUEST = messages.Request(seed("request")[:16], messages.Verb.ACKNOWLEDGE, (HEADER.stream,))
STATUS = messages.Status("example-appliances", 17)
TIME = messages.Time(seed("request")[:16], 1_795_313_700_000)


def ephemeral(name: str) -> X25519PrivateKey:
    """The one-time key of one classical message."""
    return X25519PrivateKey.from_private_bytes(seed(f"ephemeral of {name}"))


def seal(name: str, signed: bytes, reader: str, mailbox: str = MAILBOX) -> bytes:
    """Seals a message to the same bytes every time (classical keys)."""
    public = READERS[reader].public
    return envelope.seal(signed, public, mailbox, unsafe_ephemeral=ephemeral(name))


def keys() -> list[Vector]:
    """Every key, both halves, with its names."""
    return [
        {
            "name": name,
            "use": "sign" if isinstance(key, SigningKey) else "seal",
            "seed": seed(name).hex(),
            "private": key.encode().hex(),
            "public": key.public.encode().hex(),
            "thumbprint": thumbprint_text(key.thumbprint),
            "kid": key.kid.hex(),
        }
        for name, key in [*SIGNERS.items(), *READERS.items()]
    ]


def _message(name: str, kind: Kind, signed: bytes, signer: str, reader: str) -> Vector:
    key = READERS[reader].public
    protected = cbor.decode(signed[1:], max_bytes=len(signed))
    assert isinstance(protected, list)
    return {
        "name": name,
        "kind": int(kind),
        "direction": kind.direction.name.lower(),
        "mailbox": MAILBOX,
        "recipient": RECIPIENT,
        "signer": signer,
        "reader": reader,
        "signed_external_aad": signed_data(MAILBOX, kind.direction).hex(),
        "protected": bytes(protected[0] if isinstance(protected[0], bytes) else b"").hex(),
        "signed": signed.hex(),
        "sealed_external_aad": sealed_data(MAILBOX, key.kid).hex(),
    }


def _sealed(vector: Vector, signed: bytes, reader: str, old: dict[str, Vector]) -> Vector:
    """Adds the sealed form; keeps a hybrid one that still opens."""
    name, key = vector["name"], READERS[reader]
    vector["deterministic"] = key.algorithm is Algorithm.HPKE_4
    if vector["deterministic"]:
        vector["ephemeral"] = seed(f"ephemeral of {name}").hex()
        data = seal(name, signed, reader)
    else:
        data = bytes.fromhex(old.get(name, {}).get("sealed", ""))
        try:
            fresh = envelope.unseal(data, key, MAILBOX) != signed
        except WireError:
            fresh = True
        data = envelope.seal(signed, key.public, MAILBOX) if fresh else data
    return vector | {"sealed": data.hex(), "digest": hashlib.sha256(data).hexdigest()}


def plain(tables: Sequence[columns.Table]) -> list[Any]:
    """What tables say, whatever kind of sequence holds it."""
    return [
        [
            bytes(t.device),
            list(t.times),
            [[c.attribute, c.kind, list(c.values), c.quantum] for c in t.columns],
        ]
        for t in tables
    ]


def payload() -> bytes:
    """The columns of the batch, as they stand in the file when that decodes to the same."""
    for vector in load("messages.json"):
        if vector["kind"] == Kind.BATCH:
            with contextlib.suppress(WireError):
                if plain(columns.decode(bytes.fromhex(vector["payload"]))) == plain(TABLES):
                    return bytes.fromhex(vector["payload"])
    return columns.encode(TABLES)


def signed_batch() -> bytes:
    """The batch all of these are about."""
    return envelope.sign_batch(HEADER, payload(), SIGNERS["gateway"], MAILBOX)


def positive(old: dict[str, Vector]) -> list[Vector]:
    """One message of each kind, the batch in both suites."""
    vectors = []
    for reader in ("recipient-classical", "recipient-hybrid"):
        signed = signed_batch()
        vector = _message(f"batch to {reader}", Kind.BATCH, signed, "gateway", reader)
        vector["header"] = {
            "recipient": HEADER.recipient,
            "flow": HEADER.flow,
            "terms": HEADER.terms.hex(),
            "record": HEADER.record.hex(),
            "stream": HEADER.stream,
            "sequence": HEADER.sequence,
            "epoch": HEADER.epoch,
            "clock": int(HEADER.clock),
            "gaps": [list(vars_of(gap)) for gap in HEADER.gaps],
        }
        vector["payload"] = payload().hex()
        vector["readings"] = columns.readings(TABLES)
        vectors.append(_sealed(vector, signed, reader, old))
    bodies = [
        ("acknowledgement", Kind.ACKNOWLEDGEMENT, ACKNOWLEDGEMENT.encode(), "ack", "gateway-classical"),
        ("request", Kind.REQUEST, REQUEST.encode(), "gateway", "recipient-classical"),
        ("status", Kind.STATUS, STATUS.encode(), "gateway", "recipient-classical"),
        ("time", Kind.TIME, TIME.encode(), "ack", "gateway-classical"),
        ("policy", Kind.POLICY, enrolment.encode_bundle(bundle()), "ack", "gateway-classical"),
    ]  # fmt: skip
    for name, kind, body, signer, reader in bodies:
        signed = envelope.sign_message(kind, body, SIGNERS[signer], MAILBOX)
        vector = _message(name, kind, signed, signer, reader) | {"body": body.hex()}
        vectors.append(_sealed(vector, signed, reader, old))
    return vectors


def vars_of(gap: envelope.Gap) -> tuple[int, ...]:
    """A gap as it stands in the header."""
    return tuple(gap_fields(gap))


TLS = Ed25519PrivateKey.from_private_bytes(seed("tls key of the gateway"))
POLICY = b'[policy]\nid = "example-appliances"\nversion = "2026-11-01"\nserial = 17\n'


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def csr(mailbox: str = MAILBOX) -> bytes:
    """A certificate request; Ed25519, so that its signature is always the same."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(mailbox))
    return builder.sign(TLS, None).public_bytes(serialization.Encoding.PEM)


def certificate(mailbox: str = MAILBOX) -> bytes:
    """A certificate by an authority that exists here only."""
    authority = Ed25519PrivateKey.from_private_bytes(seed("authority"))
    start = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(mailbox))
        .issuer_name(_name("authority of the test vectors"))
        .public_key(TLS.public_key())
        .serial_number(int.from_bytes(seed("serial number")[:8], "big"))
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=3_650))
    )
    return builder.sign(authority, None).public_bytes(serialization.Encoding.PEM)


def policy_signature() -> bytes:
    """A detached signature as it lies beside a policy."""
    return envelope.sign_detached(POLICY, SIGNERS["policy"], cbor.encode([1, "policy"]))


def bundle() -> enrolment.Bundle:
    """A policy with two files."""
    files = {
        "keys/maker-2026.cose": READERS["recipient-hybrid"].public.encode(),
        "keys/maker-sign.cose": SIGNERS["ack"].public.encode(),
    }
    return enrolment.Bundle(POLICY, policy_signature(), SIGNERS["policy"].public.encode(), files)


def request() -> enrolment.EnrolRequest:
    """A gateway's request."""
    return enrolment.EnrolRequest(
        RECIPIENT,
        MAILBOX,
        csr(),
        SIGNERS["gateway"].public.encode(),
        READERS["gateway-classical"].public.encode(),
    )


def admission() -> enrolment.Admission:
    """The recipient's answer."""
    return enrolment.Admission(RECIPIENT, MAILBOX, certificate())


def files() -> list[Vector]:
    """The files of enrolment and the detached signature."""
    return [
        {
            "name": "policy signature",
            "signer": "policy",
            "external_aad": cbor.encode([1, "policy"]).hex(),
            "payload": POLICY.hex(),
            "data": policy_signature().hex(),
        },
        {"name": "bundle", "data": enrolment.encode_bundle(bundle()).hex()},
        {
            "name": "request",
            "signer": "gateway",
            "data": enrolment.encode_request(request(), SIGNERS["gateway"]).hex(),
        },
        {
            "name": "admission",
            "signer": "ack",
            "data": enrolment.encode_admission(admission(), SIGNERS["ack"]).hex(),
        },
    ]


def load(name: str) -> list[Vector]:
    """Reads one of the files."""
    path = HERE / name
    return list(json.loads(path.read_text())) if path.exists() else []


def make() -> dict[str, list[Vector]]:
    """Makes every file's content."""
    from tests.vectors.negative import negative  # noqa: PLC0415 - it needs this module whole

    messages_made = positive({vector["name"]: vector for vector in load("messages.json")})
    return {
        "keys.json": keys(),
        "messages.json": messages_made,
        "files.json": files(),
        "negative.json": negative(bytes.fromhex(messages_made[1]["sealed"])),
    }


def text_of(vectors: list[Vector]) -> str:
    """A file's text, the same every time."""
    return json.dumps(vectors, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    logging.getLogger("assent.hpke").setLevel(logging.ERROR)  # fixed keys are the point here
    for file_name, content in make().items():
        (HERE / file_name).write_text(text_of(content))
        sys.stdout.write(f"{file_name}: {len(content)}\n")
