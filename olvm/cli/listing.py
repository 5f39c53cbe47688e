"""What every `list` and `show` does: typed records, the columns that were asked for, rows on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from olvm.cli.options import Listing, Printing
from olvm.cli.output import chosen_columns, write_object, write_rows
from olvm.model.errors import BadInput
from olvm.model.record import Record

# Without --limit: more than a person or a shell pipeline reads, and a bound all the same.
ROWS_MAX = 100_000


class Collection(Protocol):
    @property
    def record(self) -> type[Record]: ...

    def rows(self, where: str = "", limit: int = ROWS_MAX) -> Sequence[Record]: ...


def list_records(
    collection: Collection, options: Listing, usual: Sequence[str], limit: int = ROWS_MAX
) -> int:
    """Print the records that match. A list that the bound cut short says so on stderr."""
    known = fields_of_record(collection.record)
    columns = chosen_columns(options.columns, known, usual if options.output == "table" else known)
    row_count_max = checked_limit(options.limit) or limit
    records = collection.rows(options.where, row_count_max)
    write_rows((as_row(record) for record in records), columns, options.output)
    if options.limit is None and len(records) == row_count_max:
        print(f"olvm: these are the first {row_count_max}; there may be more with --limit", file=sys.stderr)
    return 0


def show_record(record: Record, options: Printing) -> int:
    known = fields_of_record(type(record))
    write_object(as_row(record), chosen_columns(options.columns, known, known), options.output)
    return 0


def fields_of_record(record: type[Record]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(record))


def as_row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(record)
    return row


def checked_limit(limit: int | None) -> int | None:
    if limit is not None and limit < 1:
        raise BadInput(f"--limit {limit} shows nothing; use 1 or more")
    return limit
