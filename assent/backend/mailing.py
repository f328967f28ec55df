# SPDX-License-Identifier: Apache-2.0
"""Decides which gateway is sent a newer policy, and when; makes the letter.

Path: Told (ingest), published bundles → **Letter** → subscriber → broker → the gateway's inbox.
Law:
  - a gateway is sent the newest published bundle of the very policy that it says it runs, and
    nothing when it runs that or a later one;
  - a status makes one due, and so does a bundle that is published, or found at the start; time
    never does: a gateway that refuses a policy is left alone until it says something again;
  - the same policy goes to the same gateway once in fifteen minutes at most, and as long the
    broker keeps it for one that is away: what comes back later says a status first;
  - some twenty leave a second, so that a fleet's policy does not hold up its acknowledgements.

Security: a letter is signed with the ack key like any other; that makes nothing in it a policy. The
gateway believes the policy key alone.
Limits: what is due, and what was sent, is kept in memory; a start considers every gateway anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from assent.backend.acknowledge import Letter
from assent.backend.directory import Sendable
from assent.backend.outcomes import Gateway, Told
from assent.backend.store import Settled
from assent.backend.store.custody import Row
from assent.cosekey import SigningKey
from assent.envelope import Kind, seal, sign_message
from assent.messages import down_topic

# A bundle has some 20 kB: 400 kB a second beside the acknowledgements.
INTERVAL_S: Final = 0.05
# A gateway that flaps says a status each time; so long it is not told the same again.
REST_S: Final = 900


class Mailing:
    """Policies that are still to be sent; owned by the subscriber's thread.

    Args:
        key: the recipient's ack key.
        gateway: finds an admitted gateway by its mailbox.
    """

    def __init__(self, key: SigningKey, gateway: Callable[[str], Gateway | None]) -> None:
        self._key = key
        self._gateway = gateway
        self._newest: Mapping[str, Sendable] = {}
        self._due: dict[str, Sendable] = {}
        self._sent: dict[str, tuple[int, float]] = {}
        self._not_before = 0.0

    def publish(self, newest: Mapping[str, Sendable], gateways: Iterable[Row]) -> None:
        """Takes what is published now, and who would want it.

        Args:
            newest: the newest bundle that can be sent, by id of the policy.
            gateways: all that were admitted, with what they last said.
        """
        self._newest = newest
        for row in gateways:
            if row.policy_id is not None and row.policy_serial is not None:
                self._consider(row.mailbox, row.policy_id, row.policy_serial)

    def note(self, settled: Iterable[Settled]) -> None:
        """Takes note of what gateways say they run."""
        for one in settled:
            if isinstance(one.outcome, Told):
                status = one.outcome.status
                self._consider(one.outcome.mailbox, status.policy_id, status.policy_serial)

    def wait(self, now: float) -> float | None:
        """Says for how many seconds there is nothing to send; None when nothing is waiting.

        Args:
            now: monotonic seconds.
        """
        return max(0.0, self._not_before - now) if self._due else None

    def letters(self, now: float) -> Iterator[Letter]:
        """Makes the letter that is due, if one is, and forgets that it was.

        Args:
            now: monotonic seconds.
        """
        while self._due and now >= self._not_before:
            mailbox = next(iter(self._due))
            policy = self._due.pop(mailbox)
            gateway = self._gateway(mailbox)
            if gateway is None or self._rests(mailbox, policy, now):
                continue
            self._sent[mailbox] = policy.serial, now
            self._not_before = now + INTERVAL_S
            signed = sign_message(Kind.POLICY, policy.bundle, self._key, mailbox)
            data = seal(signed, gateway.seal, mailbox)
            yield Letter(down_topic(mailbox), data, expires_s=REST_S)

    def _consider(self, mailbox: str, policy_id: str, serial: int) -> None:
        newest = self._newest.get(policy_id)
        if newest is not None and newest.serial > serial:
            self._due[mailbox] = newest
        else:
            self._due.pop(mailbox, None)

    def _rests(self, mailbox: str, policy: Sendable, now: float) -> bool:
        serial, at = self._sent.get(mailbox, (0, now))
        return serial == policy.serial and now - at < REST_S
