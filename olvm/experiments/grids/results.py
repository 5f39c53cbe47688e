"""The results of a grid as tables, for Python, notebooks and reports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from olvm.experiments.database import cursor
from olvm.experiments.grids.log import read_folder
from olvm.experiments.grids.reading import AnyGrid
from olvm.experiments.grids.worker import AnyCell, Outcome
from olvm.experiments.table import Table
from olvm.model.errors import BadInput
from olvm.model.search import nearest

if TYPE_CHECKING:
    from olvm.experiments.grids.comparison import Comparison


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a grid has found so far. `runs` has a row for each run that is done; `failures` say why others are not."""

    folder: Path
    grid: AnyGrid
    cells: list[AnyCell]
    outcomes: dict[str, Outcome]

    @property
    def done(self) -> list[tuple[AnyCell, Outcome]]:
        pairs = ((cell, self.outcomes.get(cell.id)) for cell in self.cells)
        return [(cell, outcome) for cell, outcome in pairs if outcome is not None and not outcome.error]

    @property
    def failures(self) -> list[tuple[AnyCell, str]]:
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
        """Keys (of replays topology, trace, policy, queue, numa_nodes, split_above_gib, seed), then each run's figures.

        In the grid's order, and equal however often it was killed on the way: what differs from run to run (rates,
        times) is in `runs.jsonl`.
        """
        done = self.done
        kind = type(self.cells[0])
        columns: dict[str, Any] = {}
        for key, dtype in kind.KEYS.items():
            columns[key] = _column([getattr(cell, key) for cell, _ in done], dtype)
        for name, dtype in kind.FIGURES.items():
            columns[name] = _column([outcome.figures[name] for _, outcome in done], dtype)
        return Table(columns)

    def compare(self, metric: str | None = None) -> Comparison:
        """Policies against each other in each scenario; `metric` None: the grid's own. BadInput for one it has not."""
        from olvm.experiments.grids.comparison import compare

        if metric is not None and metric not in self.grid.METRICS:
            known = self.grid.METRICS
            raise BadInput(
                f"these runs have no metric {metric}{nearest(metric, known)}; choose from {', '.join(known)}"
            )
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


def _column(values: list[Any], dtype: str) -> Any:
    """None is a gap; a text or a number otherwise."""
    if None not in values or dtype == "O":
        return np.array(values, dtype=object if dtype == "O" else dtype)
    is_none = [value is None for value in values]
    return np.ma.masked_array([value or 0.0 for value in values], mask=is_none, dtype=dtype)


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
