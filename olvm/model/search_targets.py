"""What a search becomes: a predicate over rows in memory, or the clauses of a SQL statement for DuckDB.

Rule: both say the same of every row (a test runs both on the same rows). What a person typed reaches SQL only
as a parameter; column names come from `Fields` and are quoted.

Two things stand outside the rule, and no record holds either: not-a-number, and numbers from 2^53 on where a
whole number meets a fraction.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from olvm.model.search import AllOf, AnyOf, Comparison, Expression, FreeText, Not, Operator, Query
from olvm.model.search_fields import Check, Fields, check_of, find_field, folded

Row = Mapping[str, object]
Predicate = Callable[[Row], bool]
Parameter = str | int | float | bool | list[str]

PAGE_ROWS = 100  # SearchResultsLimit

_COMPARE: dict[Operator, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

# ---------------------------------------------------------------- in memory


def predicate(query: Query, fields: Fields) -> Predicate:
    """Whether a row matches `query.where`. Rows are keyed by column; a missing key raises.

    Raises:
        BadQuery: the query does not fit the fields.
    """
    return (lambda _: True) if query.where is None else _predicate(query.where, fields)


def _predicate(expression: Expression, fields: Fields) -> Predicate:
    match expression:
        case Comparison() | FreeText():
            return _check_predicate(check_of(expression, fields))
        case Not():
            inside = _predicate(expression.part, fields)
            return lambda row: not inside(row)
        case AllOf():
            every = [_predicate(part, fields) for part in expression.parts]
            return lambda row: all(part(row) for part in every)
        case AnyOf():
            some = [_predicate(part, fields) for part in expression.parts]
            return lambda row: any(part(row) for part in some)


def _check_predicate(check: Check) -> Predicate:
    if check.op == "!=":
        equal = _check_predicate(msgspec.structs.replace(check, op="="))
        return lambda row: not equal(row)
    column, operand = check.column, check.operand
    match check.how:
        case "glob":
            assert isinstance(operand, str)
            pieces = operand.split("*")
            return lambda row: row[column] is not None and _fits(folded(str(row[column])), pieces)
        case "text":
            read: Callable[[object], object] = lambda value: folded(str(value))  # noqa: E731
        case "rank":
            rank_by_choice = {choice: rank for rank, choice in enumerate(check.choices)}
            read = lambda value: rank_by_choice.get(folded(str(value)))  # noqa: E731
        case "boolean" | "number":
            read = lambda value: value  # noqa: E731
    compare = _COMPARE[check.op]

    def holds(row: Row) -> bool:
        value = row[column]
        found = None if value is None else read(value)
        return found is not None and compare(found, operand)

    return holds


def _fits(text: str, pieces: list[str]) -> bool:
    """Whether the text is the pieces in order with anything between; each is taken where it first fits.

    Cost: one pass for each piece. A regular expression with as many stars can take exponential time.
    """
    first, *middle, last = pieces
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


# ---------------------------------------------------------------- in SQL


class SqlSearch(msgspec.Struct, frozen=True, kw_only=True):
    """The clauses of one search. `where` has one `?` for each of `parameters`, in order."""

    where: str
    parameters: tuple[Parameter, ...]
    order_by: str  # empty: the query names no order
    limit_rows: int | None
    offset_rows: int

    def clauses(self) -> str:
        """What follows `select … from <table> `."""
        text = f"where {self.where}"
        if self.order_by:
            text += f" order by {self.order_by}"
        if self.limit_rows is not None:
            text += f" limit {self.limit_rows} offset {self.offset_rows}"
        return text


def to_sql(query: Query, fields: Fields, page_rows: int = PAGE_ROWS) -> SqlSearch:
    """The search for DuckDB; without a page it asks for all rows.

    Raises:
        BadQuery: the query does not fit the fields.
    """
    parameters: list[Parameter] = []
    where = "true" if query.where is None else _sql(query.where, fields, parameters)
    order_by = ""
    if query.sort_by is not None:
        column = _quoted(find_field(fields, query.sort_by).column)
        order_by = f"{column} {'desc' if query.descending else 'asc'} nulls last"
    return SqlSearch(
        where=where,
        parameters=tuple(parameters),
        order_by=order_by,
        limit_rows=None if query.page is None else page_rows,
        offset_rows=0 if query.page is None else (query.page - 1) * page_rows,
    )


def _sql(expression: Expression, fields: Fields, parameters: list[Parameter]) -> str:
    match expression:
        case Comparison() | FreeText():
            return _check_sql(check_of(expression, fields), parameters)
        case Not():
            return f"not ({_sql(expression.part, fields, parameters)})"
        case AllOf():
            return " and ".join(f"({_sql(part, fields, parameters)})" for part in expression.parts)
        case AnyOf():
            return " or ".join(f"({_sql(part, fields, parameters)})" for part in expression.parts)


def _check_sql(check: Check, parameters: list[Parameter]) -> str:
    """Never null: `coalesce` gives a column without a value the meaning that `search_fields` states."""
    text = _comparison_sql(check, parameters)
    return f"{'not ' if check.op == '!=' else ''}coalesce({text}, false)"


def _comparison_sql(check: Check, parameters: list[Parameter]) -> str:
    column, compare = _quoted(check.column), "=" if check.op == "!=" else check.op
    match check.how:
        case "glob":
            parameters.append(_like(str(check.operand)))
            return f"lower({column}) like ? escape '\\'"
        case "text":
            parameters.append(check.operand)
            return f"lower({column}) {compare} ?"
        case "rank":
            parameters.extend((list(check.choices), check.operand))
            return f"list_position(?::varchar[], lower({column})) - 1 {compare} ?"
        case "boolean" | "number":
            parameters.append(check.operand)
            return f"{column} {compare} ?"


def _like(pattern: str) -> str:
    for special in ("\\", "%", "_"):
        pattern = pattern.replace(special, f"\\{special}")
    return pattern.replace("*", "%")


def _quoted(column: str) -> str:
    assert '"' not in column
    return f'"{column}"'
