"""`olvm history`: what was, as a whole."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from olvm.cli.connection import data_center
from olvm.cli.options import PRINTING, Duration, Printing
from olvm.cli.output import chosen_columns, write_rows
from olvm.model.errors import BadInput
from olvm.model.limits import NS_PER_S
from olvm.model.sizes import format_size, parse_duration

app = App(name="history", help="History: what was measured and what happened, as a whole.")

COLUMNS = ("table", "rows")


@app.command
def export(
    *,
    out: Annotated[
        Path, Parameter(help="File, or directory for parquet; it must not be there yet.", metavar="PATH")
    ],
    format: Annotated[  # noqa: A002 - the option's name
        Literal["duckdb", "parquet"], Parameter(help="One DuckDB file, or a Parquet file for each table.")
    ] = "duckdb",
    from_: Annotated[
        str,
        Parameter(
            name="--from", help="From this time on: ISO 8601, or `24h` for so long ago.", metavar="TIME"
        ),
    ] = "",
    to: Annotated[str, Parameter(help="Before this time.", metavar="TIME")] = "",
    timeout: Annotated[Duration, Parameter(help="Give up after this long.")] = 3600.0,
    options: Printing = PRINTING,
) -> int:
    """Copy history as of one moment, while the data center runs; whole or not at all."""
    columns = chosen_columns(options.columns, COLUMNS, COLUMNS)
    now_ns = time.time_ns()
    start_ns, end_ns = moment_ns(from_, now_ns), moment_ns(to, now_ns)
    with data_center(options) as dc:
        exported = dc.history.export(out, format=format, start_ns=start_ns, end_ns=end_ns, timeout=timeout)
    rows = [{"table": name, "rows": count} for name, count in sorted(exported.rows_by_table.items())]
    write_rows(rows, columns, options.output)
    print(f"olvm: {out} holds {format_size(exported.byte_count)}", file=sys.stderr)
    return 0


def moment_ns(text: str, now_ns: int) -> int | None:
    """A time in nanoseconds since 1970: `2026-01-31`, `2026-01-31T12:00+01:00`, or `24h`, which is so long ago.

    Without a zone it is the local time. Raises BadInput.
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text).astimezone()
        return int(moment.timestamp() * 1_000_000) * 1_000
    except (ValueError, OverflowError):
        pass  # then it is a duration
    try:
        return now_ns - int(parse_duration(text) * NS_PER_S)
    except BadInput as error:
        raise BadInput(f"{text!r} is no time; write 2026-01-31, 2026-01-31T12:00:00 or 24h") from error
