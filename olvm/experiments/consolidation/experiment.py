"""The experiment's face: one day of PlanetLab under one policy, and its figures.

Decides what may be asked for; knows nothing of how a day is run.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import msgspec

from olvm.model.errors import BadInput
from olvm.model.search import nearest

DVFS = "dvfs"
SAFETY_BY_DETECTOR = {"thr": 0.8, "iqr": 1.5, "mad": 2.5, "lr": 1.2, "lrr": 1.2}
SAFETY_MAX_BY_DETECTOR = {"thr": 1.0, "iqr": 10.0, "mad": 10.0, "lr": 10.0, "lrr": 10.0}
DETECTORS = (*SAFETY_BY_DETECTOR, DVFS)
SELECTORS = ("mmt", "mc", "mu", "rs")
HOST_COUNT_MIN, HOST_COUNT_MAX = 2, 10_000
SEED_MAX = 2**63 - 1
WS_PER_KWH = 3_600_000.0


class PlanetlabResult(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one day. Everything but the two CPU times is the same for the same inputs, on any machine."""

    day: str
    detector: str
    # None for `dvfs`, under which nothing moves.
    selector: str | None
    # The bound of `thr`, the factor of the others; None for `dvfs`.
    safety: float | None
    # Only `rs` draws from it.
    seed: int
    vms: int
    # VMs that found no host at the start and take no part; 0 in all the days of PlanetLab.
    unplaced: int
    hosts: int
    energy_kwh: float
    migrations: int
    # The share of hosts' active time in which they gave less than was asked for.
    slatah_percent: float
    # The share of asked-for MIPS·s that migrations kept from their machines.
    pdm_percent: float
    # Of fractions, not of percentages: SLATAH · PDM, as CloudSim and the paper give it.
    slav: float
    # Energy in kWh times SLAV.
    esv: float
    # A host that never had any load counts as one.
    host_shutdowns: int
    # CPU seconds for reading the day and running it.
    cpu_s: float
    # CPU seconds for compiling it: about 20 once for each installation, then some tenths to load it.
    compile_cpu_s: float
    # False without numba: the same figures in some seventy times the time.
    compiled: bool


def planetlab(
    data: str | os.PathLike[str] | None = None,
    day: str = "20110303",
    *,
    detector: str = "lr",
    safety: float | None = None,
    selector: str = "mmt",
    seed: int = 0,
    hosts: int = 800,
) -> PlanetlabResult:
    """Run one day of PlanetLab under a consolidation policy, as CloudSim 3.0.3 does.

    Args:
        data: a Parquet file with the columns `day`, `name`, `cpu_pct`, or a folder of a day's files, or of folders
            named by day; None for the bundled day. VMs are taken in the order of their names.
        day: a day in `data`, as `20110303`.
        detector: when a host is overloaded: `thr`, `iqr`, `mad`, `lr`, `lrr`; or `dvfs`: nothing moves.
        safety: `thr`: the bound of utilisation, over 0 to 1; `iqr`, `mad`: 0 to 10; `lr`, `lrr`: over 0 to 10.
            None for the usual one: 0.8, 1.5, 2.5, 1.2, 1.2. `dvfs` has none.
        selector: which machine leaves: `mmt`, `mc`, `mu`, `rs`. `dvfs` has none.
        seed: what `rs` draws from, 0 or more.
        hosts: 2 to 10,000, of the two kinds in turn.

    Raises:
        BadInput: an unknown policy, a parameter out of range, or data that is not such a day.
        NotFound: there is no such file, or no such day in it.

    Cost: 0.3 s for a day of a thousand VMs and 800 hosts (`mc` 0.8 s); the first call of an installation compiles for
    about 20 s; without numba 18 s and more.

    Source: Beloglazov & Buyya, Concurrency and Computation 24(13), 2012; docs/planetlab.md says what is different.
    """
    detector, selector = detector.lower(), selector.lower()
    factor = checked_safety(detector, safety, selector, seed, hosts)

    from olvm.experiments.consolidation import days, policies

    began = time.process_time()
    policies.prepare()
    prepared = time.process_time()
    path = days.BUNDLED_PATH if data is None else Path(data)
    names, percentages = days.read_day(path, day)
    figures = policies.run(percentages / 100.0, detector, factor, selector, seed, hosts)
    slav = figures.slatah * figures.pdm
    energy_kwh = figures.energy_ws / WS_PER_KWH
    return PlanetlabResult(
        day=day,
        detector=detector,
        selector=None if detector == DVFS else selector,
        safety=None if detector == DVFS else factor,
        seed=seed,
        vms=len(names),
        unplaced=figures.unplaced,
        hosts=hosts,
        energy_kwh=energy_kwh,
        migrations=figures.migrations,
        slatah_percent=100 * figures.slatah,
        pdm_percent=100 * figures.pdm,
        slav=slav,
        esv=energy_kwh * slav,
        host_shutdowns=figures.host_shutdowns,
        cpu_s=time.process_time() - prepared,
        compile_cpu_s=prepared - began,
        compiled=policies.IS_COMPILED,
    )


def checked_safety(detector: str, safety: float | None, selector: str, seed: int, hosts: int) -> float:
    """The safety parameter to use; 0 for `dvfs`. Raises BadInput for what `planetlab` does not take."""
    if detector not in DETECTORS:
        raise BadInput(
            f"there is no detector {detector}{nearest(detector, DETECTORS)}; choose from {', '.join(DETECTORS)}"
        )
    if selector not in SELECTORS:
        raise BadInput(
            f"there is no selector {selector}{nearest(selector, SELECTORS)}; choose from {', '.join(SELECTORS)}"
        )
    if not 0 <= seed <= SEED_MAX:
        raise BadInput(f"{seed} is no seed: give a whole number from 0 to {SEED_MAX}")
    if not HOST_COUNT_MIN <= hosts <= HOST_COUNT_MAX:
        raise BadInput(
            f"cannot run with {hosts} hosts: give {HOST_COUNT_MIN} to {HOST_COUNT_MAX}, of the two kinds in turn"
        )
    if detector == DVFS:
        return 0.0
    factor = SAFETY_BY_DETECTOR[detector] if safety is None else float(safety)
    highest = SAFETY_MAX_BY_DETECTOR[detector]
    may_be_zero = detector in ("iqr", "mad")
    if not math.isfinite(factor) or factor > highest or factor < 0 or (factor == 0 and not may_be_zero):
        least = "from 0" if may_be_zero else "over 0"
        raise BadInput(
            f"safety {safety} is out of range for {detector}: give a number {least} up to {highest:g} "
            f"(usual: {SAFETY_BY_DETECTOR[detector]:g})"
        )
    return factor
