# SPDX-License-Identifier: Apache-2.0
"""What a mistake in a config file is told with: what a type expects, what came, what is near.

The types are described by `msgspec.inspect`; a class that reads a text has a `parse`, and may have
an `EXAMPLE`.

Security: a message repeats at most 40 characters of what came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import inspect as shape

from assent.nearest import nearest

AnyList = shape.ListType | shape.VarTupleType | shape.SetType | shape.FrozenSetType
"""The types that a list in square brackets becomes."""
_SHOWN: Final = 40  # characters of a value that a message repeats


def parser_of(cls: type) -> Callable[[str], object] | None:
    """Gives what reads a text into a class.

    Args:
        cls: which.

    Returns:
        Its `parse`, or None where it has none.
    """
    return getattr(cls, "parse", None)


def words_of(kind: shape.Type) -> tuple[object, ...]:
    """The words that a value may be.

    Args:
        kind: what is expected.

    Returns:
        Them; none where a value is no word of a closed set.
    """
    if isinstance(kind, shape.LiteralType):
        return kind.values
    if isinstance(kind, shape.EnumType):
        return tuple(member.value for member in kind.cls)
    return ()


def near(value: object, kind: shape.Type) -> str | None:
    """Suggests the nearest word that is expected.

    Args:
        value: what came.
        kind: what was expected.

    Returns:
        A hint, or None when nothing is near.
    """
    known = [word for word in words_of(kind) if isinstance(word, str)]
    return nearest(value, known) if isinstance(value, str) else None


def cut(text: str) -> str:
    """Shortens a text that a message repeats.

    Args:
        text: what came.

    Returns:
        It, or its beginning.
    """
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_EXPECTED: Final[dict[type[shape.Type], str]] = {
    shape.StrType: "a text in quotes",
    shape.IntType: "a whole number",
    shape.FloatType: "a number",
    shape.BoolType: "true or false",
    shape.DateType: "a date such as 2027-11-30",
    shape.DateTimeType: "a date and time with its offset such as 2026-11-22T10:15:00+08:00",
    shape.TimeType: "a time of day such as 10:15:00",
    shape.StructType: "a table",
    shape.DictType: "a table",
}


def expected_of(kind: shape.Type) -> str:
    """Says what a value of a type looks like.

    Args:
        kind: what is expected.

    Returns:
        Words that follow "expected".
    """
    words = words_of(kind)
    if words:
        return f"one of {', '.join(repr(word) for word in words)}"
    if isinstance(kind, shape.CustomType | shape.StructType) and parser_of(kind.cls):
        return noun(kind.cls)
    if isinstance(kind, AnyList):
        return "a list in square brackets"
    limits = [f"{word} {limit}" for word, limit in _limits(kind) if limit is not None]
    return " ".join([_EXPECTED.get(type(kind), "a text in quotes"), *limits[:2]])


def noun(cls: type) -> str:
    """Says what a text that is parsed looks like.

    Args:
        cls: the class that parses it.

    Returns:
        Words with an example, where the class has one.
    """
    example = f" such as '{cls.EXAMPLE}'" if hasattr(cls, "EXAMPLE") else ""
    return f"a {cls.__name__.lower()} in quotes{example}"


def _limits(kind: shape.Type) -> tuple[tuple[str, object], ...]:
    if isinstance(kind, shape.IntType | shape.FloatType):
        over = ("from", kind.ge), ("over", kind.gt)
        return (*over, ("up to", kind.le), ("under", kind.lt))
    return ()


def described(kind: shape.Type) -> str:
    """Says what a missing key should have held.

    Args:
        kind: what is expected.

    Returns:
        Its description, else what a value of it looks like.
    """
    if isinstance(kind, shape.Metadata):
        schema = kind.extra_json_schema or {}
        return str(schema.get("description") or described(kind.type))
    if isinstance(kind, shape.UnionType):
        members = [member for member in kind.types if not isinstance(member, shape.NoneType)]
        return " or ".join(described(member) for member in members)
    return expected_of(kind)


def came(value: object) -> str:
    """Says what came instead.

    Args:
        value: as TOML has it.

    Returns:
        Words that follow "got"; long ones are cut.
    """
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f"the text {cut(value)!r}"
        case int() | float():
            return f"the number {cut(str(value))}"
        case dict():
            return "a table"
        case list():
            return "a list"
        case _:
            return f"the {type(value).__name__} {value}"
