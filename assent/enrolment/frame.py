# SPDX-License-Identifier: Apache-2.0
"""What the three files of enrolment have in common: a name, a format version, fields; bounded.

Standards: docs/wire.md, CDDL `bundle`, `enrol-request`, `admission`.
"""

from __future__ import annotations

from assent import cbor, shapes
from assent.cbor import CborValue
from assent.enrolment.kinds import FileKind
from assent.errors import MalformedError, TooLargeError, UnknownSuiteError
from assent.wire import FORMAT


def purpose(kind: FileKind) -> bytes:
    """Gives the external data of a signature: never that of a message, which has a mailbox.

    Args:
        kind: of file.

    Returns:
        The bytes.
    """
    return cbor.encode([FORMAT, kind])


def written(kind: FileKind, fields: list[CborValue], most: int) -> bytes:
    """Writes a file.

    Args:
        kind: of file.
        fields: what it says.
        most: bytes it may have.

    Returns:
        Its bytes.

    Raises:
        TooLargeError: it has more.
    """
    data = cbor.encode([f"assent-{kind}", FORMAT, *fields])
    if len(data) > most:
        raise TooLargeError(f"expected a {kind} of at most {most} bytes, got {len(data)}")
    return data


def fields_of(kind: FileKind, data: bytes, most: int) -> list[CborValue]:
    """Reads a file.

    Args:
        kind: of file.
        data: its bytes.
        most: bytes it may have.

    Returns:
        What it says.

    Raises:
        WireError: no such file, or over a limit.
    """
    fields = shapes.array(cbor.decode(data, max_bytes=most, max_items=1_024, max_depth=4), kind)
    if fields[:1] != [f"assent-{kind}"]:
        raise MalformedError(f"expected a file that begins with assent-{kind}")
    if shapes.integer(fields[1] if len(fields) > 1 else None, "format") != FORMAT:
        raise UnknownSuiteError(f"expected format version {FORMAT} in the {kind}")
    return fields[2:]
