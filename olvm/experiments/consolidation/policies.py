"""Runs a day's samples under a policy that is named: the bridge from names to the compiled simulation."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from olvm.experiments.compilation import IS_COMPILED
from olvm.experiments.consolidation.detectors import DETECTOR_NUMBERS, THR
from olvm.experiments.consolidation.placing import Policy
from olvm.experiments.consolidation.plant import (
    SAMPLE_COUNT,
    Floats,
    build_plant,
    empty_ledger,
    empty_state,
)
from olvm.experiments.consolidation.running import run_day
from olvm.experiments.consolidation.selectors import SELECTOR_NUMBERS

__all__ = ["IS_COMPILED", "Figures", "prepare", "run"]


class Figures(NamedTuple):
    """What came of a day. `slatah` and `pdm` are fractions; 0 where nothing ran."""

    energy_ws: float
    migrations: int
    slatah: float
    pdm: float
    host_shutdowns: int
    unplaced: int


@cache
def prepare() -> None:
    """Compile the simulation or load it, by a day so small that it takes no time."""
    if IS_COMPILED:
        run(np.full((4, SAMPLE_COUNT), 0.5), "thr", 0.8, "mmt", 0, 2)


def run(load: Floats, detector: str, safety: float, selector: str, seed: int, host_count: int) -> Figures:
    """One day. `load` is n × 288 in 0..1; the names must be known ones, or `dvfs` for a day without moves."""
    plant = build_plant(load, host_count)
    state = empty_state(len(load), host_count)
    ledger = empty_ledger(len(load), host_count)
    day = run_day(
        plant,
        state,
        ledger,
        Policy(
            DETECTOR_NUMBERS.get(detector, THR),
            float(safety),
            SELECTOR_NUMBERS[selector],
            np.random.default_rng(seed),
        ),
        detector in DETECTOR_NUMBERS,
    )
    active_s = float(ledger.host_active_s.sum())
    asked_mips_s = float(ledger.vm_asked_mips_s.sum())
    return Figures(
        energy_ws=float(day.energy_ws),
        migrations=int(day.migrations),
        slatah=float(ledger.host_violated_s.sum()) / active_s if active_s else 0.0,
        pdm=float(ledger.vm_lost_mips_s.sum()) / asked_mips_s if asked_mips_s else 0.0,
        host_shutdowns=int(ledger.host_shutdowns.sum()),
        unplaced=int(day.unplaced),
    )
