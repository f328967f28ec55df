# SPDX-License-Identifier: Apache-2.0
"""Vectors that must be refused: right in everything but the one thing the name says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cbor2
import msgspec

from assent import cbor, enrolment, envelope
from assent.envelope import cose
from assent.header import sealed_data, signed_data, write_batch
from assent.wire import HEADER_ASSENT, Direction, Kind
from tests.vectors import generate as made

TERMS = HEADER_ASSENT


@dataclasses.dataclass(frozen=True)
class Bad:
    """One vector before it is written.

    Attributes:
        name: the one thing that is wrong.
        code: what a reader must call it.
        data: the bytes.
        read: which reader they are for.
        mailbox: the mailbox of the topic they come on.
    """

    name: str
    code: str
    data: bytes
    read: str = "up"
    mailbox: str = made.MAILBOX


def dumps(value: object) -> bytes:
    """CBOR without our encoder's checks."""
    return cbor2.dumps(value, canonical=True)


def good() -> bytes:
    """The classical batch, sealed."""
    return made.seal("negative", made.signed_batch(), "recipient-classical")


def parts() -> list[Any]:
    protected, clear, ciphertext = cbor2.loads(good()[1:])
    return [protected, dict(clear), ciphertext]


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def clear_with(more: dict[int, object], *without: int) -> bytes:
    protected, clear, ciphertext = parts()
    kept = {label: field for label, field in clear.items() if label not in without}
    return b"\xd0" + dumps([protected, kept | more, ciphertext])


def protected_with(header: object) -> bytes:
    return b"\xd0" + dumps([dumps(header), *parts()[1:]])


def seals(hybrid: bytes) -> list[Bad]:
    """What is wrong with the outer structure or its seal."""
    stranger = made.seal("negative stranger", made.signed_batch(), "stranger-classical")
    reader = made.READERS["recipient-classical"]
    shown = dict(cbor2.loads(stranger[1:])[1]) | {4: reader.kid}
    claimed = [cbor2.loads(stranger[1:])[0], shown, cbor2.loads(stranger[1:])[2]]
    other = made.seal(
        "other mailbox", made.signed_batch(), "recipient-classical", made.OTHER_MAILBOX
    )
    return [
        Bad("no bytes", "malformed", b""),
        Bad("no tag", "malformed", good()[1:]),
        Bad("tag 96 (COSE_Encrypt)", "malformed", b"\xd8\x60" + good()[1:]),
        Bad("tag 18 (COSE_Sign1) outside", "malformed", b"\xd2" + good()[1:]),
        Bad("tag 16 in two bytes", "malformed", b"\xd8\x10" + good()[1:]),
        Bad("tag 16 twice", "not-canonical", b"\xd0" + good()),
        Bad("a byte after the message", "not-canonical", good() + b"\x00"),
        Bad("an array count in two bytes", "not-canonical", b"\xd0\x98\x03" + good()[2:]),
        Bad("an array of indefinite length", "not-canonical", b"\xd0\x9f" + good()[2:] + b"\xff"),
        Bad("cut after 100 bytes", "not-canonical", good()[:100]),
        Bad("two elements", "malformed", b"\xd0" + dumps(parts()[:2])),
        Bad("arrays 200 deep", "too-large", b"\xd0" + b"\x81" * 200 + b"\x80"),
        Bad("an array of 2^64-1 elements", "not-canonical", b"\xd0\x9b" + b"\xff" * 8),
        Bad("alg 41 (HPKE-3)", "unknown-suite", protected_with({1: 41})),
        Bad("alg 50 (HPKE-4-KE)", "unknown-suite", protected_with({1: 50})),
        Bad("alg as a name", "malformed", protected_with({1: "HPKE-4"})),
        Bad("alg 56 with a classical ek", "malformed", protected_with({1: 56})),
        Bad("crit in the seal's header", "malformed", protected_with({1: 42, 2: [1]})),
        Bad("nothing protected", "not-canonical", b"\xd0" + dumps([b"", *parts()[1:]])),
        Bad("an IV in clear", "malformed", clear_with({5: bytes(12)})),
        Bad("a psk_id in clear", "malformed", clear_with({-5: b"psk"})),
        Bad("no kid", "malformed", clear_with({}, 4)),
        Bad("no ek", "malformed", clear_with({}, -4)),
        Bad("an ek of 31 bytes", "malformed", clear_with({-4: bytes(31)})),
        Bad("a kid of 7 bytes", "cannot-open", clear_with({4: reader.kid[:7]})),
        Bad("sealed to another key", "cannot-open", stranger),
        Bad("sealed to another key under our kid", "cannot-open", b"\xd0" + dumps(claimed)),
        Bad("sealed for another mailbox", "cannot-open", other),
        Bad("an ek of zeros", "cannot-open", clear_with({-4: bytes(32)})),
        Bad("a bit of ek flipped", "cannot-open", flipped(good(), 50)),
        Bad("a bit of the ciphertext flipped", "cannot-open", flipped(good(), 100)),
        Bad("the last bit flipped", "cannot-open", flipped(good(), len(good()) - 1)),
        Bad("a bit of a hybrid ek flipped", "cannot-open", flipped(hybrid, 600), "up-hybrid"),
    ]  # fmt: skip


def resealed(name: str, signed: bytes) -> bytes:
    """Anything at all, sealed rightly."""
    reader = made.READERS["recipient-classical"].public
    external = sealed_data(made.MAILBOX, reader.kid)
    return cose.encrypt0(signed, reader, external, unsafe_ephemeral=made.ephemeral(name))


def signed(
    header: dict[int, Any],
    *,
    payload: bytes | None = None,
    signer: str = "gateway",
    mailbox: str = made.MAILBOX,
    direction: Direction = Direction.UP,
) -> bytes:
    """A message signed rightly over whatever header."""
    protected = dumps({1: -8} | header)
    body = made.payload() if payload is None else payload
    external = signed_data(mailbox, direction)
    to_be_signed = cbor.encode(["Signature1", protected, external, body])
    signature = made.SIGNERS[signer].sign(to_be_signed)
    return b"\xd2" + dumps([protected, {}, body, signature])


def fields(**changes: Any) -> dict[int, Any]:
    """The batch's header parameter, some elements replaced."""
    values: list[Any] = list(write_batch(made.HEADER)[HEADER_ASSENT])  # type: ignore[arg-type]
    for place, value in changes.items():
        values[int(place[1:])] = value
    return {HEADER_ASSENT: values}


def gap(**changes: Any) -> dict[int, Any]:
    values: list[Any] = list(made.vars_of(made.HEADER.gaps[0]))
    for place, value in changes.items():
        values[int(place[1:])] = value
    return fields(f9=[values])


def altered(change: Callable[[list[Any]], None]) -> bytes:
    """The signed batch with a part changed after signing."""
    part = list(cbor2.loads(made.signed_batch()[1:]))
    change(part)
    return b"\xd2" + dumps(part)


def signatures() -> list[Bad]:
    """What is wrong with the signed message inside a good seal."""
    claims = dumps({1: -8} | fields(f2="product-improvement"))
    rows: list[tuple[str, str, bytes]] = [
        ("no tag inside", "malformed", made.signed_batch()[1:]),
        ("tag 98 (COSE_Sign) inside", "malformed", b"\xd8\x62" + made.signed_batch()[1:]),
        ("a kid in clear inside", "malformed", altered(lambda p: p.__setitem__(1, {4: b"k"}))),
        ("the payload detached", "malformed", altered(lambda p: p.__setitem__(2, None))),
        ("a signature of 63 bytes", "malformed", altered(lambda p: p.__setitem__(3, bytes(63)))),
        ("ES256 inside", "unknown-suite", altered(lambda p: p.__setitem__(0, dumps({1: -7})))),
        ("signed by another gateway", "bad-signature", signed(fields(), signer="stranger")),
        ("signed for another mailbox", "bad-signature", signed(fields(), mailbox=made.OTHER_MAILBOX)),
        ("signed for the other direction", "bad-signature", signed(fields(), direction=Direction.DOWN)),
        ("another payload than signed", "bad-signature", altered(lambda p: p.__setitem__(2, b""))),
        ("another flow than signed", "bad-signature", altered(lambda p: p.__setitem__(0, claims))),
        ("crit in the signed header", "malformed", signed(fields() | {2: [TERMS]})),
        ("no header of ours", "malformed", signed({})),
        ("kind 6", "unknown-suite", signed({TERMS: [6]})),
        ("a policy going up", "unknown-suite", signed({TERMS: [4]}, payload=b"\x80")),
        ("an acknowledgement going up", "unknown-suite", signed({TERMS: [1]}, payload=b"\x80")),
        ("a batch without fields", "malformed", signed({TERMS: [0]})),
        ("a status with fields", "malformed", signed({TERMS: [3, 0]}, payload=b"\x80")),
        ("a recipient in capitals", "malformed", signed(fields(f1="Maker"))),
        ("made for another recipient", "cannot-open", signed(fields(f1="partner"))),
        ("terms of 31 bytes", "malformed", signed(fields(f3=bytes(31)))),
        ("a record of 17 bytes", "malformed", signed(fields(f4=bytes(17)))),
        ("a negative stream", "malformed", signed(fields(f5=-1))),
        ("a sequence of 2^63", "malformed", signed(fields(f6=2**63))),
        ("an epoch as float", "malformed", signed(fields(f7=680.0))),
        ("clock quality 3", "malformed", signed(fields(f8=3))),
        ("65 gaps", "too-large", signed(fields(f9=[[1, 2, 0, 1, 2, 0, 0, 0]] * 65))),
        ("gap cause 12", "malformed", signed(gap(f2=12))),
        ("a gap that ends before it begins", "malformed", signed(gap(f4=0))),
        ("a gap whose numbers end before they begin", "malformed", signed(gap(f7=11))),
    ]  # fmt: skip
    return [Bad(name, code, resealed(name, data)) for name, code, data in rows]


def bodies() -> list[Bad]:
    """What is wrong with a body; the bytes are the body alone."""
    ack: list[tuple[str, str, Any]] = [
        ("a map as acknowledgement", "malformed", {}),
        ("a stream twice", "malformed", [[1, 0, [], []], [1, 0, [], []]]),
        ("257 streams", "too-large", [[n, 0, [], []] for n in range(257)]),
        ("a range at the watermark", "malformed", [[1, 3, [[3, 4]], []]]),
        ("ranges that touch", "malformed", [[1, 3, [[5, 6], [7, 8]], []]]),
        ("a range that ends early", "malformed", [[1, 3, [[6, 5]], []]]),
        ("refused below the watermark", "malformed", [[1, 3, [], [[2, 0, True]]]]),
        ("stored and refused", "malformed", [[1, 3, [[5, 7]], [[6, 0, True]]]]),
        ("refusal reason 6", "malformed", [[1, 3, [], [[3, 6, True]]]]),
        ("1 as retry", "malformed", [[1, 3, [], [[3, 0, 1]]]]),
    ]
    request = [
        ("a request id of 15 bytes", "malformed", [bytes(15), 0, []]),
        ("verb 2", "malformed", [bytes(16), 2, []]),
        ("the time of a stream", "malformed", [bytes(16), 1, [7]]),
        ("streams asked for going down", "malformed", [bytes(16), 0, [2, 1]]),
    ]
    status = [
        ("an empty policy id", "malformed", ["", 17, 1]),
        ("format 0", "malformed", ["example-appliances", 17, 0]),
    ]
    time = [
        ("a time that answers 15 bytes", "malformed", [bytes(15), 1]),
        ("a time before 1970", "malformed", [bytes(16), -1]),
        ("a time after the year 9999", "malformed", [bytes(16), 253_402_300_800_000]),
    ]
    made_of = [("acknowledgement", ack), ("request", request), ("status", status), ("time", time)]
    return [
        Bad(name, code, dumps(value), read) for read, rows in made_of for name, code, value in rows
    ] + [
        Bad("an acknowledgement in a longer form", "not-canonical", b"\x98\x00", "acknowledgement")
    ]


def enrolments() -> list[Bad]:
    """What is wrong with a file of enrolment."""
    request, gateway = made.request(), made.SIGNERS["gateway"]
    others = msgspec.structs.replace(
        request, mailbox=made.OTHER_MAILBOX, csr=made.csr(made.OTHER_MAILBOX)
    )
    payload = ["assent-request", 1, "maker", made.OTHER_MAILBOX, request.csr]
    payload += [request.sign_key, request.seal_key]
    purpose = cbor.encode([1, "request"])
    bundle = ["assent-bundle", 1, made.POLICY, made.policy_signature(), made.bundle().policy_key]
    return [
        Bad("a file that begins otherwise", "malformed", dumps(["bundle", 1]), "bundle"),
        Bad("a bundle of format 2", "unknown-suite", dumps([bundle[0], 2, *bundle[2:], {}]), "bundle"),
        Bad("the folder above", "malformed", dumps([*bundle, {"../a.pem": b""}]), "bundle"),
        Bad("an absolute path", "malformed", dumps([*bundle, {"/a.pem": b""}]), "bundle"),
        Bad("a backslash", "malformed", dumps([*bundle, {"keys\\a.pem": b""}]), "bundle"),
        Bad("a consent form", "malformed", dumps([*bundle, {"consent.toml": b""}]), "bundle"),
        Bad("a request signed with another key", "bad-signature",
            enrolment.encode_request(others, made.SIGNERS["stranger"]), "enrol-request"),
        Bad("a request for another mailbox than its certificate request", "malformed",
            cose.sign1({}, cbor.encode(payload), gateway, purpose), "enrol-request"),
        Bad("a request signed as a message", "bad-signature",
            cose.sign1({}, cbor.encode([*payload[:3], made.MAILBOX, *payload[4:]]), gateway,
                       signed_data(made.MAILBOX, Direction.UP)), "enrol-request"),
        Bad("an admission by another recipient", "bad-signature",
            enrolment.encode_admission(made.admission(), made.SIGNERS["stranger"]), "admission"),
    ]  # fmt: skip


def coming_down() -> list[Bad]:
    """What must not be taken for an acknowledgement or a policy."""
    body, ack = made.ACKNOWLEDGEMENT.encode(), made.SIGNERS["ack"]
    up = envelope.sign_message(Kind.REQUEST, made.REQUEST.encode(), ack, made.MAILBOX)
    by_gateway = envelope.sign_message(
        Kind.ACKNOWLEDGEMENT, body, made.SIGNERS["gateway"], made.MAILBOX
    )
    batch = signed(fields(), signer="ack", direction=Direction.DOWN)
    bundle = enrolment.encode_bundle(made.bundle())
    by_the_maker = envelope.sign_message(Kind.POLICY, bundle, made.SIGNERS["policy"], made.MAILBOX)
    elsewhere = envelope.sign_message(Kind.POLICY, bundle, ack, made.OTHER_MAILBOX)
    more = signed({TERMS: [4, 17]}, payload=bundle, signer="ack", direction=Direction.DOWN)
    rows = [
        ("a request sent back by the recipient", "bad-signature", up),
        ("an acknowledgement signed by the gateway", "bad-signature", by_gateway),
        ("a batch coming down", "unknown-suite", batch),
        ("a policy signed by the policy key and by no recipient", "bad-signature", by_the_maker),
        ("a policy signed for another mailbox", "bad-signature", elsewhere),
        ("a policy with fields in its header", "malformed", more),
    ]
    return [
        Bad(name, code, made.seal(name, data, "gateway-classical"), "down")
        for name, code, data in rows
    ]


def negative(hybrid: bytes) -> list[dict[str, str]]:
    """Every vector that must be refused; one of them is the hybrid batch with a bit flipped."""
    every = [*seals(hybrid), *signatures(), *coming_down(), *bodies(), *enrolments()]
    return [
        {
            "name": bad.name,
            "read": bad.read,
            "mailbox": bad.mailbox,
            "data": bad.data.hex(),
            "code": bad.code,
        }
        for bad in every
    ]
