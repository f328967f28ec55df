# SPDX-License-Identifier: Apache-2.0
"""Whether an open spool is still the file that lies there, and no older copy of itself.

Law:
  - a file that was removed or replaced under a running program, or overwritten by another spool or
    an older copy, is noticed at the next look; from then on nothing is written through the old
    connection: who opens it anew decides about what lies there;
  - damage that one program found ends the other, too: the next start sets it aside.

Limits: an older copy whose fence stands where it stood is met by its numbers alone, when the next
batch is put. A copy that is laid over open files may be met as damage first, or, where SQLite
writes over it at the same moment, not before the next start.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from agent.spool.schema import DamagedError, beside
from assent.errors import SpoolError


class ReplacedError(DamagedError):
    """The file is not the one that was opened."""

    code = "spool-replaced"

    def __init__(self, message: str = "the spool was replaced") -> None:
        super().__init__(message, hint="open it again")


class Place:
    """Where one spool lies that is open.

    Args:
        path: its file.
        db: the connection to it.
    """

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self._path = path
        self._db = db
        self._inode = path.stat().st_ino
        self._fault = beside(path, ".fault")
        self.id, self._fence = self._told()
        self._is_lost = False

    def expect_file(self) -> None:
        """Looks whether another file lies there; cheap.

        Raises:
            ReplacedError: one does, or none.
            DamagedError: the other program found it damaged.
            SpoolError: that cannot be looked at.
        """
        try:
            is_it = os.stat(self._path).st_ino == self._inode  # noqa: PTH116 - asked all the time
        except FileNotFoundError as exc:
            self._is_lost = True
            raise ReplacedError("the spool is gone") from exc
        except OSError as exc:
            raise SpoolError(f"the spool cannot be looked at: {exc.strerror}") from exc
        if not is_it:
            self.give_up()
        if self._fault.exists():
            raise DamagedError("the spool is damaged", hint="restart; it is then set aside")

    def expect(self) -> None:
        """Looks whether the spool is the one that was opened, and no older copy; cheap.

        Raises:
            ReplacedError: it is not.
            SpoolError: that cannot be looked at.
        """
        self.expect_file()
        found, fence = self._told()
        if found != self.id:
            self.give_up()
        self.note(fence)

    def note(self, fence: int) -> None:
        """Takes note of where the fence stands, which never falls.

        Raises:
            ReplacedError: it has, so that this is an older copy.
        """
        if fence < self._fence:
            self.give_up()
        self._fence = fence

    def give_up(self) -> None:
        """Takes it for another from now on.

        Raises:
            ReplacedError: always.
        """
        self._is_lost = True
        raise ReplacedError

    def expect_kept(self) -> None:
        """Refuses what is to be written into what was found to be another.

        Raises:
            ReplacedError: it was.
        """
        if self._is_lost:
            raise ReplacedError

    def _told(self) -> tuple[bytes, int]:
        spool, fence = self._db.execute("SELECT id, fence FROM spool").fetchone()
        return bytes(spool), int(fence)
