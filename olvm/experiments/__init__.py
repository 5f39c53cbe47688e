"""Placement experiments: real traces, fleets to run them on, runs of them, and their results.

    olvm.experiments.replay("trace.parquet", hosts="1000x64c256g", policy="best_fit")   who goes where
    olvm.experiments.run_grid("grid.toml", "results").compare()             which policy is better, and how sure that is
    olvm.experiments.planetlab(detector="lr", safety=1.2, selector="mmt")   one day of live migration and power
    olvm.experiments.import_trace("swf", "log.swf.gz", "log.parquet")       a published trace as the table for replays

Names are imported when they are asked for, so that `import olvm.experiments` loads neither DuckDB nor numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from olvm.experiments.consolidation.experiment import PlanetlabResult, planetlab
    from olvm.experiments.grids.results import Results, load_results
    from olvm.experiments.grids.running import run_grid
    from olvm.experiments.host_specs import HostFleet, parse_hosts
    from olvm.experiments.imports import IMPORTERS, ImportReport, import_trace
    from olvm.experiments.replays import replay
    from olvm.experiments.result import Result
    from olvm.experiments.table import Table
    from olvm.experiments.trace import Trace, read_trace

__all__ = [
    "IMPORTERS",
    "HostFleet",
    "ImportReport",
    "PlanetlabResult",
    "Result",
    "Results",
    "Table",
    "Trace",
    "import_trace",
    "load_results",
    "parse_hosts",
    "planetlab",
    "read_trace",
    "replay",
    "run_grid",
]

_MODULE_BY_NAME = {
    "HostFleet": "olvm.experiments.host_specs",
    "IMPORTERS": "olvm.experiments.imports",
    "ImportReport": "olvm.experiments.imports",
    "PlanetlabResult": "olvm.experiments.consolidation.experiment",
    "Result": "olvm.experiments.result",
    "Results": "olvm.experiments.grids.results",
    "Table": "olvm.experiments.table",
    "Trace": "olvm.experiments.trace",
    "import_trace": "olvm.experiments.imports",
    "load_results": "olvm.experiments.grids.results",
    "parse_hosts": "olvm.experiments.host_specs",
    "planetlab": "olvm.experiments.consolidation.experiment",
    "read_trace": "olvm.experiments.trace",
    "replay": "olvm.experiments.replays",
    "run_grid": "olvm.experiments.grids.running",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_BY_NAME[name]), name)
