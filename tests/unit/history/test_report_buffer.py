"""Reports that fill row groups of DuckDB's to the last row are stored by themselves, and nothing is lost or doubled."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import duckdb
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from olvm.history import report_buffer
from olvm.history.bounds import NS_PER_S, ROW_GROUP_ROWS, ROWS_PER_COMMIT, SAMPLES_PER_COMMIT
from olvm.history.columns import KeyedBatch
from olvm.history.report_buffer import ReportBuffer, picked_to_fill
from olvm.history.samples import HostSample, SampleBatch, decode_batch, encode_host_sample, heading_of
from olvm.history.store import HistoryStore
from olvm.model.errors import JournalUnwritable
from tests.unit.history.building import NOW_NS, event, vm_report, vm_sample

GROUP = 20


def keyed(rows: int, seq: int, kind: str = "vm", host: int = 0) -> KeyedBatch:
    batch = msgspec.structs.replace(of_size(1), row_count=rows, seq=seq, kind=kind)
    return KeyedBatch(batch, host, b"", ())


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=14))
@example([(0, 7)] * 14)
@example([(0, 3), (0, 3), (1, 12), (0, 3), (1, 2)])
@example([(0, 0), (1, 20), (2, 0)])
def test_what_is_picked_fills_row_groups_if_any_choice_of_each_hosts_oldest_does(
    arriving: list[tuple[int, int]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_buffer, "ROW_GROUP_ROWS", GROUP)
        picked = picked_to_fill([keyed(rows, seq, host=host) for seq, (host, rows) in enumerate(arriving)])
    names = {one.batch.seq for one in picked}
    assert len(names) == len(picked)
    reachable = {0}
    for host in range(4):
        of_host = [(seq, rows) for seq, (whose, rows) in enumerate(arriving) if whose == host]
        taken = [seq in names for seq, _ in of_host]
        assert taken == sorted(taken, reverse=True), "no report overtakes an older one of its host"
        choices = itertools.accumulate((rows for _, rows in of_host), initial=0)
        reachable = {before + rows for rows in choices for before in reachable}
    wanted = sum(rows for _, rows in arriving) // GROUP * GROUP
    if wanted and wanted in reachable:
        assert sum(one.batch.row_count for one in picked) == wanted
    else:
        assert picked == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["vm", "vm_disk"]), st.integers(0, 12)), max_size=60))
def test_buffer_counts_its_rows_whatever_is_taken_out(arriving: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_buffer, "ROW_GROUP_ROWS", GROUP)
        patch.setattr(report_buffer, "FILL_AGAIN_ROWS", 3)
        buffer, stored = ReportBuffer(), []
        for seq, (kind, rows) in enumerate(arriving):
            if buffer.add(keyed(rows, seq, kind)):
                filling = buffer.filling()
                for name in ("vm", "vm_disk"):
                    taken = sum(one.batch.row_count for one in filling if one.batch.kind == name)
                    assert taken % GROUP == 0 if name in buffer.pouring else 2 * taken < GROUP
                buffer.remove(filling)
                stored += filling
            if len(buffer) > 40:
                stored.append(buffer.drop_oldest())
        assert buffer.row_count == sum(one.batch.row_count for one in buffer)
        told = sorted(one.batch.seq for one in itertools.chain(stored, buffer))
        assert told == list(range(len(arriving)))


def row_groups(store: HistoryStore, table: str) -> list[int]:
    assert store._con is not None
    rows = store._con.execute(
        "select max(rows) from (select row_group_id, column_id, sum(count) as rows"
        f" from pragma_storage_info('{table}') where segment_type <> 'VALIDITY' group by all)"
        " group by row_group_id order by row_group_id"
    ).fetchall()
    return [rows for (rows,) in rows]


@cache
def of_size(rows: int) -> SampleBatch:
    return decode_batch(vm_report(*[vm_sample(f"vm-{n}") for n in range(rows)]))


def reports(row_count: int, first_round: int = 1) -> Iterator[bytes]:
    """Of 50 hosts in turn, with 90 to 106 machines each, until they have at least so many rows."""
    for number in itertools.count(50 * first_round):
        if row_count <= 0:
            break
        seq, host = divmod(number, 50)
        batch = of_size(90 + number % 17)
        yield msgspec.msgpack.encode(msgspec.structs.replace(batch, seq=seq, host=f"kvm{host:02}"))
        row_count -= batch.row_count


def pour(store: HistoryStore, payloads: Iterable[bytes]) -> None:
    for payload in payloads:
        store.add_samples(payload)


def rows_of(payloads: Iterable[bytes]) -> int:
    return sum(heading_of(payload).row_count for payload in payloads)


def test_reports_that_fill_row_groups_are_committed_and_the_rest_waits(tmp_path: Path) -> None:
    with HistoryStore.open(tmp_path / "history.duckdb") as store:
        store.add_samples(encode_host_sample(HostSample(), host="h1", at_ns=NOW_NS, host_epoch=1, seq=1))
        payloads = list(reports(2 * ROW_GROUP_ROWS + 10_000))
        poured = rows_of(payloads)
        pour(store, payloads)
        assert store.counters.sample_count == 2 * ROW_GROUP_ROWS + 1
        assert row_groups(store, "vm_samples") == [ROW_GROUP_ROWS] * 2
        assert store.query("select count(*) from host_samples").rows == [(1,)], "it keeps nothing waiting"
        log = store._log_bytes()
        assert log < 1_000_000, "what fills row groups does not go through the log"
        store.commit()
        assert store.query("select count(*) from vm_samples").rows == [(poured,)]
        assert row_groups(store, "vm_samples") == [ROW_GROUP_ROWS] * 2 + [poured - 2 * ROW_GROUP_ROWS]
        assert store.query("select sum(row_count) from sample_reports").rows == [(poured + 1,)]


def test_what_a_kill_between_the_two_transactions_leaves_is_whole_and_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.duckdb"
    payloads = list(reports(ROW_GROUP_ROWS + 10_000))
    store = HistoryStore.open(path)
    pour(store, payloads)
    assert store.counters.sample_count == ROW_GROUP_ROWS
    store._drop_connection("as if killed")
    monkeypatch.setattr("olvm.history.store._paths_open", set())
    with HistoryStore.open(path) as again:
        taken = sum(heading_of(one).row_count for one in payloads if again.add_samples(one) == "accepted")
        again.commit()
        assert taken == rows_of(payloads) - ROW_GROUP_ROWS
        assert again.query("select count(*) from vm_samples").rows == [(rows_of(payloads),)]
        stored = again.query("select count(*), sum(row_count) from sample_reports").rows
        assert stored == [(len(payloads), rows_of(payloads))]


def test_disk_that_refuses_what_fills_row_groups_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise duckdb.IOException("No space left on device")

    with HistoryStore.open(tmp_path / "history.duckdb") as store:
        with monkeypatch.context() as full:
            full.setattr("olvm.history.transaction.write_samples", refuse)
            with pytest.raises(JournalUnwritable):
                pour(store, reports(ROW_GROUP_ROWS + 10_000))
        buffered = store._reports.row_count
        assert buffered >= ROW_GROUP_ROWS
        more = list(reports(20_000, first_round=1_000))
        pour(store, more)  # it is not tried again with each of them
        assert (store.counters.failed_commit_count, store.counters.sample_count) == (1, 0)
        store.commit()
        assert store.query("select count(*) from vm_samples").rows == [(buffered + rows_of(more),)]
        assert store._next_try_sample_count == SAMPLES_PER_COMMIT


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_buffer, "ROW_GROUP_ROWS", GROUP)


@pytest.mark.usefixtures("small_groups")
def test_while_reports_pour_in_the_rest_waits_and_so_do_its_hours_and_what_they_need(tmp_path: Path) -> None:
    samples = [vm_sample(f"vm-{n}", vm_status="Up") for n in range(GROUP)]
    hour_ns = 3600 * NS_PER_S
    with HistoryStore.open(tmp_path / "history.duckdb", samples_kept_s=3600) as store:
        store.add_samples(vm_report(*samples, seq=1))
        store.add_samples(vm_report(*samples[:3], seq=2, host="kvm02"))
        store.add_samples(vm_report(*samples, seq=2, at_ns=NOW_NS + 4 * hour_ns))
        store.maintain(NOW_NS + 10 * hour_ns)
        assert store._reports.row_count == 3
        hours = "select count(distinct history_datetime), sum(sample_count)::int from vm_hourly"
        assert store.query(hours).rows == [(1, GROUP)], "only the hour that waits for no report"
        assert store.query("select count(*) from vm_samples").rows == [(2 * GROUP,)], "nothing is erased"
        store.commit()
        for _ in range(5):
            store.maintain(NOW_NS + 10 * hour_ns)
        assert store.query(hours).rows == [(2, 2 * GROUP + 3)]
        assert store.query("select count(*) from vm_samples").rows == [(0,)]


@pytest.mark.usefixtures("small_groups")
def test_events_that_are_enough_for_a_commit_leave_reports_that_wait_where_they_are(tmp_path: Path) -> None:
    samples = [vm_sample(f"vm-{n}") for n in range(GROUP)]
    with HistoryStore.open(tmp_path / "history.duckdb") as store:
        store.add_samples(vm_report(*samples, seq=1))
        store.add_samples(vm_report(*samples[:3], seq=2))
        store.add_events("engine", [event(seq) for seq in range(1, ROWS_PER_COMMIT + 1)])
        assert store.event_cursor("engine") == ROWS_PER_COMMIT
        assert store._reports.row_count == 3


@pytest.mark.usefixtures("small_groups")
def test_texts_that_only_waiting_reports_name_are_not_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("olvm.history.store.TEXTS_MAX", 2)
    samples = [vm_sample(f"vm-{n}", vm_status="Up") for n in range(GROUP)]
    with HistoryStore.open(tmp_path / "history.duckdb") as store:
        store.add_samples(vm_report(*samples, seq=1))
        store.add_samples(vm_report(vm_sample("vm-0", vm_status="Paused"), seq=2))
        assert store._reports.pouring
        store.maintain(NOW_NS)
        named = store.query(
            "select t.text from vm_samples join texts t on t.text_key = vm_status_key group by all"
        )
        assert sorted(named.rows) == [("Paused",), ("Up",)]
