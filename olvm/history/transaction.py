"""The statements of one commit and of recovery: SQL, and nothing about when.

Each function works on a connection inside a transaction of the caller, and lets DuckDB's errors through.
"""

# Statements are built from names of our own tables; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb

from olvm.history.bounds import REPORT_WINDOW
from olvm.history.clipped import CLIPPED_TABLE, write_clips
from olvm.history.columns import (
    KeyedBatch,
    insert_reports_sql,
    insert_samples_sql,
    report_columns,
    sample_columns,
)
from olvm.history.dictionary import TextKeys, VmKeys
from olvm.history.kinds import KIND_BY_NAME, KINDS
from olvm.history.rollups import ROLLUP_TABLES, rollup_table
from olvm.history.row_table import Row, RowTable

ReportName = tuple[str, int, int, int]  # kind, host key, host epoch, seq


def write_dictionaries(con: duckdb.DuckDBPyConnection, texts: TextKeys, vms: VmKeys) -> None:
    """The keys that the samples of this commit may name for the first time."""
    if texts.new_rows:
        keys, values = zip(*texts.new_rows, strict=True)
        con.execute(
            "insert into texts select unnest($1::INTEGER[]), unnest($2::VARCHAR[])",
            [list(keys), list(values)],
        )
    if vms.new_rows:
        ids, names = zip(*vms.new_rows.values(), strict=True)
        con.execute(
            "insert into vm_names select unnest($1::INTEGER[]), unnest($2::VARCHAR[]), unnest($3::VARCHAR[])",
            [list(vms.new_rows), list(ids), list(names)],
        )
    if vms.renamed:
        con.execute(
            "update vm_names set vm_name = r.vm_name from (select unnest($1::INTEGER[]) as vm_key,"
            " unnest($2::VARCHAR[]) as vm_name) r where vm_names.vm_key = r.vm_key",
            [list(vms.renamed), list(vms.renamed.values())],
        )


def write_samples(con: duckdb.DuckDBPyConnection, batches: Sequence[KeyedBatch]) -> int:
    """All rows of these reports, and one row for each report; how many values had to be clipped."""
    clipped_count = 0
    by_kind: dict[str, list[KeyedBatch]] = {}
    for keyed in batches:
        by_kind.setdefault(keyed.batch.kind, []).append(keyed)
    for kind_name, of_kind in by_kind.items():
        kind = KIND_BY_NAME[kind_name]
        columns, clips = sample_columns(kind, of_kind)
        clipped_count += sum(len(clip.told) for clip in clips)
        write_clips(con, kind, clips)
        _insert(con, insert_samples_sql(kind, "arriving", columns), columns)
        _insert(con, insert_reports_sql(kind, "arriving"), report_columns(of_kind))
    return clipped_count


def write_rows(con: duckdb.DuckDBPyConnection, table: RowTable, rows: Sequence[Row]) -> None:
    """Rows with distinct keys; a key that the table holds does what the table says."""
    if rows:
        values = zip(*rows, strict=True)
        parameters = {
            column.name: list(of_column) for column, of_column in zip(table.columns, values, strict=True)
        }
        con.execute(table.insert_sql, parameters)


def write_event_cursors(con: duckdb.DuckDBPyConnection, seq_by_source: Mapping[str, int]) -> None:
    if seq_by_source:
        con.execute(
            "insert into event_sources select unnest($1::VARCHAR[]), unnest($2::BIGINT[])"
            " on conflict (source) do update set last_seq = excluded.last_seq",
            [list(seq_by_source), list(seq_by_source.values())],
        )


def read_event_cursors(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    return dict(con.execute("select source, last_seq from event_sources").fetchall())


def read_dictionaries(con: duckdb.DuckDBPyConnection, texts: TextKeys, vms: VmKeys) -> None:
    texts.learn(con.execute("select text_key, text from texts").fetchall())
    vms.learn(con.execute("select vm_key, vm_id, vm_name from vm_names").fetchall())


def read_horizon_ns(con: duckdb.DuckDBPyConnection) -> int:
    row = con.execute("select value from meta where key = 'samples_erased_before_ns'").fetchone()
    return int(row[0]) if row else 0


def read_newest_reports(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str, int, int]]:
    """Kind, host, epoch and seq of what a report window is made of, oldest first."""
    # The newest of each host are picked, not sorted: a day of a large data center has millions of reports.
    con.execute(
        "select r.kind, t.text, r.host_epoch, r.seq from (select kind, host_key,"
        f" unnest(max(struct_pack(host_epoch, seq), {REPORT_WINDOW}), recursive := true)"
        " from sample_reports group by kind, host_key) r"
        " join texts t on t.text_key = r.host_key order by r.host_epoch, r.seq"
    )
    yield from con.fetchall()


def read_oldest_report_ns(con: duckdb.DuckDBPyConnection) -> int | None:
    row = con.execute("select epoch_us(min(history_datetime)) from sample_reports").fetchone()
    return None if row is None or row[0] is None else int(row[0]) * 1000


def read_newest_report_ns(con: duckdb.DuckDBPyConnection) -> int | None:
    row = con.execute("select epoch_us(max(history_datetime)) from sample_reports").fetchone()
    return None if row is None or row[0] is None else int(row[0]) * 1000


def read_reports_since(con: duckdb.DuckDBPyConnection, at_ns: int) -> set[ReportName]:
    con.execute(
        "select kind, host_key, host_epoch, seq from sample_reports"
        " where history_datetime >= make_timestamp($1)",
        [at_ns // 1000],
    )
    return set(con.fetchall())


def erase_expired(
    con: duckdb.DuckDBPyConnection, horizon_ns: int, events_horizon_ns: int, operations_horizon_ns: int
) -> int:
    """Erase samples, events and operations before their horizons; the number of sample rows erased."""
    erased_count = 0
    for table in (*(kind.table for kind in KINDS), "sample_reports"):
        con.execute(f"delete from {table} where history_datetime < make_timestamp($1)", [horizon_ns // 1000])
        row = con.fetchone()
        erased_count += row[0] if row and table != "sample_reports" else 0
    con.execute("delete from events where log_time < make_timestamp($1)", [max(events_horizon_ns, 0) // 1000])
    con.execute(
        f"delete from {CLIPPED_TABLE} where last_at < make_timestamp($1)", [max(events_horizon_ns, 0) // 1000]
    )
    con.execute(
        "delete from operations_history where finished_at < make_timestamp($1)",
        [max(operations_horizon_ns, 0) // 1000],
    )
    con.execute(
        "insert or replace into meta values ('samples_erased_before_ns', $1::VARCHAR)", [str(horizon_ns)]
    )
    return erased_count


def erase_unused_texts(con: duckdb.DuckDBPyConnection) -> list[tuple[int, str]]:
    """Erase texts that no sample, roll-up, device or report names; those that are left."""
    used = [
        "select host_key as text_key from sample_reports",
        "select device_key from devices",
        "select object_key from devices where kind like 'host_%'",
    ]
    for kind in KINDS:
        used += [
            f"select host_key from {kind.table}",
            *(_keys_of(kind.table, f"{name}_key") for name, _ in kind.texts),
        ]
    for kind, grain in ROLLUP_TABLES:
        texts = [key for key in kind.group_keys if key != "vm_key"]
        used += [_keys_of(rollup_table(kind, grain), key) for key in texts]
    con.execute(f"delete from texts where text_key not in ({' union '.join(used)})")
    return con.execute("select text_key, text from texts").fetchall()


def _keys_of(table: str, key: str) -> str:
    return f"select {key} from {table} where {key} is not null"


def _insert(con: duckdb.DuckDBPyConnection, sql: str, columns: dict[str, Any]) -> None:
    # Registered, because the replacement scan of Python variables is off with external access.
    con.register("arriving", columns)
    try:
        con.execute(sql)
    finally:
        con.unregister("arriving")
