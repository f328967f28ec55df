# SPDX-License-Identifier: Apache-2.0
"""Sign and seal, verify and open: what holds, and what everything else comes to."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assent import cbor, columns, hpke
from assent.cosekey import SealPrivateKey, SigningKey
from assent.envelope import (
    MAX_GAPS,
    MAX_MESSAGE,
    BatchHeader,
    ClockQuality,
    Control,
    Direction,
    Gap,
    GapCause,
    Kind,
    Opened,
    cose,
    open_batch,
    open_down,
    open_up,
    recipient_kid,
    seal,
    sign_batch,
    sign_detached,
    sign_message,
    unseal,
    verify_batch,
    verify_detached,
    verify_message,
)
from assent.errors import (
    BadSignatureError,
    CannotOpenError,
    MalformedError,
    NotCanonicalError,
    TooLargeError,
    UnknownSuiteError,
    WireError,
)
from assent.header import sealed_data, signed_data, write_batch
from assent.wire import HEADER_ASSENT, MAX_SENT_BUNDLE

MAILBOX = "00112233445566778899aabbccddeeff"
OTHER_MAILBOX = "ff112233445566778899aabbccddeeff"
GATEWAY, ACK = SigningKey.generate(), SigningKey.generate()
CLASSICAL, HYBRID = SealPrivateKey.generate(classical=True), SealPrivateKey.generate()
TABLES = (
    columns.Table(
        bytes(range(16)),
        [1_700_000_000_000 + 1_000 * i for i in range(50)],
        (
            columns.Column(
                "appliance.power",
                columns.Kind.NUMBER,
                [i * i % 977 for i in range(50)],
                columns.Quantum(1, 10),
            ),
        ),
    ),
)
PAYLOAD = columns.encode(TABLES)
HEADER = BatchHeader(
    recipient="maker",
    flow="energy-15",
    terms=bytes(range(32)),
    record=bytes(range(16)),
    stream=2**64 - 1,
    sequence=7,
    epoch=685,
    clock=ClockQuality.TRUSTED,
    gaps=(Gap(3, 2**63, GapCause.QUOTA, 1, 2, 90),),
)

both_suites = pytest.mark.parametrize("key", [CLASSICAL, HYBRID], ids=["HPKE-4", "HPKE-9"])


def sealed_batch(key: SealPrivateKey = CLASSICAL) -> bytes:
    return seal(sign_batch(HEADER, PAYLOAD, GATEWAY, MAILBOX), key.public, MAILBOX)


def open_it(data: bytes, key: SealPrivateKey = CLASSICAL, **others: Any) -> Opened:
    known: dict[str, Any] = {"signer": GATEWAY.public, "mailbox": MAILBOX, "recipient": "maker"}
    return open_batch(data, key=key, **(known | others))


@both_suites
def test_a_batch_arrives_whole(key: SealPrivateKey) -> None:
    data = sealed_batch(key)
    opened = open_it(data, key)
    assert opened.header == HEADER
    assert [list(table.times) for table in opened.tables] == [list(TABLES[0].times)]
    assert list(opened.tables[0].columns[0].values) == list(TABLES[0].columns[0].values)
    assert opened.digest == hashlib.sha256(data).digest()


@pytest.mark.clause("C21")
@both_suites
def test_what_is_sealed_shows_the_key_id_and_nothing_else(key: SealPrivateKey) -> None:
    data = sealed_batch(key)
    assert recipient_kid(data) == key.kid
    for shown in (HEADER.terms, HEADER.record, b"maker", b"energy-15", MAILBOX.encode(), PAYLOAD):
        assert shown not in data
    # the twin: under the seal they are there
    signed = unseal(data, key, MAILBOX)
    for shown in (HEADER.terms, HEADER.record, b"maker", b"energy-15", PAYLOAD):
        assert shown in signed


def test_the_mailbox_is_bound_and_not_carried() -> None:
    assert MAILBOX.encode() not in unseal(sealed_batch(), CLASSICAL, MAILBOX)


def test_two_seals_of_one_message_have_nothing_in_common() -> None:
    signed = sign_batch(HEADER, PAYLOAD, GATEWAY, MAILBOX)
    assert signed == sign_batch(HEADER, PAYLOAD, GATEWAY, MAILBOX)
    one, two = (seal(signed, CLASSICAL.public, MAILBOX) for _ in range(2))
    assert cbor2.loads(one[1:])[2] != cbor2.loads(two[1:])[2]


@pytest.mark.parametrize(("limit", "key"), [(250, CLASSICAL), (1_350, HYBRID)], ids=["4", "9"])
def test_the_envelope_stays_in_its_budget(limit: int, key: SealPrivateKey) -> None:
    header = BatchHeader(
        "maker", "energy-15", bytes(32), bytes(16), 2**64 - 1, 60_000, 60_000, ClockQuality.SYSTEM
    )
    payload = bytes(2_000)  # what 1,000 readings come to
    data = seal(sign_batch(header, payload, GATEWAY, MAILBOX), key.public, MAILBOX)
    assert len(data) - len(payload) <= limit


def key_encryption(signed: bytes, key: SealPrivateKey) -> int:
    """Length of the same message as COSE_Encrypt with one HPKE recipient (decision 0002)."""
    enc, tag = hpke.SUITES[key.algorithm].kem.enc_bytes, 16
    protected = cbor2.dumps({1: 24})  # ChaCha20-Poly1305
    recipient = [cbor2.dumps({1: int(key.algorithm) + 1, 4: key.kid}), {-4: bytes(enc)}]
    layers = [protected, {5: bytes(12)}, signed + bytes(tag), [[*recipient, bytes(32 + tag)]]]
    return len(cbor2.dumps(cbor2.CBORTag(96, layers)))


@both_suites
def test_key_encryption_would_not_fit_the_budget(key: SealPrivateKey) -> None:
    signed = sign_batch(HEADER, PAYLOAD, GATEWAY, MAILBOX)
    integrated = len(seal(signed, key.public, MAILBOX))
    assert key_encryption(signed, key) - integrated == 73
    assert key_encryption(signed, key) - len(PAYLOAD) > 300


headers = st.builds(
    BatchHeader,
    recipient=st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,8}){0,2}", fullmatch=True),
    flow=st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z0-9]{1,8}){0,2}", fullmatch=True),
    terms=st.binary(min_size=32, max_size=32),
    record=st.binary(min_size=16, max_size=16),
    stream=st.integers(0, 2**64 - 1),
    sequence=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 2**63 - 1),
    clock=st.sampled_from(ClockQuality),
    gaps=st.lists(
        st.builds(
            lambda number, stream, cause, first, more, readings: Gap(
                number, stream, cause, first, first + more, readings, more, first + more
            ),
            st.integers(0, 2**63 - 1),
            st.integers(0, 2**64 - 1),
            st.sampled_from(GapCause),
            st.integers(0, 2**62),
            st.integers(0, 2**62 - 1),
            st.integers(0, 2**63 - 1),
        ),
        max_size=4,
    ).map(tuple),
)


@both_suites
@given(header=headers, payload=st.binary(max_size=300))
@settings(max_examples=40, deadline=None)
def test_any_header_and_payload_come_back(
    key: SealPrivateKey, header: BatchHeader, payload: bytes
) -> None:
    data = seal(sign_batch(header, payload, GATEWAY, MAILBOX), key.public, MAILBOX)
    assert verify_batch(unseal(data, key, MAILBOX), GATEWAY.public, MAILBOX) == (header, payload)


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.STATUS], ids=["request", "status"])
def test_control_goes_up(kind: Kind) -> None:
    data = seal(sign_message(kind, b"body", GATEWAY, MAILBOX), HYBRID.public, MAILBOX)
    opened = open_up(data, key=HYBRID, signer=GATEWAY.public, mailbox=MAILBOX, recipient="maker")
    assert opened == Control(kind, b"body")


def test_open_up_opens_a_batch_too() -> None:
    opened = open_up(
        sealed_batch(), key=CLASSICAL, signer=GATEWAY.public, mailbox=MAILBOX, recipient="maker"
    )
    assert isinstance(opened, Opened)
    assert opened.header == HEADER


def acknowledgement() -> bytes:
    return seal(sign_message(Kind.ACKNOWLEDGEMENT, b"body", ACK, MAILBOX), HYBRID.public, MAILBOX)


def test_an_acknowledgement_comes_down() -> None:
    opened = open_down(acknowledgement(), key=HYBRID, signer=ACK.public, mailbox=MAILBOX)
    assert opened == Control(Kind.ACKNOWLEDGEMENT, b"body")


@pytest.mark.parametrize("key", [CLASSICAL, HYBRID], ids=["classical", "hybrid"])
def test_the_longest_bundle_that_is_sent_comes_down_whole(key: SealPrivateKey) -> None:
    body = bytes(range(256)) * (MAX_SENT_BUNDLE // 256 + 1)
    signed = sign_message(Kind.POLICY, body[:MAX_SENT_BUNDLE], ACK, MAILBOX)
    data = seal(signed, key.public, MAILBOX)
    opened = open_down(data, key=key, signer=ACK.public, mailbox=MAILBOX)
    assert opened == Control(Kind.POLICY, body[:MAX_SENT_BUNDLE])


def test_a_detached_signature_verifies_over_its_bytes_only() -> None:
    signature = sign_detached(b"policy", ACK, b"purpose")
    assert len(signature) <= 128
    assert b"policy" not in signature
    verify_detached(b"policy", signature, ACK.public, b"purpose")
    for payload, key, purpose in (
        (b"another", ACK, b"purpose"),
        (b"policy", GATEWAY, b"purpose"),
        (b"policy", ACK, b"another"),
    ):
        with pytest.raises(BadSignatureError):
            verify_detached(payload, signature, key.public, purpose)


@pytest.mark.clause("C21")
@both_suites
def test_the_wrong_reader_cannot_open(key: SealPrivateKey) -> None:
    data = sealed_batch(key)
    for other in (
        SealPrivateKey.generate(),
        SealPrivateKey.generate(classical=True),
    ):
        with pytest.raises(CannotOpenError):
            open_it(data, other)


@both_suites
def test_the_key_id_alone_does_not_open(key: SealPrivateKey) -> None:
    """A seal to another key of the same suite that claims our key id still does not open."""
    stranger = SealPrivateKey.generate(classical=key is CLASSICAL)
    parts = cbor2.loads(sealed_batch(stranger)[1:])
    clear = dict(parts[1]) | {4: key.kid}
    with pytest.raises(CannotOpenError):
        open_it(b"\xd0" + cbor.encode([parts[0], clear, parts[2]]), key)


@both_suites
def test_another_mailbox_does_not_open(key: SealPrivateKey) -> None:
    with pytest.raises(CannotOpenError):
        open_it(sealed_batch(key), key, mailbox=OTHER_MAILBOX)


def test_a_seal_for_another_mailbox_does_not_verify_inside_ours() -> None:
    """The signature binds the mailbox by itself, without the seal."""
    signed = sign_batch(HEADER, PAYLOAD, GATEWAY, OTHER_MAILBOX)
    with pytest.raises(BadSignatureError):
        open_it(seal(signed, CLASSICAL.public, MAILBOX))


def test_another_gateways_key_does_not_verify() -> None:
    with pytest.raises(BadSignatureError):
        open_it(sealed_batch(), signer=SigningKey.generate().public)


@pytest.mark.clause("C15")
@pytest.mark.clause("C03")
def test_a_batch_made_for_another_recipient_is_refused() -> None:
    """A recipient that seals a batch on, signature and all, is caught by the header."""
    signed = unseal(sealed_batch(HYBRID), HYBRID, MAILBOX)
    passed_on = seal(signed, CLASSICAL.public, MAILBOX)
    assert open_it(passed_on, recipient="maker").header == HEADER
    with pytest.raises(CannotOpenError):
        open_it(passed_on, recipient="partner")


def resigned(signed: bytes, change: Callable[[list[Any]], None]) -> bytes:
    """A signed message whose header says something else, the signature left as it was."""
    parts = list(cbor2.loads(signed[1:]))
    header = dict(cbor2.loads(parts[0]))
    fields = list(header[HEADER_ASSENT])
    change(fields)
    parts[0] = cbor.encode({1: -8, HEADER_ASSENT: fields})
    return b"\xd2" + cbor.encode(parts)


@pytest.mark.clause("C03")
@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 3),
        (1, "partner"),
        (2, "service"),
        (3, bytes(32)),
        (4, bytes(16)),
        (5, 1),
        (6, 8),
        (7, 1),
    ],
    ids=["kind", "recipient", "flow", "terms", "record", "stream", "sequence", "epoch"],
)
def test_another_claim_in_the_header_breaks_the_signature(at: int, value: object) -> None:
    signed = resigned(
        sign_batch(HEADER, PAYLOAD, GATEWAY, MAILBOX), lambda f: f.__setitem__(at, value)
    )
    with pytest.raises(BadSignatureError):
        open_it(seal(signed, CLASSICAL.public, MAILBOX))


def test_what_went_up_does_not_come_down() -> None:
    """Even with one key for both ways, the direction is signed."""
    for kind in (Kind.REQUEST, Kind.STATUS):
        signed = sign_message(kind, b"body", ACK, MAILBOX)
        assert verify_message(signed, ACK.public, MAILBOX, Direction.UP) == (kind, b"body")
        with pytest.raises(BadSignatureError):
            verify_message(signed, ACK.public, MAILBOX, Direction.DOWN)
    for kind in (Kind.ACKNOWLEDGEMENT, Kind.POLICY, Kind.TIME):
        signed = sign_message(kind, b"body", ACK, MAILBOX)
        assert verify_message(signed, ACK.public, MAILBOX, Direction.DOWN) == (kind, b"body")
        with pytest.raises(BadSignatureError):
            verify_message(signed, ACK.public, MAILBOX, Direction.UP)


def test_a_kind_signed_for_the_wrong_way_is_refused() -> None:
    for kind, way in ((Kind.ACKNOWLEDGEMENT, Direction.UP), (Kind.STATUS, Direction.DOWN)):
        signed = cose.sign1({HEADER_ASSENT: [int(kind)]}, b"", ACK, signed_data(MAILBOX, way))
        with pytest.raises(UnknownSuiteError):
            verify_message(signed, ACK.public, MAILBOX, way)


def test_a_batch_is_no_control_and_the_reverse() -> None:
    batch = sign_batch(HEADER, PAYLOAD, GATEWAY, MAILBOX)
    with pytest.raises(UnknownSuiteError):
        verify_message(batch, GATEWAY.public, MAILBOX, Direction.UP)
    status = sign_message(Kind.STATUS, b"", GATEWAY, MAILBOX)
    with pytest.raises(UnknownSuiteError):
        verify_batch(status, GATEWAY.public, MAILBOX)
    with pytest.raises(MalformedError):
        sign_message(Kind.BATCH, b"", GATEWAY, MAILBOX)


def test_a_policy_signature_is_no_message_and_the_reverse() -> None:
    detached = sign_detached(b"", GATEWAY, cbor.encode([1, "policy"]))
    with pytest.raises(MalformedError):
        verify_message(detached, GATEWAY.public, MAILBOX, Direction.UP)
    with pytest.raises(MalformedError):
        verify_detached(b"", sign_message(Kind.STATUS, b"", GATEWAY, MAILBOX), GATEWAY.public, b"")
    bare = cose.sign1({}, b"", GATEWAY, signed_data(MAILBOX, Direction.UP))
    with pytest.raises(MalformedError):
        verify_message(bare, GATEWAY.public, MAILBOX, Direction.UP)
    dressed = cose.sign1({4: b"kid"}, b"", GATEWAY, b"purpose", detached=True)
    with pytest.raises(MalformedError):
        verify_detached(b"", dressed, GATEWAY.public, b"purpose")


def test_broken_columns_are_refused_after_the_signature() -> None:
    signed = sign_batch(HEADER, b"no columns", GATEWAY, MAILBOX)
    with pytest.raises(WireError):
        open_it(seal(signed, CLASSICAL.public, MAILBOX))


def test_columns_that_inflate_too_far_are_refused() -> None:
    with pytest.raises(TooLargeError):
        open_it(sealed_batch(), limits=columns.Limits(max_inflated=16))


def sealed_parts() -> list[Any]:
    protected, clear, ciphertext = cbor2.loads(sealed_batch()[1:])
    return [protected, dict(clear), ciphertext]


def encrypt0(parts: object, *, tag: bytes = b"\xd0") -> bytes:
    return tag + cbor2.dumps(parts, canonical=True)


def with_clear(**more: object) -> list[Any]:
    protected, clear, ciphertext = sealed_parts()
    clear |= {int(name[1:]): value for name, value in more.items()}
    return [protected, clear, ciphertext]


def with_protected(header: object) -> list[Any]:
    return [cbor2.dumps(header, canonical=True), *sealed_parts()[1:]]


def under_another_kid() -> bytes:
    """Sealed to the reader's key by somebody who calls it otherwise, in the aad too."""
    signed = sign_batch(HEADER, PAYLOAD, GATEWAY, MAILBOX)
    protected, _, _ = sealed_parts()
    kid = bytes(8)
    aad = cbor.encode(["Encrypt0", protected, sealed_data(MAILBOX, kid)])
    enc, ciphertext = hpke.seal(hpke.HPKE_4, CLASSICAL.public.key, b"", aad, signed)
    return encrypt0([protected, {4: kid, -4: enc}, ciphertext])


def other_suite() -> bytes:
    protected, clear, ciphertext = cbor2.loads(sealed_batch(HYBRID)[1:])
    return encrypt0([protected, dict(clear) | {4: CLASSICAL.kid}, ciphertext])


LONG_HEAD = b"\xd0\x98\x03"  # an array of three with its count in two bytes
BAD_SEALS: list[tuple[str, Callable[[], bytes], type[WireError]]] = [
    ("nothing", lambda: b"", MalformedError),
    ("no tag", lambda: sealed_batch()[1:], MalformedError),
    ("tag 96, COSE_Encrypt", lambda: encrypt0(sealed_parts(), tag=b"\xd8\x60"), MalformedError),
    ("tag 18, COSE_Sign1", lambda: encrypt0(sealed_parts(), tag=b"\xd2"), MalformedError),
    ("tag 16 in two bytes", lambda: encrypt0(sealed_parts(), tag=b"\xd8\x10"), MalformedError),
    ("tag 16 twice", lambda: b"\xd0" + sealed_batch(), NotCanonicalError),
    ("two parts", lambda: encrypt0(sealed_parts()[:2]), MalformedError),
    ("four parts", lambda: encrypt0([*sealed_parts(), b""]), MalformedError),
    ("a map", lambda: encrypt0({1: 2}), MalformedError),
    ("a byte after it", lambda: sealed_batch() + b"\x00", NotCanonicalError),
    ("a count in two bytes", lambda: LONG_HEAD + sealed_batch()[2:], NotCanonicalError),
    ("an indefinite array", lambda: b"\xd0\x9f" + sealed_batch()[2:] + b"\xff", NotCanonicalError),
    ("a text as protected", lambda: encrypt0(["x", *sealed_parts()[1:]]), MalformedError),
    ("nothing protected", lambda: encrypt0([b"", *sealed_parts()[1:]]), NotCanonicalError),
    ("an empty protected map", lambda: encrypt0(with_protected({})), MalformedError),
    ("an array protected", lambda: encrypt0(with_protected([1, 42])), MalformedError),
    ("HPKE-3", lambda: encrypt0(with_protected({1: 41})), UnknownSuiteError),
    ("HPKE-4-KE", lambda: encrypt0(with_protected({1: 50})), UnknownSuiteError),
    ("EdDSA as seal", lambda: encrypt0(with_protected({1: -8})), UnknownSuiteError),
    ("a name as alg", lambda: encrypt0(with_protected({1: "HPKE-4"})), MalformedError),
    ("42.0 as alg", lambda: encrypt0(with_protected({1: 42.0})), MalformedError),
    ("crit", lambda: encrypt0(with_protected({1: 42, 2: [1]})), MalformedError),
    ("kid protected", lambda: encrypt0(with_protected({1: 42, 4: b"k"})), MalformedError),
    ("an IV in clear", lambda: encrypt0(with_clear(_5=bytes(12))), MalformedError),
    ("a psk_id in clear", lambda: encrypt0(with_clear(**{"_-5": b"psk"})), MalformedError),
    ("an alg in clear", lambda: encrypt0(with_clear(_1=42)), MalformedError),
    ("a text as kid", lambda: encrypt0(with_clear(_4="kid")), MalformedError),
    ("a huge kid", lambda: encrypt0(with_clear(_4=bytes(65))), TooLargeError),
    ("a short kid", lambda: encrypt0(with_clear(_4=CLASSICAL.kid[:7])), CannotOpenError),
    ("no kid", lambda: encrypt0([sealed_parts()[0], {-4: bytes(32)}, b""]), MalformedError),
    ("no ek", lambda: encrypt0([sealed_parts()[0], {4: b"k"}, b""]), MalformedError),
    ("an array in clear", lambda: encrypt0([sealed_parts()[0], [], b""]), MalformedError),
    ("a short ek", lambda: encrypt0(with_clear(**{"_-4": bytes(31)})), MalformedError),
    ("the other suite's ek", lambda: encrypt0(with_clear(**{"_-4": bytes(1120)})), MalformedError),
    ("nil as ciphertext", lambda: encrypt0([*sealed_parts()[:2], None]), MalformedError),
    (
        "a ciphertext shorter than its tag",
        lambda: encrypt0([*sealed_parts()[:2], b"x"]),
        CannotOpenError,
    ),
    ("a nested bomb", lambda: b"\xd0" + b"\x81" * 100_000, TooLargeError),
    ("a counted bomb", lambda: b"\xd0\x9b" + b"\xff" * 8, NotCanonicalError),
    ("a long bomb", lambda: b"\xd0\x83\x5b" + b"\x7f" * 8, NotCanonicalError),
    ("too many items", lambda: b"\xd0\x98\x64" + bytes(100), TooLargeError),
    ("too long", lambda: sealed_batch() + bytes(MAX_MESSAGE), TooLargeError),
    ("too long before anything else", lambda: bytes(MAX_MESSAGE + 1), TooLargeError),
    ("three deep", lambda: encrypt0(with_clear(_4=[[1]])), TooLargeError),
    ("sealed to us under another kid", under_another_kid, CannotOpenError),
    ("the other suite under our kid", other_suite, CannotOpenError),
]


@pytest.mark.parametrize(
    ("make", "error"), [row[1:] for row in BAD_SEALS], ids=[row[0] for row in BAD_SEALS]
)
def test_a_seal_of_another_shape_is_refused(
    make: Callable[[], bytes], error: type[WireError]
) -> None:
    with pytest.raises(WireError) as caught:
        open_it(make())
    assert type(caught.value) is error


def signed_parts() -> list[Any]:
    return list(cbor2.loads(sign_batch(HEADER, PAYLOAD, GATEWAY, MAILBOX)[1:]))


def sign1(parts: object, *, tag: bytes = b"\xd2") -> bytes:
    return tag + cbor2.dumps(parts, canonical=True)


def signed_with(header: dict[Any, Any]) -> bytes:
    """A message signed rightly over a header of any shape."""
    protected = cbor2.dumps({1: -8} | header, canonical=True)
    external = signed_data(MAILBOX, Direction.UP)
    to_sign = cbor.encode(["Signature1", protected, external, PAYLOAD])
    return sign1([protected, {}, PAYLOAD, GATEWAY.sign(to_sign)])


def fields(**changes: object) -> dict[int, Any]:
    """The batch header's parameter with some fields replaced (f3=… for the fourth)."""
    values: list[Any] = list(write_batch(HEADER)[HEADER_ASSENT])  # type: ignore[call-overload]
    for name, value in changes.items():
        values[int(name[1:])] = value
    return {HEADER_ASSENT: values}


def gap(**changes: object) -> dict[int, Any]:
    values: list[Any] = [1, 2, 0, 10, 20, 5, 3, 4]
    for name, value in changes.items():
        values[int(name[1:])] = value
    return fields(f9=[values])


OTHER_ALG = {1: -7, HEADER_ASSENT: [3]}
BAD_SIGNATURES: list[tuple[str, Callable[[], bytes], type[WireError]]] = [
    ("no message", lambda: b"", MalformedError),
    ("no tag", lambda: sign1(signed_parts(), tag=b""), MalformedError),
    ("tag 98, COSE_Sign", lambda: sign1(signed_parts(), tag=b"\xd8\x62"), MalformedError),
    ("tag 61 around", lambda: b"\xd8\x3d" + sign1(signed_parts()), MalformedError),
    ("three parts", lambda: sign1(signed_parts()[:3]), MalformedError),
    ("a byte after it", lambda: sign1(signed_parts()) + b"\x00", NotCanonicalError),
    (
        "a kid in clear",
        lambda: sign1([signed_parts()[0], {4: b"k"}, *signed_parts()[2:]]),
        MalformedError,
    ),
    ("nil in clear", lambda: sign1([signed_parts()[0], None, *signed_parts()[2:]]), MalformedError),
    (
        "nil as payload",
        lambda: sign1([*signed_parts()[:2], None, signed_parts()[3]]),
        MalformedError,
    ),
    (
        "a text as payload",
        lambda: sign1([*signed_parts()[:2], "x", signed_parts()[3]]),
        MalformedError,
    ),
    ("a short signature", lambda: sign1([*signed_parts()[:3], bytes(63)]), MalformedError),
    ("a zero signature", lambda: sign1([*signed_parts()[:3], bytes(64)]), BadSignatureError),
    (
        "another payload",
        lambda: sign1([*signed_parts()[:2], b"", signed_parts()[3]]),
        BadSignatureError,
    ),
    ("ES256", lambda: sign1([cbor.encode(OTHER_ALG), *signed_parts()[1:]]), UnknownSuiteError),
    ("a seal's alg, signed rightly", lambda: signed_with(fields() | {1: 42}), UnknownSuiteError),
    (
        "an unknown alg",
        lambda: sign1([cbor.encode({1: -999}), *signed_parts()[1:]]),
        UnknownSuiteError,
    ),
    (
        "no alg",
        lambda: sign1([cbor.encode({HEADER_ASSENT: [3]}), *signed_parts()[1:]]),
        MalformedError,
    ),
    ("crit in the header", lambda: signed_with(fields() | {2: [HEADER_ASSENT]}), MalformedError),
    ("a kid in the header", lambda: signed_with(fields() | {4: b"k"}), MalformedError),
    ("no header of ours", lambda: signed_with({}), MalformedError),
    ("a map as header", lambda: signed_with({HEADER_ASSENT: {0: 0}}), MalformedError),
    ("an empty header", lambda: signed_with({HEADER_ASSENT: []}), MalformedError),
    ("kind 4", lambda: signed_with({HEADER_ASSENT: [4]}), UnknownSuiteError),
    ("kind true", lambda: signed_with({HEADER_ASSENT: [True]}), MalformedError),
    ("a batch without fields", lambda: signed_with({HEADER_ASSENT: [0]}), MalformedError),
    ("a status with fields", lambda: signed_with({HEADER_ASSENT: [3, 1]}), MalformedError),
    ("an empty recipient", lambda: signed_with(fields(f1="")), MalformedError),
    ("a recipient in capitals", lambda: signed_with(fields(f1="Maker")), MalformedError),
    ("a recipient with a line break", lambda: signed_with(fields(f1="maker\n")), MalformedError),
    ("a flow with more behind it", lambda: signed_with(fields(f2="energy!")), MalformedError),
    ("a long recipient", lambda: signed_with(fields(f1="m" * 65)), MalformedError),
    ("bytes as flow", lambda: signed_with(fields(f2=b"energy")), MalformedError),
    ("short terms", lambda: signed_with(fields(f3=bytes(31))), MalformedError),
    ("a long record", lambda: signed_with(fields(f4=bytes(17))), MalformedError),
    ("a negative stream", lambda: signed_with(fields(f5=-1)), MalformedError),
    ("a stream of 2.0", lambda: signed_with(fields(f5=2.0)), MalformedError),
    ("a sequence of 2^63", lambda: signed_with(fields(f6=2**63)), MalformedError),
    ("an epoch of nil", lambda: signed_with(fields(f7=None)), MalformedError),
    ("clock quality 3", lambda: signed_with(fields(f8=3)), MalformedError),
    ("nil as gaps", lambda: signed_with(fields(f9=None)), MalformedError),
    (
        "too many gaps",
        lambda: signed_with(fields(f9=[[1, 2, 0, 1, 2, 0, 0, 0]] * 65)),
        TooLargeError,
    ),
    ("a gap of five", lambda: signed_with(fields(f9=[[1, 2, 0, 10, 20]])), MalformedError),
    ("an unknown cause", lambda: signed_with(gap(f2=12)), MalformedError),
    ("a gap that ends before it begins", lambda: signed_with(gap(f4=9)), MalformedError),
    ("a gap whose numbers end early", lambda: signed_with(gap(f7=2)), MalformedError),
    ("a gap of minus one reading", lambda: signed_with(gap(f5=-1)), MalformedError),
]


@pytest.mark.parametrize(
    ("make", "error"), [row[1:] for row in BAD_SIGNATURES], ids=[row[0] for row in BAD_SIGNATURES]
)
def test_a_signed_message_of_another_shape_is_refused(
    make: Callable[[], bytes], error: type[WireError]
) -> None:
    sealed = cose.encrypt0(make(), CLASSICAL.public, sealed_data(MAILBOX, CLASSICAL.kid))
    with pytest.raises(WireError) as caught:
        open_it(sealed)
    assert type(caught.value) is error


def test_the_twin_of_the_changed_headers_opens() -> None:
    assert verify_batch(signed_with(fields()), GATEWAY.public, MAILBOX)[0] == HEADER
    assert verify_batch(signed_with(gap()), GATEWAY.public, MAILBOX)[0].gaps[0].readings == 5
    sealed = cose.encrypt0(
        signed_with(fields()), CLASSICAL.public, sealed_data(MAILBOX, CLASSICAL.kid)
    )
    assert open_it(sealed).header == HEADER


def test_the_most_gaps_fit() -> None:
    most = 2**63 - 1
    gaps = tuple(Gap(i, 2**64 - 1, GapCause.AGE, 0, most, most, 0, most) for i in range(MAX_GAPS))
    signed = signed_with({HEADER_ASSENT: write_batch(with_gaps(gaps))[HEADER_ASSENT]})
    assert verify_batch(signed, GATEWAY.public, MAILBOX)[0].gaps == gaps
    assert len(cbor2.loads(signed[1:])[0]) <= cose.MAX_PROTECTED


def with_gaps(gaps: tuple[Gap, ...]) -> BatchHeader:
    h = HEADER
    return BatchHeader(
        h.recipient, h.flow, h.terms, h.record, h.stream, h.sequence, h.epoch, h.clock, gaps
    )


@pytest.mark.parametrize(
    "header",
    [
        BatchHeader("Maker", "f", bytes(32), bytes(16), 0, 0, 0, ClockQuality.TRUSTED),
        BatchHeader("maker", "f", bytes(31), bytes(16), 0, 0, 0, ClockQuality.TRUSTED),
        BatchHeader("maker", "f", bytes(32), bytes(16), 2**64, 0, 0, ClockQuality.TRUSTED),
        BatchHeader("maker", "f", bytes(32), bytes(16), 0, -1, 0, ClockQuality.TRUSTED),
        with_gaps(HEADER.gaps * 65),
    ],
    ids=["a capital", "short terms", "a long stream", "a negative sequence", "too many gaps"],
)
def test_nothing_is_written_that_would_not_be_read(header: BatchHeader) -> None:
    with pytest.raises(WireError):
        sign_batch(header, PAYLOAD, GATEWAY, MAILBOX)


def test_a_message_over_the_limit_is_not_made() -> None:
    signed = sign_batch(HEADER, bytes(MAX_MESSAGE), GATEWAY, MAILBOX)
    with pytest.raises(TooLargeError):
        seal(signed, CLASSICAL.public, MAILBOX)
    data = seal(signed, CLASSICAL.public, MAILBOX, max_bytes=MAX_MESSAGE + 1_000)
    assert unseal(data, CLASSICAL, MAILBOX, MAX_MESSAGE + 1_000) == signed
    with pytest.raises(TooLargeError):
        unseal(data, CLASSICAL, MAILBOX)


@both_suites
@given(data=st.data())
@settings(max_examples=250, deadline=None)
def test_a_flipped_bit_never_opens(key: SealPrivateKey, data: st.DataObject) -> None:
    message = bytearray(sealed_batch(key))
    at = data.draw(st.integers(0, len(message) * 8 - 1))
    message[at // 8] ^= 1 << at % 8
    with pytest.raises(WireError):
        open_it(bytes(message), key)


def test_no_bit_of_the_whole_clear_part_can_be_flipped() -> None:
    message = sealed_batch()
    for at in range(60 * 8):  # tag, header, key id, most of the encapsulated key
        changed = bytearray(message)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(WireError):
            open_it(bytes(changed))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_flipped_bit_never_verifies(data: st.DataObject) -> None:
    signed = bytearray(sign_batch(HEADER, PAYLOAD, GATEWAY, MAILBOX))
    at = data.draw(st.integers(0, len(signed) * 8 - 1))
    signed[at // 8] ^= 1 << at % 8
    with pytest.raises(WireError):
        verify_batch(bytes(signed), GATEWAY.public, MAILBOX)


@both_suites
def test_a_cut_message_never_opens(key: SealPrivateKey) -> None:
    message = sealed_batch(key)
    for end in [*range(60), *range(60, len(message), 7)]:
        with pytest.raises(WireError):
            open_it(message[:end], key)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(lambda tail: b"\xd0\x83" + tail),
        st.binary(max_size=200).map(lambda tail: b"\xd2\x84" + tail),
        st.recursive(
            st.one_of(st.integers(-(2**64), 2**64 - 1), st.binary(max_size=9), st.text(max_size=9)),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.integers(), inner, max_size=3)
            ),
            max_leaves=9,
        ).map(lambda value: b"\xd0" + cbor2.dumps(value)),
    )
)
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_a_wire_error(data: bytes) -> None:
    for read in (
        open_it,
        recipient_kid,
        lambda d: verify_batch(d, GATEWAY.public, MAILBOX),
        lambda d: verify_message(d, GATEWAY.public, MAILBOX, Direction.DOWN),
        lambda d: verify_detached(b"", d, GATEWAY.public, b""),
    ):
        with pytest.raises(WireError):
            read(data)


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_random_bytes_signed_and_sealed_rightly_are_a_wire_error(payload: bytes) -> None:
    signed = sign_batch(HEADER, payload, GATEWAY, MAILBOX)
    with contextlib.suppress(WireError):
        open_it(seal(signed, CLASSICAL.public, MAILBOX))
    with pytest.raises(WireError):
        open_it(seal(payload, CLASSICAL.public, MAILBOX))
