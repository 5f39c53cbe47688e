"""Each detector on cases that can be reckoned by hand, and against slow and obvious references."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.experiments.consolidation.detectors import (
    IQR,
    LR,
    LRR,
    MAD,
    THR,
    forecast,
    interquartile_range,
    is_overloaded,
    median_deviation,
)
from olvm.experiments.consolidation.ranking import ranked

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def history(*newest_first: float) -> Floats:
    past = np.zeros(30)
    past[: len(newest_first)] = newest_first
    return past


SAMPLES = st.lists(st.integers(0, 100).map(lambda percent: percent / 100), min_size=12, max_size=30)


def test_thr_is_overloaded_over_its_bound_and_not_at_it() -> None:
    assert is_overloaded(THR, 0.8, 0.81, history(), 0)
    assert not is_overloaded(THR, 0.8, 0.8, history(), 0)


@pytest.mark.parametrize("detector", [IQR, MAD, LR, LRR])
def test_too_few_samples_fall_back_to_seven_tenths(detector: int) -> None:
    few = history(*[0.9] * 9)
    assert is_overloaded(detector, 1.2, 0.71, few, 9)
    assert not is_overloaded(detector, 1.2, 0.7, few, 9)


def test_iqr_bound_falls_with_the_spread() -> None:
    # Twelve samples 0, 0.05, …, 0.55: the 3rd and the 10th, for round(0.25 · 13) = 3 and round(0.75 · 13) = 10.
    past = history(*[step / 20 for step in range(12)])
    assert interquartile_range(past, 12) == pytest.approx(0.45 - 0.10)
    assert is_overloaded(IQR, 1.5, 0.48, past, 12)  # 1 - 1.5 · 0.35 = 0.475
    assert not is_overloaded(IQR, 1.5, 0.47, past, 12)


def test_mad_bound_falls_with_the_median_distance() -> None:
    # Median 0.25; distances 0.15 six times and 0.15 six times.
    past = history(*[0.1] * 6, *[0.4] * 6)
    assert median_deviation(past, 12) == pytest.approx(0.15)
    assert is_overloaded(MAD, 2.5, 0.63, past, 12)  # 1 - 2.5 · 0.15 = 0.625
    assert not is_overloaded(MAD, 2.5, 0.62, past, 12)


def test_lr_foresees_the_line_one_interval_on() -> None:
    # 0.05 at x = 1, …, 0.50 at x = 10; so 0.55 at x = 11.
    rising = history(*[(10 - age) / 20 for age in range(10)])
    assert forecast(rising) == pytest.approx(0.55)
    assert is_overloaded(LR, 1.0 / 0.549, 0.0, rising, 10)
    assert not is_overloaded(LR, 1.0 / 0.551, 0.0, rising, 10)


def test_lr_looks_at_the_past_and_not_at_what_is_asked_for_now() -> None:
    assert not is_overloaded(LR, 1.2, 5.0, history(*[0.5] * 10), 10)


def test_lr_ignores_what_is_older_than_ten_samples() -> None:
    assert forecast(history(*[0.5] * 10, *[0.9] * 20)) == pytest.approx(0.5)


@settings(deadline=None)  # the first example compiles
@given(SAMPLES)
def test_lrr_is_lr(samples: list[float]) -> None:
    past = history(*samples)
    verdicts = [is_overloaded(detector, 1.2, 0.5, past, len(samples)) for detector in (LR, LRR)]
    assert verdicts[0] == verdicts[1]


@settings(deadline=None)  # the first example compiles
@given(SAMPLES)
def test_forecast_is_the_least_squares_line(samples: list[float]) -> None:
    oldest_first = samples[:10][::-1]
    slope, intercept = np.polyfit(np.arange(1, 11), oldest_first, 1)
    assert forecast(history(*samples)) == pytest.approx(intercept + 11 * slope, abs=1e-9)


@settings(deadline=None)  # the first example compiles
@given(SAMPLES)
def test_interquartile_range_is_that_of_the_sorted_samples(samples: list[float]) -> None:
    ordered, count = sorted(samples), len(samples)
    lower, upper = ((quarters * (count + 1) + 2) // 4 for quarters in (1, 3))
    assert interquartile_range(history(*samples), count) == ordered[upper - 1] - ordered[lower - 1]


@settings(deadline=None)  # the first example compiles
@given(SAMPLES)
def test_median_deviation_is_the_median_of_distances(samples: list[float]) -> None:
    middle = statistics.median(samples)
    distances = [abs(sample - middle) for sample in samples]
    assert median_deviation(history(*samples), len(samples)) == pytest.approx(
        statistics.median(distances), abs=1e-12
    )


@settings(deadline=None)  # the first example compiles
@given(st.lists(st.integers(0, 5).map(float), max_size=40))
def test_ranked_is_a_stable_sort(values: list[float]) -> None:
    expected = sorted(range(len(values)), key=lambda index: values[index])
    assert ranked(np.array(values)).tolist() == expected
