# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from assent.backend.subscriber.losses import INTERVAL_S, STEADY_S, Losses


def test_the_same_loss_is_told_once_in_a_while_with_the_tries() -> None:
    losses = Losses()
    told = [losses.note("refused", now) for now in range(0, 660, 30)]
    assert [one for one in told if one is not None] == [1, 11, 21]


def test_another_reason_is_told_at_once() -> None:
    losses = Losses()
    assert losses.note("refused", 0.0) == 1
    assert losses.note("no such certificate", 1.0) == 2
    assert losses.note("refused", 2.0) is None


def test_a_connection_that_stood_makes_the_next_loss_news() -> None:
    losses = Losses()
    assert losses.note("ended", 0.0) == 1
    assert losses.note("ended", 20.0, stood_s=STEADY_S) == 1


def test_a_broker_that_hangs_up_at_once_fills_no_log() -> None:
    losses = Losses()
    told = [losses.note("ended", float(now), stood_s=0.5) for now in range(int(INTERVAL_S))]
    assert told == [1] + [None] * (len(told) - 1)


def test_many_reasons_are_not_kept_for_ever() -> None:
    losses = Losses()
    for number in range(1_000):
        losses.note(str(number), 0.0)
    assert losses.note("0", 1.0) == 1_001
