"""`olvm sql`: one reading statement over the engine's tables and history."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from olvm.cli.connection import data_center
from olvm.cli.listing import ROWS_MAX, checked_limit
from olvm.cli.options import CONNECTING, Connecting, Duration, OutputFormat
from olvm.cli.output import distinct, write_rows
from olvm.model.errors import BadInput

STATEMENT_BYTES_MAX = 1024 * 1024


def sql(
    statement: Annotated[
        str, Parameter(help="A statement that reads; `-` takes it from stdin.", allow_leading_hyphen=True)
    ],
    /,
    *,
    output: Annotated[OutputFormat, Parameter(name=["--output", "-o"], help="Format of the data.")] = "table",
    limit: Annotated[int, Parameter(help="At most so many rows.", metavar="N")] = ROWS_MAX,
    timeout: Annotated[Duration, Parameter(help="Give up after this long.")] = 60.0,
    options: Connecting = CONNECTING,
) -> int:
    """Run a reading SQL statement over engine and history."""
    checked_limit(limit)
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
