"""Grids of the PlanetLab experiment: detector × safety × selector over days, and what each of its runs is.

Decides the words of such a grid and which runs it has. Policies are compared day by day: on one day all of them had the
same load. Only the selector `rs` draws, so it alone is run for each seed, and the mean over the seeds is its figure of
the day: runs of one day are no further evidence of how days differ.
"""

from __future__ import annotations

import hashlib
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from olvm.experiments.consolidation.days import BUNDLED_PATH, read_day
from olvm.experiments.consolidation.experiment import (
    DVFS,
    SAFETY_BY_DETECTOR,
    SELECTORS,
    checked_safety,
    planetlab,
)
from olvm.experiments.grids.definition import Name, check_cell_count, check_once
from olvm.model.errors import BadInput
from olvm.version import VERSION

# Figures of a day that policies can be ranked by; less is better in all of them.
PlanetlabMetric = Literal[
    "esv", "energy_kwh", "slav", "slatah_percent", "pdm_percent", "migrations", "host_shutdowns"
]
METRICS: tuple[PlanetlabMetric, ...] = (
    "esv",
    "energy_kwh",
    "slav",
    "slatah_percent",
    "pdm_percent",
    "migrations",
    "host_shutdowns",
)
DRAWING_SELECTOR = "rs"


class PlanetlabGrid(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="experiment",
    tag="planetlab",
):
    """All detectors with all selectors, on all days. `data` as `planetlab` takes it, relative to the grid's own folder.

    `safety`: by detector, the values to try; of one that is left out the usual one. `seeds`: a list, or how many, from
    0; for `rs` alone.
    """

    days: tuple[Name, ...]
    data: str = ""
    detectors: tuple[Name, ...] = tuple(SAFETY_BY_DETECTOR)
    selectors: tuple[Name, ...] = SELECTORS
    safety: dict[str, tuple[float, ...]] = {}
    hosts: tuple[int, ...] = (800,)
    seeds: tuple[int, ...] | Annotated[int, msgspec.Meta(ge=0)] = 1
    metric: PlanetlabMetric = "esv"
    name: str = ""

    TABLES: ClassVar[dict[str, type[msgspec.Struct]]] = {}
    METRICS: ClassVar[tuple[str, ...]] = METRICS

    @property
    def seed_list(self) -> tuple[int, ...]:
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def combinations(self) -> dict[str, tuple[str, float | None, str]]:
        """Detector, safety and selector of each policy, by its name."""
        found: dict[str, tuple[str, float | None, str]] = {}
        for detector in self.detectors:
            if detector == DVFS:
                found[DVFS] = (DVFS, None, "")  # nothing moves
                continue
            for safety, selector in product(self.safety.get(detector) or (None,), self.selectors):
                factor = SAFETY_BY_DETECTOR[detector] if safety is None else safety
                found[f"{detector}-{factor:g}-{selector}"] = (detector, factor, selector)
        return found

    @property
    def policies(self) -> tuple[str, ...]:
        return tuple(self.combinations)

    def path(self, folder: Path) -> Path:
        return (folder / self.data).absolute() if self.data else BUNDLED_PATH


class PlanetlabCell(msgspec.Struct, frozen=True, kw_only=True, tag_field="experiment", tag="planetlab"):
    """One day under one policy."""

    policy: str
    day: str
    seed: int
    hosts: int
    detector: str
    safety: float | None
    selector: str
    data: str
    id: str = ""

    BLOCK: ClassVar[str] = "day"
    # Of `results.runs`: names of keys and figures, and what numpy calls their types.
    KEYS: ClassVar[dict[str, str]] = {
        "day": "O",
        "policy": "O",
        "detector": "O",
        "safety": "f8",
        "selector": "O",
        "hosts": "i8",
        "seed": "i8",
    }
    FIGURES: ClassVar[dict[str, str]] = {
        "vms": "i8",
        "unplaced": "i8",
        "energy_kwh": "f8",
        "migrations": "i8",
        "slatah_percent": "f8",
        "pdm_percent": "f8",
        "slav": "f8",
        "esv": "f8",
        "host_shutdowns": "i8",
    }

    @property
    def scenario(self) -> dict[str, Any]:
        """What stays the same where only policies and days are compared."""
        return {"hosts": self.hosts}

    @property
    def scenario_title(self) -> str:
        return f"{self.hosts} hosts"

    @property
    def block(self) -> str:
        """Within which policies are compared."""
        return self.day

    def title(self) -> str:
        seed = f", seed {self.seed}" if self.selector == DRAWING_SELECTOR else ""
        return f"{self.policy} on {self.day} with {self.hosts} hosts{seed}"

    def run(self) -> dict[str, Any]:
        """Its figures. Raises what `planetlab` does."""
        result = planetlab(
            self.data,
            self.day,
            detector=self.detector,
            safety=self.safety,
            selector=self.selector or SELECTORS[0],
            seed=self.seed,
            hosts=self.hosts,
        )
        return {name: getattr(result, name) for name in self.FIGURES}


def planetlab_cells(grid: PlanetlabGrid, folder: Path) -> list[PlanetlabCell]:
    """Day by day all policies, so that early results can be compared. Cost: each day is read once, for its digest."""
    path = grid.path(folder)
    digest_of = cache(_day_digest)
    cells = []
    for hosts, day in product(grid.hosts, grid.days):
        for policy, (detector, safety, selector) in grid.combinations.items():
            for seed in grid.seed_list if selector == DRAWING_SELECTOR else (0,):
                cell = PlanetlabCell(
                    policy=policy,
                    day=day,
                    seed=seed,
                    hosts=hosts,
                    detector=detector,
                    safety=safety,
                    selector=selector,
                    data=str(path),
                )
                decides = (VERSION, digest_of(path, day), policy, day, seed, hosts)
                id_ = hashlib.sha256(msgspec.json.encode(decides)).hexdigest()[:24]
                cells.append(msgspec.structs.replace(cell, id=id_))
    check_cell_count(len(cells))
    return cells


def _day_digest(path: Path, day: str) -> str:
    names, percentages = read_day(path, day)
    return hashlib.sha256("\n".join(names).encode() + percentages.tobytes()).hexdigest()


def check_planetlab_grid(grid: PlanetlabGrid, folder: Path) -> None:
    """Raises BadInput or NotFound for what makes no sense, or is not there."""
    for name in ("days", "detectors", "selectors", "hosts"):
        if not getattr(grid, name):
            raise BadInput(f"{name} is empty: give at least one")
        check_once(name, getattr(grid, name))
    if not grid.seed_list:
        raise BadInput("seeds is empty: give at least one")
    check_once("seeds", grid.seed_list)
    for detector in grid.safety:
        if detector not in grid.detectors:
            raise BadInput(
                f"safety has {detector}, which detectors has not: leave it out, or add the detector"
            )
        # As policies are named: two that differ by less would be one.
        check_once(f"safety.{detector}", [f"{safety:g}" for safety in grid.safety[detector]])
    for detector, selector, seed, hosts in product(
        grid.detectors, grid.selectors, (min(grid.seed_list), max(grid.seed_list)), grid.hosts
    ):
        for safety in grid.safety.get(detector) or (None,):
            checked_safety(detector, safety, selector, seed, hosts)
    for day in grid.days:
        read_day(grid.path(folder), day)
