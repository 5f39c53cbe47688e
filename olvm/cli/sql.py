"""`olvm sql`: one reading statement over the engine's tables and history."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from olvm.cli.connection import data_center
from olvm.cli.listing import ROWS_MAX, checked_limit
from olvm.cli.options import CONNECTING, Connecting, Duration, OutputFormat
from olvm.cli.output import distinct, write_rows
from olvm.model.errors import BadInput, NotFound
from olvm.model.search import nearest

STATEMENT_BYTES_MAX = 1024 * 1024


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
    output: Annotated[OutputFormat, Parameter(name=["--output", "-o"], help="Format of the data.")] = "table",
    limit: Annotated[int, Parameter(help="At most so many rows.", metavar="N")] = ROWS_MAX,
    timeout: Annotated[Duration, Parameter(help="Give up after this long.")] = 60.0,
    options: Connecting = CONNECTING,
) -> int:
    """Run a reading SQL statement over engine and history."""
    checked_limit(limit)
    if schema:
        return _describe(statement, output)
    if not statement:
        raise BadInput("there is no statement: write one, as in `olvm sql 'select name, status from vms'`")
    text = sys.stdin.read(STATEMENT_BYTES_MAX + 1) if statement == "-" else statement
    if len(text) > STATEMENT_BYTES_MAX:
        raise BadInput(f"the statement is longer than {STATEMENT_BYTES_MAX} characters; shorten it")
    with data_center(options) as dc:
        result = dc.sql(text, timeout=timeout, limit=limit)
    columns = distinct(result.columns)
    write_rows((dict(zip(columns, row, strict=True)) for row in result.rows()), columns, output)
    if result.truncated:
        print(f"olvm: these are the first {len(result)} rows; there are more with --limit", file=sys.stderr)
    return 0


def _describe(view: str, output: OutputFormat) -> int:
    """Needs no data center: the views are of this release."""
    from olvm.history.catalog import schema_rows

    rows = schema_rows()
    names = list(dict.fromkeys(row["view"] for row in rows))
    if view and view not in names:
        raise NotFound(f"there is no view {view}{nearest(view, names)}; `olvm sql --schema` lists all")
    picked = [row for row in rows if view in ("", row["view"])]
    if not view and output == "table":  # a line for each; one view at a time is read in full
        write_rows([row for row in picked if not row["column"]], ("view", "meaning"), output)
    else:
        write_rows(
            [row for row in picked if row["column"] or output != "table"],
            ("view", "column", "meaning"),
            output,
        )
    return 0
