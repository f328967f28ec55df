# SPDX-License-Identifier: Apache-2.0
"""Plain values of a config file into typed ones, each by itself, with every mistake's path.

The types are described by `msgspec.inspect`; msgspec's own `convert` stops at the first mistake
and so is not used. See `assent.located` for what types may be made of.
"""

from __future__ import annotations

import datetime as dt
import enum
import functools
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec
from msgspec import inspect as shape

from assent.nearest import nearest
from assent.places import Path
from assent.wording import (
    AnyList,
    came,
    cut,
    described,
    expected_of,
    near,
    noun,
    parser_of,
    words_of,
)


class Mistake(msgspec.Struct, frozen=True):
    """One thing that does not fit its type, and the path to it."""

    path: Path
    message: str
    hint: str | None = None


class _Bad(enum.Enum):
    """Stands for a value that could not be converted; its mistake is noted."""

    BAD = "bad"


BAD: Final = _Bad.BAD

_MAKERS: Final[dict[type[shape.Type], Callable[[list[object]], object]]] = {
    shape.ListType: list,
    shape.VarTupleType: tuple,
    shape.SetType: set,
    shape.FrozenSetType: frozenset,
}


class Converter:
    """Converts one document; `mistakes` fills up while it does."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def convert(self, value: object, kind: type) -> object:
        """Converts a whole document.

        Args:
            value: what tomllib gave.
            kind: the type to make of it.

        Returns:
            The value, or BAD when `mistakes` is not empty.
        """
        made = self._any(value, _describe(kind), (), None)
        return BAD if self.mistakes else made

    def _note(self, path: Path, message: str, hint: str | None = None) -> _Bad:
        self.mistakes.append(Mistake(path, message, hint))
        return BAD

    def _any(self, value: object, kind: shape.Type, path: Path, expected: str | None) -> object:
        """Converts one value; `expected` is the description a type was annotated with."""
        match kind:
            case shape.Metadata(type=inner):
                schema = kind.extra_json_schema or {}
                made = self._any(value, inner, path, schema.get("description", expected))
            case shape.UnionType():
                made = self._union(value, kind, path, expected)
            case shape.StructType(cls=cls) | shape.CustomType(cls=cls) if parser_of(cls):
                made = self._parsed(value, cls, path)
            case shape.StructType():
                made = self._struct(value, kind, path)
            case shape.DictType():
                made = self._dict(value, kind, path)
            case shape.ListType() | shape.VarTupleType() | shape.SetType() | shape.FrozenSetType():
                made = self._sequence(value, kind, path)
            case _:
                made = self._leaf(value, kind, path, expected or expected_of(kind))
        return made

    def _leaf(self, value: object, kind: shape.Type, path: Path, expected: str) -> object:
        made = _plain(value, kind)
        if made is not BAD and _within(made, kind):
            return made
        message = f"expected {expected}, got {came(value)}"
        return self._note(path, message, near(value, kind))

    def _union(
        self, value: object, kind: shape.UnionType, path: Path, expected: str | None
    ) -> object:
        members = [member for member in kind.types if not isinstance(member, shape.NoneType)]
        for member in members:
            if len(members) == 1 or _takes(value, member):
                return self._any(value, member, path, expected)
        known = " or ".join(expected or expected_of(member) for member in members)
        return self._note(path, f"expected {known}, got {came(value)}")

    def _parsed(self, value: object, cls: type, path: Path) -> object:
        parser = parser_of(cls)
        if parser is None or not isinstance(value, str):
            return self._note(path, f"expected {noun(cls)}, got {came(value)}")
        try:
            return parser(value)
        except ValueError as exc:
            return self._note(path, str(exc))

    def _struct(self, value: object, kind: shape.StructType, path: Path) -> object:
        if not isinstance(value, dict):
            return self._note(path, f"expected a table, got {came(value)}")
        fields = {field.encode_name: field for field in kind.fields}
        before = len(self.mistakes)
        for key in value:
            if key not in fields:
                self._unknown((*path, key), key, fields, kind.cls)
        made: dict[str, object] = {}
        for key, field in fields.items():
            if key in value:
                made[field.name] = self._any(value[key], field.type, (*path, key), None)
            elif field.required:
                self._note(path, f"missing key {key!r}: expected {described(field.type)}")
        if len(self.mistakes) > before:
            return BAD
        try:
            return kind.cls(**made)
        except ValueError as exc:  # raised by a __post_init__
            return self._note(path, str(exc))

    def _unknown(self, path: Path, key: str, known: Iterable[str], cls: type) -> None:
        names = sorted(known)
        message = f"unknown key {cut(key)!r}, expected one of {', '.join(names)}"
        elsewhere: Mapping[str, str] = getattr(cls, "ELSEWHERE", {})
        self._note(path, message, elsewhere.get(key) or nearest(key, names))

    def _dict(self, value: object, kind: shape.DictType, path: Path) -> object:
        if not isinstance(value, dict):
            return self._note(path, f"expected a table, got {came(value)}")
        made = {}
        for key, inner in value.items():
            name = self._any(key, kind.key_type, (*path, key), None)
            made[name] = self._any(inner, kind.value_type, (*path, key), None)
        return self._counted(made, kind, path)

    def _sequence(self, value: object, kind: AnyList, path: Path) -> object:
        if not isinstance(value, list):
            hint = f"[[{path[-1]}]], in double brackets" if isinstance(value, dict) else None
            return self._note(path, f"expected {expected_of(kind)}, got {came(value)}", hint)
        made = [
            self._any(inner, kind.item_type, (*path, index), None)
            for index, inner in enumerate(value)
        ]
        counted = self._counted(made, kind, path)
        return BAD if counted is BAD or BAD in made else _MAKERS[type(kind)](made)

    def _counted(
        self,
        made: dict[object, object] | list[object],
        kind: AnyList | shape.DictType,
        path: Path,
    ) -> object:
        least, most = kind.min_length or 0, kind.max_length
        if len(made) < least or (most is not None and len(made) > most):
            wanted = f"at least {least}" if len(made) < least else f"at most {most}"
            return self._note(path, f"expected {wanted} entries, got {len(made)}")
        return made


_describe = functools.cache(shape.type_info)


def _takes(value: object, kind: shape.Type) -> bool:
    """Says whether a value is of the sort that a member of a union is written in."""
    if isinstance(kind, shape.Metadata):
        return _takes(value, kind.type)
    if isinstance(kind, shape.StructType | shape.CustomType) and parser_of(kind.cls):
        return isinstance(value, str)
    if isinstance(kind, shape.StructType | shape.DictType):
        return isinstance(value, dict)
    if isinstance(kind, AnyList):
        return isinstance(value, list)
    if isinstance(kind, shape.LiteralType | shape.EnumType):
        return isinstance(value, str) and any(isinstance(word, str) for word in words_of(kind))
    return _plain(value, kind) is not BAD


def _plain(value: object, kind: shape.Type) -> object:
    """Converts what has no parts; BAD where the sort does not fit."""
    convert = _LEAVES.get(type(kind))
    if convert is not None:
        return convert(value)
    if isinstance(kind, shape.LiteralType):
        return next((word for word in kind.values if _same(word, value)), BAD)
    if isinstance(kind, shape.EnumType):
        return next((member for member in kind.cls if _same(member.value, value)), BAD)
    if isinstance(kind, shape.CustomType) and issubclass(kind.cls, pathlib.PurePath):
        return kind.cls(value) if isinstance(value, str) and "\0" not in value else BAD
    msg = f"no rule to read a {type(kind).__name__} from a config file"
    raise NotImplementedError(msg)


def _same(word: object, value: object) -> bool:
    return type(word) is type(value) and word == value


def _float(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return BAD


def _date(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            return BAD
    return value if type(value) is dt.date else BAD  # a datetime is a date, too


def _exactly(cls: type) -> Callable[[object], object]:
    return lambda value: value if type(value) is cls else BAD


_LEAVES: Final[dict[type[shape.Type], Callable[[object], object]]] = {
    shape.StrType: _exactly(str),
    shape.IntType: _exactly(int),
    shape.FloatType: _float,
    shape.BoolType: _exactly(bool),
    shape.DateType: _date,
    shape.DateTimeType: _exactly(dt.datetime),
    shape.TimeType: _exactly(dt.time),
    shape.AnyType: lambda value: value,
}


def _within(value: object, kind: shape.Type) -> bool:
    """Checks the limits a leaf's type was annotated with."""
    if isinstance(kind, shape.StrType) and isinstance(value, str):
        least, most = kind.min_length or 0, kind.max_length
        fits = least <= len(value) and (most is None or len(value) <= most)
        return fits and (kind.pattern is None or re.search(kind.pattern, value) is not None)
    if isinstance(kind, shape.IntType | shape.FloatType) and isinstance(value, int | float):
        return (
            (kind.ge is None or value >= kind.ge)
            and (kind.gt is None or value > kind.gt)
            and (kind.le is None or value <= kind.le)
            and (kind.lt is None or value < kind.lt)
        )
    if isinstance(kind, shape.DateTimeType) and isinstance(value, dt.datetime):
        return kind.tz is None or (value.tzinfo is not None) == kind.tz
    return True
