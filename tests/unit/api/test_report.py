"""What `olvm report` tells of a history whose every sample is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from olvm.api.report import Report, Use, report
from olvm.api.report_page import html, summary
from olvm.api.result import Result
from olvm.history.store import HistoryStore
from tests.unit.history.building import NOW_NS
from tests.unit.history.two_days import HOUR_NS, HOURS, two_days

# A sample is taken every 5 minutes and holds for 3.
HELD = 3 / 5


class OnlyHistory:
    """As much of a data center as a report asks."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store

    def sql(self, sql: str, parameters: Any = (), *, timeout: float, limit: int = 1_000_000) -> Result:
        return Result(self._store.query(sql, parameters, timeout_s=timeout, row_count_max=limit))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlyHistory]:
    with two_days(tmp_path_factory.mktemp("history")) as store:
        yield OnlyHistory(store)


def told(history: OnlyHistory, hours: int) -> Report:
    return report(history, hours * 3600.0, NOW_NS + HOURS * HOUR_NS)  # type: ignore[arg-type]


def by_name(uses: list[Use]) -> dict[str, Use]:
    return {use.name: use for use in uses}


@pytest.mark.parametrize(
    ("hours", "grain"), [(6, "samples"), (7, "hourly"), (27, "hourly"), (24 * 100, "daily")]
)
def test_figures_are_those_of_the_samples_in_every_grain(
    history: OnlyHistory, hours: int, grain: str
) -> None:
    got = told(history, hours)

    # In the grain of days the span begins at midnight, in that of hours at the full hour: NOW_NS is one.
    seconds = min(hours, HOURS) * 3600 * HELD
    assert got.grain == grain
    web, idle = by_name(got.vms)["web"], by_name(got.vms)["idle"]
    assert (web.cpus, web.memory_mib, idle.cpus) == (6, 8192, 8)
    assert (web.up_s, web.observed_s) == pytest.approx((seconds, seconds))
    assert (web.cpu_percent, web.cpu_percent_max, web.memory_max) == (70.0, 70.0, 3000)
    assert (web.cpus_used, idle.mib_never_used) == (pytest.approx(4.2), 8092)
    hosts = by_name(got.hosts)
    assert list(hosts) == ["kvm01", "kvm02"]
    busy = [hour % 24 for hour in range(HOURS)][-hours:]
    assert hosts["kvm02"].cpu_percent == pytest.approx(sum(busy) / len(busy))
    assert hosts["kvm01"].cpu_percent_max == max(busy) + 5


def test_chart_has_a_value_for_each_hour_of_a_day(history: OnlyHistory) -> None:
    got = told(history, 24)

    assert len(got.utilisation) == 24
    assert [cpu for cpu, _ in got.utilisation] == pytest.approx([(hour + 3) % 24 + 2.5 for hour in range(24)])


def test_what_happened_is_of_the_span(history: OnlyHistory) -> None:
    whole, late = told(history, HOURS), told(history, 24)

    assert [(row[0], row[1], row[4]) for row in whole.downtime] == [("kvm01", "non_responsive", 1)]
    assert dict(whole.event_counts) == {"normal": 5, "warning": 1, "error": 1}
    assert [row[1] for row in whole.notable_events] == ["error", "warning"]
    assert (late.downtime, late.event_counts) == ([], [])


def test_page_and_summary_say_who_is_busy_and_who_wastes(history: OnlyHistory) -> None:
    got = told(history, HOURS)

    lines = summary(got)
    assert "busiest: web (4.2 vCPUs), idle (0.0 vCPUs)" in lines
    assert "most wasteful: idle (8,092 MiB never used), web (5,192 MiB never used)" in lines
    assert "times that a host was out of service: 1" in lines
    page = html(got, "<prod>")
    assert "&lt;prod&gt;" in page
    assert page.index("<td>web</td><td>6</td><td>4.2</td>") < page.index(
        "<td>idle</td><td>8</td><td>0.0</td>"
    )


def test_history_that_is_empty_is_reported_as_such(tmp_path: Any) -> None:
    with HistoryStore.open(tmp_path / "history.duckdb") as store:
        got = told(OnlyHistory(store), 48)

    assert (got.hosts, got.vms, set(got.utilisation)) == ([], [], {(None, None)})
    assert "No host told anything." in html(got, "prod")
    assert summary(got)[1] == "hosts: CPU unknown, memory unknown on average"
