"""Watts of a host by its utilisation, and the energy between two looks; the tables are `olvm.experiments.power`'s.

Rule: the order of operations is fixed. Placement compares rises of power that are equal on paper on all hosts of one
kind within one tenth of utilisation, so that the last bit of a float decides where a machine goes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from olvm.experiments.compilation import allocating

Floats = npt.NDArray[np.float64]

TENTHS = np.arange(11) / 10


def rises(watts: Floats) -> Floats:
    """Watts per percent from each point of the table to the next; 0 from the last one."""
    rise = np.zeros_like(watts)
    rise[:, :-1] = (watts[:, 1:] - watts[:, :-1]) / 10
    return rise


@allocating
def watts_at(watts: Floats, rise: Floats, utilisation: float) -> float:
    """The power of a host whose table is `watts` (11 points); `utilisation` in 0..1."""
    place = utilisation * 10
    point = min(int(place), 10)
    if place == point:
        return float(watts[point])
    return float(watts[point] + rise[point] * (utilisation - TENTHS[point]) * 100)


@allocating
def utilisation_of(used_mips: float, host_mips: float) -> float:
    """A fraction; what a rounding error lifts over 1 is 1."""
    utilisation = used_mips / host_mips
    if 1 < utilisation < 1.01:
        return 1.0
    return utilisation


@allocating
def energy_ws(watts: Floats, rise: Floats, before: float, now: float, span_s: float) -> float:
    """Watt-seconds of a host between two utilisations. A host that was off before counts nothing."""
    if before == 0:
        return 0.0
    from_w = watts_at(watts, rise, before)
    to_w = watts_at(watts, rise, now)
    return (from_w + (to_w - from_w) / 2) * span_s
