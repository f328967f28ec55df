# SPDX-License-Identifier: Apache-2.0
"""What came down from a recipient: verified, opened, and of a kind that is expected, or refused.

Path: broker → uplink → spool's inbox → **inbox** → spool, and for a policy → arrival.
Law:
  - only a recipient of the policy in force is listened to, with the key that the policy pins;
  - what does not verify is counted by its reason and forgotten; it changes nothing;
  - a policy is judged by the policy key besides (agent/arrival.py): a recipient only brings it;
  - nothing that comes down can widen what leaves (policy C11).
Security: reads bytes of anyone who may write to our topic.
"""

from __future__ import annotations

import msgspec

from agent.arrival import Arrival, judge
from agent.keys import Keys
from agent.spool import Inbound
from assent.envelope import Kind, open_down
from assent.errors import AssentError
from assent.messages import Acknowledgement, Time, decode_acknowledgement, decode_time
from assent.policy.signing import SignedPolicy

# Counted under this when the sender is nobody of the policy in force.
STRANGER = "stranger"
UNEXPECTED = "unexpected-kind"


class Rejected(msgspec.Struct, frozen=True):
    """A message that was not believed; `reason` is the name it is counted under."""

    reason: str


def read_inbound(
    inbound: Inbound, keys: Keys, policy: SignedPolicy | None
) -> Acknowledgement | Arrival | Time | Rejected | None:
    """Verifies and opens one message.

    Args:
        inbound: as the uplink stored it.
        keys: of this gateway.
        policy: in force, or None: then everybody is a stranger.

    Returns:
        What it says; None for the policy that is in force, once more.
    """
    if policy is None or inbound.recipient not in policy.ack_keys:
        return Rejected(STRANGER)
    try:
        gateway = keys.gateway(inbound.recipient)
        message = open_down(
            inbound.data,
            key=gateway.seal,
            signer=policy.ack_keys[inbound.recipient],
            mailbox=gateway.mailbox,
        )
        trusted = keys.policy_key
        if message.kind is Kind.POLICY and trusted is not None:
            return judge(message.body, trusted, policy)
        if message.kind is Kind.TIME:
            return decode_time(message.body)
        if message.kind is not Kind.ACKNOWLEDGEMENT:
            return Rejected(UNEXPECTED)
        return decode_acknowledgement(message.body)
    except AssentError as exc:
        return Rejected(exc.code)
