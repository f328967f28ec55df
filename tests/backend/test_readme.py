# SPDX-License-Identifier: Apache-2.0
"""The README's sequence for a backend, typed as it stands there, for one recipient and for two."""

from __future__ import annotations

import getpass
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from assent.backend.cli import main
from assent.backend.directory import Directory
from assent.backend.grammar import parser
from assent.enrolment import decode_bundle, sniff
from tests.backend.parts import Hand

REPO = Path(__file__).resolve().parents[2]
ADVICE = [
    "assent-backend keygen advice --recipient energy-advice --role partner --region DE",
    "cp advice/public/* keys/",
]


def typed() -> list[str]:
    """What the README has a backend's operator type, in its order."""
    text = (REPO / "README.md").read_text().replace("\\\n", "")
    (block,) = [
        block
        for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
        if "assent-backend keygen" in block
    ]
    return [
        shlex.join(shlex.split(line[2:], comments=True)).replace("'*'", "*").replace("'", "")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


class Desk:
    """A person at a terminal, with the example policy and what keygen printed."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], *, partner: bool) -> None:
        self.root, self.capsys = root, capsys
        text = (REPO / "config/policy.toml").read_text()
        head, _, tail = text.partition("[recipients.maker]")
        tail = tail[tail.index("# The data dictionary") :]
        if not partner:
            tail = tail[: tail.index("[flows.partner-energy-advice]")]
        (root / "policy.toml").write_text(head + tail)

    def type(self, line: str) -> str:
        if not line.startswith("assent-backend"):
            subprocess.run(line, shell=True, check=True, cwd=self.root)
            return ""
        words = shlex.split(line)[1:]
        if words[0] == "run":
            parser().parse_args(words)
            return ""
        if words[0] == "broker":
            words = [
                str(self.root / "broker") if word == "/etc/assent-broker" else word
                for word in words
            ]
            words += ["--user", getpass.getuser()]
        if words[0] == "admit":
            hand = Hand.make()
            request = hand.request(ec.generate_private_key(ec.SECP256R1()), recipient="maker")
            (self.root / words[2]).write_bytes(request)
        self.capsys.readouterr()
        code = main(words)
        said = self.capsys.readouterr()
        if words[0] == "show" and code == 0:
            return said.out
        assert code == 0, said.err
        if words[0] == "keygen":
            policy = self.root / "policy.toml"
            policy.write_text(policy.read_text() + "\n" + said.out)
        return said.out


def test_the_readme_works_as_typed_for_one_recipient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, capsys, partner=False)
    for line in typed():
        desk.type(line)
    found = Directory.open(tmp_path / "maker").published()
    assert found.troubles == ()
    assert {flow for flow, _ in found.offers} == {"service", "remote-diagnosis"}
    assert sniff((tmp_path / "maker.admission").read_bytes()) == "admission"
    assert (tmp_path / "broker" / "mosquitto.conf").exists()


def test_the_readme_works_as_typed_for_a_second_recipient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path, capsys, partner=True)
    lines = typed()
    at = next(at for at, line in enumerate(lines) if "sign-policy" in line)
    for line in [*lines[:at], *ADVICE, *lines[at:]]:
        desk.type(line)
    desk.type("assent-backend publish maker.bundle advice")
    bundle = decode_bundle((tmp_path / "maker.bundle").read_bytes())
    assert sorted(bundle.files) == [
        f"keys/{name}-{use}"
        for name in ("energy-advice", "maker")
        for use in ("ack.cose", "ca.pem", "seal.cose")
    ]
    advice = Directory.open(tmp_path / "advice")
    assert {flow for flow, _ in advice.published().offers} == {"partner-energy-advice"}
    assert advice.policy_key() == Directory.open(tmp_path / "maker").policy_key()


def test_the_readme_has_the_verbs_there_are() -> None:
    verbs = {shlex.split(line)[1] for line in typed() if line.startswith("assent-backend ")}
    assert verbs == {
        "keygen", "sign-policy", "bundle", "publish", "admit", "broker", "run", "show",
    }  # fmt: skip
