# SPDX-License-Identifier: Apache-2.0
"""The tree of errors: each has a sentence for a person, a hint and an exit code.

Law:
  - a message is lower case, has no full stop, says what was expected and what came;
  - it never holds a secret, an identifier or a value of a person;
  - `code` is closed vocabulary: the name under which the error is counted and quarantined;
  - a foreign exception becomes one of these in the room that owns the library.
"""

from __future__ import annotations

import enum
from typing import ClassVar, NamedTuple


class AssentError(Exception):
    """Anything that stops a verb; the root of the tree.

    Args:
        message: one sentence for a person.
        hint: what to do about it, or None when nothing helps.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Severity(enum.StrEnum):
    """How much a finding weighs."""

    ERROR = "error"
    """The file does not load."""
    WARNING = "warning"
    """The file loads; a policy with one is not signed."""


class Finding(NamedTuple):
    """One thing wrong with one place of one file; line and column count from 1."""

    file: str
    line: int
    column: int
    message: str
    hint: str | None = None
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        """`file:line:column: message (hint)`, as compilers print it."""
        tail = f" ({self.hint})" if self.hint else ""
        word = "" if self.severity is Severity.ERROR else "warning: "
        return f"{self.file}:{self.line}:{self.column}: {word}{self.message}{tail}"


class ConfigError(AssentError):
    """A file a person edits cannot be used; carries every finding of it."""

    code = "config"

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        super().__init__("\n".join(str(finding) for finding in findings))
        self.findings = findings


class UsageError(AssentError):
    """The words of the command line are off."""

    code = "usage"
    exit_code = 2


class RefusedError(AssentError):
    """The law says no: a decision, a permission or a lock stands against it."""

    code = "refused"
    exit_code = 3


class PolicyError(AssentError):
    """The policy is not one this gateway may run."""

    code = "policy"


class WireError(AssentError):
    """Bytes from elsewhere were refused; `code` is the reason they are counted under."""

    code = "wire"


class NotCanonicalError(WireError):
    """The bytes are not deterministic CBOR (RFC 8949 §4.2.1), or a type is not allowed there."""

    code = "not-canonical"


class MalformedError(WireError):
    """The structure is not the one the CDDL of docs/wire.md gives."""

    code = "malformed"


class TooLargeError(WireError):
    """A length, depth, count or inflated size is over its limit."""

    code = "too-large"


class BadSignatureError(WireError):
    """The signature is not by the key that belongs to the sender."""

    code = "bad-signature"


class CannotOpenError(WireError):
    """The seal does not open with this key: another recipient, another mailbox, or changed."""

    code = "cannot-open"


class UnknownSuiteError(WireError):
    """Algorithm, format version or kind of message that this version does not know."""

    code = "unknown-suite"


class KeyStoreError(AssentError):
    """A secret cannot be read, written or used; nothing goes out under a guess."""

    code = "keys"


class LedgerError(AssentError):
    """The ledger cannot be trusted: unreadable, broken chain, wrong signature."""

    code = "ledger"


class SpoolError(AssentError):
    """The spool refused an operation."""

    code = "spool"


class UplinkError(AssentError):
    """The broker cannot be reached or refused us."""

    code = "uplink"


class ControlError(AssentError):
    """The running agent cannot be asked, or answered with an error."""

    code = "control"


class StoreError(AssentError):
    """The backend's store refused an operation."""

    code = "store"
