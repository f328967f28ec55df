# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import pytest

from assent.backend.offers import _are_networks
from assent.backend.outcomes import Reason
from assent.columns import Column, Kind, Quantum, Table
from tests.backend.parts import PSEUDONYM, START_MS, TENTH, offers

HOUR = 3_600_000
QUARTER = 900_000


def objection(flow: str, *columns: Column, times: Sequence[int] = (START_MS,)) -> Reason | None:
    found = offers()[flow].objection([Table(PSEUDONYM, list(times), columns)])
    return found[0] if found else None


def test_of_policies_with_the_same_terms_the_first_names_them_and_the_widest_bounds_count() -> None:
    any_of_them = offers()["remote-diagnosis"]
    both = (
        dataclasses.replace(any_of_them, serial=17, readings=100, age_ms=600_000),
        dataclasses.replace(any_of_them, serial=18, readings=50, age_ms=1_200_000),
    )
    for one, other in itertools.permutations(both):
        found = one.beside(other)
        assert (found.serial, found.readings, found.age_ms) == (17, 100, 1_200_000)
    assert both[0].beside(None) == both[0]


ALLOWED = [
    ("remote-diagnosis", Column("appliance.power", Kind.NUMBER, [1], TENTH), "units of a quantum"),
    ("remote-diagnosis", Column("appliance.power", Kind.NUMBER, [1]), "ones, coarser than tenths"),
    (
        "remote-diagnosis",
        Column("appliance.temperature", Kind.NUMBER, [4], Quantum(1, 2)),
        "units of the rounding",
    ),
    ("remote-diagnosis", Column("appliance.starts", Kind.NUMBER, [2]), "an increase"),
    ("remote-diagnosis", Column("appliance.fault", Kind.TEXT, ["E02"]), "a text of the closed set"),
    ("remote-diagnosis", Column("appliance.heating", Kind.BOOLEAN, [True]), "a boolean"),
    ("remote-diagnosis", Column("device.serial", Kind.BYTES, [bytes(16)]), "a pseudonym"),
    (
        "remote-diagnosis",
        Column("location.area", Kind.POSITION, [(3122, 12147)], Quantum(1, 100)),
        "the centre of a cell",
    ),
    ("remote-diagnosis", Column("connection.network", Kind.TEXT, ["192.0.2.0/24"]), "a network"),
    ("remote-diagnosis", Column("connection.network", Kind.TEXT, ["192.0.0.0/16"]), "a wider one"),
    ("product-improvement", Column("appliance.power", Kind.NUMBER, [7], TENTH), "a window's mean"),
    ("product-improvement", Column("appliance.fault", Kind.TEXT, ["E01"]), "a chosen text"),
]


@pytest.mark.parametrize(("flow", "column", "_what"), ALLOWED, ids=[case[2] for case in ALLOWED])
def test_what_a_lane_gives_is_allowed(flow: str, column: Column, _what: str) -> None:
    assert objection(flow, column) is None


REFUSED = [
    (
        Column("appliance.voltage", Kind.NUMBER, [1], TENTH),
        Reason.UNDECLARED_ATTRIBUTE,
        "an attribute that the terms do not have",
    ),
    (
        Column("appliance.power", Kind.FLOAT, [100.123]),
        Reason.WRONG_KIND,
        "a plain float, which tells more than its quantum",
    ),
    (
        Column("appliance.power", Kind.NUMBER, [1], Quantum(1, 100)),
        Reason.TOO_FINE,
        "hundredths where tenths are declared",
    ),
    (
        Column("appliance.temperature", Kind.NUMBER, [1], TENTH),
        Reason.TOO_FINE,
        "the sensor's quantum where a rounding was promised",
    ),
    (
        Column("appliance.starts", Kind.NUMBER, [1], TENTH),
        Reason.TOO_FINE,
        "a fraction of something that is counted",
    ),
    (
        Column("appliance.fault", Kind.TEXT, ["E02", "owner: Alice"]),
        Reason.VALUE_NOT_ALLOWED,
        "a text outside the closed set",
    ),
    (Column("appliance.heating", Kind.NUMBER, [1]), Reason.WRONG_KIND, "a number for a boolean"),
    (
        Column("device.serial", Kind.TEXT, ["TEST-4711"]),
        Reason.WRONG_KIND,
        "the identifier itself for its pseudonym",
    ),
    (
        Column("device.serial", Kind.BYTES, [b"TEST-4711"]),
        Reason.VALUE_NOT_ALLOWED,
        "bytes that are no pseudonym",
    ),
    (
        Column("location.area", Kind.POSITION, [(312200, 1214700)], Quantum(1, 10_000)),
        Reason.TOO_FINE,
        "a position finer than its grid",
    ),
    (
        Column("connection.network", Kind.TEXT, ["192.0.2.7/32"]),
        Reason.VALUE_NOT_ALLOWED,
        "an address longer than its prefix",
    ),
    (
        Column("connection.network", Kind.TEXT, ["192.0.2.7"]),
        Reason.VALUE_NOT_ALLOWED,
        "an address without a prefix",
    ),
    (
        Column("connection.network", Kind.TEXT, ["192.0.2.7/24"]),
        Reason.VALUE_NOT_ALLOWED,
        "a prefix that hides the host's part in it",
    ),
    (
        Column("connection.network", Kind.TEXT, ["home"]),
        Reason.VALUE_NOT_ALLOWED,
        "no address at all",
    ),
]


@pytest.mark.clause("C03")
@pytest.mark.parametrize(("column", "reason", "_what"), REFUSED, ids=[case[2] for case in REFUSED])
def test_what_tells_more_than_the_terms_is_refused(
    column: Column, reason: Reason, _what: str
) -> None:
    rows = [START_MS + row for row in range(len(column.values))]
    assert objection("remote-diagnosis", column, times=rows) is reason


def test_a_window_starts_at_a_multiple_of_its_length() -> None:
    column = Column("appliance.power", Kind.NUMBER, [7], TENTH)
    assert objection("product-improvement", column, times=[START_MS + QUARTER]) is None
    late = [START_MS + QUARTER + 1000]
    assert objection("product-improvement", column, times=late) is Reason.TOO_FINE
    assert objection("energy-advice", column, times=[START_MS + QUARTER]) is Reason.TOO_FINE
    assert objection("energy-advice", column, times=[START_MS + HOUR]) is None


@pytest.mark.parametrize("ms", [-1, 2**62], ids=["before 1970", "after the year 9999"])
def test_an_instant_no_calendar_knows_is_refused(ms: int) -> None:
    column = Column("appliance.power", Kind.NUMBER, [1], TENTH)
    assert objection("remote-diagnosis", column, times=[ms]) is Reason.VALUE_NOT_ALLOWED


def test_absent_columns_are_fine() -> None:
    assert offers()["remote-diagnosis"].objection([]) is None
    assert offers()["remote-diagnosis"].objection([Table(PSEUDONYM, [], ())]) is None


def test_an_objection_repeats_nothing_of_what_came() -> None:
    table = Table(PSEUDONYM, [START_MS], (Column("owner.alice", Kind.TEXT, ["CANARY"]),))
    found = offers()["remote-diagnosis"].objection([table])
    assert found is not None
    assert "alice" not in found[1]
    assert "CANARY" not in found[1]


@pytest.mark.parametrize(
    ("text", "bits", "allowed"),
    [
        ("2001:db8:1:2::/64", 64, True),
        ("2001:db8:1:2::/64", 48, False),
        ("2001:db8:1:2:8000::/65", 128, False),
        ("192.0.2.0/24", 64, True),
        ("192.0.2.77/32", 64, False),
        ("2002:c000:24d::/48", 64, False),
        ("2001:0:c633:6401::/64", 64, False),
        ("2001:1:c633:6401::/64", 64, True),
    ],
    ids=[
        "a link",
        "a link where a site was promised",
        "half a link, whatever was promised",
        "an IPv4 network",
        "an IPv4 host, whatever was promised",
        "an IPv4 host that 6to4 carries",
        "a Teredo network",
        "the twin: a neighbour of Teredo",
    ],
)
def test_a_network_names_no_host(text: str, bits: int, allowed: bool) -> None:
    assert _are_networks(bits, [text]) == allowed
