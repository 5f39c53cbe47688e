"""One run of a grid, in whichever process: from a cell to its figures.

Rule: what is wrong with one cell (a policy that raises, hosts that make no sense) is its outcome and ends no other;
a fault of ours ends the grid.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from olvm.experiments.grids.cells import Cell
from olvm.experiments.grids.planetlab import PlanetlabCell
from olvm.experiments.grids.sampling import sampled
from olvm.experiments.replays import replay
from olvm.experiments.result import FIGURES
from olvm.experiments.trace import OnBad, Trace, read_trace
from olvm.model.errors import OlvmError

AnyCell = Cell | PlanetlabCell
TRACES_KEPT_MAX = 4  # in the memory of a worker


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a cell. `figures` are equal whenever it is run; `took_s` and the rates are not."""

    id: str
    figures: dict[str, Any] = {}
    error: str = ""
    took_s: float = 0.0
    kernel_placements_per_s: float = 0.0


def run_cells(cells: Sequence[AnyCell], search_path: Sequence[str]) -> list[Outcome]:
    """`search_path`: where classes of one's own are imported from."""
    for folder in reversed(search_path):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    return [_run(cell) for cell in cells]


def _run(cell: AnyCell) -> Outcome:
    began_s = time.perf_counter()
    rate = 0.0
    try:
        if isinstance(cell, PlanetlabCell):
            figures = cell.run()
        else:
            figures, rate = _replayed(cell)
    except (OlvmError, OSError, MemoryError) as error:
        return Outcome(
            id=cell.id, error=str(error) or type(error).__name__, took_s=time.perf_counter() - began_s
        )
    return Outcome(
        id=cell.id, figures=figures, took_s=time.perf_counter() - began_s, kernel_placements_per_s=rate
    )


def _replayed(cell: Cell) -> tuple[dict[str, Any], float]:
    """The figures of a replay, and how many placements a second its loop made."""
    trace = sampled(_trace(cell.trace_path, cell.on_bad), cell.window_vms, cell.keep, cell.seed)
    result = replay(
        trace,
        cell.hosts,
        numa_nodes=cell.numa_nodes,
        split_above_gib=cell.split_above_gib,
        policy=cell.policy,
        queue=cell.queue,  # type: ignore[arg-type]
        seed=cell.seed,
    )
    figures = {name: getattr(result, name) for name in FIGURES if name != "seed"}
    figures["regret"] = result.hosts_peak - result.bound_hosts
    return figures, result.kernel_placements_per_s


@lru_cache(maxsize=TRACES_KEPT_MAX)
def _trace(path: str, on_bad: OnBad) -> Trace:
    return read_trace(path, on_bad=on_bad)
