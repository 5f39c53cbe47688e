"""Hours made of samples, and days made of hours: columns and statements. When they run is the store's affair.

Rules:
1. Time is UTC. An hour is 3600 s and a day is 86,400 s from midnight UTC: neither knows of daylight saving, so that no
   day has 23 or 25 hours and no local hour is counted twice. Local days are the question's affair (`timezone(...)`).
2. A row is of one object, on one host, in one status. Seconds are counted on whole seconds: a sample holds from its
   second to that of the object's next, at most `SAMPLE_HOLDS_S`; so the seconds of one object in one hour are never
   more than 3600, and what is missing was not observed. A sample holds over the end of its hour, too.
3. Averages are of samples (a day's: of its hours, weighted by their samples), in whole numbers, of floats in
   millionths. So the sum does not depend on the order, and a roll-up made again is the same to the bit.
4. `rollups_due` names what is to be made (again). Making it, and taking it off that list, is one transaction; a report
   puts the hours it touches on it in the transaction that stores it.
"""

# Statements are built from names of our own tables and from numbers.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import duckdb

from olvm.history.bounds import NS_PER_S, SAMPLE_HOLDS_S
from olvm.history.kinds import KINDS, SampleColumn, SampleKind, SampleKindName
from olvm.history.row_table import Column

Grain = Literal["hourly", "daily"]

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
SECONDS_BY_GRAIN: Final[dict[Grain, int]] = {"hourly": HOUR_S, "daily": DAY_S}

Due = tuple[SampleKindName, int]  # kind, start of the hour in seconds since 1970


def rollup_table(kind: SampleKind, grain: Grain) -> str:
    return f"{kind.name}_{grain}"


def rollup_columns(kind: SampleKind, grain: Grain) -> tuple[Column, ...]:
    """The columns of such a table, in order."""
    of = "hour" if grain == "hourly" else "day"
    columns = [
        Column("history_datetime", "TIMESTAMP NOT NULL", f"Start of the {of}, UTC."),
        *(
            Column(key, "INTEGER", "See vm_names." if key == "vm_key" else "See texts.")
            for key in kind.group_keys
        ),
        Column("seconds_in_status", "INTEGER NOT NULL", seconds_comment(kind, of)),
        Column("sample_count", "INTEGER NOT NULL", f"Samples taken in that {of}."),
    ]
    for column in kind.columns:
        if column.is_counter:
            columns.append(Column(column.name, "BIGINT", f"{column.comment} The largest of the {of}."))
        else:
            columns.append(Column(column.name, _type(column), f"{column.comment} The average of the {of}."))
            columns.append(
                Column(f"max_{column.name}", _type(column), f"The largest {column.name} of the {of}.")
            )
    return tuple(columns)


def seconds_comment(kind: SampleKind, of: str) -> str:
    where = "in this status on this host" if kind.status else "on this host"
    return f"Seconds of the {of} in which it was observed {where}."


def hours_touched(kind: SampleKindName, at_ns: int) -> Iterable[Due]:
    """The hours that a report of this time changes: its own, and the next if it holds into that."""
    at_s = at_ns // NS_PER_S
    start_s = at_s - at_s % HOUR_S
    yield kind, start_s
    if at_s + SAMPLE_HOLDS_S > start_s + HOUR_S:
        yield kind, start_s + HOUR_S


def due_of(reports: Iterable[tuple[SampleKindName, int]]) -> set[Due]:
    """The hours that reports change, given by kind and time in ns."""
    return {due for kind, at_ns in set(reports) for due in hours_touched(kind, at_ns)}


def write_due(con: duckdb.DuckDBPyConnection, due: Iterable[Due]) -> None:
    rows = sorted(due)
    if rows:
        con.execute(
            "insert into rollups_due select 'hourly', unnest($1::VARCHAR[]),"
            " make_timestamp(unnest($2::BIGINT[]) * 1000000) on conflict do nothing",
            [[kind for kind, _ in rows], [start_s for _, start_s in rows]],
        )


def read_due(con: duckdb.DuckDBPyConnection, grain: Grain) -> list[Due]:
    """What is to be made, oldest first."""
    con.execute(
        "select kind, epoch(bucket)::BIGINT from rollups_due where grain = $1 order by bucket, kind", [grain]
    )
    return con.fetchall()


def roll_up(con: duckdb.DuckDBPyConnection, kind: SampleKind, grain: Grain, start_s: int) -> None:
    """Make one hour or day anew, inside a transaction of the caller.

    Cost: one pass over the samples of an hour and a sort of their times; of a day, over its hours.
    """
    table, bucket = rollup_table(kind, grain), f"make_timestamp({start_s * 1_000_000})"
    con.execute(f"delete from {table} where history_datetime = {bucket}")
    con.execute(hourly_sql(kind, start_s) if grain == "hourly" else daily_sql(kind, start_s))
    con.execute(
        f"delete from rollups_due where grain = '{grain}' and kind = $1 and bucket = {bucket}", [kind.name]
    )
    if grain == "hourly":
        if kind.device:
            con.execute(_devices_sql(kind, bucket))
        day_s = start_s - start_s % DAY_S
        con.execute(
            f"insert into rollups_due values ('daily', $1, make_timestamp({day_s * 1_000_000}))"
            " on conflict do nothing",
            [kind.name],
        )


def hourly_sql(kind: SampleKind, start_s: int) -> str:
    """Insert the rows of one hour. Seconds and figures are gathered apart: only times have to be sorted."""
    end_s, keys = start_s + HOUR_S, ", ".join(kind.group_keys)
    objects = ", ".join(kind.object_keys)
    starts, ends = f"make_timestamp({start_s * 1_000_000})", f"make_timestamp({end_s * 1_000_000})"
    before = f"make_timestamp({(start_s - SAMPLE_HOLDS_S) * 1_000_000})"
    same = " and ".join(f"f.{key} is not distinct from t.{key}" for key in kind.group_keys)
    figures = ", ".join(_hourly_figures(kind))
    return (
        f"insert into {rollup_table(kind, 'hourly')} with told as (select {keys},"
        f" epoch_us(history_datetime) // 1000000 as at_s, lead(epoch_us(history_datetime) // 1000000)"
        f" over (partition by {objects} order by history_datetime, {keys}) as next_s from {kind.table}"
        f" where history_datetime >= {before} and history_datetime < {ends}),"
        f" times as (select {keys}, sum(greatest(0, least(coalesce(next_s, {end_s}), at_s + {SAMPLE_HOLDS_S},"
        f" {end_s}) - greatest(at_s, {start_s})))::INTEGER as seconds from told group by all),"
        f" figures as (select {keys}, count(*)::INTEGER as sample_count, {figures} from {kind.table}"
        f" where history_datetime >= {starts} and history_datetime < {ends} group by {keys})"
        f" select {starts}, {', '.join(f't.{key}' for key in kind.group_keys)}, t.seconds,"
        f" coalesce(f.sample_count, 0), {', '.join(f'f.{name}' for name in _names(kind))}"
        f" from times t left join figures f on {same}"
        f" where t.seconds > 0 or f.sample_count > 0 order by {objects}"
    )


def daily_sql(kind: SampleKind, start_s: int) -> str:
    """Insert the rows of one day."""
    keys = ", ".join(kind.group_keys)
    starts = f"make_timestamp({start_s * 1_000_000})"
    ends = f"make_timestamp({(start_s + DAY_S) * 1_000_000})"
    return (
        f"insert into {rollup_table(kind, 'daily')} select {starts}, {keys},"
        f" sum(seconds_in_status)::INTEGER, sum(sample_count)::INTEGER, {', '.join(_daily_figures(kind))}"
        f" from {rollup_table(kind, 'hourly')} where history_datetime >= {starts} and history_datetime < {ends}"
        f" group by {keys} order by {', '.join(kind.object_keys)}"
    )


_SIZE_BY_KIND: Final = {
    "vm_disk": "max_vm_disk_size_mb",
    "vm_interface": "max_speed_mbps",
    "host_interface": "max_speed_mbps",
    "host_core": "NULL::BIGINT",
    "host_numa": "max_memory_size_mb",
    "host_storage": "max_total_disk_size_mb",
}


def _devices_sql(kind: SampleKind, bucket: str) -> str:
    """Which disks and interfaces there were in an hour: `devices` keeps what roll-ups and samples forget."""
    owner, device = kind.object_keys
    return (
        f"insert into devices select '{kind.name}', {owner}, {device}, max({_SIZE_BY_KIND[kind.name]}),"
        f" {bucket}, {bucket}"
        f" from {rollup_table(kind, 'hourly')} where history_datetime = {bucket} and {device} is not null"
        f" and {owner} is not null group by {owner}, {device}"
        " on conflict (kind, object_key, device_key) do update set"
        " size = case when excluded.last_seen >= devices.last_seen then coalesce(excluded.size, devices.size)"
        " else devices.size end, first_seen = least(devices.first_seen, excluded.first_seen),"
        " last_seen = greatest(devices.last_seen, excluded.last_seen)"
    )


def _names(kind: SampleKind) -> list[str]:
    names = []
    for column in kind.columns:
        names += [column.name] if column.is_counter else [column.name, f"max_{column.name}"]
    return names


def _hourly_figures(kind: SampleKind) -> list[str]:
    figures = []
    for column in kind.columns:
        name = column.name
        if column.is_counter:
            figures.append(f"max({name}) as {name}")
        else:
            average = _average(column, f"sum({_whole(column)})", f"count({name})")
            figures += [f"{average} as {name}", f"max({name}) as max_{name}"]
    return figures


def _daily_figures(kind: SampleKind) -> list[str]:
    figures = []
    for column in kind.columns:
        name = column.name
        if column.is_counter:
            figures.append(f"max({name})")
        else:
            weights = f"sum(sample_count) filter ({name} is not null)"
            figures += [
                _average(column, f"sum({_whole(column)}::HUGEINT * sample_count)", weights),
                f"max(max_{name})",
            ]
    return figures


def _whole(column: SampleColumn) -> str:
    return f"({column.name}::DOUBLE * 1000000)::BIGINT" if column.code == "f" else column.name


def _average(column: SampleColumn, total: str, count: str) -> str:
    divided = f"({total} // nullif({count}, 0))"
    return f"({divided}::DOUBLE / 1000000)" if column.code == "f" else f"{divided}::BIGINT"


def _type(column: SampleColumn) -> str:
    return "DOUBLE" if column.code == "f" else "BIGINT"


_GRAINS: Final[tuple[Grain, ...]] = ("hourly", "daily")
ROLLUP_TABLES: Final = tuple((kind, grain) for kind in KINDS for grain in _GRAINS)
