"""A confidence interval of a mean by resampling: bias-corrected and accelerated (BCa).

Source: Efron, Better bootstrap confidence intervals, J. Am. Stat. Assoc. 82(397), 1987; the correction for ties of the
resampled means with the mean itself is that of scipy.stats.bootstrap.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
CONFIDENCE = 0.95
_CELLS_MAX = 4_000_000  # of one block of resamples
_NORMAL = NormalDist()

Floats = npt.NDArray[np.float64]


def mean_interval(values: Floats, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float] | None:
    """Of 95 %. None of fewer than two values, which say nothing of chance. Of equal values: that value, twice.

    Equal values, equal interval. Cost: 5 to 10 ms for up to a hundred values, 50 ms for a thousand.
    """
    count = len(values)
    if count < 2:
        return None
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return mean, mean
    means = _resampled_means(values, resamples, seed)
    below = float(np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2 * resamples)
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / resamples), 1 - 0.5 / resamples))
    # The mean without each value in turn.
    without = (values.sum() - values) / (count - 1)
    away = without.mean() - without
    acceleration = float((away**3).sum() / (6 * (away**2).sum() ** 1.5))
    low, high = (_share(bias, acceleration, tail) for tail in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    found = np.quantile(means, [low, high])
    return float(found[0]), float(found[1])


def _share(bias: float, acceleration: float, tail: float) -> float:
    """Which quantile of the resampled means is the end of the interval."""
    drawn = bias + _NORMAL.inv_cdf(tail)
    return _NORMAL.cdf(bias + drawn / (1 - acceleration * drawn))


def _resampled_means(values: Floats, resamples: int, seed: int) -> Floats:
    drawn = np.random.default_rng(seed)
    block = max(1, min(resamples, _CELLS_MAX // len(values)))
    means = []
    for first in range(0, resamples, block):
        at = drawn.integers(0, len(values), (min(block, resamples - first), len(values)))
        means.append(values[at].mean(axis=1))
    return np.concatenate(means)
