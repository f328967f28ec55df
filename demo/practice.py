# SPDX-License-Identifier: Apache-2.0
"""`make practice`: a meter on a port and a maker who answers, for docs/technician.md on a desk.

It runs until Ctrl-C; what it made stays below demo/practice/ until it is started again. Each start
is a new maker: a gateway of an earlier one begins again from `assent init`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from assent.errors import AssentError, RefusedError
from demo.demo import hurried
from demo.meter import Meter
from demo.stage import RECIPIENTS, REPO, Stage, StageError

PLACE = REPO / "demo" / "practice"


def main() -> int:
    """Sets everything up but the gateway, says what is where, and waits."""
    try:
        with alone(REPO / "demo"):
            return practise()
    except RefusedError as exc:
        print(f"practice: {exc}", file=sys.stderr)
        return exc.exit_code


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Is the one practice of a checkout while the block runs: a second one would empty its place.

    Args:
        directory: of the checkout; locked itself, so that no file is left behind.

    Raises:
        RefusedError: another one runs.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise RefusedError("another one runs; end it with Ctrl-C in its terminal") from exc
    else:
        yield
    finally:
        os.close(descriptor)


def practise() -> int:
    """Is the maker and the meter until Ctrl-C."""
    stage = Stage(PLACE)
    port = PLACE / "meter"
    try:
        with Meter(port):
            stage.make_recipients()
            bundle = stage.publish(hurried)
            for recipient in RECIPIENTS:
                stage.start_broker(recipient)
                stage.start_backend(recipient)
            tell(stage, str(bundle), str(port))
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    except (StageError, AssentError, OSError) as exc:
        print(f"practice failed: {exc}\nlogs: {stage.root / 'logs'}", file=sys.stderr)
        return 1
    finally:
        stage.close()
    return 0


def tell(stage: Stage, bundle: str, port: str) -> None:
    """Says what a technician would have been told by letter and by telephone."""
    maker = stage.backend_directory(RECIPIENTS[0])
    pin = stage.policy_pin()
    print(f"the meter's port     {port}   (an SDM120, unit 1)")
    print(f"the maker's bundle   {bundle}")
    print(f"its thumbprint       {pin}")
    print("to answer a request as its recipient, here:")
    for recipient in RECIPIENTS:
        print(f"  .venv/bin/assent-backend admit {stage.backend_directory(recipient)} REQUEST")
    print("to see what the maker stored, and the readings of one flow:")
    print(f"  .venv/bin/assent-backend show {maker}")
    print(f"  .venv/bin/assent-backend show {maker} data --flow remote-diagnosis")
    print("each start is a new maker: begin again from assent init, in an empty directory")
    print('this machine counts as right with: [clock] trust = "system" in agent.toml')
    print("running; now follow docs/technician.md in another terminal; Ctrl-C ends it", flush=True)


if __name__ == "__main__":
    sys.exit(main())
