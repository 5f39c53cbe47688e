"""Questions to history."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from olvm.history import opening, reader
from olvm.history.store import HistoryStore
from olvm.model.errors import BadInput, BadQuery, JournalUnwritable
from olvm.stopping import Stop
from tests.contracts.fault_driver import poll
from tests.unit.history.building import NOW_NS, event, vm_report, vm_sample

ENDLESS = "select sum(a.range * b.range) from range(10000000) a, range(10000000) b"


def _snapshot(path: Path) -> str:
    with duckdb.connect() as con:
        con.execute(f"copy (select 'vm-1' as id, 'prod' as cluster) to $${path}$$")
    return str(path)


def test_query_with_parameters_answers_columns_types_and_rows(store: HistoryStore) -> None:
    answer = store.query("select $1::int + 1 as n, 1.5::decimal(4, 1) as d, 2::hugeint ** 70 as h", [41])
    assert (answer.columns, answer.types[:2]) == (["n", "d", "h"], ["INTEGER", "DECIMAL(4,1)"])
    assert answer.rows[0][:2] == (42, 1.5)
    assert answer.truncated is False


def test_query_past_the_row_limit_is_truncated_and_says_so(store: HistoryStore) -> None:
    answer = store.query("select * from range(10)", row_count_max=3)
    assert (answer.rows, answer.truncated) == ([(0,), (1,), (2,)], True)
    assert store.query("select * from range(3)", row_count_max=3).truncated is False


def test_question_that_fills_the_memory_is_refused_and_the_writer_goes_on(store: HistoryStore) -> None:
    with pytest.raises(BadQuery, match="Out of Memory"):
        store.query("select length(string_agg(repeat('x', 1000) || range, '')) from range(3000000)")
    store.add_samples(vm_report())
    store.commit()
    assert store.query("select count(*) from vm_samples").rows == [(1,)]


def test_large_sort_goes_on_on_disk_within_its_memory(store: HistoryStore) -> None:
    sql = "select count(*) from (select repeat('x', 100) || range as a from range(4000000) order by a desc offset 1)"
    assert store.query(sql).rows == [(3_999_999,)]


def test_question_is_stopped_from_another_thread_with_the_reason(store: HistoryStore) -> None:
    stop = Stop()
    threading.Timer(0.2, stop.stop, ["its client has gone"]).start()
    with pytest.raises(BadQuery, match="stopped: its client has gone"):
        store.query(ENDLESS, stop=stop)


def test_question_that_was_stopped_before_it_began_does_not_run(store: HistoryStore) -> None:
    stop = Stop()
    stop.stop("its client has gone")
    with pytest.raises(BadQuery, match="its client has gone"):
        store.query(ENDLESS, stop=stop)


def test_commit_that_fails_stops_the_questions_beside_it(
    store: HistoryStore, disk_limit: Callable[[int | None], None]
) -> None:
    refusals: list[str] = []

    def ask() -> None:
        try:
            store.query(ENDLESS)
        except BadQuery as refusal:
            refusals.append(refusal.message)

    asking = threading.Thread(target=ask)
    asking.start()
    poll(lambda: len(store._questions._stops) == 1)
    store.add_samples(vm_report())
    disk_limit(0)
    with pytest.raises(JournalUnwritable):
        store.commit()
    disk_limit(None)
    asking.join()
    assert "history could not be written beside it" in refusals[0]
    store.commit()
    assert store.query("select count(*) from vm_samples").rows == [(1,)]


def test_samples_are_committed_while_a_question_runs(store: HistoryStore) -> None:
    stop = Stop()

    def ask() -> None:
        with pytest.raises(BadQuery, match="enough"):
            store.query(ENDLESS, stop=stop)

    asking = threading.Thread(target=ask)
    asking.start()
    for seq in range(1, 51):
        store.add_samples(vm_report(seq=seq))
        store.commit()
    store.maintain(NOW_NS)
    assert asking.is_alive()
    assert store.query("select count(*) from vm_samples").rows == [(50,)]
    stop.stop("enough")
    asking.join()


@pytest.mark.parametrize(
    ("bound", "most", "sql"),
    [
        (
            "QUESTIONS_MEMORY_MAX",
            20_000_000,
            "select median(range) from range(30000000)",
        ),  # all values at once
        (
            "QUESTIONS_SPILL_MAX",
            150_000_000,
            "select count(*) from (select repeat('x', 100) || range as a from range(9999999) order by a desc offset 1)",
        ),
    ],
)
def test_question_that_takes_much_is_stopped_before_the_writer_wants(
    store: HistoryStore, monkeypatch: pytest.MonkeyPatch, bound: str, most: int, sql: str
) -> None:
    monkeypatch.setattr(opening, bound, most)
    monkeypatch.setattr(reader, "MEMORY_LOOK_S", 0.01)
    first, told = Stop(), []

    def ask() -> None:
        try:
            store.query(ENDLESS, stop=first)
        except BadQuery as error:
            told.append(error.message)

    modest = threading.Thread(target=ask)
    modest.start()
    poll(lambda: len(store._questions._stops) == 1)
    with pytest.raises(BadQuery, match="questions took more than"):
        store.query(sql)
    assert first.reason == "", "the one that began before it goes on"
    store.add_samples(vm_report())
    store.commit()
    first.stop("enough")
    modest.join()
    assert told == ["the query was stopped: enough"]


def test_query_past_its_time_is_stopped_and_the_store_goes_on(store: HistoryStore) -> None:
    with pytest.raises(BadQuery, match="longer than"):
        store.query(ENDLESS, timeout_s=0.2)
    assert store.query("select 1").rows == [(1,)]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("insert into texts values (1, 'x')", "INSERT"),
        ("delete from events", "DELETE"),
        ("drop table events", "DROP"),
        ("copy events to '{dir}/stolen.csv'", "COPY"),
        ("explain analyze copy events to '{dir}/stolen.csv'", "EXPLAIN"),
        ("/* explain */ explain analyze copy events to '{dir}/stolen.csv'", "EXPLAIN"),
        ("EXPLAIN (ANALYZE) copy events to '{dir}/stolen.csv'", "ANALYZE"),
        ("attach '{dir}/other.duckdb' as other", "ATTACH"),
        ("set threads = 8", "SET"),
        ("commit", "TRANSACTION"),
        ("select 1; select 2", "2 statements"),
        ("", "0 statements"),
        ("selct 1", "syntax error"),
        ("select * from nowhere", "nowhere does not exist"),
        ("select * from read_csv('/etc/hostname')", "Permission"),
        ("select $1", "parameter"),
    ],
)
def test_query_that_is_not_one_reading_statement_is_refused(
    store: HistoryStore, tmp_path: Path, sql: str, why: str
) -> None:
    store.add_events("engine", [event(1)])
    store.commit()
    with pytest.raises(BadQuery, match=why) as caught:
        store.query(sql.replace("{dir}", str(tmp_path)))
    assert "\n" not in caught.value.message
    assert not list(tmp_path.glob("stolen*"))
    assert not list(tmp_path.glob("other*"))
    assert store.query("select count(*) from events").rows == [(1,)]


@pytest.mark.parametrize(
    "sql", ["explain select 1", "with a as (select 1) from a", "describe events", "show tables"]
)
def test_query_that_only_looks_is_answered(store: HistoryStore, sql: str) -> None:
    assert store.query(sql).rows


def test_query_joins_a_snapshot_with_history_for_that_question_only(
    store: HistoryStore, tmp_path: Path
) -> None:
    store.add_samples(vm_report(vm_sample("vm-1")))
    store.commit()
    sql = (
        "select v.cluster, s.cpu_usage_percent from statistics_vms_resources_usage_samples s"
        " join vms v on v.id = s.vm_id"
    )
    snapshots = {"vms": _snapshot(tmp_path / "it's vms.parquet")}
    assert store.query(sql, (), snapshots).rows == [("prod", 12.5)]
    with pytest.raises(BadQuery, match="vms does not exist"):
        store.query(sql)


def test_snapshot_outside_the_directory_or_misnamed_or_missing_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    outside = _snapshot(tmp_path / "vms.parquet")
    with HistoryStore.open(path, snapshot_directory=tmp_path / "snapshots") as store:
        with pytest.raises(BadInput, match="is outside"):
            store.query("select 1", (), {"vms": outside})
        with pytest.raises(BadInput, match="plain SQL name"):
            store.query("select 1", (), {'x" as select 1; --': outside})
        with pytest.raises(BadInput, match="cannot be read"):
            store.query("select 1", (), {"vms": str(tmp_path / "snapshots" / "none.parquet")})
        with pytest.raises(BadQuery, match="Permission"):
            store.query(f"select * from read_parquet('{outside}')")


def test_query_sees_committed_rows_only(store: HistoryStore) -> None:
    store.add_samples(vm_report())
    assert store.query("select count(*) from vm_samples").rows == [(0,)]
    store.commit()
    assert store.query("select count(*) from vm_samples").rows == [(1,)]
