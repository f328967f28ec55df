# SPDX-License-Identifier: Apache-2.0
"""What the uplink decides, without any network."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.uplink.protocol import (
    BACKOFF_MAX_S,
    REFUSED_MAX_S,
    WINDOW,
    Backoff,
    Pace,
    Receipt,
    Version,
    address,
    ceiling_s,
    keepalive,
    largest_message,
    needs_a_person,
    next_version,
    ping_after_s,
    receipt_of,
    silence_s,
    window,
)
from assent.errors import UplinkError
from assent.messages import new_mailbox, up_topic


@pytest.mark.parametrize(
    ("announced", "room"),
    [(None, 20), (65_535, 20), (20, 20), (19, 19), (1, 1), (0, 20)],
    ids=["nothing", "the protocol's default", "as much", "less", "one", "zero, which is an error"],
)
def test_the_window_is_the_smaller_of_ours_and_the_brokers(
    announced: int | None, room: int
) -> None:
    assert window(announced) == room
    assert WINDOW == 20


@pytest.mark.parametrize(
    ("reason", "receipt"),
    [
        (0x00, Receipt.ARRIVED),
        (0x10, Receipt.NOBODY),
        (0x80, Receipt.REFUSED),
        (0x83, Receipt.REFUSED),
        (0x87, Receipt.REFUSED),
        (0x97, Receipt.REFUSED),
        (0xFF, Receipt.REFUSED),
    ],
    ids=[
        "success",
        "no matching subscribers",
        "unspecified error",
        "implementation specific error",
        "not authorised",
        "quota exceeded",
        "a code nobody has defined",
    ],
)
def test_a_puback_means_delivered_only_when_it_says_success(reason: int, receipt: Receipt) -> None:
    """Trap 5: reason 0x10 is below the errors, and no success."""
    assert receipt_of(reason) is receipt


@given(st.integers(1, 200_000))
def test_a_message_of_the_largest_size_fits_into_the_packet(maximum: int) -> None:
    """The PUBLISH of MQTT 5 §3.3, written out here by itself."""
    topic = up_topic(new_mailbox())
    largest = largest_message(maximum, topic)
    assert largest is not None
    if largest < 0:
        return
    remaining = 2 + len(topic) + 2 + 1 + largest
    length_bytes = 1 + (remaining > 127) + (remaining > 16_383) + (remaining > 2_097_151)
    assert 1 + length_bytes + remaining <= maximum
    assert largest_message(None, topic) is None


@pytest.mark.parametrize(
    ("broker", "found"),
    [
        ("mqtts://ingest.example.com:8884", ("ingest.example.com", 8884)),
        ("mqtts://ingest.example.com", ("ingest.example.com", 8883)),
        ("mqtts://192.0.2.7:1", ("192.0.2.7", 1)),
        ("mqtts://[2001:db8::7]:8883/", ("2001:db8::7", 8883)),
    ],
    ids=["name and port", "the registered port", "IPv4", "IPv6"],
)
def test_an_address_is_a_host_and_a_port(broker: str, found: tuple[str, int]) -> None:
    assert address(broker) == found


@pytest.mark.parametrize(
    "broker",
    [
        "mqtt://ingest.example.com:1883",
        "ingest.example.com:8883",
        "mqtts://",
        "mqtts://user:secret@ingest.example.com",
        "mqtts://ingest.example.com:0",
        "mqtts://ingest.example.com:65536",
        "mqtts://ingest.example.com/path",
        "mqtts://a b:1",
        "",
    ],
)
def test_anything_but_mqtt_over_tls_is_refused(broker: str) -> None:
    with pytest.raises(UplinkError, match="mqtts://host:port"):
        address(broker)


@pytest.mark.parametrize(
    ("proven", "refused", "failures", "version"),
    [
        (False, True, 1, Version.V311),
        (False, False, 1, Version.V311),
        (True, True, 1, Version.V311),
        (True, False, 1, Version.V5),
        (True, False, 5, Version.V311),
    ],
    ids=[
        "refused by a broker we do not know",
        "hung up on by a broker we do not know",
        "refused by one that was another before",
        "hung up on by one that spoke it: it restarts, most likely",
        "hung up on five times",
    ],
)
def test_the_other_version_is_tried_when_this_one_gets_no_answer(
    proven: bool, refused: bool, failures: int, version: Version
) -> None:
    found = next_version(Version.V5, proven=proven, refused=refused, failures=failures)
    assert found is version
    assert Version.V311.other is Version.V5


def test_the_ceiling_doubles_from_one_second_to_two_minutes() -> None:
    assert [ceiling_s(attempt) for attempt in range(9)] == [1, 2, 4, 8, 16, 32, 64, 120, 120]
    assert ceiling_s(10**9) == BACKOFF_MAX_S == 120


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_a_wait_is_anywhere_below_its_ceiling(seed: int, attempts: int) -> None:
    backoff = Backoff(random.Random(seed))
    for attempt in range(attempts):
        assert 0 <= backoff.failed() <= ceiling_s(attempt)
    assert backoff.attempts == attempts


def test_a_thousand_gateways_do_not_come_back_together() -> None:
    """Full jitter: red with a fixed delay, and with one that varies only a little."""
    waits = []
    for seed in range(1_000):
        backoff = Backoff(random.Random(seed))
        backoff.attempts = 7
        waits.append(backoff.failed())
    in_tenths = [sum(i * 12 <= wait < (i + 1) * 12 for wait in waits) for i in range(10)]
    assert max(in_tenths) < 150
    assert statistics.mean(waits) == pytest.approx(60, abs=4)


def test_a_connection_that_lived_ends_the_growth_and_one_that_did_not_does_not() -> None:
    backoff = Backoff(random.Random(1))
    for _ in range(5):
        backoff.failed(0.5)
    assert backoff.ceiling_s == 32
    backoff.failed(31.0)  # two clients of one id throw each other out after such times
    assert backoff.ceiling_s == 64
    backoff.failed(65.0)
    assert backoff.ceiling_s == 2


def test_a_session_that_was_taken_over_starts_high() -> None:
    backoff = Backoff(random.Random(1))
    waits = []
    for seed in range(100):
        backoff = Backoff(random.Random(seed))
        waits.append(backoff.failed(0.1, taken_over=True))
    assert statistics.mean(waits) == pytest.approx(32, abs=6)


def test_what_needs_a_person_is_tried_every_ten_minutes_at_most() -> None:
    """The twin is an outage, whose waits stay below two."""
    longest = []
    for refused in (False, True):
        waits = []
        for seed in range(200):
            backoff = Backoff(random.Random(seed))
            waits += [backoff.failed(refused=refused) for _ in range(14)]
        longest.append(max(waits))
    assert 110 < longest[0] <= BACKOFF_MAX_S
    assert 550 < longest[1] <= REFUSED_MAX_S == 600


@pytest.mark.parametrize(
    ("reason", "person"),
    [(0x86, True), (0x87, True), (0x8A, True), (0x88, False), (0x89, False), (0x97, False)],
    ids=["bad user", "not authorised", "banned", "unavailable", "busy", "quota"],
)
def test_a_refusal_is_told_from_what_passes(reason: int, person: bool) -> None:
    assert needs_a_person(reason) is person


@pytest.mark.parametrize(
    ("theirs", "used"),
    [(None, 60), (20, 20), (600, 60), (0, 60)],
    ids=["says nothing", "wants it sooner", "wants it later", "wants none"],
)
def test_the_keepalive_is_the_shorter_one(theirs: int | None, used: int) -> None:
    assert keepalive(60, theirs) == used


@given(st.integers(4, 65_535))
def test_silence_ends_a_link_within_one_and_a_half_keepalives_with_time_for_an_answer(
    keepalive_s: int,
) -> None:
    """With a look a second: the ping leaves in time for the broker, the answer has two looks."""
    assert ping_after_s(keepalive_s) + 1 < keepalive_s
    assert silence_s(keepalive_s) + 1 <= 1.5 * keepalive_s
    assert silence_s(keepalive_s) >= ping_after_s(keepalive_s) + 2


@given(st.lists(st.floats(0, 2), min_size=1, max_size=50), st.integers(1, 200))
def test_a_pace_lets_a_window_pass_at_once_and_then_so_many_a_second(
    waits: list[float], per_s: int
) -> None:
    pace, now, spent = Pace(per_s), 1_000.0, 0
    for wait in waits:
        now += wait
        allowed = pace.allows(now)
        assert 0 <= allowed <= WINDOW
        pace.spend(allowed)
        spent += allowed
    assert spent <= WINDOW + (now - 1_000.0) * per_s + 1e-6
