# SPDX-License-Identifier: Apache-2.0
"""The verbs of `assent`: where each one is, and what the list says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import argparse


class Verb(Protocol):
    """What each module of this folder gives."""

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Adds the verb's own arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Does it; returns the exit code."""


class Program(Protocol):
    """What the modules of `STAYING` give as well."""

    def stay(self, directory: Path) -> int:
        """Runs for a configuration directory until it is told to stop; returns the exit code."""


VERBS: Final[dict[str, tuple[str, str, str]]] = {
    "init": (
        "agent.cli.init",
        "write a commented configuration; it trusts nobody and collects nothing",
        "  assent init\n  assent init --config ./gateway --state ./gateway/state",
    ),
    "enrol": (
        "agent.cli.enrol",
        "take in a maker's bundle or a recipient's admission; renew a certificate",
        (
            "  assent enrol maker.bundle --thumbprint sha-256:…\n"
            "                                   as the maker told it; writes the requests\n"
            "  assent enrol maker.admission     the recipient's answer to such a request\n"
            "  assent enrol --renew maker       writes one again, before a certificate ends"
        ),
    ),
    "check": (
        "agent.cli.check",
        "read every file and name each finding with file, line and column",
        "  assent check\n  assent check --config ./gateway --json",
    ),
    "devices": (
        "agent.cli.devices",
        "find devices, see what one says now, check a profile",
        (
            "  assent devices find\n"
            "  assent devices find --port /dev/ttyUSB0 --units 1-247\n"
            "  assent devices watch meter-kitchen\n"
            "  assent devices watch meter-kitchen --for 10s --json\n"
            "  assent devices profile check profiles/eastron-sdm120.toml"
        ),
    ),
    "preview": (
        "agent.cli.preview",
        "read for some seconds and show what would leave, and what would not; sends nothing",
        "  assent preview\n  assent preview --for 30s --json",
    ),
    "consent": (
        "agent.cli.consent",
        "show, record or take back the household's decisions",
        (
            "  assent consent show\n"
            "  assent consent ask                 one question for each flow, on the terminal\n"
            "  assent consent history\n"
            "  assent consent apply consent.toml\n"
            "  assent consent refuse partner-energy-advice\n"
            "  assent consent withdraw remote-diagnosis"
        ),
    ),
    "explain": (
        "agent.cli.explain",
        "tell of an attribute which flows carry it, how, to whom and why, or why not",
        "  assent explain appliance.power\n  assent explain device.serial --json",
    ),
    "run": (
        "agent.cli.run",
        "collect and deliver until SIGTERM; SIGHUP reads the files again",
        "  assent run\n  assent run --config ./gateway",
    ),
    "collect": (
        "agent.cli.collect",
        "collect until SIGTERM, in a process that opens no network socket",
        "  assent collect\n  systemctl start assent-collect        the same, as its own user",
    ),
    "uplink": (
        "agent.cli.uplink",
        "deliver what waits until SIGTERM, in a process that reads no key but its TLS keys",
        "  assent uplink\n  systemctl start assent-uplink         the same, as its own user",
    ),
    "status": (
        "agent.cli.status",
        "tell each flow's state: on, or off and why; what waits; what was acknowledged",
        "  assent status\n  assent status --json",
    ),
    "sent": (
        "agent.cli.sent",
        "tell what left: when, of which flow, to whom, how much",
        "  assent sent\n  assent sent --flow remote-diagnosis --limit 100 --json",
    ),
    "flush": (
        "agent.cli.flush",
        "seal the open batches now, without waiting for their age",
        "  assent flush\n  assent flush --json",
    ),
    "doctor": (
        "agent.cli.doctor",
        "look at everything and say what to do; names nothing private, fit for a helpdesk",
        "  assent doctor\n  assent doctor --json",
    ),
}
"""Verb → (module, one line for the list, examples), in the order of a technician's day."""

STAYING: Final = frozenset({"run", "collect", "uplink"})
"""Verbs that go on until they are told to stop: what is loaded for them stays in memory."""
