"""HistoryStore under a full disk, a held lock and a killed process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from olvm.history import store as store_module
from olvm.history.store import HistoryStore
from olvm.model.errors import JournalLocked, JournalUnwritable
from tests.unit.history.building import event, vm_report, vm_sample

_ROOT = Path(__file__).parents[3]

_HOLDER = """
import sys
from olvm.history.store import HistoryStore
from tests.unit.history.building import event, vm_report
store = HistoryStore.open(sys.argv[1])
store.add_samples(vm_report(seq=1))
store.add_events("engine", [event(1)])
store.commit()
store.add_samples(vm_report(seq=2))
print("committed", flush=True)
sys.stdin.read()
"""


def _holder(path: Path) -> subprocess.Popen[str]:
    """A process that has committed report 1, buffered report 2, and holds the file."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "committed\n"
    return process


def test_file_held_by_another_process_names_that_process(path: Path) -> None:
    with _holder(path) as process:
        try:
            with pytest.raises(JournalLocked, match=f"process {process.pid} holds it"):
                HistoryStore.open(path)
        finally:
            process.kill()


def test_process_killed_after_commit_loses_only_what_was_buffered(path: Path) -> None:
    with _holder(path) as process:
        os.kill(process.pid, signal.SIGKILL)
    with HistoryStore.open(path) as store:
        assert store.query("select seq from sample_reports").rows == [(1,)]
        assert store.event_cursor("engine") == 1
        assert store.add_samples(vm_report(seq=1)) == "repeated"
        assert store.add_samples(vm_report(seq=2)) == "accepted"


def test_disk_full_in_a_commit_keeps_everything_and_goes_on_when_there_is_room(
    path: Path, disk_limit: Callable[[int | None], None]
) -> None:
    samples = [vm_sample(f"vm-{n}") for n in range(1_000)]
    with HistoryStore.open(path) as store:
        store.add_samples(vm_report(*samples, seq=1))
        store.add_events("engine", [event(1)])
        store.commit()
        store.add_samples(vm_report(*samples, seq=2))
        store.add_events("engine", [event(2)])
        wal_bytes = (path.parent / "history.duckdb.wal").stat().st_size
        disk_limit(wal_bytes + 1_000)
        with pytest.raises(JournalUnwritable, match="check free space"):
            store.commit()
        assert store.event_cursor("engine") == 1
        disk_limit(None)
        store.commit()
        assert store.event_cursor("engine") == 2
        assert store.query("select count(*), count(distinct history_datetime) from vm_samples").rows == [
            (2000, 1)
        ]
        assert store.query("select count(*), count(distinct vm_key) from vm_names").rows == [(1000, 1000)]
        assert store.counters.failed_commit_count >= 1
    with HistoryStore.open(path) as store:
        assert store.query("select count(*) from vm_samples").rows == [(2000,)]


def test_disk_full_for_long_drops_the_oldest_samples_and_counts_them(
    path: Path, disk_limit: Callable[[int | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SAMPLES_BUFFERED_MAX", 2_000)
    samples = [vm_sample(f"vm-{n}") for n in range(1_000)]
    with HistoryStore.open(path) as store:
        disk_limit(1_000)
        for seq in range(1, 6):
            store.add_samples(vm_report(*samples, seq=seq))
            with pytest.raises(JournalUnwritable):
                store.commit()
        disk_limit(None)
        store.commit()
        assert store.query("select seq from sample_reports order by seq").rows == [(4,), (5,)]
        assert store.counters.dropped_sample_count == 3_000


def test_commit_that_failed_but_reached_the_disk_is_not_stored_twice(path: Path) -> None:
    with HistoryStore.open(path) as store:
        payload = vm_report(vm_sample("vm-1", vm_name="web"), seq=1)
        store.add_samples(payload)
        store.add_events("engine", [event(1)])
        reports, rows = list(store._reports), dict(store._rows["events"])
        texts, vms = list(store._keys.texts.new_rows), dict(store._keys.vms.new_rows)
        store.commit()
        # As after a failed commit: everything is still buffered, and the connection is given up.
        for keyed in reports:
            store._reports.add(keyed)
        store._rows["events"].update(rows)
        store._keys.texts.new_rows.extend(texts)
        store._keys.vms.new_rows.update(vms)
        store._give_up_connection()
        store.add_samples(vm_report(seq=2))
        store.commit()
        assert store.query("select seq from sample_reports order by seq").rows == [(1,), (2,)]
        answer = store.query("select (select count(*) from events), (select count(*) from texts)")
        assert answer.rows == [(1, 1)]
        assert store.query("select vm_id from statistics_vms_resources_usage_samples").rows == [("vm-1",)] * 2


def test_disk_full_when_the_file_is_made_is_unwritable(
    path: Path, disk_limit: Callable[[int | None], None]
) -> None:
    disk_limit(100)
    with pytest.raises(JournalUnwritable):
        HistoryStore.open(path)
    disk_limit(None)
