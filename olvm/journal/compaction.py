"""What keeps a journal file bounded: folding old turns into the baseline, and dropping acknowledged messages.

Each function is one transaction on the writer's connection; the caller decides when, and handles its failure.
"""

from __future__ import annotations

from typing import Final

import duckdb

from olvm.journal.migrations import BASELINE_COLUMNS, OUTBOX_COLUMNS
from olvm.journal.record_table import quoted
from olvm.journal.replay import final_images
from olvm.model.record import Record

# Turns folded by one transaction: about 0.2 s during which no turn is committed.
TURNS_PER_FOLD_MAX: Final = 20_000


def fold_turns(connection: duckdb.DuckDBPyConnection, up_to_seq: int, skipped: frozenset[str]) -> None:
    """Move the turns up to `up_to_seq` from the journal into the baseline."""
    connection.begin()
    turns = connection.execute(
        "select changes from journal where seq <= ? order by seq", [up_to_seq]
    ).fetchall()
    images = final_images((row[0] for row in turns), skipped)
    if images:
        tables, keys = [table for table, _ in images], [key for _, key in images]
        connection.execute(
            "delete from baseline where (table_name, key) in (select (unnest(?), unnest(?)))", [tables, keys]
        )
        kept = [(table, key, record) for (table, key), record in images.items() if record is not None]
        appender = connection.appender("baseline", columns=BASELINE_COLUMNS)
        appender.append_rows(kept)
        appender.flush()
    connection.execute("delete from journal where seq <= ?", [up_to_seq])
    connection.commit()


def drop_oldest(connection: duckdb.DuckDBPyConnection, record_type: type[Record], rows_kept_max: int) -> None:
    """Erase the oldest rows of a table that only grows, by `KEPT_BY`; rows without a value there are open and stay.

    Safe for `replay == tables` while the journal holds fewer turns than rows are kept: each newer row was written
    by a turn of its own, so the last image of an erased row is in the baseline, where it is erased too.
    """
    table, order, key = quoted(record_type.TABLE), quoted(record_type.KEPT_BY), quoted(record_type.KEY)
    oldest = (
        f"{order} <= (select {order} from {table} where {order} is not null "  # noqa: S608 - our own names
        f"order by {order} desc limit 1 offset {int(rows_kept_max)})"
    )
    connection.begin()
    connection.execute(
        f"delete from baseline where table_name = ? and key in (select {key} from {table} where {oldest})",  # noqa: S608
        [record_type.TABLE],
    )
    connection.execute(f"delete from {table} where {oldest}")  # noqa: S608 - our own names
    connection.commit()


def drop_acknowledged(connection: duckdb.DuckDBPyConnection, acknowledged: dict[str, int]) -> None:
    """Remove the messages that their destinations have confirmed, and all marks but the newest of each."""
    connection.begin()
    for destination, seq in acknowledged.items():
        connection.execute("delete from outbox where destination = ? and seq <= ?", [destination, seq])
    appender = connection.appender("outbox", columns=OUTBOX_COLUMNS)
    appender.append_rows([(destination, seq, None) for destination, seq in acknowledged.items()])
    appender.flush()
    connection.commit()
