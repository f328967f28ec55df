# SPDX-License-Identifier: Apache-2.0
"""What may be asked without changing anything: from a request to its answer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from agent import answers
from agent.account import consent_of, history_of, sent_of, status_of
from agent.explain import explain
from agent.fence import Carrier
from agent.pipeline import Pipeline
from agent.preview import Preview, preview
from agent.site import trouble_on_disk
from agent.spool.log import KEPT
from assent.errors import SpoolError

Json = dict[str, Any]


def tell(pipeline: Pipeline, request: Mapping[str, Any], *, is_running: bool) -> Json | None:
    """Answers a question; None when the request is none.

    Args:
        pipeline: the path; the caller is its owner.
        request: a JSON object with `verb` and what goes with it.
        is_running: whether hardware and uplink are at work.

    Raises:
        AssentError: the question has no answer here.
    """
    site = pipeline.site
    told: Json | None = None
    match request:
        case {"verb": "status"}:
            told = status_told(pipeline, is_running=is_running)
        case {"verb": "files"}:
            told = {"policy_trouble": trouble_on_disk(site)}
        case {"verb": "consent"}:
            told = answers.told(consent_of(site, site.ledger, pipeline.verdicts))
        case {"verb": "history"}:
            told = answers.told(history_of(site.ledger))
        case {"verb": "explain", "attribute": str(name)}:
            explanation = explain(name, site, pipeline.verdicts, pipeline.delivered())
            told = answers.told(explanation)
        case {"verb": "watch", "viewer": str(viewer), "devices": list(devices)}:
            is_waiting = request.get("is_waiting") is True
            seen = pipeline.look(viewer, _names(devices), is_waiting=is_waiting)
            told = answers.told(seen)
        case {"verb": "preview", "viewer": str(viewer), "devices": list(devices)}:
            told = answers.told(_previewed(pipeline, viewer, devices))
        case {"verb": "sent", "flow": str() | None as flow, "limit": int(limit)}:
            told = answers.told(sent_of(pipeline.spool, max(0, min(limit, KEPT)), flow))
    return told


def _previewed(pipeline: Pipeline, viewer: str, devices: list[Any]) -> Preview:
    policy = pipeline.site.policy_for("to preview by")
    seen = pipeline.look(viewer, _names(devices))
    return preview(policy.policy, pipeline.verdicts, seen.samples, seen.missed)


def _names(devices: list[Any]) -> list[str]:
    return [name for name in devices if isinstance(name, str)]


def status_told(pipeline: Pipeline, *, is_running: bool) -> Json:
    """Everything `assent status` prints."""
    status = status_of(
        pipeline.site,
        pipeline.spool,
        pipeline.clock.now(),
        verdicts=pipeline.verdicts,
        devices=pipeline.health(),
        delivered=pipeline.delivered(),
        is_running=is_running,
        is_carried=_is_carried(pipeline.carrier),
        running_lanes=pipeline.running,
        rejected=pipeline.rejected,
        grounds=pipeline.clock.grounds(),
    )
    return answers.told(status)


def _is_carried(carrier: Carrier | None) -> bool:
    """Whether an uplink runs, as far as anybody knows."""
    with contextlib.suppress(SpoolError):
        return carrier is None or carrier.is_there()
    return True
