# SPDX-License-Identifier: Apache-2.0
"""How a source is, as `status` tells it.

Path: supervisor → **health** → account → control → screen.
Security: no value, no port and no identifier of a device but the installation's own.
"""

from __future__ import annotations

import enum

import msgspec


class State(enum.Enum):
    """How a source is. The value is what `status` prints."""

    STARTING = "starting"
    """It has not given anything yet, and nothing has failed yet."""
    RUNNING = "running"
    """It gives samples; a part of it may fail all the same."""
    SILENT = "silent"
    """It says nothing, though it is open; it is being opened again."""
    FAILED = "failed"
    """It could not be opened or read; it is being opened again."""
    ENDED = "ended"
    """A recording has been read to its end."""
    IDLE = "not wanted"
    """No running flow wants anything of it, so it is closed."""
    STOPPED = "stopped"
    """The supervisor was stopped."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How one source is; holds no value and no identifier of a device but the installation's.

    Attributes:
        device_id: the installation's name for it.
        kind: what sort of appliance it is.
        state: how it is.
        since_ms: since when, by the wall clock.
        last_sample_ms: when it last gave a sample, by the wall clock, or None.
        samples: how many it gave.
        failures: how often it was closed because it failed or was silent.
        undelivered: samples that the pipeline would not take.
        error: a sentence on what is wrong, or None; of a running one, which part of it fails.
    """

    device_id: str
    kind: str
    state: State
    since_ms: int
    last_sample_ms: int | None = None
    samples: int = 0
    failures: int = 0
    undelivered: int = 0
    error: str | None = None
