# SPDX-License-Identifier: Apache-2.0
"""Which certificates of this gateway end soon, and what to do about it."""

from __future__ import annotations

import datetime as dt
from typing import Final

from agent.site import Site
from firmware_bridge.sample import Instant

_DAY_MS: Final = 86_400_000
# Long enough for a file to go to a recipient and back by whatever way it went the first time.
_NOTICE_DAYS: Final = 30


def ends_of(site: Site) -> dict[str, int]:
    """When each certificate in use ends, in ms since 1970 UTC, by recipient of the policy."""
    recipients = site.policy.policy.recipients if site.policy else ()
    ends = {name: site.keys.certificate_ends_ms(name) for name in recipients}
    return {name: end_ms for name, end_ms in ends.items() if end_ms is not None}


def due(site: Site, now: Instant) -> dict[str, str]:
    """What to say of each certificate that ends soon or is over, by recipient.

    A clock that is not trusted tells no end; the uplink names one when a broker hangs up. A pair
    of which no certificate can be read is told of in any case.

    Args:
        site: what is installed.
        now: the present.

    Returns:
        Sentences with the command that helps.
    """
    told = {
        name: f"keys/tls/{name}.pem is damaged, nothing is delivered: assent enrol --renew {name}"
        for name in (site.policy.policy.recipients if site.policy else ())
        if site.keys.certificate_ends_ms(name) is None and site.keys.tls_pair(name).exists()
    }
    if not now.trusted:
        return told
    return told | {
        name: f"certificate for {name} {_left(end_ms, now.wall_ms)}: assent enrol --renew {name}"
        for name, end_ms in sorted(ends_of(site).items())
        if end_ms - now.wall_ms < _NOTICE_DAYS * _DAY_MS
    }


def _left(end_ms: int, now_ms: int) -> str:
    if end_ms < now_ms:
        ended = dt.datetime.fromtimestamp(end_ms / 1000, dt.UTC)
        return f"ended on {ended:%Y-%m-%d}, nothing is delivered"
    days = (end_ms - now_ms) // _DAY_MS
    return f"ends in {days} days" if days > 1 else "ends within two days"
