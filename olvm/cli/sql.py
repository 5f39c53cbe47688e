"""`olvm sql`: one reading statement over the engine's tables and history, to the terminal or into a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from olvm.api.result import Result, distinct
from olvm.api.whole_files import whole_file
from olvm.cli.connection import data_center
from olvm.cli.listing import ROWS_MAX, checked_limit
from olvm.cli.options import CONNECTING, Connecting, Duration, OutputFormat
from olvm.cli.output import Row, write_rows
from olvm.model.errors import BadInput, NotFound
from olvm.model.search import nearest

STATEMENT_BYTES_MAX = 1024 * 1024

SqlFormat = Literal["table", "json", "jsonl", "csv", "parquet"]


def sql(
    statement: Annotated[
        str,
        Parameter(
            help="A statement that reads; `-` takes it from stdin. With --schema: a view's name, or nothing.",
            allow_leading_hyphen=True,
        ),
    ] = "",
    /,
    *,
    schema: Annotated[
        bool, Parameter(negative=(), help="Describe the views of history, column by column, and run nothing.")
    ] = False,
    output: Annotated[
        SqlFormat, Parameter(name=["--output", "-o"], help="Format of the data; parquet needs --out.")
    ] = "table",
    out: Annotated[
        Path | None, Parameter(help="Write into this file, whole or not at all.", metavar="FILE")
    ] = None,
    limit: Annotated[int, Parameter(help="At most so many rows.", metavar="N")] = ROWS_MAX,
    timeout: Annotated[Duration, Parameter(help="Give up after this long.")] = 60.0,
    options: Connecting = CONNECTING,
) -> int:
    """Run a reading SQL statement over engine and history."""
    checked_limit(limit)
    if schema:
        if output == "parquet":
            raise BadInput("-o parquet is for answers; with --schema choose table, json, jsonl or csv")
        columns, rows = _described(statement, of_all=output != "table")
        _write(rows, columns, output, out)
        return 0
    if not statement:
        raise BadInput("there is no statement: write one, as in `olvm sql 'select name, status from vms'`")
    if output == "parquet" and out is None:
        raise BadInput("-o parquet is not for a terminal; say where with --out FILE")
    text = sys.stdin.read(STATEMENT_BYTES_MAX + 1) if statement == "-" else statement
    if len(text) > STATEMENT_BYTES_MAX:
        raise BadInput(f"the statement is longer than {STATEMENT_BYTES_MAX} characters; shorten it")
    with data_center(options) as dc:
        result = dc.sql(text, timeout=timeout, limit=limit)
    _write_answer(result, output, out)
    if result.truncated:
        print(f"olvm: these are the first {len(result)} rows; there are more with --limit", file=sys.stderr)
    return 0


def _described(view: str, of_all: bool) -> tuple[Sequence[str], list[Row]]:
    """What the views mean; needs no data center, as they are of this release.

    Without `of_all`, all views have a line each and one view is read in full.
    """
    from olvm.history.catalog import schema_rows

    rows = schema_rows()
    names = list(dict.fromkeys(row["view"] for row in rows))
    if view and view not in names:
        raise NotFound(f"there is no view {view}{nearest(view, names)}; `olvm sql --schema` lists all")
    picked: list[Row] = [row for row in rows if view in ("", row["view"])]
    if of_all:
        return ("view", "column", "meaning"), picked
    if view:
        return ("view", "column", "meaning"), [row for row in picked if row["column"]]
    return ("view", "meaning"), [row for row in picked if not row["column"]]


def _write_answer(result: Result, output: SqlFormat, out: Path | None) -> None:
    if output == "parquet":
        assert out is not None
        with whole_file(out) as part:
            result.write_parquet(part)
    else:
        columns = distinct(result.columns)
        rows = [dict(zip(columns, row, strict=True)) for row in result.rows()]
        _write(rows, columns, output, out)
    if out is not None:
        print(f"olvm: {len(result)} rows in {out}", file=sys.stderr)


def _write(rows: Sequence[Row], columns: Sequence[str], output: OutputFormat, out: Path | None) -> None:
    if out is None:
        write_rows(rows, columns, output)
    else:
        with whole_file(out) as part, part.open("w", encoding="utf-8") as stream:
            write_rows(rows, columns, output, stream)
