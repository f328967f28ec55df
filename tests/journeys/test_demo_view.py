# SPDX-License-Identifier: Apache-2.0
"""The demo's view says what status and stores say, and fits into eighty columns."""

from __future__ import annotations

from typing import Any

from demo.view import lines

STATUS: dict[str, Any] = {
    "devices": [
        {
            "id": "washer",
            "kind": "washing-machine",
            "samples": 430,
            "state": "running",
            "held_back": {"appliance.temperature": "no flow of the policy lists it"},
        },
        {
            "id": "meter",
            "kind": "electricity-meter",
            "samples": 30,
            "state": "running",
            "held_back": {},
        },
    ],
    "flows": [
        {
            "flow": "partner-energy-advice",
            "recipient": "energy-advice",
            "sealed": {"readings": 123_456, "bytes": 1_234_567},
        }
    ],
}


def test_the_view_shows_what_was_read_held_back_sealed_and_stored() -> None:
    shown = lines(STATUS, {("energy-advice", "partner-energy-advice"): 123_400})
    assert [line.split() for line in shown if line] == [
        ["READ", "KIND", "SAMPLES", "STATE"],
        ["washer", "washing-machine", "430", "running"],
        ["meter", "electricity-meter", "30", "running"],
        ["HELD", "BACK", "OF", "BECAUSE"],
        ["appliance.temperature", "washer", *["no", "flow", "of", "the", "policy", "lists", "it"]],
        ["LEFT", "SEALED", "TO", "READINGS", "BYTES", "STORED"],
        ["partner-energy-advice", "energy-advice", "123456", "1234567", "123400"],
    ]
    assert max(map(len, shown)) < 80


def test_what_nothing_is_known_of_takes_no_room() -> None:
    assert lines({"devices": [], "flows": []}, {}) == []
