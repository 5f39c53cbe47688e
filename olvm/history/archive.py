"""Old days of hourly rows in Parquet files beside history.duckdb, behind the same views.

Rules:
1. A file is part of history exactly while `archive_files` lists it. Listing it, deleting its rows from the table and
   showing it in the view is one transaction, after the file is on disk under its name: a row is never seen twice, and
   never not at all. What is not listed is the leaving of a crash, and is removed when the file is opened.
2. A file holds what the view shows, names and not keys, and is readable by anyone who reads Parquet. A file of an older
   release may have fewer columns: what it has not is NULL.
3. Only days that no report can change any more are moved.
"""

# Statements are built from names of our own tables, numbers and quoted paths.
# ruff: noqa: S608

from __future__ import annotations

import datetime as dt
import json
import os
import re
from pathlib import Path
from typing import Final

import duckdb

from olvm.history.kinds import KIND_BY_NAME, KINDS, SampleKind
from olvm.history.rollups import DAY_S, rollup_table
from olvm.history.schema import one_view_statements, quoted
from olvm.history.views import statistics_view

_FILE_NAME: Final = re.compile(rf"({'|'.join(KIND_BY_NAME)})_hourly-\d{{4}}-\d\d-\d\d\.parquet(\.part)?")


def archive_directory(path: Path) -> Path:
    """Where the Parquet files of the history file at `path` are."""
    return path.with_name(f"{path.stem}-parquet")


def days_to_move(con: duckdb.DuckDBPyConnection, before_s: int) -> list[tuple[SampleKind, int]]:
    """Kinds and starts of days, in seconds since 1970, of hourly rows that end before `before_s`."""
    found = []
    for kind in KINDS:
        con.execute(
            f"select distinct epoch(date_trunc('day', history_datetime))::BIGINT as day_s"
            f" from {rollup_table(kind, 'hourly')} where history_datetime < make_timestamp($1)",
            [(before_s - before_s % DAY_S) * 1_000_000],
        )
        found += [(kind, day_s) for (day_s,) in con.fetchall()]
    return sorted(found, key=lambda one: (one[1], one[0].name))


def move_day(con: duckdb.DuckDBPyConnection, directory: Path, kind: SampleKind, day_s: int) -> None:
    """Move one day, in a transaction of its own. After an error nothing has moved."""
    directory.mkdir(mode=0o700, exist_ok=True)
    day = dt.datetime.fromtimestamp(day_s, dt.UTC).date()
    file = directory / f"{kind.name}_hourly-{day.isoformat()}.parquet"
    part = file.with_name(f"{file.name}.part")
    starts, ends = (f"make_timestamp({at_s * 1_000_000})" for at_s in (day_s, day_s + DAY_S))
    of_day = f"s.history_datetime >= {starts} and s.history_datetime < {ends}"
    con.execute("begin")
    con.execute("select count(*) from archive_files where kind = $1 and bucket = " + starts, [kind.name])
    listed = con.fetchone()
    assert listed == (0,), f"{file.name} is part of history already, and the table has rows of that day"
    rows = f"{statistics_view(kind, 'hourly').select} where {of_day}"
    con.execute(
        f"copy ({rows} order by s.history_datetime) to {quoted(str(part))} (format parquet, compression zstd)"
    )
    _sync(part)
    os.replace(part, file)
    _sync(directory)
    con.execute(f"select count(*) from read_parquet({quoted(str(file))})")
    (row_count,) = con.fetchone() or (0,)
    con.execute(f"delete from {rollup_table(kind, 'hourly')} s where {of_day}")
    (deleted_count,) = con.fetchone() or (0,)
    assert row_count == deleted_count, f"{file.name} has {row_count} rows of {deleted_count}"
    con.execute(f"insert into archive_files values ($1, {starts}, $2, $3)", [kind.name, file.name, row_count])
    _show(con, directory)
    con.execute("commit")


def forget_days(con: duckdb.DuckDBPyConnection, directory: Path, before_s: int) -> None:
    """Take days that ended before `before_s` out of history, in a transaction; then remove their files."""
    con.execute(
        "select count(*) from archive_files where bucket + interval 1 day <= make_timestamp($1)",
        [before_s * 1_000_000],
    )
    if con.fetchone() == (0,):
        return
    con.execute("begin")
    con.execute(
        "delete from archive_files where bucket + interval 1 day <= make_timestamp($1)",
        [before_s * 1_000_000],
    )
    _show(con, directory)
    con.execute("commit")
    remove_leavings(con, directory)


def remove_leavings(con: duckdb.DuckDBPyConnection, directory: Path) -> None:
    """Remove files of ours that are not part of history."""
    if not directory.is_dir():
        return
    listed = {name for (name,) in con.execute("select file from archive_files").fetchall()}
    for file in directory.iterdir():
        if _FILE_NAME.fullmatch(file.name) and file.name not in listed:
            file.unlink()


def show_archive(con: duckdb.DuckDBPyConnection, directory: Path) -> int:
    """Have the views show the files that are there, if they do not; the number of listed files that are missing."""
    present = _present(con, directory)
    row = con.execute("select value from meta where key = 'parquet_shown'").fetchone()
    if json.loads(row[0] if row else "[]") != [str(file) for _, file in present]:
        con.execute("begin")
        _show(con, directory)
        con.execute("commit")
    (listed_count,) = con.execute("select count(*) from archive_files").fetchone() or (0,)
    return int(listed_count) - len(present)


def _present(con: duckdb.DuckDBPyConnection, directory: Path) -> list[tuple[str, Path]]:
    rows = con.execute("select kind, file from archive_files order by kind, bucket").fetchall()
    return [(kind, directory / name) for kind, name in rows if (directory / name).is_file()]


def _show(con: duckdb.DuckDBPyConnection, directory: Path) -> None:
    present = _present(con, directory)
    for kind in KINDS:
        view = statistics_view(kind, "hourly")
        files = ", ".join(quoted(str(file)) for name, file in present if name == kind.name)
        moved = f"select * from read_parquet([{files}], union_by_name = true)" if files else None
        for statement in one_view_statements(view, moved):
            con.execute(statement)
    shown = json.dumps([str(file) for _, file in present])
    con.execute("insert or replace into meta values ('parquet_shown', $1)", [shown])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
