# SPDX-License-Identifier: Apache-2.0
"""Bytes nobody here wrote, through our own interface.

Each test says how many of a file's cases our interface can express; the rest is counted and must
be refused, so that a file that lost its cases fails instead of passing.

Not expressible: the intermediate values of C2SP/CCTV, whose key generation is that of the draft
before FIPS 203 (its seed is hashed without the rank), and AES-CCM, which no suite of ours has.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import lzma
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey
from cryptography.hazmat.primitives.hpke import Suite as Theirs

from assent import cbor, cosekey, hpke, kem
from assent.cosekey import SealPrivateKey, SigningKey, VerifyingKey
from assent.envelope import cose
from assent.errors import (
    BadSignatureError,
    CannotOpenError,
    MalformedError,
    UnknownSuiteError,
    WireError,
)
from assent.header import read_header
from assent.wire import Algorithm

hexed = bytes.fromhex


@functools.cache
def load(path: Path) -> Any:
    raw = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    if ".jsonl" in path.name:
        return [json.loads(line) for line in raw.splitlines()]
    return json.loads(raw)


def cases(path: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every (group, test) of a Wycheproof file."""
    return [(group, test) for group in load(path)["testGroups"] for test in group["tests"]]


def suite_of(vector: dict[str, Any]) -> hpke.Suite | None:
    """Our suite for a vector's numbers, if we have those and it is of base mode."""
    if vector["mode"] != 0:
        return None
    try:
        return hpke.Suite(
            kem.Kem(vector["kem_id"]), hpke.Kdf(vector["kdf_id"]), hpke.Aead(vector["aead_id"])
        )
    except ValueError:
        return None


def hpke_vectors(shared_data: Path) -> list[tuple[hpke.Suite, dict[str, Any]]]:
    both = load(shared_data / "crypto/hpke_rfc9180_dev.json.xz")
    both = both + load(shared_data / "crypto/hpke_pq_dev.json")
    return [(suite, vector) for vector in both if (suite := suite_of(vector))]


def test_hpke_vectors_open(shared_data: Path) -> None:
    vectors = hpke_vectors(shared_data)
    for suite, vector in vectors:
        key = kem.load_private(suite.kem, hexed(vector["skRm"]))
        assert key.public.raw == hexed(vector["pkRm"])
        enc, first = hexed(vector["enc"]), vector["encryptions"][0]
        assert key.decapsulate(enc) == hexed(vector["shared_secret"])
        sealed = hexed(first["aad"]), hexed(first["ct"])
        assert hpke.open(suite, key, enc, hexed(vector["info"]), *sealed) == hexed(first["pt"])
    # RFC 9180: X25519, HKDF-SHA256, three ciphers. HPKE-PQ: 0x647a with HKDF-SHA256, ChaCha20.
    assert len(vectors) >= 4
    assert {suite.kem for suite, _ in vectors} == set(kem.Kem)
    assert {suite.aead for suite, _ in vectors} == set(hpke.Aead)


def test_hpke_vectors_are_sealed_again_to_the_same_bytes(shared_data: Path) -> None:
    classical = [(s, v) for s, v in hpke_vectors(shared_data) if s.kem is kem.Kem.X25519]
    for suite, vector in classical:
        ephemeral = X25519PrivateKey.from_private_bytes(hexed(vector["skEm"]))
        public = kem.load_public(suite.kem, hexed(vector["pkRm"]))
        first = vector["encryptions"][0]
        info, aad, plaintext = hexed(vector["info"]), hexed(first["aad"]), hexed(first["pt"])
        sealed = hpke.seal(suite, public, info, aad, plaintext, unsafe_ephemeral=ephemeral)
        assert sealed == (hexed(vector["enc"]), hexed(first["ct"]))
    assert len(classical) >= 3


def test_a_later_sequence_number_does_not_open(shared_data: Path) -> None:
    suite, vector = hpke_vectors(shared_data)[0]
    key, second = kem.load_private(suite.kem, hexed(vector["skRm"])), vector["encryptions"][1]
    enc, info = hexed(vector["enc"]), hexed(vector["info"])
    with pytest.raises(CannotOpenError):
        hpke.open(suite, key, enc, info, hexed(second["aad"]), hexed(second["ct"]))


def test_xwing_vectors_decapsulate(shared_data: Path) -> None:
    vectors = load(shared_data / "crypto/xwing_kem.json")
    for vector in vectors:
        key = SealPrivateKey.of(Algorithm.HPKE_9, hexed(vector["seed"]))
        assert key.public.key.raw == hexed(vector["pk"])
        assert key.key.decapsulate(hexed(vector["ct"])) == hexed(vector["ss"])
    assert len(vectors) >= 3


THEIRS = {
    hpke.HPKE_4: Theirs(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305),
    hpke.HPKE_9: Theirs(KEM.MLKEM768_X25519, KDF.SHAKE256, AEAD.AES_256_GCM),
}


def their_key(suite: hpke.Suite, seed: bytes) -> X25519PrivateKey | MLKEM768X25519PrivateKey:
    if suite is hpke.HPKE_4:
        return X25519PrivateKey.from_private_bytes(seed)
    expanded = hashlib.shake_256(seed).digest(96)  # draft-connolly-cfrg-xwing-kem §5.2
    return MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        X25519PrivateKey.from_private_bytes(expanded[64:]),
    )


@pytest.mark.parametrize("suite", THEIRS, ids=["HPKE-4", "HPKE-9"])
@pytest.mark.parametrize("size", [0, 1, 1_500, 100_000])
def test_cryptography_opens_what_we_seal_and_the_reverse(suite: hpke.Suite, size: int) -> None:
    ours, plaintext, info = kem.generate(suite.kem), b"\xa5" * size, b"info of some length"
    theirs = their_key(suite, ours.raw)
    enc, ciphertext = hpke.seal(suite, ours.public, info, b"", plaintext)
    assert THEIRS[suite].decrypt(enc + ciphertext, theirs, info=info) == plaintext
    sealed = THEIRS[suite].encrypt(plaintext, theirs.public_key(), info=info)
    enc, ciphertext = sealed[: suite.kem.enc_bytes], sealed[suite.kem.enc_bytes :]
    assert hpke.open(suite, ours, enc, info, b"", ciphertext) == plaintext


def enc_structure(protected: bytes, external: bytes) -> bytes:
    return cbor.encode(["Encrypt0", protected, external])


def open_cose(vector: dict[str, Any]) -> bytes:
    """Opens a COSE-HPKE vector through the key reader, the structure reader and the seal."""
    key = cosekey.decode_seal_private_key(hexed(vector["cose_key"]))
    read = cose.read_encrypt0(hexed(vector["cose"]), 10_000)
    external = vector["external_aad"].encode()
    if not vector["info"]:
        return cose.decrypt0(read, key, external)
    # the envelope's info is always empty; the vectors with one are opened a step lower
    aad, info = enc_structure(read.protected, external), vector["info"].encode()
    return hpke.open(hpke.HPKE_4, key.key, read.enc, info, aad, read.ciphertext)


def test_cose_hpke_vectors_of_our_suite_open_and_all_others_are_refused(shared_data: Path) -> None:
    opened = refused = 0
    for vector in load(shared_data / "crypto/cose_hpke_vectors_dev.jsonl.xz"):
        ours = vector["alg"] == "HPKE-4" and vector["mode"] == "encrypt0" and not vector["psk_id"]
        if ours:
            assert open_cose(vector) == vector["plaintext"].encode(), vector["label"]
            opened += 1
        else:
            with pytest.raises(WireError):
                open_cose(vector)
            refused += 1
    assert opened >= 4
    assert refused >= 116


def test_cose_keys_of_other_suites_are_refused_by_name(shared_data: Path) -> None:
    codes = set()
    for vector in load(shared_data / "crypto/cose_hpke_vectors_dev.jsonl.xz"):
        if (vector["alg"], vector["mode"]) != ("HPKE-4", "encrypt0"):
            with pytest.raises(UnknownSuiteError) as caught:
                cosekey.decode_seal_private_key(hexed(vector["cose_key"]))
            codes.add(caught.value.code)
    assert codes == {"unknown-suite"}


def sign0_of_ed25519(shared_data: Path) -> list[dict[str, Any]]:
    examples = [
        row["example"] for row in load(shared_data / "crypto/cose_wg_examples_dev.jsonl.xz")
    ]
    return [
        e for e in examples if e["input"].get("sign0", {}).get("key", {}).get("crv") == "Ed25519"
    ]


def test_cose_wg_eddsa_examples_verify_once_their_clear_header_is_off(shared_data: Path) -> None:
    examples = sign0_of_ed25519(shared_data)
    for example in examples:
        whole = hexed(example["output"]["cbor"])
        with pytest.raises(WireError):  # they show a kid in clear; ours show nothing
            cose.read_sign1(whole, 1_000)
        protected, _, payload, signature = cbor2.loads(whole).value
        read = cose.read_sign1(b"\xd2" + cbor.encode([protected, {}, payload, signature]), 1_000)
        key = VerifyingKey.of(hexed(example["input"]["sign0"]["key"]["x_hex"]))
        assert cose.verify1(read, payload, key, b"") == {3: 0}
        with pytest.raises(MalformedError):  # a content type is no header of ours
            read_header({3: 0})
    assert len(examples) >= 2


def test_cose_wg_eddsa_examples_are_signed_again_to_the_same_bytes(shared_data: Path) -> None:
    for example in sign0_of_ed25519(shared_data):
        protected, _, payload, signature = cbor2.loads(hexed(example["output"]["cbor"])).value
        key = SigningKey.of(hexed(example["input"]["sign0"]["key"]["d_hex"]))
        made = cbor2.loads(cose.sign1({3: 0}, payload, key, b"")).value
        assert (made[0], made[3]) == (protected, signature)


def test_no_other_cose_example_is_read_at_all(shared_data: Path) -> None:
    rows = load(shared_data / "crypto/cose_wg_examples_dev.jsonl.xz")
    key = SealPrivateKey.generate(classical=True)
    for row in rows:
        data = hexed(row["example"]["output"]["cbor"])
        with pytest.raises(WireError):
            cose.read_sign1(data, 100_000)
        with pytest.raises(WireError):
            cose.decrypt0(cose.read_encrypt0(data, 100_000), key, b"")
    assert len(rows) >= 141


def test_wycheproof_ed25519(shared_data: Path) -> None:
    good = bad = 0
    for group, test in cases(shared_data / "crypto/wycheproof_ed25519.json.xz"):
        key = VerifyingKey.of(hexed(group["publicKey"]["pk"]))
        if test["result"] == "valid":
            key.verify(hexed(test["sig"]), hexed(test["msg"]))
            good += 1
        else:
            with pytest.raises(BadSignatureError):
                key.verify(hexed(test["sig"]), hexed(test["msg"]))
            bad += 1
    assert good >= 88
    assert bad >= 63


def dhkem(dh: bytes, enc: bytes, public: bytes) -> bytes:
    """ExtractAndExpand of RFC 9180 §4.1, written down a second time."""
    suite = b"HPKE-v1KEM\x00\x20"
    prk = hmac.digest(b"", suite + b"eae_prk" + dh, "sha256")
    labeled = b"\x00\x20" + suite + b"shared_secret" + enc + public
    return hmac.digest(prk, labeled + b"\x01", "sha256")


def test_wycheproof_x25519_through_the_kem(shared_data: Path) -> None:
    good = zero = 0
    for _, test in cases(shared_data / "crypto/wycheproof_x25519.json.xz"):
        key = SealPrivateKey.of(Algorithm.HPKE_4, hexed(test["private"]))
        enc, shared = hexed(test["public"]), hexed(test["shared"])
        if any(shared):
            assert key.key.decapsulate(enc) == dhkem(shared, enc, key.public.key.raw)
            good += 1
        else:  # RFC 9180 §7.1.4: refused, in opening and in sealing
            with pytest.raises(CannotOpenError):
                hpke.open(hpke.HPKE_4, key.key, enc, b"", b"", bytes(16))
            with pytest.raises(MalformedError):
                hpke.seal(hpke.HPKE_4, kem.load_public(kem.Kem.X25519, enc), b"", b"", b"")
            zero += 1
    assert good >= 487
    assert zero >= 31


def hybrid(seed: bytes) -> kem.PrivateKey:
    """A hybrid key around a lattice seed, which our own keys derive from a shorter one."""
    lattice = MLKEM768PrivateKey.from_seed_bytes(seed)
    curve = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    both = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
    public = kem.load_public(kem.Kem.MLKEM768_X25519, both)
    return kem._HybridPrivate(b"", public, lattice, curve)  # type: ignore[arg-type]


def combined(key: kem.PrivateKey, shared: bytes, secret: X25519PrivateKey) -> bytes:
    """X-Wing's combiner, written down a second time."""
    enc, public = secret.public_key().public_bytes_raw(), key.public.raw[1184:]
    dh = X25519PrivateKey.from_private_bytes(bytes(range(32))).exchange(secret.public_key())
    return hashlib.sha3_256(shared + dh + enc + public + b"\\.//^\\").digest()


def test_wycheproof_mlkem768_through_the_hybrid(shared_data: Path) -> None:
    good = bad = 0
    secret = X25519PrivateKey.from_private_bytes(b"\x77" * 32)
    point = secret.public_key().public_bytes_raw()
    for _, test in cases(shared_data / "crypto/wycheproof_mlkem_768.json.xz"):
        seed, ciphertext = hexed(test["seed"]), hexed(test["c"])
        if len(seed) != 64:  # our seeds have 32 bytes, whatever came
            with pytest.raises(MalformedError):
                SealPrivateKey.of(Algorithm.HPKE_9, seed)
            bad += 1
            continue
        key = hybrid(seed)
        assert key.public.raw[:1184] == hexed(test["ek"])
        if test["result"] == "valid":
            assert key.decapsulate(ciphertext + point) == combined(key, hexed(test["K"]), secret)
            good += 1
        else:
            with pytest.raises(CannotOpenError):
                hpke.open(hpke.HPKE_9, key, ciphertext + point, b"", b"", bytes(16))
            bad += 1
    assert good >= 153
    assert bad >= 40


@pytest.mark.parametrize(
    ("name", "suite", "least"),
    [("chacha20_poly1305", hpke.HPKE_4, 316), ("aes_gcm", hpke.HPKE_9, 1)],
)
def test_wycheproof_ciphers_of_the_suites(
    shared_data: Path, name: str, suite: hpke.Suite, least: int
) -> None:
    tried = 0
    for group, test in cases(shared_data / f"crypto/wycheproof_{name}.json.xz"):
        if (group["ivSize"], group["keySize"]) != (96, 256):
            continue  # a seal's nonce has 96 bits, its key 256
        cipher = hpke._cipher(suite, hexed(test["key"]))
        nonce, aad, sealed = hexed(test["iv"]), hexed(test["aad"]), test["ct"] + test["tag"]
        try:
            opened = cipher.decrypt(nonce, hexed(sealed), aad).hex()
        except Exception:  # noqa: BLE001 - whatever the library says, the case must be invalid
            assert test["result"] == "invalid", test["tcId"]
        else:
            assert (test["result"], opened) == ("valid", test["msg"])
        tried += 1
    assert tried >= least


def test_wycheproof_hkdf_of_the_lengths_a_schedule_uses(shared_data: Path) -> None:
    tried = 0
    for _, test in cases(shared_data / "crypto/wycheproof_hkdf_sha256.json.xz"):
        if test["result"] == "valid" and test["size"] <= 64:
            prk = kem.HKDF.extract(kem.SHA256(), hexed(test["salt"]), hexed(test["ikm"]))
            expand = kem.HKDFExpand(kem.SHA256(), test["size"], hexed(test["info"]))
            assert expand.derive(prk) == hexed(test["okm"])
            tried += 1
    assert tried >= 20
