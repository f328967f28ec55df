# SPDX-License-Identifier: Apache-2.0
"""A certificate is asked for anew beside a running agent, taken in at once, and missed in time."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import json
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from agent.admission import request_of
from agent.cli.main import main
from agent.control import Control
from agent.enrol import enrol, renew
from agent.keys import Keys
from agent.lock import instance_lock
from assent.cosekey import SigningKey
from assent.enrolment import Admission, EnrolRequest, decode_request, encode_admission
from assent.errors import AssentError, KeyStoreError, RefusedError, UsageError
from assent.validity import ends_ms
from tests.agent.installed import (
    ADVICE,
    CORE,
    DIAGNOSIS,
    MAKER,
    NOBODY,
    YES,
    House,
    copied,
    fresh,
    living,
    requests,
)
from tests.simulators.clock import START_MS, ManualClock

DAY_MS = 86_400_000
NOW = dt.datetime.fromtimestamp(START_MS / 1000, dt.UTC)
TOLD = ["admitted by maker again", "next: nothing; the next connection shows it"]


# OID 1.2.840.10045.3.1.7 (RFC 5480) in DER.
P256 = bytes.fromhex("06082a8648ce3d030107")


@pytest.fixture
def gateway(installed: Path, tmp_path: Path) -> Path:
    return copied(installed, tmp_path / "gateway")


@pytest.fixture
def house(gateway: Path) -> Iterator[House]:
    with living(gateway) as house:
        house.decide(YES)
        yield house


def asked(house: House, recipient: str = "maker") -> bytes:
    answer = house.desk.answer({"verb": "renew", "recipient": recipient})
    return base64.b64decode(answer["request"])


def brings(house: House, admission: bytes) -> list[str]:
    data = base64.b64encode(admission).decode()
    return list(house.desk.answer({"verb": "admission", "data": data})["told"])


def answered(
    request: bytes,
    *,
    now: dt.datetime = NOW,
    mailbox: str | None = None,
    csr_of: bytes | None = None,
    ack: SigningKey | None = None,
    edit: tuple[bytes, bytes] = (b"", b""),
) -> bytes:
    """The maker's answer; with something in it that is not as asked."""
    maker, of = MAKER.recipients["maker"], decode_request(csr_of or request)
    name = mailbox or of.mailbox
    chain = maker.authority.admit(of.csr, of.mailbox, now)
    if edit[0]:
        der = x509.load_pem_x509_certificate(chain).public_bytes(Encoding.DER)
        assert edit[0] in der
        chain = ssl.DER_cert_to_PEM_cert(der.replace(*edit)).encode()
    return encode_admission(Admission("maker", name, chain), ack or maker.ack)


def pair_of(house: House) -> bytes:
    return house.site.keys.tls_pair("maker").read_bytes()


def key_of(request: EnrolRequest) -> object:
    return x509.load_pem_x509_csr(request.csr).public_key()


# The request.


@pytest.mark.clause("C21")
def test_a_renewal_asks_for_a_new_tls_key_under_the_same_name_and_keys(
    house: House, gateway: Path
) -> None:
    first, again = decode_request(requests(gateway)["maker"]), decode_request(asked(house))
    assert (again.recipient, again.mailbox) == (first.recipient, first.mailbox)
    assert (again.sign_key, again.seal_key) == (first.sign_key, first.seal_key)
    assert key_of(again) != key_of(first)
    assert key_of(decode_request(asked(house))) == key_of(again), "one that waits is repeated"


def test_asking_changes_nothing_of_what_runs(house: House) -> None:
    before = pair_of(house)
    house.powers(1, 2, 3)
    asked(house)
    assert pair_of(house) == before
    assert house.on() == dict.fromkeys(YES)
    house.turn(120_000)
    assert house.waiting(DIAGNOSIS) > 0


@pytest.mark.parametrize(
    ("recipient", "hint"),
    [("makr", "did you mean maker?"), ("nobody", "it has: energy-advice, maker")],
    ids=["nearly one", "none"],
)
def test_a_recipient_that_the_policy_does_not_have_is_named(
    house: House, recipient: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=f"no recipient '{recipient}'") as caught:
        asked(house, recipient)
    assert caught.value.hint == hint


def test_without_a_policy_there_is_nobody_to_ask(tmp_path: Path) -> None:
    with living(fresh(tmp_path / "blank")) as house, pytest.raises(RefusedError) as caught:
        asked(house)
    assert "a request needs a policy in force" in caught.value.message


# The answer.


@pytest.mark.clause("C21")
def test_key_and_certificate_change_together_and_nothing_else_does(house: House) -> None:
    before, gateway = pair_of(house), house.site.keys.gateway("maker")
    house.powers(1, 2, 3)
    request = asked(house)
    assert brings(house, answered(request)) == TOLD
    after = pair_of(house)
    leaf = x509.load_pem_x509_certificate(after)
    assert leaf.public_key() == key_of(decode_request(request))
    parts = [text.split(b"-----BEGIN PRIVATE KEY-----") for text in (before, after)]
    assert parts[0][0] != parts[1][0]
    assert parts[0][1] != parts[1][1]
    assert house.site.keys.gateway("maker") == gateway
    assert house.on() == dict.fromkeys(YES)
    house.turn(120_000)
    assert house.waiting(DIAGNOSIS) > 0, "nothing that was held is lost"


@pytest.mark.parametrize(
    ("made", "error", "said"),
    [
        (
            lambda new, old: answered(new, mailbox=None, csr_of=old),
            KeyStoreError,
            "another TLS key",
        ),
        (
            lambda new, old: answered(new, ack=SigningKey.generate()),
            RefusedError,
            "no recipient of",
        ),
        (lambda new, old: answered(strange()), RefusedError, "another gateway's request"),
        (
            lambda new, old: answered(new, now=NOW - dt.timedelta(days=365.25 * 20 + 1)),
            KeyStoreError,
            "has ended on 2026-11-21",
        ),
        (lambda new, old: b"garbage", RefusedError, "no recipient of"),
        (
            lambda new, old: answered(new, edit=(P256, P256[:-1] + b"\x63")),
            KeyStoreError,
            "no certificate that can be read",
        ),
    ],
    ids=[
        "for the key that is in use",
        "signed by another",
        "for another mailbox",
        "over before it came",
        "no admission",
        "for a key of a curve that nobody knows",
    ],
)
def test_an_answer_changes_nothing_that_is(
    house: House,
    gateway: Path,
    made: Callable[[bytes, bytes], bytes],
    error: type[AssentError],
    said: str,
) -> None:
    before, old = pair_of(house), requests(gateway)["maker"]
    request = asked(house)
    with pytest.raises(error, match=said):
        brings(house, made(request, old))
    assert pair_of(house) == before
    assert key_of(decode_request(asked(house))) == key_of(decode_request(request))
    # The twin: the right answer to the same request.
    assert brings(house, answered(request)) == TOLD
    assert pair_of(house) != before


@functools.cache
def strange() -> bytes:
    """A request of another gateway to the same recipient."""
    with tempfile.TemporaryDirectory() as place:
        return request_of(Keys.open(Path(place) / "keys"), "maker")


def test_a_clock_that_is_not_trusted_does_not_say_that_a_certificate_is_over(
    gateway: Path,
) -> None:
    clock = ManualClock(trusted=False)
    with living(gateway, clock) as house:
        past = NOW - dt.timedelta(days=365.25 * 20 + 1)
        assert brings(house, answered(asked(house), now=past)) == TOLD


def test_a_first_answer_beside_a_running_agent_lets_the_flows_run(tmp_path: Path) -> None:
    gateway = fresh(tmp_path / "gateway")
    enrol(gateway, MAKER.bundle())
    first = requests(gateway)
    with living(gateway) as house:
        house.decide(YES)
        assert set(house.on().values()) == {"not enrolled"}
        told = brings(house, MAKER.recipients["maker"].admission(first["maker"]))
        assert told[0] == "admitted by maker"
        assert house.on() == {CORE: None, DIAGNOSIS: None, ADVICE: "not enrolled"}
        house.powers(1, 2)
        house.turn(120_000)
        assert house.waiting(DIAGNOSIS) > 0
        with house.carrier() as carrier:
            now_ms = house.clock.now().wall_ms
            assert [one.recipient for one in carrier.targets(now_ms)] == ["maker"]


@pytest.mark.parametrize(
    "message",
    [
        {"verb": "admission"},
        {"verb": "admission", "data": 7},
        {"verb": "admission", "data": "not base64!"},
        {"verb": "renew"},
        {"verb": "renew", "recipient": ["maker"]},
    ],
    ids=["no data", "a number", "no base64", "no recipient", "a list"],
)
def test_a_message_that_is_none_is_an_error_of_ours(house: House, message: object) -> None:
    before = pair_of(house)
    with pytest.raises(AssentError):
        house.desk.answer(message)  # type: ignore[arg-type]
    assert pair_of(house) == before


# The end, told in time.


@pytest.mark.parametrize(
    ("left_days", "said"),
    [
        (30.5, None),
        (29.5, "ends in 29 days"),
        (12.5, "ends in 12 days"),
        (1.5, "ends within two days"),
        (-0.5, "ended on {end}, nothing is delivered"),
    ],
    ids=["a month before", "in the last month", "twelve days", "the last day", "over"],
)
@pytest.mark.parametrize("trusted", [True, False], ids=["clock trusted", "clock not trusted"])
def test_status_says_when_a_certificate_ends_and_what_to_do(
    gateway: Path, left_days: float, said: str | None, trusted: bool
) -> None:
    end_ms = ends_ms((gateway / "state/keys/tls/maker.pem").read_bytes())
    clock = ManualClock(wall_ms=end_ms - int(left_days * DAY_MS), trusted=trusted)
    # Opened only: a household's ledger would have much to say about twenty years.
    far = House(gateway, clock, NOBODY)
    status = far.desk.status()
    far.spool.close()
    notices = [line for line in status["notices"] if "certificate" in line]
    end = dt.datetime.fromtimestamp(end_ms / 1000, dt.UTC).strftime("%Y-%m-%d")
    expected = [
        f"certificate for {name} {said.format(end=end)}: assent enrol --renew {name}"
        for name in ("energy-advice", "maker")
        if said and trusted
    ]
    assert notices == expected
    told = {one["recipient"]: one for one in status["certificates"]}
    assert told["maker"]["ends"].startswith(end)
    assert [told[name]["due"] for name in sorted(told)] == (expected or [None, None])


def test_check_warns_of_a_certificate_that_ends_soon(
    gateway: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=12.5) - dt.timedelta(days=365.25 * 20)
    enrol(gateway, answered(renew(gateway, "maker").written[0].read_bytes(), now=soon))
    capsys.readouterr()
    assert main(["check", "--config", str(gateway), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    warnings = [one for one in told["findings"] if "certificate" in one["message"]]
    assert [(one["severity"], one["message"]) for one in warnings] == [
        ("warning", "certificate for maker ends in 12 days: assent enrol --renew maker")
    ]
    assert warnings[0]["file"].endswith("keys/tls/maker.pem")


# The command.


def test_the_command_writes_the_request_and_takes_the_answer_in_without_an_agent(
    gateway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ["--config", str(gateway)]
    path = gateway / "requests" / "maker.request"
    path.unlink()
    assert main(["enrol", "--renew", "maker", *config]) == 0
    assert capsys.readouterr().out == (
        f"request written: {path}\nnext: give it to the recipient; take its answer in\n"
    )
    admission = tmp_path / "maker.admission"
    admission.write_bytes(answered(path.read_bytes()))
    assert main(["enrol", str(admission), *config]) == 0
    assert capsys.readouterr().out == "\n".join(TOLD) + "\n"


def test_the_command_asks_the_agent_that_runs(
    house: House, gateway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its stores are locked; only over the socket can this work."""
    control = Control(gateway / "state", house.desk.answer)
    config = ["--config", str(gateway)]
    path = gateway / "requests" / "maker.request"
    before = decode_request(path.read_bytes())
    admission = tmp_path / "maker.admission"
    with instance_lock(gateway / "state"):
        assert main(["enrol", "--renew", "maker", *config]) == 3, "the twin: nobody listens"
        assert "an agent starts or ends; try again" in capsys.readouterr().err
        control.start()
        try:
            assert main(["enrol", "--renew", "maker", *config]) == 0
            assert key_of(decode_request(path.read_bytes())) != key_of(before)
            admission.write_bytes(answered(path.read_bytes()))
            pair = pair_of(house)
            assert main(["enrol", str(admission), *config]) == 0
            assert pair_of(house) != pair
            admission.write_bytes(answered(strange()))
            assert main(["enrol", str(admission), *config]) == 3
            assert "another gateway's request" in capsys.readouterr().err
        finally:
            control.stop()


@pytest.mark.parametrize(
    "words", [[], ["some.file", "--renew", "maker"]], ids=["neither", "a file and a recipient"]
)
def test_the_command_wants_a_file_or_a_recipient(
    gateway: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["enrol", *words, "--config", str(gateway)]) == 2
    assert "expected a file, or --renew with a recipient" in capsys.readouterr().err


def test_the_next_life_takes_the_answer_to_what_the_last_one_asked(gateway: Path) -> None:
    with living(gateway) as house:
        request = asked(house)
    with living(gateway) as again:
        assert brings(again, answered(request)) == TOLD
