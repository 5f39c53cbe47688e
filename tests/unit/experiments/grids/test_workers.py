"""Workers that end: their runs are made by others, and a run that ends every worker is told of."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from olvm.experiments.grids.cells import Cell
from olvm.experiments.grids.reading import read_grid
from olvm.experiments.grids.running import LOSSES_MAX, _spread, cells_of
from olvm.experiments.grids.worker import Outcome
from tests.unit.experiments.grids.small import small_grid


class MortalPool(Executor):
    """Ends the worker of a call when `dies` says so; every other call brings an outcome for each cell."""

    def __init__(self, dies: Callable[[list[Cell]], bool]) -> None:
        self._dies = dies
        self.chunks: list[list[str]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        cells: list[Cell] = args[0]
        self.chunks.append([cell.id for cell in cells])
        future: Future[Any] = Future()
        if self._dies(cells):
            future.set_exception(RuntimeError("the node died"))
        else:
            future.set_result([Outcome(id=cell.id, took_s=0.001) for cell in cells])
        return future


def spread(folder: Path, dies: Callable[[list[Cell]], bool]) -> tuple[list[Cell], dict[str, str], MortalPool]:
    cells = cells_of(*read_grid(small_grid(folder, seeds=40)))
    pool = MortalPool(dies)
    errors: dict[str, str] = {}
    for outcomes in _spread(cells, [], pool, 2):
        for outcome in outcomes:
            assert outcome.id not in errors, "told once"
            errors[outcome.id] = outcome.error
    return cells, errors, pool


def test_runs_of_a_worker_that_ended_are_made_by_another(tmp_path: Path) -> None:
    deaths = iter([False, False, False, True, True])
    cells, errors, pool = spread(tmp_path, lambda _cells: next(deaths, False))
    assert errors == {cell.id: "" for cell in cells}
    lost = pool.chunks[3] + pool.chunks[4]
    assert len(lost) > 2, "workers had several runs each"
    assert pool.chunks[-len(lost) :] == [[one] for one in lost]


def test_run_that_ends_each_worker_is_given_up_and_told_and_takes_no_other_with_it(tmp_path: Path) -> None:
    cells = cells_of(*read_grid(small_grid(tmp_path, seeds=40)))
    deadly = cells[100].id
    _, errors, pool = spread(tmp_path, lambda chunk: deadly in [cell.id for cell in chunk])
    assert set(errors) == {cell.id for cell in cells}
    failed = {id_: error for id_, error in errors.items() if error}
    assert failed == {
        deadly: f"its worker ended, {LOSSES_MAX + 1} times: RuntimeError: the node died",
    }
    assert sum(deadly in chunk for chunk in pool.chunks) == LOSSES_MAX + 1
