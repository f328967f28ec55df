# SPDX-License-Identifier: Apache-2.0
"""Answers gateways that ask what time it is.

Path: Settled (a request) → **Letter** → subscriber → broker → the gateway's inbox.
Law:
  - an answer goes out at once, with the clock of the moment at which it is signed, and bears the id
    of the question: it is of use to nobody else, and at no other time;
  - the broker keeps it for seconds only: a gateway believes none that took longer;
  - a gateway that asks again before it was answered gets one answer, to its last question.

Security: whoever holds the ack key can tell gateways that have no other clock what time it is,
never one that is past for them (docs/decisions/0022).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final

from assent.backend.acknowledge import Letter
from assent.backend.outcomes import Asked, Gateway
from assent.backend.store import Settled
from assent.cosekey import SigningKey
from assent.envelope import Kind, seal, sign_message
from assent.messages import Time, Verb, down_topic

EXPIRES_S: Final = 10  # a gateway believes no answer that took longer


class Timeteller:
    """What is still to be answered; owned by the subscriber's thread.

    Args:
        key: the recipient's ack key.
    """

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._asked: dict[str, tuple[Gateway, bytes]] = {}

    def note(self, settled: Iterable[Settled]) -> None:
        """Takes note of who asks."""
        for one in settled:
            outcome = one.outcome
            if isinstance(outcome, Asked) and outcome.request.verb is Verb.TIME:
                self._asked[outcome.mailbox] = outcome.gateway, outcome.request.id

    def letters(self) -> Iterator[Letter]:
        """Makes the answers, and forgets who asked."""
        while self._asked:
            mailbox, (gateway, nonce) = self._asked.popitem()
            body = Time(nonce, time.time_ns() // 1_000_000).encode()
            signed = sign_message(Kind.TIME, body, self._key, mailbox)
            data = seal(signed, gateway.seal, mailbox)
            yield Letter(down_topic(mailbox), data, EXPIRES_S)
