# SPDX-License-Identifier: Apache-2.0
"""The law of consent read a second time, from the design and the clauses and not from the gate.

It keeps a list of words: who said yes or no to which flow, under which terms, and when the ledger
took it in. From that list, the policy in force, the form that lies there and the clock it says
which flows are open and which readings may leave. Its types are its own; it opens no file and
imports nothing of the agent.

Law, as it is read here:
  - what a trusted clock once said is past, whatever a clock says later;
  - a flow is open while the newest word about exactly this flow is a yes of the owner that has not
    ended, was said to the terms in force or to wider ones, and leaves something of them; the policy
    that lies there is usable; the clock is trusted; and no broken form lies there, unless the flow
    is core. Where only the clock is missing it is held;
  - what a held flow took lies where its boot lies: once a clock is trusted in that boot, there; if
    none ever was, somewhere between the latest that was past before it and the boot that knows the
    time. It may leave when it lies in the yes wherever it may lie;
  - a form acts once; within it a no always acts; after a no only a yes with an instant of its own
    acts that is later than the no; nothing said before a ledger was lost acts again;
  - a reading may leave while its flow is open, if its instant lies in the unbroken yes, what it
    tells is carried now, and nothing finer than what is agreed now;
  - what was sealed waits, as long as nobody touched its own flow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

OWNER = "owner"
DAY = 86_400_000
KEPT_DAYS = 7
"""How long the gateway keeps what waits, in every policy of this world."""


@dataclasses.dataclass(frozen=True)
class Grain:
    """How an attribute leaves: rounded to a step, or the last value of a window of minutes."""

    way: str
    size: int

    def tells_no_more_than(self, other: Grain) -> bool:
        return self.way == other.way and self.size % other.size == 0


@dataclasses.dataclass(frozen=True)
class Terms:
    """What a yes is said to; every field but the two last has to be the same."""

    controller: str
    function: str
    purpose: str
    recipient: str
    region: str
    keep_days: int
    attributes: Mapping[str, Grain]

    def covers(self, now: Terms) -> bool:
        """Whether a yes to these is a yes to those: the same, fewer, coarser, shorter."""
        return (
            (self.controller, self.function, self.purpose, self.recipient, self.region)
            == (now.controller, now.function, now.purpose, now.recipient, now.region)
            and now.keep_days <= self.keep_days
            and all(
                name in self.attributes and grain.tells_no_more_than(self.attributes[name])
                for name, grain in now.attributes.items()
            )
        )

    def less(self, without: Iterable[str]) -> Terms:
        """The same without some attributes: what a permit lets through."""
        left = {name: grain for name, grain in self.attributes.items() if name not in without}
        return dataclasses.replace(self, attributes=left)


@dataclasses.dataclass(frozen=True)
class Policy:
    """A policy as the maker signed it: terms by flow."""

    serial: int
    version: str
    flows: Mapping[str, Terms]


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a form."""

    yes: bool
    until_ms: int | None = None
    without: tuple[str, ...] = ()
    on_ms: int | None = None
    accepts: bool = False
    """Whether its word is the one of a core flow."""


@dataclasses.dataclass(frozen=True)
class Paper:
    """A form; `number` stands for its bytes."""

    number: int
    version: str
    by: str
    recorded_ms: int
    lines: Mapping[str, Line]
    readable: bool = True

    def decided_ms(self, flow: str) -> int:
        on_ms = self.lines[flow].on_ms
        return self.recorded_ms if on_ms is None else on_ms


@dataclasses.dataclass(frozen=True)
class Word:
    """A yes or a no as the ledger took it in."""

    flow: str
    yes: bool
    at_ms: int
    decided_ms: int
    terms: Terms | None
    until_ms: int | None = None
    without: tuple[str, ...] = ()
    paper: int | None = None
    moment: int = 0
    """Its place in the order of all that happened, which no clock can change."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """One sample of every attribute; `number` can be read back from each value."""

    number: int
    at_ms: int
    moment: int
    live: bool
    """Whether its instant is when it came; else a device handed it over late."""
    boot: str | None = None
    """The boot it counts from, where nobody knew the time when it came."""
    mono_ms: int = 0
    """How long after that boot it came."""
    low_ms: int = 0
    """That boot did not begin earlier."""


@dataclasses.dataclass
class Oracle:
    """What was said, what lies there, and what follows."""

    now_ms: int
    trusted: bool = True
    words: list[Word] = dataclasses.field(default_factory=list)
    policy: Policy | None = None
    highest: int = 0
    papers_done: set[int] = dataclasses.field(default_factory=set)
    first_read: dict[int, int] = dataclasses.field(default_factory=dict)
    lost_ms: int | None = None
    loss_is_dated: bool = True
    ledger_is_damaged: bool = False
    form_is_broken: bool = False
    moment: int = 0
    floor_ms: int = 0
    """The latest that a trusted clock ever said, and the time since."""
    boot: str = ""
    boot_ms: int = 0
    taken: dict[tuple[str, int], tuple[Terms, Reading]] = dataclasses.field(default_factory=dict)
    """Under which terms a flow took a reading, and as what."""
    bounds: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """Between which two instants the boot of a reading began, by number of the reading.

    Said by the first clock that was trusted after it, in that boot or a later one. A clock that is
    set meanwhile says something else of what the same boot takes later.
    """
    unsealed: dict[str, list[Reading]] = dataclasses.field(default_factory=dict)
    waiting: dict[str, list[Reading]] = dataclasses.field(default_factory=dict)
    """Readings that have to be there, by flow: nothing that happened took them away."""
    basis: dict[str, Terms] = dataclasses.field(default_factory=dict)

    # -- what happens --------------------------------------------------------------------------

    def tell_time(self) -> None:
        """The files are about to be read: a trusted clock puts right what a wrong one dated.

        A loss counts from then on, and a no that lies in the future was said by then.
        """
        self.moment += 1
        newest = [self.newest(flow) for flow in {word.flow for word in self.words}]
        in_doubt = not self.loss_is_dated or any(
            word is not None and self._is_a_no_to_come(word) for word in newest
        )
        if not self.trusted or not in_doubt:
            return
        if not self.loss_is_dated:
            self.lost_ms, self.loss_is_dated = self.moment_ms, True
        self.words = [
            dataclasses.replace(
                word,
                at_ms=min(word.at_ms, self.moment_ms),
                decided_ms=min(word.decided_ms, self.moment_ms),
            )
            if self._is_a_no_to_come(word)
            else word
            for word in self.words
        ]

    def _is_a_no_to_come(self, word: Word) -> bool:
        return not word.yes and max(word.at_ms, word.decided_ms) > self.moment_ms

    def read_policy(self, lying: Policy | None) -> None:
        """The files are read; None is a policy that does not verify."""
        self.moment += 1
        self.policy = lying if lying is not None and lying.serial >= self.highest else None
        if self.policy is not None:
            self.highest = self.policy.serial

    def glance(self, lying: Paper | None, *, afresh: bool = False) -> None:
        """The form that lies there is looked at: a no is heard, and what is wrong with it.

        It may be half of one: nothing that it says can widen anything, the end of a pause neither.
        """
        was_broken = self.form_is_broken and not afresh
        if self.policy is None:
            self.form_is_broken = False if afresh else was_broken
        else:
            is_broken = lying is not None and not self.read(lying, is_whole=False)
            self.form_is_broken = is_broken or was_broken

    def read_form(self, lying: Paper | None) -> None:
        """The form that lies there has not changed for a while: it is read, or there is none."""
        if self.policy is None:
            self.form_is_broken = False  # every flow is off already
        else:
            self.form_is_broken = lying is not None and not self.read(lying)

    def read(self, paper: Paper, *, is_whole: bool = True) -> bool:
        """A form is read; tells whether it validates."""
        self.moment += 1
        assert self.policy is not None
        if not paper.readable:
            return False
        if paper.number in self.papers_done:
            return True
        if self.lost_ms is not None and paper.recorded_ms < self.lost_ms:
            self.first_read.setdefault(paper.number, len(self.words))
            if is_whole:
                self.papers_done.add(paper.number)
            return True  # it speaks of a time of which nothing is known
        sound = not any(self._is_wrong(paper, flow) for flow in paper.lines)
        said, later = [], False
        for flow, line in paper.lines.items():
            if any(word.paper == paper.number and word.flow == flow for word in self.words):
                continue
            word = None
            if is_whole or not line.yes:
                word = self._yes(paper, flow, sound) if line.yes else self._no(paper, flow)
            if word is None:
                later = later or self._may_act_later(paper, flow, sound)
            else:
                said.append(word)
        self.words += said
        self.first_read.setdefault(paper.number, len(self.words))
        if is_whole and sound and not later:
            self.papers_done.add(paper.number)
        return sound

    def say_no(self, flow: str) -> None:
        """Somebody present says no by command."""
        self.moment += 1
        self.words.append(self._word(flow, yes=False, decided_ms=self.moment_ms))

    def open_ledger(self, lost_ms: int, highest: int) -> None:
        """A damaged ledger is moved aside: nothing is known of what was said before.

        Both numbers are what could still be read of it; the first is never before now.
        """
        self.moment += 1
        if self.ledger_is_damaged:
            self.ledger_is_damaged = False
            self.words.clear()
            self.papers_done.clear()
            self.first_read.clear()
            self.lost_ms, self.loss_is_dated = max(lost_ms, self.moment_ms), False
            self.highest = min(highest, self.highest)
            self.unsealed.clear()
            self.waiting.clear()
            self.basis.clear()

    def lose_spool(self) -> None:
        """What waited is gone."""
        self.unsealed.clear()
        self.waiting.clear()

    def die(self) -> None:
        """What was in memory is gone."""
        self.unsealed.clear()

    def take(self, reading: Reading) -> None:
        """A reading comes to every flow that is open or held."""
        if not self.trusted:
            low_ms = max(0, self.floor_ms - self.boot_ms)
            reading = dataclasses.replace(
                reading, boot=self.boot, mono_ms=self.boot_ms, low_ms=low_ms
            )
        for flow in self.open_flows() | self.held_flows():
            terms = self.agreed(flow)
            assert terms is not None
            self.taken[flow, reading.number] = terms, reading
            if reading.boot or (reading.live and self.is_in_the_yes(flow, reading)):
                self.unsealed.setdefault(flow, []).append(reading)

    def seal(self) -> None:
        """The open batches are closed."""
        for flow, readings in self.unsealed.items():
            self.waiting.setdefault(flow, []).extend(readings)
        self.unsealed.clear()

    def settle(self) -> None:
        """Time passed or something was said: forgets what need not be there any more."""
        self.moment += 1
        for flow in {*self.waiting, *self.unsealed, *self.basis}:
            if self.is_paused(flow):
                self.waiting.setdefault(flow, []).extend(self.unsealed.pop(flow, []))
                continue
            unsealed = self.unsealed.pop(flow, [])
            drained = [one for one in unsealed if (one.boot is None) is not self.trusted]
            self.waiting.setdefault(flow, []).extend(drained)
            self.unsealed[flow] = [one for one in unsealed if one not in drained]
            runs = flow in self.open_flows() | self.held_flows()
            terms = self.agreed(flow) if runs else None
            if terms is None or terms != self.basis.get(flow, terms):
                self.waiting.pop(flow, None)
                self.unsealed.pop(flow, None)
                self.basis.pop(flow, None)
        for flow in self.open_flows() | self.held_flows():
            terms = self.agreed(flow)
            assert terms is not None
            self.basis[flow] = terms
        if self.trusted:
            self._resolve()
        for places in (self.waiting, self.unsealed):
            for flow in places.keys() & self.open_flows():
                # An end may have come, or a no been said, while nobody was at home.
                kept = [one for one in places[flow] if self._has_to_stay(flow, one)]
                places[flow] = [one for one in kept if not self._is_too_old(one)]

    def _resolve(self) -> None:
        """A trusted clock tells when this boot began, and that every other one had ended by then."""
        began_ms = self.now_ms - self.boot_ms
        taken = {reading for _, reading in self.taken.values() if reading.boot is not None}
        new = [one for one in taken if one.number not in self.bounds]
        for boot in {one.boot for one in new}:
            mine = [one for one in new if one.boot == boot]
            bounds = began_ms, began_ms
            if boot != self.boot:
                lasted_ms = max(one.mono_ms for one in mine) // 1_000 * 1_000
                bounds = min(one.low_ms for one in mine), began_ms - lasted_ms
            self.bounds |= {one.number: bounds for one in mine}

    def _has_to_stay(self, flow: str, reading: Reading) -> bool:
        """Whether nothing gives a reason to let it go.

        Of what was held nobody can say without knowing what was sealed with what: here the whole
        boot has to lie in the yes, with the longest window to spare.
        """
        if reading.boot is None:
            return self.is_in_the_yes(flow, reading)
        low_ms, high_ms = self.bounds[reading.number]
        is_sound = low_ms <= high_ms
        mine = [
            one.mono_ms
            for (whose, _), (_, one) in self.taken.items()
            if whose == flow
            and one.boot == reading.boot
            and self.bounds[one.number] == self.bounds[reading.number]
        ]
        if reading.boot != self.boot:
            high_ms = max(high_ms, self.now_ms - self.boot_ms)
        first, last = low_ms + min(mine) - 1_000, high_ms + max(mine) + 120_000
        exact = dataclasses.replace(reading, boot=None)
        return is_sound and all(
            self.is_in_the_yes(flow, dataclasses.replace(exact, at_ms=at)) for at in (first, last)
        )

    # -- what follows --------------------------------------------------------------------------

    def open_flows(self) -> set[str]:
        """The flows that may run now."""
        return self._running() if self.trusted else set()

    def held_flows(self) -> set[str]:
        """The flows that nothing but the time stands against."""
        return set() if self.trusted else self._running()

    def _running(self) -> set[str]:
        if self.policy is None:
            return set()
        return {
            flow
            for flow in self.policy.flows
            if self.agreed(flow) is not None and not self._is_held_by_the_form(flow)
        }

    @property
    def past_ms(self) -> int:
        """The latest that is past for certain: what has ended by then has ended for good."""
        return self.moment_ms if self.trusted else self.floor_ms

    @property
    def moment_ms(self) -> int:
        """What a word is dated with: a clock that stands before the floor is behind."""
        return max(self.now_ms, self.floor_ms)

    def is_paused(self, flow: str) -> bool:
        """Whether it is off though nobody took anything back: what waits is kept."""
        if self.policy is None:
            return True
        return self.agreed(flow) is not None and self._is_held_by_the_form(flow)

    def agreed(self, flow: str) -> Terms | None:
        """What the household lets through of the terms in force; None when it is nothing."""
        newest = self.newest(flow)
        if self.policy is None or flow not in self.policy.flows or newest is None:
            return None
        terms = self.policy.flows[flow]
        if not newest.yes or newest.terms is None or not newest.terms.covers(terms):
            return None
        if newest.until_ms is not None and newest.until_ms <= self.past_ms:
            return None
        left = terms.less(newest.without)
        return left if left.attributes else None

    def newest(self, flow: str) -> Word | None:
        return next((word for word in reversed(self.words) if word.flow == flow), None)

    def may_leave(self, flow: str, attribute: str, reading: Reading) -> str | None:
        """Why one value may not leave now, in words; None when it may."""
        agreed = self.agreed(flow)
        if agreed is None or flow not in self.open_flows():
            return "the flow is not open"
        if attribute not in agreed.attributes:
            return "the attribute is not carried"
        taken = self.taken.get((flow, reading.number))
        if taken is None:
            return "the flow was not open when it came"
        terms, reading = taken
        if not agreed.covers(terms):
            return "it was taken under wider terms"
        if reading.boot is not None and reading.number not in self.bounds:
            return "nobody knows when it was"
        if not self.is_in_the_yes(flow, reading):
            return "it lies outside the unbroken yes"
        return None

    def is_in_the_yes(self, flow: str, reading: Reading) -> bool:
        """Whether a reading lies within the unbroken yes to the terms in force."""
        run = list(self._unbroken(flow))
        if not run:
            return False
        first, last = run[-1], run[0]
        early_ms = late_ms = reading.at_ms
        if reading.boot is not None:
            early_ms, late_ms = (one + reading.mono_ms for one in self.bounds[reading.number])
        return (
            first.at_ms <= early_ms
            and (last.until_ms is None or late_ms < last.until_ms)
            and (not reading.live or self._order_begins(flow) < reading.moment)
        )

    def begins_ms(self, flow: str) -> int:
        """When the unbroken yes to the terms in force began."""
        return list(self._unbroken(flow))[-1].at_ms

    def _order_begins(self, flow: str) -> int:
        return list(self._unbroken(flow, by_the_clock=False))[-1].moment

    def _unbroken(self, flow: str, *, by_the_clock: bool = True) -> Iterator[Word]:
        """The yeses that reach up to now without a hole, newest first."""
        assert self.policy is not None
        later: Word | None = None
        for word in reversed([word for word in self.words if word.flow == flow]):
            if not word.yes or word.terms is None:
                return
            if not word.terms.covers(self.policy.flows[flow]):
                return
            if later is not None:
                if by_the_clock and word.at_ms > later.at_ms:
                    return  # a clock was wrong; the later word counts by itself
                if word.until_ms is not None and word.until_ms < later.at_ms:
                    return
                if not set(word.without) <= set(later.without):
                    return
            yield word
            later = word

    # -- forms ---------------------------------------------------------------------------------

    def _is_wrong(self, paper: Paper, flow: str) -> bool:
        """Whether a line can never be right under the policy that its form names."""
        assert self.policy is not None
        line = paper.lines[flow]
        if paper.version != self.policy.version:
            return False
        if flow not in self.policy.flows:
            return line.yes or self.newest(flow) is None
        word_is_wrong = line.accepts != (self.policy.flows[flow].function == "core")
        ends_early = line.until_ms is not None and line.until_ms <= paper.decided_ms(flow)
        nothing = not self.policy.flows[flow].less(line.without).attributes
        strange = not set(line.without) <= set(self.policy.flows[flow].attributes)
        return line.yes and (word_is_wrong or ends_early or nothing or strange)

    def _no(self, paper: Paper, flow: str) -> Word | None:
        assert self.policy is not None
        if flow not in self.policy.flows and self.newest(flow) is None:
            return None
        decided_ms = paper.decided_ms(flow)
        if self.trusted:
            decided_ms = min(decided_ms, self.moment_ms)
        return self._word(flow, yes=False, decided_ms=decided_ms, paper=paper.number)

    def _yes(self, paper: Paper, flow: str, sound: bool) -> Word | None:
        if self._may_act_later(paper, flow, sound) or paper.by != OWNER:
            return None
        if self._was_overtaken(paper, flow):
            return None
        line, newest, decided_ms = paper.lines[flow], self.newest(flow), paper.decided_ms(flow)
        if newest is not None and not newest.yes:
            if line.on_ms is None or decided_ms <= self._said_no_ms(flow):
                return None
        elif newest is not None:
            if decided_ms < newest.decided_ms:
                return None
            if decided_ms == newest.decided_ms and self._is_more(line, flow, newest):
                return None
        return dataclasses.replace(
            self._word(flow, yes=True, decided_ms=decided_ms, paper=paper.number),
            until_ms=line.until_ms,
            without=tuple(sorted(line.without)),
        )

    def _may_act_later(self, paper: Paper, flow: str, sound: bool) -> bool:
        """Whether a line that says nothing now may say it at another time."""
        assert self.policy is not None
        if paper.version != self.policy.version:
            return paper.lines[flow].yes or flow not in self.policy.flows
        if not paper.lines[flow].yes or paper.by != OWNER or self._was_overtaken(paper, flow):
            return False
        in_future = max(paper.recorded_ms, paper.decided_ms(flow)) > self.moment_ms
        return not sound or not self.trusted or in_future

    def _was_overtaken(self, paper: Paper, flow: str) -> bool:
        since = self.words[self.first_read.get(paper.number, len(self.words)) :]
        return any(word.flow == flow and not word.yes for word in since)

    def _said_no_ms(self, flow: str) -> int:
        """When the no was said: not before what was said earlier, whatever the clock was then."""
        said = [word for word in self.words if word.flow == flow]
        dates = [ms for word in said for ms in (word.at_ms, word.decided_ms)]
        earlier = [ms for ms in dates if ms <= self.moment_ms]
        return max(said[-1].at_ms, said[-1].decided_ms, *earlier, 0)

    def _is_more(self, line: Line, flow: str, newest: Word) -> bool:
        assert self.policy is not None
        longer = newest.until_ms is not None and (
            line.until_ms is None or line.until_ms > newest.until_ms
        )
        covered = newest.terms is not None and newest.terms.covers(self.policy.flows[flow])
        return longer or not covered or not set(newest.without) <= set(line.without)

    def _word(self, flow: str, *, yes: bool, decided_ms: int, paper: int | None = None) -> Word:
        terms = self.policy.flows.get(flow) if self.policy else None
        return Word(flow, yes, self.now_ms, decided_ms, terms, paper=paper, moment=self.moment)

    def _is_held_by_the_form(self, flow: str) -> bool:
        assert self.policy is not None
        return self.form_is_broken and self.policy.flows[flow].function != "core"

    def _is_too_old(self, reading: Reading) -> bool:
        at_ms = reading.at_ms
        if reading.boot is not None:
            at_ms = self.bounds[reading.number][1] + reading.mono_ms - 1_000
        return at_ms + KEPT_DAYS * DAY <= self.now_ms
