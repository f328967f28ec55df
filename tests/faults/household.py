# SPDX-License-Identifier: Apache-2.0
"""A household that reads numbers: its policy, its gateway, its yes; no program runs yet.

Two flows go to the maker, one of small batches and one whose batch stays open for long; a third
goes to a partner.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from demo.stage import RECIPIENTS, REPO, Stage

ATTRIBUTE = "appliance.number"
FLOWS = {"remote-diagnosis": "maker", "service": "maker", "partner-energy-advice": "energy-advice"}
"""Flow and who receives it."""
YES = {
    "remote-diagnosis": '"given"',
    "service": '"accepted"',
    "partner-energy-advice": '"given"',
}
COMMIT_S = 1
"""The shortest commit interval that agent.toml takes; a household's own is `commit_s`."""

_NUMBER = f"""
[attributes."{ATTRIBUTE}"]
kind = "sensor"
type = "integer"
sensitivity = "none"
about = "A number that is read once."
owner = "gateway team"
review = 2028-11-30

[attributes."device.serial"]
"""
_PROFILE = f"""\
# SPDX-License-Identifier: Apache-2.0
[profile]
source = "replay"
about = "Numbers"
facts = "tests/faults/world.py"
csv = {{ time = "time", time_format = "unix-ms" }}

[[field]]
attribute = "{ATTRIBUTE}"
column = "number"
type = "integer"
"""
_DEVICE = """
[[device]]
id = "counter"
kind = "washing-machine"
source = "replay"
port = "{port}"
profile = "numbers"
every = "40ms"
"""
_BATCH = {
    "service": 'batch = { readings = 2000, age = "20s" }',
    "remote-diagnosis": 'batch = { readings = 10000, age = "1s" }',
    "partner-energy-advice": 'batch = { readings = 25, age = "5s" }',
}


def policy(text: str) -> str:
    """The example policy, in which every flow carries the numbers and nothing else."""
    text = text.replace('\n[attributes."device.serial"]\n', _NUMBER, 1)
    text = re.sub(r"(?m)^attributes = .*$", f'attributes = {{ "{ATTRIBUTE}" = "keep" }}', text)
    parts = re.split(r"(?m)^(?=\[flows\.)", text)
    for at, part in enumerate(parts):
        name = part.split("]", 1)[0].removeprefix("[flows.")
        if name in _BATCH:
            parts[at] = re.sub(r"(?m)^batch = .*$", _BATCH[name], part)
    return "".join(parts)


class Household(Stage):
    """The files of a household and its recipients.

    Args:
        recipients: with their keys.
        root: for all files; emptied first.
    """

    def __init__(self, recipients: Stage, root: Path) -> None:
        self.__dict__.update(recipients.copied(root).__dict__)
        self.bundle = self.root / "maker.bundle"
        self.commit_s = COMMIT_S
        """The commit interval of its gateway."""
        self.begun = 0
        """How many gateways began; all but the last were admitted and never heard."""
        self.typed: subprocess.CompletedProcess[str] | None = None
        """The last command that was typed twice, the first time."""
        self.has_been_typed: Callable[[], None] | None = None
        """Called between the two."""

    @property
    def state(self) -> Path:
        """The gateway's state directory."""
        return self.gateway / "state"

    def settle(self) -> None:
        """Everything up to the household's yes; nothing runs afterwards."""
        self.bundle = self.publish(policy)
        self.begin()
        self.take_in()
        self.be_admitted()
        self.agree()

    def begin(self) -> None:
        """A new gateway in the place of the old one, which nobody has enrolled yet."""
        self.begun += 1
        for path in [*self.gateway.glob("*")]:
            if path.is_dir() and not path.is_mount():
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()
        self.make_gateway(_DEVICE.format(port=self.root / "numbers.csv"))
        agent = self.gateway / "agent.toml"
        text = re.sub(r'(?m)^commit = "[^"]*"', f'commit = "{self.commit_s}s"', agent.read_text())
        agent.write_text(text)
        (self.gateway / "profiles").mkdir(exist_ok=True)
        (self.gateway / "profiles" / "numbers.toml").write_text(_PROFILE)

    def take_in(self, under: Sequence[str] | None = None) -> None:
        """The maker's bundle is taken in.

        Args:
            under: it is typed once more before, under these words of a tracer, if any; whatever
                comes of that is in `typed`.
        """
        self._type(under, "enrol", str(self.bundle))

    def be_admitted(self, under: Sequence[str] | None = None) -> None:
        """Every recipient admits the gateway, and its answer is taken in; `under` as above."""
        for recipient in RECIPIENTS:
            request = self.gateway / "requests" / f"{recipient}.request"
            admission = self.root / f"{recipient}.admission"
            admission.unlink(missing_ok=True)
            directory = str(self.backend_directory(recipient))
            self.backend("admit", directory, str(request), "--out", str(admission))
            self._type(under if recipient == RECIPIENTS[0] else None, "enrol", str(admission))

    def agree(self, under: Sequence[str] | None = None) -> None:
        """The household says yes to every flow; `under` as above."""
        form = self._form()
        self._type(under, "consent", "apply", str(form))
        form.unlink()

    def _form(self) -> Path:
        """A form of its own, written now."""
        said = "\n".join(f"{flow} = {decision}" for flow, decision in YES.items())
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        form = self.root / "consent.toml"
        form.write_text(
            'policy = "2026-11-01"\ndecided_by = "owner"\nrecorded_by = "installer 4711"\n'
            f'recorded_at = {at}\nmethod = "signed form {time.monotonic_ns()}"\n'
            f"[decisions]\n{said}\n"
        )
        return form

    def _type(self, under: Sequence[str] | None, *words: str) -> None:
        if under is not None:
            line = [*under, sys.executable, "-m", "agent.cli.main", *words]
            self.typed = subprocess.run(
                [*line, "--config", str(self.gateway)],
                cwd=REPO,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            if self.has_been_typed is not None:
                self.has_been_typed()
        self.assent(*words)

    # What is there.

    def numbers(self, flow: str) -> int:
        """How many rows a flow has at its backend."""
        store = self.backend_directory(FLOWS[flow]) / "store.db"
        with contextlib.suppress(sqlite3.Error), _looking(store) as db:
            row = db.execute("SELECT count(*) FROM data WHERE flow=?", (flow,)).fetchone()
            return int(row[0])
        return 0

    def has_stamped_near(self, shift_ms: int) -> bool:
        """Whether a reading is stored that was stamped by a clock so much ahead of ours."""
        now_ms = int(time.time() * 1000) + shift_ms
        with _looking(self.backend_directory("maker") / "store.db") as db:
            row = db.execute(
                "SELECT 1 FROM data WHERE time_ms BETWEEN ? AND ? LIMIT 1",
                (now_ms - 60_000, now_ms + 60_000),
            ).fetchone()
        return row is not None

    def is_connected(self, recipient: str) -> bool:
        """Whether the uplink says that it reaches a broker."""
        with contextlib.suppress(sqlite3.Error), self.spool() as db:
            row = db.execute("SELECT state FROM health WHERE recipient=?", (recipient,)).fetchone()
            return row is not None and row[0] == "connected"
        return False

    def has_from(self, flow: str, number: int) -> bool:
        """Whether a number so high, or a higher one, is stored."""
        with _looking(self.backend_directory(FLOWS[flow]) / "store.db") as db:
            row = db.execute(
                "SELECT 1 FROM data WHERE flow=? AND number>=? LIMIT 1", (flow, number)
            ).fetchone()
        return row is not None

    def is_drained(self) -> bool:
        """Whether no batch waits on the gateway."""
        with contextlib.suppress(sqlite3.Error), self.spool() as db:
            return bool(db.execute("SELECT count(*) FROM batch").fetchone() == (0,))
        return False

    def waiting(self) -> str:
        """What waits on the gateway, in words."""
        with contextlib.suppress(sqlite3.Error), self.spool() as db:
            batches = db.execute(
                "SELECT flow, count(*) FROM batch JOIN lane ON lane.id=lane GROUP BY flow"
            ).fetchall()
            gaps = db.execute("SELECT flow, cause, count(*) FROM gap GROUP BY 1, 2").fetchall()
            health = db.execute("SELECT recipient, state, detail FROM health").fetchall()
            return f"batches {batches}, gaps {gaps}, health {health}"
        return "the spool cannot be read"

    @contextlib.contextmanager
    def spool(self) -> Iterator[sqlite3.Connection]:
        """The gateway's spool, to look into."""
        with _looking(self.state / "spool" / "spool.db") as db:
            yield db


@contextlib.contextmanager
def _looking(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        yield db
