"""Which fields a search may name, of what type each is, and what a comparison therefore means.

`check_of` checks one comparison against the fields and reduces it to a `Check`: an operator and an operand of
the type that the column holds. The predicate and the SQL are both made from checks, so they cannot read a
value differently.

Rules:
1. Text is compared without case, character by character as DuckDB's `lower` does it.
2. A column without a value is equal to nothing: `=` and the orderings are false, `!=` is true.
"""

from __future__ import annotations

import enum
import types
import typing
from datetime import UTC, datetime
from typing import Literal

import msgspec

from olvm.model.errors import BadInput, BadQuery
from olvm.model.record import Record
from olvm.model.search import Comparison, FreeText, Operator, nearest
from olvm.model.sizes import parse_duration, parse_size

FieldType = Literal["text", "choice", "rank", "boolean", "number", "size", "duration", "time"]
NUMBER_MAX = 2**63 - 1


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a search may name."""

    column: str
    type: FieldType = "text"
    choices: tuple[str, ...] = ()  # of a choice or a rank, lower case; of a rank in rising order


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of one table."""

    by_name: dict[str, Field]  # names in lower case
    free_text: str = "name"  # where a value alone is looked for; must be in `by_name` and be text


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """`column op operand`. A glob has `=` or `!=` and a pattern of which only `*` is special."""

    column: str
    how: Literal["text", "glob", "rank", "boolean", "number"]
    op: Operator
    operand: str | int | float | bool
    choices: tuple[str, ...] = ()  # of a rank; the operand is an index of it


def folded(text: str) -> str:
    """The text without case, as DuckDB's `lower`: one character for one, whatever stands beside it."""
    return text.lower() if text.isascii() else "".join(char.lower()[0] for char in text)


def find_field(fields: Fields, name: str) -> Field:
    """The field, for a comparison or for sorting.

    Raises:
        BadQuery: there is none; lists those that there are.
    """
    field = fields.by_name.get(name)
    if field is None:
        known = sorted(fields.by_name)
        raise BadQuery(f"unknown field {name}{nearest(name, known)}; known fields are {', '.join(known)}")
    return field


def check_of(term: Comparison | FreeText, fields: Fields) -> Check:
    """What one term of a search asks of a row.

    Raises:
        BadQuery: unknown field, a value that is not of the field's type, or an operator it has not.
    """
    if isinstance(term, FreeText):
        column = fields.by_name[fields.free_text].column
        pattern = term.value if "*" in term.value else f"*{term.value}*"
        return Check(column=column, how="glob", op="=", operand=folded(pattern))
    field = find_field(fields, term.field)
    match field.type:
        case "text":
            return _text_check(term, field)
        case "choice" | "rank":
            return _choice_check(term, field)
        case "boolean":
            _only_equality(term, "is yes or no")
            return Check(column=field.column, how="boolean", op=term.op, operand=_boolean(term))
        case "number" | "size" | "duration" | "time":
            return Check(column=field.column, how="number", op=term.op, operand=_number(term, field.type))


def _text_check(term: Comparison, field: Field) -> Check:
    glob = "*" in term.value
    if glob:
        _only_equality(term, "is compared with a pattern")
    return Check(column=field.column, how="glob" if glob else "text", op=term.op, operand=folded(term.value))


def _choice_check(term: Comparison, field: Field) -> Check:
    if "*" in term.value:
        return _text_check(term, field)
    # oVirt's portal writes poweringup where its REST says powering_up.
    by_squeezed = {choice.replace("_", ""): choice for choice in field.choices}
    choice = by_squeezed.get(folded(term.value).replace("_", ""))
    if choice is None:
        suggestion = nearest(term.value.lower(), field.choices)
        raise BadQuery(
            f"{term.field} is never {term.value}{suggestion}; its values are {', '.join(field.choices)}"
        )
    if field.type == "choice":
        _only_equality(term, "has no order")
        return Check(column=field.column, how="text", op=term.op, operand=choice)
    return Check(
        column=field.column,
        how="rank",
        op=term.op,
        operand=field.choices.index(choice),
        choices=field.choices,
    )


def _only_equality(term: Comparison, why: str) -> None:
    if term.op not in ("=", "!="):
        raise BadQuery(f"{term.field} {term.op} {term.value} cannot be: {term.field} {why}; use = or !=")


def _boolean(term: Comparison) -> bool:
    word = term.value.lower()
    if word not in ("true", "yes", "1", "false", "no", "0"):
        raise BadQuery(f"{term.field} {term.op} {term.value} cannot be: {term.field} is true or false")
    return word in ("true", "yes", "1")


def _number(term: Comparison, kind: Literal["number", "size", "duration", "time"]) -> int | float:
    try:
        value = _READERS[kind](term.value)
    except (ValueError, BadInput):
        raise BadQuery(
            f"{term.field} {term.op} {term.value} cannot be: {term.field} is {_NUMBER_HELP[kind]}"
        ) from None
    if not abs(value) <= NUMBER_MAX:
        raise BadQuery(f"{term.field} {term.op} {term.value} cannot be: use a number below 2^63")
    # A whole number stays whole, so that it meets 64-bit columns exactly.
    return int(value) if value == int(value) else value


def _read_time(text: str) -> int:
    moment = datetime.fromisoformat(text)
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def _read_number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


_READERS: dict[str, typing.Callable[[str], int | float]] = {
    "number": _read_number,
    "size": parse_size,
    "duration": parse_duration,
    "time": _read_time,
}
_NUMBER_HELP = {
    "number": "a number, write it as in 4 or 2.5",
    "size": "a size, write it as in 512MiB or 8GiB",
    "duration": "a duration, write it as in 30s or 5m",
    "time": 'a time in UTC, write it as in 2026-11-23 or "2026-11-23T10:00"',
}

# ---------------------------------------------------------------- from a record's annotations

_TYPE_BY_SUFFIX: dict[str, FieldType] = {"_bytes": "size", "_ns": "time", "_s": "duration"}


def fields_of(record: type[Record], free_text: str = "name") -> Fields:
    """The scalar fields of a record; one whose name ends in a unit is also known without it.

    An enum is a choice; a Literal is a rank, in the order in which it is written.
    """
    by_name: dict[str, Field] = {}
    for info in msgspec.structs.fields(record):
        field = _field(info.name, info.type)
        if field is not None:
            by_name[info.name] = field
    for name in list(by_name):
        suffix = next((known for known in _TYPE_BY_SUFFIX if name.endswith(known)), "")
        if suffix:
            by_name.setdefault(name.removesuffix(suffix), by_name[name])
    assert by_name[free_text].type == "text", f"{record.__name__}.{free_text} is not text"
    return Fields(by_name=by_name, free_text=free_text)


def _field(name: str, annotation: object) -> Field | None:
    kinds = [kind for kind in _alternatives(annotation) if kind is not types.NoneType]
    if len(kinds) != 1:
        return None
    kind = kinds[0]
    if typing.get_origin(kind) is Literal:
        return Field(column=name, type="rank", choices=tuple(str(value) for value in typing.get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        return Field(column=name, type="choice", choices=tuple(member.value for member in kind))
    if kind is int or kind is float:
        by_unit = (known for suffix, known in _TYPE_BY_SUFFIX.items() if name.endswith(suffix))
        return Field(column=name, type=next(by_unit, "number"))
    if kind is str:
        return Field(column=name)
    return Field(column=name, type="boolean") if kind is bool else None


def _alternatives(annotation: object) -> tuple[object, ...]:
    is_union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return typing.get_args(annotation) if is_union else (annotation,)
