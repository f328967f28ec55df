# SPDX-License-Identifier: Apache-2.0
"""Being let in by a recipient: a request out, its answer in; the first time, and to renew.

Path: technician → **request** → recipient → admission → **take** → the uplink's next connection.

Law:
  - a request asks for a certificate for a new TLS key; mailbox, signing and sealing key stay what
    they were, by which the recipient knows who asks; where they are lost, it is asked as by a new
    gateway, and what waits goes, declared;
  - an answer counts that is signed by a recipient of the policy in force, for this gateway and the
    key it was asked for; key and certificate change together, and what was in use serves until
    then;
  - being let in agrees to nothing: no flow runs before the household decided.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from agent.keys import Keys
from agent.pipeline import Pipeline
from agent.site import Site
from assent.enrolment import EnrolRequest, decode_admission, encode_request
from assent.errors import AssentError, ControlError, RefusedError, UsageError
from assent.nearest import nearest
from assent.policy.signing import SignedPolicy
from firmware_bridge.sample import Instant

Json = dict[str, Any]


def attend(pipeline: Pipeline, message: Mapping[str, Any]) -> Json:
    """Does for the command line what it cannot do beside a running agent.

    Args:
        pipeline: the path; the caller is its owner.
        message: a JSON object with `verb` and what goes with it, bytes in base64.

    Raises:
        AssentError: the message is none, or is refused.
    """
    match message:
        case {"verb": "renew", "recipient": str(recipient)}:
            _begin_anew(pipeline, recipient)
            request = renew(pipeline.site, recipient)
            return {"request": base64.b64encode(request).decode("ascii")}
        case {"verb": "admission", "data": str(text)}:
            told = take(pipeline.site, _data(text), pipeline.clock.now())
            pipeline.settle()
            return {"told": told}
    raise ControlError("the request is not one this agent knows")


def request_of(keys: Keys, recipient: str) -> bytes:
    """Writes a request to a recipient; the key it is for waits until it is answered.

    Raises:
        KeyStoreError: the keys cannot be read or written.
    """
    gateway = keys.gateway(recipient)
    request = EnrolRequest(
        recipient=recipient,
        mailbox=gateway.mailbox,
        csr=keys.tls_request(recipient),
        sign_key=gateway.sign.public.encode(),
        seal_key=gateway.seal.public.encode(),
    )
    return encode_request(request, gateway.sign)


def renew(site: Site, recipient: str) -> bytes:
    """Writes a request to a recipient of the policy in force.

    Raises:
        UsageError: the policy has no such recipient.
        RefusedError: there is no policy in force.
        KeyStoreError: the keys cannot be read or written.
    """
    known = _policy_of(site, "a request").policy.recipients
    if recipient not in known:
        raise UsageError(
            f"the policy has no recipient {recipient!r}",
            hint=nearest(recipient, known, quoted=False) or f"it has: {', '.join(sorted(known))}",
        )
    return request_of(site.keys, recipient)


def _begin_anew(pipeline: Pipeline, recipient: str) -> None:
    """Where what we were to a recipient is lost, lets it go with what waits: it was sealed by it.

    The recipient meets another gateway from then on; nothing else here changes.
    """
    site = pipeline.site
    if site.policy is None or recipient not in site.policy.policy.recipients:
        return
    if site.keys.is_lost(recipient):
        for name, flow in site.policy.policy.flows.items():
            if flow.recipient == recipient:
                pipeline.running.end(name, pipeline.clock.now())
        site.keys.forget(recipient)


def take(site: Site, data: bytes, now: Instant) -> list[str]:
    """Takes an admission in; key and certificate are in use when this returns.

    Args:
        site: what is installed.
        data: the file's bytes.
        now: the present; a clock that is not trusted does not say that a certificate is over.

    Returns:
        Sentences for a person.

    Raises:
        RefusedError: it is another's, for another gateway, or there is no policy in force.
        KeyStoreError: its certificate is not the one that was asked for, or is over.
    """
    for recipient, ack_key in _policy_of(site, "an admission").ack_keys.items():
        try:
            admission = decode_admission(data, ack_key)
        except AssentError:
            continue
        if admission.recipient != recipient:
            continue
        if admission.mailbox != site.keys.gateway(recipient).mailbox:
            raise RefusedError("the admission answers another gateway's request")
        is_renewal = site.keys.admitted(recipient)
        now_ms = now.wall_ms if now.trusted else None
        site.keys.admit(recipient, admission.certificate, now_ms)
        if is_renewal:
            return [f"admitted by {recipient} again", "next: nothing; the next connection shows it"]
        return [f"admitted by {recipient}", _next(site)]
    raise RefusedError("no recipient of the policy in force signed this admission")


def _next(site: Site) -> str:
    """What is still to be done, so far as the stores tell."""
    flows = site.policy.policy.flows if site.policy else ()
    if any(site.ledger.newest(flow) is None for flow in flows):
        return "next: assent consent ask, with the owner; then assent run, where none runs"
    return "next: assent run, where none runs; assent status tells what arrived"


def _policy_of(site: Site, what: str) -> SignedPolicy:
    if site.policy is None:
        sentence = site.trouble.sentence if site.trouble else "no policy"
        raise RefusedError(
            f"{what} needs a policy in force: {sentence}",
            hint="take in the maker's bundle first",
        )
    return site.policy


def _data(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise UsageError("expected the file's bytes in base64") from exc
