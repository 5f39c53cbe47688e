"""What was told and cannot be: how many values of which column, by day, machine and host, and how far off they were.

Rule: the counts are written in the transaction that stores the clipped samples, so that neither is there without the
other. Nothing here runs for reports in which everything is possible.
"""

# Statements are built from names of our own tables; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import duckdb

from olvm.history.kinds import SampleKind

CLIPPED_TABLE: Final = "clipped_values"
CREATION_STATEMENTS: Final = (
    f"create table if not exists {CLIPPED_TABLE} (day TIMESTAMP, kind VARCHAR, vm_id VARCHAR, host_name VARCHAR,"
    " column_name VARCHAR, value_count BIGINT NOT NULL, least_told DOUBLE, most_told DOUBLE, last_at TIMESTAMP,"
    " primary key (day, kind, vm_id, host_name, column_name))",
    f"comment on table {CLIPPED_TABLE} is 'Values beyond what is possible; read it through untrusted_values.'",
)


class Clips(NamedTuple):
    """The values of one column that were clipped: arrays of equal length. `vm_keys` is None of hosts."""

    column: str
    at: Any
    host_keys: Any
    vm_keys: Any
    told: Any


def write_clips(con: duckdb.DuckDBPyConnection, kind: SampleKind, clips: Sequence[Clips]) -> None:
    """Count them, inside a transaction of the caller. Cost: one statement a column that was clipped."""
    for clip in clips:
        arriving = {"at": clip.at, "host_key": clip.host_keys, "told": clip.told.astype("f8")}
        vm_id, join = "''", ""
        if clip.vm_keys is not None:
            arriving["vm_key"] = clip.vm_keys
            vm_id, join = "v.vm_id", "join vm_names v on v.vm_key = a.vm_key"
        con.register("arriving", arriving)
        try:
            con.execute(
                f"insert into {CLIPPED_TABLE} select date_trunc('day', a.at), $1, {vm_id}, h.text, $2, count(*),"
                f" min(a.told), max(a.told), max(a.at) from arriving a {join}"
                " join texts h on h.text_key = a.host_key group by all on conflict do update set"
                " value_count = value_count + excluded.value_count,"
                " least_told = least(least_told, excluded.least_told),"
                " most_told = greatest(most_told, excluded.most_told), last_at = greatest(last_at, excluded.last_at)",
                [kind.name, clip.column],
            )
        finally:
            con.unregister("arriving")
