# SPDX-License-Identifier: Apache-2.0
"""Takes messages from the broker into the store, and carries acknowledgements back.

Path: broker → **subscriber** → ingest → store → acknowledge → **subscriber** → broker.
Law:
  - the broker gets its PUBACK after the commit, never before: what a crash or a full disk keeps
    from being stored comes again, and is then a duplicate or new, never twice in the data;
  - messages that are there together are stored together, up to 64 or 50 ms;
  - one thread does everything: no callback can die unseen, and no store is shared. Whatever goes
    wrong ends the connection, is logged, and is tried again after a pause with jitter;
  - what can be neither stored nor refused is laid aside with no word to its gateway; the broker is
    told as after a commit, since what it is never told of fills its window. It is tried again at
    every start, and every fifteen minutes;
  - a policy that appears in `policies/` is published without a restart, and is sent to the gateways
    that run an older one (`assent.backend.mailing`).

Security: reads bytes from anybody the broker lets publish. Logs counts and reasons, and the number
of a stream whose row has decayed; never a mailbox, a topic or a value.
Limits: one subscriber per recipient: a second one with the same name takes its session.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from assent.backend.acknowledge import Acknowledger
from assent.backend.directory import Directory
from assent.backend.ingest import Desk, judge, place_of
from assent.backend.mailing import Mailing
from assent.backend.outcomes import Accepted, Aside, DecayedError, Gateway, Outcome, Rejected
from assent.backend.store import Settled, Store, Taken, Verdict
from assent.backend.store.positions import Position
from assent.backend.subscriber.connection import Broker, Connection, Message
from assent.backend.subscriber.losses import STEADY_S, Losses
from assent.backend.timeteller import Timeteller
from assent.cosekey import decode_seal_public_key, decode_verifying_key
from assent.errors import AssentError, UplinkError, WireError
from assent.messages import up_topic

GROUP: Final = 64  # messages per commit: two fsyncs shared by 64 cost each less than its signature
GROUP_S: Final = 0.05  # a batch has waited minutes on the gateway
_GAP_S: Final = 0.005  # nothing more within this: the broker waits for PUBACKs
_IDLE_S: Final = 0.25  # how soon a stop is noticed
_RELEASED: Final = 8  # held batches put into the data at a time: two commits each, some 50 ms
_AGAIN_S: Final = 900.0  # how soon what was laid aside is tried again: as a gateway does
_LOOK_S: Final = 2.0  # how soon a new policy is, while nothing comes up
_BACKOFF_S: Final = (1.0, 60.0)

_log = logging.getLogger(__name__)


class Subscriber:
    """One recipient's subscription; `run` is its life."""

    def __init__(self, directory: Directory, store: Store, broker: Broker) -> None:
        """Loads keys and published policies; connects to nothing yet.

        Raises:
            KeyStoreError: a key or certificate is missing or unusable.
            StoreError: the store refuses.
        """
        self._directory = directory
        self._store = store
        self._keys = directory.seal_keys()
        self._acknowledger = Acknowledger(directory.ack_key(), self._position)
        self._mailing = Mailing(directory.ack_key(), self._known_gateway)
        self._timeteller = Timeteller(directory.ack_key())
        self._unopened: set[bytes] = set()
        self._may_release = True
        self._connection = Connection(broker, directory.user)
        self._desk = self._publish()
        self._group: list[Message] = []
        self._oldest = 0.0
        self._look_again = 0.0
        self._try_again = 0.0
        self._tried = 0
        self._rested = True
        self._losses = Losses()
        self._lacks = Losses()
        self._stood_since: float | None = None

    @property
    def offers(self) -> int:
        """How many terms are published."""
        return len(self._desk.offers)

    def run(self, stop: threading.Event, ready: Callable[[], None] = lambda: None) -> None:
        """Subscribes until told to stop; what is not stored by then is the broker's to keep.

        Args:
            stop: ends it.
            ready: called whenever the subscription stands.
        """
        pause = _BACKOFF_S[0]
        self._stood_since = None
        while not stop.is_set():
            try:
                self._connection.connect()
                self._serve(stop, ready)
            except (OSError, UplinkError) as exc:
                self._tell_loss(str(exc))
            except AssentError as exc:  # the disk or a key: somebody must act
                _log.error("event=not-serving code=%s error=%r", exc.code, exc.message)
            except Exception as exc:  # noqa: BLE001  # a mistake of ours ends no process
                _log.error("event=subscriber-failed error=%s", place_of(exc))
            finally:
                self._group.clear()
                self._connection.drop()
            # Two of one name throw each other out: a subscription that stood for a moment is none.
            pause = _BACKOFF_S[0] if self._stood_s() >= STEADY_S else pause
            self._stood_since = None
            # Full jitter: several backends of one broker do not come back in step.
            stop.wait(random.uniform(0.1, pause))  # noqa: S311  # no secret
            pause = min(pause * 2, _BACKOFF_S[1])

    def _serve(self, stop: threading.Event, ready: Callable[[], None]) -> None:
        """Carries messages both ways until the connection ends, or told to stop."""
        told = False
        while not stop.is_set():
            came = self._connection.step(self._patience())
            if came and not self._group:
                self._oldest = time.monotonic()
            self._group += came
            if self._connection.is_ready and not told:
                told, self._stood_since = True, time.monotonic()
                _log.info("event=subscribed terms=%d", self.offers)
                ready()
            if self._group and (not came or self._is_full()):
                self._commit()
            elif not self._group and not self._rested:
                self._store.rest()
                self._rested = True
            self._look()
            self._send()
            if self._may_release:
                self._release()
            self._retry()
        if self._group:
            self._commit()
        self._send()

    def _stood_s(self) -> float:
        since = self._stood_since
        return time.monotonic() - since if since is not None else 0.0

    def _tell_loss(self, reason: str) -> None:
        tries = self._losses.note(reason, time.monotonic(), stood_s=self._stood_s())
        if tries is not None:
            broker = self._connection.broker
            _log.warning("event=broker-lost broker=%s tries=%d error=%r", broker, tries, reason)

    def _patience(self) -> float:
        if self._group:
            return _GAP_S
        if self._may_release:
            return 0.0
        now = time.monotonic()
        due = [self._acknowledger.wait(now), self._mailing.wait(now)]
        return min([_IDLE_S, *(one for one in due if one is not None)])

    def _is_full(self) -> bool:
        return len(self._group) >= GROUP or time.monotonic() - self._oldest >= GROUP_S

    def _commit(self) -> None:
        """Judges and stores what has come; then, and only then, the broker may forget it."""
        self._look_again = 0.0
        self._look()
        group, self._group = self._group, []
        settled = self._put([(message.topic, message.data) for message in group])
        for message in group:
            self._connection.acknowledge(message)
        self._note(settled)

    def _put(self, group: Iterable[tuple[str, bytes]]) -> list[Settled]:
        now_ms = time.time_ns() // 1_000_000
        return self._store.put(
            [Taken(judge(topic, data, self._desk), data, now_ms) for topic, data in group]
        )

    def _note(self, settled: Sequence[Settled]) -> None:
        """Takes note of what is durable, for whoever has to be told of it."""
        self._acknowledger.note(settled)
        self._mailing.note(settled)
        self._timeteller.note(settled)
        self._rested = False
        self._may_release = True
        if any(one.verdict is not Verdict.ASIDE for one in settled):
            _tell(settled)
        lacking = (one.outcome for one in settled if isinstance(one.outcome, Aside))
        for aside, count in Counter((one.lack.value, one.detail) for one in lacking).items():
            if self._lacks.note(" ".join(aside), time.monotonic()) is not None:
                _log.error("event=laid-aside lack=%s count=%d error=%r", aside[0], count, aside[1])

    def _retry(self) -> None:
        """Tries again what was laid aside; a part of it at a time."""
        now = time.monotonic()
        if now < self._try_again:
            return
        with self._store.ours():
            part = self._store.asides.after(self._tried, GROUP)
        if not part:
            self._tried, self._try_again = 0, now + _AGAIN_S
            self._unopened.clear()  # what was held and could not be opened, too
            self._may_release = True
            return
        self._tried = part[-1].id
        self._note(self._put([(up_topic(one.mailbox), one.data) for one in part]))

    def _release(self) -> None:
        """Puts into the data what waited for word of when it was; a part of it at a time."""
        with self._store.ours():
            found = self._store.waiting.due(_RELEASED + len(self._unopened))
        fresh = [one for one in found if one.reference not in self._unopened]
        self._may_release = bool(fresh)
        for due in fresh:
            outcome = judge(up_topic(due.mailbox), due.data, self._desk)
            if not isinstance(outcome, Accepted) or not self._store.release(due, outcome):
                # It stays where it is: what was acknowledged is not thrown away.
                self._unopened.add(due.reference)
                _log.error("event=held-batch-stays reason=%s", _why(outcome))

    def _look(self) -> None:
        """Notices a policy that was published meanwhile."""
        now = time.monotonic()
        if now < self._look_again:
            return
        self._look_again = now + _LOOK_S
        if self._directory.fingerprint() != self._policies:
            self._desk = self._publish()

    def _send(self) -> None:
        now = time.monotonic()
        for letter in itertools.chain(
            self._timeteller.letters(), self._acknowledger.letters(now), self._mailing.letters(now)
        ):
            self._connection.publish(letter.topic, letter.data, letter.expires_s)

    def _publish(self) -> Desk:
        """Reads the published policies; what does not verify publishes nothing, and is logged."""
        fingerprint = self._directory.fingerprint()
        self._unopened.clear()
        self._may_release = True
        published = self._directory.published()
        for trouble in published.troubles:
            _log.error("event=policy-not-published error=%r", trouble)
        self._store.publish(published.offers.values())
        with self._store.ours():
            self._mailing.publish(published.newest, self._store.custody.gateways())
        self._policies = fingerprint  # only now: what failed half-way is done again
        return Desk(self._directory.recipient, self._keys, published.offers, self._gateway)

    def _gateway(self, mailbox: str) -> Gateway | None:
        with self._store.ours():
            row = self._store.custody.gateway(mailbox)
        try:
            return _known(row.mailbox, row.sign_key, row.seal_key) if row else None
        except (WireError, TypeError):
            raise DecayedError("custody.db has an unreadable key in gateways") from None

    def _known_gateway(self, mailbox: str) -> Gateway | None:
        with contextlib.suppress(DecayedError):
            return self._gateway(mailbox)
        return None

    def _position(self, signer: bytes, stream: int) -> Position:
        with self._store.ours():
            known = self._store.custody.position(signer, stream)
        return known[1] if known else Position()


@functools.lru_cache(maxsize=4_096)  # some 3 kB each; decoding both keys costs as much as a batch
def _known(mailbox: str, sign_key: bytes, seal_key: bytes) -> Gateway:
    return Gateway(mailbox, decode_verifying_key(sign_key), decode_seal_public_key(seal_key))


def _why(outcome: Outcome) -> str:
    match outcome:
        case Rejected():
            return outcome.reason.value
        case Aside():
            return outcome.lack.value
        case _:
            return "no-such-instant"


def _tell(settled: Sequence[Settled]) -> None:
    """Logs what came in, once: counts and reasons."""
    verdicts = Counter(one.verdict for one in settled)
    stored = [one.outcome for one in settled if one.verdict is Verdict.STORED]
    _log.info(
        "event=committed stored=%d held=%d readings=%d duplicates=%d refused=%d aside=%d noted=%d",
        verdicts[Verdict.STORED],
        verdicts[Verdict.HELD],
        sum(outcome.readings for outcome in stored if isinstance(outcome, Accepted)),
        verdicts[Verdict.DUPLICATE],
        verdicts[Verdict.REFUSED],
        verdicts[Verdict.ASIDE],
        verdicts[Verdict.NOTED],
    )
    refused = [one.outcome for one in settled if isinstance(one.outcome, Rejected)]
    for reason, count in Counter(outcome.reason for outcome in refused).items():
        _log.warning("event=refused reason=%s count=%d", reason.value, count)
