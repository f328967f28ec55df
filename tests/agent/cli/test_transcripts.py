# SPDX-License-Identifier: Apache-2.0
"""The command line as a person types it: words, stdout, stderr, exit code."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import NoReturn

import pytest

import agent.cli.check
from agent.answers import DeviceStatus, Status, UplinkStatus
from agent.cli.main import main
from agent.cli.status import _lines
from agent.cli.verbs import VERBS
from agent.settings import load_settings
from agent.site import make_state
from agent.spool import Spool
from tests.agent.installed import filled_in
from tests.agent.sealed import sealed
from tests.test_house import REPO

AGENT = """\
[gateway]
state = "state"

[[device]]
id = "gateway"
kind = "gateway"
source = "host"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "agent.toml").write_text(AGENT)
    return tmp_path


def typed(line: str, config: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Types a line; DIR stands for the configuration directory."""
    try:
        code = main(line.replace("DIR", str(config)).split())
    except SystemExit as exc:
        code = int(exc.code or 0)
    said = capsys.readouterr()
    place = str(config)
    return code, said.out.replace(place, "DIR"), said.err.replace(place, "DIR")


@pytest.mark.parametrize("verb", VERBS)
def test_help_begins_with_examples(
    verb: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = typed(f"{verb} --help", config, capsys)
    assert (code, err) == (0, "")
    assert out.startswith(f"Examples:\n  assent {verb}")


def test_no_words_print_the_overview_and_are_a_usage_error(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = typed("", config, capsys)
    assert code == 2
    assert out.startswith("Examples:\n  assent init")


@pytest.mark.parametrize(
    ("line", "code", "err"),
    [
        ("stats", 2, "assent: there is no verb 'stats'\n  did you mean status?\n"),
        ("xyzzy", 2, "assent: there is no verb 'xyzzy'\n  see: assent --help\n"),
        (
            "status --jso --config DIR",
            2,
            "assent: unrecognized arguments: --jso\n  see: assent status --help\n",
        ),
        ("consent apply --config DIR", 2, "assent: assent consent apply needs a FILE\n"),
        ("consent withdraw --config DIR", 2, "assent: assent consent withdraw needs a FLOW\n"),
        (
            "consent apply DIR/none.toml --config DIR",
            1,
            "assent: DIR/none.toml cannot be read: No such file or directory\n",
        ),
        (
            "consent apply --config DIR DIR/none.toml",
            1,
            "assent: DIR/none.toml cannot be read: No such file or directory\n",
        ),
        (
            "consent apply DIR/large.toml --config DIR",
            1,
            "assent: DIR/large.toml cannot be read: larger than 1048576 bytes\n",
        ),
        (
            "consent withdraw no-such-flow --config DIR",
            2,
            "assent: the policy has no flow 'no-such-flow'\n",
        ),
        (
            "enrol DIR/none.bundle --config DIR",
            1,
            "assent: DIR/none.bundle cannot be read: No such file or directory\n",
        ),
        (
            "init --config DIR",
            3,
            (
                "assent: DIR/agent.toml is already there\n"
                "  init never writes over a file; nothing was written\n"
            ),
        ),
        (
            "status --config DIR/nowhere",
            1,
            (
                "DIR/nowhere/agent.toml:1:1: expected a readable file, got: no such file or "
                "directory\n"
            ),
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_what_to_do(
    line: str, code: int, err: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config / "large.toml").write_text("# longer than any form\n" * 50_000)
    assert typed(line, config, capsys) == (code, "", err)


def test_a_command_that_is_ended_from_the_keyboard_says_so(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(agent.cli.check, "run", ended)
    assert typed("check --config DIR", config, capsys) == (
        1,
        "",
        "assent: ended from the keyboard before it was done\n",
    )


def test_init_writes_a_configuration_that_checks_and_trusts_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "new"
    code, out, err = typed("init --config DIR --state DIR/state", place, capsys)
    assert (code, err) == (0, "")
    count = len(list((place / "profiles").glob("*.toml")))
    assert out.splitlines()[-3:] == [
        f"written: DIR/profiles, {count} device profiles",
        "not enrolled: no key is trusted, nothing is collected, nothing connects",
        "next: assent enrol --config DIR MAKER.bundle --thumbprint TEXT",
    ]
    assert not (place / "consent.toml").exists()
    code, out, _ = typed("check --config DIR", place, capsys)
    assert (code, out) == (
        0,
        "no mistakes in agent.toml and the profiles in use\n",
    )
    code, out, _ = typed("status --config DIR --json", place, capsys)
    status = json.loads(out)
    assert (code, status["enrolled"], status["flows"]) == (0, False, [])


def test_a_quote_in_the_state_directory_stays_in_its_string(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "new"
    typed('init --config DIR --state DIR/a"é', place, capsys)
    assert load_settings(place).state == place / 'a"é'


def test_check_finds_mistakes_in_every_file_at_once(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config / "agent.toml").write_text(AGENT.replace("kind", "knid"))
    (config / "policy.toml").write_text("[polcy]\n")
    (config / "consent.toml").write_text("policy = 3\n")
    code, out, _ = typed("check --config DIR --json", config, capsys)
    findings = json.loads(out)["findings"]
    assert code == 1
    assert {Path(finding["file"]).name for finding in findings} == {
        "agent.toml",
        "policy.toml",
        "consent.toml",
    }
    assert all(finding["line"] >= 1 and finding["column"] >= 1 for finding in findings)


def test_check_names_a_form_that_cannot_be_read_and_a_bad_policy_once(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config / "policy.toml").write_text("policy = \n")
    (config / "consent.toml").mkdir()
    code, out, _ = typed("check --config DIR", config, capsys)
    assert code == 1
    assert out.splitlines() == [
        (
            "DIR/policy.toml:1:10: expected a value: a text in quotes, a number, true or false, a "
            "date, a list"
        ),
        "DIR/consent.toml:1:1: expected a readable file, got: not a regular file",
        "2 errors, 0 warnings",
    ]
    (config / "consent.toml").rmdir()
    (config / "consent.toml").write_text(filled_in())
    assert typed("check --config DIR", config, capsys)[1].endswith("\n1 error, 0 warnings\n")


@pytest.mark.skipif(Path("/etc/assent/agent.toml").exists(), reason="a gateway is installed here")
def test_without_a_configuration_in_its_place_the_other_place_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you forget --config DIR?" in typed("status", tmp_path, capsys)[2]
    assert "did you forget" not in typed("status --config DIR", tmp_path, capsys)[2]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("preview --config DIR", "see: assent devices find"),
        ("status --config DIR", "trusted; type: assent enrol MAKER.bundle --thumbprint TEXT"),
        ("consent show --config DIR", "trusted; type: assent enrol MAKER.bundle --thumb"),
        ("explain appliance.power --config DIR", "\n  type: assent enrol MAKER.bundle --thumb"),
        ("devices find now --config DIR", None),
    ],
    ids=[
        "in an error's hint",
        "in what is printed",
        "where nothing is to be decided",
        "where no policy is there",
        "not where the hint is a verb's help",
    ],
)
def test_what_is_to_be_typed_next_is_told_with_its_place(
    line: str, named: str | None, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config / "agent.toml").write_text('[gateway]\nstate = "state"\n')
    _, out, err = typed(line, config, capsys)
    said = out + err
    assert (named is None) or named in said
    assert ("each with: --config DIR" in said) == (named is not None)


def test_what_is_missing_is_called_as_the_help_calls_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = typed("consent --config DIR", tmp_path, capsys)
    assert (code, "required: ACT\n" in err) == (2, True)
    assert " ACT [FILE|FLOW]" in typed("consent --help", tmp_path, capsys)[1]


def test_a_value_that_begins_with_a_dash_is_told_how_to_be_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thumbprint = "-" + 42 * "A"
    line = "enrol no.bundle --config DIR --thumbprint"
    code, _, err = typed(f"{line} {thumbprint}", tmp_path, capsys)
    assert (code, "joined to it: --thumbprint=-…; see: assent enrol --help" in err) == (2, True)
    code, _, err = typed(f"{line}={thumbprint}", tmp_path, capsys)
    assert (code, "no.bundle cannot be read" in err) == (1, True)  # the twin: it was understood


def device(name: str, kind: str, state: str, age_s: float, detail: str = "") -> DeviceStatus:
    return DeviceStatus(
        id=name, kind=kind, state=state, detail=detail, age_s=age_s, samples=1, held_back={}
    )


def test_a_long_reason_stands_below_the_table_of_the_status() -> None:
    why = "unit 1 does not answer; check power, wiring, unit_id, baud rate and parity"
    status = Status(
        running=False,
        pid=None,
        enrolled=True,
        policy=None,
        policy_trouble="none is there",
        form_trouble=None,
        clock="right",
        clock_trusted=True,
        notices=[],
        certificates=[],
        flows=[],
        devices=[
            device("meter-1", "electricity-meter", "failed", 3.0, why),
            device("gateway", "gateway", "running", 1.0),
        ],
        uplinks=[UplinkStatus("maker", "waiting", "no route", since="now")],
        rejected={},
    )
    told = _lines(status)
    assert told[told.index(f"  meter-1: {why}") - 2 :][:2] == [
        "meter-1  electricity-meter  failed   3 s ago",
        "gateway  gateway            running  1 s ago",
    ]
    assert told[-1] == "  maker: no route"
    assert [line for line in told if why in line] == [f"  meter-1: {why}"]


def test_check_holds_a_form_against_the_policy(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config / "policy.toml").write_text((REPO / "config/policy.toml").read_text())
    form = filled_in()
    (config / "consent.toml").write_text(form)
    assert typed("check --config DIR", config, capsys)[0] == 0
    (config / "consent.toml").write_text(form.replace("remote-diagnosis", "remote-diagnosys"))
    code, out, _ = typed("check --config DIR", config, capsys)
    assert code == 1
    assert "remote-diagnosys" in out
    assert "remote-diagnosis" in out


def test_every_example_of_the_readme_is_a_verb_with_that_help() -> None:
    lines = (REPO / "README.md").read_text().splitlines()
    verbs = {line.split()[2] for line in lines if line.startswith("$ assent ")}
    assert verbs == set(VERBS)


def test_a_history_begins_empty(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("consent history --config DIR", config, capsys) == (
        0,
        "nobody has decided anything yet\n",
        "",
    )


@pytest.mark.parametrize(
    ("count", "limit", "rows", "is_told"), [(2, 3, 2, False), (3, 3, 3, False), (4, 3, 3, True)]
)
def test_what_left_before_what_is_shown_is_told(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    count: int,
    limit: int,
    rows: int,
    is_told: bool,
) -> None:
    path = load_settings(config).state / "spool" / "spool.db"
    make_state(path.parents[1])
    with contextlib.closing(Spool.open(path)) as spool:
        spool.open_lane("service", "maker", 7, None)
        spool.put([sealed(number) for number in range(count)])
        leases = [one.id for one in spool.lease("maker", count, 10**12)]
        spool.handed_over(leases[:1], 2 * 10**12)
        spool.delivered(leases[1:], 10**12)
    code, out, _ = typed(f"sent --limit {limit} --config DIR", config, capsys)
    table = [line for line in out.splitlines() if "service" in line]
    assert (code, len(table)) == (0, rows)
    assert table[0].endswith("unconfirmed: it may have arrived")
    assert not any("unconfirmed" in line for line in table[1:])
    assert ("there is more before; the newest 3 are shown" in out) is is_told


def test_nothing_has_left_a_fresh_gateway(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("sent --config DIR", config, capsys) == (0, "nothing has left\n", "")
    code, out, _ = typed("sent --flow service --limit 3 --json --config DIR", config, capsys)
    assert (code, json.loads(out)) == (0, {"sent": []})


BROKEN = AGENT.replace('kind = "gateway"', "kind = 7")


@pytest.mark.clause("C28")
@pytest.mark.parametrize(
    "broken", [BROKEN, AGENT + "[[device", AGENT + '[clock]\ntrust = "systm"\n']
)
def test_a_bad_agent_toml_is_told_and_keeps_nobody_from_asking_or_from_saying_no(
    broken: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config / "agent.toml").write_text(broken)
    code, out, err = typed("status --config DIR", config, capsys)
    assert (code, out.splitlines()[0]) == (0, "agent     not running")
    assert "agent.toml:" in err
    code, out, err = typed("consent withdraw service --config DIR", config, capsys)
    assert (code, out) == (2, "")
    assert "the policy has no flow 'service'" in err


def test_an_agent_toml_without_a_state_line_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config / "agent.toml").write_text("[gateway]\nstat = 3\n")
    code, out, err = typed("status --config DIR", config, capsys)
    assert (code, out) == (1, "")
    assert "DIR/agent.toml:2:1" in err
