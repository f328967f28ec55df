# SPDX-License-Identifier: Apache-2.0
"""Ends a connection under its owner: for an uplink in our own process that does not answer.

The kernel forgets what it has not sent yet, and answers the owner's next call with an error.

Standards: connect(2), AF_UNSPEC: dissolves the association of a TCP socket at once.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

_UNSPECIFIED: Final = bytes(16)  # struct sockaddr with the family AF_UNSPEC, which is 0


def dissolve(connection: socket.socket) -> bool:
    """Ends a TCP connection without closing its descriptor; any thread may call it.

    Args:
        connection: of another thread, which may close it at the same time.

    Returns:
        Whether nothing of it leaves any more.
    """
    # ctypes costs a megabyte: only who needs it pays. Python's own connect knows no AF_UNSPEC.
    import ctypes  # noqa: PLC0415 (loaded lazily)

    with contextlib.suppress(OSError, ValueError):
        descriptor = connection.fileno()
        if descriptor < 0:
            return True  # closed by its owner, with a linger of 0
        done = ctypes.CDLL(None).connect(descriptor, _UNSPECIFIED, len(_UNSPECIFIED))
        return int(done) == 0
    return False
