# SPDX-License-Identifier: Apache-2.0
"""COSE_Key bytes, thumbprints, and keys that show nothing."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.cosekey import (
    MAX_KEY_BYTES,
    SealPrivateKey,
    SigningKey,
    VerifyingKey,
    decode_public_key,
    decode_seal_private_key,
    decode_seal_public_key,
    decode_signing_key,
    decode_verifying_key,
    file_thumbprint,
    thumbprint_text,
)
from assent.errors import BadSignatureError, MalformedError, UnknownSuiteError, WireError
from assent.wire import Algorithm

SIGN = SigningKey.generate()
CLASSICAL = SealPrivateKey.generate(classical=True)
HYBRID = SealPrivateKey.generate()

Reader = Callable[[bytes], object]
READERS: list[tuple[Any, Reader]] = [
    (SIGN, decode_signing_key),
    (SIGN.public, decode_verifying_key),
    (CLASSICAL, decode_seal_private_key),
    (CLASSICAL.public, decode_seal_public_key),
    (HYBRID, decode_seal_private_key),
    (HYBRID.public, decode_seal_public_key),
]
NAMES = ["signing", "verifying", "X25519", "X25519 public", "hybrid", "hybrid public"]
each_key = pytest.mark.parametrize(("key", "reader"), READERS, ids=NAMES)


def changed(key: Any, **members: object) -> bytes:
    """The key's bytes with members replaced (m_3 for 3, n_1 for -1) or removed (None)."""
    read = cbor2.loads(key.encode())
    read = dict(read)
    for name, value in members.items():
        label = int(name[2:]) * (-1 if name[0] == "n" else 1)
        read.pop(label, None)
        if value is not None:
            read[label] = value
    return cbor2.dumps(read, canonical=True)


@each_key
def test_a_key_reads_back_as_itself(key: Any, reader: Reader) -> None:
    assert reader(key.encode()) == key
    assert reader(changed(key, m_2=b"a kid of another tool")) == key


def test_members_are_those_of_the_standards() -> None:
    assert dict(cbor2.loads(SIGN.public.encode())) == {1: 1, 3: -8, -1: 6, -2: SIGN.public.raw}
    x = CLASSICAL.public.key.raw
    assert dict(cbor2.loads(CLASSICAL.public.encode())) == {1: 1, 3: 42, -1: 4, -2: x}
    assert dict(cbor2.loads(CLASSICAL.encode()))[-4] == CLASSICAL.key.raw
    pub = HYBRID.public.key.raw
    assert dict(cbor2.loads(HYBRID.public.encode())) == {1: 7, 3: 56, -1: pub}
    assert dict(cbor2.loads(HYBRID.encode()))[-2] == HYBRID.key.raw
    assert (len(pub), len(HYBRID.key.raw)) == (1216, 32)


def test_generate_makes_the_hybrid_unless_told_otherwise() -> None:
    assert SealPrivateKey.generate().algorithm is Algorithm.HPKE_9
    assert SealPrivateKey.generate(classical=True).algorithm is Algorithm.HPKE_4


def test_two_keys_are_never_the_same() -> None:
    assert SigningKey.generate() != SIGN
    assert SealPrivateKey.generate().thumbprint != HYBRID.thumbprint


def test_thumbprints_hash_the_required_members_only() -> None:
    # RFC 9679 §3: written out by hand, not with the encoder
    okp = bytes.fromhex("a3010120062158 20".replace(" ", "")) + SIGN.public.raw
    assert SIGN.thumbprint == hashlib.sha256(okp).digest()
    okp = bytes.fromhex("a301012004215820") + CLASSICAL.public.key.raw
    assert CLASSICAL.thumbprint == hashlib.sha256(okp).digest()
    akp = bytes.fromhex("a3010703183820" + "5904c0") + HYBRID.public.key.raw
    assert HYBRID.thumbprint == hashlib.sha256(akp).digest()
    assert HYBRID.kid == HYBRID.thumbprint[:8] == HYBRID.public.kid


def test_a_thumbprint_is_written_as_the_policy_writes_it() -> None:
    text = thumbprint_text(bytes(range(32)))
    assert text == "sha-256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert base64.urlsafe_b64decode(text[8:] + "=") == bytes(range(32))


@each_key
def test_no_private_key_shows_itself(key: Any, reader: Reader) -> None:
    shown = f"{key!r} {key}"
    secret = dict(cbor2.loads(key.encode())).get({1: -4, 7: -2}[cbor2.loads(key.encode())[1]])
    if isinstance(key, (SigningKey, SealPrivateKey)):
        assert isinstance(secret, bytes)
        for form in (repr(secret)[2:-1], secret.hex(), base64.b64encode(secret).decode()):
            assert form not in shown
        assert thumbprint_text(key.thumbprint) in shown


WRONG: list[tuple[str, Any, Reader, dict[str, object], type[WireError]]] = [
    ("another key type", SIGN.public, decode_verifying_key, {"m_1": 2}, UnknownSuiteError),
    ("another curve", SIGN.public, decode_verifying_key, {"n_1": 7}, UnknownSuiteError),
    ("another algorithm", SIGN.public, decode_verifying_key, {"m_3": -7}, UnknownSuiteError),
    ("no algorithm", SIGN.public, decode_verifying_key, {"m_3": None}, UnknownSuiteError),
    ("true as key type", SIGN.public, decode_verifying_key, {"m_1": True}, UnknownSuiteError),
    ("1.0 as key type", SIGN.public, decode_verifying_key, {"m_1": 1.0}, UnknownSuiteError),
    ("key operations", SIGN.public, decode_verifying_key, {"m_4": 1}, MalformedError),
    ("a secret in a public key", SIGN, decode_verifying_key, {}, MalformedError),
    ("a public key as a pair", SIGN.public, decode_signing_key, {}, MalformedError),
    ("a short point", SIGN.public, decode_verifying_key, {"n_2": bytes(31)}, MalformedError),
    ("a text as point", SIGN.public, decode_verifying_key, {"n_2": "x" * 32}, MalformedError),
    ("a number as kid", SIGN.public, decode_verifying_key, {"m_2": 5}, MalformedError),
    ("another public half", SIGN, decode_signing_key, {"n_2": bytes(32)}, MalformedError),
    ("a sealing key to verify", CLASSICAL.public, decode_verifying_key, {}, UnknownSuiteError),
    ("a verifying key to seal", SIGN.public, decode_seal_public_key, {}, UnknownSuiteError),
    ("HPKE-3", CLASSICAL.public, decode_seal_public_key, {"m_3": 41}, UnknownSuiteError),
    ("HPKE-4-KE", CLASSICAL.public, decode_seal_public_key, {"m_3": 50}, UnknownSuiteError),
    ("HPKE-8", HYBRID.public, decode_seal_public_key, {"m_3": 54}, UnknownSuiteError),
    ("a short hybrid", HYBRID.public, decode_seal_public_key, {"n_1": bytes(9)}, MalformedError),
    (
        "no lattice point",
        HYBRID.public,
        decode_seal_public_key,
        {"n_1": b"\xff" * 1216},
        MalformedError,
    ),
    ("a long seed", HYBRID, decode_seal_private_key, {"n_2": bytes(64)}, MalformedError),
    ("another seed", HYBRID, decode_seal_private_key, {"n_2": bytes(32)}, MalformedError),
    ("another scalar", CLASSICAL, decode_seal_private_key, {"n_4": bytes(32)}, MalformedError),
]


@pytest.mark.parametrize(
    ("key", "reader", "members", "error"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG]
)
def test_another_key_is_refused(
    key: Any, reader: Reader, members: dict[str, object], error: type[WireError]
) -> None:
    with pytest.raises(error):
        reader(changed(key, **members))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\xa0",
        b"\x00",
        b"\xff",
        b"\xd0\xa0",
        b"\xa1\x01\x01" * 2,
        bytes(MAX_KEY_BYTES + 1),
    ],
    ids=[
        "nothing",
        "an array",
        "an empty map",
        "a number",
        "a break",
        "a tag",
        "two maps",
        "too long",
    ],
)
def test_what_is_no_key_is_refused(data: bytes) -> None:
    for _, reader in READERS:
        with pytest.raises(WireError):
            reader(data)


def test_another_encoding_of_the_same_key_is_refused() -> None:
    members = dict(reversed(dict(cbor2.loads(SIGN.public.encode())).items()))
    with pytest.raises(WireError):
        decode_verifying_key(cbor2.dumps(members))
    with pytest.raises(WireError):
        decode_verifying_key(SIGN.public.encode() + b"\x00")


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_gives_another_key_or_a_wire_error(data: st.DataObject) -> None:
    key, reader = data.draw(st.sampled_from(READERS))
    encoded = bytearray(key.encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(WireError):
        assert reader(bytes(encoded)) != key


@given(st.binary(max_size=100))
@settings(max_examples=150, deadline=None)
def test_random_bytes_are_a_wire_error(data: bytes) -> None:
    for _, reader in READERS:
        with pytest.raises(WireError):
            reader(data)


def test_signing_and_verifying() -> None:
    signature = SIGN.sign(b"data")
    assert len(signature) == 64
    SIGN.public.verify(signature, b"data")
    for wrong, data in ((signature, b"date"), (bytes(64), b"data"), (b"", b"data")):
        with pytest.raises(BadSignatureError):
            SIGN.public.verify(wrong, data)
    with pytest.raises(BadSignatureError):
        SigningKey.generate().public.verify(signature, b"data")


def test_raw_keys_of_a_wrong_length_are_refused() -> None:
    for size in (0, 31, 33):
        with pytest.raises(MalformedError):
            VerifyingKey.of(bytes(size))
        with pytest.raises(MalformedError):
            SigningKey.of(bytes(size))


def test_a_file_is_named_by_its_key_or_by_its_bytes() -> None:
    assert file_thumbprint("keys/maker.cose", HYBRID.public.encode()) == HYBRID.thumbprint
    assert file_thumbprint("keys/sign.cose", SIGN.public.encode()) == SIGN.thumbprint
    assert file_thumbprint("keys/ca.pem", b"pem") == hashlib.sha256(b"pem").digest()


def test_a_private_key_is_no_file_of_a_policy() -> None:
    for key in (SIGN, CLASSICAL, HYBRID):
        with pytest.raises(WireError):
            file_thumbprint("keys/maker.cose", key.encode())


def test_a_public_key_is_told_apart_by_its_algorithm() -> None:
    for key in (SIGN.public, CLASSICAL.public, HYBRID.public):
        assert decode_public_key(key.encode()) == key
