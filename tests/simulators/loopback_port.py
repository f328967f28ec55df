# SPDX-License-Identifier: Apache-2.0
"""A serial device that says each line backwards, under a name of its own: `loopback_port.py PATH`.

It has the group and the mode that systemd/udev/60-assent.rules gives a serial adapter.
"""

from __future__ import annotations

import os
import pty
import shutil
import sys
import tty
from pathlib import Path


def main(name: Path) -> None:
    """Serves until it is ended."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    node = Path(os.ttyname(theirs))
    shutil.chown(node, "root", "dialout")
    node.chmod(0o660)
    name.unlink(missing_ok=True)
    name.symlink_to(node)
    print("there", flush=True)
    line = b""
    while True:
        line += os.read(ours, 1024)
        *whole, line = line.split(b"\n")
        for one in whole:
            os.write(ours, one[::-1] + b"\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
