# SPDX-License-Identifier: Apache-2.0
"""Coarsens where something is: positions to a grid, addresses to a prefix.

Law:
  - a cell of `grid(km)` is at least that many kilometres high and wide everywhere, the last ones
    before the poles and the antimeridian included; what leaves is the cell's centre;
  - cells of a multiple lie edge on edge with the finer ones, so that a coarser grid never tells
    more (terms compare them so);
  - the host's own part of an address never leaves, whatever the policy asks for; an IPv4 host in
    an IPv6 address (mapped, 6to4, Teredo) is an IPv4 host.

Standards: RFC 791, RFC 4291 (addresses), RFC 4632 (prefixes), RFC 3056 (6to4), RFC 4380 (Teredo).
Limits: a provider's own embedding (6rd, RFC 5969; NAT64 under its prefix, RFC 6052) cannot be told
from any other prefix; a policy that must hide it asks for fewer bits.
"""

from __future__ import annotations

import functools
import ipaddress
import math
from fractions import Fraction
from typing import Final, NamedTuple

from agent.transform.readers import Cell, Reader
from agent.transform.reasons import DropReason
from assent.columns import Kind, Quantum

_KM_PER_DEGREE: Final = Fraction("111.195")  # of the mean sphere, radius 6371.0 km
_FINEST_EXPONENT: Final = 9  # 1e-9 degrees are a tenth of a millimetre
_CACHED: Final = 1_024
# A /24 is the smallest block that networks announce (RFC 7454 §6.1.3 practice); a /64 is one link
# (RFC 4291 §2.5.4). Whatever is finer names the host.
MAX_BITS_V4: Final = 24
MAX_BITS_V6: Final = 64


class _Grid(NamedTuple):
    step: Fraction  # height of a cell in degrees
    quantum: Quantum

    def centre(self, latitude: float, longitude: float) -> tuple[int, int]:
        """Gives the centre of the cell in units of the quantum."""
        south, height = _cell(Fraction(latitude) + 90, self.step, 180)
        width = self._width(south, height)
        west, wide = _cell(Fraction(longitude) + 180, width, 360)
        return self._units(south - 90 + height / 2), self._units(west - 180 + wide / 2)

    def _width(self, south: Fraction, height: Fraction) -> Fraction:
        # Doubled until the edge nearer to the pole is as wide as the cell is high: powers of two
        # keep the meridians of a coarser grid on those of a finer one.
        edge = max(abs(south - 90), abs(south - 90 + height))
        shrink = math.cos(math.radians(float(edge)))
        width = self.step
        while width < 360 and float(width) * shrink < float(self.step):
            width *= 2
        return width

    def _units(self, degrees: Fraction) -> int:
        return round(degrees * self.quantum.denominator / self.quantum.numerator)


def _cell(offset: Fraction, step: Fraction, extent: int) -> tuple[Fraction, Fraction]:
    # Start and length of the step that holds the offset; the last takes what is left over.
    count = max(1, int(extent / step))
    index = min(int(offset / step), count - 1)
    start = index * step
    return start, (step if index < count - 1 else extent - start)


def grid(kilometres: float) -> Reader:
    """Reads positions as the centre of their cell.

    Args:
        kilometres: least height and width of a cell.

    Returns:
        The reader; its quantum is a power of ten of at most a twentieth of a cell.
    """
    step = Fraction(repr(float(kilometres))) / _KM_PER_DEGREE
    exponent = min(_FINEST_EXPONENT, max(0, math.ceil(-math.log10(float(step) / 20))))
    cells = _Grid(step, Quantum(1, 10**exponent))

    @functools.lru_cache(maxsize=_CACHED)
    def centre(latitude: float, longitude: float) -> tuple[int, int]:
        return cells.centre(latitude, longitude)

    def one(value: object) -> Cell:
        if type(value) is not tuple or len(value) != 2:
            return DropReason.WRONG_TYPE
        latitude, longitude = value
        if not {type(latitude), type(longitude)} <= {int, float}:
            return DropReason.WRONG_TYPE
        if latitude != latitude or longitude != longitude:  # noqa: PLR0124  # NaN, of ints too
            return DropReason.NOT_FINITE
        if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
            return DropReason.OUT_OF_RANGE
        return centre(latitude, longitude)

    return Reader(Kind.POSITION, cells.quantum, one)


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    # An IPv4 host in other clothes, whose /64 would name it: mapped (RFC 4291 §2.5.5.2), 6to4
    # (RFC 3056 §2) and Teredo (RFC 4380 §4; the client behind its server).
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour


def prefix(bits: int) -> Reader:
    """Reads IPv4 and IPv6 addresses as the network of their first bits.

    Args:
        bits: how many; at most 24 of IPv4 and 64 of IPv6 are used, because the rest is the host.

    Returns:
        The reader; a cell is a text such as `192.0.2.0/24`.
    """

    @functools.lru_cache(maxsize=_CACHED)
    def network(text: str) -> Cell:
        try:
            address = ipaddress.ip_address(text.strip())
        except ValueError:
            return DropReason.MALFORMED
        if isinstance(address, ipaddress.IPv6Address):
            address = _inner(address) or address
        most = MAX_BITS_V4 if address.version == 4 else MAX_BITS_V6
        # packed has no scope: the name of an interface does not leave (RFC 4007 §11)
        return str(ipaddress.ip_network((address.packed, min(bits, most)), strict=False))

    def one(value: object) -> Cell:
        return network(value) if type(value) is str else DropReason.WRONG_TYPE

    return Reader(Kind.TEXT, None, one)
