"""A file of history that has everything for `maintain` to do at once, and a fault at any statement of it.

Day 0 is in Parquet and past its time; day 55 is in samples, to be rolled up, erased and moved. What an undisturbed file
comes to is what every disturbed one must come to.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from olvm.history import store as store_module
from olvm.history.bounds import NS_PER_S
from olvm.history.store import HistoryStore
from tests.unit.history.building import NOW_NS, vm_report, vm_sample

HOUR_S, DAY_S = 3600, 86_400
MIDNIGHT_S = NOW_NS // NS_PER_S // DAY_S * DAY_S
FIRST_NS = (MIDNIGHT_S + 10 * DAY_S) * NS_PER_S
FINAL_NS = (MIDNIGHT_S + 64 * DAY_S) * NS_PER_S
STATE = {
    "hours": "select * from statistics_vms_resources_usage_hourly order by all",
    "days": "select * from statistics_vms_resources_usage_daily order by all",
    "samples": "select * from vm_samples order by all",
    "reports": "select * from sample_reports order by all",
    "due": "select * from rollups_due order by all",
    "files": "select * from archive_files order by all",
    "horizon": "select value from meta where key = 'samples_erased_before_ns'",
}


def fill(path: Path) -> None:
    """Day 0 in Parquet, day 55 in samples."""
    with HistoryStore.open(path) as store:
        _tell(store, MIDNIGHT_S + 22 * HOUR_S, first_seq=1)
        settle(store, FIRST_NS)
        _tell(store, MIDNIGHT_S + 55 * DAY_S + 21 * HOUR_S, first_seq=100)


def _tell(store: HistoryStore, at_s: int, first_seq: int) -> None:
    for n in range(12):
        samples = [vm_sample(f"vm-{vm}", vm_status="Up", cpu_usage_percent=n + vm) for vm in range(3)]
        store.add_samples(vm_report(*samples, seq=first_seq + n, at_ns=(at_s + 600 * n) * NS_PER_S))
    store.commit()


def settle(store: HistoryStore, now_ns: int = FINAL_NS) -> None:
    while True:
        store.maintain(now_ns)
        if not store.is_behind:
            return


def state(store: HistoryStore) -> dict[str, Any]:
    directory = store.path.with_name("history-parquet")
    found: dict[str, Any] = {name: store.query(sql).rows for name, sql in STATE.items()}
    found["on disk"] = sorted(file.name for file in directory.iterdir()) if directory.is_dir() else []
    return found


def check_nothing_twice(store: HistoryStore) -> None:
    """At any moment: no hour of a machine is shown twice, from the table and from a file, or from half a file."""
    sql = (
        "select count(*), count(distinct (history_datetime, vm_id)) from statistics_vms_resources_usage_hourly"
        " where vm_status = 'Up'"
    )
    ((count, distinct),) = store.query(sql).rows
    assert count == distinct


class Faulty:
    """A connection of DuckDB that numbers its statements and calls `strike` before and after each.

    Views and their comments, hundreds of them in one transaction, are passed on and not counted.
    """

    def __init__(self, con: Any, strike: Callable[[int, str], None]) -> None:
        self._con = con
        self._strike = strike
        self.said: list[str] = []

    def execute(self, *arguments: Any) -> Any:
        if arguments[0].startswith(("comment ", "create or replace view ")):
            return self._con.execute(*arguments)
        self.said.append(arguments[0])
        number = len(self.said)
        self._strike(number, "before")
        result = self._con.execute(*arguments)
        self._strike(number, "after")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._con, name)


def struck(store: HistoryStore, strike: Callable[[int, str], None]) -> Faulty:
    """From now on, until it is opened anew, the store's connection strikes."""
    faulty = Faulty(store._con, strike)
    store._con = faulty  # type: ignore[assignment]
    return faulty


def _die(path: str, number: str, when: str) -> None:
    """The process of a test: killed at one statement of one pass."""

    def strike(count: int, moment: str) -> None:
        if (count, moment) == (int(number), when):
            os.kill(os.getpid(), signal.SIGKILL)

    store_module.LOG_FOLDED_BYTES = 0  # type: ignore[misc]
    store = store_module.HistoryStore.open(path)
    struck(store, strike)
    settle(store)
    raise SystemExit("it was not reached")


if __name__ == "__main__":
    _die(*sys.argv[1:])
