# SPDX-License-Identifier: Apache-2.0
"""A time is read in its declared format, or there is none."""

from __future__ import annotations

import calendar
import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.stamps import parser

TRACE = "%d/%m/%Y %H:%M:%S"


def ms(*fields: int, offset_h: int = 0) -> int:
    zone = dt.timezone(dt.timedelta(hours=offset_h))
    return int(dt.datetime(*fields, tzinfo=zone).timestamp() * 1000)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("time_format", "text", "expected"),
    [
        ("iso", "2026-11-22T10:15:00Z", ms(2026, 11, 22, 10, 15)),
        ("iso", "2026-11-22 10:15:00.125", ms(2026, 11, 22, 10, 15) + 125),
        ("iso", " 2026-11-22T10:15:00+08:00 ", ms(2026, 11, 22, 10, 15, offset_h=8)),
        ("iso", "1969-12-31T23:59:59Z", -1_000),
        ("iso", "22/11/2026 10:15", None),
        ("iso", "", None),
        ("unix", "1795313700", 1_795_313_700_000),
        ("unix", "1795313700.125", 1_795_313_700_125),
        ("unix", "-1.5", -1_500),
        ("unix", "1e9", None),
        ("unix", "999999999999", None),
        ("unix", "nan", None),
        ("unix-ms", " 1795313700125 ", 1_795_313_700_125),
        ("unix-ms", "1795313700.125", None),
        (TRACE, "12/06/2012 00:00:04", ms(2012, 6, 12, 0, 0, 4)),
        (TRACE, "2/6/2012 0:00:04", ms(2012, 6, 2, 0, 0, 4)),
        (TRACE, "12.06.2012 00:00:04", None),
        (TRACE, "31/02/2012 00:00:04", None),
        (TRACE, "12/06/2012 00:00:xx", None),
        ("%H:%M", "10:15", ms(1900, 1, 1, 10, 15)),
        ("%d.%m.%y %H:%M", "22.11.26 10:15", ms(2026, 11, 22, 10, 15)),
    ],
)
def test_a_text_is_a_time_of_its_format_or_none(
    time_format: str, text: str, expected: int | None
) -> None:
    assert parser(time_format)(text) == expected


@pytest.mark.parametrize("time_format", ["", "time", "%Q", "%s", "%", "ISO"])
def test_a_format_that_is_none_is_refused_with_a_sentence(time_format: str) -> None:
    with pytest.raises(ValueError, match="expected 'iso', 'unix', 'unix-ms' or a pattern"):
        parser(time_format)


def seconds(moment: dt.datetime) -> int:
    return calendar.timegm(moment.utctimetuple())


@pytest.mark.parametrize("time_format", [TRACE, "%Y-%m-%dT%H:%M:%S", "%S.%M.%H %m/%d/%Y"])
@settings(max_examples=60, deadline=None)
@given(
    moment=st.datetimes(timezones=st.just(dt.UTC)).filter(lambda moment: moment.year >= 1000),
    junk=st.text("0123456789/:. -T", max_size=20),
)
def test_the_fast_way_and_the_library_agree(
    time_format: str, moment: dt.datetime, junk: str
) -> None:
    parse = parser(time_format)
    whole = moment.replace(microsecond=0)
    assert parse(whole.strftime(time_format)) == seconds(whole) * 1000
    try:
        known = dt.datetime.strptime(junk.strip(), time_format).replace(tzinfo=dt.UTC)
    except ValueError:
        assert parse(junk) is None
    else:
        assert parse(junk) == seconds(known) * 1000


@pytest.mark.parametrize("time_format", ["iso", "unix", "unix-ms", TRACE, "%H:%M"])
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=30))
def test_whatever_the_text_there_is_a_time_or_none(time_format: str, text: str) -> None:
    assert isinstance(parser(time_format)(text), int | None)
