# SPDX-License-Identifier: Apache-2.0
"""What comes down: believed when the recipient said it to this gateway, else counted and forgotten."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.inbox import STRANGER, Rejected, read_inbound
from agent.keys import Keys
from agent.settings import load_settings
from agent.site import Site, open_site
from agent.spool import Inbound
from assent import cbor
from assent.cosekey import SigningKey
from assent.envelope import Kind, seal, sign_message
from assent.messages import (
    Acknowledgement,
    RefusalReason,
    Refused,
    Status,
    StreamAck,
    new_mailbox,
)
from tests.agent.installed import MAKER, install
from tests.simulators.clock import ManualClock

ACK = Acknowledgement(
    (StreamAck(7, 3, ((5, 9),), (Refused(4, RefusalReason.TERMS, retry=False),)),)
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    directory = install(tmp_path_factory.mktemp("installed") / "gateway")
    return open_site(load_settings(directory), ManualClock())


def inbound(data: bytes, recipient: str = "maker") -> Inbound:
    return Inbound(1, recipient, data, 0)


def message(
    site: Site,
    *,
    kind: Kind = Kind.ACKNOWLEDGEMENT,
    body: bytes | None = None,
    signer: str | SigningKey = "maker",
    to: str = "maker",
    mailbox: str | None = None,
) -> bytes:
    gateway = site.keys.gateway(to)
    key = signer if isinstance(signer, SigningKey) else MAKER.recipients[signer].ack
    signed = sign_message(
        kind, ACK.encode() if body is None else body, key, mailbox or gateway.mailbox
    )
    return seal(signed, gateway.seal.public, mailbox or gateway.mailbox)


def read(site: Site, data: bytes, recipient: str = "maker") -> Acknowledgement | Rejected:
    return read_inbound(inbound(data, recipient), site.keys, site.policy)


@pytest.mark.parametrize("recipient", MAKER.recipients)
def test_an_acknowledgement_of_the_recipient_is_believed(site: Site, recipient: str) -> None:
    data = message(site, signer=recipient, to=recipient)
    assert read(site, data, recipient) == ACK


@pytest.mark.clause("C11")
@pytest.mark.parametrize(
    ("changes", "came_by", "reason"),
    [
        ({"signer": SigningKey.generate()}, "maker", "bad-signature"),
        ({"signer": "energy-advice"}, "maker", "bad-signature"),
        ({"mailbox": new_mailbox()}, "maker", "cannot-open"),
        ({"signer": "energy-advice", "to": "energy-advice"}, "maker", "cannot-open"),
        ({}, "energy-advice", "cannot-open"),
        ({}, "nobody", STRANGER),
        ({}, "", STRANGER),
        ({"body": b""}, "maker", "not-canonical"),
        ({"body": cbor.encode("acknowledged")}, "maker", "malformed"),
        ({"body": b"\xff" * 20}, "maker", "not-canonical"),
    ],
    ids=[
        "a stranger signs",
        "the other recipient signs",
        "it is for another mailbox",
        "it is sealed for our other mailbox",
        "another broker brings it",
        "an unknown recipient brings it",
        "nobody brings it",
        "its body is empty",
        "its body is another one",
        "its body is garbage",
    ],
)
def test_what_is_not_the_recipients_word_to_us_is_rejected_by_its_reason(
    site: Site, changes: dict[str, object], came_by: str, reason: str
) -> None:
    data = message(site, **changes)  # type: ignore[arg-type]
    assert read(site, data, came_by) == Rejected(reason)


@pytest.mark.clause("C11")
@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.STATUS])
def test_what_travels_up_is_not_believed_when_it_comes_down(site: Site, kind: Kind) -> None:
    data = message(site, kind=kind, body=Status("example-appliances", 17).encode())
    assert read(site, data) == Rejected("bad-signature")


def test_without_a_policy_everybody_is_a_stranger(site: Site) -> None:
    assert read_inbound(inbound(message(site)), site.keys, None) == Rejected(STRANGER)


def test_a_recipient_that_the_policy_no_longer_has_is_a_stranger(site: Site) -> None:
    assert site.policy is not None
    without = msgspec.structs.replace(site.policy, ack_keys={})
    assert read_inbound(inbound(message(site)), site.keys, without) == Rejected(STRANGER)


def test_a_key_of_ours_that_cannot_be_read_rejects_and_breaks_nothing(
    site: Site, tmp_path: Path
) -> None:
    data = message(site)
    other = Keys.open(tmp_path / "keys")
    other.gateway("maker")
    (tmp_path / "keys/gateways/maker.key").write_bytes(b"\x00" * 64)
    assert read_inbound(inbound(data), Keys.open(tmp_path / "keys"), site.policy) == Rejected(
        "keys"
    )
    assert read(site, data) == ACK


def test_a_message_cut_or_changed_anywhere_is_rejected(site: Site) -> None:
    whole = message(site)
    for at in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[at] ^= 0x40
        for data in (bytes(changed), whole[:at], whole + whole[:at] + b"\x00"):
            assert isinstance(read(site, data), Rejected)
    assert read(site, whole) == ACK


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=2_000))
def test_whatever_comes_down_is_rejected_by_a_name_and_never_an_exception(
    site: Site, data: bytes
) -> None:
    found = read(site, data)
    assert isinstance(found, Rejected)
    assert found.reason.replace("-", "").isalpha()
