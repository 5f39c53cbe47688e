"""Checks of source rows, written as SQL: the first that fails says of which kind the fault is, and why.

A problem is one text, `kind`, a unit separator and `why`; NULL means that the row is good. It is computed beside the
row, so that a file is read once.
"""

from __future__ import annotations

from typing import NamedTuple

from olvm.experiments.imports.bounds import TEXT_SHOWN_MAX

SEPARATOR = "\x1f"


class Check(NamedTuple):
    """`fails` is an SQL condition; `why` an SQL expression of type text, evaluated only where it fails."""

    fails: str
    kind: str
    why: str


def quoted(text: object) -> str:
    """An SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def said(sentence: str, *values: str) -> str:
    """A sentence with `{}` for SQL values, as an SQL expression; what is long is cut, what is empty is said so."""
    parts = sentence.split("{}")
    assert len(parts) == len(values) + 1, (sentence, values)
    pieces = [quoted(parts[0])]
    for value, part in zip(values, parts[1:], strict=True):
        pieces += [f"coalesce(left(cast({value} as varchar), {TEXT_SHOWN_MAX}), 'missing')", quoted(part)]
    return " || ".join(piece for piece in pieces if piece != "''")


def problem_of(checks: list[Check]) -> str:
    """The SQL expression of a row's first problem."""
    whens = [f"when {check.fails} then {quoted(check.kind + SEPARATOR)} || {check.why}" for check in checks]
    return f"case {' '.join(whens)} end"


def column_count(fields: str, count: int, delimiter: str) -> Check:
    return Check(
        f"len({fields}) <> {count}",
        "columns",
        said(f"it has {{}} columns where {count} belong, between each two {delimiter}", f"len({fields})"),
    )


def ascii_text(text: str) -> Check:
    """Sources are read byte by byte (latin-1), so that no byte ends an import; none of them has such letters."""
    return Check(
        f"strlen({text}) <> length({text})", "not_text", quoted("it has bytes that are not ASCII text")
    )


def number(
    name: str, text: str, value: str, *, least: float | None = 0, above: float | None = None
) -> list[Check]:
    """`value` is the cast of `text` to double. NaN and infinities are no numbers here."""
    checks = [
        Check(
            f"{value} is null or not isfinite({value})",
            "not_a_number",
            f"case when coalesce(trim(cast({text} as varchar)), '') = '' then {quoted(name + ' is missing')} "
            f"else {said(name + ' is {}, not a number', text)} end",
        )
    ]
    if above is not None:
        checks.append(
            Check(
                f"{value} <= {above}",
                "out_of_range",
                said(f"{name} is {{}} and must be above {above:g}", text),
            )
        )
    elif least is not None:
        kind = "negative" if least == 0 else "out_of_range"
        checks.append(Check(f"{value} < {least}", kind, said(f"{name} is {{}}, below {least:g}", text)))
    return checks


def ends_after_start(start_name: str, start: str, end_name: str, end: str) -> Check:
    return Check(
        f"{end} < {start}",
        "end_before_start",
        said(f"{end_name} is {{}}, before {start_name}, which is {{}}", end, start),
    )
