"""Which policy is better is decided seed by seed, with intervals that are those of the literature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from olvm.experiments.grids.bootstrap import mean_interval
from olvm.experiments.grids.plots import nice_ticks
from olvm.experiments.grids.reading import read_grid
from olvm.experiments.grids.report import write_report
from olvm.experiments.grids.results import Results
from olvm.experiments.grids.running import cells_of
from olvm.experiments.grids.worker import Outcome
from tests.unit.experiments.grids.small import small_grid

FIGURES: dict[str, Any] = {"bound_hosts": 10, "rejected": 0, "waiting": 0, "wait_s_total": 0.0}


def results(tmp_path: Path, peaks: dict[str, list[int]], **figures: Any) -> Results:
    """Of one scenario: by policy, its `hosts_peak` for each seed; a seed that is missing is still to be run."""
    seeds = max(map(len, peaks.values()))
    source = small_grid(
        tmp_path, policies=list(peaks), seeds=seeds, topologies=[{"name": "one", "hosts": "40x16c64g"}]
    )
    grid, folder = read_grid(source)
    cells = cells_of(grid, folder)
    outcomes = {
        cell.id: Outcome(
            id=cell.id, figures={**FIGURES, **figures, "hosts_peak": peaks[cell.policy][cell.seed]}
        )
        for cell in cells
        if cell.seed < len(peaks[cell.policy])
    }
    return Results(folder=tmp_path, grid=grid, cells=cells, outcomes=outcomes)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([3, 1, 4, 1, 5, 9, 2, 6], 2.375, 6.0),
        ([0, 0, 0, 1, 10], 0.0, 8.0),
        ([12.1, 11.7, 13.0, 12.4, 11.9, 12.2, 15.8, 12.0, 12.3, 11.8], 12.07, 13.80),
    ],
)
def test_interval_is_that_of_scipy(values: list[float], low: float, high: float) -> None:
    """scipy.stats.bootstrap(…, method="BCa", n_resamples=100_000), SciPy 1.16."""
    found = mean_interval(np.array(values, dtype=np.float64), resamples=100_000)

    assert found == (pytest.approx(low, abs=0.1), pytest.approx(high, abs=0.1))


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=30))
def test_interval_holds_no_more_than_the_values_do(values: list[int]) -> None:
    array = np.array(values, dtype=np.float64)
    found = mean_interval(array, resamples=500)

    assert found is not None
    assert array.min() <= found[0] <= found[1] <= array.max()
    assert mean_interval(array, resamples=500) == found


def test_one_value_has_no_interval() -> None:
    assert mean_interval(np.array([4.0])) is None


def test_policies_whose_difference_may_be_nothing_share_a_rank(tmp_path: Path) -> None:
    peaks = {
        "worst_fit": [30, 31, 29, 33, 30, 32],
        "best_fit": [20, 22, 19, 25, 20, 21],
        "first_fit": [21, 21, 20, 24, 20, 21],
    }
    (scenario,) = results(tmp_path, peaks).compare().scenarios

    assert [(line.policy, line.rank) for line in scenario.lines] == [
        ("best_fit", 1),
        ("first_fit", 1),
        ("worst_fit", 3),
    ]
    last = scenario.lines[-1]
    assert last.difference == pytest.approx(58 / 6)
    assert last.low is not None
    assert 8 < last.low < last.difference
    assert last.regret_percent == pytest.approx((185 / 6 / 10 - 1) * 100)


def test_differences_are_taken_seed_by_seed(tmp_path: Path) -> None:
    """The seeds differ far more than the policies do, and still one is better in each."""
    peaks = {"best_fit": [10, 100, 1000, 50], "first_fit": [11, 101, 1001, 51]}
    (scenario,) = results(tmp_path, peaks).compare().scenarios

    assert [line.rank for line in scenario.lines] == [1, 2]
    assert (scenario.lines[1].low, scenario.lines[1].high) == (1.0, 1.0)


def test_seed_that_not_all_policies_have_finished_does_not_count(tmp_path: Path) -> None:
    peaks = {"best_fit": [10, 10, 90], "first_fit": [11, 12]}
    found = results(tmp_path, peaks)
    (scenario,) = found.compare().scenarios

    assert scenario.blocks == (0, 1)
    assert scenario.lines[0].mean == 10
    assert found.missing_count == 1
    assert not found.is_whole


def test_one_seed_gives_no_interval_and_only_equal_figures_tie(tmp_path: Path) -> None:
    (scenario,) = (
        results(tmp_path, {"best_fit": [10], "first_fit": [10], "worst_fit": [11]}).compare().scenarios
    )

    assert [line.rank for line in scenario.lines] == [1, 1, 3]
    assert scenario.lines[-1].low is None
    assert not scenario.blocks_differ


@pytest.mark.parametrize("figure", ["rejected", "waiting", "wait_s_total"])
def test_regret_is_not_told_of_runs_that_did_not_serve_the_demand(tmp_path: Path, figure: str) -> None:
    found = results(tmp_path, {"best_fit": [8, 8], "first_fit": [9, 9]}, **{figure: 3})

    assert [line.regret_percent for line in found.compare().scenarios[0].lines] == [None, None]


def test_nothing_is_compared_before_a_seed_is_finished_by_all(tmp_path: Path) -> None:
    comparison = results(tmp_path, {"best_fit": [10], "first_fit": []}).compare()

    assert (comparison.scenarios, comparison.overall) == ((), ())
    assert comparison.left_out == ("one, short, fifo",)


@pytest.mark.parametrize(("failed_seeds", "is_compared"), [((0, 1), False), ((1,), True)])
def test_policy_that_always_fails_hides_nothing_of_the_others(
    tmp_path: Path, failed_seeds: tuple[int, ...], is_compared: bool
) -> None:
    found = results(tmp_path, {"best_fit": [10, 12], "first_fit": [11, 15], "worst_fit": [20, 20]})
    for cell in found.cells:
        if cell.policy == "best_fit" and cell.block in failed_seeds:
            found.outcomes[cell.id] = Outcome(id=cell.id, error="it raised")
    comparison = found.compare()
    (scenario,) = comparison.scenarios

    if is_compared:
        assert (scenario.failed, scenario.blocks) == ((), (0,))
        assert [line.policy for line in scenario.lines] == ["best_fit", "first_fit", "worst_fit"]
    else:
        assert (scenario.failed, scenario.blocks) == (("best_fit",), (0, 1))
        assert [(line.policy, line.mean) for line in scenario.lines] == [("first_fit", 13), ("worst_fit", 20)]
        assert [one.policy for one in comparison.overall] == ["first_fit", "worst_fit"]
        page = tmp_path / "report.html"
        write_report(found, page, comparison)
        assert "Not compared, because all its runs failed: best_fit." in page.read_text()


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
@example(low=-6.103515625e-05, width=300301.0)
def test_ticks_hold_what_is_drawn(low: float, width: float) -> None:
    ticks = nice_ticks(low, low + width)

    unseen = 2e-9 * (ticks[1] - ticks[0]) + 1e-9
    assert ticks[0] <= low + unseen
    assert ticks[-1] >= low + width - unseen
    assert 2 <= len(ticks) <= 14
    assert ticks == sorted(set(ticks))
