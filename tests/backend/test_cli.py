# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import json
import re
import shutil
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from assent.backend.cli import main
from assent.backend.directory import Directory
from assent.backend.ingest import judge
from assent.backend.store import Store, Taken
from assent.cosekey import SealPrivateKey, decode_verifying_key, thumbprint_text
from assent.enrolment import sniff
from assent.policy.model import Recipient
from tests.backend.parts import NOW_MS, POLICY, Hand, desk, power


class Said:
    """What a command printed, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Cli = Callable[..., Said]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*words: object) -> Said:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as exc:
            code = int(exc.code or 0)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


def test_the_whole_way_from_keys_to_an_admission(tmp_path: Path, cli: Cli) -> None:
    """The commands of the help, in their order, as a person would type them."""
    maker, advice = tmp_path / "maker", tmp_path / "advice"
    made = cli("keygen", maker, "--recipient", "maker", "--policy-key", "--host", "192.0.2.7")
    assert made.code == 0
    assert cli("keygen", advice, "--recipient", "advice", "--classical").code == 0

    (tmp_path / "policy.toml").write_text(POLICY)
    lines = re.findall(
        r'(\w+) = \{ file = "([^"]+)", thumbprint = "(sha-256:[\w-]{43})" \}', made.out
    )
    assert [use for use, _, _ in lines] == ["key", "ack_key", "ca"]
    assert made.out.startswith("[recipients.maker]\n")

    key = maker / "keys" / "policy.key.cose"
    signed = cli("sign-policy", tmp_path / "policy.toml", "--key", key, "--files", tmp_path)
    assert (signed.code, signed.out) == (0, f"{tmp_path / 'policy.toml.cose'}\n")
    assert "serial 17" in signed.err
    # What keygen printed is what signing filled in.
    text = (tmp_path / "policy.toml").read_text()
    assert all(thumbprint in text for _, _, thumbprint in lines)

    bundle = tmp_path / "maker.bundle"
    public = maker / "keys" / "policy.pub.cose"
    bundled = cli("bundle", tmp_path / "policy.toml", "--policy-key", public, "--out", bundle)
    assert (bundled.code, bundled.out) == (0, f"{bundle}\n")
    assert bundled.err.endswith(
        f": {thumbprint_text(decode_verifying_key(public.read_bytes()).thumbprint)}\n"
    )
    assert sniff(bundle.read_bytes()) == "bundle"

    hand = Hand.make()
    request = tmp_path / "maker.request"
    request.write_bytes(hand.request(ec.generate_private_key(ec.SECP256R1())))
    admitted = cli("admit", maker, request, "--json")
    assert admitted.code == 0
    answer = json.loads(admitted.out)
    out = str(tmp_path / "maker.admission")
    assert answer == {"mailbox": hand.mailbox, "file": out, "renewal": False}
    assert sniff((tmp_path / "maker.admission").read_bytes()) == "admission"

    shown = json.loads(cli("show", maker, "gateways", "--json").out)
    assert [one["mailbox"] for one in shown] == [hand.mailbox]


def test_keygen_prints_json_when_asked(tmp_path: Path, cli: Cli) -> None:
    said = json.loads(cli("keygen", tmp_path / "m", "--recipient", "maker", "--json").out)
    assert said["recipient"] == "maker"
    assert said["ca"]["file"] == "keys/maker-ca.pem"
    for use in ("key", "ack_key", "ca"):
        assert (tmp_path / "m" / "public" / Path(said[use]["file"]).name).exists()


def test_keygen_prints_a_whole_table_for_the_policy(tmp_path: Path, cli: Cli) -> None:
    words = ["--recipient", "energy-advice", "--role", "partner", "--region", "DE"]
    words += ["--host", "ingest.example.net", "--host", "2001:db8::7"]
    made = cli("keygen", tmp_path / "m", *words)
    (table,) = tomllib.loads(made.out)["recipients"].values()
    assert msgspec.convert(table, Recipient).region == "DE"
    assert table["role"] == "partner"
    assert table["brokers"] == ["mqtts://ingest.example.net:8883", "mqtts://[2001:db8::7]:8883"]
    assert table["key"]["file"] == "keys/energy-advice-seal.cose"
    assert f"cp {tmp_path / 'm' / 'public'}/* keys/" in made.err
    assert cli("keygen", tmp_path / "n", *words, "--role", "friend").code == 2


def test_what_keygen_cannot_know_is_left_empty_and_does_not_load(tmp_path: Path, cli: Cli) -> None:
    made = cli("keygen", tmp_path / "m", "--recipient", "maker")
    (table,) = tomllib.loads(made.out)["recipients"].values()
    assert (table["role"], table["region"]) == ("", "")
    assert table["brokers"] == ["mqtts://localhost:8883"]
    assert "fill in role and region" in made.err


def test_keygen_over_keys_is_refused(tmp_path: Path, cli: Cli) -> None:
    assert cli("keygen", tmp_path / "m", "--recipient", "maker").code == 0
    again = cli("keygen", tmp_path / "m", "--recipient", "maker")
    assert (again.code, again.out) == (3, "")
    assert "never overwritten" in again.err


def test_a_finding_is_printed_with_its_place(tmp_path: Path, cli: Cli) -> None:
    cli("keygen", tmp_path / "maker", "--recipient", "maker", "--policy-key")
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.replace("serial = 17", 'serial = "17"'))
    key = tmp_path / "maker" / "keys" / "policy.key.cose"
    said = cli("sign-policy", policy, "--key", key)
    assert (said.code, said.out) == (1, "")
    assert re.search(r"^policy\.toml:5:\d+: ", said.err, re.MULTILINE)


def test_an_overdue_review_says_that_nothing_was_signed(tmp_path: Path, cli: Cli) -> None:
    for name in ("maker", "advice"):
        cli("keygen", tmp_path / name, "--recipient", name, "--policy-key")
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.replace("review = 2028-11-30", "review = 2024-02-29", 1))
    key = tmp_path / "maker" / "keys" / "policy.key.cose"
    said = cli("sign-policy", policy, "--key", key)
    assert (said.code, said.out) == (1, "")
    *findings, last = said.err.splitlines()
    assert len(findings) == 1
    assert re.match(r"policy\.toml:\d+:\d+: warning: .*review", findings[0])
    assert last == f"assent-backend: {policy} is not signed: a policy with a finding never is"
    policy.write_text(POLICY)
    assert cli("sign-policy", policy, "--key", key).code == 0


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 2, "required"),
        (["frobnicate"], 2, "invalid choice"),
        (["keygen", "x"], 2, "--recipient"),
        (["keygen", "{}/x", "--recipient", "The Maker"], 1, "lower-case letters"),
        (["show", "{}"], 1, "no backend directory"),
        (["admit", "{}", "request"], 1, "no backend directory"),
        (["run", "{}", "--broker", "mqtts://localhost:8883"], 1, "no backend directory"),
        (["sign-policy", "{}/policy.toml", "--key", "{}/key"], 1, "cannot be read"),
    ],
    ids=[
        "no verb",
        "a verb that is none",
        "an argument that is missing",
        "a recipient that is none",
        "a directory that is none, shown",
        "a directory that is none, admitting",
        "a directory that is none, running",
        "a key that is not there",
    ],
)
def test_what_is_off_is_a_sentence_on_stderr(
    tmp_path: Path, cli: Cli, words: list[str], code: int, sentence: str
) -> None:
    said = cli(*(word.format(tmp_path) for word in words))
    assert (said.code, said.out) == (code, "")
    assert sentence in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "url", ["mqtt://localhost", "localhost:8883", "mqtts://a:0", "mqtts://a b"]
)
def test_there_is_no_broker_without_tls(tmp_path: Path, cli: Cli, url: str) -> None:
    cli("keygen", tmp_path / "m", "--recipient", "maker")
    said = cli("run", tmp_path / "m", "--broker", url)
    assert said.code == 2
    assert "mqtts://" in said.err


def test_without_a_published_policy_nothing_runs(tmp_path: Path, cli: Cli) -> None:
    cli("keygen", tmp_path / "m", "--recipient", "maker", "--policy-key")
    said = cli("run", tmp_path / "m", "--broker", "mqtts://localhost:8883")
    assert said.code == 3
    assert "policies" in said.err


@pytest.mark.parametrize(
    "verb", ["", "keygen", "sign-policy", "bundle", "publish", "admit", "broker", "run", "show"]
)
def test_help_begins_with_examples(cli: Cli, verb: str) -> None:
    said = cli(*([verb] if verb else []), "--help")
    assert said.code == 0
    assert said.out.startswith(f"Examples:\n  assent-backend {verb}")


@pytest.fixture
def delivered(sites: dict[str, Directory]) -> tuple[Directory, Hand]:
    """A backend that has stored one batch and refused another."""
    maker = sites["maker"]
    (key,) = maker.seal_keys().values()
    assert isinstance(key, SealPrivateKey)
    hand = Hand.make()
    store = Store(maker.root)
    batches = [
        hand.batch(key.public, power(2)),
        hand.batch(key.public, power(), terms=bytes(32), sequence=1),
    ]
    here = desk([hand], key)
    store.put([Taken(judge(hand.topic, one, here), one, NOW_MS) for one in batches])
    store.close()
    return maker, hand


def test_show_tells_flows_batches_quarantine_and_counters(
    delivered: tuple[Directory, Hand], cli: Cli
) -> None:
    maker, hand = delivered
    assert cli("show", maker.root).out.splitlines() == [
        "flow              pseudonyms  readings",
        "remote-diagnosis  1           2",
    ]
    (batch,) = json.loads(cli("show", maker.root, "batches", "--json").out)
    assert batch == {
        "received": "2026-11-22T10:15:00.000Z",
        "mailbox": hand.mailbox,
        "flow": "remote-diagnosis",
        "stream": "0000000000000001",
        "sequence": 0,
        "readings": 2,
        "bytes": batch["bytes"],
        "gaps": 0,
    }
    (refused,) = json.loads(cli("show", maker.root, "quarantine", "--json").out)
    assert refused["reason"] == "terms-not-published"
    counters = json.loads(cli("show", maker.root, "counters", "--json").out)
    assert {one["counter"]: one["count"] for one in counters} == {
        "stored": 1,
        "refused terms-not-published": 1,
    }
    assert cli("show", maker.root, "gateways").out.startswith("mailbox")


def test_show_gaps_ends_with_one_where_nothing_explains_a_hole(
    delivered: tuple[Directory, Hand], cli: Cli
) -> None:
    maker, hand = delivered
    said = cli("show", maker.root, "gaps", "--json")
    assert said.code == 0
    day, *since = json.loads(said.out)
    assert {row["state"] for row in since} <= {"open", "unknown"}  # days in which nothing came
    assert (day["mailbox"], day["heard"]) == (hand.mailbox, "2026-11-22T10:15:00.000Z")
    assert day["state"] in {"open", "unknown"}  # as long ago as it was by the clock of this machine
    (key,) = maker.seal_keys().values()
    assert isinstance(key, SealPrivateKey)
    late = hand.batch(key.public, power(), sequence=4)
    with contextlib.closing(Store(maker.root)) as store:
        store.put([Taken(judge(hand.topic, late, desk([hand], key)), late, NOW_MS)])
    said = cli("show", maker.root, "gaps", "--flow", "remote-diagnosis", "--json")
    assert said.code == 1
    assert "that nothing explains" in said.err
    (hole,) = [row for row in json.loads(said.out) if row["state"] == "unexplained"]
    assert (hole["cause"], hole["first"], hole["next"]) == (None, 1, 4)
    text = cli("show", maker.root, "gaps").out
    heard = f"gateway {hand.mailbox}, heard 2026-11-22 10:15:00\n"
    assert text.startswith(f"days and times are UTC\n{heard}")
    assert "stream 0000000000000001, numbers 1 to 3" in " ".join(text.split())


def test_show_gaps_knows_from_the_published_policy_how_often_a_flow_is_heard(
    sites: dict[str, Directory], cli: Cli
) -> None:
    maker, hand = sites["maker"], Hand.make()
    (key,) = maker.seal_keys().values()
    assert isinstance(key, SealPrivateKey)
    came_ms = int(dt.datetime.now(dt.UTC).timestamp()) * 1_000 - 300_000  # five minutes ago
    data = hand.batch(key.public, power(2, first_ms=came_ms - 60_000))
    with contextlib.closing(Store(maker.root)) as store:
        store.put([Taken(judge(hand.topic, data, desk([hand], key)), data, came_ms)])
    assert {row["state"] for row in json.loads(cli("show", maker.root, "gaps", "--json").out)} == {
        "open"
    }
    for path in (maker.root / "policies").iterdir():
        path.unlink()
    said = cli("show", maker.root, "gaps", "--json")
    assert said.code == 0  # what nobody was told is no fault
    assert {row["state"] for row in json.loads(said.out)} == {"unknown"}


def test_show_data_gives_a_flows_readings(delivered: tuple[Directory, Hand], cli: Cli) -> None:
    maker, _ = delivered
    rows = json.loads(cli("show", maker.root, "data", "--flow", "remote-diagnosis", "--json").out)
    assert [(row["time"], row["attribute"], row["value"]) for row in rows] == [
        ("2026-11-22T00:00:01.000Z", "appliance.power", 100.1),
        ("2026-11-22T00:00:00.000Z", "appliance.power", 100.0),
    ]
    # Published, and nothing came: that is an answer.
    flow = "product-improvement"
    assert json.loads(cli("show", maker.root, "data", "--flow", flow, "--json").out) == []
    lines = cli("show", maker.root, "data", "--flow", "remote-diagnosis", "--limit", "1").out
    assert len(lines.splitlines()) == 2
    without = cli("show", maker.root, "data")
    assert (without.code, without.out) == (2, "")


@pytest.mark.parametrize("what", ["data", "batches"])
def test_show_of_a_flow_that_is_none_says_which_is_near(
    delivered: tuple[Directory, Hand], cli: Cli, what: str
) -> None:
    root = delivered[0].root
    said = cli("show", root, what, "--flow", "remote-diagnosys")
    assert (said.code, said.out) == (2, "")
    assert "no flow 'remote-diagnosys' is published or stored here" in said.err
    assert "did you mean remote-diagnosis?" in said.err
    said = cli("show", root, what, "--flow", "x")
    assert (said.code, said.out) == (2, "")
    assert "flows here: product-improvement, remote-diagnosis" in said.err


def test_show_shows_no_key_and_no_raw_bytes(delivered: tuple[Directory, Hand], cli: Cli) -> None:
    maker, hand = delivered
    whats = ["flows", "batches", "quarantine", "gateways", "counters", "gaps"]
    text = "".join(cli("show", maker.root, what, "--json").out for what in whats)
    assert hand.mailbox in text
    secrets = [key.encode() for key in maker.seal_keys().values()]
    secrets += [hand.sign.public.raw, hand.seal.public.encode()]
    assert [one for one in secrets if one.hex() in text] == []


def test_broker_writes_a_configuration_with_this_recipients_files(tmp_path: Path, cli: Cli) -> None:
    cli("keygen", tmp_path / "m", "--recipient", "maker")
    out, user = tmp_path / "broker", getpass.getuser()
    words = ["broker", tmp_path / "m", "--out", out, "--port", "18883", "--user", user]
    said = cli(*words, "--json")
    assert json.loads(said.out) == {"file": str(out / "mosquitto.conf")}
    conf = (out / "mosquitto.conf").read_text()
    assert "listener 18883 0.0.0.0" in conf
    assert f"keyfile {out / 'broker.key'}" in conf
    assert "user backend-maker" in (out / "mosquitto.acl").read_text()


def test_show_before_anything_came_says_so(tmp_path: Path, cli: Cli) -> None:
    cli("keygen", tmp_path / "m", "--recipient", "maker")
    said = cli("show", tmp_path / "m")
    assert said.code == 1
    assert "no store yet" in said.err


Denied = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture
def open_house(outside: Path, delivered: tuple[Directory, Hand]) -> Path:
    """A backend's directory with a store, in a place that another account may enter."""
    return Path(shutil.copytree(delivered[0].root, outside / "maker"))


@pytest.mark.parametrize("words", ["show", "run", "admit"])
def test_the_wrong_account_is_told_whose_directory_it_is(
    open_house: Path, cli: Cli, another_account: Denied, words: str
) -> None:
    """Red while a directory that may not be entered counts as none, or as damaged."""
    more = {"run": ["--broker", "mqtts://localhost:1"], "admit": ["request"]}.get(words, [])
    with another_account(open_house):
        said = cli(words, open_house, *more)
    assert (said.code, said.out) == (1, "")
    assert f"{open_house / 'recipient'} cannot be read: Permission denied" in said.err
    assert f"sudo -u {getpass.getuser()}" in said.err
    assert "keygen" not in said.err


@pytest.mark.parametrize("name", ["store.db", "custody.db"])
def test_a_store_of_another_account_is_not_called_damaged(
    open_house: Path, cli: Cli, another_account: Denied, name: str
) -> None:
    open_house.chmod(0o755)
    for one in ("store.db", "custody.db"):
        (open_house / one).chmod(0o600 if one == name else 0o644)
    with another_account(open_house / name):
        said = cli("show", open_house)
    assert (said.code, said.out) == (1, "")
    assert f"{open_house / name} cannot be read: Permission denied" in said.err
    assert "damaged" not in said.err
    assert "sudo -u" in said.err


def test_a_lock_of_another_account_is_a_sentence(
    open_house: Path, cli: Cli, another_account: Denied
) -> None:
    """Red while `run` ends with a traceback."""
    open_house.chmod(0o755)
    lock = open_house / "run.lock"
    lock.touch(mode=0o600)
    with another_account(lock):
        said = cli("run", open_house, "--broker", "mqtts://localhost:1")
    assert said.code == 1
    assert f"{lock} cannot be written: Permission denied" in said.err
    assert "Traceback" not in said.err


def test_a_store_that_is_damaged_is_called_so(open_house: Path, cli: Cli) -> None:
    (open_house / "store.db").write_bytes(b"\0" * 10_000)
    said = cli("show", open_house)
    assert said.code == 1
    assert "bring back a backup" in said.err


def test_admit_names_a_file_that_is_no_request(
    tmp_path: Path, sites: dict[str, Directory], cli: Cli
) -> None:
    maker, bundle = sites["maker"].root, tmp_path / "maker.bundle"
    public = maker / "keys" / "policy.pub.cose"
    cli("bundle", tmp_path / "policy.toml", "--policy-key", public, "--out", bundle)
    request = Hand.make().request(ec.generate_private_key(ec.SECP256R1()))
    half = tmp_path / "maker.request"
    half.write_bytes(request[:-9])
    for file, said in (
        (bundle, "is a bundle, expected a request"),
        (tmp_path / "policy.toml", "is no request"),
        (half, "begins like a request, but is cut off or damaged"),
    ):
        tried = cli("admit", maker, file)
        assert (tried.code, tried.out) == (2, "")
        assert f"{file} {said}" in tried.err
    half.write_bytes(request)
    assert cli("admit", maker, half).code == 0
