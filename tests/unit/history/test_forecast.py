"""`capacity_forecast` against lines that were drawn by hand."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pytest

from olvm.history.rows import ConfigurationChange
from olvm.history.samples import HostSample, encode_host_sample
from olvm.history.store import HistoryStore

S = 10**9
DAY_NS = 86_400 * S
MIDNIGHT_NS = 1_800_057_600 * S  # 2027-01-16 00:00 UTC
FIRST_DAY = dt.date(2027, 1, 16)


class Host:
    """Its use of memory and CPU on days in a row, in percent; None: it told nothing that day."""

    def __init__(
        self, name: str, memory: Sequence[float | None], *, cpu: float = 30.0, gib: int = 64
    ) -> None:
        self.name, self.memory, self.cpu, self.gib = name, memory, cpu, gib


def forecast(path: Path, *hosts: Host) -> tuple[object, ...]:
    """The row of the one cluster: days, memory now, its growth, the day of its end, and the same of the CPU."""
    with HistoryStore.open(path / "history.duckdb", samples_kept_s=1e7) as store:
        store.add_configuration(
            ConfigurationChange(
                object_kind="host",
                object_id=host.name,
                name=host.name,
                cluster="prod",
                status="up",
                valid_from_ns=MIDNIGHT_NS,
                spec={"cpus": 16, "memory_bytes": host.gib * 2**30},
            )
            for host in hosts
        )
        for host in hosts:
            for day, memory in enumerate(host.memory):
                if memory is not None:
                    tell(store, host, day, memory)
        store.maintain(MIDNIGHT_NS + 40 * DAY_NS)
        while store.is_behind:
            store.maintain(MIDNIGHT_NS + 40 * DAY_NS)
        (row,) = store.query(
            "select days, memory_percent, memory_percent_per_day, memory_full_on, cpu_percent, cpu_full_on"
            " from capacity_forecast where cluster_name = 'prod'"
        ).rows
    return tuple(row)


def tell(store: HistoryStore, host: Host, day: int, memory: float) -> None:
    store.add_samples(
        encode_host_sample(
            HostSample(host_status="up", memory_usage_percent=memory, cpu_usage_percent=host.cpu),
            host=host.name,
            at_ns=MIDNIGHT_NS + day * DAY_NS + 12 * 3600 * S,
            host_epoch=1,
            seq=day + 1,
        )
    )


def day(number: int) -> str:
    return (FIRST_DAY + dt.timedelta(days=number)).isoformat()


def test_growth_along_a_line_ends_where_the_line_meets_the_top(tmp_path: Path) -> None:
    row = forecast(tmp_path, Host("a", [50, 52, 54, 56, 58]))

    # 42 % are left on day 4 at 2 % a day: 21 days later.
    assert row == (5, pytest.approx(58), pytest.approx(2), day(4 + 21), pytest.approx(30), None)


def test_hosts_count_by_the_memory_that_they_have(tmp_path: Path) -> None:
    row = forecast(tmp_path, Host("large", [10, 20], gib=300), Host("small", [50, 50], gib=100))

    # (10 * 300 + 50 * 100) / 400 = 20, then 27.5: 72.5 % are left at 7.5 % a day, for 9.67 days.
    assert row[:4] == (2, pytest.approx(27.5), pytest.approx(7.5), day(1 + 10))


def test_day_without_news_moves_the_line_and_is_no_day_of_nothing(tmp_path: Path) -> None:
    row = forecast(tmp_path, Host("a", [60, None, 80]))

    assert row[:4] == (2, pytest.approx(80), pytest.approx(10), day(2 + 2))


@pytest.mark.parametrize("memory", [[70, 60, 50], [40, 40, 40]])
def test_what_does_not_grow_is_never_full(tmp_path: Path, memory: list[float]) -> None:
    row = forecast(tmp_path, Host("a", memory))

    assert row[3] is None


def test_single_day_is_told_and_no_line_is_drawn_through_it(tmp_path: Path) -> None:
    row = forecast(tmp_path, Host("a", [40]))

    assert row == (1, pytest.approx(40), None, None, pytest.approx(30), None)


def test_what_is_full_is_full_on_its_newest_day(tmp_path: Path) -> None:
    row = forecast(tmp_path, Host("a", [98, 99, 100]))

    assert row[3] == day(2)
