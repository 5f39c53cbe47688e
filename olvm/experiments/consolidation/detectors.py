"""Whether a host is overloaded: a fixed bound (THR), bounds that adapt (IQR, MAD), and a forecast (LR, LRR).

All of them see one host: what its machines ask for together as a fraction of it (`utilisation`), and what they asked
for in the recorded past (`history`, newest first, `length` samples that are not the zeros before the first load).

Source: Beloglazov & Buyya 2012, sections 5.1 to 5.4, as CloudSim 3.0.3 computes them; docs/planetlab.md says where
the two part.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from olvm.experiments.compilation import allocating

Floats = npt.NDArray[np.float64]

THR, IQR, MAD, LR, LRR = range(5)
DETECTOR_NUMBERS = {"thr": THR, "iqr": IQR, "mad": MAD, "lr": LR, "lrr": LRR}

FALLBACK_BOUND = 0.7  # while there are too few samples
SPREAD_LENGTH_MIN = 12
TREND_LENGTH = 10
# The slowest migration (1,740 MB at 62.5 MB/s) lasts 28 s: less than one interval, so always one is looked ahead.
INTERVALS_AHEAD = 1.0


@allocating
def is_overloaded(detector: int, safety: float, utilisation: float, history: Floats, length: int) -> bool:
    """One host's verdict. `safety` is the bound of THR, the factor of the others.

    `history` has 30 places or more than `length`; for a host without any load `length` is 0.
    """
    if detector == THR:
        return utilisation > safety
    if detector in (LR, LRR):
        if length < TREND_LENGTH:
            return utilisation > FALLBACK_BOUND
        return forecast(history) * safety >= 1
    if length < SPREAD_LENGTH_MIN:
        return utilisation > FALLBACK_BOUND
    spread = interquartile_range(history, length) if detector == IQR else median_deviation(history, length)
    return utilisation > 1 - safety * spread


@allocating
def forecast(history: Floats) -> float:
    """The line through the last ten samples, one interval after the newest: ordinary least squares.

    The means are updated sample by sample, which fixes the rounding.
    """
    mean_x = 1.0
    mean_y = history[TREND_LENGTH - 1]
    sum_y = mean_y
    sum_xx = 0.0
    sum_xy = 0.0
    for n in range(1, TREND_LENGTH):
        y = history[TREND_LENGTH - 1 - n]
        weight = n / (1.0 + n)
        from_x = (n + 1.0) - mean_x
        from_y = y - mean_y
        sum_xx += from_x * from_x * weight
        sum_xy += from_x * from_y * weight
        mean_x += from_x / (n + 1.0)
        mean_y += from_y / (n + 1.0)
        sum_y += y
    slope = sum_xy / sum_xx
    sum_x = TREND_LENGTH * (TREND_LENGTH + 1) / 2
    intercept = (sum_y - slope * sum_x) / TREND_LENGTH
    return float(intercept + slope * (TREND_LENGTH + INTERVALS_AHEAD))


@allocating
def interquartile_range(history: Floats, length: int) -> float:
    """Between the samples nearest to a quarter and to three quarters of the ranks 1 to n + 1, halves upwards."""
    ordered = _ordered(history, length)
    lower = int(np.floor(0.25 * (length + 1) + 0.5)) - 1
    upper = int(np.floor(0.75 * (length + 1) + 0.5)) - 1
    return float(ordered[upper] - ordered[lower])


@allocating
def median_deviation(history: Floats, length: int) -> float:
    """The median distance from the median."""
    middle = _median(_ordered(history, length))
    distances = np.empty(length)
    for index in range(length):
        distances[index] = abs(middle - history[index])
    return _median(_ordered(distances, length))


@allocating
def _ordered(values: Floats, length: int) -> Floats:
    """An insertion sort: for thirty values nothing is quicker."""
    ordered = np.empty(length)
    for index in range(length):
        value = values[index]
        place = index
        while place > 0 and ordered[place - 1] > value:
            ordered[place] = ordered[place - 1]
            place -= 1
        ordered[place] = value
    return ordered


@allocating
def _median(ordered: Floats) -> float:
    count = len(ordered)
    if count == 1:
        return float(ordered[0])
    rank = 50.0 * (count + 1) / 100
    below = int(np.floor(rank))
    lower = ordered[below - 1]
    return float(lower + (rank - below) * (ordered[below] - lower))
