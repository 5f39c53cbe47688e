"""`olvm operation`: the durable record of every command, whoever gave it."""

from __future__ import annotations

import time
from typing import Annotated

from cyclopts import App, Parameter

from olvm.api.data_center import DataCenter
from olvm.cli.changes import ASK_AGAIN_S, once_each, report
from olvm.cli.changes import USUAL_COLUMNS as WAITED_COLUMNS
from olvm.cli.connection import data_center
from olvm.cli.failures import Interrupted, goes_on
from olvm.cli.listing import as_row, fields_of_record, list_records, show_record
from olvm.cli.options import CHANGING, LISTING, PRINTING, Changing, Listing, Printing
from olvm.cli.output import chosen_columns
from olvm.model.errors import NotFound, OlvmError, WaitTimeout
from olvm.model.records import OperationRecord

KNOWN_COLUMNS = fields_of_record(OperationRecord)
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
    ids = once_each(operation_ids)
    columns = chosen_columns(options.columns, KNOWN_COLUMNS, WAITED_COLUMNS)
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    failed: list[OlvmError] = []
    open_ids: list[str] = []
    with data_center(options) as dc:
        try:
            for one in ids if options.wait else []:
                _wait(dc, one, deadline, failed, open_ids)
        except KeyboardInterrupt:
            raise Interrupted([one for one in ids if not _has_ended(dc, one)]) from None
        if open_ids:
            failed.append(WaitTimeout(f"not ended within {options.timeout:g} s; {goes_on(open_ids)}"))
        known = [
            one
            for one in ids
            if not any(isinstance(error, NotFound) and one in error.message for error in failed)
        ]
        rows = [as_row(dc.operations.row(one)) for one in known]
    return report(rows, columns, options.output, failed)


def _wait(
    dc: DataCenter, operation_id: str, deadline: float | None, failed: list[OlvmError], open_ids: list[str]
) -> None:
    """Wait for one, asking again now and then: so an engine that is gone is noticed."""
    while True:
        left_s = ASK_AGAIN_S if deadline is None else min(ASK_AGAIN_S, max(0.0, deadline - time.monotonic()))
        try:
            dc.operations.wait(operation_id, left_s)
        except WaitTimeout as error:
            if _has_ended(dc, operation_id):
                failed.append(error)
            elif deadline is not None and time.monotonic() >= deadline:
                open_ids.append(operation_id)
            else:
                continue
        except OlvmError as error:
            failed.append(error)
        return


def _has_ended(dc: DataCenter, operation_id: str) -> bool:
    return dc.operations.row(operation_id).finished_ns is not None
