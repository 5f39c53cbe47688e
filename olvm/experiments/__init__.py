"""Placement experiments: real traces, fleets to run them on, replays, and consolidation with power.

    from olvm.experiments import replay
    replay("trace.parquet", hosts="1000x64c256g", policy="best_fit").summary()

Importing this loads neither DuckDB nor NumPy nor numba; the first replay does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olvm.experiments.host_specs import HostFleet, parse_hosts
    from olvm.experiments.replays import replay
    from olvm.experiments.result import Result
    from olvm.experiments.table import Table
    from olvm.experiments.trace import Trace, read_trace

__all__ = ["HostFleet", "Result", "Table", "Trace", "parse_hosts", "read_trace", "replay"]

_MODULE_BY_NAME = {
    "HostFleet": "host_specs",
    "Result": "result",
    "Table": "table",
    "Trace": "trace",
    "parse_hosts": "host_specs",
    "read_trace": "trace",
    "replay": "replays",
}


def __getattr__(name: str) -> Any:
    if name in _MODULE_BY_NAME:
        import importlib

        return getattr(importlib.import_module(f"olvm.experiments.{_MODULE_BY_NAME[name]}"), name)
    raise AttributeError(f"module 'olvm.experiments' has no attribute {name!r}")
