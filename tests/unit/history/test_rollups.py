"""Hours are a function of samples and days a function of hours, whatever came when, and whatever crashed."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.history import report_buffer
from olvm.history.bounds import HOURLY_KEPT_S, NS_PER_S, ROLLUP_GRACE_S, ROW_GROUP_ROWS, SAMPLE_HOLDS_S
from olvm.history.store import HistoryStore
from tests.unit.history.building import NOW_NS, vm_report, vm_sample

ROOT = Path(__file__).parents[3]
HOUR_S, DAY_S = 3600, 86_400
MIDNIGHT_S = NOW_NS // NS_PER_S // DAY_S * DAY_S
LATER_NS = (MIDNIGHT_S + DAY_S + HOUR_S + 300) * NS_PER_S  # the first hour of the next day is over, too

SAMPLES = (  # with the keys, which decide who of the same instant is last
    "select epoch_us(history_datetime), vm_id, h.text, t.text, cpu_usage_percent, memory_used_mb, uptime_seconds,"
    " host_key, vm_status_key from vm_samples s join vm_names using (vm_key) join texts h on h.text_key = host_key"
    " join texts t on t.text_key = vm_status_key"
)
ROLLED = (
    "select epoch(history_datetime)::bigint, vm_id, currently_running_on_host, vm_status, seconds_in_status,"
    " sample_count, cpu_usage_percent, max_cpu_usage_percent, memory_used_mb, max_memory_used_mb, uptime_seconds"
    " from statistics_vms_resources_usage_{} order by all"
)
Figures = tuple[Any, ...]


def hours_of(samples: list[Figures]) -> list[Figures]:
    """f: the hourly rows, in plain Python and from the words of `olvm.history.rollups` alone."""
    by_vm: dict[str, list[Figures]] = defaultdict(list)
    for sample in samples:
        by_vm[sample[1]].append(sample)
    seconds: dict[Figures, int] = defaultdict(int)
    told: dict[Figures, list[Figures]] = defaultdict(list)
    for vm_id, of_vm in by_vm.items():
        of_vm.sort(key=lambda one: (one[0], *one[7:]))
        for sample, following in zip(of_vm, [*of_vm[1:], None], strict=True):
            start_s = sample[0] // 1_000_000
            end_s = start_s + SAMPLE_HOLDS_S
            if following is not None:
                end_s = min(end_s, following[0] // 1_000_000)
            for second in range(start_s, end_s):
                seconds[second - second % HOUR_S, vm_id, *sample[2:4]] += 1
            told[start_s - start_s % HOUR_S, vm_id, *sample[2:4]].append(sample)
    rows = []
    for key in {*seconds, *told}:
        cpus = [one[4] for one in told[key] if one[4] is not None]
        memories = [one[5] for one in told[key] if one[5] is not None]
        uptimes = [one[6] for one in told[key] if one[6] is not None]
        average = sum(round(cpu * 1_000_000) for cpu in cpus) // len(cpus) / 1_000_000 if cpus else None
        memory = sum(memories) // len(memories) if memories else None
        rows.append(
            (
                *(*key, seconds[key], len(told[key]), average, max(cpus, default=None), memory),
                *(max(memories, default=None), max(uptimes, default=None)),
            )
        )
    return sorted(rows, key=str)


def days_of(hours: list[Figures]) -> list[Figures]:
    """f: the daily rows."""
    by_key: dict[Figures, list[Figures]] = defaultdict(list)
    for hour in hours:
        by_key[hour[0] - hour[0] % DAY_S, *hour[1:4]].append(hour)
    rows = []
    for key, of_key in by_key.items():

        def average(at: int, scale: int, rows: list[Figures] = of_key) -> float | None:
            known = [(round(one[at] * scale), one[5]) for one in rows if one[at] is not None]
            return sum(value * n for value, n in known) // sum(n for _, n in known) if known else None

        def largest(at: int, rows: list[Figures] = of_key) -> Any:
            return max((one[at] for one in rows if one[at] is not None), default=None)

        cpu = average(6, 1_000_000)
        rows.append(
            (
                *(*key, sum(one[4] for one in of_key), sum(one[5] for one in of_key)),
                *(
                    None if cpu is None else cpu / 1_000_000,
                    largest(7),
                    average(8, 1),
                    largest(9),
                    largest(10),
                ),
            )
        )
    return sorted(rows, key=str)


def rows_of(store: HistoryStore, sql: str) -> list[Figures]:
    return sorted((tuple(row) for row in store.query(sql).rows), key=str)


def check(store: HistoryStore) -> None:
    """Once everything is over."""
    store.commit()
    while True:
        store.maintain(LATER_NS)
        if not store.is_behind:
            break
    hours = rows_of(store, ROLLED.format("hourly"))
    assert hours == hours_of(rows_of(store, SAMPLES))
    assert rows_of(store, ROLLED.format("daily")) == [
        day for day in days_of(hours) if (day[0] + DAY_S + ROLLUP_GRACE_S) * NS_PER_S <= LATER_NS
    ]


telling = st.tuples(
    st.integers(0, 6 * HOUR_S * 4),  # quarters of a second after 18:00
    st.integers(0, 2),  # VM
    st.integers(0, 1),  # host
    st.sampled_from(["Up", "Paused"]),
    st.one_of(st.just(math.nan), st.floats(0, 100, width=32)),
    st.integers(-1, 2**33),
    st.sampled_from(["", "", "", "maintain", "reopen"]),
)


@pytest.mark.parametrize("row_group_rows", [ROW_GROUP_ROWS, 2])  # two rows fill a small one: reports pour in
@settings(max_examples=40, deadline=None)
@given(told=st.lists(telling, max_size=25))
def test_rollups_of_reports_in_any_order_are_functions_of_what_is_stored(
    told: list[Any], row_group_rows: int
) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_buffer, "ROW_GROUP_ROWS", row_group_rows)
        patch.setattr(report_buffer, "FILL_AGAIN_ROWS", 1)
        path = Path(directory) / "history.duckdb"
        store = HistoryStore.open(path)
        try:
            for seq, (quarters, vm, host, status, cpu, memory, then) in enumerate(told, 1):
                at_ns = (MIDNIGHT_S + 18 * HOUR_S) * NS_PER_S + quarters * NS_PER_S // 4
                sample = vm_sample(
                    f"vm-{vm}",
                    vm_status=status,
                    cpu_usage_percent=cpu,
                    memory_used_mb=memory,
                    uptime_seconds=seq,
                )
                report = vm_report(sample, host=f"kvm{host}", seq=seq, at_ns=at_ns)
                assert store.add_samples(report) == "accepted"
                assert store.add_samples(report) == "repeated"
                if then == "maintain":
                    store.maintain(at_ns + HOUR_S * NS_PER_S)
                elif then == "reopen":
                    store.close()
                    store = HistoryStore.open(path)
            check(store)
            check(store)
        finally:
            store.close()


def _tell_each(store: HistoryStore, times_s: list[int], status: str = "Up", first_seq: int = 1) -> None:
    for seq, at_s in enumerate(times_s, first_seq):
        sample = vm_sample(vm_status=status, memory_used_mb=at_s % 1000)
        store.add_samples(vm_report(sample, seq=seq, at_ns=at_s * NS_PER_S))


def test_seconds_in_status_are_whole_and_fill_the_hour(store: HistoryStore) -> None:
    start_s = MIDNIGHT_S + 3 * HOUR_S
    _tell_each(store, list(range(start_s - 15, start_s + 1000, 15)))
    _tell_each(store, list(range(start_s + 1005, start_s + HOUR_S, 15)), "Paused", 100)
    store.maintain(LATER_NS)
    of_hour = (
        "select vm_status, seconds_in_status from statistics_vms_resources_usage_hourly"
        " where hour(history_datetime) = 3"
    )
    assert rows_of(store, of_hour) == [("Paused", HOUR_S - 1005), ("Up", 1005)]
    check(store)


def test_hour_with_no_data_has_no_row_and_a_gap_is_not_counted(store: HistoryStore) -> None:
    start_s = MIDNIGHT_S + HOUR_S
    _tell_each(store, [start_s, start_s + 100, start_s + 4 * HOUR_S])
    store.maintain(LATER_NS)
    seconds = "select hour(history_datetime), seconds_in_status from statistics_vms_resources_usage_hourly"
    assert rows_of(store, seconds) == [(1, 100 + SAMPLE_HOLDS_S), (5, SAMPLE_HOLDS_S)]


def test_report_later_than_its_roll_up_has_hour_and_day_made_again(store: HistoryStore) -> None:
    at_s = MIDNIGHT_S + 20 * HOUR_S
    _tell_each(store, [at_s, at_s + 30])
    check(store)
    store.add_samples(vm_report(vm_sample(vm_status="Up"), seq=3, at_ns=(at_s + 10) * NS_PER_S))
    check(store)
    assert rows_of(store, "select sample_count from statistics_vms_resources_usage_daily") == [(3,)]


def test_report_of_an_hour_that_has_lost_samples_is_refused(store: HistoryStore) -> None:
    at_s = MIDNIGHT_S + HOUR_S // 2
    _tell_each(store, [at_s, at_s + HOUR_S])
    store.maintain((at_s + DAY_S + 60) * NS_PER_S)
    before = rows_of(store, ROLLED.format("hourly"))
    late = vm_report(vm_sample(), seq=9, at_ns=(at_s + 600) * NS_PER_S)  # of the erased sample's hour
    assert store.add_samples(late) == "expired"
    store.maintain((at_s + DAY_S + 120) * NS_PER_S)
    assert rows_of(store, ROLLED.format("hourly")) == before
    assert rows_of(store, "select count(*) from vm_samples") == [(1,)]


def test_samples_are_kept_until_their_hour_is_rolled_up(
    store: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("olvm.history.upkeep.ROLLUPS_PER_PASS", 1)
    monkeypatch.setattr("olvm.history.upkeep.ERASED_HOURS_PER_PASS", 1)
    _tell_each(store, [MIDNIGHT_S + hour * HOUR_S + 1 for hour in range(5)])
    weeks_later_ns = LATER_NS + 14 * DAY_S * NS_PER_S
    store.maintain(weeks_later_ns)
    assert store.is_behind
    assert rows_of(store, "select count(*) from vm_samples") == [(4,)]
    passes = 1
    while store.is_behind:
        store.maintain(weeks_later_ns)
        passes += 1
    assert passes >= 5
    assert rows_of(store, "select count(*) from vm_samples") == [(0,)]
    counted = "select sum(sample_count)::int from statistics_vms_resources_usage_"
    assert rows_of(store, counted + "hourly") == rows_of(store, counted + "daily") == [(5,)]


@pytest.mark.parametrize("day", ["2027-03-28", "2027-10-31"])  # 23 and 25 hours in Berlin
def test_daylight_saving_moves_no_hour(path: Path, monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        with HistoryStore.open(path) as store:
            (start_s,) = store.query(f"select epoch(timestamp '{day} 00:00:00')::bigint").rows[0]
            assert isinstance(start_s, int)
            _tell_each(store, [start_s + 60 * minute for minute in range(24 * 60)])
            while True:
                store.maintain((start_s + DAY_S + HOUR_S) * NS_PER_S)
                if not store.is_behind:
                    break
            hours = store.query(
                "select count(*), min(seconds_in_status), max(seconds_in_status)"
                " from statistics_vms_resources_usage_hourly where sample_count > 0"
            )
            assert hours.rows == [(24, HOUR_S, HOUR_S)]
            days = store.query(
                "select history_datetime, seconds_in_status from statistics_vms_resources_usage_daily"
            )
            assert days.rows == [(day, DAY_S)]
            local = store.query(
                "select count(distinct timezone('Europe/Berlin', timezone('UTC', history_datetime))"
                "::date) from statistics_vms_resources_usage_hourly where sample_count > 0"
            )
            assert local.rows == [(2,)]
    finally:
        monkeypatch.undo()
        time.tzset()


# ---------------------------------------------------------------- killed

_KILLED = """
import os, signal, sys
from olvm.history import archive, upkeep
from olvm.history.store import HistoryStore
from tests.unit.history.test_rollups import LATER_NS, MIDNIGHT_S, HOUR_S, _tell_each
path, where, now_ns = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = HistoryStore.open(path)
if where != "only_fill":
    module = {"roll_up": upkeep, "_sync": archive, "_show": archive, "remove_leavings": archive}[where]
    real, calls = getattr(module, where), []
    def killing(*arguments):
        calls.append(1)
        result = real(*arguments)
        if len(calls) == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(module, where, killing)
    store.maintain(now_ns)
    raise SystemExit("it was not reached")
_tell_each(store, [MIDNIGHT_S + 18 * HOUR_S + n * 300 for n in range(36)])
store.close()
"""


def _run(path: Path, where: str, now_ns: int = LATER_NS, call: int = 1) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(path), where, str(now_ns), str(call)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=dict(os.environ),
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.parametrize("call", [1, 2, 3])
def test_process_killed_in_a_roll_up_leaves_it_whole_or_not_there(path: Path, call: int) -> None:
    assert _run(path, "only_fill") == 0
    assert _run(path, "roll_up", call=call) == -signal.SIGKILL
    with HistoryStore.open(path) as store:
        made = "select count(distinct epoch(history_datetime))::int from vm_hourly"
        assert rows_of(store, made) == [(call - 1,)]
        due = "select count(*) from rollups_due where grain = 'hourly'"
        assert rows_of(store, due) == [(3 - (call - 1),)]
        check(store)


WEEKS_LATER_NS = LATER_NS + 10 * DAY_S * NS_PER_S


@pytest.mark.parametrize(("where", "call"), [("_sync", 1), ("_sync", 2), ("_show", 1), ("_show", 2)])
def test_process_killed_while_a_day_moves_to_parquet_neither_loses_nor_doubles_it(
    path: Path, where: str, call: int
) -> None:
    assert _run(path, "only_fill") == 0
    with HistoryStore.open(path) as store:
        check(store)
        before = rows_of(store, ROLLED.format("hourly"))
    died = _run(path, where, WEEKS_LATER_NS, call) if (where, call) != ("_show", 2) else None
    assert died in (None, -signal.SIGKILL)
    with HistoryStore.open(path) as store:
        assert rows_of(store, ROLLED.format("hourly")) == before
        if died is not None:
            assert rows_of(store, "select count(*) from archive_files") == [(0,)]
            assert list((path.parent / "history-parquet").iterdir()) == []
        store.maintain(WEEKS_LATER_NS)
        assert rows_of(store, "select count(*) from vm_hourly") == [(0,)]
        assert rows_of(store, ROLLED.format("hourly")) == before
    with HistoryStore.open(path) as store:
        assert rows_of(store, ROLLED.format("hourly")) == before


def test_days_in_parquet_are_shown_where_the_file_was_moved_and_go_when_their_time_is_over(
    path: Path, tmp_path: Path
) -> None:
    assert _run(path, "only_fill") == 0
    with HistoryStore.open(path) as store:
        check(store)
        before = rows_of(store, ROLLED.format("hourly"))
        days = rows_of(store, ROLLED.format("daily"))
        store.maintain(WEEKS_LATER_NS)
    moved = tmp_path / "elsewhere" / "history.duckdb"
    moved.parent.mkdir()
    path.rename(moved)
    (path.parent / "history-parquet").rename(moved.parent / "history-parquet")
    with HistoryStore.open(moved) as store:
        assert rows_of(store, ROLLED.format("hourly")) == before
        (file,) = (moved.parent / "history-parquet").iterdir()
        assert file.name.startswith("vm_hourly-")
        store.maintain(LATER_NS + (HOURLY_KEPT_S + DAY_S) * NS_PER_S)
        assert rows_of(store, ROLLED.format("hourly")) == []
        assert rows_of(store, ROLLED.format("daily")) == days
        assert not file.exists()


def test_parquet_file_of_an_older_release_has_fewer_columns_and_costs_the_others_none(path: Path) -> None:
    assert _run(path, "only_fill") == 0
    with HistoryStore.open(path) as store:
        check(store)
        store.maintain(WEEKS_LATER_NS)
        whole = rows_of(store, ROLLED.format("hourly"))
    (file,) = (path.parent / "history-parquet").iterdir()
    older = file.with_name("vm_hourly-2020-01-01.parquet")  # its columns are read first: it is the older one
    with duckdb.connect(str(path)) as con:
        con.execute(
            "copy (select * exclude (cpu_usage_percent, max_cpu_usage_percent)"
            f" replace (history_datetime - interval 10 year as history_datetime) from '{file}') to '{older}'"
        )
        con.execute("insert into archive_files values ('vm', timestamp '2020-01-01', $1, 1)", [older.name])
    with HistoryStore.open(path) as store:
        newer = rows_of(store, ROLLED.format("hourly") + " limit 100000")[-len(whole) :]
        assert newer == whole
        figures = "select count(cpu_usage_percent), count(*) from statistics_vms_resources_usage_hourly"
        (known, of_both) = rows_of(store, figures)[0]
        assert 0 < known <= of_both // 2


def test_parquet_file_that_is_missing_is_counted_and_the_rest_answers(path: Path) -> None:
    assert _run(path, "only_fill") == 0
    with HistoryStore.open(path) as store:
        check(store)
        store.maintain(WEEKS_LATER_NS)
    (file,) = (path.parent / "history-parquet").iterdir()
    file.unlink()
    with HistoryStore.open(path) as store:
        assert store.counters.missing_file_count == 1
        assert rows_of(store, ROLLED.format("hourly")) == []
        assert len(rows_of(store, ROLLED.format("daily"))) > 0


def test_clock_that_starts_years_ahead_erases_no_more_than_its_pace_allows(path: Path) -> None:
    """What would be gone at once is there while somebody may still set the clock right."""
    years_ns = 10 * 365 * DAY_S * NS_PER_S
    assert _run(path, "only_fill") == 0
    with HistoryStore.open(path) as store:
        check(store)
        everything = rows_of(store, ROLLED.format("hourly")), rows_of(store, ROLLED.format("daily"))
        samples = rows_of(store, "select count(*) from vm_samples")
        store.maintain(LATER_NS, 300 * NS_PER_S)
    with HistoryStore.open(path) as store:
        assert store.maintain(LATER_NS + years_ns, 300 * NS_PER_S) == 0
        assert (store.counters.distrusted_clock_count, store.clock_ahead_ns > 0) == (1, True)
        assert (rows_of(store, ROLLED.format("hourly")), rows_of(store, ROLLED.format("daily"))) == everything
        assert rows_of(store, "select count(*) from vm_samples") == samples
        store.maintain(LATER_NS + 600 * NS_PER_S, 300 * NS_PER_S)  # it has been set right
        assert (store.counters.distrusted_clock_count, store.clock_ahead_ns) == (1, 0)


def test_machine_that_was_off_for_weeks_catches_up_with_what_is_old(path: Path) -> None:
    assert _run(path, "only_fill") == 0
    with HistoryStore.open(path) as store:
        check(store)
        store.maintain(LATER_NS, 300 * NS_PER_S)
        hours = rows_of(store, ROLLED.format("hourly"))
        days = rows_of(store, ROLLED.format("daily"))
        assert hours
        late_ns = LATER_NS + (HOURLY_KEPT_S + DAY_S) * NS_PER_S
        for passed in range(61):  # an hour each
            late_ns += HOUR_S * NS_PER_S
            store.maintain(late_ns, HOUR_S * NS_PER_S)
            if passed == 48:
                assert rows_of(store, ROLLED.format("hourly")) == hours
        while store.clock_ahead_ns > 0 or store.is_behind:
            late_ns += HOUR_S * NS_PER_S
            store.maintain(late_ns, HOUR_S * NS_PER_S)
        assert rows_of(store, ROLLED.format("hourly")) == []
        assert rows_of(store, ROLLED.format("daily")) == days
