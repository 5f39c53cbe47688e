"""What history does with what it holds, a bounded piece at a time: roll up, move, erase.

Rules:
1. Samples are erased only when every hour that needs them has been rolled up, and after that no report may change
   such an hour: `first_open_ns` says from when on reports are taken.
2. Each piece is one transaction: after a crash it is there or it is not, and the next pass goes on.
3. What is erased goes by a time of its own, which no leap of the clock moves at once (`ERASING_PACE_MAX`).
4. One pass does no more than the bounds say; `is_behind` tells that there is more to do now.
"""

# Statements are built from names of our own tables; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import duckdb

from olvm.history import archive, transaction
from olvm.history.bounds import (
    ARCHIVED_DAYS_PER_PASS,
    DAILY_KEPT_S,
    ERASED_HOURS_PER_PASS,
    ERASING_PACE_MAX,
    EVENTS_KEPT_S,
    HOURLY_IN_FILE_S,
    HOURLY_KEPT_S,
    NS_PER_S,
    OPERATIONS_KEPT_S,
    ROLLUP_GRACE_S,
    ROLLUPS_PER_PASS,
    SAMPLE_HOLDS_S,
)
from olvm.history.kinds import KIND_BY_NAME
from olvm.history.rollups import (
    DAY_S,
    HOUR_S,
    ROLLUP_TABLES,
    SECONDS_BY_GRAIN,
    Due,
    Grain,
    read_due,
    roll_up,
    rollup_table,
)


class Pass(NamedTuple):
    """What one pass has come to. `horizon_ns`: samples before it have been erased.

    `clock_ahead_ns`: how far the clock is ahead of the time that erasing goes by.
    """

    erased_count: int
    rolled_up_count: int
    horizon_ns: int
    is_behind: bool
    clock_ahead_ns: int


class UpkeepClock(NamedTuple):
    """`elapsed_ns` has passed since the last pass, by a clock that cannot leap; None: `now_ns` is to be believed."""

    now_ns: int
    elapsed_ns: int | None


def first_open_ns(horizon_ns: int) -> int:
    """The first hour whose samples, and those that hold on into it, are all still there."""
    if horizon_ns <= 0:
        return 0
    hour_ns = HOUR_S * NS_PER_S
    return -(-(horizon_ns + SAMPLE_HOLDS_S * NS_PER_S) // hour_ns) * hour_ns


def run_pass(
    con: duckdb.DuckDBPyConnection,
    directory: Path,
    clock: UpkeepClock,
    samples_kept_ns: int,
    horizon_ns: int,
    waiting: Collection[Due],
) -> Pass:
    """One pass over everything; DuckDB's errors come through, and the transaction under way is then lost.

    `waiting`: hours that reports will change which are not stored yet. They are not made, nor what they need erased.
    """
    clock_ns, elapsed_ns = clock
    rolled_up_count = roll_up_due(con, clock_ns, ROLLUPS_PER_PASS, waiting)
    now_ns = clock_ns if elapsed_ns is None else _paced_ns(con, clock_ns, elapsed_ns)
    now_s = now_ns // NS_PER_S
    wanted_ns = max(horizon_ns, now_ns - samples_kept_ns, 0)
    reached_ns = max(horizon_ns, min(wanted_ns, _erasable_before_ns(con, waiting)))
    con.execute("begin")
    erased_count = transaction.erase_expired(
        con, reached_ns, now_ns - EVENTS_KEPT_S * NS_PER_S, now_ns - OPERATIONS_KEPT_S * NS_PER_S
    )
    for kind, grain in ROLLUP_TABLES:
        kept_s = HOURLY_KEPT_S if grain == "hourly" else DAILY_KEPT_S
        con.execute(
            f"delete from {rollup_table(kind, grain)} where history_datetime < make_timestamp($1)",
            [max(now_s - kept_s, 0) * 1_000_000],
        )
    con.execute("insert or replace into meta values ('erasing_time_ns', $1)", [str(now_ns)])
    con.execute("commit")
    archive.forget_days(con, directory, max(now_s - HOURLY_KEPT_S, 0))
    before_s = min(now_s - HOURLY_IN_FILE_S, first_open_ns(reached_ns) // NS_PER_S, _due_day_s(con))
    days = archive.days_to_move(con, max(before_s, 0))
    for kind, day_s in days[:ARCHIVED_DAYS_PER_PASS]:
        archive.move_day(con, directory, kind, day_s)
    is_behind = (
        rolled_up_count == ROLLUPS_PER_PASS or reached_ns < wanted_ns or len(days) > ARCHIVED_DAYS_PER_PASS
    )
    return Pass(erased_count, rolled_up_count, reached_ns, is_behind, clock_ns - now_ns)


def roll_up_due(con: duckdb.DuckDBPyConnection, now_ns: int, count_max: int, waiting: Collection[Due]) -> int:
    """Make hours, then days, that are over and do not wait, oldest first; how many were made."""
    made_count = 0
    waiting_days = {(kind, start_s - start_s % DAY_S) for kind, start_s in waiting}
    grains: tuple[Grain, ...] = ("hourly", "daily")
    for grain in grains:
        ripe_s = now_ns // NS_PER_S - ROLLUP_GRACE_S - SECONDS_BY_GRAIN[grain]
        held_back = waiting if grain == "hourly" else waiting_days
        ripe = [one for one in read_due(con, grain) if one[1] <= ripe_s and one not in held_back]
        for kind_name, start_s in ripe[: count_max - made_count]:
            con.execute("begin")
            roll_up(con, KIND_BY_NAME[kind_name], grain, start_s)
            con.execute("commit")
            made_count += 1
    return made_count


def _paced_ns(con: duckdb.DuckDBPyConnection, clock_ns: int, elapsed_ns: int) -> int:
    """The time to erase by. It begins at the clock, or, in a file of an older release, at the newest report."""
    row = con.execute("select value from meta where key = 'erasing_time_ns'").fetchone()
    last_ns = int(row[0]) if row is not None else transaction.read_newest_report_ns(con)
    return clock_ns if last_ns is None else min(clock_ns, last_ns + ERASING_PACE_MAX * max(elapsed_ns, 0))


def _erasable_before_ns(con: duckdb.DuckDBPyConnection, waiting: Collection[Due]) -> int:
    """Rule 1, and no more hours than the bound."""
    due_s = min((start_s for _, start_s in (*read_due(con, "hourly"), *waiting)), default=2**33)
    oldest_ns = transaction.read_oldest_report_ns(con)
    if oldest_ns is None:
        return (due_s - SAMPLE_HOLDS_S) * NS_PER_S
    return min((due_s - SAMPLE_HOLDS_S) * NS_PER_S, oldest_ns + ERASED_HOURS_PER_PASS * HOUR_S * NS_PER_S)


def _due_day_s(con: duckdb.DuckDBPyConnection) -> int:
    """A day that is to be made from its hours keeps them in the table."""
    return min((start_s for _, start_s in read_due(con, "daily")), default=2**33)
