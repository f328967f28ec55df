# SPDX-License-Identifier: Apache-2.0
"""Says what an enrolment file calls itself, for the sentence about a wrong one; verifies nothing.

Law: only the first bytes are looked at, so that a file that was cut off is still named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, get_args

from assent.errors import UsageError, WireError

FileKind = Literal["bundle", "request", "admission"]
"""The three files of enrolment."""

# The name stands within the first 9 bytes of a bundle and the first 20 of a signed file; nothing
# before it has a length of its own choice.
_HEAD: Final = 40
_HINTS: Final[dict[FileKind, str]] = {
    "bundle": "a bundle is for gateways (assent enrol) and for recipients (assent-backend publish)",
    "request": "a request is for the recipient it names: assent-backend admit",
    "admission": "an admission is for the gateway that asked: assent enrol",
}


def claimed(data: bytes) -> FileKind | None:
    """Tells which of the three files this begins like; None when like none."""
    head = data[:_HEAD]
    return next((kind for kind in get_args(FileKind) if f"assent-{kind}".encode() in head), None)


def wrong_file(
    path: Path, data: bytes, expected: Sequence[FileKind], error: WireError | None = None
) -> UsageError:
    """Makes the sentence for a file that could not be read as what was expected.

    Args:
        path: as the person typed it.
        data: its bytes.
        expected: what it could have been.
        error: what reading it as that came to.

    Returns:
        An error that names the file, what it seems to be and what was expected.
    """
    kind = claimed(data)
    if kind is not None and kind in expected:
        detail = f": {error.message}" if error else ""
        return UsageError(
            f"{path} begins like {_article(kind)}, but is cut off or damaged{detail}",
            hint="copy it again; both copies must have the same number of bytes",
        )
    if kind is not None:
        wanted = " or ".join(_article(one) for one in expected)
        return UsageError(f"{path} is {_article(kind)}, expected {wanted}", hint=_HINTS[kind])
    return UsageError(
        f"{path} is " + " and ".join(f"no {one}" for one in expected),
        hint="bundles come from the maker, admissions from recipients, requests from gateways",
    )


def _article(kind: FileKind) -> str:
    return f"an {kind}" if kind == "admission" else f"a {kind}"
