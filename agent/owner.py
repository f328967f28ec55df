# SPDX-License-Identifier: Apache-2.0
"""Whose a file is that we may not touch, and as whom to type the command instead.

Law: nothing is opened and nothing is made; a place that cannot be seen is answered for by the
nearest directory above it that can.
"""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

from assent.errors import AssentError


def foreign(path: Path) -> AssentError:
    """The error of somebody who may not touch a file.

    Args:
        path: the file or directory.
    """
    seen = _nearest(path)
    status = seen.stat()
    user, group = name_of_user(status.st_uid), name_of_group(status.st_gid)
    return AssentError(
        f"{path} is not for {name_of_user(os.geteuid())}: {seen} belongs to {user}",
        hint=f"type: sudo -u {user} -g {group} assent …",
    )


def may_enter(directory: Path) -> bool:
    """Whether we may look into a directory; also where it is not there yet."""
    return not _is_there(directory) or os.access(directory, os.X_OK)


def name_of_user(uid: int) -> str:
    """A user's name, or their number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def name_of_group(gid: int) -> str:
    """A group's name, or its number."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"group {gid}"


def _nearest(path: Path) -> Path:
    return next(one for one in (path, *path.absolute().parents) if _is_there(one))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
