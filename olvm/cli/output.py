"""Rows as text: a table for people, JSON, JSON lines and CSV for programs.

Rules:
1. Programs get every value as it is (bytes, nanoseconds, true); only a table rounds it for the eye.
2. Text from a guest or a host is not trusted: in a table, control characters are shown and not sent to the
   terminal.
3. A table is plain text without frames, so that it can be cut, sorted and pasted.
"""

from __future__ import annotations

import csv
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from olvm.cli.options import OutputFormat
from olvm.model.errors import BadInput
from olvm.model.limits import NS_PER_S
from olvm.model.search import nearest
from olvm.model.sizes import format_size

Row = Mapping[str, object]
GAP = "  "
ALL_COLUMNS = "all"
_UNITS = ("_bytes", "_ns", "_s", "_percent")


def write_rows(
    rows: Iterable[Row], columns: Sequence[str], output: OutputFormat, stream: TextIO | None = None
) -> None:
    """Print the given columns of rows. `columns` may be longer than any row: what is missing is empty."""
    out = stream or sys.stdout
    match output:
        case "table":
            _write_table(
                [[cell(column, row.get(column)) for column in columns] for row in rows], columns, out
            )
        case "json":
            picked = [_picked(row, columns) for row in rows]
            out.write(msgspec.json.format(_json(picked), indent=2).decode() + "\n")
        case "jsonl":
            out.writelines(_json(_picked(row, columns)).decode() + "\n" for row in rows)
        case "csv":
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([plain(row.get(column)) for column in columns] for row in rows)


def write_object(
    row: Row, columns: Sequence[str], output: OutputFormat, stream: TextIO | None = None
) -> None:
    """Print one object: as a table, a line for each column; as JSON, one object."""
    out = stream or sys.stdout
    if output == "table":
        width = max((len(heading(column)) for column in columns), default=0)
        for column in columns:
            label = _emphasized(heading(column).ljust(width), out)
            out.write(f"{label}{GAP}{cell(column, row.get(column))}".rstrip() + "\n")
    elif output == "json":
        out.write(msgspec.json.format(_json(_picked(row, columns)), indent=2).decode() + "\n")
    else:
        write_rows([row], columns, output, out)


# ---------------------------------------------------------------- columns


def chosen_columns(asked: str, known: Sequence[str], usual: Sequence[str]) -> list[str]:
    """The columns that `-c` names. A unit at the end may be left out: `memory` is `memory_bytes`.

    Raises:
        BadInput: a column that the rows have not.
    """
    if not asked:
        return list(usual)
    by_name = {column.removesuffix(unit): column for column in known for unit in _UNITS}
    by_name.update({column: column for column in known})
    chosen: list[str] = []
    for name in (part.strip() for part in asked.split(",")):
        if name == ALL_COLUMNS and ALL_COLUMNS not in by_name:
            chosen += known
        elif name in by_name:
            chosen.append(by_name[name])
        elif name:
            raise BadInput(
                f"there is no column {name}{nearest(name, list(by_name))}; choose from {', '.join(known)}"
            )
    return list(dict.fromkeys(chosen)) or list(usual)


def heading(column: str) -> str:
    """What stands above a column of a table, where the values carry their own units."""
    for unit in ("_bytes", "_ns"):
        column = column.removesuffix(unit)
    return column.upper()


# ---------------------------------------------------------------- values


def cell(column: str, value: object) -> str:
    """A value for the eye: sizes with units, times of day in the local zone, lists with commas."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int() if column.endswith("_bytes") and value >= 0:
            return format_size(value)
        case int() if column.endswith("_ns") and value > 0:
            return _local_time(value)
        case int() if column.endswith("_ns"):
            return ""
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            return ", ".join(cell(column, item) for item in value)
        case dict():
            return shown(_json(value).decode())
        case _:
            return shown(str(value))


def shown(text: str) -> str:
    """The text with control characters as escapes: a cell is one line, and a guest cannot write to the terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def plain(value: object) -> object:
    """A value in CSV: JSON where CSV has no word for it."""
    if isinstance(value, bool | list | tuple | dict):
        return _json(value).decode()
    return "" if value is None else value


def _local_time(at_ns: int) -> str:
    try:
        moment = datetime.fromtimestamp(at_ns // NS_PER_S, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return str(at_ns)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _json(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=str)


def _picked(row: Row, columns: Sequence[str]) -> dict[str, Any]:
    return {column: row.get(column) for column in columns}


# ---------------------------------------------------------------- tables


def _write_table(cells: Sequence[Sequence[str]], columns: Sequence[str], out: TextIO) -> None:
    headings = [heading(column) for column in columns]
    widths = [max(map(width_of, column)) for column in zip(headings, *cells, strict=True)]
    out.write(_emphasized(line(headings, widths), out) + "\n")
    out.writelines(line(row, widths) + "\n" for row in cells)


def line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (text + " " * (width - width_of(text)) for text, width in zip(cells, widths, strict=True))
    return GAP.join(padded).rstrip()


def width_of(text: str) -> int:
    """Columns of a terminal: wide East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def _emphasized(text: str, out: TextIO) -> str:
    """Bold on a terminal, unless NO_COLOR (https://no-color.org) or a dumb terminal says otherwise."""
    if out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return f"\x1b[1m{text}\x1b[0m"
    return text
