# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an installation, in sentences for whoever looks.

Law: whatever keeps a flow off, or was lost, is named here until it is put right; no identifier, key
or value of a person ever is.
"""

from __future__ import annotations

from agent.site import Site, trouble_on_disk
from agent.spool import Spool


def notices_of(site: Site, spool: Spool) -> list[str]:
    """Everything that a person should know, whoever may have to do something about it.

    Args:
        site: what is installed.
        spool: the collecting side's end of the spool.

    Returns:
        Sentences; none where all is well.
    """
    return [*_of_files(site), *_of_stores(site, spool)]


def _of_files(site: Site) -> list[str]:
    notices = []
    if site.form_trouble:
        notices.append(f"the consent form is not usable, optional flows pause: {site.form_trouble}")
    if site.form_waits:
        notices.append("the consent form was just read; a yes in it acts in two seconds")
    notices += [
        f"not connected to {recipient}: the policy does not name the broker of agent.toml"
        for recipient in site.strange_brokers()
    ]
    notices += [
        f"kept until its broker has it only, as agent.toml says: what is sent to {recipient}"
        for recipient in sorted(site.settings.briefly)
    ]
    notices += [
        f"restart needed: {key} of agent.toml was changed and takes effect at the next start"
        for key in site.restart
    ]
    if site.policy is not None and (trouble := trouble_on_disk(site)) is not None:
        notices.append(f"the policy on disk is not the one in force, and is not usable: {trouble}")
    if site.policy is not None and site.came_down:
        notices.append(
            "the policy in force came down; policy.toml beside agent.toml is an older one"
        )
    return notices


def _of_stores(site: Site, spool: Spool) -> list[str]:
    notices = []
    if site.ledger.moved_aside is not None:
        notices.append(
            f"the ledger was not believed and moved to {site.ledger.moved_aside}:"
            f" {site.ledger.objection}"
        )
    if site.ledger.unknown_since_ms is not None:
        notices.append("consent is unknown until the household decides anew")
    if spool.moved_aside is not None:
        notices.append(f"the spool was damaged and moved to {spool.moved_aside}")
    return notices
