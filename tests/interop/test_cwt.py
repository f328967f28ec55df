# SPDX-License-Identifier: Apache-2.0
"""A second implementation reads what we write and writes what we read: python-cwt 3.3.

Classical suite only; cwt knows no AKP keys. Its environment is found through ASSENT_CWT_PYTHON or
as `.venv-cwt`; without one the tests skip, in CI they fail.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from assent import cbor
from assent.cosekey import SealPrivateKey, SigningKey, decode_seal_private_key
from assent.envelope import (
    BatchHeader,
    ClockQuality,
    Direction,
    Kind,
    seal,
    sign_batch,
    sign_detached,
    sign_message,
    unseal,
    verify_batch,
    verify_message,
)
from assent.errors import BadSignatureError, CannotOpenError
from assent.header import sealed_data, signed_data, write_batch
from assent.wire import HEADER_ALG, HEADER_KID, KEY_KID

REPO = Path(__file__).resolve().parents[2]
MAILBOX = "00112233445566778899aabbccddeeff"
OTHER_MAILBOX = "ff112233445566778899aabbccddeeff"
GATEWAY = SigningKey.generate()
RECIPIENT = SealPrivateKey.generate(classical=True)
HEADER = BatchHeader(
    "maker", "energy-15", bytes(range(32)), bytes(16), 2**64 - 1, 7, 685, ClockQuality.TRUSTED
)
PAYLOAD = bytes(range(256)) * 8
UP = signed_data(MAILBOX, Direction.UP)
SEALED = sealed_data(MAILBOX, RECIPIENT.kid)


def with_kid(key: SealPrivateKey) -> bytes:
    """Our key as cwt wants it: it picks a key by a kid inside."""
    members = cbor.decode(key.encode(), max_bytes=200)
    assert isinstance(members, dict)
    named = cbor.encode(members | {KEY_KID: key.kid})
    assert decode_seal_private_key(named) == key
    return named


@pytest.fixture(scope="module")
def cwt_python() -> str:
    named = os.environ.get("ASSENT_CWT_PYTHON", str(REPO / ".venv-cwt/bin/python"))
    if not Path(named).exists():
        reason = "no python with cwt: set ASSENT_CWT_PYTHON or make .venv-cwt/ready"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return named


def ask(cwt_python: str, **job: Any) -> dict[str, str]:
    """Has cwt do one job; bytes travel as hex."""
    plain = {
        name: field.hex() if isinstance(field, bytes) else field for name, field in job.items()
    }
    peer = Path(__file__).with_name("cwt_peer.py")
    done = subprocess.run(
        [cwt_python, "-I", str(peer)],
        input=json.dumps([plain]),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (result,) = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def test_cwt_verifies_what_we_sign(cwt_python: str) -> None:
    signed = sign_batch(HEADER, PAYLOAD, GATEWAY, MAILBOX)
    key = GATEWAY.public.encode()
    result = ask(cwt_python, do="verify", key=key, data=signed, external=UP)
    assert bytes.fromhex(result["ok"]) == PAYLOAD
    assert bytes.fromhex(result["header"]) == cbor.encode({HEADER_ALG: -8, **write_batch(HEADER)})
    down = signed_data(MAILBOX, Direction.DOWN)
    refused = ask(cwt_python, do="verify", key=key, data=signed, external=down)
    assert "error" in refused


def test_cwt_verifies_our_detached_signature(cwt_python: str) -> None:
    signature = sign_detached(PAYLOAD, GATEWAY, b"purpose")
    job = {
        "do": "verify",
        "key": GATEWAY.public.encode(),
        "data": signature,
        "external": b"purpose",
    }
    assert bytes.fromhex(ask(cwt_python, **job, detached=PAYLOAD)["ok"]) == PAYLOAD
    assert "error" in ask(cwt_python, **job, detached=PAYLOAD + b"x")


def test_cwt_opens_what_we_seal(cwt_python: str) -> None:
    signed = sign_batch(HEADER, PAYLOAD, GATEWAY, MAILBOX)
    data = seal(signed, RECIPIENT.public, MAILBOX)
    result = ask(cwt_python, do="open", key=with_kid(RECIPIENT), data=data, external=SEALED)
    assert bytes.fromhex(result["ok"]) == signed
    other = sealed_data(OTHER_MAILBOX, RECIPIENT.kid)
    refused = ask(cwt_python, do="open", key=with_kid(RECIPIENT), data=data, external=other)
    assert "error" in refused


def test_we_verify_what_cwt_signs(cwt_python: str) -> None:
    result = ask(
        cwt_python,
        do="sign",
        key=GATEWAY.encode(),
        payload=PAYLOAD,
        protected=cbor.encode({HEADER_ALG: -8, **write_batch(HEADER)}),
        clear=cbor.encode({}),
        external=UP,
    )
    signed = bytes.fromhex(result["ok"])
    assert verify_batch(signed, GATEWAY.public, MAILBOX) == (HEADER, PAYLOAD)
    assert signed == sign_batch(HEADER, PAYLOAD, GATEWAY, MAILBOX)  # Ed25519 is deterministic
    with pytest.raises(BadSignatureError):
        verify_batch(signed, GATEWAY.public, OTHER_MAILBOX)


def test_we_open_what_cwt_seals(cwt_python: str) -> None:
    signed = sign_message(Kind.STATUS, b"body", GATEWAY, MAILBOX)
    result = ask(
        cwt_python,
        do="seal",
        key=RECIPIENT.public.encode(),
        payload=signed,
        protected=cbor.encode({HEADER_ALG: 42}),
        clear=cbor.encode({HEADER_KID: RECIPIENT.kid}),
        external=SEALED,
    )
    data = bytes.fromhex(result["ok"])
    opened = unseal(data, RECIPIENT, MAILBOX)
    assert verify_message(opened, GATEWAY.public, MAILBOX, Direction.UP) == (Kind.STATUS, b"body")
    with pytest.raises(CannotOpenError):
        unseal(data, RECIPIENT, OTHER_MAILBOX)
    assert len(data) == len(seal(signed, RECIPIENT.public, MAILBOX))
