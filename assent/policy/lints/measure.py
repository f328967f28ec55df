# SPDX-License-Identifier: Apache-2.0
"""Whether a text is the name of a unit: SenML's registry, else built as UCUM builds its units.

Standards: RFC 8428 §12.1 and RFC 8798 (SenML units); UCUM 2.1 (case-sensitive symbols): prefixes,
symbols and exponents joined by `.` and `/`. Of UCUM's symbols those an appliance measures in are
listed; a missing one is a line here.
"""

from __future__ import annotations

import re
from typing import Final

_SENML: Final = (
    "m kg g s A K cd mol Hz rad sr N Pa J W C V F Ohm S Wb T H Cel lm lx Bq Gy Sv kat m2 m3 l m/s "
    "m/s2 m3/s l/s W/m2 cd/m2 bit bit/s lat lon pH dB dBW Bspl count / % %RH %EL EL 1/s 1/min "
    "beat/min beats S/m B VA VAs var vars J/m kg/m3 deg NTU ms min h MHz kW kVA kvar Ah Wh kWh "
    "varh kvarh kVAh VAh Wh/km KiB GB Mbit/s B/s MB/s mV mA dBm ug/m3 mm/h m/h ppm ppb /100 /1000 "
    "hPa mm cm km km/h"
)
SENML: Final = frozenset(_SENML.split())

_PREFIX: Final = "(?:da|[YZEPTGMkhdcmunpfazy])?"
_METRIC: Final = (
    "m|g|s|A|K|cd|mol|Hz|rad|sr|N|Pa|J|W|C|V|F|Ohm|S|Wb|T|H|Cel|lm|lx|Bq|Gy|Sv|l|L|bar|eV|cal|"
    r"bit|By|Bd|m\[Hg\]"
)
_PLAIN: Final = (
    r"1|10\*|%|deg|''|'|min|h|d|wk|mo|a|\[ppm\]|\[ppb\]|\[pH\]|\[degF\]|\[in_i\]|\[ft_i\]|"
    r"\[lb_av\]|\[gal_us\]|\[psi\]|B\[W\]|B\[SPL\]"
)
_TERM: Final = rf"(?:{_PREFIX}(?:{_METRIC})|{_PLAIN})(?:[+-]?[1-9])?(?:\{{[A-Za-z0-9 _-]*\}})?"
_UCUM = re.compile(rf"/?{_TERM}(?:[./]{_TERM}){{0,5}}")


def is_unit(text: str) -> bool:
    """Says whether a text is a unit's symbol.

    Args:
        text: such as `W`, `Cel`, `kW.h` or `m3/h`.

    Returns:
        True for SenML's and UCUM's.
    """
    return text in SENML or _UCUM.fullmatch(text) is not None
