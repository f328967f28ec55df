# SPDX-License-Identifier: Apache-2.0
"""Asks a recipient for the time where no time service tells it, and believes the answer once.

Path: **timekeeper** → control → uplink → recipient; and inbox → mailroom → **timekeeper** → clock.
Law:
  - only a recipient is asked for whom a flow is held: a gateway that agreed to nothing asks nobody,
    and connects to nobody;
  - an answer counts that bears the id of the last question to that very recipient, comes within ten
    seconds of it by the time since boot, and is not before the floor; every other changes nothing;
  - the moment of the answer is taken for the middle between asking and hearing. A question that had
    to wait for a connection is asked anew on it, so that this is short. The answer to the one it
    took the place of changes nothing and is no refusal, once;
  - it is asked first after half a minute without the time, then ever more rarely; while the time
    rests on what was told, once in six hours.

Security: a recipient whom the household agreed to send something can say what time it is, never one
that is past. It ends no yes that would not end by that time, and begins none.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Final

import msgspec

from agent.path import Pending, Permit, Verdict, permit_of
from agent.site import Site
from agent.spool import LinkState, Spool
from assent import envelope
from assent.envelope import Kind
from assent.errors import SpoolError
from assent.messages import REQUEST_ID_BYTES, Request, Time, Verb
from firmware_bridge.clock import Clock
from firmware_bridge.sample import Instant

# A time service needs some seconds after a boot, and is better.
FIRST_MS: Final = 30_000
# After a power cut whole streets ask: not all at once.
_SPREAD_MS: Final = 10_000
_LONGEST_MS: Final = 3_600_000
ANSWER_MS: Final = 10_000
"""An answer that took longer tells too little; half of it is how wrong it may be."""
# A quartz is off by 4 s a day at most; in six hours by one.
RENEW_MS: Final = 6 * 3_600_000
# A clock that runs too fast is put right by no more than the floor allows.
_DRIFT_MS: Final = 60_000
# The kernel's clock ends in April 2262 (63 bits of nanoseconds). What is told raises the floor for
# good: of a later time nobody recovers without a shell.
_LATEST_MS: Final = (1 << 63) // 1_000_000

log = logging.getLogger(__name__)


class _Asked(msgspec.Struct, frozen=True):
    """The last question to a recipient; `control` is what waits in the spool of it."""

    nonce: bytes
    at_ms: int
    control: int | None
    met_ms: int | None


class Timekeeper:
    """Asks for the time; one thread owns it.

    Args:
        spool: the collecting side's end of the spool.
        clock: which is told.
    """

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._asked: dict[str, _Asked] = {}
        self._replaced: dict[str, bytes] = {}
        self._next_ms: int | None = None
        self._wait_ms = FIRST_MS
        self._is_begun = False

    def look(self, site: Site, verdicts: Mapping[str, Verdict], now: Instant) -> None:
        """Asks those who may be asked, when it is time to.

        Raises:
            SpoolError: the disk refuses; the next look tries again.
        """
        if not self._is_begun:
            self._spool.drop_questions()
            self._is_begun = True
        recipients = _askable(verdicts, now) if site.policy is not None else set()
        for recipient in self._asked.keys() - recipients:
            self._forget(recipient)
        if not recipients:
            self._next_ms, self._wait_ms = None, FIRST_MS
            return
        if self._next_ms is None:
            first_ms = RENEW_MS if now.told else FIRST_MS
            self._next_ms = now.mono_ms + first_ms + secrets.randbelow(_SPREAD_MS)
        is_due = now.mono_ms >= self._next_ms
        for recipient in sorted(recipients):
            met_ms = self._met_ms(recipient)
            before = self._asked.get(recipient)
            is_met = before is not None and met_ms is not None and met_ms != before.met_ms
            if is_due or is_met:
                self._ask(site, recipient, now, met_ms)
        if is_due:
            self._wait_ms = RENEW_MS if now.told else min(2 * self._wait_ms, _LONGEST_MS)
            self._next_ms = now.mono_ms + self._wait_ms

    def hear(self, recipient: str, told: Time, site: Site, now: Instant) -> bool:
        """Takes an answer.

        Args:
            recipient: whose signature was verified.
            told: what it says.
            site: whose floor counts.
            now: now.

        Returns:
            Whether there is nothing to refuse: it is believed, and the clock tells it from then
            on, or it answers the question before, which was asked anew.
        """
        if self._replaced.get(recipient) == told.nonce:
            del self._replaced[recipient]
            return True
        asked = self._asked.get(recipient)
        if asked is None or asked.nonce != told.nonce:
            return False
        self._forget(recipient)
        took_ms = now.mono_ms - asked.at_ms
        past_ms = site.floor.past_ms(now)
        at_ms = told.at_ms + took_ms // 2
        # It was told between question and answer: all of that may lie behind the middle.
        earliest_ms = past_ms - (_DRIFT_MS if now.told else took_ms - took_ms // 2)
        if not 0 <= took_ms <= ANSWER_MS or not earliest_ms <= at_ms < _LATEST_MS:
            return False
        self._clock.tell(max(at_ms, past_ms) - now.mono_ms)
        self._next_ms, self._wait_ms = None, FIRST_MS
        log.info("time told recipient=%s took_ms=%d", recipient, took_ms)
        return True

    def _ask(self, site: Site, recipient: str, now: Instant, met_ms: int | None) -> None:
        assert site.policy is not None
        if (before := self._asked.get(recipient)) is not None:
            self._replaced[recipient] = before.nonce
        self._forget(recipient)
        nonce = secrets.token_bytes(REQUEST_ID_BYTES)
        gateway = site.keys.gateway(recipient)
        body = Request(nonce, Verb.TIME, ()).encode()
        signed = envelope.sign_message(Kind.REQUEST, body, gateway.sign, gateway.mailbox)
        data = envelope.seal(signed, site.policy.keys[recipient], gateway.mailbox)
        control = self._spool.put_control(recipient, data, courtesy=now.told, question=True)
        self._asked[recipient] = _Asked(nonce, now.mono_ms, control, met_ms)

    def _forget(self, recipient: str) -> None:
        asked = self._asked.pop(recipient, None)
        if asked is not None and asked.control is not None:
            try:
                self._spool.drop_control(asked.control)
            except SpoolError as exc:
                log.warning("question for the time not taken back reason=%s", exc.message)

    def _met_ms(self, recipient: str) -> int | None:
        health = self._spool.health().get(recipient)
        if health is None or health.state is not LinkState.CONNECTED:
            return None
        return health.since_ms


def _askable(verdicts: Mapping[str, Verdict], now: Instant) -> set[str]:
    """Whom a flow is held for; while the time rests on what was told, whom one runs for."""
    if now.trusted and not now.told:
        return set()
    wanted = Permit if now.told else Pending
    return {permit_of(one).recipient for one in verdicts.values() if isinstance(one, wanted)}
