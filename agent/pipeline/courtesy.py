# SPDX-License-Identifier: Apache-2.0
"""Who is spoken to, and what is said besides batches: targets, a status, a question.

Law:
  - only recipients of the policy in force that admitted this gateway, at a broker the policy names;
  - once a connection, and when another policy came into force during it, a status names the policy
    in force and nothing of the household;
  - none of it is worth a connection: it leaves beside an open lane, or not at all;
  - then the backend is asked again about batches that were sent and never acknowledged, so that a
    lost acknowledgement costs a question and not a second transfer.
"""

from __future__ import annotations

import logging
import secrets

from agent.site import Site
from agent.spool import ClockTrust, LinkState, Spool, Target
from assent import envelope
from assent.envelope import Kind
from assent.errors import SpoolError
from assent.messages import MAX_STREAMS, Request, Status, Verb
from assent.wire import FORMAT
from firmware_bridge.sample import Instant

log = logging.getLogger(__name__)


class Courtesy:
    """Says to each recipient, once a connection, which policy is in force.

    Args:
        spool: the collecting side's end of the spool.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        # What was said of a connection in an earlier life is no connection of this one, and nobody
        # is to be dialled for the sake of a greeting.
        self._greeted = {recipient: health.since_ms for recipient, health in spool.health().items()}
        self._serial: int | None = None

    def greet(self, site: Site) -> None:
        """Greets those who were connected anew since the last time."""
        if site.policy is None:
            return
        head = site.policy.policy.policy
        if self._serial not in {None, head.serial}:
            self._greeted.clear()
        self._serial = head.serial
        for recipient, health in self._spool.health().items():
            is_new = self._greeted.get(recipient) != health.since_ms
            is_known = recipient in site.policy.keys and site.keys.opens(recipient)
            if health.state is LinkState.CONNECTED and is_new and is_known:
                self._greeted[recipient] = health.since_ms
                status = Status(head.id, head.serial, FORMAT)
                self._say(site, recipient, Kind.STATUS, status.encode())
                self._ask(site, recipient)

    def _ask(self, site: Site, recipient: str) -> None:
        streams = self._spool.unacknowledged(recipient, MAX_STREAMS)
        if streams:
            request = Request(secrets.token_bytes(16), Verb.ACKNOWLEDGE, streams)
            self._say(site, recipient, Kind.REQUEST, request.encode())

    def _say(self, site: Site, recipient: str, kind: Kind, body: bytes) -> None:
        assert site.policy is not None
        gateway = site.keys.gateway(recipient)
        signed = envelope.sign_message(kind, body, gateway.sign, gateway.mailbox)
        data = envelope.seal(signed, site.policy.keys[recipient], gateway.mailbox)
        try:
            self._spool.put_control(recipient, data, courtesy=True)
        except SpoolError as exc:
            log.warning("control message not stored reason=%s", exc.message)


def trust_of(now: Instant) -> ClockTrust:
    """What the machine's clock is worth at a moment."""
    if not now.trusted:
        return ClockTrust.UNKNOWN
    return ClockTrust.TOLD if now.told else ClockTrust.MACHINE


def targets_of(site: Site, now: Instant) -> list[Target]:
    """The brokers that may be connected to, and who we are there."""
    if site.policy is None:
        return []
    targets = []
    for recipient in site.policy.policy.recipients:
        broker = site.broker_of(recipient)
        if broker is None or not site.keys.admitted(recipient) or not site.keys.opens(recipient):
            continue
        pair = str(site.keys.tls_pair(recipient))
        targets.append(
            Target(
                recipient=recipient,
                broker=broker,
                mailbox=site.keys.gateway(recipient).mailbox,
                ca_pem=site.policy.cas[recipient].decode(),
                cert_path=pair,
                key_path=pair,
                briefly=recipient in site.settings.briefly,
                clock=trust_of(now),
            )
        )
    return targets
