"""Placement experiments: real traces, fleets to run them on, runs of them, and their results.

    olvm.experiments.planetlab(detector="lr", safety=1.2, selector="mmt")   one day of live migration and power

Names are imported when they are asked for, so that `import olvm.experiments` loads neither DuckDB nor numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from olvm.experiments.consolidation.experiment import PlanetlabResult, planetlab

__all__ = ["PlanetlabResult", "planetlab"]

_MODULE_BY_NAME = {
    "PlanetlabResult": "olvm.experiments.consolidation.experiment",
    "planetlab": "olvm.experiments.consolidation.experiment",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_BY_NAME[name]), name)
