# SPDX-License-Identifier: Apache-2.0
"""Makes demo/recording/washing-machine.csv: one hour of a washing machine, the same every time.

    python3 demo/make_recording.py

Nobody's machine was recorded for it. The figures are those of an ordinary 8 kg machine: a 2 kW
heater under 16 litres (0.03 °C a second), a drum that turns 12 s and rests 4 s, a 28 W drain pump,
a spin that rises to 450 W. It washes one load at 40 °C; the drain is blocked once, somebody clears
it, and the wash goes on. As in life some seconds are missing, some temperatures were not read, and
what seldom changes is reported when it changes and once a minute.

Columns: time (UTC), power (W), energy (Wh, counted since the machine was made), water temperature
(°C, ? when not read), door open (0 or 1), programme, fault, serial number.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

RECORDING: Final = Path(__file__).with_name("recording") / "washing-machine.csv"

_BEGIN: Final = dt.datetime(2026, 11, 1, 8, 0, tzinfo=dt.UTC)
_SECONDS: Final = 3_600
_HEADER: Final = "time,power,energy,water,door,program,fault,serial"
_SERIAL: Final = "TEST-WM-0001"
_ENERGY_WH: Final = 412_345.0

_COLD_C, _WARM_C, _ROOM_C = 13.5, 40.0, 21.0
_HEATING_C: Final = 2_000 / (16 * 4_186)  # °C a second: 2 kW into 16 litres of water
_COOLING: Final = 0.00012  # share of the distance to the room, a second

_DOOR_SHUT, _DOOR_OPEN = 70, 3_570
_STARTED, _ENDED = 90, 3_540
_BLOCKED, _CLEARED = 2_640, 2_820

# What the machine does from which second on.
_PHASES: Final = (
    (0, "idle"),
    (90, "fill"),
    (210, "heat"),
    (1_110, "wash"),
    (2_010, "drain"),
    (2_100, "spin"),
    (2_160, "fill"),
    (2_280, "wash"),
    (2_580, "drain"),
    (2_640, "blocked"),
    (2_820, "drain"),
    (2_910, "fill"),
    (3_030, "wash"),
    (3_210, "drain"),
    (3_300, "spin"),
    (3_540, "idle"),
)
# Power without drum and spin, and how far it sways.
_POWER_W: Final = {
    "idle": (1.2, 0.1),
    "fill": (9.5, 0.5),
    "heat": (2_010.0, 8.0),
    "wash": (5.5, 0.4),
    "drain": (28.0, 1.5),
    "spin": (90.0, 12.0),
    "blocked": (3.1, 0.2),
}


def recording() -> str:
    """The whole file."""
    return "\n".join([_HEADER, *_rows()]) + "\n"


def _rows() -> Iterator[str]:
    chance = random.Random(20_261_101)
    energy_wh, water_c = _ENERGY_WH, _ROOM_C
    for second in range(_SECONDS):
        phase, elapsed = _phase(second)
        power_w = _power_w(phase, elapsed, chance)
        water_c = _water_c(phase, water_c)
        energy_wh += power_w / 3_600
        is_missing, is_unread = chance.random() < 0.006, chance.random() < 0.01
        if is_missing and second % 60 and second not in {_BLOCKED, _CLEARED}:
            continue
        stamp = (_BEGIN + dt.timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")
        water = "?" if is_unread else f"{water_c:.1f}"
        yield f"{stamp},{power_w:.1f},{energy_wh:.0f},{water},{','.join(_seldom(second))}"


def _phase(second: int) -> tuple[str, int]:
    begin, name = max(phase for phase in _PHASES if phase[0] <= second)
    return name, second - begin


def _power_w(phase: str, elapsed: int, chance: random.Random) -> float:
    noise = chance.uniform(-1, 1)
    usual, sway = _POWER_W[phase]
    drum = 185 + 30 * noise if phase in {"heat", "wash"} and elapsed % 16 < 12 else 0
    rising = min(elapsed * 3, 360) if phase == "spin" else 0
    return usual + sway * noise + drum + rising


def _water_c(phase: str, water_c: float) -> float:
    match phase:
        case "fill":
            return water_c + (_COLD_C - water_c) * 0.04
        case "heat":
            return min(_WARM_C, water_c + _HEATING_C)
        case _:
            return water_c + (_ROOM_C - water_c) * _COOLING


def _seldom(second: int) -> tuple[str, str, str, str]:
    """Door, programme, fault and serial number: when they change, and now and then."""
    is_minute = second % 60 == 0
    door = str(int(not _DOOR_SHUT <= second < _DOOR_OPEN))
    program = "cotton" if _STARTED <= second < _ENDED else "idle"
    return (
        door if is_minute or second in {_DOOR_SHUT, _DOOR_OPEN} else "",
        program if is_minute or second in {_STARTED, _ENDED} else "",
        "drain-blocked" if second == _BLOCKED else "",
        _SERIAL if second % 600 == 0 else "",
    )


if __name__ == "__main__":
    RECORDING.parent.mkdir(exist_ok=True)
    RECORDING.write_text(recording(), encoding="ascii")
    print(f"{RECORDING}: {RECORDING.stat().st_size} bytes")
