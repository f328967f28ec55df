# SPDX-License-Identifier: Apache-2.0
"""Enrolling: what may be taken in, from whom, and what a refusal leaves behind: nothing."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from agent.enrol import enrol
from agent.keys import Keys, certificates
from agent.ledger import Ledger
from agent.lock import instance_lock
from agent.path import Reason
from agent.settings import load_settings
from agent.site import Site, open_site
from assent import cbor
from assent.cosekey import SigningKey, thumbprint_text
from assent.enrolment import Admission, decode_bundle, decode_request, encode_admission
from assent.enrolment import encode_bundle as encoded
from assent.errors import (
    AssentError,
    KeyStoreError,
    PolicyError,
    RefusedError,
    UsageError,
    WireError,
)
from tests.agent.installed import (
    MAKER,
    SERIAL,
    YES,
    Maker,
    copied,
    fresh,
    living,
    newer,
    no_room,
    replaced,
    requests,
)
from tests.simulators.clock import START_MS, ManualClock

CLOCK = ManualClock()
NOW = CLOCK.now()


@pytest.fixture
def gateway(installed: Path, tmp_path: Path) -> Path:
    return copied(installed, tmp_path / "gateway")


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    return fresh(tmp_path / "blank")


def site_of(directory: Path) -> Site:
    return open_site(load_settings(directory), CLOCK)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file of the configuration but the state, and the trusted key."""
    state = directory / "state"
    files = [path for path in directory.rglob("*") if path.is_file() and state not in path.parents]
    found = {str(path.relative_to(directory)): path.read_bytes() for path in files}
    if (state / "keys" / "policy.key").exists():
        trusted = Keys.open(state / "keys").policy_key
        assert trusted is not None
        found["trusted"] = trusted.encode()
    return found


def lasting(directory: Path) -> dict[str, bytes]:
    """The same without the requests, which are signed anew each time."""
    return {name: data for name, data in contents(directory).items() if "request" not in name}


def mailboxes(directory: Path) -> dict[str, str]:
    return {name: decode_request(data).mailbox for name, data in requests(directory).items()}


def admitted(directory: Path) -> set[str]:
    keys = site_of(directory).keys
    return {name for name in MAKER.recipients if keys.admitted(name)}


def test_a_first_bundle_is_trusted_and_writes_a_request_for_each_recipient(blank: Path) -> None:
    taken = enrol(blank, MAKER.bundle())
    assert taken.kind == "bundle"
    assert all(path.is_file() for path in taken.written)
    site = site_of(blank)
    assert site.trouble is None
    assert site.keys.policy_key == MAKER.key.public
    assert set(requests(blank)) == set(MAKER.recipients)
    told = "\n".join(taken.told)
    assert thumbprint_text(MAKER.key.public.thumbprint) in told
    assert f"serial {SERIAL}" in told


def test_enrolling_agrees_to_nothing(gateway: Path) -> None:
    refused = site_of(gateway).verdicts(NOW).values()
    assert {getattr(one, "reason", None) for one in refused} == {Reason.NOT_DECIDED}


def test_requests_of_one_gateway_have_nothing_in_common(gateway: Path) -> None:
    asked = [decode_request(data) for data in requests(gateway).values()]
    seen = [
        (
            one.mailbox.encode(),
            one.sign_key,
            one.seal_key,
            x509.load_pem_x509_csr(one.csr).public_key().public_numbers(),  # type: ignore[union-attr]
        )
        for one in asked
    ]
    assert len(seen) == 2
    assert all(first != second for first, second in zip(*seen, strict=True))


def test_the_same_bundle_twice_changes_nothing(gateway: Path) -> None:
    before, asked = lasting(gateway), mailboxes(gateway)
    assert enrol(gateway, MAKER.bundle()).kind == "bundle"
    assert lasting(gateway) == before
    assert mailboxes(gateway) == asked
    assert admitted(gateway) == set(MAKER.recipients)


def test_a_newer_bundle_of_the_same_maker_is_taken(gateway: Path) -> None:
    enrol(gateway, MAKER.bundle(newer))
    site = site_of(gateway)
    assert site.policy is not None
    assert site.policy.serial == SERIAL + 1
    assert admitted(gateway) == set(MAKER.recipients)


@pytest.mark.parametrize("prefix", ["sha-256:", ""], ids=["as it is told", "without its prefix"])
def test_the_makers_thumbprint_is_accepted(blank: Path, prefix: str) -> None:
    expected = thumbprint_text(MAKER.key.public.thumbprint)
    taken = enrol(blank, MAKER.bundle(), expected=prefix + expected.removeprefix("sha-256:"))
    assert taken.kind == "bundle"
    assert "not compared" not in "\n".join(taken.told)


def test_a_first_key_that_was_compared_with_nothing_is_told(blank: Path) -> None:
    told = enrol(blank, MAKER.bundle()).told
    assert told[2] == "not compared: is that the thumbprint which the maker told you?"
    again = enrol(blank, MAKER.bundle(newer)).told
    assert "not compared" not in "\n".join(again)


def test_an_admission_tells_what_is_still_to_be_done(gateway: Path, blank: Path) -> None:
    enrol(blank, MAKER.bundle())
    asked = requests(blank)
    told = enrol(blank, MAKER.recipients["maker"].admission(asked["maker"])).told
    assert told[1].startswith("next: assent consent ask, with the owner")
    with living(blank) as house:
        house.decide(YES)
    told = enrol(blank, MAKER.recipients["energy-advice"].admission(asked["energy-advice"])).told
    assert told[1] == "next: assent run, where none runs; assent status tells what arrived"


@pytest.mark.clause("C21")
def test_a_wrong_thumbprint_is_refused_with_nothing_written(blank: Path) -> None:
    before = contents(blank)
    other = thumbprint_text(SigningKey.generate().public.thumbprint)
    with pytest.raises(RefusedError) as caught:
        enrol(blank, MAKER.bundle(), expected=other)
    assert other in caught.value.message
    assert contents(blank) == before
    site = site_of(blank)
    assert site.trouble is not None
    assert site.trouble.reason is Reason.NOT_ENROLLED


@pytest.mark.clause("C21")
def test_a_bundle_of_another_maker_is_refused_with_nothing_written(gateway: Path) -> None:
    before = contents(gateway)
    with pytest.raises(RefusedError, match="trusts another policy key"):
        enrol(gateway, Maker().bundle(newer))
    assert contents(gateway) == before
    assert site_of(gateway).ledger.highest_serial == SERIAL


@pytest.mark.clause("C21")
def test_an_older_serial_is_refused_with_nothing_written(gateway: Path) -> None:
    enrol(gateway, MAKER.bundle(newer))
    before = contents(gateway)
    with pytest.raises(PolicyError, match="expected a policy of serial 18 or later, got 17"):
        enrol(gateway, MAKER.bundle())
    assert contents(gateway) == before


def test_another_text_of_the_same_serial_is_refused(gateway: Path) -> None:
    before = contents(gateway)
    with pytest.raises(PolicyError, match="another policy of serial 17"):
        enrol(gateway, MAKER.bundle(replaced('"90d"', '"30d"', then=str)))
    assert contents(gateway) == before


def test_an_older_policy_is_refused_although_the_newer_one_never_ran(gateway: Path) -> None:
    old = MAKER.policy()
    enrol(gateway, MAKER.bundle(newer))
    (gateway / "policy.toml").write_bytes(old[0])
    (gateway / "policy.toml.cose").write_bytes(old[1])
    site = site_of(gateway)
    assert site.policy is None


def without_a_file() -> bytes:
    bundle = decode_bundle(MAKER.bundle())
    files = {name: data for name, data in bundle.files.items() if name != "keys/maker-ca.pem"}
    return encoded(type(bundle)(bundle.policy, bundle.signature, bundle.policy_key, files))


def with_another_file() -> bytes:
    bundle = decode_bundle(MAKER.bundle())
    ca = {"keys/maker-ca.pem": bundle.files["keys/energy-advice-ca.pem"]}
    return encoded(
        type(bundle)(bundle.policy, bundle.signature, bundle.policy_key, bundle.files | ca)
    )


def with_another_signature() -> bytes:
    bundle = decode_bundle(MAKER.bundle())
    signature = MAKER.policy(newer)[1]
    return encoded(type(bundle)(bundle.policy, signature, bundle.policy_key, bundle.files))


@pytest.mark.parametrize(
    "made",
    [without_a_file, with_another_file, with_another_signature],
    ids=["a file is missing", "a file is another", "the signature is another's"],
)
def test_a_bundle_that_does_not_verify_writes_nothing(
    blank: Path, made: Callable[[], bytes]
) -> None:
    before = contents(blank)
    with pytest.raises(PolicyError):
        enrol(blank, made())
    assert contents(blank) == before


@pytest.mark.parametrize(
    "name",
    ["keys/unknown.cose", "state/keys/tls/maker.pem", "profiles/washer.pem"],
    ids=["an unknown key", "a key of the gateway's own", "another directory"],
)
def test_a_file_that_the_policy_does_not_name_is_not_written(gateway: Path, name: str) -> None:
    before = lasting(gateway)
    own = (gateway / "state/keys/tls/maker.pem").read_bytes()
    bundle = decode_bundle(MAKER.bundle())
    planted = type(bundle)(
        bundle.policy, bundle.signature, bundle.policy_key, bundle.files | {name: b"planted"}
    )
    taken = enrol(gateway, encoded(planted))
    assert gateway / name not in taken.written
    assert lasting(gateway) == before
    assert (gateway / "state/keys/tls/maker.pem").read_bytes() == own


def test_an_admission_is_kept_for_its_recipient_only(blank: Path) -> None:
    enrol(blank, MAKER.bundle())
    assert admitted(blank) == set()
    asked = requests(blank)
    taken = enrol(blank, MAKER.recipients["maker"].admission(asked["maker"]))
    assert taken.kind == "admission"
    assert taken.told[0] == "admitted by maker"
    assert admitted(blank) == {"maker"}
    enrol(blank, MAKER.recipients["energy-advice"].admission(asked["energy-advice"]))
    assert admitted(blank) == {"maker", "energy-advice"}


def test_an_admission_of_another_gateway_is_refused(blank: Path, gateway: Path) -> None:
    enrol(blank, MAKER.bundle())
    others = MAKER.recipients["maker"].admission(requests(gateway)["maker"])
    with pytest.raises(RefusedError, match="another gateway's request"):
        enrol(blank, others)
    assert admitted(blank) == set()


@pytest.mark.parametrize(
    "made",
    [
        lambda asked: Maker().recipients["maker"].admission(asked["maker"]),
        lambda asked: MAKER.recipients["energy-advice"].admission(
            asked["energy-advice"], recipient="maker"
        ),
        lambda asked: MAKER.recipients["maker"].admission(
            asked["maker"], recipient="energy-advice"
        ),
    ],
    ids=[
        "a stranger signs for the maker",
        "one recipient speaks for the other",
        "the maker says that it is the other",
    ],
)
def test_an_admission_of_another_recipient_is_refused(
    blank: Path, made: Callable[[dict[str, bytes]], bytes]
) -> None:
    enrol(blank, MAKER.bundle())
    with pytest.raises(RefusedError, match="no recipient of the policy in force signed this"):
        enrol(blank, made(requests(blank)))
    assert admitted(blank) == set()


def test_a_certificate_for_another_key_is_refused(blank: Path) -> None:
    enrol(blank, MAKER.bundle())
    maker, mailbox = MAKER.recipients["maker"], mailboxes(blank)["maker"]
    another = certificates.request(certificates.new_key(), mailbox)
    now = dt.datetime.fromtimestamp(START_MS / 1000, dt.UTC)
    chain = maker.authority.admit(another, mailbox, now)
    with pytest.raises(KeyStoreError):
        enrol(blank, encode_admission(Admission("maker", mailbox, chain), maker.ack))
    assert admitted(blank) == set()


def test_an_admission_before_the_bundle_is_refused_with_what_to_do(
    blank: Path, gateway: Path
) -> None:
    admission = MAKER.recipients["maker"].admission(requests(gateway)["maker"])
    with pytest.raises(RefusedError, match="needs a policy in force") as caught:
        enrol(blank, admission)
    assert caught.value.hint == "take in the maker's bundle first"


def test_a_request_is_for_the_recipient_and_a_usage_error_here(gateway: Path) -> None:
    before = contents(gateway)
    with pytest.raises(UsageError) as caught:
        enrol(gateway, requests(gateway)["maker"])
    assert caught.value.exit_code == 2
    assert contents(gateway) == before


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\n",
        b"[gateway]\nstate = 3\n",
        b"\x89PNG\r\n\x1a\n",
        b"\xd2\x84\x43",
        b"\xd2" + b"\xff" * 40,
        cbor.encode(["assent-bundle", 1]),
        cbor.encode(["assent-bundle", 99, b"", b"", b"", {}]),
        cbor.encode(["assent-other", 1]),
        cbor.encode([]),
        cbor.encode("assent-bundle"),
        b"\x9f" * 10_000,
        b"\x00" * 3_000_000,
    ],
    ids=[
        "nothing",
        "a line",
        "a settings file",
        "a picture",
        "half a signature",
        "a torn signature",
        "a bundle of nothing",
        "a bundle of another format",
        "another file of the family",
        "an empty list",
        "a text",
        "deep nesting",
        "too much",
    ],
)
def test_garbage_is_a_named_error_and_writes_nothing(gateway: Path, garbage: bytes) -> None:
    before = contents(gateway)
    with pytest.raises(WireError) as caught:
        enrol(gateway, garbage)
    assert caught.value.message
    assert contents(gateway) == before


def test_a_bundle_cut_anywhere_is_a_named_error(gateway: Path) -> None:
    whole = MAKER.bundle(newer)
    for end in range(0, len(whole), 97):
        with pytest.raises(WireError):
            enrol(gateway, whole[:end])
    assert site_of(gateway).ledger.highest_serial == SERIAL


def test_nothing_is_taken_in_beside_a_running_agent(gateway: Path) -> None:
    before = contents(gateway)
    with instance_lock(gateway / "state"), pytest.raises(RefusedError, match="another assent"):
        enrol(gateway, MAKER.bundle(newer))
    assert contents(gateway) == before
    assert enrol(gateway, MAKER.bundle(newer)).kind == "bundle"


def test_a_disk_without_room_is_a_sentence_and_the_old_policy_stays(gateway: Path) -> None:
    before = contents(gateway)
    with no_room(), pytest.raises(AssentError):
        enrol(gateway, MAKER.bundle(newer))
    assert contents(gateway) == before
    assert site_of(gateway).trouble is None


def test_a_bundle_that_was_taken_in_half_is_mended_by_taking_it_in_again(gateway: Path) -> None:
    # As a power cut after the second of its writes leaves it: the signature is written first.
    (gateway / "policy.toml.cose").write_bytes(MAKER.policy(newer)[1])
    half = site_of(gateway)
    assert half.trouble is not None
    assert half.trouble.reason is Reason.POLICY_UNUSABLE
    enrol(gateway, MAKER.bundle(newer))
    assert site_of(gateway).trouble is None


def test_the_ledger_remembers_what_was_taken_in(gateway: Path) -> None:
    enrol(gateway, MAKER.bundle(newer))
    keys = site_of(gateway).keys
    ledger = Ledger.open(gateway / "state/ledger.json", keys.ledger_key, NOW.wall_ms)
    assert ledger.highest_serial == SERIAL + 1


def test_no_key_and_no_mailbox_is_told_or_logged(
    gateway: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        taken = enrol(gateway, MAKER.bundle(newer))
    said = caplog.text + repr(msgspec.structs.asdict(taken))
    secrets = [*mailboxes(gateway).values(), "BEGIN", MAKER.key.public.raw.hex()]
    assert not [secret for secret in secrets if secret in said]
