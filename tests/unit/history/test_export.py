"""Copies of history: whole, of one moment, and readable by a DuckDB that knows nothing of ours."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from olvm.history.archive import archive_directory
from olvm.history.store import HistoryStore
from olvm.model.client_protocol import ExportHistory
from olvm.model.errors import BadQuery, JournalUnwritable
from olvm.stopping import Stop
from tests.unit.history.building import NOW_NS, event, vm_report, vm_sample

S = 10**9


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "copy"
    place.mkdir()
    return place


def fill(store: HistoryStore) -> None:
    for seq in range(1, 11):
        samples = [vm_sample(f"vm-{number}", vm_name=f"web-{number}") for number in range(5)]
        store.add_samples(vm_report(*samples, seq=seq, at_ns=NOW_NS + seq * S))
    store.add_events("engine", [event(seq, at_ns=NOW_NS + seq * S) for seq in range(1, 11)])
    store.commit()


def opened(place: Path, kind: str) -> duckdb.DuckDBPyConnection:
    if kind == "duckdb":
        return duckdb.connect(str(place / "history.duckdb"), read_only=True)
    con = duckdb.connect()
    con.execute(f"set file_search_path = '{place}'")
    con.execute((place / "open.sql").read_text())
    return con


def names(con: duckdb.DuckDBPyConnection) -> set[str]:
    return {
        name
        for (name,) in con.execute(
            "select table_name from duckdb_tables() where not internal union all"
            " select view_name from duckdb_views() where not internal"
        ).fetchall()
    }


@pytest.mark.parametrize("kind", ["duckdb", "parquet"])
def test_copy_has_every_table_and_view_with_its_rows(store: HistoryStore, place: Path, kind: str) -> None:
    fill(store)
    told = store.export(ExportHistory(kind), place, Stop())  # type: ignore[arg-type]
    assert (told.rows_by_table["vm_samples"], told.rows_by_table["events"]) == (50, 10)
    assert told.byte_count == sum(path.stat().st_size for path in place.iterdir())
    ours = {
        row[0]
        for row in store.query(
            "select table_name from duckdb_tables() union all select view_name from duckdb_views() where not internal"
        ).rows
    }
    with opened(place, kind) as con:
        assert names(con) == ours
        for name in sorted(ours):
            sql = f"select count(*) from {name}"
            assert con.execute(sql).fetchall() == store.query(sql).rows, name
        sql = "select distinct vm_name from statistics_vms_resources_usage_samples order by 1"
        assert con.execute(sql).fetchall() == [(f"web-{number}",) for number in range(5)]


@pytest.mark.parametrize("kind", ["duckdb", "parquet"])
def test_copy_of_a_span_has_its_samples_and_events_and_all_names(
    store: HistoryStore, place: Path, kind: str
) -> None:
    fill(store)
    ask = ExportHistory(kind, NOW_NS + 3 * S, NOW_NS + 5 * S)  # type: ignore[arg-type]
    told = store.export(ask, place, Stop()).rows_by_table
    assert (told["vm_samples"], told["events"], told["vm_names"]) == (10, 2, 5)


def test_samples_go_on_being_stored_while_a_copy_is_made(store: HistoryStore, place: Path) -> None:
    fill(store)
    told: list[int] = []

    def export() -> None:
        told.append(store.export(ExportHistory(), place, Stop()).rows_by_table["vm_samples"])

    exporting = threading.Thread(target=export)
    exporting.start()
    for seq in range(11, 61):
        store.add_samples(vm_report(seq=seq))
        store.commit()
    exporting.join()
    with opened(place, "duckdb") as con:
        assert con.execute("select count(*) from vm_samples").fetchall() == [(told[0],)]
        # A report and its rows were committed together, so the copy has both or neither.
        assert con.execute("select sum(row_count) from sample_reports").fetchall() == [(told[0],)]
    assert store.query("select count(*) from vm_samples").rows == [(100,)]


def test_copy_that_is_stopped_says_why_and_the_next_one_is_whole(store: HistoryStore, place: Path) -> None:
    fill(store)
    stop = Stop()
    stop.stop("its client has gone")
    with pytest.raises(BadQuery, match="its client has gone"):
        store.export(ExportHistory(), place, stop)
    (place / "history.duckdb").unlink(missing_ok=True)
    assert store.export(ExportHistory(), place, Stop()).rows_by_table["events"] == 10


def test_disk_that_is_full_fails_the_copy_and_history_goes_on(
    store: HistoryStore, place: Path, disk_limit: Callable[[int | None], None]
) -> None:
    fill(store)
    disk_limit(100)
    with pytest.raises(JournalUnwritable, match="free space"):
        store.export(ExportHistory("parquet"), place, Stop())
    disk_limit(None)
    store.add_samples(vm_report(seq=99))
    try:
        store.commit()
    except JournalUnwritable:  # DuckDB may have shut itself down; the next commit opens it anew
        store.commit()
    assert store.query("select count(*) from vm_samples").rows == [(51,)]


KILLED = """
import sys, threading, time
from pathlib import Path
from olvm.history.archive import archive_directory
from olvm.history.store import HistoryStore
from olvm.model.client_protocol import ExportHistory
from olvm.stopping import Stop
store = HistoryStore.open(sys.argv[1])
print("ready", flush=True)
while True:
    place = Path(sys.argv[2]) / str(time.monotonic_ns())
    place.mkdir()
    store.export(ExportHistory(), place, Stop())
    (place / "whole").touch()
"""


def test_kill_in_the_middle_of_a_copy_leaves_history_as_it_was(path: Path, tmp_path: Path) -> None:
    with HistoryStore.open(path) as store:
        fill(store)
    place = tmp_path / "copies"
    place.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), str(place)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        while not any((one / "history.duckdb").exists() for one in place.iterdir()):
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    with HistoryStore.open(path) as store:
        assert store.query("select count(*) from vm_samples").rows == [(50,)]
        assert store.query("select count(*) from duckdb_databases() where not internal").rows == [(1,)]


@pytest.mark.parametrize("kind", ["duckdb", "parquet"])
def test_days_that_moved_to_parquet_are_in_the_copy_itself(
    store: HistoryStore, path: Path, place: Path, kind: str
) -> None:
    fill(store)
    later_ns = NOW_NS + 40 * 86400 * S
    store.maintain(NOW_NS + 3 * 86400 * S)
    while store.is_behind or not archive_directory(path).exists():
        store.maintain(later_ns)
    sql = "select count(*), sum(sample_count) from statistics_vms_resources_usage_hourly"
    ours = store.query(sql).rows
    assert ours[0][0] > 0
    store.export(ExportHistory(kind), place, Stop())  # type: ignore[arg-type]
    shutil.rmtree(archive_directory(path))
    with opened(place, kind) as con:
        assert con.execute(sql).fetchall() == ours


def test_copy_that_is_stopped_anywhere_holds_no_file_open(store: HistoryStore, tmp_path: Path) -> None:
    for seq in range(1, 31):
        samples = [vm_sample(f"vm-{number}") for number in range(10_000)]
        store.add_samples(vm_report(*samples, seq=seq, at_ns=NOW_NS + seq * S))
    store.commit()
    stopped = 0
    for number in range(12):
        place, stop = tmp_path / str(number), Stop()
        place.mkdir()
        stopping = threading.Timer(0.02 * number, stop.stop, ["enough"])
        stopping.start()
        try:
            store.export(ExportHistory(), place, stop)
        except BadQuery:
            stopped += 1
        stopping.cancel()
        assert store.query("select count(*) from duckdb_databases() where not internal").rows == [(1,)]
    assert stopped > 0
