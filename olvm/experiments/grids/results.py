"""The results of a grid as tables, for Python, notebooks and reports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from olvm.experiments.database import cursor
from olvm.experiments.grids.cells import Cell
from olvm.experiments.grids.definition import Grid, Metric
from olvm.experiments.grids.log import read_folder
from olvm.experiments.grids.worker import Outcome
from olvm.experiments.table import Table
from olvm.model.errors import BadInput

if TYPE_CHECKING:
    from olvm.experiments.grids.comparison import Comparison

KEYS = ("topology", "trace", "policy", "queue", "numa_nodes", "split_above_gib", "seed")
COUNTS = ("vm_count", "placed", "rejected", "waiting", "hosts_used", "hosts_peak", "bound_hosts", "regret")
TIMES = ("wait_s_total", "wait_s_max")


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a grid has found so far. `runs` has a row for each run that is done; `failures` say why others are not."""

    folder: Path
    grid: Grid
    cells: list[Cell]
    outcomes: dict[str, Outcome]

    @property
    def done(self) -> list[tuple[Cell, Outcome]]:
        pairs = ((cell, self.outcomes.get(cell.id)) for cell in self.cells)
        return [(cell, outcome) for cell, outcome in pairs if outcome is not None and not outcome.error]

    @property
    def failures(self) -> list[tuple[Cell, str]]:
        pairs = ((cell, self.outcomes.get(cell.id)) for cell in self.cells)
        return [(cell, outcome.error) for cell, outcome in pairs if outcome is not None and outcome.error]

    @property
    def missing_count(self) -> int:
        return sum(cell.id not in self.outcomes for cell in self.cells)

    @property
    def is_whole(self) -> bool:
        """All runs are done, and none has failed."""
        return len(self.done) == len(self.cells)

    @cached_property
    def runs(self) -> Table:
        """Keys (topology, trace, policy, queue, numa_nodes, split_above_gib, seed), then the figures of a replay.

        In the grid's order, and equal however often it was killed on the way: what differs from run to run (rates,
        times) is in `runs.jsonl`.
        """
        done = self.done
        columns: dict[str, Any] = {}
        for key in KEYS:
            values = [getattr(cell, key) for cell, _ in done]
            if key == "split_above_gib":
                is_none = [value is None for value in values]
                columns[key] = np.ma.masked_array(
                    [value or 0.0 for value in values], mask=is_none, dtype=np.float64
                )
            elif key in ("numa_nodes", "seed"):
                columns[key] = np.array(values, dtype=np.int64)
            else:
                columns[key] = np.array(values, dtype=object)
        for name in (*COUNTS, *TIMES):
            kind = np.int64 if name in COUNTS else np.float64
            columns[name] = np.array([outcome.figures[name] for _, outcome in done], dtype=kind)
        columns["digest"] = np.array([outcome.figures["digest"] for _, outcome in done], dtype=object)
        return Table(columns)

    def compare(self, metric: Metric | None = None) -> Comparison:
        """Policies against each other in each scenario; `metric` None: the grid's own."""
        from olvm.experiments.grids.comparison import compare

        return compare(self, metric or self.grid.metric)

    def to_pandas(self) -> Any:
        return self.runs.to_pandas()

    def to_polars(self) -> Any:
        return self.runs.to_polars()

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return self.runs.__arrow_c_stream__(requested_schema)

    def _repr_html_(self) -> str:
        from olvm.experiments.grids.report import fragment

        return fragment(self)


def load_results(folder: str | Path) -> Results:
    """What is in the folder of a grid, also while it is being run. Raises NotFound where no grid wrote."""
    place = Path(folder)
    grid, cells, outcomes = read_folder(place)
    if not cells:
        raise BadInput(f"the grid in {place} has no runs")
    return Results(folder=place, grid=grid, cells=cells, outcomes=outcomes)


def write_runs(results: Results, path: Path) -> None:
    """`runs` as Parquet, whole or not at all; equal results give equal bytes."""
    fresh = path.with_name(path.name + ".new")
    with cursor() as connection:
        connection.register("runs", {name: results.runs[name] for name in results.runs.columns})
        connection.table("runs").write_parquet(str(fresh), compression="zstd")
    fresh.replace(path)
