# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import pytest

import assent
from assent import _ROOMS
from assent.cosekey import SealPrivateKey
from tests.backend.parts import Hand, power


def test_ten_lines_open_a_batch() -> None:
    hand, seal = Hand.make(), SealPrivateKey.generate()
    key = assent.decode_seal_private_key(seal.encode())
    signer = assent.decode_verifying_key(hand.sign.public.encode())
    mailbox = assent.mailbox_of(hand.topic)
    data = hand.batch(seal.public, power())
    opened = assent.open_batch(data, key=key, signer=signer, mailbox=mailbox, recipient="maker")
    assert opened.tables == power()
    with pytest.raises(assent.WireError):
        assent.open_batch(data, key=key, signer=signer, mailbox=mailbox, recipient="advice")


def test_every_public_name_is_there() -> None:
    assert set(assent.__all__) == set(_ROOMS)
    assert all(getattr(assent, name) is not None for name in assent.__all__)
    assert set(assent.__all__) <= set(dir(assent))
    with pytest.raises(AttributeError):
        _ = assent.unknown


def test_importing_the_package_loads_no_cryptography() -> None:
    code = "import sys, assent.errors; print({'cryptography', 'cbor2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
