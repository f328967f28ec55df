# SPDX-License-Identifier: Apache-2.0
"""What is installed: settings, keys, ledger and policy, opened and verified, or why not.

Law:
  - a policy that cannot be used is a reason, not a crash: every flow is then off and says so;
  - the ledger remembers the highest serial that was ever in force; an older policy is refused;
  - of the policy beside agent.toml and the one that came down the one of the higher serial runs;
  - a broker that the policy does not name for its recipient is not used.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from agent.arrival import held
from agent.floor import Floor
from agent.gate import decide, end_of
from agent.keys import Keys
from agent.ledger import Ledger
from agent.owner import foreign
from agent.path import ENROL, Reason, Refusal, Verdict
from agent.settings import Settings
from agent.spool import Spool
from assent import durable
from assent.cosekey import VerifyingKey
from assent.errors import (
    AssentError,
    ConfigError,
    KeyStoreError,
    PolicyError,
    RefusedError,
    SpoolError,
)
from assent.policy.signing import PolicySerialError, PolicySignatureError, SignedPolicy, open_policy
from firmware_bridge.clock import Clock
from firmware_bridge.sample import Instant

POLICY = "policy.toml"
SIGNATURE = "policy.toml.cose"
FORM = "consent.toml"
LEDGER = "ledger.json"
FLOOR = "floor.json"
JOURNAL = "journal"
SPOOL = Path("spool") / "spool.db"

_NOES = frozenset({Reason.REFUSED, Reason.WITHDRAWN})
_MEND = "stop the agent and take in the maker's newest bundle with assent enrol"
# A dictionary of a thousand attributes is some 400 kB; keys and certificates are a few.
_MAX_FILE = 1_048_576

log = logging.getLogger(__name__)


class Trouble(msgspec.Struct, frozen=True):
    """Why there is no usable policy.

    Attributes:
        reason: what every flow gives.
        sentence: for a person.
        hint: what to type, where it is always the same.
    """

    reason: Reason
    sentence: str
    hint: str | None = None

    def __str__(self) -> str:
        """The sentence, and what to do."""
        return f"{self.sentence}; {self.hint}" if self.hint else self.sentence


class Site(msgspec.Struct, frozen=True):
    """One installation as found on disk.

    Attributes:
        settings: what agent.toml says.
        keys: the store of secrets.
        ledger: the household's records.
        floor: the time that is surely past.
        policy: the policy in force, or None with `trouble`.
        trouble: why there is none.
        form_trouble: why the consent form cannot be used, or None.
        form_waits: whether a yes in it waits until it has lain unchanged for a while.
        came_down: whether the policy in force is the one that came down.
        restart: keys of agent.toml that were changed and take effect at the next start.
    """

    settings: Settings
    keys: Keys
    ledger: Ledger
    floor: Floor
    policy: SignedPolicy | None
    trouble: Trouble | None
    form_trouble: str | None = None
    form_waits: bool = False
    came_down: bool = False
    restart: tuple[str, ...] = ()

    def policy_for(self, what: str) -> SignedPolicy:
        """The policy in force, for an act that needs one.

        Args:
            what: the act, such as `to decide about`.

        Raises:
            RefusedError: there is none; says why.
        """
        if self.policy is None:
            why, hint = ("none", None)
            if self.trouble is not None:
                why, hint = self.trouble.sentence, self.trouble.hint
            raise RefusedError(f"there is no policy {what}: {why}", hint=hint)
        return self.policy

    def verdicts(self, now: Instant) -> dict[str, Verdict]:
        """What the gate says of each flow of the policy at this moment."""
        recipients = self.policy.policy.recipients if self.policy else ()
        admitted = frozenset(name for name in recipients if self.keys.admitted(name))
        return decide(
            self.policy,
            self.trouble.reason if self.trouble else None,
            self.ledger,
            form_broken=self.form_trouble is not None,
            admitted=admitted,
            shut=self._shut(admitted),
            now_ms=now.wall_ms,
            clock_trusted=now.trusted,
            floor_ms=self.floor.past_ms(now),
        )

    def _shut(self, admitted: frozenset[str]) -> dict[str, str]:
        """The flows to those who admitted us that rest on a key that cannot be read, and why."""
        flows = self.policy.policy.flows if self.policy else {}
        troubles = {
            name: self.keys.trouble(flow.recipient, name)
            for name, flow in flows.items()
            if flow.recipient in admitted
        }
        return {name: trouble for name, trouble in troubles.items() if trouble is not None}

    def drop_unreadable(self, verdicts: Mapping[str, Verdict]) -> None:
        """Removes secrets that do not open any more of flows to which the household said no.

        Its later yes draws new ones: to the recipient it is then another household.
        """
        for name, verdict in verdicts.items():
            if self.policy and isinstance(verdict, Refusal) and verdict.reason in _NOES:
                with contextlib.suppress(KeyStoreError):
                    self.keys.drop_unreadable(self.policy.policy.flows[name].recipient, name)

    def moment_ms(self, now: Instant) -> int:
        """What to date a word with: the wall clock, or the floor when the clock is behind it."""
        return max(now.wall_ms, self.floor.past_ms(now))

    def ends(self) -> frozenset[int]:
        """What has to be past for certain after a power cut: ends of yeses and of the policy.

        And the newest word: what a later boot takes before anybody tells it the time lies after it.
        """
        end_ms = end_of(self.policy.policy) if self.policy else None
        known = {self.ledger.trusted_ms, *([] if end_ms is None else [end_ms])}
        return self.ledger.ends | known

    def broker_of(self, recipient: str) -> str | None:
        """The broker to use for a recipient: the technician's choice among the policy's."""
        if self.policy is None:
            return None
        allowed = self.policy.policy.recipients[recipient].brokers
        chosen = self.settings.brokers.get(recipient, allowed[0])
        return chosen if chosen in allowed else None

    def strange_brokers(self) -> list[str]:
        """Recipients of agent.toml that the policy does not have, or not with that broker."""
        known = self.policy.policy.recipients if self.policy else {}
        return sorted(
            recipient
            for recipient, broker in self.settings.brokers.items()
            if self.policy and (recipient not in known or broker not in known[recipient].brokers)
        )


def open_site(settings: Settings, clock: Clock) -> Site:
    """Opens everything below a state directory; the caller holds the instance lock.

    Args:
        settings: what agent.toml says.
        clock: is told the floor before it decides anything: a hardware clock vouches by it only.

    Raises:
        KeyStoreError: secrets cannot be read; nothing may run.
    """
    site = _open_stores(settings, clock.now())
    clock.stand_on(site.floor.at)
    return with_policy(site, clock.now())


def _open_stores(settings: Settings, now: Instant) -> Site:
    make_state(settings.state)
    with contextlib.suppress(OSError):  # the ledger says what is wrong with the directory
        durable.sweep(settings.state)
    keys = Keys.open(settings.state / "keys")
    floor = Floor.open(settings.state / FLOOR, now)
    if floor.is_lost:
        floor.raise_to(_floor_of_the_spool(settings.state / SPOOL, now), now)
    moment_ms = max(now.wall_ms, floor.past_ms(now))
    ledger = Ledger.open(settings.state / LEDGER, keys.ledger_key, moment_ms)
    if floor.is_lost:
        floor.raise_to(ledger.trusted_ms, now)
    return Site(settings, keys, ledger, floor, policy=None, trouble=None)


def _floor_of_the_spool(path: Path, now: Instant) -> int:
    """What the second gate was told; 0 where it is lost, too."""
    try:
        with contextlib.closing(Spool.open(path, create=False)) as spool:
            return spool.floor_ms(now.mono_ms)
    except SpoolError:
        return 0


def make_state(state: Path) -> None:
    """Makes the state directory, private to the agent, and the spool's in it.

    Raises:
        AssentError: it cannot be made.
    """
    try:
        # The uplink's user shares our group: it passes through, and shares the spool only.
        durable.make_dirs(state, mode=0o710)
        durable.make_dirs((state / SPOOL).parent, mode=0o2770)
    except PermissionError as exc:
        raise foreign(state) from exc
    except OSError as exc:
        raise AssentError(
            f"the state directory {state} cannot be made: {exc.strerror}",
            hint="make it, or name another one as gateway.state in agent.toml",
        ) from exc


def with_policy(site: Site, now: Instant) -> Site:
    """The site with its policy read anew; a policy that is not usable becomes a trouble."""
    try:
        trusted = site.keys.policy_key
        if trusted is None:
            trouble = Trouble(Reason.NOT_ENROLLED, "no policy key is trusted", f"type: {ENROL}")
            return msgspec.structs.replace(site, policy=None, trouble=trouble)
        if now.trusted:
            site.ledger.tell_time(site.moment_ms(now))
        policy, came_down = _newest(site, trusted)
        site.ledger.append_policy(policy.serial, policy.hash, now.wall_ms)
    except (OSError, AssentError) as exc:
        sentence = _sentence(exc)
    else:
        return msgspec.structs.replace(site, policy=policy, trouble=None, came_down=came_down)
    log.error("policy is not usable, every flow is off reason=%s", sentence)
    return msgspec.structs.replace(
        site, policy=None, trouble=Trouble(Reason.POLICY_UNUSABLE, sentence)
    )


def trouble_on_disk(site: Site) -> str | None:
    """Why the policy that lies there now could not come into force; None when it could."""
    try:
        trusted = site.keys.policy_key
        if trusted is not None:
            _newest(site, trusted)
    except (OSError, AssentError) as exc:
        return _sentence(exc)
    return None


def _sentence(exc: OSError | AssentError) -> str:
    """What is wrong with a policy, and, where it is not the maker's words, what mends it."""
    match exc:
        case OSError():
            return f"{exc.filename} cannot be read: {exc.strerror}"
        case ConfigError():
            return str(exc.findings[0])
        case KeyStoreError():
            return f"keys/policy.key: {exc.message}; {_MEND} FILE --thumbprint TEXT"
        case PolicySerialError() | PolicySignatureError():
            # Edited, or an older one laid down, or the newer one that had come down is gone.
            return f"{exc.message}; {_MEND}"
    return exc.message


def _newest(site: Site, trusted: VerifyingKey) -> tuple[SignedPolicy, bool]:
    """The policy that runs, and whether it came down; below the ledger's serial neither opens."""
    highest, known = site.ledger.highest_serial, site.ledger.policy_hash
    came: SignedPolicy | None = None
    damage: PolicyError | None = None
    try:
        came = held(site.settings.state, trusted, highest, known)
    except PolicyError as exc:
        damage = exc
    directory = site.settings.directory
    try:
        text = durable.read(directory / POLICY, _MAX_FILE)
        signature = durable.read(directory / SIGNATURE, _MAX_FILE)
        read = _reader(directory)
        laid = open_policy(text, signature, trusted, read, highest, highest_hash=known)
    except (OSError, AssentError):
        if damage is not None:
            raise damage from None
        if came is None:
            raise
        return came, True
    return (came, True) if came is not None and came.serial > laid.serial else (laid, False)


def _reader(directory: Path) -> Callable[[str], bytes]:
    def read_file(name: str) -> bytes:
        return durable.read(directory / name, _MAX_FILE)

    return read_file
