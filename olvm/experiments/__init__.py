"""Placement experiments: real traces, fleets to run them on, runs of them, and their results.

    olvm.experiments.planetlab(detector="lr", safety=1.2, selector="mmt")   one day of live migration and power
    olvm.experiments.import_trace("swf", "log.swf.gz", "log.parquet")       a published trace as the table for replays

Names are imported when they are asked for, so that `import olvm.experiments` loads neither DuckDB nor numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from olvm.experiments.consolidation.experiment import PlanetlabResult, planetlab
    from olvm.experiments.imports import IMPORTERS, ImportReport, import_trace

__all__ = ["IMPORTERS", "ImportReport", "PlanetlabResult", "import_trace", "planetlab"]

_MODULE_BY_NAME = {
    "IMPORTERS": "olvm.experiments.imports",
    "ImportReport": "olvm.experiments.imports",
    "import_trace": "olvm.experiments.imports",
    "PlanetlabResult": "olvm.experiments.consolidation.experiment",
    "planetlab": "olvm.experiments.consolidation.experiment",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_BY_NAME[name]), name)
