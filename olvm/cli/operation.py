"""`olvm operation`: the durable record of every command, whoever gave it."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from olvm.cli.changes import wait_for_ids
from olvm.cli.connection import data_center
from olvm.cli.listing import list_records, show_record
from olvm.cli.options import CHANGING, LISTING, PRINTING, Changing, Listing, Printing

USUAL_COLUMNS = ("id", "kind", "target_name", "status", "progress_percent", "created_ns", "reason")
ROWS_USUALLY = 1000

app = App(name="operation", help="Operations: the durable record of every command.")


@app.command(name="list")
def list_(*, options: Listing = LISTING) -> int:
    """List operations, newest first."""
    with data_center(options) as dc:
        return list_records(dc.operations, options, USUAL_COLUMNS, ROWS_USUALLY)


@app.command
def show(operation_id: Annotated[str, Parameter(help="Id.")], /, *, options: Printing = PRINTING) -> int:
    """Show everything about one operation."""
    with data_center(options) as dc:
        return show_record(dc.operations.row(operation_id), options)


@app.command
def wait(
    operation_ids: Annotated[list[str], Parameter(help="Ids.")], /, *, options: Changing = CHANGING
) -> int:
    """Wait until operations have ended; fails as they did."""
    with data_center(options) as dc:
        return wait_for_ids(dc, operation_ids, options)
