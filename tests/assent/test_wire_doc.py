# SPDX-License-Identifier: Apache-2.0
"""docs/wire.md says the numbers that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from assent import enrolment, errors, header, messages, shapes, wire
from assent.cosekey import MAX_KEY_BYTES
from assent.envelope import cose
from tests.vectors import generate

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "wire.md").read_text()
LIMITS = {
    "sealed message, bytes": wire.MAX_MESSAGE,
    "protected header, bytes": cose.MAX_PROTECTED,
    "gaps in a batch": header.MAX_GAPS,
    "streams in an acknowledgement or request": messages.MAX_STREAMS,
    "ranges of a stream": messages.MAX_RANGES,
    "refused of a stream": messages.MAX_REFUSED,
    "id of a recipient or flow, characters": shapes.MAX_ID,
    "COSE_Key, bytes": MAX_KEY_BYTES,
    "detached signature, bytes": cose.MAX_DETACHED,
    "bundle, bytes": enrolment.MAX_BUNDLE,
    "bundle in a message, bytes": wire.MAX_SENT_BUNDLE,
    "files in a bundle": enrolment.MAX_FILES,
    "request or admission, bytes": enrolment.MAX_ENROLMENT,
}
ENUMS = [
    header.ClockQuality,
    header.GapCause,
    messages.RefusalReason,
    messages.Verb,
    wire.Direction,
]


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_limits_are_those_of_the_code() -> None:
    said = {what: int(most.replace(",", "")) for what, most in rows("Limits")[1:]}
    assert said == LIMITS


def test_the_codes_are_those_of_the_errors() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {k.code for k in kinds if issubclass(k, errors.WireError)} - {errors.WireError.code}
    table = rows("What a reader checks, in this order")
    assert {row[0].strip("`") for row in table if row[0].startswith("`")} == codes
    named = {code.strip() for row in table for code in re.split("[,;]", row[-1])}
    assert codes <= {re.sub(r" \(.*\)", "", code) for code in named}


def test_the_code_points_are_those_of_the_table() -> None:
    said = {int(row[0]): row[1] for row in rows("Code points")[1:]}
    assert {number for number, where in said.items() if where == "alg (1)"} == set(wire.Algorithm)
    headers = {number for number, where in said.items() if where == "header"}
    assert headers == {wire.HEADER_KID, wire.HEADER_EK, wire.HEADER_ASSENT}
    tags = {number for number, where in said.items() if where == "tag"}
    assert {bytes([0xC0 | number]) for number in tags} == {wire.TAG_ENCRYPT0, wire.TAG_SIGN1}


def test_the_kinds_travel_as_the_page_says() -> None:
    said = {int(row[1]): (row[0], row[2]) for row in rows("The signature")[1:]}
    assert said == {
        int(kind): (kind.name.lower(), kind.direction.name.lower()) for kind in wire.Kind
    }


@pytest.mark.parametrize("kind", ENUMS, ids=[kind.__name__ for kind in ENUMS])
def test_the_closed_sets_are_those_of_the_code(kind: type) -> None:
    members = ", ".join(f"{m.name.lower().replace('_', '-')}: {m.value}" for m in kind)  # type: ignore[attr-defined]
    assert f"&( {members} )" in " ".join(PAGE.split())


def test_the_example_is_the_vector() -> None:
    status = next(v for v in generate.load("messages.json") if v["name"] == "status")
    shown: dict[str, str] = {}
    label = ""
    for line in section("Test vectors").split("```")[1].splitlines():
        label = line[:22].strip() or label  # columns: a name, hexadecimal, what it says
        shown[label] = shown.get(label, "") + line[22:66].replace(" ", "")
    named = {
        "signed external data": "signed_external_aad",
        "protected": "protected",
        "body": "body",
        "signed": "signed",
        "sealed external data": "sealed_external_aad",
        "sealed": "sealed",
    }
    assert {label for label in shown if label} == named.keys()
    for label, name in named.items():
        assert re.fullmatch(shown[label].replace("…", "[0-9a-f]+"), status[name]), label


def test_every_file_the_page_names_is_there() -> None:
    root = Path(__file__).resolve().parents[2]
    for name in re.findall(r"`((?:assent|tests|docs)/[A-Za-z_/.]+)`", PAGE):
        assert (root / name).exists(), name
    for name in re.findall(r"^\| `([a-z]+\.json)`", PAGE, re.MULTILINE):
        assert (root / "tests" / "vectors" / name).exists(), name
