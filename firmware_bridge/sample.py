# SPDX-License-Identifier: Apache-2.0
"""`Sample`, `Device`, `Source` and the bridge's errors: all that leaves the bridge.

Path: hardware → source → **Sample** → router.
Law:
  - a Sample is one device at one instant with some (attribute, value) pairs, nothing else;
  - `names` and `values` are parallel; a source reuses one `names` tuple per shape, so that the
    router compiles a shape once and not per reading;
  - a value that is absent, a fault or not finite is left out by the source, never guessed.
Limits: values are int, float, bool, str or a (latitude, longitude) pair of floats in degrees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

import msgspec

from assent.errors import AssentError

Value = int | float | bool | str | tuple[float, float]


class Device(msgspec.Struct, frozen=True, gc=False):
    """One appliance or the gateway itself, as this installation names it.

    Attributes:
        id: the installation's name for it, from agent.toml; never leaves.
        kind: what sort of appliance it is; told in `status`, and to nobody else.
        serial: the hardware's own serial number where it has one; the pseudonym rests on it.
    """

    id: str
    kind: str
    serial: str | None = None


class Instant(msgspec.Struct, frozen=True, gc=False):
    """A moment and how far it can be trusted.

    Attributes:
        wall_ms: milliseconds since 1970-01-01 UTC by the wall clock.
        mono_ms: milliseconds since boot, never stepped.
        trusted: whether the wall clock was known to be right.
        told: whether that rests on what a recipient told, and not on this machine's clock.
    """

    wall_ms: int
    mono_ms: int
    trusted: bool
    told: bool = False


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One device, one instant, some (attribute, value) pairs."""

    device: Device
    at: Instant
    names: tuple[str, ...]
    values: tuple[Value, ...]


class Source(Protocol):
    """A port that yields samples; opened, read and closed by one thread of the supervisor."""

    def open(self) -> None:
        """Opens the port; raises SourceError when it cannot."""

    def read(self) -> list[Sample]:
        """Blocks at most about one period; an empty list means nothing new.

        Raises:
            SourceError: the port must be closed and opened again.
            EndOfSource: a recording has ended; there will be no more.
        """

    def close(self) -> None:
        """Closes the port; never raises, may be called twice."""


@runtime_checkable
class PartlySource(Protocol):
    """A source of which a part may fail while the rest goes on."""

    def trouble(self) -> str | None:
        """What fails now, as a sentence without a value or an identifier; None when nothing."""


@runtime_checkable
class ChoosySource(Protocol):
    """A source that can leave unread what nobody wants."""

    def choose(self, names: frozenset[str] | None) -> None:
        """Reads these attributes and no others from now on; None reads all it has."""


def trouble_of(source: Source) -> Callable[[], str | None]:
    """What tells which part of a source fails; to be found once, not with every reading."""
    return source.trouble if isinstance(source, PartlySource) else _nothing


def _nothing() -> str | None:
    """What a source that has no parts tells."""
    return None


class SourceError(AssentError):
    """A device cannot be opened or read; the others go on."""

    code: ClassVar[str] = "source"


class SilentSourceError(SourceError):
    """A device says nothing, though the way to it is open."""

    code: ClassVar[str] = "source-silent"


class EndOfSource(SourceError):  # noqa: N818 - an end, not an error, in spite of its base
    """A recording has been read to its end."""

    code: ClassVar[str] = "source-ended"
