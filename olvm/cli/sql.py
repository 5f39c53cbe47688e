"""`olvm sql`: one reading statement over the engine's tables and history, to the terminal or into a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from olvm.api.result import Result, distinct
from olvm.api.whole_files import whole_file
from olvm.cli.connection import data_center
from olvm.cli.listing import ROWS_MAX, checked_limit
from olvm.cli.options import CONNECTING, Connecting, Duration
from olvm.cli.output import write_rows
from olvm.model.errors import BadInput

STATEMENT_BYTES_MAX = 1024 * 1024

SqlFormat = Literal["table", "json", "jsonl", "csv", "parquet"]


def sql(
    statement: Annotated[
        str, Parameter(help="A statement that reads; `-` takes it from stdin.", allow_leading_hyphen=True)
    ],
    /,
    *,
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
    if output == "parquet" and out is None:
        raise BadInput("-o parquet is not for a terminal; say where with --out FILE")
    text = sys.stdin.read(STATEMENT_BYTES_MAX + 1) if statement == "-" else statement
    if len(text) > STATEMENT_BYTES_MAX:
        raise BadInput(f"the statement is longer than {STATEMENT_BYTES_MAX} characters; shorten it")
    with data_center(options) as dc:
        result = dc.sql(text, timeout=timeout, limit=limit)
    if out is None:
        _print(result, output, None)
    else:
        with whole_file(out) as part:
            _print(result, output, part)
        print(f"olvm: {len(result)} rows in {out}", file=sys.stderr)
    if result.truncated:
        print(f"olvm: these are the first {len(result)} rows; there are more with --limit", file=sys.stderr)
    return 0


def _print(result: Result, output: SqlFormat, path: Path | None) -> None:
    columns = distinct(result.columns)
    if output == "parquet":
        assert path is not None
        result.write_parquet(path)
        return
    rows = (dict(zip(columns, row, strict=True)) for row in result.rows())
    if path is None:
        write_rows(rows, columns, output)
    else:
        with path.open("w", encoding="utf-8") as stream:
            write_rows(rows, columns, output, stream)
