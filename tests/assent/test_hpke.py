# SPDX-License-Identifier: Apache-2.0
"""HPKE and its two KEMs by themselves; vectors from elsewhere are in test_standards."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from assent import hpke, kem
from assent.errors import CannotOpenError, MalformedError, TooLargeError, WireError

SUITES = [hpke.HPKE_4, hpke.HPKE_9]
IDS = ["HPKE-4", "HPKE-9"]
KEYS = {suite: kem.generate(suite.kem) for suite in SUITES}
BIG = 2**16


@pytest.mark.parametrize("suite", SUITES, ids=IDS)
@given(info=st.binary(max_size=40), aad=st.binary(max_size=40), plaintext=st.binary(max_size=200))
@settings(max_examples=40, deadline=None)
def test_what_was_sealed_opens(
    suite: hpke.Suite, info: bytes, aad: bytes, plaintext: bytes
) -> None:
    key = KEYS[suite]
    enc, ciphertext = hpke.seal(suite, key.public, info, aad, plaintext)
    assert len(enc) == suite.kem.enc_bytes
    assert len(ciphertext) == len(plaintext) + 16
    assert hpke.open(suite, key, enc, info, aad, ciphertext) == plaintext


@pytest.mark.parametrize("suite", SUITES, ids=IDS)
@pytest.mark.parametrize(
    ("info", "aad", "enc_bit", "ct_bit"),
    [
        (b"other", b"aad", None, None),
        (b"info", b"other", None, None),
        (b"info", b"aad", 0, None),
        (b"info", b"aad", None, 0),
        (b"info", b"aad", None, -1),
    ],
    ids=["another info", "another aad", "a bit of enc", "a bit of the text", "a bit of the tag"],
)
def test_anything_else_does_not_open(
    suite: hpke.Suite, info: bytes, aad: bytes, enc_bit: int | None, ct_bit: int | None
) -> None:
    key = KEYS[suite]
    enc, ciphertext = map(bytearray, hpke.seal(suite, key.public, b"info", b"aad", b"text"))
    if enc_bit is not None:
        enc[enc_bit] ^= 1
    if ct_bit is not None:
        ciphertext[ct_bit] ^= 1
    with pytest.raises(CannotOpenError):
        hpke.open(suite, key, bytes(enc), info, aad, bytes(ciphertext))


@pytest.mark.parametrize("suite", SUITES, ids=IDS)
def test_another_key_does_not_open(suite: hpke.Suite) -> None:
    enc, ciphertext = hpke.seal(suite, KEYS[suite].public, b"", b"", b"text")
    with pytest.raises(CannotOpenError):
        hpke.open(suite, kem.generate(suite.kem), enc, b"", b"", ciphertext)


@pytest.mark.parametrize("suite", SUITES, ids=IDS)
@given(data=st.binary(max_size=1200), text=st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_random_bytes_are_refused_as_ours(suite: hpke.Suite, data: bytes, text: bytes) -> None:
    enc = data.ljust(suite.kem.enc_bytes, b"\x01") if len(data) % 2 else data
    with pytest.raises(WireError):
        hpke.open(suite, KEYS[suite], enc, b"", b"", text)


@pytest.mark.parametrize("suite", SUITES, ids=IDS)
def test_lengths_are_checked_before_use(suite: hpke.Suite) -> None:
    key = KEYS[suite]
    enc, ciphertext = hpke.seal(suite, key.public, b"", b"", b"")
    for short in (b"", enc[:-1], enc + b"\x00"):
        with pytest.raises(CannotOpenError):
            hpke.open(suite, key, short, b"", b"", ciphertext)
    with pytest.raises(CannotOpenError):
        hpke.open(suite, key, enc, b"", b"", ciphertext[:-1])


def test_the_longest_info_is_the_two_byte_one() -> None:
    key = KEYS[hpke.HPKE_9]
    enc, ciphertext = hpke.seal(hpke.HPKE_9, key.public, bytes(BIG - 1), b"", b"text")
    assert hpke.open(hpke.HPKE_9, key, enc, bytes(BIG - 1), b"", ciphertext) == b"text"
    with pytest.raises(TooLargeError):
        hpke.seal(hpke.HPKE_9, key.public, bytes(BIG), b"", b"text")
    with pytest.raises(TooLargeError):
        hpke.open(hpke.HPKE_9, key, enc, bytes(BIG), b"", ciphertext)


def test_a_fixed_ephemeral_key_seals_to_the_same_bytes_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    public, once = KEYS[hpke.HPKE_4].public, X25519PrivateKey.generate()

    def seal(key: X25519PrivateKey | None) -> tuple[bytes, bytes]:
        return hpke.seal(hpke.HPKE_4, public, b"", b"", b"text", unsafe_ephemeral=key)

    assert seal(None) != seal(None)
    assert not caplog.records
    assert seal(once) == seal(once)
    assert [record.getMessage().split()[0] for record in caplog.records] == (
        ["event=unsafe-ephemeral"] * 2
    )


@pytest.mark.parametrize("which", list(kem.Kem), ids=lambda which: which.name)
def test_keys_of_a_wrong_length_are_refused(which: kem.Kem) -> None:
    for size in (0, which.public_bytes - 1, which.public_bytes + 1):
        with pytest.raises(MalformedError):
            kem.load_public(which, bytes(size))
    for size in (0, 31, 33, 64):
        with pytest.raises(MalformedError):
            kem.load_private(which, bytes(size))


def test_a_lattice_key_outside_its_modulus_is_refused() -> None:
    raw = b"\xff" * 1184 + KEYS[hpke.HPKE_9].public.raw[1184:]
    with pytest.raises(MalformedError):
        kem.load_public(kem.Kem.MLKEM768_X25519, raw)


@pytest.mark.parametrize("suite", SUITES, ids=IDS)
def test_a_point_of_low_order_is_refused_in_sealing_and_opening(suite: hpke.Suite) -> None:
    key = KEYS[suite]
    public = kem.load_public(suite.kem, key.public.raw[:-32] + bytes(32))
    with pytest.raises(MalformedError):
        hpke.seal(suite, public, b"", b"", b"text")
    enc, ciphertext = hpke.seal(suite, key.public, b"", b"", b"text")
    with pytest.raises(CannotOpenError):
        hpke.open(suite, key, enc[:-32] + bytes(32), b"", b"", ciphertext)


@pytest.mark.parametrize("suite", SUITES, ids=IDS)
def test_a_private_key_reloads_and_shows_nothing(suite: hpke.Suite) -> None:
    key = KEYS[suite]
    assert kem.load_private(suite.kem, key.raw).public.raw == key.public.raw
    shown = repr(key) + str(key)
    assert key.raw.hex() not in shown
    assert repr(key.raw) not in shown
