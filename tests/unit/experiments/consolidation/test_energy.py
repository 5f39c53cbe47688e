"""Watts between the points of a table, and the energy between two looks."""

from __future__ import annotations

import numpy as np
import pytest

from olvm.experiments.consolidation.energy import energy_ws, rises, utilisation_of, watts_at
from olvm.experiments.power import POWER_MODELS

G4 = np.asarray(POWER_MODELS["hp-ml110-g4"])
RISE = rises(G4[np.newaxis])[0]


@pytest.mark.parametrize("tenth", range(11))
def test_watts_at_a_point_of_the_table_are_its(tenth: int) -> None:
    assert watts_at(G4, RISE, tenth / 10) == pytest.approx(G4[tenth], abs=1e-12)


@pytest.mark.parametrize(
    ("utilisation", "watts"), [(0.05, 87.7), (0.25, 94.3), (0.99, 116.7), (0.101, 89.432), (1e-9, 86.0)]
)
def test_watts_between_points_lie_on_the_line(utilisation: float, watts: float) -> None:
    assert watts_at(G4, RISE, utilisation) == pytest.approx(watts, abs=1e-6)


def test_utilisation_lifted_over_one_by_rounding_is_one() -> None:
    assert utilisation_of(3720.000001, 3720.0) == 1.0
    assert utilisation_of(1860.0, 3720.0) == 0.5


def test_energy_is_the_mean_of_both_powers_times_the_span() -> None:
    assert energy_ws(G4, RISE, 0.1, 0.3, 300.0) == pytest.approx((89.4 + 96.0) / 2 * 300)


def test_energy_of_a_host_that_was_off_is_nothing() -> None:
    assert energy_ws(G4, RISE, 0.0, 0.5, 300.0) == 0.0
